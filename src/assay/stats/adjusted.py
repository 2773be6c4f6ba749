"""Contrasts that use more than the outcome: covariate adjustment (CUPED) and post-stratification.

Both are one computation. The units fall into cells (arm by stratum, a single stratum without stratification);
each arm's metric and covariates are smooth functions of its stratum-weighted column means; and their
covariance comes from the cells' own co-moments. The variance is therefore each arm's own, with covariates,
with strata, and with both.

Sources: Deng, Xu, Kohavi & Walker (2013), WSDM, for CUPED; Lin (2013), Annals of Applied Statistics 7, for
the interacted estimator; Miratrix, Sekhon & Yu (2013), JRSS B 75, for post-stratification; Deng, Knoblich &
Lu (2018) for ratios.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.stats.contrast import Array, Contrast, Mean, Metric, Ratio, Theta, contrast, nothing, point
from assay.stats.moments import Moments, total
from assay.stats.reasons import Reason

Baseline = Literal["raw", "adjusted"]
Spread = Literal["per_arm", "pooled"]
# Pivots below this share of a covariate's own variance mean that the others already explain it.
_COLLINEAR = 1e-10


class _Cell(NamedTuple):
    weight: float
    moments: Moments


class _Arm(NamedTuple):
    """One arm, linearised: values of (metric, covariates), their covariance, and the cells' shares of it."""

    values: Array
    cover: Array
    parts: list[Array]
    dfs: list[int]
    scatter: Array
    centres: Array


def adjust(
    control: Moments,
    treatment: Moments,
    metric: Metric | str,
    covariates: Sequence[Metric | str],
    *,
    theta: Theta = "within",
    spread: Spread = "per_arm",
    baseline: Baseline = "raw",
) -> Contrast:
    """Difference of a metric, adjusted for any number of pre-exposure covariates.

    `theta="within"` takes the coefficients from covariances within the arms, pooled; `"interacted"` fits each
    arm by itself (Lin), better for unequal splits; `"joint"` ignores the arms, as other engines do. Degrees
    of freedom lose one per covariate, except under `"joint"`. `spread="pooled"` gives the classical ANCOVA
    variance, right only when the arms are equally noisy. The lift is relative to the control mean as it was
    observed, or as it was adjusted with `baseline="adjusted"`. Covariates without variation, or explained by
    the others, are left out.
    """
    return _contrast(
        [(control, treatment)],
        _as_metric(metric),
        tuple(map(_as_metric, covariates)),
        theta=theta,
        spread=spread,
        baseline=baseline,
    )


def stratify(
    strata: Sequence[tuple[Moments, Moments]],
    metric: Metric | str,
    covariates: Sequence[Metric | str] = (),
    *,
    theta: Theta = "within",
    super_population: bool = False,
) -> Contrast:
    """Post-stratified difference: `strata` holds one pair (control, treatment) of moments per stratum.

    Stratum weights are the strata's shares of all units. They count as fixed; `super_population=True` adds
    the noise of those shares as a sample from a larger population. Strata with fewer than two units in an arm
    are merged into the largest one. Where the allocation changed during an experiment the phases are strata:
    a ramp over a drifting baseline is otherwise a difference between arms.
    """
    return _contrast(
        merge_small(strata),
        _as_metric(metric),
        tuple(map(_as_metric, covariates)),
        theta=theta,
        super_population=super_population,
    )


def merge_small(strata: Sequence[tuple[Moments, Moments]]) -> list[tuple[Moments, Moments]]:
    """The strata with every one that has fewer than two units in an arm merged into the largest."""
    order = sorted(strata, key=lambda pair: pair[0].count + pair[1].count, reverse=True)
    kept = [pair for pair in order if min(pair[0].count, pair[1].count) >= 2]
    small = [pair for pair in order if min(pair[0].count, pair[1].count) < 2]
    if not kept:
        return [(total(a for a, _ in order), total(b for _, b in order))] if order else []
    return [
        (total([kept[0][0], *(a for a, _ in small)]), total([kept[0][1], *(b for _, b in small)])),
        *kept[1:],
    ]


def with_indicator(values: npt.ArrayLike) -> tuple[Array, Array]:
    """A covariate with gaps (NaN) as two columns: gaps filled with zero, and 1.0 where a gap was.

    Both columns together as covariates let units without history have a level of their own; the filled column
    alone would bias theta.
    """
    given = np.asarray(values, dtype=np.float64)
    missing = np.isnan(given)
    return np.where(missing, 0.0, given), missing.astype(np.float64)


def _as_metric(metric: Metric | str) -> Metric:
    return Mean(metric) if isinstance(metric, str) else metric


