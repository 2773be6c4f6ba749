"""The result over time: the effect in its band, each variant's own value, and who came when."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from markupsafe import Markup
from starlette.responses import Response

from assay.dashboard import charts, narrowing, wording
from assay.dashboard.meaning import is_share
from assay.dashboard.pages import Visit, render
from assay.dashboard.scorecard import value_text, verdict
from assay.dashboard.workings import numbers_of
from assay.errors import NotFound
from assay.events.timestamps import EPOCH
from assay.eventstore.base import SeriesPoint
from assay.reports.question import Grain
from assay.reports.report import MetricReport, Point, Report, Trend


class Plot(NamedTuple):
    """A chart in both sizes, with what stands beside it."""

    title: str
    about: str
    wide: Markup
    narrow: Markup
    series: Sequence[tuple[str, Markup]]
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]


def piece(visit: Visit) -> Response:
    """The charts over time of one metric."""
    snapshot = narrowing.snapshot(visit)
    report = snapshot.report
    of = metric_of(report, visit.query.get("metric"))
    begin = report.begin or report.end
    asked = visit.query.get("by")
    grain: Grain = (
        "hour" if asked == "hour" or (not asked and report.end - begin < timedelta(days=3)) else "day"
    )
    found = visit.parts.snapshots.trend(snapshot, of.metric, grain)
    activity = visit.parts.snapshots.activity(snapshot, of.metric, grain)
    return render(
        visit,
        "_trend.html",
        plots=[
            *_effects(report, of, found),
            _values(report, of, found.points),
            *_activity(report, of, activity, grain),
        ],
        metric=of.metric,
        grain=grain,
        key=visit.place["key"],
        thinned=None if len(found.points) == found.stretches else found.stretches,
    )


def metric_of(report: Report, key: str) -> MetricReport:
    """The metric with this key; without one, the primary. Raises `NotFound`."""
    if not key:
        return report.primary
    found = next((each for each in report.metrics if each.metric.key == key), None)
    if found is None:
        raise NotFound(f"The experiment has no metric {key!r}.")
    return found


def _effects(report: Report, of: MetricReport, trend: Trend) -> Iterator[Plot]:
    """The lift of each treatment as it stood over time, with the band of the experiment's method."""
    for treatment in [each.treatment for each in of.comparisons]:
        marks, rows = [], []
        for point in trend.points:
            each = next((found for found in point.comparisons if found.treatment.id == treatment.id), None)
            if each is None:
                continue
            numbers = numbers_of(each)
            ends = numbers.lift_interval
            lift = wording.lift(numbers.lift, ends)
            around = wording.lift_range(ends)
            shown = charts.Estimate(numbers.lift, ends.low if ends else None, ends.high if ends else None)
            marks.append(charts.Moment(point.end, shown, f"{_moment(point.end)}\nLift {lift}\n{around}"))
            evidence = wording.p_value(numbers.p_value)
            if numbers.chance_to_win is not None:
                evidence = f"wins with {wording.chance(numbers.chance_to_win)}"
            rows.append((wording.time_tag(point.end), lift, around, evidence, verdict(of.metric, each)[0]))
        control = of.comparisons[0].control.name
        title = f"Lift of {treatment.name} over {control}"
        level = f"{100 * (1 - report.alpha):g} %"
        about = (
            f"{of.metric.name} so far at the end of each stretch, at {level}, not adjusted for the time "
            f"before. {trend.band.sentence}"
        )
        yield _plot(
            title,
            about,
            partial(charts.over_time, marks, wording.lift_tick, title),
            (),
            ("Until", "Lift", "Interval", "Evidence", "Outcome"),
            rows,
        )


def _values(report: Report, of: MetricReport, points: Sequence[Point]) -> Plot:
    """Each variant's own value over time."""
    metric = of.metric
    form = wording.share_tick if is_share(metric) else wording.tick
    series = []
    for variant in report.variants:
        known = []
        for point in points:
            arm = next((each for each in point.arms if each.variant.id == variant.id), None)
            if arm is not None and arm.units:
                known.append(
                    (point.end, arm.value, f"{_moment(point.end)}  {variant.name}: {value_text(metric, arm)}")
                )
        series.append(charts.Line(variant.name, known))
    rows = [
        (wording.time_tag(point.end), *(value_text(metric, arm) for arm in point.arms)) for point in points
    ]
    title = f"{metric.name} by variant"
    return _plot(
        title,
        "Everything so far at the end of each stretch.",
        partial(charts.lines, series, form, title),
        _legend(series),
        ("Until", *(variant.name for variant in report.variants)),
        rows,
    )


def _activity(report: Report, of: MetricReport, found: Sequence[SeriesPoint], grain: Grain) -> Iterator[Plot]:
    """Who came, and the metric's events, in each stretch alone."""
    word = "hour" if grain == "hour" else "day"
    starts = sorted({point.bucket for point in found})
    by = {(point.bucket, point.variant_id): point for point in found}
    kinds = (
        ("New assignments", "units that came in", "newly_assigned"),
        (f"Events of {of.metric.name}", "events that count", "events"),
    )
    for title, what, name in kinds:
        series, table = [], []
        for variant in report.variants:
            line = [
                (
                    _at(start),
                    float(getattr(by[start, variant.id], name)) if (start, variant.id) in by else 0.0,
                )
                for start in starts
            ]
            series.append(
                charts.Line(
                    variant.name,
                    [(at, value, f"{_moment(at)}  {variant.name}: {value:,.0f}") for at, value in line],
                )
            )
            table.append(line)
        rows = [
            (
                wording.time_tag(_at(start), "day" if word == "day" else "minute"),
                *(wording.count(line[place][1]) for line in table),
            )
            for place, start in enumerate(starts)
        ]
        full = f"{title} per {word}"
        yield _plot(
            full,
            f"The {what} in each {word} (UTC), by variant.",
            partial(charts.lines, series, wording.tick, full),
            _legend(series),
            (word.capitalize(), *(variant.name for variant in report.variants)),
            rows,
        )


def _plot(
    title: str,
    about: str,
    draw: Callable[[charts.Frame], Markup],
    series: Sequence[tuple[str, Markup]],
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> Plot:
    return Plot(title, about, draw(charts.WIDE), draw(charts.NARROW), series, heads, rows)


def _legend(series: Sequence[charts.Line]) -> list[tuple[str, Markup]]:
    return [(line.name, charts.key_mark(place)) for place, line in enumerate(series)]


def _moment(at: datetime) -> str:
    return wording.utc(at)


def _at(start: int) -> datetime:
    return EPOCH + timedelta(microseconds=start)
