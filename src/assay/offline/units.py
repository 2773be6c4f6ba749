"""From rows to units to moments, all of it inside the engine: Python sees sums, never rows.

Rows are grouped by unit, so a file may hold one row for each unit or many. A unit whose rows name several
variants belongs to none of them: it is counted, named and left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from assay.errors import Invalid
from assay.offline.request import Aggregate, FileMetric, Kind, Request
from assay.offline.source import Source, literal
from assay.stats import Moments, QuantileArm, Reason, neighbours, quantile_arm

Array = npt.NDArray[np.float64]

MOST_VARIANTS: Final = 20
MOST_SEGMENTS: Final = 50
_SHOWN: Final = 3
_FAR: Final = 1e6
_FOLD: Final[Mapping[Aggregate, str]] = {
    "sum": "sum({x})",
    "mean": "avg({x})",
    "count": "count({x})",
    "any": "max(CASE WHEN {x} <> 0 THEN 1.0 WHEN {x} = 0 THEN 0.0 END)",
    "max": "max({x})",
}
# What a unit without any value has: nothing happened, where there is such a number at all.
_ZERO_WHEN_MISSING: Final = frozenset({"sum", "count", "any"})


@dataclass(frozen=True, slots=True)
class Summary:
    """One arm by one metric: moments over units, exact successes of a conversion, or a sample quantile.

    Columns of the moments are `y`, for ratios `d`, and then the covariates.
    """

    units: int
    moments: Moments
    successes: int | None = None
    quantile: QuantileArm | None = None


@dataclass(frozen=True, slots=True)
class Tail:
    """The limits that a metric's values were cut at; `None` where they were not."""

    low: float | None = None
    high: float | None = None


ByArm = Mapping[str, Summary]


@dataclass(frozen=True, slots=True)
class Read:
    """What a file came to.

    `left_out` counts rows without a unit or a variant, `several` units with more than one variant (`examples`
    names some). `whole` is by metric, `segmented` by segment column, segment and metric; `without_value`
    counts a metric's units that have no value, and `gaps` a covariate's. `covariates` are the moments'
    columns.
    """

    name: str
    rows: int
    left_out: int
    several: int
    examples: tuple[str, ...]
    units: Mapping[str, int]
    whole: Mapping[str, ByArm]
    segmented: Mapping[str, Mapping[str, Mapping[str, ByArm]]]
    without_value: Mapping[str, int]
    gaps: Mapping[str, int]
    covariates: tuple[str, ...]
    tails: Mapping[str, Tail]


@dataclass(frozen=True, slots=True)
class _Number:
    """A numeric column of the file under its short name in `staged`."""

    place: str
    column: str
    value: str
    bad: str


def read(source: Source, request: Request) -> Read:
    """Bring the file to moments; raises `Invalid` naming the column and value that cannot be used."""
    numbers = _stage(source, request)
    _check_numbers(source, numbers)
    places = {each.column: each.place for each in numbers}
    _group(source, request, places)
    rows, left_out = source.ask(
        "SELECT count(*), count(*) FILTER (WHERE unit IS NULL OR variant IS NULL) FROM staged"
    )[0]
    several = source.ask("SELECT count(*) FROM units WHERE several")[0][0]
    examples = source.ask(f"SELECT unit FROM units WHERE several ORDER BY unit LIMIT {_SHOWN}")
    units = dict(
        source.ask("SELECT variant, count(*) FROM units WHERE NOT several GROUP BY variant ORDER BY variant")
    )
    _check_arms(source, request, units)
    gaps = {
        column: source.ask(f"SELECT count(*) FROM units WHERE NOT several AND z{at} IS NULL")[0][0]
        for at, column in enumerate(request.covariates)
    }
    tails = {metric.name: _tail(source, metric, at) for at, metric in enumerate(request.metrics)}
    covariates = _covariates(request, gaps)
    whole, segmented, without = _summaries(source, request, covariates, tails)
    for at, metric in enumerate(request.metrics):
        if metric.kind is Kind.QUANTILE:
            whole[metric.name] = _quantiles(source, metric, places[metric.column], at, units)
    return Read(
        source.name,
        rows,
        left_out,
        several,
        tuple(str(row[0]) for row in examples),
        units,
        whole,
        segmented,
        without,
        gaps,
        tuple(name for name, _ in covariates),
        tails,
    )


