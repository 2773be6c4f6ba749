"""The DuckDB store keeps the contract."""

import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from assay.errors import Conflict, Invalid, Unavailable
from assay.eventstore import folding
from assay.eventstore.base import Appended, EventFilter, Measure
from assay.eventstore.columns import Column, Fold, Source
from assay.eventstore.duckdb import DuckdbStore
from contracts.columns import ColumnContract
from contracts.event_store import DAY, NOW, PURCHASES, SCOPE, Feed, KeepingContract, event
from contracts.imports import ImportContract
from contracts.listing import ListingContract
from contracts.questions import QuestionContract
from contracts.reversals import ReversalContract
from contracts.rollups import RollupContract
from contracts.trust import TrustContract


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Callable[[], DuckdbStore]]:
    opened: list[DuckdbStore] = []

    def empty() -> DuckdbStore:
        opened.append(DuckdbStore(tmp_path / f"events{len(opened)}.duckdb", memory="256MiB", threads=1))
        return opened[-1]

    yield empty
    for store in opened:
        store.close()


@pytest.fixture
def store(empty: Callable[[], DuckdbStore]) -> DuckdbStore:
    return empty()


@pytest.fixture
def reopened_at() -> Iterator[Callable[[Path], DuckdbStore]]:
    opened: list[DuckdbStore] = []

    def reopened_at(path: Path) -> DuckdbStore:
        opened.append(DuckdbStore(path, memory="256MiB"))
        return opened[-1]

    yield reopened_at
    for store in opened:
        store.close()


@pytest.fixture
def reopened(store: DuckdbStore) -> Iterator[Callable[[], DuckdbStore]]:
    opened: list[DuckdbStore] = []

    def reopened() -> DuckdbStore:
        store.close()
        opened.append(DuckdbStore(store.path, memory="256MiB"))
        return opened[-1]

    yield reopened
    for again in opened:
        again.close()


class TestDuckdb(
    KeepingContract,
    QuestionContract,
    ListingContract,
    ImportContract,
    ColumnContract,
    ReversalContract,
    TrustContract,
    RollupContract,
):
    """All of the contract."""


def test_a_second_owner_in_the_process_is_refused(store: DuckdbStore) -> None:
    with pytest.raises(Conflict, match="open already"):
        DuckdbStore(store.path)


