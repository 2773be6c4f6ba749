"""The scorecard: one row for each metric and treatment, on one scale, with what each number is made of."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from assay.dashboard import charts, wording
from assay.dashboard.meaning import is_share, meaning
from assay.reports.arms import ArmSummary
from assay.reports.report import Comparison, MetricReport, Report
from assay.reports.spec import Direction, MetricSpec, Role
from assay.reports.views.common import note

_ORDER = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL, Role.EXPLORATORY, Role.AD_HOC)
_START, _END = 8.0, 272.0
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


class Step(NamedTuple):
    """One step of a computation: what it is called, how it is done, and what came out."""

    name: str
    formula: str
    result: str


class Row(NamedTuple):
    """One treatment against the control by one metric."""

    treatment: str
    value: str
    control_value: str
    lift: str
    lift_range: str
    difference: str
    difference_range: str
    p: str
    tone: str
    outcome: str
    chart: Markup
    method: str
    steps: Sequence[Step]
    reason: str
    note: str


class Block(NamedTuple):
    """One metric with all of its rows."""

    key: str
    name: str
    role: str
    means: str
    direction: str
    arms: Sequence[Arm]
    rows: Sequence[Row]
    silent: bool


class Card(NamedTuple):
    """The whole scorecard: metrics by role, and the scale they share."""

    groups: Sequence[tuple[str, Sequence[Block]]]
    axis: Markup
    level: str
    control: str
    treatments: Sequence[str]


def card(report: Report) -> Card:
    """The scorecard of a report, the primary metric first."""
    lifts = [_estimate(each) for metric in report.metrics for each in metric.comparisons]
    span = charts.common_span(lifts, _START, _END)
    groups = []
    for role in _ORDER:
        blocks = [_block(report, each, span) for each in report.metrics if each.metric.role is role]
        if blocks:
            groups.append((str(role), blocks))
    control = report.spec.control
    return Card(
        groups,
        charts.interval_axis(span, wording.lift_tick),
        f"{100.0 * (1.0 - report.alpha):g} %",
        control.name if control else "",
        [each.treatment.name for each in report.primary.comparisons],
    )


def value_text(metric: MetricSpec, arm: ArmSummary) -> str:
    """The value of one arm, as exact as its interval."""
    around = arm.interval.standard_error or wording.spread(arm.interval.interval)
    return wording.percent(arm.value, around) if is_share(metric) else wording.number(arm.value, around)


def lift_text(each: Comparison) -> str:
    """The lift, as exact as its interval; an absolute difference where there is no lift."""
    lift = each.effect.lift
    return wording.percent(lift.value, wording.spread(lift.interval) or lift.standard_error, signed=True)


def outcome(each: Comparison, direction: Direction) -> tuple[str, str]:
    """What a comparison says, in a word, and the tone of it."""
    if each.effect.p_value is None:
        return "No test yet", "quiet"
    if not each.significant:
        return "No clear difference", "plain"
    return ("Better", "good") if each.improves(direction) else ("Worse", "bad")


def _estimate(each: Comparison) -> charts.Estimate:
    lift = each.effect.lift
    ends = lift.interval
    return charts.Estimate(lift.value, ends.low if ends else None, ends.high if ends else None)


def _margin(metric: MetricSpec) -> float | None:
    """The lift at which a guardrail is harmed, where its margin is a share of the control's value."""
    if metric.margin is None or not metric.margin.is_relative:
        return None
    return -metric.margin.size if metric.direction is Direction.INCREASE else metric.margin.size


