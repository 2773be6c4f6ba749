"""The distributions of columns over units: asked as one statement, units without events merged in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

from assay.eventstore import plan, rollups, scan
from assay.eventstore.base import Scope
from assay.eventstore.columns import (
    Beside,
    Block,
    BlockMoments,
    Cell,
    Column,
    Fold,
    Quantile,
    QuantileArm,
    UnitList,
    UnitValues,
)
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.plan import Done, Feature
from assay.eventstore.scan import Units
from assay.eventstore.statements import filled

Key = tuple[Any, ...]


class _Found(NamedTuple):
    """How columns are distributed over those units that have rows: none of the others has events."""

    active: int
    nonzero: Mapping[str, float]
    sums: Mapping[str, float]
    products: Mapping[tuple[str, str], float]
    """Sums of products of deviations from the means."""


_NOTHING = _Found(0, {}, {}, {})


def columns(
    engine: Engine,
    scope: Scope,
    wanted: Sequence[Column],
    blocks: Sequence[Block],
    groups: Mapping[str, UnitList] | Beside | None,
    strata: Mapping[int, int] | None = None,
) -> list[Cell]:
    """See `EventStore.columns`, and for the strata `EventStore.quantiles`."""
    by_key = {column.key: column for column in wanted}
    unknown = sorted({key for block in blocks for key in block} - by_key.keys())
    if unknown:
        raise ValueError(f"no column is called {unknown[0]!r}; there are {', '.join(by_key)}")
    beside = isinstance(groups, Beside)
    labels = [] if groups is None or isinstance(groups, Beside) else list(groups)
    grouping = groups if groups is None or isinstance(groups, Beside) else list(groups.values())
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = scan.units(engine, scope, bound, grouping, strata)
    text = filled(engine.statement("columns", "cells"), key=of.keyed(), units=of.text)
    cells = engine.ask(text, bound.used_in(text))
    asked = _Asked(engine, scope, of, bound, by_key, blocks)
    found = asked.found() if cells else {}
    unreadable = asked.unreadable
    answer = []
    for *rest, units in cells:
        key = tuple(rest)
        label = None
        if len(key) > 2 and key[2] is not None:
            label = str(key[2]) if beside else labels[key[2]]
        moments = {block: _moments(units, [by_key[name] for name in block], found, key) for block in blocks}
        missed = {
            name: unreadable.get((*key, name), 0)
            for name in dict.fromkeys(name for block in blocks for name in block)
            if by_key[name].property is not None
        }
        answer.append(Cell(key[0], key[1], label, units, moments, missed))
    return sorted(
        answer, key=lambda cell: (cell.variant_id, cell.phase, cell.group is None, cell.group or "")
    )


@dataclass
class _Asked:
    """One question for columns, and its answer as it comes in."""

    engine: Engine
    scope: Scope
    of: Units
    bound: Bound
    by_key: Mapping[str, Column]
    blocks: Sequence[Block]
    unreadable: dict[Key, int] = field(default_factory=dict)
    """By cell and column."""

    def found(self) -> dict[tuple[Key, Block], _Found]:
        """By cell and block; what is not there has no events."""
        needed = [
            self.by_key[name] for name in dict.fromkeys(name for block in self.blocks for name in block)
        ]
        features = dict.fromkeys(
            one
            for column in needed
            for one in (plan.feature(column), plan.unreadable(column))
            if one is not None
        )
        done = rollups.done(self.engine, self.scope, self.of, self.bound, list(features))
        if not done.text:
            return {}
        live = [column for column in needed if plan.feature(column) in done.slots.of]
        kinds = {column.key: done.slots.kinds[plan.feature(column)] for column in live}
        alone: list[tuple[Block, tuple[str, ...]]] = []
        together: list[tuple[Block, tuple[str, ...]]] = []
        for block in self.blocks:
            names = tuple(name for name in block if name in kinds)
            one_kind = len({kind for name in names for kind in kinds[name]}) == 1
            (alone if one_kind else together).append((block, names))
        narrow = _Narrow(self, done, alone)
        across = _Wide(self, done, [each for each in together if each[1]])
        parts = [part.text() for part in (narrow, across) if part.columns]
        if not parts:
            return {}
        text = filled(
            self.engine.statement("columns", "columns"),
            materialized="MATERIALIZED" if len(parts) > 1 else "",
            together="\nUNION ALL\n".join(parts),
            done=done.text,
        )
        found: dict[tuple[Key, Block], _Found] = {}
        width = len(self.of.key)
        for row in self.engine.ask(text, self.bound.used_in(text)):
            key, kind, active, values = tuple(row[:width]), row[width], row[width + 1], row[width + 2]
            if kind < 0:
                across.take(key, active, values, found)
            else:
                narrow.take(key, kind, active, values, found)
        return found

    def statement(self, name: str, **parts: str) -> str:
        """A statement of ours, filled in."""
        return filled(self.engine.statement("columns", name), key=self.of.keyed(), **parts)


_Live = Sequence[tuple[Block, tuple[str, ...]]]
"""Blocks, each with those of its columns that can have events."""


class _Narrow:
    """Blocks whose columns are all of one kind of events, each over the rows of its kind.

    Blocks of different kinds share places in the answer. A place for columns that are 0 or 1 is one number
    (how many are 1); any other is three: how many are not zero, sum, variance. Then come the covariances of
    pairs, and last unreadable events.
    """

    def __init__(self, asked: _Asked, done: Done, blocks: _Live) -> None:
        self._asked = asked
        self._done = done
        self._blocks: dict[int, list[tuple[Block, tuple[str, ...]]]] = {}
        self._of_kind: dict[int, tuple[list[Column], list[Column], list[Column]]] = {}
        self._pairs: dict[int, list[tuple[Column, Column]]] = {}
        placed: set[str] = set()
        for block, names in blocks:
            columns = [asked.by_key[name] for name in names]
            (kind,) = done.slots.kinds[plan.feature(columns[0])]
            self._blocks.setdefault(kind, []).append((block, names))
            binary, other, missed = self._of_kind.setdefault(kind, ([], [], []))
            for column in columns:
                if column.key not in placed:
                    (binary if _is_binary(column) else other).append(column)
                    if plan.unreadable(column) is not None:
                        missed.append(column)
                    placed.add(column.key)
            pairs = self._pairs.setdefault(kind, [])
            for nth, first in enumerate(columns):
                for second in columns[nth + 1 :]:
                    if (first, second) not in pairs and (second, first) not in pairs:
                        pairs.append((first, second))
        self.columns = [column for lists in self._of_kind.values() for column in (*lists[0], *lists[1])]

    def text(self) -> str:
        """The part of the statement."""
        bound, slots = self._asked.bound, self._done.slots

        def value(column: Column) -> str:
            return plan.pulled_text(column, slots.of[plan.feature(column)], bound)

        def missed(column: Column) -> str:
            one = plan.unreadable(column)
            return "0" if one is None else slots.of[one]

        binary, other, unreadable = (
            self._places({kind: list(map(expression, lists[which])) for kind, lists in self._of_kind.items()})
            for which, expression in ((0, value), (1, value), (2, missed))
        )
        firsts, seconds = (
            self._places({kind: [value(pair[at]) for pair in pairs] for kind, pairs in self._pairs.items()})
            for at in (0, 1)
        )
        numbers = [f"CAST(sum({text}) AS FLOAT8)" for text in binary]
        for text in other:
            numbers += [
                f"CAST(count(*) FILTER (WHERE {text} <> 0) AS FLOAT8)",
                f"sum({text})",
                f"coalesce(var_samp({text}), 0)",
            ]
        numbers += [f"coalesce(covar_samp({x}, {y}), 0)" for x, y in zip(firsts, seconds, strict=True)]
        numbers += [f"CAST(sum({text}) AS FLOAT8)" for text in unreadable]
        of_kinds = self._done.among(self._of_kind)
        return self._asked.statement("narrow", numbers=", ".join(numbers), of_kinds=of_kinds)

    @staticmethod
    def _places(of_kind: Mapping[int, Sequence[str]]) -> list[str]:
        """The expression for each place, from those of each kind."""
        texts = []
        for at in range(max(map(len, of_kind.values()))):
            by_text: dict[str, list[int]] = {}
            for kind, expressions in of_kind.items():
                if at < len(expressions):
                    by_text.setdefault(expressions[at], []).append(kind)
            cases = [
                f"WHEN kind IN ({', '.join(map(str, kinds))}) THEN {text}" for text, kinds in by_text.items()
            ]
            texts.append(next(iter(by_text)) if len(by_text) == 1 else f"CASE {' '.join(cases)} END")
        return texts

    def take(
        self,
        key: Key,
        kind: int,
        active: int,
        values: Sequence[float],
        found: dict[tuple[Key, Block], _Found],
    ) -> None:
        """Take in one row of the answer."""
        binary, other, missed = self._of_kind[kind]
        nonzero: dict[str, float] = {}
        sums: dict[str, float] = {}
        products: dict[tuple[str, str], float] = {}
        for column, ones in zip(binary, values, strict=False):
            name = column.key
            nonzero[name] = sums[name] = ones
            products[name, name] = ones * (active - ones) / active
        start = max(len(lists[0]) for lists in self._of_kind.values())
        for at, column in enumerate(other):
            name = column.key
            nonzero[name], sums[name], variance = values[start + 3 * at : start + 3 * at + 3]
            products[name, name] = variance * (active - 1)
        start += 3 * max(len(lists[1]) for lists in self._of_kind.values())
        for (first, second), spread in zip(self._pairs[kind], values[start:], strict=False):
            products[first.key, second.key] = products[second.key, first.key] = spread * (active - 1)
        start += max(map(len, self._pairs.values()))
        for column, count in zip(missed, values[start:], strict=False):
            self._asked.unreadable[*key, column.key] = int(count)
        of_kind = _Found(active, nonzero, sums, products)
        found.update({(key, block): of_kind for block, _ in self._blocks[kind]})


class _Wide:
    """Blocks that need the unit's whole row: of several kinds of events."""

    def __init__(self, asked: _Asked, done: Done, blocks: _Live) -> None:
        self._asked = asked
        self._done = done
        self._names = list(dict.fromkeys(name for _, names in blocks for name in names))
        self.columns = [asked.by_key[name] for name in self._names]
        self._missed = [column for column in self.columns if plan.unreadable(column) is not None]
        self._blocks = blocks
        self._pairs = list(
            dict.fromkeys(
                (x, y)
                for _, names in self._blocks
                for x in names
                for y in names
                if names.index(x) <= names.index(y)
            )
        )

    def text(self) -> str:
        """The part of the statement."""
        features: list[Feature] = list(dict.fromkeys(plan.feature(column) for column in self.columns))
        for column in self._missed:
            one = plan.unreadable(column)
            if one is not None and one not in features:
                features.append(one)
        raw = {one: f"r{at}" for at, one in enumerate(features)}
        place = {name: f"x{at}" for at, name in enumerate(self._names)}
        values = [
            f"{plan.pulled_text(column, raw[plan.feature(column)], self._asked.bound)} AS {place[column.key]}"
            for column in self.columns
        ]
        numbers = []
        for at in place.values():
            numbers += [f"CAST(count(*) FILTER (WHERE {at} <> 0) AS FLOAT8)", f"sum({at})"]
        for x, y in self._pairs:
            spread = f"var_samp({place[x]})" if x == y else f"covar_samp({place[x]}, {place[y]})"
            numbers.append(f"coalesce({spread}, 0)")
        for column in self._missed:
            one = plan.unreadable(column)
            if one is not None:
                numbers.append(f"CAST(sum({raw[one]}) AS FLOAT8)")
        return self._asked.statement(
            "wide",
            numbers=", ".join(numbers),
            values=", ".join(values),
            raw=", ".join(f"{self._done.raw(one)} AS {name}" for one, name in raw.items()),
            of_kinds=self._done.among(kind for one in features for kind in self._done.slots.kinds[one]),
        )

    def take(
        self, key: Key, active: int, values: Sequence[float], found: dict[tuple[Key, Block], _Found]
    ) -> None:
        """Take in one row of the answer."""
        count = len(self._names)
        nonzero = dict(zip(self._names, values[0 : 2 * count : 2], strict=True))
        sums = dict(zip(self._names, values[1 : 2 * count : 2], strict=True))
        spread = zip(self._pairs, values[2 * count : 2 * count + len(self._pairs)], strict=True)
        products = {pair: value * (active - 1) for pair, value in spread}
        products |= {(y, x): value for (x, y), value in products.items()}
        all_of_it = _Found(active, nonzero, sums, products)
        found.update({(key, block): all_of_it for block, _ in self._blocks})
        for column, missed in zip(self._missed, values[2 * count + len(self._pairs) :], strict=True):
            self._asked.unreadable[*key, column.key] = int(missed)