def test_a_second_owner_in_another_process_is_told_so(store: DuckdbStore) -> None:
    script = (
        "import sys\nfrom assay.errors import Conflict\nfrom assay.eventstore.duckdb import DuckdbStore\n"
        "try: DuckdbStore(sys.argv[1])\nexcept Conflict as error: print(error.detail)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "Another process has the event store open; only one may.\n"


def test_a_file_that_is_no_store_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(Unavailable):
        DuckdbStore(path)
    path.unlink()
    DuckdbStore(path).close()


def test_portions_go_through_a_file_where_memory_has_none(
    store: DuckdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    feed = Feed(store)
    assert feed.events(event("é")).events == 1
    with pytest.raises(Invalid):
        feed.events(event("a", e="no id"))
    assert list(folder.iterdir()) == []
    folder.rmdir()
    with pytest.raises(Unavailable):
        feed.events(event("b"))
    folder.mkdir()
    assert feed.events(event("b")).events == 1
    assert len(store.events(EventFilter(), 9)[0]) == 2


def test_the_engine_fetches_nothing(store: DuckdbStore) -> None:
    settings = store._ask("SELECT value FROM duckdb_settings() WHERE name = 'autoinstall_known_extensions'")
    assert settings == [("false",)]
    built_in = store._ask("SELECT install_path FROM duckdb_extensions() WHERE extension_name = 'json'")
    assert built_in == [("(BUILT-IN)",)]


def test_the_contract_is_light_to_import() -> None:
    script = (
        "import sys, assay.eventstore.base, assay.events.accept, assay.assignments.sqlite\n"
        "heavy = {'duckdb', 'numpy', 'sqlalchemy', 'pydantic', 'fastapi', 'pyarrow', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_ids_of_our_making_are_not_looked_at(store: DuckdbStore) -> None:
    same = str(uuid.uuid4())
    assert Feed(store).events(event("a", e=same), event("a", e=same)) == Appended(2, 0, 0)


def without_events(store: DuckdbStore) -> None:
    """Empty the table of events behind the store's back, so that only what is kept can answer."""
    store.close()
    with duckdb.connect(store.path) as connection:
        connection.execute("DELETE FROM events")


def kept(empty: Callable[[], DuckdbStore]) -> tuple[DuckdbStore, Feed]:
    """A store whose purchases are kept, with more of them since."""
    store = empty()
    feed = Feed(store)
    feed.assign(("a", 10), ("b", 10), ("c", 11))
    feed.events(event("a", a=1.0), event("b", "view"))
    for _ in range(2):
        store.moments(SCOPE, [PURCHASES])
        store.maintain()
    feed.events(event("a", a=4.0), event("c", a=2.0))
    return store, feed


def test_what_was_asked_for_twice_is_answered_without_the_events(
    empty: Callable[[], DuckdbStore], reopened_at: Callable[[Path], DuckdbStore]
) -> None:
    store, _ = kept(empty)
    before = store.moments(SCOPE, [PURCHASES])
    assert [arm.measures["purchases"].total for arm in before] == [5.0, 2.0]
    without_events(store)
    again = reopened_at(store.path)
    assert again.moments(SCOPE, [PURCHASES]) == before
    bought = [Column("bought", Source("purchase"), Fold.ANY), Column("revenue", Source("purchase"), Fold.SUM)]
    first, _ = again.columns(SCOPE, bought, [("bought", "revenue")])
    assert first.blocks["bought", "revenue"].totals == (1.0, 5.0)
    assert sum(arm.measures["v"].events for arm in again.moments(SCOPE, [Measure("v", "view")])) == 0


def test_what_another_version_kept_is_made_anew(
    empty: Callable[[], DuckdbStore], reopened_at: Callable[[Path], DuckdbStore]
) -> None:
    store, _ = kept(empty)
    store.close()
    with duckdb.connect(store.path) as connection:
        connection.execute("UPDATE rollups SET form = form - 1; UPDATE events SET amount = 8")
    again = reopened_at(store.path)
    for _ in range(2):
        assert [arm.measures["purchases"].total for arm in again.moments(SCOPE, [PURCHASES])] == [16.0, 8.0]
        again.maintain()


def test_a_question_under_way_sees_the_totals_of_its_moment(empty: Callable[[], DuckdbStore]) -> None:
    store, feed = kept(empty)
    with store.one_moment():
        before = store.moments(SCOPE, [PURCHASES])

        def meanwhile() -> None:
            feed.events(event("b", a=1.0))
            store.purge(1)

        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join()
        assert store.moments(SCOPE, [PURCHASES]) == before
    assert store.moments(SCOPE, [PURCHASES]) == []


def test_totals_that_cannot_be_carried_along_stop_nothing(
    empty: Callable[[], DuckdbStore], reopened_at: Callable[[Path], DuckdbStore]
) -> None:
    store, feed = kept(empty)
    store.close()
    with duckdb.connect(store.path) as connection:
        [(number,)] = connection.execute("SELECT number FROM rollups").fetchall()
        connection.execute(f"DROP TABLE rollup_{number}_fresh")
    again = Feed(reopened_at(store.path))
    again.row, again.assigned = feed.row, feed.assigned
    with pytest.raises(Unavailable):
        again.events(event("b", a=1.0))
    again.row -= 1
    assert again.events(event("b", a=1.0)) == Appended(1, 0, 0)
    assert [arm.measures["purchases"].total for arm in again.store.moments(SCOPE, [PURCHASES])] == [6.0, 2.0]


def test_additions_are_merged_when_they_are_many(
    empty: Callable[[], DuckdbStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_LEAST", 1)
    store, feed = kept(empty)
    before = store.moments(SCOPE, [PURCHASES])
    store.maintain()
    assert store.moments(SCOPE, [PURCHASES]) == before
    feed.events(event("b", a=16.0))
    first, _ = store.moments(SCOPE, [PURCHASES])
    assert (first.measures["purchases"].converters, first.measures["purchases"].total) == (2, 21.0)
    store.close()
    with duckdb.connect(store.path) as connection:
        assert connection.execute("SELECT units, fresh FROM rollups").fetchall() == [(2, 1)]
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert sum(name.startswith("rollup_") for (name,) in tables) == 2


def test_a_past_among_too_many_events_is_not_sought_whenever_units_come(
    empty: Callable[[], DuckdbStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_MOST_BEFORE", 1)
    store = empty()
    feed = Feed(store)
    feed.assign(("a", 10))
    feed.events(event("a", at=NOW - 2 * DAY, a=1.0), event("b", at=NOW - 2 * DAY, a=2.0))
    before = Column("before", Source("purchase", opens=-7 * DAY, closes=0), Fold.SUM)
    for total in (1.0, 1.0):
        assert store.columns(SCOPE, [before], [("before",)])[0].blocks["before",].totals == (total,)
        store.maintain()
    feed.assign(("b", 10))
    assert store.columns(SCOPE, [before], [("before",)])[0].blocks["before",].totals == (3.0,)


def test_totals_that_are_not_those_of_the_events_are_replaced(
    empty: Callable[[], DuckdbStore], reopened_at: Callable[[Path], DuckdbStore]
) -> None:
    store, _ = kept(empty)
    store.close()
    with duckdb.connect(store.path) as connection:
        connection.execute("UPDATE events SET amount = 8")
    again = reopened_at(store.path)
    assert [(one.units, one.differing) for one in again.rebuild()] == [(2, 2)]
    assert [arm.measures["purchases"].total for arm in again.moments(SCOPE, [PURCHASES])] == [16.0, 8.0]
    assert [one.differing for one in again.rebuild()] == [0]
