"""Non-inferiority and equivalence: is the treatment good enough, or the same?

Sources: Schuirmann (1987) for two one-sided tests; Farrington & Manning (1990) for proportions; the relative
margin is Fieller's linear hypothesis m_T - (1 - margin) m_C, with the baseline's noise counted.
"""

import math
from typing import Literal, NamedTuple

from assay.stats.contrast import Contrast
from assay.stats.effect import Reference
from assay.stats.proportions import Count, ScoreMethod, score_statistic
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, Interval, check_alpha, critical_value, tail_area

Direction = Literal["increase", "decrease"]


class NonInferiority(NamedTuple):
    """Test that the treatment is not worse than the control by more than a margin.

    `null` is the difference at the margin, in the metric's unit (estimated when the margin is relative);
    `interval` is one-sided, on the side where harm lies, for the difference; `passed` is the verdict at
    `alpha`.
    """

    method: str
    direction: Direction
    margin: float
    relative: bool
    alpha: float
    estimate: float | None
    null: float | None
    statistic: float | None
    p_value: float | None
    log10_p_value: float | None
    interval: Interval | None
    passed: bool | None
    reason: Reason | None = None


class Equivalence(NamedTuple):
    """Two one-sided tests; `interval` (level 1 - 2 alpha) lies inside the margins exactly when `passed`."""

    method: str
    margins: Interval
    alpha: float
    estimate: float | None
    p_lower: float | None
    p_upper: float | None
    p_value: float | None
    interval: Interval | None
    passed: bool | None
    reason: Reason | None = None


def non_inferiority(
    given: Contrast,
    margin: float,
    *,
    relative: bool = False,
    direction: Direction = "increase",
    alpha: float = 0.05,
    reference: Reference = "t",
) -> NonInferiority:
    """Test that the treatment is not worse than the control by more than `margin`.

    `direction` says which way the metric is good, `margin` >= 0 is the harm accepted. With `relative=True`
    the margin is a fraction of the control mean, and that mean's own noise enters the test.
    """
    check_alpha(alpha)
    if margin < 0.0:
        raise ValueError(f"a margin is not negative, got {margin}")
    name = f"{given.method}_non_inferiority"
    estimate, variance, base = given.estimate, given.variance, given.control
    if given.reason or estimate is None or not variance or base is None:
        reason = given.reason or Reason.ZERO_VARIANCE
        return NonInferiority(
            name, direction, margin, relative, alpha, estimate, None, None, None, None, None, None, reason
        )
    sign = 1.0 if direction == "increase" else -1.0
    # Under the null: estimate + sign * margin * |control| = 0 (relative) or estimate + sign * margin = 0.
    weight = sign * margin * math.copysign(1.0, base) if relative else 0.0
    null = -weight * base if relative else -sign * margin
    spread = variance
    if relative:
        spread += 2.0 * weight * (given.covariance or 0.0) + weight * weight * (given.control_variance or 0.0)
    df = given.df if reference == "t" else None
    side: Alternative = "greater" if direction == "increase" else "less"
    statistic = (estimate - null) / math.sqrt(spread)
    tail = tail_area(statistic, df, side)
    reach = critical_value(df, alpha, side) * math.sqrt(variance)
    interval = Interval(estimate - reach, None) if sign > 0 else Interval(None, estimate + reach)
    return NonInferiority(
        name,
        direction,
        margin,
        relative,
        alpha,
        estimate,
        null,
        statistic,
        tail.p,
        tail.log10_p,
        interval,
        tail.p <= alpha,
    )


def equivalence(
    given: Contrast, low: float, high: float, *, alpha: float = 0.05, reference: Reference = "t"
) -> Equivalence:
    """Test that the difference lies between `low` and `high`, in the metric's unit."""
    check_alpha(alpha)
    if not low < high:
        raise ValueError(f"the lower margin must be below the upper one, got {low} and {high}")
    name, margins = f"{given.method}_equivalence", Interval(low, high)
    estimate, variance = given.estimate, given.variance
    if given.reason or estimate is None or not variance:
        reason = given.reason or Reason.ZERO_VARIANCE
        return Equivalence(name, margins, alpha, estimate, None, None, None, None, None, reason)
    df = given.df if reference == "t" else None
    error = math.sqrt(variance)
    p_lower = tail_area((estimate - low) / error, df, "greater").p
    p_upper = tail_area((estimate - high) / error, df, "less").p
    reach = critical_value(df, alpha, "greater") * error
    p_value = max(p_lower, p_upper)
    return Equivalence(
        name,
        margins,
        alpha,
        estimate,
        p_lower,
        p_upper,
        p_value,
        Interval(estimate - reach, estimate + reach),
        p_value <= alpha,
    )


def score_non_inferiority(
    control: Count,
    treatment: Count,
    margin: float,
    *,
    direction: Direction = "increase",
    alpha: float = 0.05,
    method: ScoreMethod = "score_uncorrected",
) -> NonInferiority:
    """Farrington & Manning's test for two proportions, which holds at small counts; absolute margin.

    `method="score"` applies Miettinen & Nurminen's factor N/(N-1) to the variance.
    """
    check_alpha(alpha)
    control.check()
    treatment.check()
    name = "proportion_non_inferiority"
    if not control.units or not treatment.units:
        empty = (None,) * 6
        return NonInferiority(name, direction, margin, False, alpha, *empty, None, Reason.INSUFFICIENT_DATA)
    null = -margin if direction == "increase" else margin
    statistic = score_statistic(control, treatment, null, method=method)
    estimate = treatment.rate - control.rate
    if not math.isfinite(statistic):
        return NonInferiority(
            name,
            direction,
            margin,
            False,
            alpha,
            estimate,
            null,
            None,
            None,
            None,
            None,
            None,
            Reason.ZERO_VARIANCE,
        )
    tail = tail_area(statistic, None, "greater" if direction == "increase" else "less")
    return NonInferiority(
        name,
        direction,
        margin,
        False,
        alpha,
        estimate,
        null,
        statistic,
        tail.p,
        tail.log10_p,
        None,
        tail.p <= alpha,
    )
