"""Is the effect what it seems: alike arms before, no trend since, and large enough to be seen?"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt

from assay.reports.arms import COLUMNS, value_of
from assay.reports.checks.base import Finding
from assay.reports.evidence import Before, Course, Steps
from assay.reports.judging import planned_units
from assay.reports.report import Health, MetricReport
from assay.reports.spec import ExperimentSpec, MetricType
from assay.reports.strata import comparable
from assay.reports.wording import percent, setting
from assay.stats import (
    Baseline,
    Design,
    Moments,
    baseline_of,
    compare,
    detectable,
    infer,
    stratify,
)
from assay.stats.power import Test

#: Chance of a false alarm: of all covariates together, and of all treatments' trends together.
IMBALANCE: Final = 0.001
NOVELTY: Final = 0.01
#: Units in an arm that must have done something in a step before its lift says anything; steps of a trend.
_FEWEST_ACTIVE: Final = 25
_FEWEST_STEPS: Final = 3
_DAY: Final = 86_400_000_000

_Array = npt.NDArray[np.float64]


def balance(spec: ExperimentSpec, metrics: Sequence[MetricReport], before: Before | None) -> Finding:
    """Whether the arms were alike before anything could have an effect.

    By what the metrics looked back at, else by whether units had any event before their assignment.
    """
    tested = _looked_back(spec, metrics) or _any_event(spec, before)
    known = [each for each in tested if each.p_value is not None]
    level = IMBALANCE / max(len(known), 1)
    inputs = {"threshold": level, "covariates": [each._asdict() for each in tested]}
    if not known:
        return Finding(Health.OK, "Nothing is known of the time before the assignment.", inputs)
    worst = min(known, key=lambda each: each.p_value or 0.0)
    if (worst.p_value or 0.0) < level:
        return Finding(
            Health.FAILED,
            f"{worst.treatment} and {worst.control} differed in {worst.covariate} before their assignment "
            f"(p = {worst.p_value:.2g}): the assignment was not random, or came too late.",
            inputs,
        )
    return Finding(Health.OK, "The arms were alike before their assignment.", inputs)


class _Compared(NamedTuple):
    """A covariate in a treatment and in the control."""

    covariate: str
    treatment: str
    control: str
    before: float | None
    """In the treatment."""
    before_control: float | None
    p_value: float | None


def _looked_back(spec: ExperimentSpec, metrics: Sequence[MetricReport]) -> list[_Compared]:
    found = []
    places = {variant.id: place for place, variant in enumerate(spec.variants)}
    for report in metrics:
        for each in report.comparisons:
            pair = (each.control.id, each.treatment.id)
            control, treatment = (report.tallies.get(variant, {}) for variant in pair)
            strata = comparable(spec, control, treatment, (places[pair[0]], places[pair[1]])).pairs
            moments = [(one.control.moments, one.treatment.moments) for one in strata]
            for column in moments[0][0].columns:
                if column not in COLUMNS:
                    what = f"{report.metric.name} ({column.replace('_', ' ')})"
                    effect = infer(stratify(moments, column))
                    found.append(
                        _Compared(
                            what,
                            each.treatment.key,
                            each.control.key,
                            effect.treatment,
                            effect.control,
                            effect.p_value,
                        )
                    )
    return found


def _any_event(spec: ExperimentSpec, before: Before | None) -> list[_Compared]:
    control = spec.control
    if before is None or control is None:
        return []
    found = []
    for variant in spec.variants:
        arms = [before[each] for each in (control.id, variant.id) if each in before]
        if variant.id != control.id and len(arms) == 2:
            counts = [Moments.from_counts(units, active) for units, active in arms if units]
            if len(counts) == 2:
                effect = compare(counts[0], counts[1], reference="normal")
                found.append(
                    _Compared(
                        "having any event",
                        variant.key,
                        control.key,
                        effect.treatment,
                        effect.control,
                        effect.p_value,
                    )
                )
    return found


def novelty(spec: ExperimentSpec, course: Course | None) -> Finding:
    """Whether the effect on the primary metric grows or fades with the days since the assignment.

    A z test of the weighted slope, over days, of the logarithm of the arms' ratio, with the days' covariance,
    since they are days of the same units. A constant relative effect has no slope.
    """
    control = spec.control
    if course is None or control is None or spec.primary is None:
        return Finding(
            Health.OK, "No effect on the primary metric has lasted long enough to have a trend.", {}
        )
    trends = [
        each
        for variant in spec.variants
        if variant.id != control.id
        and (each := _trend(course, control.id, variant.id, variant.name)) is not None
    ]
    level = NOVELTY / max(len(trends), 1)
    inputs = {
        "metric": spec.primary.key,
        "units": course.units,
        "threshold": level,
        "treatments": [each._asdict() for each in trends],
    }
    if not trends:
        return Finding(Health.OK, "Too few units did anything for the effect to have a trend.", inputs)
    worst = min(trends, key=lambda each: each.p_value)
    if worst.p_value >= level:
        return Finding(Health.OK, "The effect does not change with the days since the assignment.", inputs)
    first, last = worst.lifts[0], worst.lifts[-1]
    fades = abs(last["lift"]) < abs(first["lift"])
    advice = (
        "it may be novelty that wears off, so judge by the later days"
        if fades
        else "units may have to learn first, so the whole understates what is to come"
    )
    return Finding(
        Health.WARNING,
        f"The effect of {worst.treatment} on {spec.primary.name} changes with the time since the assignment, "
        f"from {percent(first['lift'])} at first to {percent(last['lift'])} after {last['from_day']:.3g} "
        f"days (p = {worst.p_value:.2g}): {advice}.",
        inputs,
    )


class _Trend(NamedTuple):
    """The lift of a treatment by time since the assignment, and the test of its slope."""

    treatment: str
    slope: float
    """Of the logarithm of the ratio, per day."""
    standard_error: float
    p_value: float
    lifts: list[dict[str, float]]


def _trend(course: Course, control: int, treatment: int, name: str) -> _Trend | None:
    arms = [course.arms.get(variant) for variant in (control, treatment)]
    if arms[0] is None or arms[1] is None:
        return None
    steps = [step for step in range(course.steps) if all(_active(arm, course, step) for arm in arms if arm)]
    if len(steps) < _FEWEST_STEPS:
        return None
    (own, own_cover), (other, other_cover) = (_logs(arm, course, steps) for arm in arms if arm)
    gaps, cover = other - own, own_cover + other_cover
    days = np.array([(step + 0.5) * course.length / _DAY for step in steps])
    weights = 1.0 / np.diag(cover)
    centred = days - (weights * days).sum() / weights.sum()
    along = weights * centred / (weights * centred**2).sum()
    slope, error = float(along @ gaps), math.sqrt(float(along @ cover @ along))
    p_value = math.erfc(abs(slope / error) / math.sqrt(2.0))
    lifts = [
        {
            "from_day": step * course.length / _DAY,
            "to_day": (step + 1) * course.length / _DAY,
            "lift": math.expm1(gap),
            "standard_error": math.sqrt(variance),
        }
        for step, gap, variance in zip(steps, gaps.tolist(), np.diag(cover).tolist(), strict=True)
    ]
    return _Trend(name, slope, error, p_value, lifts)


def _active(arm: Steps, course: Course, step: int) -> bool:
    columns = range(step * course.width, (step + 1) * course.width)
    return all(arm.active[at] >= _FEWEST_ACTIVE and arm.moments.means[at] > 0.0 for at in columns)


def _logs(arm: Steps, course: Course, steps: Sequence[int]) -> tuple[_Array, _Array]:
    """The logarithm of the metric in each step, and their covariance by the delta method."""
    means, count = np.array(arm.moments.means), arm.moments.count
    values, gradients = [], np.zeros((len(steps), len(means)))
    for row, step in enumerate(steps):
        at = step * course.width
        values.append(math.log(means[at]) - (math.log(means[at + 1]) if course.width == 2 else 0.0))
        gradients[row, at] = 1.0 / means[at]
        if course.width == 2:
            gradients[row, at + 1] = -1.0 / means[at + 1]
    cover = gradients @ np.array(arm.moments.comoments) @ gradients.T / (count * (count - 1))
    return np.array(values), cover


def enough_power(spec: ExperimentSpec, metrics: Sequence[MetricReport], units: Mapping[int, int]) -> Finding:
    """Whether the planned sample, or what is there, can show the smallest effect worth finding."""
    wanted, report = spec.minimum_detectable_effect, _primary(spec, metrics)
    total = sum(units.values())
    size = max(total, planned_units(spec) or 0)
    inputs: dict[str, object] = {"units": total, "judged_at": size, "minimum_detectable_effect": wanted}
    if report is None or not report.comparisons or report.metric.type is MetricType.QUANTILE:
        return Finding(Health.OK, "There is no primary metric whose power could be told.", inputs)
    compared = range(len(report.comparisons))
    found = [_detectable(spec, report, size, units, at) for at in compared]
    lifts = [each for each in found if each is not None]
    if not lifts:
        return Finding(Health.OK, "Too little has come in to tell what can be detected.", inputs)
    largest = max(lifts)
    inputs["detectable_effect"] = largest
    inputs["power"] = spec.power
    said = f"{size:,} units show an effect of {percent(largest)} with a power of {setting(spec.power)}"
    if wanted is not None and largest > wanted:
        return Finding(
            Health.WARNING,
            f"{said}, more than the {setting(wanted)} worth finding: plan more units, or expect no answer "
            "where the effect is smaller.",
            inputs,
        )
    return Finding(Health.OK, f"{said}.", inputs)


def _primary(spec: ExperimentSpec, metrics: Sequence[MetricReport]) -> MetricReport | None:
    return next((each for each in metrics if each.metric == spec.primary), None)


def _detectable(
    spec: ExperimentSpec, report: MetricReport, size: int, units: Mapping[int, int], at: int
) -> float | None:
    """The smallest relative effect that one comparison detects with so many units in all arms."""
    each, analysis, total = report.comparisons[at], spec.analysis, sum(units.values())
    control, treatment = units.get(each.control.id, 0), units.get(each.treatment.id, 0)
    if control < 2 or treatment < 2:
        return None
    baseline = baseline_of(each.control_tally.moments, value_of(report.metric))
    if not isinstance(baseline, Baseline) or not baseline.mean or not baseline.variance:
        return None
    tests = cast("Sequence[Test]", get_args(Test))
    design = Design(
        test=next((test for test in tests if test == analysis.method), "fixed"),
        alpha=spec.significance_level / len(report.comparisons),
        alternative=analysis.alternative,
        ratio=treatment / control,
        looks=analysis.looks or Design().looks,
    )
    return detectable(baseline, size * (control + treatment) / total, power=spec.power, design=design).lift