def _block(report: Report, each: MetricReport, span: charts.Span) -> Block:
    metric = each.metric
    return Block(
        metric.key,
        metric.name,
        str(metric.role),
        meaning(metric),
        "More is better" if metric.direction is Direction.INCREASE else "Less is better",
        [_arm(metric, arm, place) for place, arm in enumerate(each.arms)],
        [_row(report, each, found, span) for found in each.comparisons],
        each.silent,
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


def _row(report: Report, of: MetricReport, each: Comparison, span: charts.Span) -> Row:
    metric, effect = of.metric, each.effect
    said, tone = outcome(each, metric.direction)
    control, treatment = of.arm(each.control.id), of.arm(each.treatment.id)
    share = is_share(metric)
    show = wording.percent if share else wording.number
    blank = report.blank(of)
    reason = blank.sentence if blank else effect.reason.sentence if effect.reason else ""
    if not reason and effect.lift.reason is not None:
        reason = effect.lift.reason.sentence
    lift, around = lift_text(each), wording.lift_range(effect.lift.interval)
    label = f"{each.treatment.name}, {metric.name}: {lift}, {around}. {said}."
    return Row(
        each.treatment.name,
        value_text(metric, treatment) if treatment else MISSING,
        value_text(metric, control) if control else MISSING,
        lift,
        around if effect.lift.value is not None else "",
        show(effect.estimate, effect.standard_error, signed=True),
        wording.amount_range(effect.interval, share=share),
        wording.p_value(effect.p_value),
        tone,
        said,
        charts.interval(_estimate(each), span, tone, label, margin=_margin(metric)),
        _METHODS.get(effect.method, wording.words(effect.method)),
        _steps(each, share=share),
        reason,
        note(report, each) or "",
    )


_METHODS = {
    "pooled_z": "Pooled two-proportion z test; intervals by the score method, which agree with the test",
    "mean": "Welch's t test of two means; lift by Fieller",
    "ratio": "Delta-method test of two ratios; lift by Fieller",
}


def _steps(each: Comparison, *, share: bool) -> list[Step]:
    """The way from the arms to the p-value, with the numbers as they were used."""
    effect = each.effect
    if effect.estimate is None or effect.control is None or effect.treatment is None:
        return []
    exact = _percent_exact if share else _exact
    steps = [
        Step(
            "Difference",
            f"{exact(effect.treatment)} − {exact(effect.control)}",
            exact(effect.estimate),
        )
    ]
    if effect.standard_error is not None:
        steps.append(
            Step(
                "Standard error of the difference",
                "from the spread of both arms",
                exact(effect.standard_error),
            )
        )
    if effect.statistic is not None:
        kind = "z" if effect.df is None else f"t with {effect.df:,.1f} degrees of freedom"
        steps.append(Step("Test statistic", kind, f"{effect.statistic:.4f}"))
    if effect.p_value is not None:
        sides = "two-sided" if effect.alternative == "two-sided" else f"one-sided, {effect.alternative}"
        steps.append(Step("p-value", sides, _p_exact(each)))
    if effect.interval is not None and effect.critical is not None:
        steps.append(
            Step(
                f"{100.0 * (1.0 - effect.alpha):g} % interval of the difference",
                f"critical value {effect.critical:.4f}",
                _ends(effect.interval.low, effect.interval.high, exact),
            )
        )
    if effect.lift.value is not None:
        steps.append(
            Step(
                "Lift",
                f"{exact(effect.estimate)} ÷ |{exact(effect.control)}|",
                _percent_exact(effect.lift.value),
            )
        )
        if effect.lift.interval is not None:
            steps.append(
                Step(
                    "Interval of the lift",
                    f"{wording.words(str(effect.lift.method))} method",
                    _ends(effect.lift.interval.low, effect.lift.interval.high, _percent_exact),
                )
            )
    return steps


def _p_exact(each: Comparison) -> str:
    p, log10 = each.effect.p_value, each.effect.log10_p_value
    if p is not None and p < 1e-12 and log10 is not None:
        return f"10^{log10:.1f}"
    return f"{p:.6g}"


def _exact(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−") if math.isfinite(value) else MISSING


def _percent_exact(value: float) -> str:
    return f"{value * 100.0:.4f} %".replace("-", "−")


def _ends(low: float | None, high: float | None, show: Callable[[float], str]) -> str:
    return f"{'unbounded' if low is None else show(low)} to {'unbounded' if high is None else show(high)}"
