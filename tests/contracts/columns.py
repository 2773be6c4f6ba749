"""What every event store answers about columns, against pandas, as tests that each backend inherits."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assay.eventstore.base import Bucket, EventStore, Measure, Scope
from assay.eventstore.columns import (
    Block,
    Cell,
    Column,
    Filter,
    Fold,
    Operator,
    Quantile,
    Source,
    UnitList,
    UnitValues,
)
from assay.stats.quantile import neighbours, quantile_of_values
from contracts.event_store import DAY, HOUR, NOW, SCOPE, Feed, event

PURCHASE = Source("purchase")
VIEW = Source("view")
EVERYTHING = Source("")
BEFORE = Source("purchase", opens=-7 * DAY, closes=0)
CHEAP = Filter("price", Operator.LT, 20)
PLAN_A = Filter("plan", Operator.EQ, "a")

COLUMNS = [
    Column("bought", PURCHASE, Fold.ANY),
    Column("purchases", PURCHASE, Fold.COUNT),
    Column("revenue", PURCHASE, Fold.SUM),
    Column("orders with amounts", PURCHASE, Fold.VALUED),
    Column("price", PURCHASE, Fold.SUM, "price"),
    Column("prices", PURCHASE, Fold.VALUED, "price"),
    Column("cheap views", replace(VIEW, where=(CHEAP,)), Fold.COUNT),
    Column("cheap a", replace(VIEW, where=(CHEAP, PLAN_A)), Fold.ANY),
    Column("second day", replace(VIEW, opens=DAY, closes=2 * DAY), Fold.ANY),
    Column("first day", replace(PURCHASE, closes=DAY), Fold.SUM, "price"),
    Column("before", BEFORE, Fold.SUM),
    Column("purchases before", BEFORE, Fold.COUNT),
    Column("around", replace(VIEW, opens=-DAY, closes=DAY), Fold.COUNT),
    Column("capped", PURCHASE, Fold.SUM, low=5.0, high=40.0),
    Column("floored", VIEW, Fold.COUNT, high=-1.0),
    Column("three", VIEW, Fold.COUNT, at_least=3),
    Column("fifty", PURCHASE, Fold.SUM, at_least=50.0),
    Column("everything", EVERYTHING, Fold.COUNT),
    Column("all amounts", EVERYTHING, Fold.SUM),
    Column("nothing", Source("no such type"), Fold.SUM),
]
BLOCKS: list[Block] = [
    *((column.key,) for column in COLUMNS),
    ("revenue", "purchases"),
    ("revenue", "orders with amounts", "before"),
    ("price", "cheap views", "everything", "nothing", "capped", "three"),
    ("floored", "nothing"),
]

Feeder = Callable[[Feed], "Model"]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any) -> float | None:
    """A JSON value as a number that counts."""
    return float(value) if is_number(value) and abs(value) <= 1e100 else None


def holds(one: Filter, properties: dict[str, Any]) -> bool:
    """Whether an event's properties pass a filter."""
    has = properties.get(one.property)

    def same(wanted: Any) -> bool:
        if isinstance(wanted, bool) or wanted is None or isinstance(wanted, str):
            return type(has) is type(wanted) and has == wanted
        return is_number(has) and has == wanted

    wanted: Any = one.value
    alike = isinstance(has, str) if isinstance(wanted, str) else is_number(has)
    return {
        Operator.EQ: lambda: same(wanted),
        Operator.NE: lambda: not same(wanted),
        Operator.IN: lambda: any(same(each) for each in wanted),
        Operator.NOT_IN: lambda: not any(same(each) for each in wanted),
        Operator.EXISTS: lambda: has is not None,
        Operator.NOT_EXISTS: lambda: has is None,
        Operator.LT: lambda: alike and has < wanted,
        Operator.LE: lambda: alike and has <= wanted,
        Operator.GT: lambda: alike and has > wanted,
        Operator.GE: lambda: alike and has >= wanted,
    }[one.op]()


