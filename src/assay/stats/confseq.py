"""Confidence sequences for sums and for one rate: bounds that hold at all times, some of them without
asymptotics.

A bound is given at intrinsic time v, the accumulated variance of the sum; divide it by n for a mean. The
bounded-data bounds need no normal limit: gamma-exponential (empirical Bernstein) for bounded values,
beta-binomial for a yes/no rate.

Source: Howard, Ramdas, McAuliffe & Sekhon (2021), Annals of Statistics 49, propositions 5 to 10 and equation
10; Lindon, Ham, Tingley & Bojinov (2022) for the linear model.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from assay.stats import special
from assay.stats.moments import Moments
from assay.stats.proportions import Count
from assay.stats.reasons import Reason
from assay.stats.roots import find_root
from assay.stats.tails import Interval, check_alpha, log_normal_sf


class LinearModelEffect(NamedTuple):
    """Always-valid difference of two means under equal normal noise, at all times."""

    estimate: float | None
    statistic: float | None
    df: int
    log_e: float | None
    p_value: float | None
    interval: Interval | None
    reason: Reason | None = None


def mixture_rho(v_opt: float, alpha_opt: float = 0.05, *, one_sided: bool = False) -> float:
    """Scale of the mixing distribution that makes the bound tightest at intrinsic time `v_opt`."""
    check_alpha(alpha_opt)
    level = min(2.0 * alpha_opt, 0.999) if one_sided else alpha_opt
    spent = -2.0 * math.log(level)
    return v_opt / (spent + math.log1p(spent))


def normal_log_mixture(s: float, v: float, rho: float, *, one_sided: bool = False) -> float:
    """Natural logarithm of the e-value of a sum `s` at intrinsic time `v`."""
    log_e = 0.5 * math.log(rho / (v + rho)) + s * s / (2.0 * (v + rho))
    if one_sided:
        log_e += math.log(2.0) + log_normal_sf(-s / math.sqrt(v + rho))
    return log_e


def normal_bound(v: float, alpha: float, rho: float, *, one_sided: bool = False) -> float:
    """Bound on a sum that stays below it (two-sided: within it) at all times with probability 1 - alpha."""
    check_alpha(alpha)
    wide = math.sqrt((v + rho) * (math.log1p(v / rho) - 2.0 * math.log(alpha)))
    if not one_sided:
        return wide
    aim = -math.log(alpha)
    return find_root(lambda s: normal_log_mixture(s, v, rho, one_sided=True) - aim, 0.0, wide)


def gamma_exponential_log_mixture(s: float, v: float, rho: float, scale: float) -> float:
    """Log e-value for sub-exponential sums with scale c (values bounded by c above their mean)."""
    cc = scale * scale
    a, b = rho / cc, (v + rho) / cc
    at = (scale * s + v + rho) / cc
    start = a * math.log(a) - math.lgamma(a) - math.log(float(special.gammainc(a, a)))
    return start + math.lgamma(b) + math.log(float(special.gammainc(b, at))) - b * math.log(at) + at - a


def gamma_poisson_log_mixture(s: float, v: float, rho: float, scale: float) -> float:
    """Log e-value for sub-Poisson sums with scale c (jumps of at most c)."""
    cc = scale * scale
    a, at = rho / cc, (v + rho) / cc
    b = (v + rho + scale * s) / cc
    start = a * math.log(a) - math.lgamma(a) - math.log(float(special.gammaincc(a, a)))
    return start + math.lgamma(b) + math.log(float(special.gammaincc(b, at))) - b * math.log(at) + v / cc


def gamma_exponential_bound(v: float, alpha: float, rho: float, scale: float = 1.0) -> float:
    """Upper bound on a sub-exponential sum at all times."""
    return _climb(lambda s: gamma_exponential_log_mixture(s, v, rho, scale), v, alpha)


def gamma_poisson_bound(v: float, alpha: float, rho: float, scale: float = 1.0) -> float:
    """Upper bound on a sub-Poisson sum at all times."""
    return _climb(lambda s: gamma_poisson_log_mixture(s, v, rho, scale), v, alpha)


def stitched_bound(
    v: float, alpha: float, v_min: float, *, scale: float = 0.0, s: float = 1.4, eta: float = 2.0
) -> float:
    """Bound of the order of the iterated logarithm, stitched over epochs that grow by the factor `eta`."""
    check_alpha(alpha)
    v = max(v, v_min)
    epochs = math.log(eta * v / v_min)
    ell = s * math.log(epochs) + math.log(float(special.zeta(s)) / (alpha * math.log(eta) ** s))
    first = (eta**0.25 + eta**-0.25) / math.sqrt(2.0)
    second = (math.sqrt(eta) + 1.0) / 2.0 * scale * ell
    return math.sqrt(first * first * v * ell + second * second) + second


def bernoulli_interval(arm: Count, *, alpha: float = 0.05, t_opt: float = 100.0) -> Interval:
    """Exact confidence sequence for a yes/no rate by the beta-binomial mixture, tuned to `t_opt` units."""
    check_alpha(alpha)
    arm.check()
    n, x = arm
    if n == 0:
        return Interval(0.0, 1.0)
    aim = -math.log(alpha)

    def excess(p: float) -> float:
        return _bernoulli_log_mixture(n, x, p, alpha, t_opt) - aim

    # Closer to 0 or 1 the mixture's own parameters leave the range of doubles.
    edge = 1e-9
    rate = min(max(x / n, edge), 1.0 - edge)
    # A side stays open while no rate on it is excluded yet.
    low = find_root(excess, edge, rate) if x > 0 and excess(edge) > 0.0 > excess(rate) else 0.0
    high = find_root(excess, rate, 1.0 - edge) if x < n and excess(1.0 - edge) > 0.0 > excess(rate) else 1.0
    return Interval(low, high)


def _bernoulli_log_mixture(n: int, x: int, p: float, alpha: float, t_opt: float) -> float:
    variance = p * (1.0 - p)
    r = max(mixture_rho(t_opt * variance, alpha) - variance, 1e-3 * variance)
    a, b = r / (1.0 - p), r / p
    gain = float(special.betaln(a + x, b + n - x)) - float(special.betaln(a, b))
    return gain - x * math.log(p) - (n - x) * math.log1p(-p)


def _climb(log_mixture: Callable[[float], float], v: float, alpha: float) -> float:
    check_alpha(alpha)
    aim = -math.log(alpha)
    high = 2.0 * math.sqrt(v) + 1.0
    while log_mixture(high) < aim:
        high *= 2.0
    return find_root(lambda s: log_mixture(s) - aim, 0.0, high)


def linear_model(
    control: Moments,
    treatment: Moments,
    column: str | None = None,
    *,
    phi: float = 1.0,
    alpha: float = 0.05,
    df: int | None = None,
) -> LinearModelEffect:
    """Anytime-valid t test of two means with a common normal variance (exact, not asymptotic).

    The mixture over standardised effects has precision `phi` (in units of one observation). `df` replaces the
    degrees of freedom n - 2 of the evidence, for engines that count differently (savvi takes n - 3).
    """
    check_alpha(alpha)
    n, m = control.count, treatment.count
    own = n + m - 2
    df = own if df is None else df
    if min(n, m) < 1 or min(df, own) < 1:
        return LinearModelEffect(None, None, df, None, None, None, Reason.INSUFFICIENT_DATA)
    i = control.columns.index(column) if column else 0
    estimate = treatment.means[i] - control.means[i]
    residual = (control.comoments[i][i] + treatment.comoments[i][i]) / own
    if residual <= 0.0:
        return LinearModelEffect(estimate, None, df, None, None, None, Reason.ZERO_VARIANCE)
    # Squared length of the treatment indicator after the mean is taken out.
    length = n * m / (n + m)
    t = estimate / math.sqrt(residual / length)
    shrink = phi / (phi + length)
    log_e = 0.5 * math.log(shrink)
    log_e += 0.5 * (df + 1) * (math.log1p(t * t / df) - math.log1p(shrink * t * t / df))
    # The t at which the e-value is 1/alpha; without one the sequence is not bounded yet.
    turned = (shrink * alpha * alpha) ** (1.0 / (df + 1))
    interval = None
    if turned > shrink:
        reach = math.sqrt(df * (1.0 - turned) / (turned - shrink) * residual / length)
        interval = Interval(estimate - reach, estimate + reach)
    reason = None if interval else Reason.BURN_IN
    return LinearModelEffect(estimate, t, df, log_e, min(1.0, math.exp(-log_e)), interval, reason)
