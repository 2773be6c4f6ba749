"""The experiment's own verdicts: its method, adjusted for the time before, corrected across the family.

The family are the registered primary and secondary metrics, each with every treatment: what the plan promised
to show. Guardrails are judged apart, each at the level itself, as all of them must hold; exploratory and
ad-hoc metrics are not corrected and promise nothing.

Verdicts of the sequential methods change at persisted looks alone. A report between two looks shows the
numbers as they stand, and what the looks so far have said.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from assay.reports.arms import SHARES, value_of
from assay.reports.compare import Contrasts, contrasts
from assay.reports.report import Comparison, Judgement, MetricReport, NextLook, Report
from assay.reports.spec import Direction, ExperimentSpec, LookSpec, LookVerdict, MetricSpec, MetricType, Role
from assay.stats import (
    Alternative,
    Case,
    Contrast,
    Interval,
    Judged,
    Mean,
    NonInferiority,
    Rules,
    Verdict,
    judge,
    judge_family,
    non_inferiority,
)
from assay.stats.boundaries import LEAST_STEP

#: What an always-valid test without a planned size is tuned to: fixed beforehand, so that data cannot choose.
UNPLANNED_UNITS = 10_000
_FAMILY = frozenset({Role.PRIMARY, Role.SECONDARY})


@dataclass(frozen=True, slots=True)
class _Asked:
    """One comparison on its way to a judgement."""

    metric: MetricSpec
    comparison: Comparison
    found: Contrasts
    case: Case
    plain: Case
    in_family: bool


def judged_reports(
    spec: ExperimentSpec,
    reports: Mapping[MetricSpec, MetricReport],
    primary: MetricSpec,
    *,
    units: int,
    now: datetime,
    alpha: float,
) -> dict[MetricSpec, MetricReport]:
    """The same reports with every comparison judged.

    They must hold all comparisons of all declared metrics, as the correction is for all of them. `units` is
    the number of units that are in, of all arms.
    """
    asked = {
        (metric, each.treatment.id): _asked(spec, of, each, in_family=in_family(metric, primary))
        for metric, of in reports.items()
        for each in of.comparisons
    }
    rules = rules_of(spec, units, now, alpha)
    # Without a share of the plan there is no limit to hold a look against: numbers alone.
    shown = rules or Rules("fixed", alpha)
    family = [key for key, each in asked.items() if each.in_family]
    cases = [asked[key].case for key in family]
    corrected = dict(
        zip(family, judge_family(cases, replace(shown, members=len(family) or None)), strict=True)
    )
    # Looks share the level among all that were declared; p-values are corrected for those that there are.
    tested = sum(one.verdict.p_value is not None for one in corrected.values())
    members = len(family) if shown.method == "group_sequential" else tested
    found: dict[tuple[MetricSpec, int], Judgement] = {}
    for key, each in asked.items():
        one = corrected.get(key) or Judged(judge(each.case, shown))
        judgement = _judgement(spec, each, one, shown)
        if each.in_family and shown.correction != "none" and shown.method != "bayesian":
            judgement = replace(judgement, members=members)
        found[key] = judgement if rules is not None else _without_limits(spec, judgement)
    return {
        metric: replace(
            of,
            comparisons=tuple(
                replace(each, judged=found[metric, each.treatment.id]) for each in of.comparisons
            ),
        )
        for metric, of in reports.items()
    }


def _without_limits(spec: ExperimentSpec, found: Judgement) -> Judgement:
    """The numbers alone, of a sequential method that has no plan to hold them against."""

    def bare(numbers: Verdict) -> Verdict:
        return replace(
            numbers,
            method=spec.analysis.method,
            interval=None,
            lift_interval=None,
            p_value=None,
            log10_p_value=None,
            significant=None,
        )

    return replace(
        found,
        numbers=bare(found.numbers),
        unadjusted=None if found.unadjusted is None else bare(found.unadjusted),
        adjusted_p_value=None,
    )


def in_family(metric: MetricSpec, primary: MetricSpec) -> bool:
    """Whether the metric is one of those whose number is corrected for."""
    return metric == primary or (metric.registered and metric.role in _FAMILY)


def information(spec: ExperimentSpec, units: int, now: datetime) -> float | None:
    """The share of the planned information that is in, at most 1; None where nothing says what was planned.

    Units in over units planned; where looks were planned by date alone, the time gone by of that until the
    last of them.
    """
    planned = planned_units(spec)
    if planned is not None:
        return min(1.0, units / planned)
    dates, begin = spec.analysis.look_dates, spec.started_at
    if dates and begin is not None and dates[-1] > begin:
        return min(1.0, max(0.0, (now - begin) / (dates[-1] - begin)))
    return None


def planned_units(spec: ExperimentSpec) -> int | None:
    """How many units were planned."""
    if spec.analysis.planned_units or spec.target_sample_size:
        return spec.analysis.planned_units or spec.target_sample_size
    return UNPLANNED_UNITS if spec.analysis.method == "always_valid" else None


def rules_of(spec: ExperimentSpec, units: int, now: datetime, alpha: float) -> Rules | None:
    """How a look now would judge; None where the method needs a plan that there is not, or nobody came."""
    analysis = spec.analysis
    method, correction = analysis.method, analysis.correction
    if method == "bandit":
        # Each comparison has a clock of its own: see `bandit_information`.
        return Rules("always_valid", alpha, correction, 1.0)
    if method not in ("group_sequential", "always_valid"):
        return Rules(method, alpha, correction)
    fraction = information(spec, units, now)
    if not fraction:
        return None
    if method == "always_valid":
        planned = planned_units(spec) or UNPLANNED_UNITS
        return Rules(method, alpha, correction, units / planned)
    # With nothing new since the last look, this is that look.
    before = [look for look in spec.looks if look.fraction <= fraction - LEAST_STEP]
    return Rules(
        method,
        alpha,
        correction,
        fraction,
        fractions(before),
        is_last(spec, fraction, len(before) + 1),
        analysis.spending,
        analysis.spending_power,
    )


def fractions(looks: Iterable[LookSpec]) -> tuple[float, ...]:
    """The information of these looks; one that fell behind, as after an erasure, had no limit of its own."""
    found: list[float] = []
    for look in looks:
        if not found or look.fraction >= found[-1] + LEAST_STEP:
            found.append(look.fraction)
    return tuple(found)


def is_last(spec: ExperimentSpec, fraction: float, number: int) -> bool:
    """Whether the look with this number is the last one of a group-sequential test."""
    over = spec.status in ("stopped", "archived")
    return over or fraction >= 1.0 or spec.analysis.looks == number


def next_look(spec: ExperimentSpec) -> NextLook | None:
    """When the next look is due; None where there is none to come."""
    analysis, number = spec.analysis, len(spec.looks) + 1
    done = bool(spec.looks) and spec.looks[-1].fraction >= 1.0 and analysis.method == "group_sequential"
    if not analysis.is_sequential or done or spec.status != "running":
        return None
    if analysis.looks is not None and number > analysis.looks:
        return None
    if analysis.look_dates:
        return NextLook(number, analysis.look_dates[number - 1], None)
    planned = planned_units(spec)
    if analysis.looks is not None and planned is not None:
        return NextLook(number, None, math.ceil(planned * number / analysis.looks))
    return NextLook(number, None, None)


def look_verdicts(report: Report) -> tuple[LookVerdict, ...]:
    """What a look at this report says, to be kept: of all comparisons that it holds."""
    return tuple(
        _look_verdict(of.metric, each, each.judged.numbers)
        for of in report.metrics
        for each in of.comparisons
        if each.judged is not None
    )


def _look_verdict(metric: MetricSpec, each: Comparison, found: Verdict) -> LookVerdict:
    z = None
    if found.difference is not None and found.standard_error:
        z = found.difference / found.standard_error
    ends = None if found.interval is None else (found.interval.low, found.interval.high)
    return LookVerdict(
        metric.key,
        each.treatment.id,
        z,
        found.limit,
        found.significant,
        found.difference,
        ends,
        found.p_value,
    )


def _asked(spec: ExperimentSpec, of: MetricReport, each: Comparison, *, in_family: bool) -> _Asked:
    metric, found = of.metric, contrasts(spec, of, each)
    side = alternative_of(spec, metric)
    lower = metric.direction is Direction.DECREASE
    counts = None
    if metric.type in SHARES and each.strata == 1:
        counts = each.control_tally.count, each.treatment_tally.count
    previous = 1.0
    if spec.looks and spec.analysis.method == "always_valid":
        last = spec.looks[-1].verdict(metric.key, each.treatment.id)
        previous = 1.0 if last is None or last.p_value is None else last.p_value
    share = bandit_information(spec, metric, each, found.plain) if spec.analysis.method == "bandit" else None
    plain = Case(found.plain, side, lower, counts, previous, share)
    case = plain if not found.covariates else Case(found.adjusted, side, lower, None, previous, share)
    return _Asked(metric, each, found, case, plain, in_family)


def bandit_information(
    spec: ExperimentSpec, metric: MetricSpec, each: Comparison, given: Contrast
) -> float | None:
    """The information of one comparison of a bandit, as a share of the plan.

    The time by which a confidence sequence goes is the variance that its sum has gathered (Howard et al.
    2021). Under an equal split that is in proportion to the units; where the split changes, a unit of a rare
    arm counts for more of it. So this is the number of equally split units that would have gathered as much.
    Of ratios and quantiles it is the number of units.
    """
    planned = spec.target_sample_size or UNPLANNED_UNITS
    if given.reason is not None or not given.variance:
        return None
    units = float(given.units)
    value = None if metric.type is MetricType.QUANTILE else value_of(metric)
    if isinstance(value, Mean):
        arms = (each.control_tally.moments, each.treatment_tally.moments)
        spread = sum(arm.variance(value.column) or 0.0 for arm in arms) / 2.0
        units = units * units * given.variance / (4.0 * spread) if spread else units
    return units / planned


def alternative_of(spec: ExperimentSpec, metric: MetricSpec) -> Alternative:
    """A one-sided plan asks of each metric what it asks of the primary one: better, or worse, on its terms.

    Guardrails are for harm that nobody asked about, and are always looked at from both sides.
    """
    said = spec.analysis.alternative
    if said not in ("greater", "less") or metric.role is Role.GUARDRAIL:
        return "two-sided"
    primary = spec.primary
    rising = primary is None or primary.direction is Direction.INCREASE
    for_better = (said == "greater") == rising
    return "greater" if for_better == (metric.direction is Direction.INCREASE) else "less"


def _judgement(spec: ExperimentSpec, asked: _Asked, one: Judged, rules: Rules) -> Judgement:
    found, numbers = asked.found, one.verdict
    unadjusted, reduction = None, None
    if found.covariates:
        unadjusted = judge(asked.plain, rules, numbers.alpha)
        if found.plain.variance and found.adjusted.variance is not None:
            reduction = 1.0 - found.adjusted.variance / found.plain.variance
    significant, look, number, waiting = numbers.significant, None, None, None
    if rules.method == "bayesian":
        significant = decisive(numbers)
    if spec.analysis.is_sequential:
        number, look = _deciding(spec, asked.metric, asked.comparison)
        significant = None if look is None else bool(look.crossed)
        waiting = None if look is not None else _waiting(spec)
    return Judgement(
        numbers,
        found.adjusted,
        significant,
        1,
        one.adjusted_p_value,
        found.covariates,
        unadjusted,
        reduction,
        _margin(asked.metric, found.adjusted, numbers, rules),
        look,
        number,
        waiting,
    )


def decisive(numbers: Verdict) -> bool | None:
    """Whether a posterior is worth a decision: better, or worse, with a probability of 1 - alpha."""
    chance = numbers.chance_to_win
    return None if chance is None else not numbers.alpha < chance < 1.0 - numbers.alpha


def _deciding(
    spec: ExperimentSpec, metric: MetricSpec, each: Comparison
) -> tuple[int | None, LookVerdict | None]:
    """The first look that crossed, else the last that had a test."""
    made = [(look.number, look.verdict(metric.key, each.treatment.id)) for look in spec.looks]
    known = [(number, one) for number, one in made if one is not None and one.crossed is not None]
    crossed = [(number, one) for number, one in known if one.crossed]
    return next(iter(crossed or known[-1:]), (None, None))


def _waiting(spec: ExperimentSpec) -> str:
    if planned_units(spec) is None and not spec.analysis.look_dates:
        return (
            "The group-sequential test needs a planned number of units to know how much information is in: "
            "set a target sample size."
        )
    if not spec.looks:
        return "No look has been made yet: the verdict comes with the first."
    return "No look so far could test this comparison: the verdict comes with the next."


def _margin(metric: MetricSpec, given: Contrast, numbers: Verdict, rules: Rules) -> NonInferiority | None:
    """The test of a guardrail against its margin; a sequential method holds it to that method's limit."""
    if metric.margin is None:
        return None
    found = non_inferiority(
        given,
        metric.margin.size,
        relative=metric.margin.is_relative,
        direction="increase" if metric.direction is Direction.INCREASE else "decrease",
        alpha=rules.alpha,
    )
    if rules.method not in ("group_sequential", "always_valid") or found.reason is not None:
        return found
    limit, error, away = numbers.limit, numbers.standard_error, found.statistic
    if limit is None or error is None or found.estimate is None or away is None:
        return found._replace(passed=None, p_value=None, log10_p_value=None, interval=None)
    good = metric.direction is Direction.INCREASE
    reach = limit * error
    interval = Interval(found.estimate - reach, None) if good else Interval(None, found.estimate + reach)
    passed = away >= limit if good else away <= -limit
    return found._replace(passed=passed, p_value=None, log10_p_value=None, interval=interval)