def unit_values(source: Source, request: Request) -> dict[str, Array]:
    """Each mean, count or conversion as one number for each unit, for those who want to deal units anew."""
    numbers = _stage(source, request)
    _check_numbers(source, numbers)
    _group(source, request, {each.column: each.place for each in numbers})
    found = {}
    for at, metric in enumerate(request.metrics):
        if metric.kind in {Kind.RATIO, Kind.QUANTILE}:
            raise Invalid(f"{metric.name}: only means, counts and conversions can be simulated.")
        own, counted = _valued(request, metric, at)
        value = _cut(own["y"], _tail(source, metric, at))
        values = source.numbers(f"SELECT {value} AS y FROM units WHERE NOT several AND {counted}")["y"]
        found[metric.name] = np.asarray(values, dtype=np.float64)
    return found


def _stage(source: Source, request: Request) -> list[_Number]:
    """Keep what is needed of the rows that `where` lets through."""
    wanted: dict[str, str] = {}
    for metric in request.metrics:
        if metric.kind is not Kind.COUNT:
            wanted.setdefault(metric.column, f"--{_OPTIONS[metric.kind]}")
        if metric.denominator is not None:
            wanted.setdefault(metric.denominator, "--ratio")
    for column in request.covariates:
        wanted.setdefault(column, "--covariate")
    numbers = [
        _Number(f"x{at}", column, *source.number(option, column))
        for at, (column, option) in enumerate(wanted.items())
    ]
    parts = [
        f"{source.text('--unit', request.unit)} AS unit",
        f"{_variant(source, request)} AS variant",
    ]
    parts += [f"{source.text('--segment', name)} AS s{at}" for at, name in enumerate(request.segments)]
    parts += [f"{each.value} AS {each.place}" for each in numbers]
    parts += [
        f"CASE WHEN {each.bad} THEN left(CAST({source.need('', each.column)} AS VARCHAR), 60) END AS "
        f"bad_{each.place}"
        for each in numbers
    ]
    for at, metric in enumerate(request.metrics):
        if metric.kind is Kind.COUNT:
            filled = (
                "true" if metric.column == "*" else f"{source.text('--count', metric.column)} IS NOT NULL"
            )
            parts.append(f"CASE WHEN {filled} THEN 1 END AS c{at}")
    where = "" if request.where is None else f" WHERE {source.condition('--where', request.where)}"
    source.ask(f"CREATE TEMP TABLE staged AS SELECT {', '.join(parts)} FROM {source.reader}{where}")
    return numbers


def _variant(source: Source, request: Request) -> str:
    """Units of the past have no variant yet: they are one group."""
    return "'all'" if request.variant is None else source.text("--variant", request.variant)


_OPTIONS: Final[Mapping[Kind, str]] = {
    Kind.MEAN: "metric",
    Kind.CONVERSION: "conversion",
    Kind.COUNT: "count",
    Kind.RATIO: "ratio",
    Kind.QUANTILE: "quantile",
}


def _check_numbers(source: Source, numbers: Sequence[_Number]) -> None:
    if not numbers:
        return
    looks = ", ".join(f"count(bad_{each.place}), min(bad_{each.place})" for each in numbers)
    found = source.ask(f"SELECT {looks} FROM staged")[0]
    for at, each in enumerate(numbers):
        count, example = found[2 * at : 2 * at + 2]
        if count:
            raise Invalid(
                f"{source.name}: the column {each.column!r} holds {example!r} where a number is needed "
                f"({count:,} such {'row' if count == 1 else 'rows'}); correct it, or leave such rows out "
                "with --where."
            )