def _contrast(
    strata: Sequence[tuple[Moments, Moments]],
    metric: Metric,
    covariates: tuple[Metric, ...],
    *,
    theta: Theta,
    spread: Spread = "per_arm",
    baseline: Baseline = "raw",
    super_population: bool = False,
) -> Contrast:
    name = ("ratio" if isinstance(metric, Ratio) else "mean") + ("_stratified" if len(strata) > 1 else "")
    n, m = sum(c.count for c, _ in strata), sum(t.count for _, t in strata)
    if not strata or min(n, m) == 0:
        return nothing(name, n, m, Reason.INSUFFICIENT_DATA if n + m else Reason.NO_DATA)
    if any(min(c.count, t.count) < 2 for c, t in strata):
        return nothing(name, n, m, Reason.INSUFFICIENT_DATA)
    metrics = (metric, *covariates)
    shares = [(c.count + t.count) / (n + m) for c, t in strata]
    low = _linearise([_Cell(w, pair[0]) for w, pair in zip(shares, strata, strict=True)], metrics)
    high = _linearise([_Cell(w, pair[1]) for w, pair in zip(shares, strata, strict=True)], metrics)
    if low is None or high is None:
        return nothing(name, n, m, Reason.DENOMINATOR_ZERO)
    flaw = next((part.flaw for pair in strata for part in pair if part.flaw), None)
    pooled = total(part for pair in strata for part in pair)
    solved = _coefficients(low, high, pooled, metrics, theta)
    if solved is None:
        return nothing(name, n, m, Reason.DENOMINATOR_ZERO)
    theta_c, theta_t, rank, centre = solved
    if rank == 0 and len(strata) == 1 and spread == "per_arm":
        # No usable covariate: exactly the unadjusted contrast, not nearly.
        return contrast(*strata[0], metric)._replace(theta=tuple(float(v) for v in theta_c))
    shown_c = float(low.values[0] - theta_c @ (low.values[1:] - centre))
    shown_t = float(high.values[0] - theta_t @ (high.values[1:] - centre))
    estimate = shown_t - shown_c
    kept = tuple(float(v) for v in (theta_c if theta != "interacted" else np.concatenate([theta_c, theta_t])))
    name = f"{name}_adjusted_{theta}" if rank else name
    if flaw:
        unknown = (float(low.values[0]), estimate, None, None, None, None, shown_c, shown_t, flaw, kept)
        return Contrast(name, n, m, *unknown)
    along = np.concatenate([[1.0], -theta_c]), np.concatenate([[1.0], -theta_t])
    lost = rank if theta != "joint" and len(strata) == 1 else 0
    variance, df = _spread(low, high, along[0], along[1], lost)
    if df is None and variance > 0.0:
        return nothing(name, n, m, Reason.INSUFFICIENT_DATA)
    # What rounding leaves of a variance that is truly zero is no noise to test against.
    silent = variance <= 64.0 * 2.0**-52 * float(low.cover[0, 0] + high.cover[0, 0])
    if spread == "pooled" and not silent:
        variance, df = _ancova(low, high, along[0], rank)
        name = f"{name}_pooled"
    base, base_variance = float(low.values[0]), float(low.cover[0, 0])
    covariance = -float(along[0] @ low.cover[:, 0])
    if baseline == "adjusted":
        base, base_variance = shown_c, float(along[0] @ low.cover @ along[0])
        covariance = -base_variance
    if super_population:
        extra = _between(low, high, along, shares, n + m)
        variance, base_variance, covariance = np.add((variance, base_variance, covariance), extra).tolist()
    reason = Reason.ZERO_VARIANCE if silent else None
    found = (variance, base_variance, covariance, None if silent else df)
    return Contrast(name, n, m, base, estimate, *found, shown_c, shown_t, reason, kept)


def _linearise(cells: Sequence[_Cell], metrics: Sequence[Metric]) -> _Arm | None:
    """Stratum-weighted values of the metrics and their covariance; `None` where a denominator is zero."""
    first = cells[0].moments
    blended = tuple(
        float(sum(cell.weight * cell.moments.means[i] for cell in cells)) for i in range(len(first.columns))
    )
    at = Moments(1, first.columns, blended, first.comoments)
    if any(isinstance(each, Ratio) and at.mean(each.denominator) == 0.0 for each in metrics):
        return None
    values, gradient = point(at, metrics)
    parts, dfs, scatter, centres = [], [], np.zeros((len(metrics),) * 2), []
    for weight, moments in cells:
        inside = gradient @ moments.matrix() @ gradient.T
        scatter += inside
        parts.append(weight * weight * inside / (moments.count - 1) / moments.count)
        dfs.append(moments.count - 1)
        centres.append(gradient @ np.array(moments.means))
    return _Arm(values, np.sum(parts, axis=0), parts, dfs, scatter, np.array(centres))


