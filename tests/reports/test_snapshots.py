"""Kept reports, on both catalogs and stores: as new as what was acknowledged, and computed once."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from assay.catalog import segments, users
from assay.catalog.checks import parse
from assay.catalog.tables import Assignment
from assay.errors import NotFound, Unavailable
from assay.events.timestamps import micros
from assay.eventstore.base import EventStore
from assay.eventstore.duckdb import DuckdbStore
from assay.eventstore.postgres import PostgresStore
from assay.reports.halting import problem
from assay.reports.question import Question
from assay.reports.snapshots import Snapshot, Snapshots
from catalog.conftest import HALVES, Catalog, catalog, lasting_url, opened, url
from contracts.event_store import SECOND, Feed, event
from live import until

__all__ = ["catalog", "lasting_url", "opened", "url"]

ASKED = Question()
MINUTE = timedelta(minutes=1)


class Kept:
    """Snapshots over a catalog and a store; `flush` is called where the stores would be waited for."""

    def __init__(self, catalog: Catalog, store: EventStore) -> None:
        self.catalog, self.store = catalog, store
        self.flush: Callable[[], None] = lambda: None
        self.computed: list[int] = []
        self.snapshots = Snapshots(
            catalog.database,
            store,
            lambda: self.flush(),
            analysed=lambda report, _seconds: self.computed.append(report.spec.id),
        )
        self.key = "shop"
        self.id = catalog.running(key=self.key, metrics=["purchase"], variants=HALVES)
        self.arms = [each["id"] for each in catalog.document(self.id)["variants"]]
        self.feed = Feed(store)
        self.at = micros(catalog.now) + SECOND
        self.feed.assign(
            *((f"u{n}", self.arms[n % 2]) for n in range(40)), experiment=self.id, phase=1, at=self.at
        )

    def buy(self, *users: str) -> None:
        self.feed.events(*(event(user, "purchase", self.at + SECOND) for user in users))

    def get(self, **more: timedelta) -> Snapshot:
        return self.snapshots.get(self.key, ASKED, self.catalog.now, **more)

    @property
    def counted(self) -> tuple[int, int, int]:
        found = self.snapshots.counted
        return found.hits, found.waits, found.misses


def converters(snapshot: Snapshot) -> int:
    return sum(arm.tally.converters for arm in snapshot.report.primary.arms)


@pytest.fixture
def kept(request: pytest.FixtureRequest, catalog: Catalog, tmp_path: Path) -> Iterator[Kept]:
    store: DuckdbStore | PostgresStore
    if catalog.url.startswith("sqlite"):
        store = DuckdbStore(tmp_path / "events.duckdb", memory="256MiB", threads=1)
    else:
        store = PostgresStore(request.getfixturevalue("postgres_url"), memory="256MiB")
        store.prepare()
    yield Kept(catalog, store)
    store.close()


def test_nothing_new__is_the_same_snapshot(kept: Kept) -> None:
    first = kept.get()
    kept.catalog.later(seconds=59)
    assert kept.get() is first
    assert kept.snapshots.get(kept.id, ASKED, kept.catalog.now) is first
    assert kept.get().kept("bytes", lambda: b"1") == kept.get().kept("bytes", lambda: b"2") == b"1"
    assert (kept.counted, kept.computed) == ((4, 0, 1), [kept.id])
    assert kept.snapshots.get(kept.key, replace(ASKED, counts=True), kept.catalog.now) is not first


def test_what_is_known_of_users__is_as_new_as_events_are(kept: Kept) -> None:
    def described(*people: str, country: str) -> None:
        with kept.catalog.write() as tx:
            for user_id in people:
                users.put(tx, user_id, users.parse_user({"country": country}))

    def found(question: Question) -> Snapshot:
        return kept.snapshots.get(kept.key, question, kept.catalog.now)

    with kept.catalog.write() as tx:
        tx.add_all(
            Assignment(
                experiment_id=kept.id,
                unit_id=f"u{n}",
                variant_id=kept.arms[n % 2],
                phase=1,
                assigned_at=kept.at,
            )
            for n in range(40)
        )
        rules = {"name": "german", "rules": {"country": "de"}}
        german = segments.create(tx, parse(segments.SegmentInput, rules)).id
    described(*(f"u{n}" for n in range(30)), country="de")
    described(*(f"u{n}" for n in range(30, 38)), country="fr")
    kept.buy("u1", "u2", "u31", "u39")
    by, of = Question(dimensions=("country",)), Question(segment=str(german))
    told = found(by).report.dimensions[0]
    assert [(each.value, each.total) for each in told.groups] == [("de", 30), ("fr", 8), (None, 2)]
    tallies = told.metrics[0].tallies
    assert [
        sum(tally.converters for phases in each.values() for tally in phases.values())
        for each in tallies.values()
    ] == [2, 1, 1]
    assert (found(of).report.total_units, converters(found(of))) == (30, 2)
    assert found(by) is found(by)
    assert found(of) is found(of)
    described("u31", country="de")
    assert [each.total for each in found(by).report.dimensions[0].groups] == [31, 7, 2]
    assert (found(of).report.total_units, converters(found(of))) == (31, 3)
    points = kept.snapshots.trend(found(of), found(of).report.primary.metric, "day").points
    assert [arm.units for arm in points[-1].arms] == [15, 16]
    kept.store.erase("u31")
    with kept.catalog.write() as tx:
        users.erase(tx, "u31")
    assert converters(found(of)) == 2


def test_what_is_acknowledged__is_seen_at_once(kept: Kept) -> None:
    assert converters(kept.get()) == 0
    kept.buy("u1")
    assert converters(kept.get()) == 1
    kept.buy("u2")
    assert [converters(kept.get(max_age=MINUTE)), converters(kept.get())] == [1, 2]
    kept.feed.assign(("new", kept.arms[0]), experiment=kept.id, phase=1, at=kept.at)
    assert kept.get().report.total_units == 41


def test_time__moves_on_for_what_goes_on_only(kept: Kept) -> None:
    first = kept.get()
    kept.catalog.later(seconds=61)
    second = kept.get()
    assert (second.report.computed_at - first.report.computed_at).total_seconds() == 61
    with kept.catalog.write() as tx:
        from assay.catalog import lifecycle
        from assay.catalog.editing import find

        lifecycle.stop(tx, find(tx, kept.id), winner=None, reason="")
    kept.catalog.later(seconds=1)
    ended = kept.get()
    kept.catalog.later(days=30)
    assert kept.get() is ended


def test_an_edit__asks_another_question(kept: Kept) -> None:
    first = kept.get()
    kept.catalog.edit(kept.id, description="said better")
    second = kept.get(max_age=MINUTE)
    assert (first.report.spec.description, second.report.spec.description) == ("", "said better")
    other = kept.catalog.running(key="other", metrics=["purchase"])
    assert kept.get() is second, other


@pytest.mark.parametrize("removal", ["erase", "purge"])
def test_removal__leaves_nothing_kept(kept: Kept, removal: str) -> None:
    kept.buy("u1")
    kept.get()
    if removal == "erase":
        kept.store.erase("u1")
    else:
        kept.store.purge(kept.id)
    assert kept.snapshots.found(kept.key, ASKED, kept.catalog.now, timedelta(days=1)) is None
    assert converters(kept.get(max_age=timedelta(days=1))) == 0


def test_found__computes_nothing(kept: Kept) -> None:
    assert kept.snapshots.found(kept.key, ASKED, kept.catalog.now, MINUTE) is None
    first = kept.get()
    kept.buy("u1")
    assert kept.snapshots.found(kept.key, ASKED, kept.catalog.now, MINUTE) is first
    kept.catalog.later(seconds=61)
    assert kept.snapshots.found(kept.key, ASKED, kept.catalog.now, MINUTE) is None
    assert len(kept.computed) == 1
    with pytest.raises(NotFound):
        kept.snapshots.get("nothing", ASKED, kept.catalog.now)


def test_anew__computes_though_nothing_came(kept: Kept) -> None:
    first = kept.get()
    again = kept.snapshots.anew(kept.key, ASKED, kept.catalog.later(seconds=1))
    assert again is not first
    assert kept.get() is again


def at_once(kept: Kept, ask: Callable[[], object], count: int) -> list[threading.Thread]:
    """So many threads that ask, and wait for the one that is under way."""
    threads = [threading.Thread(target=ask) for _ in range(count)]
    before = _waiting(kept)
    for thread in threads:
        thread.start()
    until(lambda: _waiting(kept) == before + count, "all of them wait")
    return threads


def _waiting(kept: Kept) -> int:
    return sum(each.waiting for each in kept.snapshots._flights.values())


class Gate:
    """A `flush` that the first to come is held in, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.passed = 0

    def __call__(self) -> None:
        self.passed += 1
        if self.passed == 1:
            self.reached.set()
            assert self.opened.wait(60)


