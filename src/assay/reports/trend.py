"""The effect as it stood over time, for charts."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from assay.events.timestamps import EPOCH, micros
from assay.eventstore.base import Bucket, EventStore, SeriesPoint
from assay.reports.arms import (
    COLUMNS,
    NOTHING,
    ArmSummary,
    ByVariant,
    Quantiles,
    Tally,
    measure_of,
    tallies,
    value_of,
)
from assay.reports.build import scope_of
from assay.reports.columns import ask_columns, ask_quantiles, is_plain
from assay.reports.compare import report_metric
from assay.reports.judging import information, judged_reports
from assay.reports.question import Grain
from assay.reports.report import BandKind, Point, Report, Trend
from assay.reports.spec import ExperimentSpec, MetricSpec, MetricType
from assay.stats import ArmInterval, Mean, Moments

#: Points of a series for which the store must be asked one by one.
MOST_POINTS = 62


def trend(store: EventStore, report: Report, metric: MetricSpec, grain: Grain) -> Trend:
    """The comparisons by one metric as they stood at the end of each stretch in which anything happened.

    Cumulative, each point is the report as it would have been read then, with the interval that the
    experiment's method had at that time. Otherwise it counts the events of its own stretch alone, over the
    units assigned so far, each at a fixed horizon. A share under an unchanged split comes out of one scan;
    anything else takes one for each point. Where those would be too many, a cumulative series is thinned to
    evenly spaced points; any other keeps all of them, which then hold sums without intervals. A
    group-sequential band is thinned, too, since each of its points has a limit to be integrated.
    """
    spec, question = report.spec, report.question
    rows = store.series(scope_of(spec, question, report.members), measure_of(metric), Bucket(grain))
    starts = [start for start in sorted({row.bucket for row in rows}) if not _before(start, report, grain)]
    steady = len({spec.weights(phase.number) for phase in spec.phases}) <= 1
    plain, band = is_plain(metric, before=False), _band(report)
    if plain and metric.type is MetricType.CONVERSION and steady:
        counted = _counted(rows, cumulative=question.cumulative)
        shown = _thinned(starts, MOST_POINTS) if band is BandKind.REPEATED_INTERVALS else starts
        found: dict[int, _Answer] = {start: (counted[start], None) for start in shown}
    elif plain and len(starts) > MOST_POINTS and not question.cumulative:
        return Trend(tuple(_sums(report, metric, grain, rows)), len(starts), compared=False)
    else:
        shown = _thinned(starts, MOST_POINTS)
        found = {start: _asked(store, report, metric, start, grain) for start in shown}
    assigned = _assigned(rows)
    points = tuple(
        _point(report, metric, start, grain, each, assigned[start]) for start, each in found.items()
    )
    return Trend(points, len(starts), band=band)


_Answer = tuple[ByVariant, Quantiles | None]


def _band(report: Report) -> BandKind:
    """What the intervals of the series promise together."""
    spec = report.judged_as
    if spec.analysis.method == "bayesian":
        return BandKind.CREDIBLE
    if not report.question.cumulative or spec.analysis.method == "fixed":
        return BandKind.FIXED_HORIZON
    if spec.analysis.method != "group_sequential":
        return BandKind.CONFIDENCE_SEQUENCE
    planned = information(spec, 1, report.end) is not None
    return BandKind.REPEATED_INTERVALS if planned else BandKind.NONE


def _assigned(rows: Iterable[SeriesPoint]) -> dict[int, int]:
    """Units of all variants up to the end of each stretch."""
    latest: dict[int, int] = {}
    found: dict[int, int] = {}
    for row in rows:
        latest[row.variant_id] = row.assigned
        found[row.bucket] = sum(latest.values())
    return found


def _point(
    report: Report, metric: MetricSpec, start: int, grain: Grain, answer: _Answer, units: int
) -> Point:
    by_variant, quantiles = answer
    begin = EPOCH + timedelta(microseconds=start)
    end = last_moment(begin, grain, report.end)
    spec = _as_of(report, end)
    found = report_metric(spec, metric, by_variant, report.variants, alpha=report.alpha, quantiles=quantiles)
    judged = judged_reports(spec, {metric: found}, metric, units=units, now=end, alpha=report.alpha)[metric]
    return Point(begin, end, judged.arms, judged.comparisons)


def _as_of(report: Report, end: datetime) -> ExperimentSpec:
    """The experiment as it judged at that time: by the looks made until then, each metric by itself."""
    spec = report.judged_as
    analysis = replace(spec.analysis, correction="none")
    if not report.question.cumulative and analysis.method != "bayesian":
        analysis = replace(analysis, method="fixed")
    over = spec.ended_at is not None and end >= spec.ended_at
    return replace(
        spec,
        status=spec.status if over else "running",
        looks=tuple(look for look in spec.looks if look.at <= end),
        analysis=analysis,
    )


def _before(start: int, report: Report, grain: Grain) -> bool:
    """Whether the stretch ends before the window begins: no event of it could count."""
    since = report.question.start
    begin = EPOCH + timedelta(microseconds=start)
    return since is not None and last_moment(begin, grain, report.end) < since


def _sums(report: Report, metric: MetricSpec, grain: Grain, rows: Iterable[SeriesPoint]) -> Iterator[Point]:
    """Each stretch by its sums alone, which say nothing of the spread over units."""
    for start, each in groupby(rows, key=lambda row: row.bucket):
        if _before(start, report, grain):
            continue
        by_variant = {
            row.variant_id: _share(row, _Running(row.converters, row.events, row.total)) for row in each
        }
        begin = EPOCH + timedelta(microseconds=start)
        arms = []
        for variant in report.variants:
            tally = by_variant.get(variant.id, NOTHING)
            value = _plain_value(metric, tally)
            arms.append(
                ArmSummary(variant, tally, value, None, ArmInterval("sums", tally.units, value, None, None))
            )
        yield Point(begin, last_moment(begin, grain, report.end), tuple(arms), ())


def _plain_value(metric: MetricSpec, tally: Tally) -> float | None:
    amounts = {"converted": tally.converters, "events": tally.events, "total": tally.total}
    value = value_of(metric)
    above, below = (
        (amounts[value.column], tally.units)
        if isinstance(value, Mean)
        else (amounts[value.numerator], amounts[value.denominator])
    )
    return above / below if below else None


def _asked(store: EventStore, report: Report, metric: MetricSpec, start: int, grain: Grain) -> _Answer:
    """What the store answers as of the end of one stretch."""
    begin = EPOCH + timedelta(microseconds=start)
    until = last_moment(begin, grain, report.end)
    question = report.question
    if not question.cumulative:
        begin = begin if question.start is None else max(begin, question.start)
        question = replace(question, start=begin)
    scope = scope_of(report.spec, replace(question, end=until), report.members)
    if not is_plain(metric, before=False):
        counted = ask_columns(store, scope, [metric], micros(until), before=False)
        return counted[metric], ask_quantiles(store, report.spec, scope, counted, micros(until)).get(metric)
    measure = measure_of(metric)
    return tallies(store.moments(scope, [measure]), measure), None


def _counted(rows: Iterable[SeriesPoint], *, cumulative: bool) -> dict[int, ByVariant]:
    """Tallies of a share at each stretch, from running counts."""
    running: defaultdict[int, _Running] = defaultdict(_Running)
    latest: dict[int, dict[int, Tally]] = {}
    found: dict[int, ByVariant] = {}
    for row in rows:
        running[row.variant_id] = running[row.variant_id].after(row)
        latest[row.variant_id] = {0: _share(row, running[row.variant_id] if cumulative else _own(row))}
        found[row.bucket] = dict(latest)
    return found


class _Running(NamedTuple):
    """Converters, events and the sum of their values."""

    converters: int = 0
    events: int = 0
    total: float = 0.0

    def after(self, row: SeriesPoint) -> "_Running":
        """The same with one more stretch."""
        return _Running(
            self.converters + row.first_converters, self.events + row.events, self.total + row.total
        )


def _own(row: SeriesPoint) -> _Running:
    """What happened in the stretch alone."""
    return _Running(row.converters, row.events, row.total)


def _share(row: SeriesPoint, counted: _Running) -> Tally:
    """A tally of which only the converters are known; nobody asks a share for the spread of anything else."""
    n, converters = row.assigned, counted.converters
    spread = converters * (n - converters) / n if n else 0.0
    means = (converters / n if n else 0.0, 0.0, 0.0)
    none = (0.0, 0.0, 0.0)
    moments = Moments(n, COLUMNS, means, ((spread, 0.0, 0.0), none, none))
    return Tally(converters, counted.events, counted.total, moments)


def _thinned(starts: Sequence[int], most: int) -> list[int]:
    """At most so many of the starts, evenly spaced, the last among them."""
    if len(starts) <= most:
        return list(starts)
    step = (len(starts) - 1) / (most - 1)
    return [starts[round(place * step)] for place in range(most)]


def last_moment(begin: datetime, grain: Grain, end: datetime | None = None) -> datetime:
    """The last instant of the stretch, or of the report where that ends within it."""
    if grain == "month":
        following = (begin.replace(day=1) + timedelta(days=32)).replace(day=1)
    else:
        following = (
            begin + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[grain]
        )
    last = following - timedelta(microseconds=1)
    return last if end is None else min(last, max(end, begin))