def _group(source: Source, request: Request, places: Mapping[str, str]) -> None:
    """One row for each unit; metrics as `y` and `d`, covariates as `z`, null where a unit has no value."""
    parts = ["unit", "min(variant) AS variant", "min(variant) <> max(variant) AS several"]
    parts += [
        f"CASE WHEN min(s{at}) <> max(s{at}) THEN '(several)' ELSE coalesce(min(s{at}), '(none)') END "
        f"AS s{at}"
        for at in range(len(request.segments))
    ]
    for at, metric in enumerate(request.metrics):
        if metric.kind is Kind.COUNT:
            parts.append(f"CAST(count(c{at}) AS DOUBLE) AS y{at}")
        elif metric.kind is Kind.QUANTILE:
            parts.append(f"count({places[metric.column]}) AS y{at}")
        else:
            fold = _FOLD[metric.aggregate].format(x=places[metric.column])
            parts.append(f"CAST({fold} AS DOUBLE) AS y{at}")
        if metric.denominator is not None:
            parts.append(f"sum({places[metric.denominator]}) AS d{at}")
    for at, column in enumerate(request.covariates):
        fold = _FOLD[request.covariate_aggregates.get(column, "mean")].format(x=places[column])
        parts.append(f"CAST({fold} AS DOUBLE) AS z{at}")
    source.ask(
        f"CREATE TEMP TABLE units AS SELECT {', '.join(parts)} FROM staged "
        "WHERE unit IS NOT NULL AND variant IS NOT NULL GROUP BY unit"
    )


def _check_arms(source: Source, request: Request, units: Mapping[str, int]) -> None:
    if request.variant is None:
        if not units:
            raise Invalid(f"{source.name} has no rows with a unit in the column {request.unit!r}.")
        return
    names = ", ".join(repr(name) for name in list(units)[:MOST_VARIANTS])
    if len(units) < 2:
        found = f"only {names}" if units else "no variant at all"
        advice = "" if request.where is None else " among the rows that --where lets through"
        raise Invalid.field(
            "--variant",
            f"the column {request.variant!r} of {source.name} holds {found}{advice}; two are needed.",
        )
    if len(units) > MOST_VARIANTS:
        raise Invalid.field(
            "--variant",
            f"the column {request.variant!r} of {source.name} holds {len(units):,} different values, more "
            f"than {MOST_VARIANTS}; is it the column of the variant?",
        )
    for at, column in enumerate(request.segments):
        count = source.ask(f"SELECT count(DISTINCT s{at}) FROM units WHERE NOT several")[0][0]
        if count > MOST_SEGMENTS:
            raise Invalid.field(
                "--segment",
                f"the column {column!r} of {source.name} holds {count:,} different values, more than "
                f"{MOST_SEGMENTS}; group them first.",
            )


def _valued(request: Request, metric: FileMetric, at: int) -> tuple[dict[str, str], str]:
    """A metric's columns by name, and the condition under which a unit counts."""
    zero = request.missing == "zero" and metric.aggregate in _ZERO_WHEN_MISSING
    columns = {"y": f"y{at}"} | ({"d": f"d{at}"} if metric.denominator is not None else {})
    if zero:
        return {name: f"coalesce({place}, 0)" for name, place in columns.items()}, "true"
    return columns, " AND ".join(f"{place} IS NOT NULL" for place in columns.values())


def _covariates(request: Request, gaps: Mapping[str, int]) -> list[tuple[str, str]]:
    """Columns for adjustment: gaps are filled with zero and get an indicator, so that they keep a level."""
    found = []
    for at, column in enumerate(request.covariates):
        found.append((f"z:{column}", f"coalesce(z{at}, 0)"))
        if gaps[column]:
            found.append((f"z:{column} missing", f"CASE WHEN z{at} IS NULL THEN 1.0 ELSE 0.0 END"))
    return found


def _tail(source: Source, metric: FileMetric, at: int) -> Tail:
    """Limits from all arms together, before anybody looks at a difference."""
    limits = metric.limits
    if limits is None:
        return Tail()
    if limits.high is not None:
        return Tail(high=limits.high)
    count = source.ask(f"SELECT count(y{at}) FROM units WHERE NOT several")[0][0]
    if not count:
        return Tail()
    place = f"SELECT y{at} FROM units WHERE NOT several AND y{at} IS NOT NULL"
    if limits.high_share is not None:
        return Tail(high=_ranked(source, place, _rank(limits.high_share, count)))
    # As `assay.stats.winsorise` counts them: rounded down, whatever the product rounds to.
    cut = int((limits.tails or 0.0) * count + 1e-9)
    if not cut:
        return Tail()
    return Tail(_ranked(source, place, cut), _ranked(source, place, count - cut - 1))


