"""Quantiles: one arm, two arms, and events clustered in units; winsorising.

The variance of a sample quantile is read off two neighbouring sample quantiles, without estimating a density;
where events are clustered in the randomised units it is inflated by the design effect.

Sources: Deng, Knoblich & Lu (2018), KDD; Yao, Li & Lu (2024) for clusters; David & Nagaraja (2003) for order
statistics; Hyndman & Fan (1996) for definitions.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.stats import special
from assay.stats.contrast import Array, Contrast, Ratio, contrast, nothing, welch_df
from assay.stats.effect import ArmInterval
from assay.stats.moments import Moments
from assay.stats.reasons import Reason
from assay.stats.tails import Interval, check_alpha, critical_value

Definition = Literal[
    "inverted_cdf",
    "averaged_inverted_cdf",
    "closest_observation",
    "interpolated_inverted_cdf",
    "hazen",
    "weibull",
    "linear",
    "median_unbiased",
    "normal_unbiased",
]


class QuantileArm(NamedTuple):
    """A sample quantile with its standard error.

    `events` observations, `units` independent units behind them.
    """

    q: float
    events: int
    units: int
    value: float | None
    standard_error: float | None
    reason: Reason | None = None


class Winsorised(NamedTuple):
    """Values with both tails pulled in to `low` and `high`."""

    values: Array
    low: float | None
    high: float | None


def quantile(values: npt.ArrayLike, q: float, *, method: Definition = "inverted_cdf") -> float:
    """Sample quantile; the default is the smallest value whose empirical distribution function reaches q."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), q, method=method))


def neighbours(q: float, events: int, *, alpha: float = 0.05) -> tuple[float, float] | None:
    """The two levels whose sample quantiles measure the noise around the one at q.

    They are q -+ z sqrt(q(1-q)/n); `None` for too few events.
    """
    _check_level(q)
    z = critical_value(None, alpha, "two-sided")
    if events <= z * z * max(q / (1.0 - q), (1.0 - q) / q):
        return None
    reach = z * math.sqrt(q * (1.0 - q) / events)
    return q - reach, q + reach


def quantile_arm(
    q: float,
    events: int,
    value: float,
    lower: float,
    upper: float,
    *,
    grid: int | None = None,
    clusters: Moments | None = None,
    alpha: float = 0.05,
) -> QuantileArm:
    """One arm from three sample quantiles: at q and at its two `neighbours`.

    `grid` is the sample size that the neighbours were computed for when they come from a coarser grid than
    `events` would give; the variance is then scaled by grid/events. `clusters` are the moments over units of
    ("below", "events"): a unit's number of events at or below the quantile, and its number of events.
    """
    check_alpha(alpha)
    units = clusters.count if clusters is not None else events
    if neighbours(q, grid or events, alpha=alpha) is None:
        return QuantileArm(q, events, units, value, None, Reason.QUANTILE_TOO_EXTREME)
    if not lower < upper:
        return QuantileArm(q, events, units, value, None, Reason.QUANTILE_TIES)
    z = critical_value(None, alpha, "two-sided")
    # The last factor is the one between the divisors n - 1 and n, as the reference implementations have it.
    variance = ((upper - lower) / (2.0 * z)) ** 2 * ((grid or events) / events) * ((events - 1) / events)
    if clusters is not None:
        ratio = contrast(clusters, clusters, Ratio("below", "events"))
        if ratio.reason or ratio.control_variance is None:
            return QuantileArm(q, events, units, value, None, ratio.reason)
        variance *= ratio.control_variance / (q * (1.0 - q) / events)
    return QuantileArm(q, events, units, value, math.sqrt(variance))


def quantile_of_values(
    values: npt.ArrayLike, q: float, *, units: npt.ArrayLike | None = None, alpha: float = 0.05
) -> QuantileArm:
    """One arm from event-level values; `units` labels which randomised unit each event belongs to."""
    data = np.asarray(values, dtype=np.float64)
    events = data.size
    levels = neighbours(q, events, alpha=alpha) if events else None
    if levels is None:
        found = quantile(data, q) if events else None
        reason = Reason.QUANTILE_TOO_EXTREME if events else Reason.NO_DATA
        return QuantileArm(q, events, events, found, None, reason)
    value, lower, upper = (quantile(data, level) for level in (q, *levels))
    clusters = None
    if units is not None:
        _, label = np.unique(np.asarray(units), return_inverse=True)
        clusters = Moments.from_arrays(
            {
                "below": np.bincount(label, weights=data <= value),
                "events": np.bincount(label).astype(np.float64),
            }
        )
    return quantile_arm(q, events, value, lower, upper, clusters=clusters, alpha=alpha)


def quantile_contrast(
    control: QuantileArm, treatment: QuantileArm, *, count: Literal["units", "events"] = "units"
) -> Contrast:
    """Difference of two quantiles as a contrast, for every test and interval of this package.

    Degrees of freedom count the independent units; other engines count the events.
    """
    n, m = control.units, treatment.units
    if count == "events":
        n, m = control.events, treatment.events
    reason = control.reason or treatment.reason
    if reason or control.standard_error is None or treatment.standard_error is None or control.value is None:
        gap = None if control.value is None or treatment.value is None else treatment.value - control.value
        reason = reason or Reason.INSUFFICIENT_DATA
        return Contrast(
            "quantile",
            n,
            m,
            control.value,
            gap,
            None,
            None,
            None,
            None,
            control.value,
            treatment.value,
            reason,
        )
    base, other = control.value, treatment.value or 0.0
    part_c, part_t = control.standard_error**2, treatment.standard_error**2
    df = welch_df(part_c, n - 1, part_t, m - 1)
    return Contrast("quantile", n, m, base, other - base, part_c + part_t, part_c, -part_c, df, base, other)


