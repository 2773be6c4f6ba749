"""Thousands of comparisons at once: the arithmetic of `compare`, on arrays.

For simulations, dashboards of hundreds of metrics, and re-randomisation. Numbers are the same as those of the
scalar functions to the last few digits; what cannot be said is masked, and `codes` says why.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.stats import special
from assay.stats.contrast import NEGLIGIBLE, Array
from assay.stats.effect import Reference
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, check_alpha, critical_value

if TYPE_CHECKING:
    # `numpy.ma` costs 40 ms to import: it comes with the first call.
    Floats = np.ma.MaskedArray[tuple[int, ...], np.dtype[np.float64]]
# What `codes` mean, by position.
REASONS: tuple[Reason | None, ...] = (
    None,
    Reason.INSUFFICIENT_DATA,
    Reason.ZERO_VARIANCE,
    Reason.BASELINE_ZERO,
    Reason.BASELINE_NOT_SEPARATED,
)


class Effects(NamedTuple):
    """Many effects, one per position; masked where nothing can be said.

    `codes` index into `REASONS`: why there is no test (`codes`), why no lift interval (`lift_codes`).
    Unbounded sides of one-sided intervals are masked throughout.
    """

    estimate: "Floats"
    standard_error: "Floats"
    statistic: "Floats"
    p_value: "Floats"
    low: "Floats"
    high: "Floats"
    lift: "Floats"
    lift_low: "Floats"
    lift_high: "Floats"
    codes: npt.NDArray[np.int8]
    lift_codes: npt.NDArray[np.int8]


def compare_many(
    control: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    treatment: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    critical: npt.ArrayLike | None = None,
) -> Effects:
    """Welch tests with Fieller lifts for arrays of arms; each arm is (counts, means, sample variances).

    The six arrays are broadcast against each other. `critical` replaces the quantile that intervals are made
    with, by a sequential limit or multiplier for instance; p-values stay those of the single test.
    """
    check_alpha(alpha)
    n, mean_c, var_c, m, mean_t, var_t = np.broadcast_arrays(
        *(np.asarray(part, dtype=np.float64) for part in (*control, *treatment))
    )
    few = (n < 2.0) | (m < 2.0)
    part_c, part_t = var_c / np.where(few, 1.0, n), var_t / np.where(few, 1.0, m)
    variance = part_c + part_t
    still = ~few & ~(variance * 1e40 > np.maximum(mean_c * mean_c, mean_t * mean_t))
    still |= ~few & (variance <= 0.0)
    silent = few | still
    safe = np.where(silent, 1.0, variance)
    error, estimate = np.sqrt(safe), mean_t - mean_c
    z = estimate / error
    if reference == "t":
        share = part_c / safe
        rest = part_t / safe
        df = 1.0 / np.where(
            silent,
            1.0,
            share * share / np.where(few, 1.0, n - 1.0) + rest * rest / np.where(few, 1.0, m - 1.0),
        )
        tail = alpha / 2.0 if alternative == "two-sided" else alpha
        limit = -special.stdtrit(df, tail) if critical is None else np.asarray(critical, dtype=np.float64)
    else:
        df = np.zeros(0)
        one = critical_value(None, alpha, alternative) if critical is None else critical
        limit = np.asarray(one, dtype=np.float64)
    p_value = _p_values(z, df, alternative)
    reach = limit * error
    lift, lift_low, lift_high, lift_codes = _lifts(estimate, mean_c, safe, part_c, limit)
    lift_codes[silent] = np.where(few, 1, 2)[silent]
    one_low, one_high = alternative == "less", alternative == "greater"
    unbounded = lift_codes > 0
    return Effects(
        np.ma.array(estimate, mask=few & ((n < 1.0) | (m < 1.0))),
        np.ma.array(error, mask=silent),
        np.ma.array(z, mask=silent),
        np.ma.array(p_value, mask=silent),
        np.ma.array(estimate - reach, mask=silent | one_low),
        np.ma.array(estimate + reach, mask=silent | one_high),
        np.ma.array(lift, mask=(lift_codes == 3) | few),
        np.ma.array(lift_low, mask=unbounded | one_low),
        np.ma.array(lift_high, mask=unbounded | one_high),
        np.where(few, 1, np.where(still, 2, 0)).astype(np.int8),
        lift_codes,
    )


def _p_values(z: Array, df: Array, alternative: Alternative) -> Array:
    toward = np.abs(z) if alternative == "two-sided" else (z if alternative == "greater" else -z)
    found: Array = special.stdtr(df, -toward) if df.size else special.ndtr(-toward)
    return 2.0 * found if alternative == "two-sided" else found


def _lifts(
    estimate: Array, base: Array, variance: Array, w: Array, critical: Array
) -> tuple[Array, Array, Array, npt.NDArray[np.int8]]:
    """Fieller's interval for two independent arms; the same algebra as in `effect`, branch by branch."""
    zero = np.abs(base) < NEGLIGIBLE
    size = np.where(zero, 1.0, np.abs(base))
    qq = critical * critical
    k = np.where(base < 0.0, w, -w)
    g = qq * w / (size * size)
    wide = g >= 1.0
    lead = np.where(wide, 1.0, size * size * (1.0 - g))
    along = estimate * size
    middle = along - qq * k
    last = estimate * estimate - qq * variance
    inside = variance * size * size - 2.0 * along * k + w * estimate * estimate - qq * (w * variance - k * k)
    root = critical * np.sqrt(np.maximum(inside, 0.0))
    far = middle + np.where(middle < 0.0, -root, root)
    near = last / np.where(far == 0.0, 1.0, far)
    far = far / lead
    codes = np.where(zero, 3, np.where(wide, 4, 0)).astype(np.int8)
    return estimate / size, np.minimum(near, far), np.maximum(near, far), codes
