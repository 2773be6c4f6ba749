"""The scorecard: one row for each metric and treatment, on one scale, with what each number is made of."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from assay.dashboard import charts, wording
from assay.dashboard.meaning import facts, is_share, meaning
from assay.dashboard.workings import Step, method_of, numbers_of, steps
from assay.reports.arms import ArmSummary
from assay.reports.notes import Note, notes, remedy
from assay.reports.report import Comparison, MetricReport, Report, Why
from assay.reports.spec import Direction, MetricSpec, Role
from assay.reports.views.common import note
from assay.reports.wording import spread
from assay.stats import Reason, Verdict

#: What the column of evidence shows, by method.
EVIDENCE = {
    "bayesian": "Chance to win",
    "group_sequential": "Evidence",
    "always_valid": "Always-valid p",
    "bandit": "Always-valid p",
}
_ORDER = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL, Role.EXPLORATORY, Role.AD_HOC)
#: Where an interval's strip begins and ends, in pixels.
STRIP = (8.0, 272.0)
MISSING = wording.MISSING


class Arm(NamedTuple):
    """One variant by one metric, ready to be read."""

    name: str
    place: int
    units: int
    converters: float
    events: float
    total: str
    value: str
    interval: str
    interval_method: str
    std_dev: str


class Row(NamedTuple):
    """One treatment against the control by one metric."""

    treatment: str
    value: str
    control_value: str
    lift: str
    lift_range: str
    difference: str
    evidence: str
    evidence_note: str
    tone: str
    outcome: str
    chart: Markup
    method: str
    steps: Sequence[Step]
    reason: str
    remedy: str
    note: str
    reduction: str


class Block(NamedTuple):
    """One metric with all of its rows."""

    key: str
    name: str
    role: str
    means: str
    facts: Sequence[tuple[str, str]]
    arms: Sequence[Arm]
    rows: Sequence[Row]
    silent: bool
    planned: bool
    definition: str | None
    version: int | None
    notes: Sequence[Note]


class Card(NamedTuple):
    """The whole scorecard: metrics by role, and the scale they share."""

    groups: Sequence[tuple[str, Sequence[Block]]]
    axis: Markup
    level: str
    control: str
    treatments: Sequence[str]
    evidence: str


def card(report: Report) -> Card:
    """The scorecard of a report, the primary metric first."""
    compared = [(of.metric, each) for of in report.metrics for each in of.comparisons]
    lifts = [_estimate(each) for _, each in compared]
    margins = [at for metric, each in compared if (at := _margin(metric, each)) is not None]
    span = charts.common_span([*lifts, *(charts.Estimate(at, at, at) for at in margins)], *STRIP)
    groups = []
    for role in _ORDER:
        blocks = [_block(report, each, span) for each in report.metrics if each.metric.role is role]
        if blocks:
            groups.append((str(role), blocks))
    control = report.spec.control
    return Card(
        groups,
        charts.interval_axis(span, wording.lift_tick),
        _level(report),
        control.name if control else "",
        [each.treatment.name for each in report.primary.comparisons],
        EVIDENCE.get(report.spec.analysis.method, "p"),
    )


def _level(report: Report) -> str:
    """The level of the intervals; where a correction left them different ones, from which to which."""
    levels = sorted(
        {
            f"{100.0 * (1.0 - numbers_of(each).alpha):.4g}"
            for metric in report.metrics
            for each in metric.comparisons
        },
        key=float,
    )
    if not levels:
        return f"{100.0 * (1.0 - report.alpha):.4g} %"
    return f"{levels[0]} %" if len(levels) == 1 else f"{levels[0]}–{levels[-1]} %"


def value_text(metric: MetricSpec, arm: ArmSummary) -> str:
    """The value of one arm, as exact as its interval."""
    around = arm.interval.standard_error or spread(arm.interval.interval)
    return wording.percent(arm.value, around) if is_share(metric) else wording.number(arm.value, around)


def _outcome(each: Comparison, direction: Direction) -> tuple[str, str]:
    """What the plain test of a comparison says, in a word, and the tone of it."""
    if each.effect.p_value is None:
        return "No test yet", "quiet"
    if not each.significant:
        return "No clear difference", "plain"
    return ("Better", "good") if each.improves(direction) else ("Worse", "bad")


def verdict(metric: MetricSpec, each: Comparison) -> tuple[str, str]:
    """What the experiment's own method says, in a word, and the tone of it."""
    judged = each.judged
    if judged is None:
        return _outcome(each, metric.direction)
    look, numbers = judged.look, judged.numbers
    gap = look.estimate if look is not None and look.crossed and look.estimate is not None else None
    gap = numbers.difference or 0.0 if gap is None else gap
    better = gap > 0.0 if metric.direction is Direction.INCREASE else gap < 0.0
    if judged.significant and not better:
        return "Worse", "bad"
    if judged.margin is not None and judged.margin.passed is not None:
        held = ("Within its margin", "good"), ("Not shown to be within", "careful")
        return held[0 if judged.margin.passed else 1]
    if judged.significant:
        return "Better", "good"
    if numbers.reason is not None:
        return "No test yet", "quiet"
    if judged.significant is None:
        return "Waits for a look", "quiet"
    return "No clear difference", "plain"


