"""The page of one experiment: what was found, whether it can be trusted, and what it is made of."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, cast, get_args

from markupsafe import Markup
from starlette.responses import Response, StreamingResponse

from assay.bucketing.ruleset import Status
from assay.catalog.editing import find
from assay.catalog.tables import Experiment
from assay.dashboard import charts, wording
from assay.dashboard.auditing import said
from assay.dashboard.breakdown import known_attributes
from assay.dashboard.experiments import running_for, worst
from assay.dashboard.lifecycle import STEPS, possible
from assay.dashboard.meaning import is_share
from assay.dashboard.pages import Visit, go, link, render
from assay.dashboard.scorecard import card, value_text, verdict
from assay.dashboard.snippets import calls
from assay.dashboard.workings import numbers_of
from assay.errors import Invalid, NotFound
from assay.events.timestamps import EPOCH
from assay.eventstore.base import LedgerEntry, SeriesPoint
from assay.reports import export, notebook
from assay.reports.build import scope_of
from assay.reports.picture import read_spec
from assay.reports.question import Grain, Question, ask
from assay.reports.report import AtStop, MetricReport, Point, Report, Trend
from assay.reports.snapshots import Snapshot
from assay.reports.units import UnitTable
from assay.reports.wording import spread


class Wait(NamedTuple):
    """What more days would bring one treatment: units in both arms, and the chances of each verdict."""

    when: str
    treatment: str
    units: str
    width: str
    better: str
    unclear: str
    worse: str
    chart: Markup


class Stop(NamedTuple):
    """The effect of one treatment at the stop: as measured, and corrected for having been chosen."""

    treatment: str
    naive: str
    corrected: str
    interval: str
    method: str
    sentence: str


class Made(NamedTuple):
    """One look, and what it showed of the primary metric: treatment, |z|, its limit, and the verdict."""

    number: int
    at: datetime
    units: int
    fraction: str
    verdicts: Sequence[tuple[str, str, str, str]]


class Plot(NamedTuple):
    """A chart in both sizes, with what stands beside it."""

    title: str
    about: str
    wide: Markup
    narrow: Markup
    series: Sequence[tuple[str, Markup]]
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]


def shown(visit: Visit) -> Response:
    """The page; with `refresh`, from a report made just now."""
    key, as_of = visit.place["key"], visit.query.get("as_of")
    if visit.query.get("refresh"):
        visit.parts.snapshots.anew(key, Question(), visit.now)
        return go(visit, link("experiments", key))
    with visit.parts.database.reading() as tx:
        experiment = find(tx, key)
        attributes = known_attributes(tx)
    if experiment.status == Status.DRAFT:
        return render(visit, "draft.html", **_frame(visit, experiment))
    report = _snapshot(visit).report
    event_type = report.primary.metric.event_type or "signup"
    decision = report.decision
    return render(
        visit,
        "result.html",
        **_frame(visit, experiment),
        report=report,
        card=card(report),
        progress=decision.progress,
        left=_left(report),
        waits=_waits(report),
        stops=[_stop(report, each) for each in decision.at_stop],
        looks=_looks(report),
        attributes=attributes,
        deviations=[
            (
                wording.words(each.field),
                each.change,
                said(each.before),
                said(each.after),
                datetime.fromisoformat(each.at),
                each.by,
            )
            for each in report.spec.deviations
        ],
        age=wording.ago(report.computed_at, visit.now),
        as_of=report.question.end if as_of else None,
        fixed=f"{report.end:%Y-%m-%dT%H:%M:%S.%fZ}",
        worst=str(worst(report)),
        metric=_metric(report, visit.query.get("metric")).metric,
        calls=None
        if report.total_units
        else calls(
            visit.origin,
            experiment.key,
            event_type,
            configured=any(each.config for each in experiment.variants),
        ),
    )


def statements_piece(visit: Visit) -> Response:
    """What the store was asked for the numbers of the page, as it was asked."""
    found = [
        (each.text.strip(), [(name, str(value)) for name, value in each.parameters.items()])
        for each in _snapshot(visit, sql=True).report.statements
    ]
    return render(visit, "_statements.html", statements=found)


def _snapshot(visit: Visit, *, sql: bool = False) -> Snapshot:
    """The report on everything, or on everything until the moment that the address fixes."""
    kept = visit.parts.snapshots
    asked = replace(ask({"end": visit.query.get("as_of")}, visit.now), sql=sql)
    return kept.get(visit.place["key"], asked, visit.now, max_age=kept.max_age)


def trend_piece(visit: Visit) -> Response:
    """The charts over time of one metric."""
    snapshot = _snapshot(visit)
    report = snapshot.report
    of = _metric(report, visit.query.get("metric"))
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


def ledger_piece(visit: Visit) -> Response:
    """What became of every event that concerns the experiment."""
    with visit.parts.database.reading() as tx:
        spec = read_spec(tx, visit.place["key"])
    visit.parts.flush()
    entries = visit.parts.store.ledger(scope_of(spec, Question()))
    return render(visit, "_ledger.html", kinds=_kinds(entries), key=visit.place["key"])


def export_file(visit: Visit) -> Response:
    """The numbers behind the page, as a file."""
    form, kind = visit.query.get("format") or "csv", visit.query.get("rows") or "statistics"
    if form == "notebook":
        with visit.parts.database.reading() as tx:
            spec = read_spec(tx, visit.place["key"])
        visit.parts.flush()
        document = notebook.notebook(visit.parts.store, spec, Question(), visit.now)
        return Response(document, media_type=notebook.MEDIA, headers=_named(f"{spec.key}.ipynb"))
    if form not in get_args(export.Format):
        raise Invalid.field("format", f"{form!r} is not one of {', '.join(get_args(export.Format))}")
    if kind not in ("statistics", "users"):
        raise Invalid.field("rows", f"{kind!r} is not one of statistics, users")
    report = _snapshot(visit).report
    columns, rows = export.STATISTICS, export.sufficient_statistics(report)
    if kind == "users":
        table = UnitTable.of(report, report.metrics)
        columns, rows = export.user_columns(table), export.users(report, table, visit.parts.store)
    shape = cast("export.Format", form)
    return StreamingResponse(
        export.written(columns, rows, shape),
        media_type=export.MEDIA[shape],
        headers=_named(f"{report.spec.key}-{kind}.{form}"),
    )


def _named(file: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{file}"'}


def _frame(visit: Visit, experiment: Experiment) -> dict[str, Any]:
    """What the page shows of any experiment, whatever its state."""
    steps = possible(experiment) if visit.edits else []
    present = [each for each in experiment.variants if not each.removed]
    return {
        "experiment": experiment,
        "variants": present,
        "running": running_for(experiment.started_at, experiment.ended_at, visit.now),
        "steps": [(name, STEPS[name].button) for name in steps],
        "split": charts.allocation([(each.name, each.allocation, each.enabled) for each in present]),
        "winner": next((each.name for each in experiment.variants if each.id == experiment.winner_id), None),
    }


def _metric(report: Report, key: str) -> MetricReport:
    if not key:
        return report.primary
    found = next((each for each in report.metrics if each.metric.key == key), None)
    if found is None:
        raise NotFound(f"The experiment has no metric {key!r}.")
    return found


def _left(report: Report) -> str:
    """How long the rest of the planned sample takes, in words."""
    ahead = report.decision.progress
    if ahead is None or not ahead.days_left or report.spec.status != Status.RUNNING:
        return ""
    more = math.ceil(ahead.days_left)
    return f"about {more:,} more day{'' if more == 1 else 's'} at the present rate"


def _waits(report: Report) -> list[Wait]:
    """The chances of each verdict, and how wide the lift's interval would be: it shrinks with the root."""
    found = []
    for each in report.decision.outlooks:
        chances = each.prediction
        if chances.better is None or chances.worse is None or chances.inconclusive is None:
            continue
        comparison = report.primary.comparison(each.treatment.id)
        half = spread(numbers_of(comparison).lift_interval) if comparison is not None else None
        units = comparison.judged.contrast.units if comparison and comparison.judged else 0
        width = 2.0 * half * math.sqrt(units / chances.units) if half is not None and units else None
        when = f"In {each.days} days"
        better, unclear, worse = chances.better, chances.inconclusive, chances.worse
        label = (
            f"{when}, {each.treatment.name}: better {wording.chance(better)}, "
            f"unclear {wording.chance(unclear)}, worse {wording.chance(worse)}"
        )
        found.append(
            Wait(
                when,
                each.treatment.name,
                f"≈ {chances.units:,.0f}",
                wording.MISSING if width is None else f"± {wording.percent(width, width)}",
                wording.chance(better),
                wording.chance(unclear),
                wording.chance(worse),
                charts.chances(better, unclear, worse, label),
            )
        )
    return found


