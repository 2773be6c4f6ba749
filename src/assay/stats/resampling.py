"""Bootstrap of two samples, and the rank-sum test: for what moments cannot say.

The resampled units are represented by how often each was drawn, so a statistic sees the sorted values and a
matrix of counts. Counts are multinomial (the classical bootstrap) or independent Poisson(1), which needs no
total and suits data that are spread over machines.

Sources: Efron & Tibshirani (1993), chapters 13 and 14, for percentile and BCa; Chamandy et al. (2012) for the
Poisson bootstrap; Mann & Whitney (1947), with the tie correction of Lehmann (1975).
"""

import hashlib
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.stats.contrast import Array
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, Interval, check_alpha, normal_quantile, normal_sf, tail_area

# One value per resample, from the sorted values (n,) and the counts (resamples, n).
Statistic = Callable[[Array, Array], Array]

# How many counts are held in memory at once.
_BLOCK = 4_000_000


class Bootstrap(NamedTuple):
    """Bootstrap interval for a difference (or relative difference) of a statistic between two arms."""

    statistic: str
    method: Literal["percentile", "basic", "bca"]
    resamples: int
    estimate: float | None
    standard_error: float | None
    interval: Interval | None
    reason: Reason | None = None


class RankSum(NamedTuple):
    """Mann-Whitney test: `u` counts pairs in which the treatment is larger (ties half).

    `share` is u over all pairs.
    """

    method: Literal["asymptotic", "exact"]
    alternative: Alternative
    u: float | None
    share: float | None
    p_value: float | None
    log10_p_value: float | None
    reason: Reason | None = None