def _rank(share: float, count: int) -> int:
    """The place from 0 of the smallest value whose empirical distribution function reaches `share`."""
    return min(max(math.ceil(share * count - 1.0), 0), count - 1)


def _ranked(source: Source, query: str, rank: int) -> float:
    found: float = source.ask(f"{query} ORDER BY 1 LIMIT 1 OFFSET {rank}")[0][0]
    return found


def _summaries(
    source: Source, request: Request, covariates: Sequence[tuple[str, str]], tails: Mapping[str, Tail]
) -> tuple[dict[str, ByArm], dict[str, dict[str, dict[str, ByArm]]], dict[str, int]]:
    """One scan of the units for all metrics, arms and segments."""
    asked = [
        (metric, at, *_valued(request, metric, at))
        for at, metric in enumerate(request.metrics)
        if metric.kind is not Kind.QUANTILE
    ]
    keys = [f"s{at}" for at in range(len(request.segments))]
    select = ["variant", *(f"CASE WHEN grouping({key}) = 0 THEN {key} END" for key in keys)]
    names: list[tuple[FileMetric, dict[str, float]]] = []
    for metric, at, own, counted in asked:
        cut = {"y": _cut(own["y"], tails[metric.name])}
        expressions = {**own, **cut, **dict(covariates)}
        anchors = _anchors(source, expressions)
        near = [f"({place} - {anchors[name]!r}::DOUBLE)" for name, place in expressions.items()]
        select += _moments(near, counted, f"y{at}" + (f" + d{at}" if "d" in own else ""))
        names.append((metric, anchors))
    sets = ", ".join(["(variant)", *(f"(variant, {key})" for key in keys)])
    rows = source.ask(
        f"SELECT {', '.join(select)} FROM units WHERE NOT several "
        f"GROUP BY GROUPING SETS ({sets}) ORDER BY ALL"
    )
    whole: dict[str, ByArm] = {metric.name: {} for metric in request.metrics}
    segmented: dict[str, dict[str, dict[str, ByArm]]] = {name: {} for name in request.segments}
    without: dict[str, int] = {}
    for row in rows:
        variant, at = row[0], 1 + len(keys)
        place = next((k for k in range(len(keys)) if row[1 + k] is not None), None)
        for metric, anchors in names:
            width = 3 + len(anchors) + len(anchors) * (len(anchors) + 1) // 2
            found, empty = _summary(source, metric, anchors, row[at : at + width])
            at += width
            if place is None:
                without[metric.name] = without.get(metric.name, 0) + empty
                target = whole
            else:
                target = segmented[request.segments[place]].setdefault(str(row[1 + place]), {})
            target[metric.name] = {**target.get(metric.name, {}), variant: found}
    return whole, segmented, without


def _anchors(source: Source, expressions: Mapping[str, str]) -> dict[str, float]:
    """What to subtract before averaging: a mean a million times its spread has digits only for itself."""
    looks = ", ".join(f"favg({place}), stddev_samp({place})" for place in expressions.values())
    found = source.ask(f"SELECT {looks} FROM units WHERE NOT several")[0]
    anchors = {}
    for at, name in enumerate(expressions):
        mean, spread = found[2 * at] or 0.0, found[2 * at + 1] or 0.0
        far = spread > 0.0 and abs(mean) > _FAR * spread and abs(mean) < 2.0**53
        anchors[name] = float(round(mean)) if far else 0.0
    return anchors


def _cut(place: str, tail: Tail) -> str:
    # `least` and `greatest` skip nulls, and a unit without a value must stay without one.
    found = place
    if tail.low is not None:
        found = f"greatest({found}, {tail.low!r}::DOUBLE)"
    if tail.high is not None:
        found = f"least({found}, {tail.high!r}::DOUBLE)"
    return found if found == place else f"CASE WHEN {place} IS NOT NULL THEN {found} END"


