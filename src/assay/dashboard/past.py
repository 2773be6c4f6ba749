"""What reports have said: those that were kept, each as it was, and looks, made by hand, too."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from markupsafe import Markup
from starlette.responses import Response

from assay.catalog import snapshots
from assay.catalog.editing import as_id, find
from assay.catalog.tables import Experiment, ReportSnapshot
from assay.dashboard import charts, wording
from assay.dashboard.experiments import number
from assay.dashboard.meaning import SHARES
from assay.dashboard.pages import Visit, go, link, render
from assay.dashboard.scorecard import EVIDENCE, STRIP, margin_as_lift
from assay.errors import AssayError, NotFound
from assay.reports import history
from assay.reports.judging import information, is_last, planned_units
from assay.reports.question import Question
from assay.reports.spec import ExperimentSpec, Role
from assay.stats import Interval
from assay.stats.boundaries import spent_by

_PAGE = 50
_WHY = {
    "schedule": "By the schedule",
    "refresh": "Kept by hand",
    "look": "With look {}",
    "breaker": "The circuit breaker tripped",
}
Document = Mapping[str, Any]


class Entry(NamedTuple):
    """One kept report in the list."""

    row: ReportSnapshot
    why: str
    verdict: tuple[str, str]
    mark: str


class Row(NamedTuple):
    """One treatment by one metric, as a past report has it; the fields are those of the scorecard's rows."""

    treatment: str
    value: str
    control_value: str
    lift: str
    lift_range: str
    evidence: str
    evidence_note: str
    tone: str
    outcome: str
    chart: Markup
    reduction: str


class Block(NamedTuple):
    """One metric of a past report; the fields are those of the scorecard's blocks."""

    name: str
    means: str
    planned: bool
    rows: Sequence[Row]


def listed(visit: Visit) -> Response:
    """All reports of an experiment that were kept, the newest first."""
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
        rows, total = snapshots.page(tx, experiment.id, skip=skip, limit=_PAGE)
    return render(
        visit,
        "reports.html",
        experiment=experiment,
        entries=[_entry(row) for row in rows],
        total=total,
        skip=skip,
        limit=_PAGE,
        days=visit.parts.history_days,
        address=partial(link, "experiments", experiment.key, "reports"),
    )


def keep(visit: Visit) -> Response:
    """Compute the report now, and keep it."""
    key = visit.place["key"]
    computed = visit.parts.snapshots.anew(key, Question(), visit.now)
    history.keep(visit.parts.database, computed, "refresh", visit.now, visit.parts.history_days)
    return go(visit, link("experiments", key, "reports"))


def shown(visit: Visit) -> Response:
    """One report as it was."""
    experiment, row = _kept(visit)
    document: Document = json.loads(row.document)
    evidence = EVIDENCE.get(document["experiment"]["analysis"]["method"], "p")
    span = charts.common_span(_drawn(document), *STRIP)
    names = {each["id"]: each["name"] for each in document["experiment"]["variants"]}
    control = next((each["name"] for each in document["experiment"]["variants"] if each["is_control"]), "")
    treatments = dict.fromkeys(
        each["treatment"] for metric in document["metrics"] for each in metric["comparisons"]
    )
    health = document.get("health", ())
    return render(
        visit,
        "past.html",
        experiment=experiment,
        entry=_entry(row),
        decision=document["decision"],
        names=list(names.values()),
        worries=[each for each in health if each["health"] != "ok"],
        well=sum(each["health"] == "ok" for each in health),
        units=[(names.get(int(arm), ""), count) for arm, count in document["units"].items()],
        groups=list(_groups(document, span)),
        axis=charts.interval_axis(span, wording.lift_tick),
        control=control,
        treatments=list(treatments),
        evidence=evidence,
        until=datetime.fromisoformat(document["window"]["end"]),
    )


def document(visit: Visit) -> Response:
    """The same as a file, letter for letter as the API answered it."""
    experiment, row = _kept(visit)
    named = {"Content-Disposition": f'attachment; filename="{experiment.key}-{row.id}.json"'}
    return Response(row.document, media_type="application/json", headers=named)


