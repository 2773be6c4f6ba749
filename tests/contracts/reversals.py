"""What every event store makes of events that take others back, as tests that each backend inherits."""

import uuid

from assay.eventstore.base import Appended, Bucket, EventStore, LedgerReason, Measure, Scope
from assay.eventstore.columns import Column, Fold, Quantile, Source
from contracts.event_store import DAY, NOW, PURCHASES, SCOPE, Feed, event

REVENUE = Column("revenue", Source("purchase"), Fold.SUM)


def purchases(store: EventStore, scope: Scope = SCOPE) -> tuple[float, float]:
    """How many purchases count and their sum, as all questions that tell it agree."""
    columns = [REVENUE, Column("orders", Source("purchase"), Fold.COUNT)]
    [arm] = store.moments(scope, [PURCHASES])
    [cell] = store.columns(scope, columns, [("orders", "revenue")])
    found = cell.blocks["orders", "revenue"].totals
    assert found == (arm.measures["purchases"].events, arm.measures["purchases"].total)
    counts = [one for one in store.event_counts(scope) if one.type == "purchase"]
    assert sum(one.events for one in counts) == found[0]
    points = store.series(scope, PURCHASES, Bucket.DAY)
    assert sum(point.events for point in points) == found[0]
    return found[0], found[1]


class ReversalContract:
    """Inherit and give the fixtures `store` (empty) and `reopened` (the same data, opened again)."""

    def test_an_event_that_is_taken_back_counts_for_nothing(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 10))
        same = str(uuid.uuid4())
        feed.events(
            event("a", id="o-1", a=1.0),
            event("a", id="o-2", a=2.0),
            event("b", id="o-1", a=4.0),
            event("a", e=same, k=True, a=8.0),
            event("a", id="early", at=NOW - 2 * DAY, a=16.0),
        )
        assert purchases(store) == (4, 15.0)
        feed.events(event("a", "refund", p={"reverses": "o-1"}))
        assert purchases(store) == (3, 14.0)
        feed.events(
            event("a", "refund", p={"reverses": same.upper()}),
            event("a", "refund", p={"reverses": "early"}),
            event("a", "refund", p={"reverses": "no such"}),
            event("b", "refund", p={"reverses": ["o-1"]}),
            event("b", "refund", p={"x": {"reverses": "o-1"}}),
            event("b", "note", p={"x": '"reverses"'}),
        )
        assert purchases(store) == (2, 6.0)
        entries = {(entry.type, entry.reason): entry for entry in store.ledger(SCOPE)}
        fates = {reason: entry.count for (kind, reason), entry in entries.items() if kind == "purchase"}
        assert fates == {
            LedgerReason.ACCEPTED: 5,
            LedgerReason.COUNTED: 2,
            LedgerReason.REVERSED: 2,
            LedgerReason.BEFORE_ASSIGNMENT: 1,
        }
        assert '"o-1"' in "".join(entries["purchase", LedgerReason.REVERSED].samples)
        assert entries["refund", LedgerReason.COUNTED].count == 6
        assert store.percentiles(SCOPE, [REVENUE], [1.0]) == {"revenue": (4.0,)}
        [arm] = store.quantiles(SCOPE, [Quantile("q", REVENUE, 0.5, of_events=True)])
        assert (arm.events, arm.value) == (2, 2.0)

    def test_it_may_come_before_what_it_takes_back_and_twice(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        refund = event("a", "refund", p={"reverses": "o-1"}, id="r-1")
        assert feed.events(refund, refund) == Appended(1, 1, 0)
        feed.events(event("a", id="o-1", a=1.0), event("a", "refund", p={"reverses": "o-1"}))
        assert purchases(store) == (0, 0.0)
        [cell] = store.columns(SCOPE, [REVENUE], [("revenue",)])
        assert (cell.units, cell.blocks["revenue",].nonzero) == (1, (0,))

    def test_it_is_forgotten_with_the_event_that_took_back(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a", id="o-1", a=1.0), event("a", "refund", at=NOW - 1, p={"reverses": "o-1"}))
        assert purchases(store) == (0, 0.0)
        assert store.expire({"refund": NOW}, None, 10) == 1
        assert purchases(store) == (1, 1.0)
        feed.events(event("a", "refund", x=2, p={"reverses": "o-1"}))
        assert purchases(store) == (0, 0.0)
        store.purge(2)
        assert purchases(store) == (1, 1.0)

    def test_a_funnel_and_a_measure_of_every_type_leave_it_out(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a", "view"), event("a", id="o-1", at=NOW + 1))
        funnel = Column("funnel", Source("view"), Fold.STEPS, steps=(Source("purchase"),))
        everything = Measure("all", "")

        def answers() -> tuple[float, int]:
            [cell] = store.columns(SCOPE, [funnel], [("funnel",)])
            [arm] = store.moments(SCOPE, [everything])
            return cell.blocks["funnel",].totals[0], arm.measures["all"].events

        assert answers() == (1, 2)
        feed.events(event("a", "refund", p={"reverses": "o-1"}, at=NOW + 2))
        assert answers() == (0, 2)