def _is_binary(column: Column) -> bool:
    """Whether the column is 0 or 1 for every unit."""
    if column.low is not None or column.high is not None:
        return False
    return column.at_least is not None or column.fold in {Fold.ANY, Fold.STEPS}


def _moments(
    units: int, block: Sequence[Column], found: Mapping[tuple[Key, Block], _Found], key: Key
) -> BlockMoments:
    """The moments over all `units`, from those of the units that have rows: the rest have what becomes of 0.

    Merging by Chan, Golub and LeVeque: with k of n units active and means m over these, and z over the rest,
    the centred sum of products of the whole is that of the active ones plus (m₁ − z₁)(m₂ − z₂)·k·(n − k)/n.
    """
    names = tuple(column.key for column in block)
    here = found.get((key, names), _NOTHING)
    rest, active = units - here.active, here.active
    idle = [plan.pulled(column, 0.0) for column in block]
    # A column that can have no events is in no answer, though others of its block may be.
    totals, nonzero, gaps = [], [], []
    for name, zero in zip(names, idle, strict=True):
        total = here.sums.get(name, zero * active)
        totals.append(total + zero * rest)
        nonzero.append(int(here.nonzero.get(name, active * (zero != 0))) + rest * (zero != 0))
        gaps.append(total / active - zero if active else 0.0)
    weight = active * rest / units
    matrix = tuple(
        tuple(
            (here.products.get((x, y), 0.0) + gap_x * gap_y * weight) / (units - 1) if units > 1 else 0.0
            for y, gap_y in zip(names, gaps, strict=True)
        )
        for x, gap_x in zip(names, gaps, strict=True)
    )
    means = tuple(total / units for total in totals)
    return BlockMoments(units, means, matrix, tuple(nonzero), tuple(totals))