def look(visit: Visit) -> Response:
    """Say what a look now would cost, and when told so, make it."""
    key = visit.place["key"]
    spec = visit.parts.snapshots.spec(key)
    problem = ""
    if visit.method == "POST":
        try:
            parts = visit.parts
            made = history.look(
                parts.snapshots, parts.database, key, visit.actor, visit.now, parts.history_days
            )
        except AssayError as error:
            problem = error.detail
        else:
            return go(visit, link("experiments", key, looked="new" if made.new else "same") + "#looks")
    with visit.parts.database.reading() as tx:
        experiment = find(tx, key)
    return render(
        visit,
        "look.html",
        status=409 if problem else 200,
        experiment=experiment,
        follows=_follows(visit, spec),
        allowed=spec.analysis.is_sequential and spec.started_at is not None,
        problem=problem,
    )


def _kept(visit: Visit) -> tuple[Experiment, ReportSnapshot]:
    wanted = as_id(visit.place["number"])
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
        if wanted is None:
            raise NotFound(f"The experiment has no past report {visit.place['number']!r}.")
        return experiment, snapshots.find(tx, experiment.id, wanted)


def _entry(row: ReportSnapshot) -> Entry:
    return Entry(
        row,
        _WHY.get(row.why, wording.words(row.why)).format(row.look),
        wording.VERDICTS.get(row.verdict, (wording.words(row.verdict), "plain")),
        " · ".join(wording.count(each).replace("-", "−") for each in row.position),
    )


def _groups(document: Document, span: charts.Span) -> Iterator[tuple[str, list[Block]]]:
    for role in Role:
        blocks = [
            Block(
                each["name"],
                wording.words(each["type"]),
                each.get("registered", True),
                [_row(each, found, span) for found in each["comparisons"]],
            )
            for each in document["metrics"]
            if each["role"] == role
        ]
        if blocks:
            yield str(role), blocks


def _row(metric: Document, each: Document, span: charts.Span) -> Row:
    said, tone = _outcome(metric, each)
    arms = {arm["variant_id"]: _value(metric, arm) for arm in metric["variants"]}
    ends = _ends(each["lift"])
    lift = wording.lift(each["lift"]["value"], ends)
    around = wording.lift_range(ends)
    evidence, about = _evidence(each)
    saved = each.get("variance_reduction")
    return Row(
        each["treatment"],
        arms.get(each["treatment_id"], wording.MISSING),
        arms.get(each["control_id"], wording.MISSING),
        lift,
        around if each["lift"]["value"] is not None else "",
        evidence,
        about,
        tone,
        said,
        charts.interval(
            _estimate(each),
            span,
            tone,
            f"{each['treatment']}, {metric['name']}: {lift}, {around}. {said}.",
            margin=_margin(metric, each),
        ),
        "" if saved is None else wording.percent(saved, 0.01),
    )


def _value(metric: Document, arm: Document) -> str:
    around = arm.get("standard_error")
    show = wording.percent if metric["type"] in SHARES else wording.number
    return show(arm["value"], around)


def _outcome(metric: Document, each: Document) -> tuple[str, str]:
    """The verdict in a word, as the scorecard has it."""
    crossed = each.get("look") or {}
    gap = crossed.get("estimate") if crossed.get("crossed") else None
    gap = each.get("difference") or 0.0 if gap is None else gap
    better = gap > 0.0 if metric["direction"] == "increase" else gap < 0.0
    significant = each.get("significant")
    passed = (each.get("margin") or {}).get("passed")
    if significant and not better:
        return "Worse", "bad"
    if passed is not None:
        return ("Within its margin", "good") if passed else ("Not shown to be within", "careful")
    if significant:
        return "Better", "good"
    if each.get("reason"):
        return "No test yet", "quiet"
    return ("Waits for a look", "quiet") if significant is None else ("No clear difference", "plain")


