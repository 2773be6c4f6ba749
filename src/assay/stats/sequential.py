"""Always-valid inference: p-values and intervals that hold at every look, without a planned end.

One mixture serves all names. With k = tau^2 / Var(estimate) the likelihood ratio of N(0, tau^2) effects
against none is e = (k+1)^(-1/2) exp(z^2 k / (2(k+1))), and p = min(1, 1/e). Tied to the sample size by k = N
rho^2 this is the asymptotic confidence sequence; tied to a fixed tau^2 it is the mixture sequential
probability ratio test.

Sources: Robbins (1970); Howard, Ramdas, McAuliffe & Sekhon (2021), Annals of Statistics 49; Waudby-Smith,
Arbour, Sinha, Kennedy & Ramdas (2024), Annals of Statistics 52, equations 9, 134, 155, 161; Johari, Koomen,
Pekelis & Walsh (2022), Operations Research 70; Bibaut, Kallus & Lindon (2022) for the burn-in.
"""

import math
from typing import NamedTuple

from assay.stats.contrast import Contrast
from assay.stats.effect import Lift, LiftMethod, relative
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, Interval, check_alpha, log_normal_sf

_LN10 = math.log(10.0)
# Effective events (squared mean over its variance) each arm needs before the asymptotics can be trusted.
BURN_IN = 25.0


class Mixture(NamedTuple):
    """The mixture at one look.

    `critical` is the half-width in standard errors, `log_e` the natural logarithm of the e-value; `k` is the
    ratio of the mixing variance to the variance of the estimate.
    """

    k: float
    critical: float
    z: float
    log_e: float
    p_value: float
    log10_p_value: float
    interval: Interval


class SequentialEffect(NamedTuple):
    """An always-valid effect.

    `p_value` and `interval` hold simultaneously at all looks; the p-value is the running minimum when
    `previous_p` was given. `lift` is Fieller's set at the same critical value. Before the burn-in is over
    there is no verdict: the estimate is there, `p_value` and the intervals are not.
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
    critical: float | None
    log_e: float | None
    p_value: float | None
    log10_p_value: float | None
    interval: Interval | None
    lift: Lift
    reason: Reason | None = None

    @property
    def significant(self) -> bool | None:
        """Whether the null is rejected at `alpha`; `None` while there is no verdict."""
        return None if self.p_value is None else self.p_value <= self.alpha


def tuned_rho2(planned: float, alpha: float, alternative: Alternative = "two-sided") -> float:
    """The rho^2 that makes the sequence narrowest when both arms together hold about `planned` units."""
    check_alpha(alpha)
    if planned <= 0.0:
        raise ValueError(f"the planned number of units must be positive, got {planned}")
    level = alpha if alternative == "two-sided" else min(2.0 * alpha, 0.999)
    return (-2.0 * math.log(level) + math.log1p(-2.0 * math.log(level))) / planned


def multiplier(k: float, alpha: float, alternative: Alternative = "two-sided") -> float:
    """Half-width of the confidence sequence in standard errors, for k = N rho^2 (or tau^2 / variance)."""
    if alternative == "two-sided":
        inside = 0.5 * math.log1p(k) - math.log(alpha)
    else:
        inside = math.log1p(math.sqrt(k + 1.0) / (2.0 * alpha))
    return math.sqrt(2.0 * (k + 1.0) / k * inside)


def mixture(
    estimate: float,
    standard_error: float,
    k: float,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Mixture:
    """Evidence and interval of the normal mixture for one estimate; `k` as in `multiplier`.

    One-sided p-values never exceed 1/2: the closed form is for estimates on the side of the alternative.
    """
    check_alpha(alpha)
    z = estimate / standard_error
    growth = z * z * k / (2.0 * (k + 1.0))
    if alternative == "two-sided":
        log_e = growth - 0.5 * math.log1p(k)
        log_p = min(0.0, -log_e)
    else:
        toward = z if alternative == "greater" else -z
        if toward > 0.0 and growth > 0.0:
            # log(expm1(x)) without overflow: x + log(1 - e^-x).
            log_expm1 = growth + math.log(-math.expm1(-growth))
            log_p = min(math.log(0.5), 0.5 * math.log1p(k) - math.log(2.0) - log_expm1)
        else:
            log_p = math.log(0.5)
        # Mixture over effects of the alternative's sign only (half-normal).
        log_e = growth - 0.5 * math.log1p(k) + math.log(2.0)
        log_e += log_normal_sf(-toward * math.sqrt(k / (k + 1.0)))
    critical = multiplier(k, alpha, alternative)
    reach = critical * standard_error
    interval = Interval(
        None if alternative == "less" else estimate - reach,
        None if alternative == "greater" else estimate + reach,
    )
    p_value = math.exp(log_p) if log_p > -700.0 else 0.0
    return Mixture(k, critical, z, log_e, p_value, log_p / _LN10, interval)


def always_valid(
    given: Contrast,
    *,
    planned: float | None = None,
    tau: float | None = None,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    lift: LiftMethod = "fieller",
    burn_in: float = BURN_IN,
    previous_p: float = 1.0,
) -> SequentialEffect:
    """Always-valid test of a contrast, tuned by the plan.

    Give either `planned`, the number of units of both arms at which the result is expected (asymptotic
    confidence sequence), or `tau`, the standard deviation of plausible effects in the metric's unit (mixture
    SPRT). `burn_in` is the number of effective events, mean^2 / Var(mean), that each arm needs before there
    is a verdict; set it to 0 for metrics whose mean may be near zero by nature. `previous_p` carries the
    running minimum from look to look.
    """
    if (planned is None) == (tau is None):
        raise ValueError("give either planned or tau")
    name = "asymptotic_confidence_sequence" if tau is None else "mixture_sprt"
    estimate, variance, base = given.estimate, given.variance, given.control
    if given.reason or estimate is None or not variance or base is None:
        return _silent(name, given, alpha, alternative, given.reason or Reason.ZERO_VARIANCE)
    other = base + estimate
    other_variance = variance + 2.0 * (given.covariance or 0.0) + (given.control_variance or 0.0)
    if base * base <= burn_in * (given.control_variance or 0.0) or other * other <= burn_in * other_variance:
        return _silent(name, given, alpha, alternative, Reason.BURN_IN)
    if tau is not None:
        k = tau * tau / variance
    else:
        k = given.units * tuned_rho2(planned or 0.0, alpha, alternative)
    error = math.sqrt(variance)
    found = mixture(estimate, error, k, alpha=alpha, alternative=alternative)
    p_value, log10_p = found.p_value, found.log10_p_value
    if previous_p < p_value:
        p_value, log10_p = previous_p, math.log10(previous_p) if previous_p > 0.0 else log10_p
    return SequentialEffect(
        name,
        alternative,
        alpha,
        given.count_control,
        given.count_treatment,
        given.control_shown,
        given.treatment_shown,
        estimate,
        error,
        found.critical,
        found.log_e,
        p_value,
        log10_p,
        found.interval,
        relative(given, found.critical, alternative, lift),
    )


def _silent(
    name: str, given: Contrast, alpha: float, alternative: Alternative, reason: Reason
) -> SequentialEffect:
    ratio = given.ratio
    return SequentialEffect(
        name,
        alternative,
        alpha,
        given.count_control,
        given.count_treatment,
        given.control_shown,
        given.treatment_shown,
        given.estimate,
        given.standard_error,
        None,
        None,
        None,
        None,
        None,
        Lift("fieller", ratio, None, None, None, reason),
        reason,
    )