def _evidence(each: Comparison) -> tuple[str, str]:
    """What the verdict rests on, in the terms of its method, and what to know about it."""
    found, judged = numbers_of(each), each.judged
    if found.chance_to_win is not None:
        return wording.chance(found.chance_to_win), ""
    if judged is not None and judged.margin is not None and judged.margin.p_value is not None:
        return wording.p_value(judged.margin.p_value), "p of a harm beyond the margin"
    if judged is not None and judged.look is not None and judged.look.z is not None:
        look = judged.look
        limit = f"|z|, limit {look.limit:.2f}" if look.limit is not None else "|z|"
        return f"{abs(look.z or 0.0):.2f}", f"{limit} at look {judged.look_number}"
    if judged is not None and judged.adjusted_p_value is not None:
        return wording.p_value(judged.adjusted_p_value), f"of {judged.members}, corrected"
    return wording.p_value(found.p_value), ""


def _estimate(each: Comparison) -> charts.Estimate:
    found = numbers_of(each)
    ends = found.lift_interval
    return charts.Estimate(found.lift, ends.low if ends else None, ends.high if ends else None)


def _margin(metric: MetricSpec, each: Comparison) -> float | None:
    margin = metric.margin
    if margin is None:
        return None
    return margin_as_lift(
        margin.size,
        numbers_of(each).control,
        relative=margin.is_relative,
        harmed_below=metric.direction is Direction.INCREASE,
    )


def margin_as_lift(size: float, control: float | None, *, relative: bool, harmed_below: bool) -> float | None:
    """The lift at which a guardrail is harmed; an absolute margin, by the value of the control."""
    harm = -size if harmed_below else size
    if relative:
        return harm
    return harm / abs(control) if control else None


def _block(report: Report, each: MetricReport, span: charts.Span) -> Block:
    metric = each.metric
    return Block(
        metric.key,
        metric.name,
        str(metric.role),
        meaning(metric),
        facts(metric),
        [_arm(metric, arm, place) for place, arm in enumerate(each.arms)],
        [_row(report, each, found, span) for found in each.comparisons],
        each.silent,
        metric.registered,
        metric.definition,
        metric.definition_version,
        notes(each, report.begin, report.end),
    )


def _arm(metric: MetricSpec, arm: ArmSummary, place: int) -> Arm:
    share = is_share(metric)
    return Arm(
        arm.variant.name,
        place,
        arm.units,
        arm.tally.converters,
        arm.tally.events,
        MISSING if share else wording.number(arm.tally.total),
        value_text(metric, arm),
        wording.amount_range(arm.interval.interval, share=share),
        wording.words(arm.interval.method),
        wording.number(arm.std_dev),
    )


def _gap(found: Verdict, *, share: bool) -> str:
    """The difference in the metric's own unit, with its interval."""
    if share:
        gap = wording.points(found.difference, found.standard_error)
        return f"{gap} ({wording.points_range(found.interval)})"
    gap = wording.number(found.difference, found.standard_error, signed=True)
    return f"{gap} ({wording.amount_range(found.interval, share=False)})"


def _row(report: Report, of: MetricReport, each: Comparison, span: charts.Span) -> Row:
    metric, found, judged = of.metric, numbers_of(each), each.judged
    said, tone = verdict(metric, each)
    evidence, evidence_note = _evidence(each)
    control, treatment = of.arm(each.control.id), of.arm(each.treatment.id)
    share = is_share(metric)
    why: Reason | Why | None = report.blank(of) or found.reason or found.lift_reason
    lift = wording.lift(found.lift, found.lift_interval)
    around = wording.lift_range(found.lift_interval)
    saved = judged.variance_reduction if judged is not None else None
    return Row(
        each.treatment.name,
        value_text(metric, treatment) if treatment else MISSING,
        value_text(metric, control) if control else MISSING,
        lift,
        around if found.lift is not None else "",
        _gap(found, share=share),
        evidence,
        evidence_note,
        tone,
        said,
        charts.interval(
            _estimate(each),
            span,
            tone,
            f"{each.treatment.name}, {metric.name}: {lift}, {around}. {said}.",
            margin=_margin(metric, each),
        ),
        method_of(found.method),
        steps(each, share=share),
        why.sentence if why is not None else (judged.waiting or "" if judged is not None else ""),
        remedy(why) or "",
        note(report, each) or "",
        "" if saved is None else wording.percent(saved, 0.01),
    )
