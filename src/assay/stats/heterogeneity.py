"""Do effects differ between segments, or between the arms of another experiment?

Sources: Cochran (1954), Biometrics 10; DerSimonian & Laird (1986), Controlled Clinical Trials 7, truncated at
zero; Higgins & Thompson (2002) for I^2; Efron & Morris (1975) for shrinkage.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from assay.stats.contrast import Contrast
from assay.stats.effect import Effect, infer
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, chi_square_tail


class Shrunken(NamedTuple):
    """A segment's effect, pulled towards the common one by as much as its noise deserves."""

    estimate: float
    standard_error: float


class Heterogeneity(NamedTuple):
    """Cochran's test and what follows from it.

    `p_value` is the gate: above it no segment is to be called different. `fixed` and `random` are the pooled
    effects without and with variance between segments (`tau2`); `i2` is the share of variation that is not
    noise; `segments` has one entry per effect given, `None` for those without a variance.
    """

    q: float | None
    df: int
    p_value: float | None
    log10_p_value: float | None
    tau2: float | None
    i2: float | None
    fixed: float | None
    fixed_error: float | None
    random: float | None
    random_error: float | None
    segments: tuple[Shrunken | None, ...]
    reason: Reason | None = None


def heterogeneity(effects: Sequence[float | None], variances: Sequence[float | None]) -> Heterogeneity:
    """Compare effects of disjoint segments, given with the variances of their estimates."""
    known = [
        (d, v) for d, v in zip(effects, variances, strict=True) if d is not None and v is not None and v > 0.0
    ]
    if len(known) < 2:
        empty = (None,) * len(effects)
        return Heterogeneity(
            None,
            max(len(known) - 1, 0),
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            empty,
            Reason.ONE_SEGMENT,
        )
    weights = [1.0 / v for _, v in known]
    total = math.fsum(weights)
    fixed = math.fsum(w * d for w, (d, _) in zip(weights, known, strict=True)) / total
    q = math.fsum(w * (d - fixed) ** 2 for w, (d, _) in zip(weights, known, strict=True))
    df = len(known) - 1
    tail = chi_square_tail(q, df)
    scale = total - math.fsum(w * w for w in weights) / total
    tau2 = max(0.0, (q - df) / scale)
    i2 = max(0.0, (q - df) / q) if q > 0.0 else 0.0
    loose = [1.0 / (v + tau2) for _, v in known]
    loose_total = math.fsum(loose)
    random = math.fsum(w * d for w, (d, _) in zip(loose, known, strict=True)) / loose_total
    segments = tuple(
        None if d is None or v is None or v <= 0.0 else _shrink(d, v, tau2, random, 1.0 / loose_total)
        for d, v in zip(effects, variances, strict=True)
    )
    return Heterogeneity(
        q,
        df,
        tail.p,
        tail.log10_p,
        tau2,
        i2,
        fixed,
        math.sqrt(1.0 / total),
        random,
        math.sqrt(1.0 / loose_total),
        segments,
    )


def _shrink(effect: float, variance: float, tau2: float, centre: float, centre_variance: float) -> Shrunken:
    own = tau2 / (tau2 + variance)
    # The common effect is estimated as well: its variance enters with the weight it is given.
    spread = own * variance + (1.0 - own) ** 2 * centre_variance
    return Shrunken(own * effect + (1.0 - own) * centre, math.sqrt(spread))


def interaction(
    first: Contrast, second: Contrast, *, alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> Effect:
    """Does the effect differ between two disjoint groups of units? second minus first, by a z test.

    The groups are two segments, or the arms of another experiment running at the same time: then the question
    is whether the two experiments interact. The lift is left out: a difference of effects has no baseline.
    """
    reason = first.reason or second.reason
    n, m = first.units, second.units
    if (
        reason
        or first.estimate is None
        or second.estimate is None
        or not first.variance
        or not second.variance
    ):
        given = Contrast(
            "interaction",
            n,
            m,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            reason or Reason.ZERO_VARIANCE,
        )
    else:
        gap, variance = second.estimate - first.estimate, first.variance + second.variance
        given = Contrast(
            "interaction",
            n,
            m,
            first.estimate,
            gap,
            variance,
            first.variance,
            -first.variance,
            None,
            first.estimate,
            second.estimate,
        )
    found = infer(given, alpha=alpha, alternative=alternative, reference="normal")
    return found._replace(lift=found.lift._replace(value=None, interval=None, standard_error=None, g=None))
