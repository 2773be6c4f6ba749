"""What every event store answers from totals that it keeps: the same as from the events, whatever happened.

Each test feeds two stores alike. One of them is asked and maintained, so that it may keep totals; the other
is never maintained and answers from the events.
"""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.eventstore.base import EventImport, EventStore, FileFormat, Measure, Scope
from assay.eventstore.columns import Block, Column, Filter, Fold, Operator, Quantile, Source, UnitList
from contracts.event_store import DAY, HOUR, NOW, SCOPE, Feed, event

PURCHASE = Source("purchase")
COLUMNS = [
    Column("bought", PURCHASE, Fold.ANY),
    Column("revenue", PURCHASE, Fold.SUM),
    Column("price", PURCHASE, Fold.SUM, "price"),
    Column("prices", PURCHASE, Fold.VALUED, "price"),
    Column("capped", PURCHASE, Fold.SUM, high=5.0),
    Column("views", Source("view"), Fold.COUNT),
    Column("any", Source(""), Fold.COUNT),
    Column("plan a", Source("view", (Filter("plan", Operator.EQ, "a"),)), Fold.COUNT),
    Column("first day", replace(PURCHASE, closes=DAY), Fold.SUM),
    Column("before", replace(PURCHASE, opens=-7 * DAY, closes=0), Fold.SUM),
    Column("funnel", Source("view"), Fold.STEPS, steps=(PURCHASE,)),
]
BLOCKS: list[Block] = [
    ("bought", "revenue"),
    ("price", "prices"),
    ("revenue", "before", "views"),
    *((column.key,) for column in COLUMNS),
]
MEASURES = [
    Measure("purchase", "purchase"),
    Measure("price", "purchase", "price"),
    Measure("view", "view"),
    Measure("all", ""),
    Measure("plan a", "view", equals=(("plan", "a"),)),
]
GROUPS = {
    label: UnitList.of(f"u{number}" for number in range(30) if number % 2 == rest)
    for rest, label in enumerate(("even", "odd"))
}
SCOPES = [
    SCOPE,
    Scope(1, ended_at=NOW + 2 * HOUR),
    Scope(1, until=NOW + 30 * DAY),
    Scope(1, until=NOW),
    Scope(1, events_from=NOW),
    Scope(1, excluded_units=frozenset({"u1", "u2"})),
    Scope(1, event_type="purchase"),
    Scope(1, activation=Source("view")),
    Scope(1, until=NOW + 30 * DAY, observed_for=29 * DAY + 12 * HOUR),
    Scope(1, unit="account"),
    Scope(2),
    Scope(9),
]


def same(ours: Any, theirs: Any) -> bool:
    """Whether two answers agree: whole numbers exactly, moments to 1e-9."""
    if isinstance(ours, float) or isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if hasattr(ours, "__dataclass_fields__"):
        return all(same(getattr(ours, name), getattr(theirs, name)) for name in ours.__dataclass_fields__)
    return bool(ours == theirs)


def answers(store: EventStore, scope: Scope = SCOPE) -> list[Any]:
    """What can be asked of a unit's totals."""
    whole = scope.activation is None
    return [
        store.moments(scope, MEASURES),
        store.columns(scope, COLUMNS, BLOCKS),
        store.columns(scope, COLUMNS, BLOCKS[:3], GROUPS),
        store.percentiles(scope, COLUMNS[:4], [0.5, 1.0]) if whole else {},
        store.quantiles(scope, [Quantile("q", COLUMNS[1], 0.9, zeros=True)], {1: 0}) if whole else [],
    ]


class Twins:
    """Two stores that are fed alike."""

    def __init__(self, kept: Feed, plain: Feed) -> None:
        self.kept, self.plain = kept, plain

    def both(self, do: Callable[[Feed], Any]) -> None:
        """Do the same to both."""
        assert do(self.kept) == do(self.plain)

    def events(self, *events: dict[str, Any]) -> None:
        self.both(lambda feed: feed.events(*events))

    def assign(self, *rows: tuple[str, int], **more: Any) -> None:
        self.both(lambda feed: feed.assign(*rows, **more))

    def keep(self, *scopes: Scope) -> None:
        """Ask until the answers may come from totals that are kept."""
        for scope in scopes or (SCOPE,):
            for _ in range(2):
                answers(self.kept.store, scope)
            self.kept.store.maintain()

    def agree(self, *scopes: Scope) -> None:
        for scope in scopes or (SCOPE,):
            ours, theirs = answers(self.kept.store, scope), answers(self.plain.store, scope)
            for one, other in zip(ours, theirs, strict=True):
                assert same(one, other), f"{scope}\n{one}\n{other}"


