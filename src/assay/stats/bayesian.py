"""Bayesian summaries: chance to win, expected loss, credible interval.

A 95 % chance to win is a statement about one look under one prior; used as a stopping rule at daily looks it
calls 45 % of experiments without effect (measured: see the documentation). For error rates under peeking use
a sequential method.

Sources: Gelman et al. (2013), Bayesian Data Analysis, for conjugate posteriors; Miller (2015) and Stucchio
(2015) for the quantities; Kruschke & Liddell (2018) for their use.
"""

import math
from typing import Literal, NamedTuple

from assay.stats import special
from assay.stats.contrast import Contrast
from assay.stats.effect import relative
from assay.stats.posterior import Beta, Gamma, chance_above, expected_excess
from assay.stats.proportions import Count
from assay.stats.reasons import Reason
from assay.stats.tails import Interval, check_alpha, normal_pdf, normal_quantile, normal_sf

_MOST_UNITS = 10**12


class Prior(NamedTuple):
    """Normal prior on the relative effect (a fraction): `mean` and `sd`."""

    mean: float = 0.0
    sd: float = 0.3


DEFAULT_PRIOR = Prior()


class NormalPosterior(NamedTuple):
    """Posterior of the effect.

    `chance_to_win` is the probability that the treatment is better; `loss_treatment` what shipping it is
    expected to cost, `loss_control` what keeping the control is expected to cost, in the unit of the effect.
    """

    scale: Literal["absolute", "relative"]
    prior: Prior | None
    level: float
    mean: float | None
    sd: float | None
    chance_to_win: float | None
    loss_treatment: float | None
    loss_control: float | None
    interval: Interval | None
    reason: Reason | None = None


class ArmsPosterior(NamedTuple):
    """Exact comparison of two arms' posteriors; losses are in the unit of the rate."""

    method: str
    level: float
    chance_to_win: float
    loss_treatment: float
    loss_control: float
    control_mean: float
    treatment_mean: float
    control_interval: Interval
    treatment_interval: Interval


def normal_losses(mean: float, sd: float) -> tuple[float, float]:
    """E[max(-D, 0)] and E[max(D, 0)] of a normal D: the losses of shipping and of not shipping.

    Uses erfcx where the textbook formula cancels, and its asymptotic series beyond 30 standard deviations.
    """
    t = abs(mean) / sd
    if t > 30.0:
        ratio = 1.0 / (t * t)
        small = normal_pdf(t) * ratio * (1.0 - 3.0 * ratio * (1.0 - 5.0 * ratio * (1.0 - 7.0 * ratio)))
    else:
        small = normal_pdf(t) * (
            1.0 - t * math.sqrt(math.pi / 2.0) * float(special.erfcx(t / math.sqrt(2.0)))
        )
    against = sd * small
    along = against + abs(mean)
    return (against, along) if mean >= 0.0 else (along, against)


def normal_posterior(
    estimate: float,
    standard_error: float,
    *,
    prior: Prior | None = None,
    level: float = 0.95,
    lower_is_better: bool = False,
    scale: Literal["absolute", "relative"] = "absolute",
) -> NormalPosterior:
    """Normal likelihood, normal prior in the unit of the estimate; no prior means a flat one."""
    check_alpha(1.0 - level)
    mean, sd = estimate, standard_error
    if prior is not None:
        if prior.sd <= 0.0:
            raise ValueError(f"the prior's standard deviation must be positive, got {prior.sd}")
        data, belief = 1.0 / (standard_error * standard_error), 1.0 / (prior.sd * prior.sd)
        mean = (estimate * data + prior.mean * belief) / (data + belief)
        sd = 1.0 / math.sqrt(data + belief)
    turned = -mean if lower_is_better else mean
    shipping, keeping = normal_losses(turned, sd)
    reach = normal_quantile(0.5 + level / 2.0) * sd
    return NormalPosterior(
        scale,
        prior,
        level,
        mean,
        sd,
        normal_sf(-turned / sd),
        shipping,
        keeping,
        Interval(mean - reach, mean + reach),
    )


