"""The parts of a statement that depend on the question: narrowing conditions, measures and their moments.

Texts come from here, values are bound: a property, a filter's value or a unit may be called anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay.eventstore.base import LARGEST_VALUE, Measure, Scope, UnitMoments
from assay.eventstore.columns import Scalar, UnitList
from assay.eventstore.dialects import Bound

Column = tuple[float, float, float]


def unit_id(scope_unit: str, bound: Bound) -> str:
    """The expression for an event's unit id."""
    if scope_unit == "user_id":
        return "e.user_id"
    return bound.dialect.text("e.units", scope_unit, bound)


def units_narrowed(scope: Scope, bound: Bound, since: str = "a.assigned_at") -> str:
    """Conditions on assignments beyond the experiment; `since`: the time from which a unit's events count."""
    parts = []
    if scope.until is not None:
        parts.append(f"a.assigned_at <= {bound.time(scope.until)}")
    if scope.assigned_from is not None:
        parts.append(f"a.assigned_at >= {bound.time(scope.assigned_from)}")
    if scope.observed_for is not None:
        observed_until = min(at for at in (scope.until, scope.ended_at) if at is not None)
        parts.append(f"{since} <= {bound.time(observed_until - scope.observed_for)}")
    if scope.excluded_units:
        excluded = bound.bind(sorted(scope.excluded_units))
        parts.append(f"a.unit_id NOT IN (SELECT unnest(CAST({excluded} AS VARCHAR[])))")
    if scope.only is not None:
        parts.append(bound.dialect.among("a.unit_id", _array(scope.only, bound)))
    return _and(parts)


def listed(units: UnitList, bound: Bound) -> str:
    """The ids of a list, one to a row."""
    return f"unnest({_array(units, bound)})"


def _array(units: UnitList, bound: Bound) -> str:
    text, separator = bound.bind_once(units.text), bound.bind_once(units.separator)
    return f"string_to_array(CAST({text} AS VARCHAR), CAST({separator} AS VARCHAR))"


def events_narrowed(
    scope: Scope, bound: Bound, types: Sequence[str] = (), *, looking_back: bool = False
) -> str:
    """Conditions on events beyond those that make them count; `types`: those of interest, none for all.

    `looking_back`: earlier events than those of the scope are of interest, too.
    """
    parts = []
    if scope.event_type is not None:
        parts.append(f"e.type = {bound.bind(scope.event_type)}")
    if types:
        parts.append(f"e.type IN ({', '.join(bound.bind(kind) for kind in sorted(set(types)))})")
    if scope.events_from is not None and not looking_back:
        parts.append(f"e.occurred_at >= {bound.time(scope.events_from)}")
    if scope.until is not None:
        parts.append(f"e.occurred_at <= {bound.time(scope.until)}")
    return _and(parts)


def ended(scope: Scope, bound: Bound) -> str:
    """The condition that an event was not after the experiment's end."""
    return "" if scope.ended_at is None else f" AND e.occurred_at <= {bound.time(scope.ended_at)}"


def value(measure: Measure, bound: Bound) -> str:
    """The number an event adds to the measure's sum, before `bounded`; NULL where it has none."""
    return (
        "amount" if measure.property is None else bound.dialect.number("properties", measure.property, bound)
    )


def bounded(number: str) -> str:
    """The number unless it is too large to be squared, or NaN, which some spellings of numbers would give."""
    return f"CASE WHEN abs({number}) <= {LARGEST_VALUE:g} THEN {number} END"


def condition(measure: Measure, bound: Bound) -> str:
    """The condition that an event's properties are those that the measure asks for."""
    parts = (bound.dialect.equal("properties", name, wanted, bound) for name, wanted in measure.equals)
    return " AND ".join(parts) or "true"


@dataclass(frozen=True)
class Slots:
    """The ways in which measures select and value events; measures of different types may share one."""

    values: str
    """An event's kind, and what is read from its properties: whether it matches (m1), its number (v1)."""
    joined: str
    """The table that has the kinds, where there are several."""
    columns: str
    """What a unit did: n0, t0, n1, t1, …"""
    distributions: str
    """Six numbers for each slot, over the units with n > 0."""
    of: Mapping[str, int]
    """From a measure's key to its slot."""
    kinds: Mapping[str, int]
    """From an event type to its kind."""
    read: bool
    """Whether properties are read at all."""


