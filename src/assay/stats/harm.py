"""Harm beyond a margin, tested at every moment: what a circuit breaker trips at.

The null is that the treatment is at worst the margin below the control (above it, where less is better).
Against it stands the one-sided normal mixture (`assay.stats.sequential`), so that the chance of ever
rejecting a true null is at most `alpha`, however often it is looked at.

Sources: Howard, Ramdas, McAuliffe & Sekhon (2021), Annals of Statistics 49; Waudby-Smith et al. (2024),
Annals of Statistics 52, for the one-sided sequence; the margin as in `assay.stats.margins`.
"""

import math
from typing import NamedTuple

from assay.stats.contrast import Contrast
from assay.stats.margins import Direction
from assay.stats.reasons import Reason
from assay.stats.sequential import BURN_IN, mixture, tuned_rho2
from assay.stats.tails import Alternative, check_alpha


class Harm(NamedTuple):
    """Whether harm beyond the margin is shown.

    `estimate` is treatment minus control, `null` that difference at the margin (estimated where the margin is
    relative), `bound` the difference that the treatment is at best (an upper bound where more is better, a
    lower one where less is): harm is `shown` once even the bound is worse than the null. `limit` is the
    bound's distance in multiples of `standard_error`.
    """

    direction: Direction
    margin: float
    relative: bool
    alpha: float
    estimate: float | None
    null: float | None
    standard_error: float | None
    statistic: float | None
    limit: float | None
    bound: float | None
    p_value: float | None
    shown: bool
    reason: Reason | None = None


def harm_beyond(
    given: Contrast,
    margin: float,
    *,
    planned: float,
    relative: bool = False,
    direction: Direction = "increase",
    alpha: float = 0.005,
) -> Harm:
    """Test, at any moment, that the treatment is worse than the control by more than `margin`.

    `planned` is the number of units of both arms at which the bound is tightest; it must not follow the data.
    Each arm is taken to vary as much, per unit, as the one that varies more: an arm in which nothing happens
    any more, the very harm that is looked for, has no variance of its own. For the same reason an arm has
    burnt in when it has, or at the other's rate would have, so many effective events (mean^2 / Var(mean)).
    """
    check_alpha(alpha)
    if margin < 0.0:
        raise ValueError(f"a margin is not negative, got {margin}")
    estimate, variance, base = given.estimate, given.variance, given.control
    own, reason = given.control_variance, given.reason
    if reason is None and (estimate is None or not variance or base is None or own is None):
        reason = Reason.ZERO_VARIANCE
    if reason is not None or estimate is None or not variance or base is None or own is None:
        return _silent(given, margin, relative, direction, alpha, reason)
    covariance = given.covariance or 0.0
    other = variance + 2.0 * covariance + own
    ratio = given.count_treatment / given.count_control
    if not _burnt_in(base, own, base + estimate, other, ratio):
        return _silent(given, margin, relative, direction, alpha, Reason.BURN_IN)
    sign = 1.0 if direction == "increase" else -1.0
    # Under the null: estimate + sign * margin * |control| = 0 (relative) or estimate + sign * margin = 0.
    weight = sign * margin * math.copysign(1.0, base) if relative else 0.0
    null = -weight * base if relative else -sign * margin
    spread = variance + 2.0 * weight * covariance + weight * weight * own
    spread += max(other, own / ratio) - other
    spread += (1.0 - weight) ** 2 * (max(own, other * ratio) - own)
    error = math.sqrt(spread)
    side: Alternative = "less" if direction == "increase" else "greater"
    k = given.units * tuned_rho2(planned, alpha, side)
    found = mixture(estimate - null, error, k, alpha=alpha, alternative=side)
    return Harm(
        direction,
        margin,
        relative,
        alpha,
        estimate,
        null,
        error,
        found.z,
        found.critical,
        estimate + sign * found.critical * error,
        found.p_value,
        found.p_value <= alpha,
    )


def _burnt_in(base: float, own: float, treated: float, other: float, ratio: float) -> bool:
    """Whether both arms have effective events enough; `ratio` is treatment units over control units."""
    control = base * base / own if own > 0.0 else 0.0
    treatment = treated * treated / other if other > 0.0 else 0.0
    return max(control, treatment / ratio) > BURN_IN and max(treatment, control * ratio) > BURN_IN


def _silent(
    given: Contrast, margin: float, relative: bool, direction: Direction, alpha: float, reason: Reason | None
) -> Harm:
    nothing = (None,) * 6
    return Harm(direction, margin, relative, alpha, given.estimate, *nothing, shown=False, reason=reason)
