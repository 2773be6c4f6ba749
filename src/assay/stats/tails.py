"""Tail areas and critical values: the normal, Student's t and chi-square distributions.

Every p-value in the package is made here, from a survival function and never from `1 - cdf`, together with
its decimal logarithm, which stays exact after the p-value itself has underflowed to 0.0 (below about 1e-308).
"""

import math
from typing import Literal, NamedTuple

from assay.stats import special

Alternative = Literal["two-sided", "greater", "less"]

_SQRT2 = math.sqrt(2.0)
_LN2 = math.log(2.0)
_LN10 = math.log(10.0)
# Builds a named tuple without the keyword machinery of its own constructor, half of what a scalar test would
# cost.
build = tuple.__new__
# Below this a double loses digits, then the value; the logarithm is then computed by itself.
_TINY = 1e-290


class Interval(NamedTuple):
    """A confidence or credible set that is an interval; `None` marks a side that is unbounded on purpose."""

    low: float | None
    high: float | None

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside, ends included."""
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


class Tail(NamedTuple):
    """A tail area: `p` (0.0 after underflow) and its decimal logarithm (always finite)."""

    p: float
    log10_p: float


def check_alpha(alpha: float) -> None:
    """Raise `ValueError` unless `alpha` is a probability strictly between 0 and 1."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha!r}")


def normal_sf(z: float) -> float:
    """P(Z > z) for a standard normal Z."""
    return 0.5 * math.erfc(z / _SQRT2)


def normal_pdf(z: float) -> float:
    """Density of the standard normal."""
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def normal_quantile(probability: float) -> float:
    """The z with P(Z <= z) = probability."""
    return float(special.scalar_ndtri(probability))


def log_normal_sf(z: float) -> float:
    """Natural logarithm of P(Z > z), exact in the far tail."""
    return float(special.log_ndtr(-z))


def student_sf(df: float, t: float) -> float:
    """P(T > t) for Student's t with `df` degrees of freedom."""
    return float(special.scalar_stdtr(float(df), -t))


def critical_value(df: float | None, alpha: float, alternative: Alternative) -> float:
    """The quantile that a statistic must exceed at level `alpha`; `df=None` means the normal distribution."""
    tail = alpha / 2.0 if alternative == "two-sided" else alpha
    if df is None:
        return -float(special.scalar_ndtri(tail))
    return -float(special.scalar_stdtrit(float(df), tail))


def tail_area(statistic: float, df: float | None, alternative: Alternative) -> Tail:
    """p-value of a z (`df=None`) or t statistic.

    One-sided "greater" is P(T > statistic), "less" is P(T < statistic), two-sided twice the smaller of them.
    """
    double = alternative == "two-sided"
    toward = -statistic if alternative == "less" else statistic
    upper = abs(statistic) if double else toward
    one = normal_sf(upper) if df is None else special.scalar_stdtr(float(df), -upper)
    if one > _TINY:
        p = 2.0 * one if double else one
        return build(Tail, (p, math.log10(p)) if p < 1.0 else (1.0, 0.0))
    log_one = log_normal_sf(upper) if df is None else log_student_sf(df, upper)
    log10_p = (log_one + (_LN2 if double else 0.0)) / _LN10
    return Tail(10.0**log10_p if log10_p > -307.0 else 0.0, log10_p)


def log_student_sf(df: float, t: float) -> float:
    """Natural logarithm of P(T > t) for t > 0, by the continued fraction of the incomplete beta function.

    P(T > t) = I_x(df/2, 1/2) / 2 with x = df / (df + t^2). Source: Abramowitz & Stegun 26.5.8 and 26.7.1.
    """
    a, b = df / 2.0, 0.5
    x = df / (df + t * t)
    log_x = -math.log1p(t * t / df)
    log_1mx = 2.0 * math.log(t) - math.log(df + t * t)
    front = a * log_x + b * log_1mx - math.log(a) - float(special.betaln(a, b))
    return front - math.log(_beta_fraction(a, b, x)) - _LN2


def _beta_fraction(a: float, b: float, x: float) -> float:
    # Evaluated from the bottom up with a length that has always converged for x < a / (a + b): the terms
    # behave like a geometric series, and 2,000 of them cost a millisecond in a case that is rare by
    # construction.
    value = 1.0
    for step in range(2000, 0, -1):
        half, odd = divmod(step, 2)
        if odd:
            d = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            d = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        value = 1.0 + d / value
    return value


def chi_square_tail(statistic: float, df: int) -> Tail:
    """P(X > statistic) for a chi-square X with `df` degrees of freedom, with its logarithm."""
    p = float(special.chdtrc(df, statistic))
    if p > _TINY:
        return Tail(p, math.log10(p))
    # Upper incomplete gamma by its continued fraction (Abramowitz & Stegun 6.5.31), bottom up: statistic is >
    # 1000 here.
    a, x = df / 2.0, statistic / 2.0
    value = x
    for step in range(200, 0, -1):
        value = x + (step - a) / (1.0 + step / value)
    log_p = a * math.log(x) - x - math.lgamma(a) - math.log(value)
    log10_p = log_p / _LN10
    return Tail(10.0**log10_p if log10_p > -307.0 else 0.0, log10_p)