def test_many_readers_at_once__are_one_computation(kept: Kept) -> None:
    found: list[Snapshot] = []
    barrier = threading.Barrier(64)

    def ask() -> None:
        barrier.wait()
        found.append(kept.get())

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1
    assert (len(found), len(kept.computed), kept.counted[2], sum(kept.counted)) == (64, 1, 1, 64)


def test_those_who_come_during_a_computation__share_the_next(kept: Kept) -> None:
    gate = kept.flush = Gate()
    found: list[int] = []
    first = threading.Thread(target=lambda: kept.snapshots.anew(kept.key, ASKED, kept.catalog.now))
    first.start()
    assert gate.reached.wait(60)
    kept.buy("u1")
    others = at_once(kept, lambda: found.append(converters(kept.get())), 8)
    gate.opened.set()
    for thread in (first, *others):
        thread.join()
    assert (found, len(kept.computed)) == ([1] * 8, 2)


def test_a_failure__is_shared_as_well(kept: Kept) -> None:
    gate = Gate()

    def fail() -> None:
        gate()
        raise Unavailable("The disk is full.", code="store_full")

    kept.flush = fail
    said: list[str] = []

    def ask() -> None:
        try:
            kept.snapshots.anew(kept.key, ASKED, kept.catalog.now)
        except Unavailable as error:
            said.append(error.code)

    first = threading.Thread(target=ask)
    first.start()
    assert gate.reached.wait(60)
    others = at_once(kept, ask, 8)
    gate.opened.set()
    for thread in (first, *others):
        thread.join()
    assert (said, gate.passed) == (["store_full"] * 9, 2)
    kept.flush = lambda: None
    assert converters(kept.get()) == 0