def _moments(columns: Sequence[str], counted: str, value: str) -> list[str]:
    """Units, units without a value, exact sum, means and covariances; means by compensated summation."""
    only = f"FILTER (WHERE {counted})"
    found = [
        f"count(*) {only}",
        f"count(*) FILTER (WHERE ({value}) IS NULL)",
        f"sum({columns[0]}) {only}",
        *(f"favg({column}) {only}" for column in columns),
    ]
    found += [f"covar_samp({x}, {y}) {only}" for at, x in enumerate(columns) for y in columns[at:]]
    return found


def _summary(
    source: Source, metric: FileMetric, anchors: Mapping[str, float], cells: Sequence[Any]
) -> tuple[Summary, int]:
    columns = tuple(anchors)
    count, empty, total = cells[:3]
    means = dict(zip(columns, cells[3:], strict=False))
    pairs = [(x, y) for at, x in enumerate(columns) for y in columns[at:]]
    spread = dict(zip(pairs, cells[3 + len(columns) :], strict=True))
    if count < 2:  # a covariance of one unit is no number
        spread = dict.fromkeys(spread)
    for value in [*means.values(), *spread.values()]:
        if value is not None and not math.isfinite(value):
            raise Invalid(
                f"{source.name}: the values of {metric.name!r} or of a covariate are too large to be "
                "squared; scale them down."
            )
    successes = round(total or 0.0) if metric.kind is Kind.CONVERSION else None
    moments = Moments.from_centred(count, means, spread)
    if count and any(anchors.values()):
        moments = moments.transform({name: {name: 1.0} for name in columns}, anchors)
    return Summary(count, moments, successes), empty


def _quantiles(
    source: Source, metric: FileMetric, place: str, at: int, units: Mapping[str, int]
) -> dict[str, Summary]:
    """Sample quantiles of the rows, by arm; where units have several rows, units are the clusters."""
    level = metric.level or 0.5
    found = {}
    for variant, count in units.items():
        mine = f"NOT several AND units.variant = {literal(variant)}"
        values = f"SELECT {place} FROM staged JOIN units USING (unit) WHERE {mine} AND {place} IS NOT NULL"
        events, busiest = source.ask(f"SELECT coalesce(sum(y{at}), 0), max(y{at}) FROM units WHERE {mine}")[0]
        if not events:
            arm = QuantileArm(level, 0, 0, None, None, Reason.NO_DATA)
            found[variant] = Summary(count, Moments.empty(), None, arm)
            continue
        middle = _ranked(source, values, _rank(level, events))
        levels = neighbours(level, events) or (level, level)
        ends = [_ranked(source, values, _rank(each, events)) for each in levels]
        clusters = _clusters(source, place, mine, middle) if busiest > 1 else None
        arm = quantile_arm(level, int(events), middle, ends[0], ends[1], clusters=clusters)
        found[variant] = Summary(count, Moments.empty(), None, arm)
    return found


def _clusters(source: Source, place: str, mine: str, value: float) -> Moments:
    """Over units: how many of a unit's values lie at or below the quantile, and how many it has."""
    columns = ("below", "events")
    row = source.ask(
        "SELECT count(*), favg(below), favg(events), covar_samp(below, below), covar_samp(below, events), "
        "covar_samp(events, events) FROM (SELECT "
        f"CAST(count(*) FILTER (WHERE {place} <= {value!r}::DOUBLE) AS DOUBLE) AS below, "
        "CAST(count(*) AS DOUBLE) AS events FROM staged JOIN units USING (unit) "
        f"WHERE {mine} AND {place} IS NOT NULL GROUP BY unit)"
    )[0]
    pairs = [(x, y) for at, x in enumerate(columns) for y in columns[at:]]
    spread = dict(zip(pairs, row[3:], strict=True)) if row[0] > 1 else dict.fromkeys(pairs)
    return Moments.from_centred(row[0], dict(zip(columns, row[1:3], strict=True)), spread)
