"""Around a decision: what more data would bring, and what a significant estimate is worth.

Sources: Spiegelhalter, Freedman & Blackburn (1986) for predictive probabilities; Zhong & Prentice (2008),
Biostatistics 9, for the conditional likelihood estimate under selection by significance.
"""

import math
from typing import NamedTuple

from assay.stats.contrast import Contrast
from assay.stats.effect import Reference, infer
from assay.stats.reasons import Reason
from assay.stats.roots import find_root
from assay.stats.tails import check_alpha, critical_value, normal_pdf, normal_sf


class Corrected(NamedTuple):
    """An estimate corrected for having been looked at because it was significant.

    `estimate` is the conditional maximum likelihood estimate, `naive` the uncorrected one, `shrinkage` their
    quotient.
    """

    naive: float | None
    estimate: float | None
    shrinkage: float | None
    reason: Reason | None = None


class Prediction(NamedTuple):
    """Chances of the three verdicts once `units` are in, given the data so far: they sum to 1."""

    units: float
    better: float | None
    worse: float | None
    inconclusive: float | None
    reason: Reason | None = None


def winners_curse(given: Contrast, *, alpha: float = 0.05, reference: Reference = "t") -> Corrected:
    """Correct a fixed-horizon estimate for selection by two-sided significance at `alpha`.

    The estimate maximises the likelihood of the data given that |z| exceeded its limit. An estimate that was
    not significant was not selected: then `reason` says so. After a group-sequential stop use
    `adjusted_at_stop`.
    """
    check_alpha(alpha)
    effect = infer(given, alpha=alpha, reference=reference)
    if effect.reason or effect.statistic is None or effect.standard_error is None or effect.critical is None:
        return Corrected(effect.estimate, None, None, effect.reason)
    z, limit = abs(effect.statistic), effect.critical
    if z < limit:
        return Corrected(effect.estimate, None, None, Reason.NOT_STOPPED)

    def excess(mean: float) -> float:
        # E[Z given |Z| > limit] under this mean, less what was seen.
        up, down = normal_sf(limit - mean), normal_sf(limit + mean)
        return mean + (normal_pdf(limit - mean) - normal_pdf(limit + mean)) / (up + down) - z

    # Selection only inflates, and never turns the sign around.
    mean = find_root(excess, 0.0, z, tolerance=1e-12) if excess(0.0) < 0.0 < excess(z) else 0.0
    estimate = math.copysign(mean, effect.statistic) * effect.standard_error
    return Corrected(effect.estimate, estimate, mean / z)


def predict(
    given: Contrast,
    units: float,
    *,
    alpha: float = 0.05,
    prior_mean: float = 0.0,
    prior_sd: float | None = None,
    lower_is_better: bool = False,
) -> Prediction:
    """What a fixed-horizon test at `units` (both arms, as split today) will say, given the data so far.

    The true effect is drawn from its posterior under a normal prior in the metric's unit (`None` for a flat
    one), the remaining data from their distribution around it.
    """
    check_alpha(alpha)
    if given.reason or given.estimate is None or not given.variance:
        return Prediction(units, None, None, None, given.reason or Reason.ZERO_VARIANCE)
    if units < given.units:
        raise ValueError(f"{given.units} units are already in, more than {units}")
    share = given.units / units
    belief = 1.0 / prior_sd**2 if prior_sd else 0.0
    precision = 1.0 / given.variance + belief
    mean = (given.estimate / given.variance + prior_mean * belief) / precision
    final_variance = given.variance * share
    centre = share * given.estimate + (1.0 - share) * mean
    # Data still to come: variance of their own estimate, plus what is not known of the effect.
    spread = 0.0
    if share < 1.0:
        spread = (1.0 - share) ** 2 * (given.variance * share / (1.0 - share) + 1.0 / precision)
    limit = critical_value(None, alpha, "two-sided") * math.sqrt(final_variance)
    if spread <= 0.0:
        up, down = float(centre > limit), float(centre < -limit)
    else:
        sd = math.sqrt(spread)
        up, down = normal_sf((limit - centre) / sd), normal_sf((limit + centre) / sd)
    better, worse = (down, up) if lower_is_better else (up, down)
    return Prediction(units, better, worse, max(0.0, 1.0 - up - down))
