"""The effect as it stood over time, for charts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from assay.events.timestamps import EPOCH
from assay.eventstore.base import Bucket, EventStore, SeriesPoint
from assay.reports.arms import COLUMNS, ByVariant, Tally, measure_of, tallies
from assay.reports.build import scope_of
from assay.reports.compare import report_metric
from assay.reports.question import Grain
from assay.reports.report import Point, Report
from assay.reports.spec import MetricSpec, MetricType
from assay.stats import Moments

#: Points of a series for which the store must be asked one by one.
MOST_POINTS = 62


def trend(store: EventStore, report: Report, metric: MetricSpec, grain: Grain) -> tuple[Point, ...]:
    """The comparisons by one metric as they stood at the end of each stretch in which anything happened.

    Cumulative, each point is the report as it would have been read then. Otherwise it counts the events of
    its own stretch alone, over the units assigned so far. A share under an unchanged split comes out of one
    scan; anything else takes one for each point, so that longer series are thinned to evenly spaced points.
    """
    spec, question = report.spec, report.question
    rows = store.series(scope_of(spec, question), measure_of(metric), Bucket(grain))
    starts = sorted({row.bucket for row in rows})
    steady = len({spec.weights(phase.number) for phase in spec.phases}) <= 1
    if metric.type is MetricType.CONVERSION and steady:
        found = _counted(rows, cumulative=question.cumulative)
    else:
        starts = _thinned(starts, MOST_POINTS)
        found = {start: _asked(store, report, metric, start, grain) for start in starts}
    return tuple(_point(report, metric, start, grain, found[start]) for start in starts)


def _point(report: Report, metric: MetricSpec, start: int, grain: Grain, by_variant: ByVariant) -> Point:
    found = report_metric(report.spec, metric, by_variant, report.variants, alpha=report.alpha)
    begin = EPOCH + timedelta(microseconds=start)
    return Point(begin, _last(begin, grain, report.end), found.arms, found.comparisons)


def _asked(store: EventStore, report: Report, metric: MetricSpec, start: int, grain: Grain) -> ByVariant:
    """The store's moments as of the end of one stretch."""
    begin = EPOCH + timedelta(microseconds=start)
    until = _last(begin, grain, report.end)
    question = report.question
    if not question.cumulative:
        begin = begin if question.start is None else max(begin, question.start)
        question = replace(question, start=begin)
    measure = measure_of(metric)
    arms = store.moments(scope_of(report.spec, replace(question, end=until)), [measure])
    return tallies(arms, measure)


def _counted(rows: Iterable[SeriesPoint], *, cumulative: bool) -> dict[int, ByVariant]:
    """Tallies of a share at each stretch, from running counts."""
    converters: defaultdict[int, int] = defaultdict(int)
    latest: dict[int, dict[int, Tally]] = {}
    found: dict[int, ByVariant] = {}
    for row in rows:
        converters[row.variant_id] += row.first_converters
        so_far = converters[row.variant_id] if cumulative else row.converters
        latest[row.variant_id] = {0: _share(row, so_far)}
        found[row.bucket] = dict(latest)
    return found


def _share(row: SeriesPoint, converters: int) -> Tally:
    """A tally of which only the converters are known; nobody asks a share for the spread of anything else."""
    n = row.assigned
    spread = converters * (n - converters) / n if n else 0.0
    means = (converters / n if n else 0.0, 0.0, 0.0)
    none = (0.0, 0.0, 0.0)
    return Tally(
        converters, row.events, row.total, Moments(n, COLUMNS, means, ((spread, 0.0, 0.0), none, none))
    )


def _thinned(starts: Sequence[int], most: int) -> list[int]:
    """At most so many of the starts, evenly spaced, the last among them."""
    if len(starts) <= most:
        return list(starts)
    step = (len(starts) - 1) / (most - 1)
    return [starts[round(place * step)] for place in range(most)]


def _last(begin: datetime, grain: Grain, end: datetime) -> datetime:
    """The last instant of the stretch, or of the report where that ends within it."""
    if grain == "month":
        following = (begin.replace(day=1) + timedelta(days=32)).replace(day=1)
    else:
        following = (
            begin + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[grain]
        )
    return min(following - timedelta(microseconds=1), max(end, begin))
