"""The page of one experiment: what was found, whether it can be trusted, and what it is made of."""

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, cast, get_args

from markupsafe import Markup
from starlette.responses import Response, StreamingResponse

from assay.bucketing.ruleset import Segment, Status
from assay.catalog import layers
from assay.catalog.editing import LIVE, find
from assay.catalog.tables import Experiment, Layer
from assay.dashboard import charts, experiment_fields, narrowing, sections, wording
from assay.dashboard.breakdown import known_attributes
from assay.dashboard.checks import sifted
from assay.dashboard.differences import said
from assay.dashboard.experiments import running_for
from assay.dashboard.lifecycle import STEPS, possible
from assay.dashboard.meaning import is_share
from assay.dashboard.overtime import metric_of
from assay.dashboard.pages import Form, Problems, Visit, go, link, render
from assay.dashboard.scorecard import card
from assay.dashboard.snippets import calls
from assay.dashboard.workings import numbers_of
from assay.errors import Invalid
from assay.eventstore.base import LedgerEntry
from assay.reports import export, launch, notebook
from assay.reports.build import scope_of
from assay.reports.picture import read_spec
from assay.reports.question import Question
from assay.reports.report import AtStop, Report
from assay.reports.units import UnitTable
from assay.reports.wording import spread

#: Characters of a statement's parameter that are shown.
_LONGEST = 500


class Refused(NamedTuple):
    """A rule that is stored and not accepted any more: why, where it is written anew, and whose it is."""

    why: str
    address: str
    segment: Segment | None = None


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


def shown(visit: Visit) -> Response:
    """The page; with `refresh`, from a report made just now."""
    key, kept = visit.place["key"], narrowing.kept(visit)
    if visit.query.get("refresh"):
        visit.parts.snapshots.anew(key, narrowing.asked(visit), visit.now)
        return go(visit, link("experiments", key, **kept))
    with visit.parts.database.reading() as tx:
        experiment = find(tx, key)
        attributes = known_attributes(tx)
        segments = narrowing.choices(tx, experiment)
        layer = layers.find(tx, experiment.layer["key"]) if experiment.layer else None
    if experiment.status == Status.DRAFT:
        parts = visit.parts
        # A holdout has no metric to plan for, and takes from the traffic of others: none of it applies.
        looked = experiment.holdout is None
        items = launch.examined(parts.database, parts.store, experiment.id, visit.now) if looked else []
        return render(visit, "draft.html", **_frame(visit, experiment, layer), items=items)
    report = narrowing.snapshot(visit).report
    chosen = narrowing.chosen(visit, segments)
    whole = visit.kept_report(key) if report.question.segment else None
    event_type = report.primary.metric.event_type or "signup"
    decision = report.decision
    return render(
        visit,
        "result.html",
        **_frame(visit, experiment, layer),
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
                said(each.before, each.field.partition(".")[0]),
                said(each.after, each.field.partition(".")[0]),
                datetime.fromisoformat(each.at),
                each.by,
            )
            for each in report.spec.deviations
        ],
        age=wording.ago(report.computed_at, visit.now),
        kept=kept,
        as_of=report.question.end,
        chosen=chosen,
        part=chosen.name if chosen else kept.get("segment"),
        of_units=None if whole is None else whole.total_units,
        segments=segments,
        sequential=report.spec.analysis.is_sequential,
        fixed=f"{report.end:%Y-%m-%dT%H:%M:%S.%fZ}",
        checks=sifted(report),
        metric=metric_of(report, visit.query.get("metric")).metric,
        calls=None
        if report.total_units or report.question.is_narrowed or experiment.status not in LIVE
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
        (each.text.strip(), [(name, _parameter(value)) for name, value in each.parameters.items()])
        for each in narrowing.snapshot(visit, sql=True).report.statements
    ]
    return render(visit, "_statements.html", statements=found)


def _parameter(value: object) -> str:
    """A parameter of a statement in the words of SQL; one as long as the ids of a segment's units is cut."""
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "TRUE", False: "FALSE"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(_parameter, value))
    text = str(value)
    if isinstance(value, float) and math.isinf(value):
        text = text.replace("inf", "infinity")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


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
    report = narrowing.snapshot(visit).report
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


def _frame(visit: Visit, experiment: Experiment, layer: Layer | None) -> dict[str, Any]:
    """What the page shows of any experiment, whatever its state."""
    steps = possible(experiment) if visit.edits else []
    present = [each for each in experiment.variants if not each.removed]
    named = {} if layer is None else {layer.key: layer.name}
    folded = sections.of(experiment_fields.of(experiment), Problems(), Form(), named)
    return {
        "experiment": experiment,
        "layer": layer,
        "says": {name: each.line for name, each in folded.items()},
        "variants": present,
        "running": running_for(experiment.started_at, experiment.ended_at, visit.now),
        "steps": [(name, STEPS[name].button) for name in steps],
        "refused": _refused(visit, experiment),
        "split": charts.allocation([(each.name, each.allocation, each.enabled) for each in present]),
        "winner": next((each.name for each in experiment.variants if each.id == experiment.winner_id), None),
    }


def _refused(visit: Visit, experiment: Experiment) -> list[Refused]:
    """Stored rules that this version does not accept any more, and by which it therefore lets nobody in."""
    served = visit.parts.published.ruleset.by_id.get(experiment.id)
    if served is None or experiment.status not in {Status.DRAFT, *LIVE}:
        return []
    own = [Refused(served.refused, link("experiments", experiment.key, "edit"))] if served.refused else []
    return [
        *own,
        *(
            Refused(each.refused, link("segments", each.id, "edit"), each)
            for each in served.segments
            if each.refused
        ),
    ]


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


def _kinds(entries: Sequence[LedgerEntry]) -> list[tuple[str, list[LedgerEntry]]]:
    """Entries by event type."""
    kinds: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        kinds.setdefault(entry.type or "unreadable", []).append(entry)
    return sorted(kinds.items())