def stratified_quantiles(
    strata: Sequence[tuple[QuantileArm, QuantileArm]], weights: Sequence[float]
) -> Contrast:
    """Difference of two quantiles within strata, averaged with fixed weights (they need not sum to 1).

    Each pair is (control, treatment) of one stratum. The value of an arm is the average of its strata's
    quantiles, which is not the quantile of their union. Degrees of freedom by Satterthwaite over all cells.
    """
    if len(strata) != len(weights) or not strata or min(weights) <= 0.0:
        raise ValueError("each stratum needs a positive weight, and there must be one")
    parts = [quantile_contrast(control, treatment) for control, treatment in strata]
    if len(parts) == 1:
        return parts[0]
    n, m = sum(each.count_control for each in parts), sum(each.count_treatment for each in parts)
    shares = [weight / math.fsum(weights) for weight in weights]
    reason = next((each.reason for each in parts if each.reason), None)
    if reason:
        return nothing("quantile_stratified", n, m, reason)

    def averaged(values: Sequence[float | None], power: int = 1) -> float:
        return math.fsum(share**power * (value or 0.0) for share, value in zip(shares, values, strict=True))

    base = averaged([each.control for each in parts])
    estimate = averaged([each.estimate for each in parts])
    variance = averaged([each.variance for each in parts], 2)
    base_variance = averaged([each.control_variance for each in parts], 2)
    spread = math.fsum(
        ((share**2) * (each.variance or 0.0)) ** 2 / (each.df or 1.0)
        for share, each in zip(shares, parts, strict=True)
    )
    df = variance * variance / spread
    return Contrast(
        "quantile_stratified",
        n,
        m,
        base,
        estimate,
        variance,
        base_variance,
        -base_variance,
        df,
        base,
        base + estimate,
    )


def quantile_arm_interval(arm: QuantileArm, *, alpha: float = 0.05) -> ArmInterval:
    """Confidence interval for one arm's quantile, from its standard error (Student's t with units - 1)."""
    check_alpha(alpha)
    if arm.standard_error is None or arm.value is None or arm.units < 2:
        reason = arm.reason or Reason.INSUFFICIENT_DATA
        return ArmInterval("quantile", arm.units, arm.value, None, None, reason)
    reach = critical_value(arm.units - 1, alpha, "two-sided") * arm.standard_error
    around = Interval(arm.value - reach, arm.value + reach)
    return ArmInterval("quantile", arm.units, arm.value, arm.standard_error, around)


def quantile_interval(values: npt.ArrayLike, q: float, *, alpha: float = 0.05) -> ArmInterval:
    """Distribution-free interval for one quantile by order statistics of independent observations."""
    check_alpha(alpha)
    _check_level(q)
    data = np.sort(np.asarray(values, dtype=np.float64))
    n = data.size
    if n == 0:
        return ArmInterval("order_statistics", 0, None, None, None, Reason.NO_DATA)
    value = quantile(data, q)
    low = binomial_quantile(alpha / 2.0, n, q)
    high = binomial_quantile(1.0 - alpha / 2.0, n, q) + 1
    if low < 1 or high > n:
        return ArmInterval("order_statistics", n, value, None, None, Reason.QUANTILE_TOO_EXTREME)
    return ArmInterval(
        "order_statistics", n, value, None, Interval(float(data[low - 1]), float(data[high - 1]))
    )


def binomial_quantile(probability: float, n: int, p: float) -> int:
    """Smallest k with P(Binomial(n, p) <= k) >= probability."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        if float(special.bdtr(middle, n, p)) >= probability:
            high = middle
        else:
            low = middle
    return high


def _check_level(q: float) -> None:
    if not 0.0 < q < 1.0:
        raise ValueError(f"a quantile's level must lie strictly between 0 and 1, not {q!r}")


def pooled_cap(
    arms: Sequence[npt.ArrayLike],
    q: float,
    *,
    method: Definition = "inverted_cdf",
    positive_only: bool = False,
) -> float | None:
    """The q quantile of all arms' values together, to cap each of them at; `None` without any value.

    Pooling keeps the cap blind to the arms; `positive_only` takes the quantile over non-zero values.
    """
    data = np.concatenate([np.asarray(arm, dtype=np.float64) for arm in arms])
    if positive_only:
        data = data[data != 0.0]
    return quantile(data, q, method=method) if data.size else None


def cap(values: npt.ArrayLike, *, low: float | None = None, high: float | None = None) -> Winsorised:
    """Values limited to [low, high].

    The variance of what follows treats the limits as known (bias of order 1/n).
    """
    data = np.asarray(values, dtype=np.float64)
    return Winsorised(
        np.clip(data, low, high) if low is not None or high is not None else data.copy(), low, high
    )


def winsorise(values: npt.ArrayLike, low_share: float, high_share: float) -> Winsorised:
    """Replace the lowest and highest shares of values by the nearest value kept (counts are rounded down)."""
    if min(low_share, high_share) < 0.0 or low_share + high_share >= 1.0:
        raise ValueError(
            f"shares must not be negative and must leave something, got {low_share}, {high_share}"
        )
    data = np.asarray(values, dtype=np.float64)
    n = data.size
    if n == 0:
        return Winsorised(data.copy(), None, None)
    ranked = np.sort(data)
    # A share of 0.1 of 20 is 2, whatever 0.1 * 20 rounds to.
    below, above = int(low_share * n + 1e-9), int(high_share * n + 1e-9)
    return cap(
        data,
        low=float(ranked[below]) if below else None,
        high=float(ranked[n - above - 1]) if above else None,
    )