def slots(measures: Sequence[Measure], bound: Bound) -> Slots:
    """Put together what `moments` selects for these measures."""
    places: dict[tuple[str | None, tuple[tuple[str, Scalar], ...]], list[Measure]] = {}
    for measure in measures:
        places.setdefault((measure.property, measure.equals), []).append(measure)
    of_kind = {kind: place for place, kind in enumerate(sorted({measure.event_type for measure in measures}))}
    several = len(of_kind) > 1
    named = kinds({bound.bind(kind): place for kind, place in of_kind.items()}) if several else ""
    values, columns, distributions, of = ["counted.*", "k.kind" if several else "0 AS kind"], [], [], {}
    for place, sharing in enumerate(places.values()):
        values.extend(_values(place, sharing, bound))
        columns.append(_columns(place, sharing[0]))
        distributions.append(_distribution(place))
        of.update({measure.key: place for measure in sharing})
    joined = f"JOIN {named} ON k.type = counted.type" if several else ""
    return Slots(
        ", ".join(values), joined, ", ".join(columns), ", ".join(distributions), of, of_kind, len(values) > 2
    )


def kinds(places: Mapping[str, int]) -> str:
    """The table `k` of kinds, from the placeholders of event types to the numbers that stand for them."""
    rows = ", ".join(f"(CAST({kind} AS VARCHAR), {place:d})" for kind, place in places.items())
    return f"(VALUES {rows}) AS k (type, kind)"


def _plain(measure: Measure) -> bool:
    """Whether the properties need not be read: all events of the type count, by their amount."""
    return measure.property is None and not measure.equals


def _values(place: int, sharing: Sequence[Measure], bound: Bound) -> list[str]:
    measure = sharing[0]
    if _plain(measure):
        return []
    # Reading JSON is what costs: events of types that do not ask for it are not looked into.
    types = ", ".join(bound.bind(kind) for kind in sorted({measure.event_type for measure in sharing}))
    matches = f"CASE WHEN counted.type IN ({types}) THEN {condition(measure, bound)} ELSE false END"
    number = f"CASE WHEN {matches} THEN {value(measure, bound)} END"
    return [f"{matches} AS m{place}", f"{number} AS v{place}"]


def _columns(place: int, measure: Measure) -> str:
    if _plain(measure):
        return f"count(*) AS n{place}, coalesce(sum(amount), 0) AS t{place}"
    number = bounded(f"v{place}")
    return f"count(*) FILTER (WHERE m{place}) AS n{place}, coalesce(sum({number}), 0) AS t{place}"


def _distribution(place: int) -> str:
    n, t = f"n{place}", f"t{place}"
    some = f"FILTER (WHERE {n} > 0)"
    return (
        f"count(*) {some}, coalesce(sum({n}), 0), coalesce(sum({t}), 0), "
        f"coalesce(var_samp({n}) {some}, 0), coalesce(var_samp({t}) {some}, 0), "
        f"coalesce(covar_samp({n}, {t}) {some}, 0)"
    )


def unit_moments(units: int, row: Sequence[Any]) -> UnitMoments:
    """The moments over all `units` of an arm, from those of the units that had events: the rest are zeros.

    Merging by Chan, Golub and LeVeque: with k of n units active and mean m over these, the centred sum of
    products of the whole is that of the active ones plus m₁·m₂·k·(n − k)/n.
    """
    active, events, total = int(row[0]), int(row[1]), float(row[2])
    if units < 1:
        zeros: Column = (0.0, 0.0, 0.0)
        return UnitMoments(units, zeros, (zeros, zeros, zeros), 0, 0, 0.0)
    sums = (active, events, total)
    means = (active / units, events / units, total / units)
    if units < 2 or not active:
        zeros = (0.0, 0.0, 0.0)
        return UnitMoments(units, means, (zeros, zeros, zeros), active, events, total)
    of_events, of_total, of_both = (float(number) * (active - 1) for number in row[3:6])
    within = ((0.0, 0.0, 0.0), (0.0, of_events, of_both), (0.0, of_both, of_total))
    between = (units - active) / (units * active)

    def entry(i: int, j: int) -> float:
        return (within[i][j] + sums[i] * sums[j] * between) / (units - 1)

    first, second, third = ((entry(i, 0), entry(i, 1), entry(i, 2)) for i in range(3))
    return UnitMoments(units, means, (first, second, third), active, events, total)


def _and(parts: Sequence[str]) -> str:
    return "".join(f" AND {part}" for part in parts)


def number(value: float, bound: Bound) -> str:
    """The placeholder of a number that is not whole, however it is written."""
    return f"CAST({bound.bind(float(value))} AS FLOAT8)"