def _evidence(each: Document) -> tuple[str, str]:
    margin, found = each.get("margin") or {}, each.get("look") or {}
    if each.get("chance_to_win") is not None:
        return wording.chance(each["chance_to_win"]), ""
    if margin.get("p_value") is not None:
        return wording.p_value(margin["p_value"]), "p of a harm beyond the margin"
    if found.get("z") is not None:
        limit = "|z|" if found.get("limit") is None else f"|z|, limit {found['limit']:.2f}"
        return f"{abs(found['z']):.2f}", f"{limit} at look {found['number']}"
    if each.get("adjusted_p_value") is not None:
        family = each.get("family")
        about = f"of {family['members']}, corrected" if family else ""
        return wording.p_value(each["adjusted_p_value"]), about
    return wording.p_value(each.get("p_value")), ""


def _ends(lift: Document) -> Interval | None:
    found = lift["interval"]
    return None if found is None else Interval(found["low"], found["high"])


def _estimate(each: Document) -> charts.Estimate:
    ends = _ends(each["lift"])
    return charts.Estimate(each["lift"]["value"], ends.low if ends else None, ends.high if ends else None)


def _drawn(document: Document) -> Iterator[charts.Estimate]:
    for metric in document["metrics"]:
        for each in metric["comparisons"]:
            yield _estimate(each)
            if (at := _margin(metric, each)) is not None:
                yield charts.Estimate(at, at, at)


def _margin(metric: Document, each: Document) -> float | None:
    """The lift at which a guardrail is harmed; an absolute margin, by the value of the control."""
    margin = (metric.get("definition") or {}).get("margin")
    if margin is None:
        return None
    return margin_as_lift(
        margin["size"],
        each.get("value_control"),
        relative=margin["relative"],
        harmed_below=metric["direction"] == "increase",
    )


def _follows(visit: Visit, spec: ExperimentSpec) -> list[str]:
    """What a look now would do to the test."""
    if not spec.analysis.is_sequential:
        return []
    kept = visit.kept_report(str(spec.id))
    fraction = None if kept is None else information(spec, kept.total_units, kept.end)
    first = "What the data say at this moment becomes a verdict that is kept and never changes. "
    said = [f"{first}Where nothing new has come since the last look, that one stands, and nothing happens."]
    if spec.analysis.method == "always_valid":
        said.append(
            "It costs nothing: an always-valid test holds its level however often it is looked at. "
            + (
                "Its intervals are narrowest near the planned sample."
                if spec.target_sample_size
                else "No sample is planned, so it is tuned to a common one."
            )
        )
        return said
    planned = spec.analysis.looks
    left = None if planned is None else max(0, planned - len(spec.looks))
    if left is not None:
        said.append(
            f"It takes the place of the next planned look: of {planned}, {left} are left, this one "
            "included. Looking early leaves one chance less later on."
        )
    if fraction:
        said += _cost(spec, fraction)
    elif planned_units(spec) is None and not spec.analysis.look_dates:
        said.append("No sample is planned, so nothing says how much information is in: a look has no limit.")
    return said


def _cost(spec: ExperimentSpec, fraction: float) -> list[str]:
    """The error that is spent by this look, of all that there is."""
    sides = 2.0 if spec.analysis.alternative == "two-sided" else 1.0
    level = spec.significance_level

    def spent(at: float) -> float:
        side = spent_by(at, level / sides, spec.analysis.spending, power=spec.analysis.spending_power)
        return sides * side

    before = spent(spec.looks[-1].fraction) if spec.looks else 0.0
    last = is_last(spec, fraction, len(spec.looks) + 1)
    after = level if last else max(before, spent(fraction))
    amount = f"{wording.percent(fraction, 0.01)} of the planned information is in. "
    allowed = (
        f"Of the error of {wording.share_text(level)} that the plan allows, {wording.share_text(before)} is "
        f"spent; this look spends {_some(after - before)}, and what is spent does not come back."
    )
    said = [amount + allowed]
    if last:
        said.append("It is the last look: it decides, and the test ends with it.")
    return said


def _some(share: float) -> str:
    return "less than 0.01 %" if 0.0 < share < 0.0001 else wording.share_text(share)