def bayes(
    given: Contrast,
    *,
    prior: Prior | None = DEFAULT_PRIOR,
    scale: Literal["absolute", "relative"] = "relative",
    level: float = 0.95,
    lower_is_better: bool = False,
) -> NormalPosterior:
    """Posterior of the effect in a contrast.

    The prior speaks about the lift; it is scaled by |control| for the absolute effect. The relative
    likelihood is the delta method's normal approximation, which is poor while the control mean is not clearly
    separated from zero: with Fieller's g at or above 1 nothing is said of the lift. A share of such a mean
    would be a belief that the difference is next to nothing, made of noise: the absolute effect then has no
    prior, and `prior` is None.
    """
    if given.reason or given.estimate is None or not given.variance or given.control is None:
        reason = given.reason or Reason.ZERO_VARIANCE
        return NormalPosterior(scale, prior, level, None, None, None, None, None, None, reason)
    lift = relative(given, normal_quantile(0.975))
    if scale == "relative":
        if lift.reason or lift.value is None or not lift.standard_error:
            reason = lift.reason or Reason.ZERO_VARIANCE
            return NormalPosterior(scale, prior, level, None, None, None, None, None, None, reason)
        estimate, error = lift.value, lift.standard_error
    else:
        estimate, error = given.estimate, math.sqrt(given.variance)
        if prior is not None:
            size = abs(given.control)
            if size == 0.0:
                reason = Reason.BASELINE_ZERO
                return NormalPosterior(scale, prior, level, None, None, None, None, None, None, reason)
            told = lift.reason is not Reason.BASELINE_NOT_SEPARATED
            prior = Prior(prior.mean * size, prior.sd * size) if told else None
    return normal_posterior(
        estimate, error, prior=prior, level=level, lower_is_better=lower_is_better, scale=scale
    )


def beta_binomial(
    control: Count,
    treatment: Count,
    *,
    prior: tuple[float, float] = (1.0, 1.0),
    level: float = 0.95,
    lower_is_better: bool = False,
) -> ArmsPosterior:
    """Exact posterior comparison of two rates with a Beta prior (uniform unless given), by quadrature.

    For at most 1e12 units an arm: beyond, the incomplete beta function loses its digits, and `bayes` is exact
    enough.
    """
    control.check()
    treatment.check()
    _check_positive(prior)
    if max(control.units, treatment.units) > _MOST_UNITS:
        raise ValueError("exact posteriors are for at most 1e12 units an arm; use the normal posterior")
    arms = [
        Beta(prior[0] + arm.successes, prior[1] + arm.units - arm.successes) for arm in (control, treatment)
    ]
    return _compare("beta_binomial", arms[0], arms[1], level, lower_is_better=lower_is_better)


def gamma_poisson(
    control: tuple[float, float],
    treatment: tuple[float, float],
    *,
    prior: tuple[float, float] = (1.0, 0.0),
    level: float = 0.95,
    lower_is_better: bool = False,
) -> ArmsPosterior:
    """Exact posterior comparison of two event rates; arms are (exposure, events), the prior (shape, rate).

    The default prior is flat: shape 1, rate 0; exposure is the number of units, or of days, that events came
    from.
    """
    if control[0] + prior[1] <= 0.0 or treatment[0] + prior[1] <= 0.0 or prior[0] <= 0.0:
        raise ValueError("exposures and the prior's shape must be positive")
    arms = [Gamma(prior[0] + events, prior[1] + exposure) for exposure, events in (control, treatment)]
    return _compare("gamma_poisson", arms[0], arms[1], level, lower_is_better=lower_is_better)


def _check_positive(prior: tuple[float, float]) -> None:
    if min(prior) <= 0.0:
        raise ValueError(f"a Beta prior has positive parameters, got {prior}")


def _compare(
    method: str, control: Beta | Gamma, treatment: Beta | Gamma, level: float, *, lower_is_better: bool
) -> ArmsPosterior:
    check_alpha(1.0 - level)
    better, worse = (control, treatment) if lower_is_better else (treatment, control)
    return ArmsPosterior(
        method,
        level,
        chance_above(better, worse),
        expected_excess(worse, better),
        expected_excess(better, worse),
        control.mean,
        treatment.mean,
        control.interval(level),
        treatment.interval(level),
    )