class Model:
    """What was fed, and the same answers computed from it event by event."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.units: dict[str, tuple[int, int, int]] = {}
        self.sent: list[dict[str, Any]] = []

    def assign(self, unit: str, variant: int, phase: int, at: int) -> None:
        self.units[unit] = (variant, phase, at)
        self.feed.assign((unit, variant), phase=phase, at=at)

    def events(self, *events: dict[str, Any]) -> None:
        self.sent.extend(events)
        self.feed.events(*events)

    def of(self, unit: str, source: Source, scope: Scope, since: int | None = None) -> list[dict[str, Any]]:
        """The unit's events of a source, as they count."""
        at = self.units[unit][2]
        anchor = since if since is not None and source.opens >= 0 else at
        found = []
        for one in self.sent:
            start, end = one["s"], one.get("c", one["s"])
            if one["u"] != unit or source.event_type not in {"", one["t"]}:
                continue
            if scope.event_type not in {None, one["t"]} or one.get("x", 1) != scope.experiment_id:
                continue
            if end < anchor + source.opens:
                continue
            last = end if source.closes is not None and source.closes <= 0 else start
            if source.closes is not None and last >= anchor + source.closes:
                continue
            if any(limit is not None and start > limit for limit in (scope.ended_at, scope.until)):
                continue
            if scope.events_from is not None and source.opens >= 0 and start < scope.events_from:
                continue
            if all(holds(each, json.loads(one.get("p", "{}"))) for each in source.where):
                found.append(one)
        return found

    def numbers(self, column: Column, events: Sequence[dict[str, Any]]) -> list[float]:
        if column.property is None:
            return [one["a"] for one in events if one.get("a") is not None]
        read = (number(json.loads(one.get("p", "{}")).get(column.property)) for one in events)
        return [value for value in read if value is not None]

    def steps(self, column: Column, unit: str, scope: Scope) -> float:
        at = self.units[unit][2]
        place = (0, 0)
        for nth, source in enumerate((column.source, *column.steps)):
            times = sorted((max(one["s"], at), nth) for one in self.of(unit, source, scope))
            later = [each for each in times if each[0] >= place[0]]
            if not later:
                return 0.0
            place = later[0]
        return 1.0

    def value(self, column: Column, unit: str, scope: Scope, since: int | None = None) -> float:
        if column.fold is Fold.STEPS:
            return self.steps(column, unit, scope)
        events = self.of(unit, column.source, scope, since)
        numbers = self.numbers(column, events)
        found = {Fold.ANY: len(events), Fold.COUNT: len(events), Fold.SUM: sum(numbers)}
        value = float(found.get(column.fold, len(numbers)))
        if column.at_least is not None:
            value = float(value >= column.at_least)
        elif column.fold is Fold.ANY:
            value = float(value > 0)
        value = value if column.low is None else max(value, column.low)
        return value if column.high is None else min(value, column.high)

    def members(self, scope: Scope) -> list[str]:
        return [
            unit
            for unit, (_, _, at) in self.units.items()
            if unit not in scope.excluded_units and (scope.until is None or at <= scope.until)
        ]

    def frame(self, columns: Sequence[Column], scope: Scope) -> pd.DataFrame:
        rows = []
        for unit in self.members(scope):
            variant, phase, _ = self.units[unit]
            row: dict[str, Any] = {"unit": unit, "variant": variant, "phase": phase}
            row |= {column.key: self.value(column, unit, scope) for column in columns}
            rows.append(row)
        return pd.DataFrame(rows)