def seed_for(*parts: str) -> int:
    """A seed from names such as experiment, metric and date: the same question gets the same numbers."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big")


def mean_statistic(values: Array, counts: Array) -> Array:
    """Mean of each resample."""
    found: Array = counts @ values / counts.sum(axis=1)
    return found


def quantile_statistic(q: float) -> Statistic:
    """Quantile of each resample, interpolated linearly between order statistics."""

    def statistic(values: Array, counts: Array) -> Array:
        reached = np.cumsum(counts, axis=1)
        at = (reached[:, -1] - 1.0) * q
        low = np.floor(at)
        first = (reached > low[:, None]).argmax(axis=1)
        second = (reached > np.minimum(low + 1.0, reached[:, -1] - 1.0)[:, None]).argmax(axis=1)
        found: Array = values[first] + (at - low) * (values[second] - values[first])
        return found

    return statistic


def bootstrap(
    control: npt.ArrayLike,
    treatment: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: Statistic = mean_statistic,
    name: str = "mean",
    relative: bool = False,
    method: Literal["percentile", "basic", "bca"] = "percentile",
    draws: Literal["poisson", "multinomial"] = "poisson",
    resamples: int = 10_000,
    alpha: float = 0.05,
) -> Bootstrap:
    """Two-sided bootstrap interval for treatment minus control, or that over |control| when `relative`."""
    check_alpha(alpha)
    arms = [np.sort(np.asarray(values, dtype=np.float64)) for values in (control, treatment)]
    if min(arm.size for arm in arms) < 2:
        return Bootstrap(name, method, resamples, None, None, None, Reason.INSUFFICIENT_DATA)
    base, other = (float(statistic(arm, np.ones((1, arm.size)))[0]) for arm in arms)
    if relative and base == 0.0:
        return Bootstrap(name, method, resamples, None, None, None, Reason.BASELINE_ZERO)
    low_values, high_values = (_replicate(arm, statistic, rng, draws, resamples) for arm in arms)
    if relative and bool((low_values == 0.0).any()):
        return Bootstrap(
            name, method, resamples, (other - base) / abs(base), None, None, Reason.BASELINE_NOT_SEPARATED
        )
    estimate = (other - base) / abs(base) if relative else other - base
    replicates = _combine(low_values, high_values, relative=relative)
    error = float(replicates.std(ddof=1))
    if error == 0.0:
        return Bootstrap(name, method, resamples, estimate, None, None, Reason.ZERO_VARIANCE)
    tails = (alpha / 2.0, 1.0 - alpha / 2.0)
    if method == "bca":
        bend = _acceleration(arms, statistic, base, other, relative=relative)
        tails = _bca_levels(replicates, estimate, bend, tails)
    low, high = (float(value) for value in np.quantile(replicates, tails))
    if method == "basic":
        low, high = 2.0 * estimate - high, 2.0 * estimate - low
    return Bootstrap(name, method, resamples, estimate, error, Interval(low, high))


def _combine(control: Array, treatment: Array, *, relative: bool) -> Array:
    gap = treatment - control
    return gap / np.abs(control) if relative else gap


def _replicate(
    values: Array, statistic: Statistic, rng: np.random.Generator, draws: str, resamples: int
) -> Array:
    n = values.size
    size = max(1, _BLOCK // n)
    found = []
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        if draws == "multinomial":
            counts = rng.multinomial(n, np.full(n, 1.0 / n), size=rows).astype(np.float64)
        else:
            counts = rng.poisson(1.0, size=(rows, n)).astype(np.float64)
            # No unit drawn at all: possible for a handful of units only; such a resample is the sample
            # itself.
            counts[counts.sum(axis=1) == 0.0] = 1.0
        found.append(statistic(values, counts))
    return np.concatenate(found)


def _acceleration(
    arms: list[Array], statistic: Statistic, base: float, other: float, *, relative: bool
) -> float:
    """Skewness of the statistic's influence, by leaving out one unit at a time (Efron & Tibshirani 14.15)."""
    cubes, squares = 0.0, 0.0
    for side, values in enumerate(arms):
        n = values.size
        rows = max(1, _BLOCK // n)
        without = []
        for start in range(0, n, rows):
            stop = min(start + rows, n)
            counts = np.ones((stop - start, n))
            counts[np.arange(stop - start), np.arange(start, stop)] = 0.0
            without.append(statistic(values, counts))
        left = np.concatenate(without)
        pair = (left, np.full(n, other)) if side == 0 else (np.full(n, base), left)
        each = _combine(*pair, relative=relative)
        influence = (n - 1) * (each.mean() - each)
        cubes += float((influence**3).sum()) / n**3
        squares += float((influence**2).sum()) / n**2
    return cubes / (6.0 * squares**1.5) if squares > 0.0 else 0.0


def _bca_levels(
    replicates: Array, estimate: float, bend: float, tails: tuple[float, float]
) -> tuple[float, float]:
    below = float((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2.0
    limit = 0.5 / replicates.size
    z0 = normal_quantile(min(max(below, limit), 1.0 - limit))

    def level(tail: float) -> float:
        at = z0 + normal_quantile(tail)
        return normal_sf(-(z0 + at / (1.0 - bend * at)))

    return level(tails[0]), level(tails[1])


def ideal_error(control: npt.ArrayLike, treatment: npt.ArrayLike) -> float:
    """Standard error of a mean difference that the bootstrap reaches with infinitely many resamples."""
    parts = [np.asarray(values, dtype=np.float64) for values in (control, treatment)]
    return math.sqrt(sum(float(part.var()) / part.size for part in parts))


def mann_whitney(
    control: npt.ArrayLike,
    treatment: npt.ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    method: Literal["asymptotic", "exact"] = "asymptotic",
) -> RankSum:
    """Rank-sum test that treatment values tend to be larger (or different, or smaller).

    `asymptotic` uses the normal approximation with continuity and tie corrections; `exact` counts
    arrangements and needs values without ties.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (control, treatment))
    n, m = x.size, y.size
    if n == 0 or m == 0:
        return RankSum(method, alternative, None, None, None, None, Reason.INSUFFICIENT_DATA)
    both, inverse, sizes = np.unique(np.concatenate([x, y]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2.0)[inverse]
    u = float(ranks[n:].sum() - m * (m + 1) / 2.0)
    share = u / (n * m)
    if both.size == 1:
        return RankSum(method, alternative, u, share, None, None, Reason.ZERO_VARIANCE)
    if method == "exact":
        if both.size < n + m:
            raise ValueError("the exact rank-sum test needs values without ties")
        p_value = _exact_rank_sum(int(u), n, m, alternative)
        return RankSum(method, alternative, u, share, p_value, math.log10(p_value))
    ties = float((sizes**3 - sizes).sum())
    total = n + m
    spread = math.sqrt(n * m / 12.0 * (total + 1 - ties / (total * (total - 1))))
    away = u - n * m / 2.0
    # Half a step of continuity towards the null.
    if alternative == "two-sided":
        z = math.copysign(max(abs(away) - 0.5, -0.5), away) / spread
        tail = tail_area(abs(z) if abs(away) >= 0.5 else 0.0, None, "two-sided")
    else:
        z = (away - 0.5 if alternative == "greater" else away + 0.5) / spread
        tail = tail_area(z, None, alternative)
    return RankSum(method, alternative, u, share, tail.p, tail.log10_p)


def _exact_rank_sum(u: int, n: int, m: int, alternative: Alternative) -> float:
    """Tail of the number of arrangements by their U, from the product formula of the Gaussian binomial."""
    ways = [1] + [0] * (n * m)
    for k in range(1, m + 1):
        for at in range(n * m, n + k - 1, -1):
            ways[at] -= ways[at - n - k]
        for at in range(k, n * m + 1):
            ways[at] += ways[at - k]
    everything = math.comb(n + m, n)
    upper, lower = sum(ways[u:]) / everything, sum(ways[: u + 1]) / everything
    if alternative == "greater":
        return upper
    if alternative == "less":
        return lower
    return min(1.0, 2.0 * min(upper, lower))