def test_trends__are_kept_with_their_report(kept: Kept) -> None:
    kept.buy("u1", "u3")
    kept.catalog.later(days=1)
    snapshot = kept.get()
    metric = snapshot.report.primary.metric
    first = kept.snapshots.trend(snapshot, metric, "day")
    assert [sum(arm.tally.converters for arm in point.arms) for point in first.points] == [2]
    assert kept.snapshots.trend(snapshot, metric, "day") is first
    rows = kept.snapshots.activity(snapshot, metric, "day")
    assert sum(row.events for row in rows) == 2
    assert kept.snapshots.activity(snapshot, metric, "day") is rows


def test_a_ramp__asks_the_report_that_is_kept(kept: Kept) -> None:
    assert problem(kept.snapshots, kept.id, kept.catalog.now) is None
    assert (kept.computed, kept.get().report.spec.id) == ([kept.id], kept.id)
    kept.feed.assign(
        *((f"lost{n}", kept.arms[0]) for n in range(200)), experiment=kept.id, phase=1, at=kept.at
    )
    said = problem(kept.snapshots, kept.id, kept.catalog.now)
    assert said is not None
    assert said.startswith("The variants do not hold the shares")
    assert kept.computed == [kept.id, kept.id]
    with pytest.raises(NotFound):
        problem(kept.snapshots, 999, kept.catalog.now)