def check(cells: list[Cell], frame: pd.DataFrame, blocks: Sequence[Block]) -> None:
    """Counts to the unit, means and covariances to 1e-9 of the scale of the numbers."""
    groups = dict(list(frame.groupby(["variant", "phase"])))
    assert [(cell.variant_id, cell.phase) for cell in cells] == sorted(groups)
    for cell in cells:
        part = groups[cell.variant_id, cell.phase]
        assert cell.units == len(part)
        assert set(cell.blocks) == set(blocks)
        for block, moments in cell.blocks.items():
            data = part[list(block)]
            assert moments.count == len(part)
            assert moments.nonzero == tuple((data != 0).sum()), block
            assert moments.totals == pytest.approx(tuple(data.sum()), rel=1e-12, abs=1e-9), block
            assert moments.means == pytest.approx(tuple(data.mean()), rel=1e-9, abs=1e-9), block
            wanted = data.cov().to_numpy() if len(part) > 1 else np.zeros((len(block),) * 2)
            assert np.allclose(np.array(moments.covariance), wanted, rtol=1e-9, atol=1e-9), block


@pytest.fixture
def model(feed: Feed) -> Model:
    """Some dozen units in two variants and phases, with some hundred events of all kinds."""
    chance = random.Random(20_261_121)
    model = Model(feed)
    for place in range(40):
        model.assign(f"u{place}", 10 + place % 2, int(place % 7 == 0), NOW + chance.randrange(2 * DAY))
    model.assign("alone", 12, 0, NOW)
    prices = (7, 12.5, 30, "12", None, True, [7], "x", 1e101)
    events = []
    for _ in range(700):
        properties = {"price": chance.choice(prices), "plan": chance.choice(["a", "b", "ä", None, 1])}
        at = NOW + chance.randrange(-8 * DAY, 5 * DAY)
        more: dict[str, Any] = {"p": properties} if chance.random() < 0.9 else {}
        more |= {"c": at + chance.choice([HOUR, DAY]) - 1} if chance.random() < 0.3 else {}
        more |= {"x": chance.choice([1, 2])} if chance.random() < 0.2 else {}
        more |= {"a": chance.choice([0.1, 19.99, -5.0, 100.0])} if chance.random() < 0.7 else {}
        user = f"u{chance.randrange(36)}"  # the last ones have no events
        events.append(event(user, chance.choice(["purchase", "view", "click"]), at=at, **more))
    model.events(*events)
    return model


