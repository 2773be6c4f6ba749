"""Group-sequential verdicts: a look, its limit, a repeated interval, and a p-value at the stop.

Sources: Lan & DeMets (1983) for the limits; Jennison & Turnbull (1989), JRSS B 51, for repeated confidence
intervals; Tsiatis, Rosner & Mehta (1984), Biometrics 40, for the stage-wise ordering; Liu & Anderson (2008),
JASA 103, for the sequential p-value.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from assay.stats.boundaries import Boundaries, Spending, boundaries, crossing
from assay.stats.contrast import Contrast
from assay.stats.effect import Lift, LiftMethod, relative
from assay.stats.reasons import Reason
from assay.stats.roots import find_root
from assay.stats.tails import Alternative, Interval


class StopEstimate(NamedTuple):
    """Inference after a stop that accounts for the chance to have stopped earlier.

    `estimate` is median-unbiased and `interval` has exact coverage, both under the stage-wise ordering:
    stopping earlier is more extreme than stopping later. The naive estimate at a stop is too large (winner's
    curse).
    """

    estimate: float
    interval: Interval


class GroupSequentialEffect(NamedTuple):
    """A look of a group-sequential test.

    `look` counts from 1; `limit` is the limit for z, `crossed` whether it was reached (sided as the
    alternative), and `spent` the error used up so far. `interval` is the repeated confidence interval, valid
    at this and all other looks at once, and `lift` is Fieller's set at the same limit. `p_value` is the
    stage-wise p-value; it exists once the experiment has stopped: at a crossing, or at the last look.
    """

    method: str
    alternative: Alternative
    alpha: float
    count_control: int
    count_treatment: int
    control: float | None
    treatment: float | None
    estimate: float | None
    standard_error: float | None
    z: float | None
    look: int
    fraction: float
    limit: float | None
    crossed: bool | None
    last: bool
    spent: float
    p_value: float | None
    interval: Interval | None
    lift: Lift
    reason: Reason | None = None


def information_fraction(count: int, planned: int) -> float:
    """Share of the planned information reached: units now over units planned, both arms together."""
    if planned < 1:
        raise ValueError(f"the planned number of units must be positive, got {planned}")
    return count / planned


def group_sequential(
    given: Contrast,
    fractions: Sequence[float],
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    spending: Spending = "obrien_fleming",
    power: float = 1.0,
    final: bool = False,
    lift: LiftMethod = "fieller",
) -> GroupSequentialEffect:
    """The verdict of the current look.

    `fractions` are the information fractions of all looks so far, the current one last; `final=True` spends
    what is left of alpha now, although the fraction is below 1. The verdict assumes that no earlier look
    crossed.
    """
    sides: Literal[1, 2] = 2 if alternative == "two-sided" else 1
    plan = boundaries(fractions, alpha=alpha, sides=sides, spending=spending, power=power, final=final)
    limit, last = plan.z[-1], final or fractions[-1] >= 1.0
    estimate, variance = given.estimate, given.variance
    reason = given.reason
    if reason is None and (estimate is None or not variance):
        reason = Reason.ZERO_VARIANCE
    if reason is None and limit is None:
        reason = Reason.NOT_A_LOOK
    if reason is not None or estimate is None or not variance or limit is None:
        ratio = given.ratio
        return _result(
            given, plan, alternative, last, lift=Lift(lift, ratio, None, None, None, reason), reason=reason
        )
    error = math.sqrt(variance)
    z = estimate / error
    toward = _toward(z, alternative)
    p_value = stagewise_p(plan, z, alternative) if toward >= limit or last else None
    reach = limit * error
    interval = Interval(
        None if alternative == "less" else estimate - reach,
        None if alternative == "greater" else estimate + reach,
    )
    return _result(
        given,
        plan,
        alternative,
        last,
        z=z,
        crossed=toward >= limit,
        p_value=p_value,
        interval=interval,
        lift=relative(given, limit, alternative, lift),
    )


def _result(
    given: Contrast,
    plan: Boundaries,
    alternative: Alternative,
    last: bool,
    *,
    lift: Lift,
    z: float | None = None,
    crossed: bool | None = None,
    p_value: float | None = None,
    interval: Interval | None = None,
    reason: Reason | None = None,
) -> GroupSequentialEffect:
    return GroupSequentialEffect(
        f"group_sequential_{plan.spending}",
        alternative,
        plan.alpha,
        given.count_control,
        given.count_treatment,
        given.control_shown,
        given.treatment_shown,
        given.estimate,
        given.standard_error,
        z,
        len(plan.z),
        plan.fractions[-1],
        plan.z[-1],
        crossed,
        last,
        plan.spent[-1],
        p_value,
        interval,
        lift,
        reason,
    )


def _toward(z: float, alternative: Alternative) -> float:
    return abs(z) if alternative == "two-sided" else (z if alternative == "greater" else -z)


def stagewise_p(
    plan: Boundaries, z: float, alternative: Alternative = "two-sided", *, drift: float = 0.0
) -> float:
    """Chance under the null of a result at least as extreme as stopping now with `z`, stage-wise.

    Stopping at an earlier look counts as more extreme than any value at this one. Two-sided: twice the
    smaller side.
    """
    toward = _toward(z, alternative)
    limits = [*plan.z[:-1], toward]
    # A value below zero at the last look of a one-sided test is legal; the walk needs no limit there.
    one = math.fsum(crossing(plan.fractions, limits, drift=drift, sides=plan.sides).upper)
    return min(1.0, one * plan.sides)


def adjusted_at_stop(
    given: Contrast, plan: Boundaries, *, alternative: Alternative = "two-sided"
) -> StopEstimate | Reason:
    """Median-unbiased estimate and stage-wise confidence interval at a group-sequential stop.

    `plan` holds the limits of all looks up to the stop. The interval has level 1 - alpha (two-sided).
    """
    if given.reason is not None or given.estimate is None or not given.variance:
        return given.reason or Reason.ZERO_VARIANCE
    error = math.sqrt(given.variance)
    z = given.estimate / error
    sign = -1.0 if (z < 0.0 if alternative == "two-sided" else alternative == "less") else 1.0
    time = plan.fractions[-1]

    def above(effect: float) -> float:
        # Probability of a more extreme result on the observed side, when z at fraction 1 has this mean.
        limits = [*plan.z[:-1], abs(z) if alternative == "two-sided" else sign * z]
        return math.fsum(crossing(plan.fractions, limits, drift=effect, sides=plan.sides).upper)

    def solve(probability: float) -> float:
        low, high = -2.0, abs(z) / math.sqrt(time) + 2.0
        while above(low) > probability:
            low -= 2.0 + abs(low)
        while above(high) < probability:
            high += 2.0 + abs(high)
        return find_root(lambda at: above(at) - probability, low, high, tolerance=1e-10)

    # A drift d means an effect of d * error * sqrt(time): the error at fraction 1 is error * sqrt(time).
    unit = sign * error * math.sqrt(time)
    tail = plan.alpha / 2.0
    ends = sorted((solve(tail) * unit, solve(1.0 - tail) * unit))
    return StopEstimate(solve(0.5) * unit, Interval(ends[0], ends[1]))


def sequential_p_value(
    z: Sequence[float],
    fractions: Sequence[float],
    *,
    alternative: Alternative = "two-sided",
    spending: Spending = "obrien_fleming",
    power: float = 1.0,
) -> float:
    """Smallest alpha at which the looks so far would have stopped the experiment; valid at every look.

    `z` and `fractions` list all looks. It is below alpha exactly when some look crossed its limit at that
    alpha.
    """
    sides: Literal[1, 2] = 2 if alternative == "two-sided" else 1
    toward = [_toward(each, alternative) for each in z]

    def margin(log_alpha: float) -> float:
        plan = boundaries(fractions, alpha=math.exp(log_alpha), sides=sides, spending=spending, power=power)
        return max(value - limit for value, limit in zip(toward, plan.z, strict=True) if limit is not None)

    low, high = math.log(1e-12), math.log(0.999)
    if margin(high) < 0.0:
        return 1.0
    if margin(low) >= 0.0:
        return math.exp(low)
    return math.exp(find_root(margin, low, high, tolerance=1e-9))