def percentiles(
    engine: Engine, scope: Scope, wanted: Sequence[Column], levels: Sequence[float]
) -> dict[str, tuple[float | None, ...]]:
    """See `EventStore.percentiles`."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = scan.units(engine, scope, bound)
    features = dict.fromkeys(one for column in wanted for one in (plan.feature(column), _active(column)))
    done = rollups.done(engine, scope, of, bound, list(features))
    live = [column for column in wanted if plan.feature(column) in done.slots.of]
    if not done.text or not live or not levels:
        return {column.key: (None,) * len(levels) for column in wanted}
    raw = {one: f"r{at}" for at, one in enumerate(one for one in features if one in done.slots.of)}
    values, numbers = [], []
    for at, column in enumerate(live):
        value = plan.pulled_text(column, raw[plan.feature(column)], bound)
        values.append(f"CASE WHEN {raw[_active(column)]} > 0 THEN {value} END AS x{at}")
        numbers += [f"percentile_disc({level!r}) WITHIN GROUP (ORDER BY x{at})" for level in levels]
    text = filled(
        engine.statement("columns", "percentiles"),
        key=of.keyed(),
        numbers=", ".join(numbers),
        values=", ".join(values),
        raw=", ".join(f"{done.raw(one)} AS {name}" for one, name in raw.items()),
        done=done.text,
    )
    [(row,)] = engine.ask(text, bound.used_in(text))
    found = iter(row)
    answers = {column.key: tuple(next(found) for _ in levels) for column in live}
    return {column.key: answers.get(column.key, (None,) * len(levels)) for column in wanted}


def _active(column: Column) -> Feature:
    """What is above zero for the units that a column has events of."""
    made = plan.feature(column)
    if made.take is plan.Take.SUM:
        return Feature(plan.Take.VALUED, made.source, made.property)
    return made


def quantiles(
    engine: Engine, scope: Scope, asked: Sequence[Quantile], strata: Mapping[int, int] | None
) -> list[QuantileArm]:
    """See `EventStore.quantiles`."""
    arms = []
    for place, one in enumerate(asked):
        if not 0.0 < one.q < 1.0:
            raise ValueError(f"a quantile lies strictly between 0 and 1, not at {one.q!r}")
        block = (one.column.key,)
        # All cells, and what is unreadable.
        cells = columns(engine, scope, [one.column], [block], None, strata)
        found = _quantile(engine, scope, one, strata) if cells else {}
        for cell in cells:
            missed = cell.unreadable.get(one.column.key, 0)
            row = found.get((cell.variant_id, cell.phase))
            arms.append((cell.variant_id, cell.phase, place, _quantile_arm(cell, one, row, missed)))
    return [arm for *_, arm in sorted(arms, key=lambda each: each[:3])]


def _quantile(
    engine: Engine, scope: Scope, one: Quantile, strata: Mapping[int, int] | None
) -> dict[Key, tuple[Any, ...]]:
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = scan.units(engine, scope, bound, strata=strata)
    observed = _observed(engine, scope, of, bound, one)
    if not observed:
        return {}
    z = NormalDist().inv_cdf(1.0 - one.alpha / 2.0)
    reach = f"{_number(z)} * sqrt({_number(one.q * (1.0 - one.q))} / events)"
    text = filled(
        engine.statement("columns", "quantiles"),
        observed=observed,
        key=of.keyed(),
        ranked_key=of.keyed("ranked."),
        marks_key=of.keyed("marks."),
        same_key=_same("ranked", "marks", of),
        same_spread=_same("spread", "marks", of),
        q=_number(one.q),
        lower=f"({_number(one.q)} - {reach})",
        upper=f"({_number(one.q)} + {reach})",
    )
    width = len(of.key)
    return {tuple(row[:width]): row[width:] for row in engine.ask(text, bound.used_in(text))}


def unit_values(
    engine: Engine, scope: Scope, wanted: Sequence[Column], limit: int, after: int
) -> list[UnitValues]:
    """See `EventStore.unit_values`."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    every = scan.units(engine, scope, bound)
    page = filled(
        engine.statement("columns", "units_after"),
        units=every.text,
        after=bound.bind(after),
        limit=str(limit),
    )
    of = Units(page, every.key, whole=False)
    features = list(dict.fromkeys(map(plan.feature, wanted)))
    done = rollups.done(engine, scope, of, bound, features)
    raw = {one: f"r{at}" for at, one in enumerate(one for one in features if one in done.slots.of)}
    joined = ""
    if raw:
        joined = filled(
            engine.statement("columns", "done_by_unit"),
            key=of.keyed(),
            raw=", ".join(f"{done.raw(one)} AS {name}" for one, name in raw.items()),
            done=done.text,
        )
    values = []
    for column in wanted:
        name = raw.get(plan.feature(column))
        values.append(plan.pulled_text(column, "0" if name is None else f"coalesce({name}, 0)", bound))
    text = filled(
        engine.statement("columns", "unit_values"),
        unit_key=of.keyed("u."),
        assigned_at=engine.dialect.micros("u.assigned_at"),
        values=", ".join(values),
        page=page,
        joined=joined,
    )
    return [
        UnitValues(unit, name, variant, phase, at, tuple(found))
        for variant, phase, unit, name, at, found in engine.ask(text, bound.used_in(text))
    ]