class ColumnContract:
    """Inherit and give the fixture `store` (empty)."""

    @pytest.mark.parametrize(
        "scope",
        [
            SCOPE,
            Scope(1, ended_at=NOW + 3 * DAY, excluded_units=frozenset({"u1", "u2"})),
            Scope(1, until=NOW + DAY, events_from=NOW + HOUR),
            Scope(1, event_type="view"),
        ],
        ids=["all", "ended", "narrowed", "one type"],
    )
    def test_joint_moments_are_those_of_pandas(self, store: EventStore, model: Model, scope: Scope) -> None:
        check(store.columns(scope, COLUMNS, BLOCKS), model.frame(COLUMNS, scope), BLOCKS)

    @pytest.mark.parametrize(
        "scope",
        [
            SCOPE,
            Scope(1, ended_at=NOW + 3 * DAY, excluded_units=frozenset({"u1", "u2"})),
            Scope(1, until=NOW + DAY, events_from=NOW + HOUR),
            Scope(1, event_type="view"),
        ],
        ids=["all", "ended", "narrowed", "one type"],
    )
    def test_units_are_listed_page_by_page_with_their_values(
        self, store: EventStore, model: Model, scope: Scope
    ) -> None:
        steps = Column("steps", VIEW, Fold.STEPS, steps=(PURCHASE,))
        found: list[UnitValues] = []
        while page := store.unit_values(scope, [*COLUMNS, steps], 7, found[-1].unit if found else 0):
            assert len(page) == 7 or len(page) == len(model.members(scope)) % 7
            found += page
        assert [each.unit_id for each in found] == model.members(scope)
        for each in found:
            assert (each.variant_id, each.phase, each.assigned_at) == model.units[each.unit_id]
            wanted = [model.value(column, each.unit_id, scope) for column in (*COLUMNS, steps)]
            assert each.values == pytest.approx(wanted, rel=1e-12)
        nothing = store.unit_values(scope, [Column("n", Source("no such type"), Fold.SUM, low=2.0)], 1)
        assert [each.values for each in nothing] == [(2.0,)]
        assert [each.values for each in store.unit_values(scope, [], 2)] == [(), ()]

    def test_every_column_alone_is_the_same_as_among_all(self, store: EventStore, model: Model) -> None:
        for column in COLUMNS:
            block = (column.key,)
            check(store.columns(SCOPE, [column], [block]), model.frame([column], SCOPE), [block])

    def test_filters_read_properties_by_their_type(self, store: EventStore, model: Model) -> None:
        wanted: list[Filter] = [
            *(
                Filter("plan", op, value)
                for op in (Operator.EQ, Operator.NE, Operator.LT, Operator.GE)
                for value in ("a", "b", 1, 0.5)
            ),
            Filter("price", Operator.GT, 12),
            Filter("price", Operator.LE, 12.5),
            Filter("price", Operator.EQ, True),
            Filter("price", Operator.NE, None),
            Filter("plan", Operator.IN, ("a", 1)),
            Filter("plan", Operator.NOT_IN, ("a", None)),
            Filter("plan", Operator.IN, ()),
            Filter("plan", Operator.EXISTS),
            Filter("plan", Operator.NOT_EXISTS),
            Filter("plan", Operator.EQ, "ä"),
            Filter("no 'such\" $p1 {plan}", Operator.NOT_EXISTS),
        ]
        columns = [
            Column(f"{place}", Source("purchase", (one,)), Fold.COUNT) for place, one in enumerate(wanted)
        ]
        blocks = [(column.key,) for column in columns]
        check(store.columns(SCOPE, columns, blocks), model.frame(columns, SCOPE), blocks)

    def test_numbers_that_are_none_are_told(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 10))
        given = [1, "2", None, True, 1e101, {"price": 3}, 4]
        feed.events(*(event("a", p={"price": price}) for price in given), event("b"), event("b", p={}))
        price = Column("price", PURCHASE, Fold.SUM, "price")
        every = Column("every", EVERYTHING, Fold.SUM, "price")
        [cell] = store.columns(SCOPE, [price, every], [("price",), ("every",), ("price", "every")])
        assert cell.unreadable == {"price": 4, "every": 4}
        for block in cell.blocks.values():
            assert set(block.totals) == {5.0}

    def test_a_coarse_time_is_in_every_window_it_may_be_in_but_not_before(
        self, store: EventStore, feed: Feed
    ) -> None:
        feed.assign(("a", 10), at=NOW + HOUR)
        feed.events(event("a", at=NOW, c=NOW + DAY - 1))
        windows = [(0, None), (0, HOUR), (DAY - 2 * HOUR, None), (DAY, None), (-DAY, 0), (-DAY, HOUR)]
        columns = [
            Column(str(place), Source("purchase", (), opens, closes), Fold.COUNT)
            for place, (opens, closes) in enumerate(windows)
        ]
        [cell] = store.columns(SCOPE, columns, [tuple(column.key for column in columns)])
        [moments] = cell.blocks.values()
        assert moments.totals == (1, 1, 1, 0, 0, 1)

    def test_a_window_of_any_length_is_answered(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a"))
        columns = [
            Column("ever", Source("purchase", (), -(2**62), 2**62), Fold.COUNT),
            Column("never", Source("purchase", (), 2**62), Fold.COUNT),
        ]
        [cell] = store.columns(SCOPE, columns, [("ever", "never")])
        assert cell.blocks["ever", "never"].totals == (1.0, 0.0)

    def test_large_equal_values_have_no_spread(self, store: EventStore, feed: Feed) -> None:
        feed.assign(*((f"u{place}", 10) for place in range(50)))
        feed.events(*(event(f"u{place}", a=1e9 + place % 2) for place in range(50)))
        [cell] = store.columns(SCOPE, COLUMNS, [("revenue",), ("revenue", "purchases")])
        for block in cell.blocks.values():
            assert block.covariance[0][0] == pytest.approx(12.5 / 49, rel=1e-9)

    def test_no_units_and_no_columns(self, store: EventStore, feed: Feed) -> None:
        assert store.columns(SCOPE, COLUMNS, BLOCKS) == []
        feed.assign(("a", 10))
        assert store.columns(SCOPE, COLUMNS, []) == [Cell(10, 0, None, 1, {}, {})]
        with pytest.raises(ValueError, match="no column is called 'x'"):
            store.columns(SCOPE, COLUMNS, [("x",)])

    def test_units_may_be_told_apart_by_groups(self, store: EventStore, model: Model) -> None:
        units = sorted(model.units)
        groups = {unit: ("new", "ölder", "")[place % 3] for place, unit in enumerate(units) if place % 4}
        blocks: list[Block] = [("revenue",), ("purchases", "before")]
        lists = {
            label: UnitList.of([*(unit for unit, own in groups.items() if own == label), f"nobody{label}"])
            for label in ("ölder", "new", "")
        }
        cells = store.columns(SCOPE, COLUMNS, blocks, {**lists, "empty": UnitList.of([])})
        frame = model.frame(COLUMNS, SCOPE)
        named = frame["unit"].map(groups)
        seen = set()
        for label in [*sorted(set(groups.values())), None]:
            part = frame[named.isna() if label is None else named == label]
            check([cell for cell in cells if cell.group == label], part, blocks)
            seen.add(label)
        assert {cell.group for cell in cells} == seen
        check(store.columns(SCOPE, COLUMNS, blocks, {}), frame, blocks)
        chosen = frame["unit"].isin([unit for unit, label in groups.items() if label == "new"])
        narrowed = replace(SCOPE, only=lists["new"])
        check(store.columns(narrowed, COLUMNS, blocks), frame[chosen], blocks)
        assert sum(arm.units for arm in store.moments(narrowed, [])) == chosen.sum()
        assert sum(each.units for each in store.arrivals(narrowed, Bucket.DAY)) == chosen.sum()
        assert store.moments(replace(SCOPE, only=UnitList.of([])), []) == []

    def test_what_counts_may_begin_with_an_event(self, store: EventStore, model: Model) -> None:
        start = Source("view", (CHEAP,))
        scope = Scope(1, activation=start, ended_at=NOW + 4 * DAY)
        plain = replace(scope, activation=None)
        since = {
            unit: min(max(one["s"], model.units[unit][2]) for one in found)
            for unit in model.units
            if (found := model.of(unit, start, plain))
        }
        rows = []
        for unit, at in since.items():
            variant, phase, _ = model.units[unit]
            values = {column.key: model.value(column, unit, plain, at) for column in COLUMNS}
            rows.append({"unit": unit, "variant": variant, "phase": phase, **values})
        assert 5 < len(rows) < len(model.units)
        check(store.columns(scope, COLUMNS, BLOCKS), pd.DataFrame(rows), BLOCKS)
        arms = store.moments(scope, [Measure("purchases", "purchase")])
        cells = store.columns(scope, COLUMNS, [("purchases",)])
        assert [(arm[:3], arm.measures["purchases"].events) for arm in arms] == [
            ((cell.variant_id, cell.phase, cell.units), cell.blocks[("purchases",)].totals[0])
            for cell in cells
        ]
        points = store.series(scope, Measure("purchases", "purchase"), Bucket.DAY)
        assert sum(point.newly_assigned for point in points) == len(rows)

    def test_only_units_observed_long_enough(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("early", 10), at=NOW)
        feed.assign(("late", 10), at=NOW + 1)
        for scope in (
            Scope(1, until=NOW + DAY, observed_for=DAY),
            Scope(1, until=NOW + 9 * DAY, ended_at=NOW + DAY, observed_for=DAY),
        ):
            assert [cell.units for cell in store.columns(scope, [], [])] == [1]
        assert [cell.units for cell in store.columns(Scope(1, until=NOW + DAY), [], [])] == [2]
        with pytest.raises(ValueError, match="observed_for needs"):
            Scope(1, observed_for=DAY)

    def test_percentiles_are_over_all_units_with_events(self, store: EventStore, model: Model) -> None:
        levels = (0.0, 0.05, 0.5, 0.9, 0.99, 1.0)
        found = store.percentiles(SCOPE, COLUMNS, levels)
        for column in COLUMNS:
            values = []
            for unit in model.members(SCOPE):
                events = model.of(unit, column.source, SCOPE)
                summed = column.fold in {Fold.SUM, Fold.VALUED}
                if model.numbers(column, events) if summed else events:
                    values.append(model.value(column, unit, SCOPE))
            wanted = [np.quantile(values, level, method="inverted_cdf") for level in levels if values]
            if wanted:
                assert list(found[column.key]) == pytest.approx(wanted, rel=1e-12), column.key
            else:
                assert found[column.key] == (None,) * len(levels)

    @pytest.mark.parametrize("q", [0.02, 0.5, 0.9])
    def test_quantiles_of_events_and_of_units(self, store: EventStore, model: Model, q: float) -> None:
        revenue, price = COLUMNS[2], COLUMNS[4]
        asked = [
            Quantile("amounts", revenue, q, of_events=True),
            Quantile("prices", price, q, of_events=True, alpha=0.2),
            Quantile("revenue", revenue, q),
            Quantile("revenue of all", revenue, q, zeros=True),
            Quantile("nothing", COLUMNS[-1], q, of_events=True),
        ]
        arms = store.quantiles(SCOPE, asked)
        assert [arm.key for arm in arms[:5]] == [one.key for one in asked]
        for arm in arms:
            one = next(one for one in asked if one.key == arm.key)
            observed, labels = [], []
            for unit, (variant, phase, _) in model.units.items():
                if (variant, phase) == (arm.variant_id, arm.phase):
                    numbers = model.numbers(one.column, model.of(unit, one.column.source, SCOPE))
                    values = numbers if one.of_events else [sum(numbers)] if numbers or one.zeros else []
                    observed += values
                    labels += [unit] * len(values)
            wanted = quantile_of_values(observed, q, units=labels, alpha=one.alpha)
            assert (arm.events, arm.value) == (wanted.events, pytest.approx(wanted.value))
            levels = neighbours(q, len(observed), alpha=one.alpha) if observed else None
            beside = [np.quantile(observed, level, method="inverted_cdf") for level in levels or ()]
            assert [arm.lower, arm.upper] == pytest.approx(beside or [None, None])
            frame = pd.DataFrame(
                {"unit": labels, "below": np.array(observed) <= (arm.value or 0) + 1e-9, "own": 1}
            )
            grouped = frame.groupby("unit")[["below", "own"]].sum().astype(float)
            assert arm.units == arm.clusters.count == len(grouped)
            if len(grouped) > 1:
                assert arm.clusters.means == pytest.approx(tuple(grouped.mean()))
                assert np.allclose(arm.clusters.covariance, grouped.cov(), rtol=1e-9, atol=1e-12)
        assert {arm.unreadable > 0 for arm in arms if arm.key == "prices" and arm.events} == {True}
        with pytest.raises(ValueError, match="strictly between"):
            store.quantiles(SCOPE, [Quantile("all", revenue, 1.0)])

    def test_quantiles_of_phases_put_together(self, store: EventStore, model: Model) -> None:
        revenue = COLUMNS[2]
        phases = sorted({phase for _, phase, _ in model.units.values()})
        one = Quantile("revenue", revenue, 0.5, zeros=True)
        arms = store.quantiles(SCOPE, [one], dict.fromkeys(phases, 7))
        assert {arm.phase for arm in arms} == {7}
        for arm in arms:
            observed = [
                sum(model.numbers(revenue, model.of(unit, revenue.source, SCOPE)))
                for unit, (variant, _, _) in model.units.items()
                if variant == arm.variant_id
            ]
            assert (arm.events, arm.value) == (
                len(observed),
                pytest.approx(np.quantile(observed, 0.5, method="inverted_cdf")),
            )
        alone = store.quantiles(SCOPE, [one], {phases[0]: phases[0]})
        assert alone == store.quantiles(SCOPE, [one])

    def test_funnels_of_the_time_before_go_in_the_order_of_time(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("forth", 10), ("back", 10), at=NOW - DAY)
        for unit, first, second in (("forth", "view", "purchase"), ("back", "purchase", "view")):
            feed.events(event(unit, first, NOW - 3 * DAY), event(unit, second, NOW - 2 * DAY))
        past = Source("view", opens=-7 * DAY, closes=0)
        funnel = Column("funnel", past, Fold.STEPS, steps=(BEFORE,))
        [cell] = store.columns(SCOPE, [funnel], [("funnel",)])
        assert cell.blocks["funnel",].totals == (1.0,)

    def test_statements_are_recorded_for_whoever_wants_them(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        with store.recorded() as statements:
            store.columns(SCOPE, [COLUMNS[2]], [("revenue",)])
        scanned = next(each for each in statements if "FROM events" in each.text and "var_samp" in each.text)
        assert scanned.parameters["experiment_id"] == SCOPE.experiment_id
        count = len(statements)
        store.columns(SCOPE, [COLUMNS[2]], [("revenue",)])
        assert len(statements) == count

    def test_funnels_go_in_the_order_of_time(self, store: EventStore, feed: Feed) -> None:
        done = ["straight", "tied", "again", "detour"]
        feed.assign(*((unit, 10) for unit in (*done, "backwards", "half", "twice once", "before", "idle")))
        steps = {
            "straight": [("view", 1), ("click", 2), ("purchase", 3)],
            "tied": [("purchase", 1), ("click", 1), ("view", 1)],
            "again": [("purchase", 1), ("view", 2), ("click", 2), ("purchase", 5)],
            "detour": [("click", 1), ("view", 2), ("other", 3), ("view", 3), ("click", 4), ("purchase", 4)],
            "backwards": [("purchase", 1), ("click", 2), ("view", 3)],
            "half": [("view", 1), ("purchase", 2)],
            "twice once": [("view", 1)],
            "before": [("view", -3 * DAY), ("click", 2), ("purchase", 3)],
        }
        feed.events(
            *(
                event(unit, kind, at=NOW + after, p={"n": after})
                for unit, path in steps.items()
                for kind, after in path
            )
        )
        click = Source("click")
        columns = [
            Column("funnel", VIEW, Fold.STEPS, steps=(click, PURCHASE)),
            Column("one step", VIEW, Fold.STEPS),
            Column("two views", VIEW, Fold.STEPS, steps=(VIEW,)),
            Column("filtered", VIEW, Fold.STEPS, steps=(Source("click", (Filter("n", Operator.GT, 3),)),)),
            Column("never", VIEW, Fold.STEPS, steps=(Source("no such"),)),
            Column("anything", EVERYTHING, Fold.STEPS, steps=(PURCHASE,)),
            Column("purchases", PURCHASE, Fold.COUNT),
        ]
        keys = [column.key for column in columns]
        blocks: list[Block] = [*((key,) for key in keys), tuple(keys)]
        [cell] = store.columns(SCOPE, columns, blocks)
        wanted = (4, 7, 1, 1, 0, 6, 8)
        assert cell.blocks[tuple(keys)].totals == wanted
        assert tuple(cell.blocks[key,].totals[0] for key in keys) == wanted
        [narrowed] = store.columns(Scope(1, event_type="view"), columns, [tuple(keys)])
        assert narrowed.blocks[tuple(keys)].totals == (0, 7, 1, 0, 0, 0, 0)
