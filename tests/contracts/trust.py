"""What every event store says of who came when, and of what became of events; each backend inherits it."""

from assay.eventstore.base import (
    Arrivals,
    Bucket,
    EventStore,
    Fate,
    LedgerReason,
    Overlap,
    Repetitions,
    Scope,
)
from assay.eventstore.columns import Beside, Column, Fold, Source
from contracts.event_store import DAY, HOUR, NOW, SCOPE, Feed, event

#: 2026-09-21T14:00:00Z, the hour that NOW is in.
FULL_HOUR = NOW - NOW % HOUR


class TrustContract:
    """Inherit and give the fixture `store` (empty)."""

    def test_arrivals_are_told_by_hour_variant_and_phase(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 11), ("c", 10), at=NOW, phase=1)
        feed.assign(("d", 10), at=NOW, phase=2)
        feed.assign(("e", 11), at=NOW - HOUR, phase=1)
        feed.assign(("f", 10), experiment=2)
        assert store.arrivals(SCOPE, Bucket.HOUR) == [
            Arrivals(FULL_HOUR - HOUR, 11, 1, 1),
            Arrivals(FULL_HOUR, 10, 1, 2),
            Arrivals(FULL_HOUR, 10, 2, 1),
            Arrivals(FULL_HOUR, 11, 1, 1),
        ]
        narrowed = Scope(1, until=NOW - 1, excluded_units=frozenset({"a"}))
        assert store.arrivals(narrowed, Bucket.DAY) == [Arrivals(NOW - NOW % DAY, 11, 1, 1)]
        assert store.arrivals(Scope(9), Bucket.HOUR) == []

    def test_fates_are_those_of_the_ledger(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 11), at=NOW)
        feed.events(
            event("a", id="1", at=NOW + 1),
            event("a", at=NOW + 2, x=1, y=11),
            event("a", at=NOW + 3, x=1, y=10),
            event("a", at=NOW - 5),
            event("b", at=NOW - 4, x=1),
            event("b", at=NOW + HOUR + 1),
            event("b", at=NOW + 4, p={"reverses": "1"}, x=2),
            event("a", at=NOW + 5, p={"reverses": "1"}),
            event("stranger", at=NOW, x=1),
            event("stranger", at=NOW),
        )
        scope = Scope(1, ended_at=NOW + HOUR)
        found = store.fates(scope, 100)
        assert {(each.variant_id, each.reason): each for each in found} == {
            (each.variant_id, each.reason): each
            for each in (
                Fate(10, LedgerReason.COUNTED, 3, 1, 2, 2, 1, 1, NOW + 2, NOW + 5),
                Fate(10, LedgerReason.REVERSED, 1, 1, 0, 0, 0, 0, NOW + 1, NOW + 1),
                Fate(10, LedgerReason.BEFORE_ASSIGNMENT, 1, 1, 0, 0, 0, 0, NOW - 5, NOW - 5),
                Fate(11, LedgerReason.BEFORE_ASSIGNMENT, 1, 1, 1, 0, 0, 0, NOW - 4, NOW - 4),
                Fate(11, LedgerReason.LATE, 1, 1, 0, 0, 0, 0, NOW + HOUR + 1, NOW + HOUR + 1),
                Fate(None, LedgerReason.UNASSIGNED, 1, 1, 1, 0, 0, 0, NOW, NOW),
            )
        }
        ledger = {entry.reason: entry.count for entry in store.ledger(scope)}
        for reason in {each.reason for each in found}:
            assert sum(each.events for each in found if each.reason is reason) == ledger[reason]

    def test_fates_look_at_the_latest_events_of_the_log(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), at=NOW)
        for number in range(20):
            feed.events(event("a", at=NOW + number))
        [found] = store.fates(SCOPE, 7)
        assert (found.events, found.first, found.last) == (7, NOW + 13, NOW + 19)
        assert store.fates(SCOPE, 10**9)[0].events == 20
        assert store.fates(Scope(9), 100) == []

    def test_repetitions_are_counted_beside_what_is_there(self, store: EventStore, feed: Feed) -> None:
        assert store.repetitions(SCOPE) == Repetitions(0, 0)
        feed.assign(("a", 10))
        feed.events(event("a", id="1"), event("a", id="1"), event("b", x=2), event("c", x=1))
        feed.events(event("a", id="1"))
        assert store.repetitions(SCOPE) == Repetitions(2, 2)
        assert store.repetitions(Scope(2)) == Repetitions(0, 2)

    def test_exposures_that_contradict_the_record_are_in_the_ledger_alone(
        self, store: EventStore, feed: Feed
    ) -> None:
        assert store.conflicts(SCOPE) == 0
        feed.assign(("a", 10))
        told = (1, "exposure", "variant_mismatch", 3, ("{}",))
        store.append(store.position(), rejections=[told, told, (2, *told[1:])])
        assert (store.conflicts(SCOPE), store.conflicts(Scope(3))) == (6, 0)
        [entry] = store.ledger(SCOPE)
        assert (entry.type, entry.reason, entry.detail, entry.count) == (
            "exposure",
            LedgerReason.VARIANT_MISMATCH,
            "",
            6,
        )

    def test_units_are_grouped_by_their_variant_in_another_experiment(
        self, store: EventStore, feed: Feed
    ) -> None:
        feed.assign(("a", 10), ("b", 10), ("c", 10), ("d", 11))
        feed.assign(("a", 20), ("b", 21), ("d", 21), ("z", 20), experiment=2)
        feed.events(event("a"), event("b"), event("b"), event("c"), event("z"))
        bought = Column("bought", Source("purchase"), Fold.COUNT)
        found = store.columns(SCOPE, [bought], [("bought",)], Beside(2))
        assert [
            (cell.variant_id, cell.group, cell.units, cell.blocks["bought",].totals) for cell in found
        ] == [(10, "20", 1, (1,)), (10, "21", 1, (2,)), (10, None, 1, (1,)), (11, "21", 1, (0,))]

    def test_units_are_narrowed_to_those_assigned_since(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), at=NOW - 2 * DAY)
        feed.assign(("b", 10), at=NOW - DAY)
        feed.events(event("a"), event("b"), event("b", at=NOW - DAY - HOUR))
        columns = [
            Column("after", Source("purchase"), Fold.COUNT),
            Column("before", Source("purchase", (), -DAY, 0), Fold.COUNT),
        ]
        [cell] = store.columns(Scope(1, assigned_from=NOW - DAY), columns, [("after", "before")])
        assert (cell.units, cell.blocks["after", "before"].totals) == (1, (1, 1))

    def test_units_in_common_are_counted(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 11), ("c", 10))
        feed.assign(("a", 20), ("b", 20), ("z", 21), experiment=2)
        feed.assign(("c", 30), experiment=3)
        feed.assign(("z", 40), experiment=4)
        assert store.overlaps(SCOPE, [2, 3, 4, 9]) == [Overlap(2, 2), Overlap(3, 1)]
        assert store.overlaps(Scope(1, excluded_units=frozenset({"a"})), [2]) == [Overlap(2, 1)]
        assert store.overlaps(SCOPE, []) == []
