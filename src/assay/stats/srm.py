"""Sample ratio: do the arms hold the numbers of units that the allocation implies?

Both checks read *phases*, stretches of unchanged allocation: expected counts follow the history of the
allocation, so a ramp from 90/10 to 50/50 is not an alarm.

Sources: Pearson (1900); Fabijan et al. (2019), KDD, on sample ratio mismatch; Lindon & Malek (2022), NeurIPS,
for the sequential test.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.stats import special
from assay.stats.contrast import Array
from assay.stats.reasons import Reason
from assay.stats.tails import Tail, chi_square_tail

RatioMethod = Literal["chi_square", "exact"]
# Outcomes enumerated at most by the exact test; beyond them the approximation is used, and named in the
# result.
_MOST_OUTCOMES = 500_000


class Phase(NamedTuple):
    """Units counted per arm while the arms had these weights (any positive scale; zero means no traffic)."""

    counts: tuple[int, ...]
    weights: tuple[float, ...]


class SampleRatio(NamedTuple):
    """Result of the fixed-sample check.

    `expected` are the expected counts per arm; `stray` is the number of units in arms without traffic, which
    no random split can produce: then `mismatch` is true whatever the p-value of the other arms. With no units
    at all the p-value of the exact test is 1 by definition, and `reason` says that there was nothing to test.
    """

    method: RatioMethod
    counts: tuple[int, ...]
    expected: tuple[float, ...]
    statistic: float | None
    df: int
    p_value: float | None
    log10_p_value: float | None
    threshold: float
    mismatch: bool
    stray: int = 0
    reason: Reason | None = None


class SequentialRatio(NamedTuple):
    """Result of the sequential check: `p_value` holds at every look, for ever, and never rises again."""

    method: str
    counts: tuple[int, ...]
    log_bayes_factor: float | None
    p_value: float
    threshold: float
    mismatch: bool
    stray: int = 0
    reason: Reason | None = None


def sample_ratio(
    phases: Sequence[Phase], *, threshold: float = 0.001, method: RatioMethod | None = None
) -> SampleRatio:
    """Chi-square test of the arms' counts; exact when an expected count is below 5, or as `method` says.

    Over several phases the statistic is the quadratic form of observed minus expected counts in the inverse
    of their covariance, the sum of the phases' multinomial covariances; with one phase that is Pearson's
    chi-square. The exact test sums the probabilities of all outcomes that are no likelier than the one
    observed. It is made for one phase with at most 500,000 outcomes; where it cannot be, the chi-square
    stands in and is named in `method`.
    """
    cleaned = [_cleaned(phase) for phase in phases]
    _same_arms(cleaned)
    counts = tuple(sum(phase.counts[arm] for phase in cleaned) for arm in range(len(cleaned[0].counts)))
    stray = sum(n for phase in cleaned for n, w in zip(phase.counts, phase.weights, strict=True) if w == 0.0)
    # Stray units are judged by themselves; the others are compared among each other.
    kept = [
        Phase(tuple(n if w > 0.0 else 0 for n, w in zip(*phase, strict=True)), phase.weights)
        for phase in cleaned
    ]
    expected = tuple(
        sum(sum(phase.counts) * phase.weights[arm] for phase in kept) for arm in range(len(counts))
    )
    df = sum(any(phase.weights[arm] > 0.0 for phase in kept) for arm in range(len(counts))) - 1
    reason = Reason.ZERO_WEIGHT_ARM if stray else None
    if not sum(map(sum, (phase.counts for phase in kept))) or df < 1:
        reason = reason or Reason.NO_DATA
        return SampleRatio(
            "exact", counts, expected, None, max(df, 0), 1.0, 0.0, threshold, stray > 0, stray, reason
        )
    statistic, df = _quadratic_form(kept, expected)
    p_value, log10_p = chi_square_tail(statistic, df)
    used: RatioMethod = "chi_square"
    small = min(e for e in expected if e > 0.0) < 5.0
    if (method == "exact" or (method is None and small)) and len(kept) == 1:
        exact = _exact_p(kept[0])
        if exact is not None:
            used, p_value, log10_p = "exact", exact.p, exact.log10_p
    mismatch = stray > 0 or p_value < threshold
    return SampleRatio(
        used, counts, expected, statistic, df, p_value, log10_p, threshold, mismatch, stray, reason
    )


def sequential_sample_ratio(
    phases: Sequence[Phase],
    *,
    previous_p: float = 1.0,
    threshold: float = 0.05,
    concentration: float = 1000.0,
) -> SequentialRatio:
    """Lindon & Malek's test of the allocation, valid at any number of looks.

    `phases` hold all counts so far; `previous_p` is the p-value of the look before. Under the alternative the
    arms' probabilities are Dirichlet(concentration * weights); each phase starts a new factor of the Bayes
    factor, which keeps it a martingale under the null when the allocation changes. Around 1,000 suits
    deviations of a percentage point; everything stays in logarithms.
    """
    cleaned = [_cleaned(phase) for phase in phases]
    _same_arms(cleaned)
    counts = tuple(sum(phase.counts[arm] for phase in cleaned) for arm in range(len(cleaned[0].counts)))
    stray = sum(n for phase in cleaned for n, w in zip(phase.counts, phase.weights, strict=True) if w == 0.0)
    log_factor = sum(_log_bayes_factor(phase, concentration) for phase in cleaned)
    p_value = min(previous_p, math.exp(-log_factor) if log_factor > 0.0 else 1.0)
    reason = Reason.ZERO_WEIGHT_ARM if stray else (None if sum(counts) else Reason.NO_DATA)
    mismatch = stray > 0 or p_value <= threshold
    return SequentialRatio(
        "dirichlet_multinomial", counts, log_factor, p_value, threshold, mismatch, stray, reason
    )


def _cleaned(phase: Phase) -> Phase:
    counts, weights = tuple(phase.counts), tuple(float(weight) for weight in phase.weights)
    if len(counts) != len(weights) or not counts:
        raise ValueError("each arm needs a count and a weight")
    if min(counts) < 0:
        raise ValueError(f"counts must not be negative: {counts}")
    if min(weights) < 0.0 or not 0.0 < sum(weights) < math.inf:
        raise ValueError(f"weights must not be negative, and not all zero: {weights}")
    # Equal thirds do not sum to one in floating point; the scale is ours to settle, not the caller's.
    total = math.fsum(weights)
    return Phase(counts, tuple(weight / total for weight in weights))


def _same_arms(phases: Sequence[Phase]) -> None:
    if not phases or len({len(phase.counts) for phase in phases}) != 1:
        raise ValueError("at least one phase is needed, and every phase must list the same arms")


def _quadratic_form(phases: Sequence[Phase], expected: Sequence[float]) -> tuple[float, int]:
    """Statistic and degrees of freedom; the closed form for one phase, an eigendecomposition for several."""
    arms = range(len(expected))
    gaps = [sum(phase.counts[arm] for phase in phases) - expected[arm] for arm in arms]
    if len(phases) == 1:
        live = [arm for arm in arms if expected[arm] > 0.0]
        return math.fsum(gaps[arm] ** 2 / expected[arm] for arm in live), len(live) - 1
    cover = np.zeros((len(expected), len(expected)))
    for phase in phases:
        w = np.array(phase.weights)
        cover += sum(phase.counts) * (np.diag(w) - np.outer(w, w))
    live_at = np.flatnonzero(np.diag(cover) > 0.0)
    scale = np.sqrt(np.diag(cover)[live_at])
    correlation = cover[np.ix_(live_at, live_at)] / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(correlation)
    good = values > 1e-10
    along = vectors.T @ (np.array(gaps)[live_at] / scale)
    return float((along[good] ** 2 / values[good]).sum()), int(good.sum())


def _exact_p(phase: Phase) -> Tail | None:
    """Probability of all outcomes no likelier than the observed one; `None` when there are too many."""
    live = [(n, w) for n, w in zip(*phase, strict=True) if w > 0.0]
    n, arms = sum(count for count, _ in live), len(live)
    if arms == 2:
        return _exact_binomial(live[0][0], n, live[0][1] / (live[0][1] + live[1][1]))
    if math.comb(n + arms - 1, arms - 1) > _MOST_OUTCOMES:
        return None
    grid = np.arange(n + 1)[:, None]
    for _ in range(arms - 2):
        rest = n - grid.sum(axis=1)
        # Every partial outcome is continued by all counts that the next arm may still hold.
        repeated = np.repeat(grid, rest + 1, axis=0)
        starts = np.concatenate([[0], np.cumsum(rest + 1)[:-1]])
        following = np.arange(len(repeated)) - np.repeat(starts, rest + 1)
        grid = np.column_stack([repeated, following])
    outcomes = np.column_stack([grid, n - grid.sum(axis=1)])
    chances = np.array([weight for _, weight in live])
    chances = chances / chances.sum()

    def log_mass(at: np.ndarray) -> np.ndarray:
        found: np.ndarray = (
            special.gammaln(n + 1)
            - special.gammaln(at + 1.0).sum(axis=-1)
            + (at * np.log(chances)).sum(axis=-1)
        )
        return found

    every, seen = log_mass(outcomes), log_mass(np.array([count for count, _ in live]))
    # Outcomes of exactly the same probability must not be lost to rounding.
    return _tail(float(special.logsumexp(every[every <= seen + 1e-7])))


def _tail(log_p: float) -> Tail:
    log_p = min(0.0, log_p)
    return Tail(math.exp(log_p), log_p / math.log(10.0))


def _exact_binomial(x: int, n: int, p: float) -> Tail:
    """Two-sided binomial test: both tails of outcomes no likelier than x, the far one found by bisection."""

    def log_mass(k: npt.ArrayLike) -> Array:
        at = np.asarray(k, dtype=np.float64)
        found: Array = special.gammaln(n + 1.0) - special.gammaln(at + 1.0) - special.gammaln(n - at + 1.0)
        return found + at * math.log(p) + (n - at) * math.log1p(-p)

    mode = min(n, math.floor((n + 1) * p))
    # Outcomes of the same probability must not be lost to rounding.
    aim = float(log_mass(x)) + 1e-7
    if x == mode or float(log_mass(mode)) <= aim:
        return Tail(1.0, 0.0)
    inside, outside = mode, n + 1 if x < mode else -1
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        if float(log_mass(middle)) <= aim:
            outside = middle
        else:
            inside = middle
    low, high = (x, outside) if x < mode else (outside, x)
    below = float(special.bdtr(low, n, p)) if low >= 0 else 0.0
    above = float(special.bdtrc(high - 1, n, p)) if high <= n else 0.0
    if below + above > 1e-290:
        return Tail(min(1.0, below + above), math.log10(min(1.0, below + above)))
    # Far out the masses fall so fast that the nearest thousand of each tail are all of it.
    tails = [np.arange(max(0, low - 1000), low + 1), np.arange(high, min(n, high + 1000) + 1)]
    return _tail(float(special.logsumexp(log_mass(np.concatenate(tails)))))


def _log_bayes_factor(phase: Phase, concentration: float) -> float:
    live = [(n, w) for n, w in zip(*phase, strict=True) if w > 0.0]
    n = sum(count for count, _ in live)
    counts = np.array([count for count, _ in live], dtype=np.float64)
    chances = np.array([weight for _, weight in live])
    prior = concentration * chances
    gain = (special.gammaln(prior + counts) - special.gammaln(prior)).sum()
    gain -= special.gammaln(concentration + n) - special.gammaln(concentration)
    return float(gain - (counts * np.log(chances)).sum())