def _coefficients(
    low: _Arm, high: _Arm, pooled: Moments, metrics: Sequence[Metric], theta: Theta
) -> tuple[Array, Array, int, Array] | None:
    """Coefficients of both arms, how many covariates are used, and the covariates' overall values."""
    if any(isinstance(each, Ratio) and pooled.mean(each.denominator) == 0.0 for each in metrics):
        return None
    values, gradient = point(pooled, metrics)
    if theta == "joint":
        both = gradient @ pooled.matrix() @ gradient.T
        found, rank = solve_scaled(both[1:, 1:], both[1:, 0])
        return found, found, rank, values[1:]
    if theta == "within":
        both = low.scatter + high.scatter
        found, rank = solve_scaled(both[1:, 1:], both[1:, 0])
        return found, found, rank, values[1:]
    theta_c, rank_c = solve_scaled(low.scatter[1:, 1:], low.scatter[1:, 0])
    theta_t, rank_t = solve_scaled(high.scatter[1:, 1:], high.scatter[1:, 0])
    return theta_c, theta_t, max(rank_c, rank_t), values[1:]


def _spread(low: _Arm, high: _Arm, along_c: Array, along_t: Array, lost: int) -> tuple[float, float | None]:
    """Variance of the difference and Satterthwaite's degrees of freedom over all cells."""
    pieces = [
        (float(along_c @ part @ along_c), df - lost) for part, df in zip(low.parts, low.dfs, strict=True)
    ]
    pieces += [
        (float(along_t @ part @ along_t), df - lost) for part, df in zip(high.parts, high.dfs, strict=True)
    ]
    variance = sum(max(piece, 0.0) for piece, _ in pieces)
    if variance <= 0.0:
        return 0.0, None
    if any(df < 1 for _, df in pieces):
        return variance, None
    return variance, 1.0 / sum((max(piece, 0.0) / variance) ** 2 / df for piece, df in pieces)


def _ancova(low: _Arm, high: _Arm, along: Array, rank: int) -> tuple[float, float]:
    """Least squares with one common residual variance, by the moments of one stratum."""
    both = low.scatter + high.scatter
    n, m = low.dfs[0] + 1, high.dfs[0] + 1
    df = n + m - 2 - rank
    gap = high.values[1:] - low.values[1:]
    weights, _ = solve_scaled(both[1:, 1:], gap)
    scale = 1.0 / n + 1.0 / m + float(gap @ weights)
    return float(along @ both @ along) / df * scale, float(df)


def _between(
    low: _Arm, high: _Arm, along: tuple[Array, Array], shares: Sequence[float], count: int
) -> tuple[float, float, float]:
    """Variance that random stratum shares add to the estimate, to the baseline, and to their covariance."""
    w = np.array(shares)
    effects = high.centres @ along[1] - low.centres @ along[0]
    bases = low.centres[:, 0]
    away, off = effects - w @ effects, bases - w @ bases
    return float(w @ away**2) / count, float(w @ off**2) / count, float(w @ (away * off)) / count


def solve_scaled(matrix: Array, right: Array) -> tuple[Array, int]:
    """Solve a positive semidefinite system, leaving out what is collinear; returns the solution and the rank.

    The matrix is scaled to unit diagonal and factored by Cholesky with complete pivoting (Higham 2002,
    chapter 10); variables whose pivot falls below 1e-10 get a coefficient of zero.
    """
    size = len(right)
    solution = np.zeros(size)
    scale = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    free = [i for i in range(size) if scale[i] > 0.0]
    if not free:
        return solution, 0
    rest = matrix[np.ix_(free, free)] / np.outer(scale[free], scale[free])
    order: list[int] = []
    factor: list[Array] = []
    left = np.diag(rest).copy()
    while len(order) < len(free):
        pivot = int(np.argmax(left))
        if left[pivot] < _COLLINEAR:
            break
        column = rest[:, pivot].copy()
        for earlier in factor:
            column -= earlier * earlier[pivot]
        column /= np.sqrt(left[pivot])
        factor.append(column)
        order.append(pivot)
        left -= column**2
        left[order] = -np.inf
    lower = np.array(
        [[factor[j][i] if j <= row else 0.0 for j in range(len(order))] for row, i in enumerate(order)]
    )
    scaled = np.array([right[free[i]] / scale[free[i]] for i in order])
    found = np.linalg.solve(lower.T, np.linalg.solve(lower, scaled))
    for value, i in zip(found, order, strict=True):
        solution[free[i]] = value / scale[free[i]]
    return solution, len(order)