def _observed(engine: Engine, scope: Scope, of: Units, bound: Bound, one: Quantile) -> str:
    """The selection of observations; empty where there can be none."""
    column = one.column
    if one.of_events:
        reading = scan.Reading(engine, scope, of, bound, [column.source])
        if not reading.kinds_of(column.source):
            return ""
        return filled(
            engine.statement("columns", "observed_events"),
            key=of.keyed(),
            condition=reading.condition(column.source),
            number=reading.number(column.source, column.property),
            valued=reading.text(),
        )
    features = list(dict.fromkeys((plan.feature(column), _active(column))))
    done = rollups.done(engine, scope, of, bound, features)
    if not done.text or not all(feature in done.slots.of for feature in features):
        return ""
    names = {feature: f"r{at}" for at, feature in enumerate(features)}
    raw = names[features[0]]
    return filled(
        engine.statement("columns", "observed_all_units" if one.zeros else "observed_units"),
        key=of.keyed(),
        unit_key=of.keyed("u."),
        units=of.text,
        value=plan.pulled_text(column, f"coalesce({raw}, 0)", bound),
        active=names[_active(column)],
        raw=", ".join(f"{done.raw(feature)} AS {name}" for feature, name in names.items()),
        done=done.text,
    )


def _same(left: str, right: str, of: Units) -> str:
    return " AND ".join(f"{left}.{name} = {right}.{name}" for name in of.key)


def _number(value: float) -> str:
    return f"CAST({value:.17g} AS FLOAT8)"


def _quantile_arm(cell: Cell, one: Quantile, row: tuple[Any, ...] | None, missed: int) -> QuantileArm:
    if row is None:
        zeros = (0.0, 0.0)
        nothing = BlockMoments(0, zeros, (zeros, zeros), (0, 0), zeros)
        return QuantileArm(cell.variant_id, cell.phase, one.key, 0, 0, None, None, None, nothing, missed)
    events, value, lower, upper, units, some_below, below, own, of_below, of_own, of_both = row
    z = NormalDist().inv_cdf(1.0 - one.alpha / 2.0)
    if events <= z * z * max(one.q / (1.0 - one.q), (1.0 - one.q) / one.q):
        lower = upper = None
    clusters = BlockMoments(
        units,
        (below / units, own / units),
        ((of_below, of_both), (of_both, of_own)),
        (some_below, units),
        (float(below), float(own)),
    )
    return QuantileArm(
        cell.variant_id, cell.phase, one.key, events, units, value, lower, upper, clusters, missed
    )