class RollupContract:
    """Inherit and give the fixture `empty`, which makes an empty store; `feeding` where another feeds it."""

    @pytest.fixture
    def feeding(self) -> Callable[[EventStore], Feed]:
        return Feed

    @pytest.fixture
    def twins(self, empty: Callable[[], EventStore], feeding: Callable[[EventStore], Feed]) -> Twins:
        twins = Twins(feeding(empty()), feeding(empty()))
        twins.assign(*((f"u{number}", 10 + number % 2) for number in range(6)))
        twins.events(
            event("u0", a=1.0, p={"price": 3}, id="o-1"),
            event("u0", "view", p={"plan": "a"}),
            event("u1", a=2.5, at=NOW - 3 * DAY),
            event("u2", a=2.5, p={"price": "dear"}),
            event("stranger", a=9.0),
        )
        twins.keep()
        return twins

    def test_new_events_and_units_are_in_the_totals(self, twins: Twins) -> None:
        twins.agree()
        twins.events(event("u0", a=4.0), event("u4", a=8.0), event("u4", "view"), event("stranger", a=1.0))
        twins.agree()
        twins.assign(("u6", 10), ("u7", 11), phase=1, at=NOW)
        twins.events(event("u6", a=3.0, at=NOW + 1), event("u7", at=NOW - 1, a=5.0))
        twins.agree(*SCOPES)

    def test_repetitions_and_portions_that_come_again_are_not(self, twins: Twins) -> None:
        twins.events(event("u0", a=1.0, id="o-1"), event("u3", a=7.0, id="o-2"), event("u3", a=7.0, id="o-2"))
        for feed in (twins.kept, twins.plain):
            feed.row -= 1
        twins.events(event("u3", a=7.0))
        twins.agree()

    def test_units_that_come_after_their_events_bring_these_along(self, twins: Twins) -> None:
        twins.assign(("stranger", 11), at=NOW - DAY)
        twins.assign(("nobody", 11), at=NOW - DAY)
        twins.agree()
        assert twins.kept.store.moments(SCOPE, MEASURES)[1].measures["purchase"].total == 9.0

    def test_what_is_taken_back_leaves_the_totals(self, twins: Twins) -> None:
        twins.events(event("u3", a=1e17, id="huge"), event("u3", a=0.25))
        twins.agree()
        twins.events(
            event("u3", "refund", p={"reverses": "huge"}),
            event("u0", "refund", p={"reverses": "o-1"}),
            event("u0", a=16.0),
            event("u4", "refund", p={"reverses": "later"}),
        )
        twins.agree()
        twins.events(event("u4", a=1.0, id="later"), event("u4", a=2.0))
        twins.agree()
        assert twins.kept.store.moments(SCOPE, MEASURES)[1].measures["purchase"].total == 0.25
        twins.both(lambda feed: feed.store.expire({"refund": NOW + 1}, None, 100))
        twins.agree()

    def test_an_end_and_a_new_beginning(self, twins: Twins) -> None:
        ended = Scope(1, ended_at=NOW + HOUR)
        twins.agree(ended)
        twins.events(event("u0", at=NOW + 2 * HOUR, a=32.0))
        twins.agree(ended, SCOPE)
        twins.keep(ended)
        twins.events(event("u0", at=NOW + HOUR, a=1.0), event("u0", at=NOW + 3 * HOUR, a=2.0))
        twins.agree(ended, SCOPE)
        twins.keep()
        twins.agree(ended, SCOPE)

    def test_removals_leave_nothing_behind(self, twins: Twins) -> None:
        twins.assign(("u0", 20), ("u5", 21), experiment=2)
        twins.events(event("u5", a=3.0, x=2), event("u5", a=4.0, x=1), event("u0", a=3.0))
        scopes = SCOPE, Scope(2)
        twins.keep(*scopes)
        twins.both(lambda feed: feed.store.erase("u0"))
        twins.agree(*scopes)
        twins.both(lambda feed: feed.store.expire({"purchase": NOW - DAY}, None, 100))
        twins.agree(*scopes)
        twins.keep(*scopes)
        twins.both(lambda feed: feed.store.expire({"view": NOW + 1}, NOW + 1, 100))
        twins.agree(*scopes)
        twins.events(event("u5", a=2.0))
        twins.both(lambda feed: feed.store.purge(2))
        twins.agree(*scopes)

    def test_other_units_than_users(self, twins: Twins) -> None:
        scope = Scope(3, unit="account")
        twins.assign(("acme", 30), ("u1", 31), experiment=3)
        twins.events(
            event("u1", a=1.0, m={"account": "acme"}), event("u2", a=2.0, m={"account": "u1"}, id="x")
        )
        twins.keep(scope)
        twins.events(event("u1", a=4.0, m={"account": "acme"}))
        twins.agree(scope)
        twins.events(event("u2", "refund", p={"reverses": "x"}, m={"account": "acme"}))
        twins.agree(scope)
        twins.keep(scope)
        twins.assign(("late", 30), experiment=3, at=NOW - 2 * DAY)
        twins.both(lambda feed: feed.store.erase("u1"))
        twins.agree(scope)

    def test_imported_events_are_in_the_totals(
        self, twins: Twins, tmp_path: Path, parquet: Callable[[Path, str], None]
    ) -> None:
        path = tmp_path / "events.parquet"
        parquet(path, "SELECT 'u' || (i % 8) AS user_id, 'purchase' AS type, i AS value FROM range(50) r(i)")
        what = EventImport(path, FileFormat.PARQUET, NOW)

        def refused(row: Any) -> None:
            raise AssertionError(row)

        for _ in range(2):
            twins.both(lambda feed: feed.store.import_events(what, refused, lambda _: None)[1:4])
        twins.agree()

    def test_keeping_totals_is_no_news(self, twins: Twins) -> None:
        twins.events(event("u3", a=2.5), event("u4", "view"))
        mark = twins.kept.store.watermark()
        twins.keep()
        assert twins.kept.store.watermark() == mark

    def test_rebuilding_changes_nothing(self, twins: Twins) -> None:
        twins.events(event("u3", a=1e17), event("u3", a=0.25), event("u4", "view"))
        twins.assign(("u6", 10), at=NOW)
        twins.keep()
        mark = twins.kept.store.watermark()
        found = twins.kept.store.rebuild()
        assert len(found) > 5
        assert {one.experiment_id for one in found} == {1}
        assert [one for one in found if one.differing] == []
        assert twins.plain.store.rebuild() == []
        assert twins.kept.store.watermark().epoch == mark.epoch
        twins.agree()

    @pytest.mark.parametrize("seed", range(2))
    def test_whatever_happens_in_whatever_order(self, twins: Twins, seed: int) -> None:
        chance = random.Random(seed)
        for step in range(30):
            self._happens(twins, chance)
            if chance.random() < 0.2:
                twins.kept.store.maintain()
            if step % 5 == 4:
                twins.agree(SCOPE, *chance.sample(SCOPES, 2))

    def _happens(self, twins: Twins, chance: random.Random) -> None:
        user = f"u{chance.randrange(12)}"
        what = chance.random()
        if what < 0.15:
            at = NOW + chance.randrange(-3, 3) * DAY
            fresh = f"n{twins.kept.assigned + 1}"
            twins.assign((fresh, 10 + chance.randrange(2)), phase=chance.randrange(2), at=at)
        elif what < 0.2:
            twins.both(lambda feed: feed.store.erase(user))
        elif what < 0.25:
            kind, at = chance.choice(["view", "purchase", "refund"]), NOW + chance.randrange(-6, 1) * DAY
            twins.both(lambda feed: feed.store.expire({kind: at}, None, 1_000))
        elif what < 0.28:
            twins.both(lambda feed: feed.store.purge(2))
        else:
            twins.events(*(self._event(twins, chance) for _ in range(chance.randrange(1, 12))))

    @staticmethod
    def _event(twins: Twins, chance: random.Random) -> dict[str, Any]:
        names = [f"u{chance.randrange(12)}", f"n{chance.randrange(6, twins.kept.assigned + 3)}"]
        at = NOW + chance.randrange(-5 * DAY, DAY)
        more: dict[str, Any] = {"id": f"o-{chance.randrange(40)}"} if chance.random() < 0.5 else {}
        if chance.random() < 0.2:
            more["c"] = at + DAY  # known to the day only
        if chance.random() < 0.2:
            more["x"] = chance.randrange(1, 3)
        kind = chance.choice(["purchase", "purchase", "view", "refund"])
        if kind == "refund":
            properties: dict[str, Any] = {"reverses": f"o-{chance.randrange(40)}"}
        else:
            prices = [1.5, 2, "dear", None, 1e200]
            properties = {"price": chance.choice(prices), "plan": chance.choice("ab")}
            more["a"] = chance.choice([None, 0.0, -1.25, 10.0, chance.random() * 100])
        return event(chance.choice(names), kind, at, p=properties, **more)
