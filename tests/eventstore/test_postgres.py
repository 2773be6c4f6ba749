"""The PostgreSQL store keeps the contract, whatever becomes of its server."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from assay.errors import Conflict, Invalid, Unavailable
from assay.events.postgres import _INSERT as INSERT
from assay.eventstore import postgres as module_of_store
from assay.eventstore import postgres_intake as module
from assay.eventstore.base import (
    Appended,
    EventFilter,
    EventImport,
    EventStore,
    FileFormat,
    Imported,
    LedgerReason,
    Scope,
)
from assay.eventstore.postgres import PostgresStore
from contracts.columns import ColumnContract
from contracts.event_store import DAY, NOW, PURCHASES, SCOPE, Feed, KeepingContract, event
from contracts.imports import ImportContract
from contracts.listing import ListingContract
from contracts.questions import QuestionContract
from contracts.reversals import ReversalContract
from contracts.rollups import RollupContract
from contracts.trust import TrustContract
from live import until
from postgresql import Postgres


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Callable[[], PostgresStore]]:
    with ExitStack() as opened:

        def empty() -> PostgresStore:
            store = PostgresStore(opened.enter_context(postgres.database()), memory="256MiB")
            opened.callback(store.close)
            store.prepare()
            return store

        yield empty


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url, memory="256MiB")
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def reopened(store: PostgresStore, postgres_url: str) -> Iterator[Callable[[], PostgresStore]]:
    with ExitStack() as opened:

        def reopened() -> PostgresStore:
            store.close()
            again = PostgresStore(postgres_url, memory="256MiB")
            opened.callback(again.close)
            again.prepare()
            return again

        yield reopened


class AcknowledgedFeed(Feed):
    """Writes what the acknowledging path would write, with numbers that the database gives."""

    def __init__(self, store: EventStore) -> None:
        assert isinstance(store, PostgresStore)
        super().__init__(store)
        self._writing = store._writing

    def events(self, *events: dict[str, Any], rejections: Iterable[tuple[Any, ...]] = ()) -> Appended:
        assert not rejections
        with self._writing.connection() as connection:
            rows = psycopg.RawCursor(connection).execute(INSERT, [json.dumps(events)]).rowcount
        return Appended(rows, len(events) - rows, 0)

    def assign(
        self, *rows: tuple[str, int], experiment: int = 1, phase: int = 0, at: int = NOW - DAY
    ) -> Appended:
        self.assigned += len(rows)
        with self._writing.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO assignments (experiment_id, unit_id, variant_id, phase, assigned_at) "
                "VALUES (%s, %s, %s, %s, %s)",
                [(experiment, unit_id, variant_id, phase, at) for unit_id, variant_id in rows],
            )
        return Appended(0, 0, len(rows))


class TestRollups(RollupContract):
    """Totals are kept behind events that come in one by one."""

    @pytest.fixture
    def feeding(self) -> Callable[[EventStore], Feed]:
        return AcknowledgedFeed


class TestPostgres(
    KeepingContract,
    QuestionContract,
    ListingContract,
    ImportContract,
    ColumnContract,
    ReversalContract,
    TrustContract,
):
    """All of the contract, but for totals that are kept, which need another feed."""


def opened(url: str, **options: Any) -> PostgresStore:
    store = PostgresStore(url, memory="256MiB", **options)
    store.prepare()
    return store


def test_preparing_is_done_once_by_however_many(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(6)]
    failed: list[Exception] = []

    def prepare(store: PostgresStore) -> None:
        try:
            store.prepare()
        except Exception as error:  # noqa: BLE001 - of any kind
            failed.append(error)

    threads = [threading.Thread(target=prepare, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert Feed(stores[0]).events(event("a")).events == 1
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE event_store_version SET version = 99")
    with pytest.raises(Conflict, match="of version 99; this program knows 4"):
        stores[0].prepare()
    for store in stores:
        store.close()


def test_without_tables_it_says_what_to_do(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    with pytest.raises(Unavailable, match="run `assay migrate`") as caught:
        store.event_counts(SCOPE)
    assert caught.value.code == "store_not_prepared"
    store.close()


def test_events_of_the_acknowledging_path_are_seen_at_once(
    store: PostgresStore, feed: Feed, postgres_url: str
) -> None:
    feed.assign(("a", 10))
    feed.events(event("a", id="logged", a=1.0))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for repeated in range(2):
            cursor = connection.execute(
                "INSERT INTO events (event_id, original_id, keyed, user_id, type, occurred_at, counts_until, "
                "received_at, amount) VALUES ('0199aaaa-bbbb-7000-8000-000000000001', NULL, true, 'a', "
                "'purchase', %(at)s, %(at)s, %(at)s, 2) ON CONFLICT (event_id, user_id) DO NOTHING",
                {"at": NOW + 1},
            )
            assert cursor.rowcount == 1 - repeated
    [arm] = store.moments(SCOPE, [PURCHASES])
    assert (arm.measures["purchases"].events, arm.measures["purchases"].total) == (2, 3.0)
    rows, _ = store.events(EventFilter(), 10)
    assert [row.event_id for row in rows] == ["0199aaaa-bbbb-7000-8000-000000000001", "logged"]
    assert rows[0].seq >= 10**15
    assert len(store.recent_keys(10)) == 2
    assert store.append((-1, 0), rejections=[(1, "purchase", "invalid", 3, ("\0 cut",))]) == (0, 0, 0)
    [entry] = [entry for entry in store.ledger(SCOPE) if entry.reason is LedgerReason.REJECTED]
    assert (entry.count, entry.samples) == (3, ("\ufdd0 cut",))


def test_a_watermark_knows_of_writes_that_are_not_committed_yet(
    store: PostgresStore, postgres_url: str
) -> None:
    before = store.watermark()
    with psycopg.connect(postgres_url) as writer:
        writer.execute(
            "INSERT INTO events (event_id, keyed, user_id, type, occurred_at, counts_until, received_at) "
            "VALUES (gen_random_uuid(), false, 'a', 'purchase', %(at)s, %(at)s, %(at)s)",
            {"at": NOW},
        )
        during = store.watermark()
        assert (before.settled, during.settled) == (True, False)
        assert during.mark != before.mark
        writer.commit()
        after = store.watermark()
        assert (after.mark, after.settled) == (during.mark, True)
        with writer.transaction():
            writer.execute(
                "INSERT INTO assignments (experiment_id, unit_id, variant_id, phase, assigned_at) "
                "VALUES (1, 'b', 10, 0, 0)"
            )
            assert not store.watermark().settled
    assert store.watermark().mark != after.mark


def test_a_store_belongs_to_one_log(store: PostgresStore) -> None:
    assert store.belong_to(7)
    assert store.belong_to(7)
    assert not store.belong_to(8)


def test_many_write_at_once(postgres_url: str) -> None:
    stores = [opened(postgres_url) for _ in range(3)]
    failed: list[Exception] = []
    taken: list[int] = []

    def write(store: PostgresStore, place: int) -> None:
        ids = [f"e{number}" for number in range(300)][:: -1 if place else 1]
        try:
            for start in range(0, 300, 30):
                sent = [event("a", id=one) for one in ids[start : start + 30]]
                lines = json.dumps([{"q": place, "i": start, "b": sent}])
                taken.append(store.append((-1, 0), lines).events)
        except Exception as error:  # noqa: BLE001 - of any kind
            failed.append(error)

    threads = [threading.Thread(target=write, args=(store, place)) for place, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(taken) == 300
    rows, _ = stores[0].events(EventFilter(), 1_000)
    assert sorted(row.event_id for row in rows) == sorted(f"e{number}" for number in range(300))
    for store in stores:
        store.close()


def test_behind_a_pooler_nothing_is_kept_in_a_session(postgres_url: str) -> None:
    store = opened(postgres_url, prepared=False, connections=2)
    feed = Feed(store)
    feed.assign(("a", 10))
    for number in range(8):
        feed.events(event("a", a=float(number)))
        assert store.moments(SCOPE, [PURCHASES])[0].measures["purchases"].events == number + 1
    for pool in (store._writing, store._reading):
        with pool.connection() as connection:
            left = connection.execute(
                "SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('statement_timeout'), "
                "(SELECT count(*) FROM pg_class WHERE relname = 'incoming'), "
                "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
            ).fetchone()
            assert left == (0, "0", 0, 0)
    store.close()


def test_a_question_that_takes_too_long_is_ended(postgres_url: str) -> None:
    store = opened(postgres_url, statement_timeout=0.2)
    with pytest.raises(Unavailable, match="longer than the setting allows") as caught:
        store._ask("SELECT pg_sleep(20)", {})
    assert (caught.value.code, caught.value.retry_after) == ("store_timeout", 5)
    assert store.event_counts(SCOPE) == []
    store.close()


def test_a_read_only_database_answers_and_takes_nothing(postgres: Postgres, postgres_url: str) -> None:
    store = opened(postgres_url)
    feed = Feed(store)
    feed.events(event("a"))
    store.close()
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    store = PostgresStore(postgres_url)
    with pytest.raises(Unavailable, match="read-only") as caught:
        Feed(store).events(event("b"))
    assert caught.value.code == "store_readonly"
    assert len(store.events(EventFilter(), 10)[0]) == 1
    store.close()


@pytest.mark.slow
def test_an_outage_is_said_and_survived(tmp_path: Path) -> None:
    with Postgres() as server:
        store = opened(server.url())
        feed = Feed(store)
        feed.assign(("a", 10))
        portion = feed.portion(event("a", id="1"))
        assert store.append(*portion).events == 1
        for end in (server.stop, server.kill):
            end()
            with pytest.raises(Unavailable) as caught:
                store.event_counts(SCOPE)
            assert (caught.value.code, caught.value.retry_after) == ("store_unreachable", 2)
            late = feed.portion(event("a", id=end.__name__))
            with pytest.raises(Unavailable):
                store.append(*late)
            server.start()

            def healed(late: Any = late) -> bool:
                try:
                    return store.append(*late).events == 1
                except Unavailable:
                    return False

            until(healed, "the store takes events again")
        with store.one_moment():
            server.kill()
            with pytest.raises(Unavailable):
                store.event_counts(SCOPE)
        server.start()
        until(lambda: _answers(store), "the store answers again")
        assert [row.event_id for row in store.events(EventFilter(), 9)[0]] != []
        assert sorted(row.event_id for row in store.events(EventFilter(), 9)[0]) == ["1", "kill", "stop"]
        store.close()


def _answers(store: PostgresStore) -> bool:
    try:
        return bool(store.event_counts(SCOPE))
    except Unavailable:
        return False


@pytest.mark.slow
def test_a_replica_answers_when_it_has_caught_up() -> None:
    with Postgres() as primary, Postgres(primary=primary) as replica:
        store = opened(primary.url(), replica=replica.url())
        feed = Feed(store)
        store.caught_up(30)
        feed.assign(("a", 10))
        for number in range(1, 20):
            feed.events(event("a"))
            store.caught_up(30)
            assert [count.events for count in store.event_counts(SCOPE)] == [number]
        with store._reading.connection() as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        replica.execute("SELECT pg_wal_replay_pause()")
        feed.events(event("a"))
        started = time.monotonic()
        with pytest.raises(Unavailable, match="is behind by more") as caught:
            store.caught_up(0.2)
        assert time.monotonic() - started >= 0.2
        assert (caught.value.code, caught.value.retry_after) == ("store_behind", 2)
        assert [count.events for count in store.event_counts(SCOPE)] == [19]
        replica.execute("SELECT pg_wal_replay_resume()")
        store.caught_up(30)
        assert [count.events for count in store.event_counts(SCOPE)] == [20]
        store.close()


def test_without_a_replica_there_is_nothing_to_wait_for(store: PostgresStore) -> None:
    store.caught_up(0)


def test_an_import_larger_than_one_batch(
    store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 7)
    path = tmp_path / "file.csv"
    path.write_text("user_id,type,event_id\n" + "".join(f"u{n},t,{n // 2 * (n % 2)}\n" for n in range(100)))
    done = store.import_events(EventImport(path, FileFormat.CSV, NOW), lambda _: None, lambda _: None)
    assert done == Imported(100, 100, 0, 0, 0)
    assert len(store.events(EventFilter(), 1_000)[0]) == 100


def test_texts_that_the_database_cannot_have_match_nothing(store: PostgresStore) -> None:
    Feed(store).assign(("a", 10))
    for text in ("\0", "\ud800", "a\0"):
        assert store.events(EventFilter(user_ids=(text,), types=(text,)), 10) == ([], None)
        assert store.event(text) is None
        assert store.erase(text) == (0, 0, 0)
        assert store.event_counts(Scope(1, unit=text, event_type=text)) == []
        assert store.moments(Scope(1, excluded_units=frozenset({text})), [PURCHASES])[0].units == 1


@pytest.mark.parametrize("size", ["much", "1 furlong", ""])
def test_memory_that_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(Invalid, match="is no size"):
        PostgresStore("postgresql://127.0.0.1:1/x", memory=size)


def kept(empty: Callable[[], PostgresStore]) -> tuple[PostgresStore, AcknowledgedFeed]:
    """A store that keeps the purchases of a and b, whose events are then taken away behind its back."""
    store = empty()
    feed = AcknowledgedFeed(store)
    feed.assign(("a", 10), ("b", 11))
    feed.events(event("a", a=1.0), event("b", a=2.0), event("b", a=0.5))
    for _ in range(2):
        assert totals(store) == [1.0, 2.5]
        store.maintain()
    with store._writing.connection() as connection:
        connection.execute("DELETE FROM events")
    assert totals(store) == [1.0, 2.5]
    return store, feed


def totals(store: PostgresStore) -> list[float]:
    return [arm.measures["purchases"].total for arm in store.moments(SCOPE, [PURCHASES])]


def test_questions_are_answered_from_totals_and_what_came_since(empty: Callable[[], PostgresStore]) -> None:
    store, feed = kept(empty)
    feed.events(event("a", a=4.0))
    feed.assign(("c", 11))
    feed.events(event("c", a=8.0), event("stranger", a=16.0))
    assert totals(store) == [5.0, 10.5]
    store.maintain()
    with store._writing.connection() as connection:
        connection.execute("DELETE FROM events")
    assert totals(store) == [5.0, 10.5]
    assert store.erase("b") == (0, 1, 0)
    assert totals(store) == [5.0, 8.0]
    with store._writing.connection() as connection:
        connection.execute("DELETE FROM assignments WHERE unit_id = 'a'")
    assert totals(store) == [8.0]


def test_whoever_commits_late_is_not_passed_by(empty: Callable[[], PostgresStore], monkeypatch: Any) -> None:
    monkeypatch.setattr(module_of_store, "_SETTLING", 0.05)
    store, feed = kept(empty)
    with store._writing.connection() as slow:
        with slow.transaction():
            psycopg.RawCursor(slow).execute(INSERT, [json.dumps([event("a", a=32.0)])])
            feed.events(event("b", a=64.0))
            store.maintain()
            assert totals(store) == [1.0, 66.5]
        assert totals(store) == [33.0, 66.5]
    store.maintain()
    assert store._ask("SELECT count(*) FROM rollup_position WHERE events >= 1000000000000004", {}) == [(1,)]
    assert totals(store) == [33.0, 66.5]


def test_one_process_at_a_time_works_on_totals(empty: Callable[[], PostgresStore]) -> None:
    store, feed = kept(empty)
    feed.events(event("a", a=4.0))
    before = store._ask("SELECT * FROM rollup_position", {})
    with store._writing.connection() as other, other.transaction():
        other.execute("SELECT FROM rollup_position FOR UPDATE")
        store.maintain()
        assert store._ask("SELECT * FROM rollup_position", {}) == before
        assert totals(store) == [5.0, 2.5]
    store.maintain()
    assert store._ask("SELECT * FROM rollup_position", {}) != before
    assert totals(store) == [5.0, 2.5]


def test_totals_that_are_not_those_of_the_events_are_replaced(empty: Callable[[], PostgresStore]) -> None:
    store, feed = kept(empty)
    before = store.watermark()
    assert [(one.experiment_id, one.units, one.differing) for one in store.rebuild()] == [(1, 2, 2)]
    assert totals(store) == [0.0, 0.0]
    assert store.watermark().mark != before.mark
    feed.events(event("a", a=4.0))
    store.maintain()
    assert [one.differing for one in store.rebuild()] == [0]
    assert totals(store) == [4.0, 0.0]
