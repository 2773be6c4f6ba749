"""What the views share: texts for times and intervals, and the test that the compatible shapes name."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from assay.reports.arms import Tally
from assay.reports.decision import ranked
from assay.reports.report import Comparison, Report, Why
from assay.reports.spec import ExperimentSpec, VariantSpec
from assay.stats import Interval, Reason, difference_interval, one_proportion
from assay.stats.tails import critical_value

Document = dict[str, Any]


class RateVerdict(NamedTuple):
    """A comparison of two shares as the compatible shapes state it.

    The test is the pooled two-proportion z test and the interval the unpooled one. Where an arm has nobody or
    everybody converted the unpooled interval is meaningless and Newcombe's stands in; where the split changed
    during the experiment, test and interval are post-stratified. The names of both say which it was.
    """

    comparison: Comparison
    statistic: float | None
    p_value: float | None
    significant: bool
    difference: float | None
    lift: float | None
    interval: Interval | None
    method: str
    interval_method: str
    reason: Reason | Why | None


def conventional(
    comparison: Comparison, alpha: float, interval_alpha: float, blank: Why | None = None
) -> RateVerdict:
    """The conventional statement about a comparison of shares, at the level `alpha`.

    `blank` says why there was nothing to count, if so: that is then why there is no test.
    """
    effect = comparison.effect
    control, treatment = comparison.control_tally.count, comparison.treatment_tally.count
    stratified = comparison.strata > 1
    interval, how = None, "unpooled"
    if stratified and effect.standard_error and effect.estimate is not None:
        reach = critical_value(effect.df, interval_alpha, "two-sided") * effect.standard_error
        interval, how = Interval(effect.estimate - reach, effect.estimate + reach), "post_stratified"
    elif not stratified and min(control.units, treatment.units) >= 2:
        plain = all(0 < arm.successes < arm.units for arm in (control, treatment))
        interval = difference_interval(
            control, treatment, alpha=interval_alpha, method="wald" if plain else "newcombe"
        )
        how = "unpooled" if plain else "newcombe"
    p = effect.p_value
    return RateVerdict(
        comparison,
        effect.statistic,
        p,
        p is not None and p <= alpha,
        effect.estimate,
        effect.lift.value,
        interval,
        "post_stratified_t" if stratified else "pooled_two_proportion_z",
        how,
        blank
        if blank is not None and effect.reason is Reason.ZERO_VARIANCE
        else effect.reason or effect.lift.reason,
    )


def rate_verdicts(report: Report, alpha: float, interval_alpha: float) -> tuple[RateVerdict, ...]:
    """Every treatment's conversion rate against the control's."""
    blank = report.blank(report.conversion)
    return tuple(conventional(each, alpha, interval_alpha, blank) for each in report.conversion.comparisons)


def winner(report: Report, found: Sequence[RateVerdict]) -> VariantSpec | None:
    """The arm that the tests declare best: a better treatment, or the control where all others are worse.

    A treatment that is off does not win. Where the decision ships one of the better treatments, it is that
    one: the decision is as strict, and looks at guardrails besides.
    """
    ahead = ranked(
        (each.comparison for each in found if each.significant), report.conversion.metric.direction
    )
    better = [each.treatment for each in ahead if each.treatment.is_on]
    if better:
        return report.decision.winner if report.decision.winner in better else better[0]
    if found and not ahead and all(each.significant for each in found):
        return found[0].comparison.control
    return None


def rate_interval(tally: Tally, alpha: float) -> tuple[Interval | None, str]:
    """Interval of one arm's rate and its name: the unpooled one, or Wilson's at 0 and 100 %."""
    plain = 0 < tally.converters < tally.units
    found = one_proportion(tally.count, alpha=alpha, method="wald" if plain else "wilson")
    return found.interval, "unpooled" if plain else "wilson"


def rate(tally: Tally) -> float:
    """Converters of units; zero where nobody is."""
    return tally.converters / tally.units if tally.units else 0.0


def value_of_converters(tally: Tally) -> tuple[float | None, float | None]:
    """Mean and standard deviation of what one converter's events were worth, in total.

    The units without an event are zeros in the moments, so the converters' spread is what is left when that
    group is taken out of the sum of squares. Where no event carries a value, each counts as 1; where some do,
    one without adds nothing to what its converter was worth.
    """
    k, n = tally.converters, tally.units
    if not k:
        return None, None
    valued = tally.total != 0.0 or bool(tally.moments.variance("total"))
    column = "total" if valued else "events"
    mean = (tally.total if valued else tally.events) / k
    if k < 2:
        return mean, None
    whole = (tally.moments.variance(column) or 0.0) * (n - 1)
    between = mean * mean * k * (n - k) / n
    left = whole - between
    # What rounding alone can leave of two equal numbers is no spread.
    return mean, math.sqrt(left / (k - 1)) if left > 1e-12 * (whole + between) else 0.0


def names(variants: Sequence[VariantSpec]) -> Mapping[int, str]:
    """A label for each arm: its name, or its key where several share the name."""
    every = [variant.name for variant in variants]
    return {
        variant.id: variant.name if every.count(variant.name) == 1 else variant.key for variant in variants
    }


def reason_of(report: Report, found: Sequence[RateVerdict]) -> str | None:
    """Why there is no statistic at all, as a stable word."""
    if report.missing is not None:
        return str(report.missing)
    if found and all(each.p_value is None for each in found):
        return str(found[0].reason)
    return None


def note(report: Report, comparison: Comparison) -> str | None:
    """What a reader of the plain rates must know: where they are not what was compared."""
    said = []
    if comparison.strata > 1:
        days = ", ".join(moment.date().isoformat() for moment in _changes(report.spec, comparison))
        said.append(
            f"The split changed{f' on {days}' if days else ''}: the arms are compared within "
            f"{comparison.strata} stretches of equal split, so that the difference is not that of the "
            "overall rates."
        )
    if comparison.left_out:
        said.append(
            f"{comparison.left_out:,} units came while one of the two arms was closed and are not compared."
        )
    return " ".join(said) or None


def _changes(spec: ExperimentSpec, comparison: Comparison) -> list[datetime]:
    """When the split between the two arms changed."""
    places = spec.variants.index(comparison.control), spec.variants.index(comparison.treatment)
    found, before = [], None
    for phase in spec.phases:
        weights = spec.weights(phase.number)
        own, other = (weights[place] for place in places)
        split = round(other / (own + other), 9) if own + other else 0.0
        if before is not None and split != before:
            found.append(phase.started_at)
        before = split
    return found


def iso(moment: datetime) -> str:
    """`2026-11-21T07:49:53.123456Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def iso_or_none(moment: datetime | None) -> str | None:
    """The same for a moment that may be missing."""
    return None if moment is None else iso(moment)


def percent(share: float) -> float:
    """A share in percent, not rounded."""
    return share * 100.0


def share_percent(allocation: float) -> float:
    """An allocation in percent as somebody would write it, free of the digits that multiplying adds."""
    return round(allocation * 100.0, 9)


def percent_or_none(share: float | None) -> float | None:
    """The same for a share that may be missing."""
    return None if share is None else percent(share)


def ends(interval: Interval | None) -> Document | None:
    """An interval as an object."""
    return None if interval is None else {"low": interval.low, "high": interval.high}