def _stop(report: Report, each: AtStop) -> Stop:
    share = is_share(report.primary.metric)
    show = wording.points if share else partial(wording.number, signed=True)
    comparison = report.primary.comparison(each.treatment.id)
    around = numbers_of(comparison).standard_error if comparison is not None else None
    ends = wording.points_range(each.interval) if share else wording.amount_range(each.interval, share=False)
    return Stop(
        each.treatment.name,
        show(each.naive, around),
        show(each.estimate, around),
        ends if each.interval is not None else wording.MISSING,
        _CORRECTIONS.get(each.method, wording.words(each.method)),
        each.sentence or "",
    )


_CORRECTIONS = {
    "conditional_likelihood": "Likelihood of the data given that the test rejected",
    "stage_wise": "Stage-wise ordering of the looks, median-unbiased",
    "always_valid": "Always-valid",
    "bandit": "Always-valid",
    "bayesian": "Posterior mean",
}


def _looks(report: Report) -> list[Made]:
    names = {each.id: each.name for each in report.spec.variants}
    primary = report.primary.metric.key
    return [
        Made(
            look.number,
            look.at,
            look.units,
            wording.percent(look.fraction, 0.01),
            [
                (
                    names.get(each.treatment_id, ""),
                    wording.MISSING if each.z is None else f"{abs(each.z):.2f}",
                    wording.MISSING if each.limit is None else f"{each.limit:.2f}",
                    "no test" if each.crossed is None else "crossed" if each.crossed else "not crossed",
                )
                for each in look.verdicts
                if each.metric == primary
            ],
        )
        for look in report.spec.looks
    ]


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
            lift = wording.percent(numbers.lift, spread(ends), signed=True)
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


def _kinds(entries: Sequence[LedgerEntry]) -> list[tuple[str, list[LedgerEntry]]]:
    """Entries by event type."""
    kinds: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        kinds.setdefault(entry.type or "unreadable", []).append(entry)
    return sorted(kinds.items())
