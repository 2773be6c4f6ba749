"""Many hypotheses at once: adjusted p-values, and intervals that agree with them.

Sources: Holm (1979); Hochberg (1988), Biometrika 75; Hommel (1988), Biometrika 75; Benjamini & Hochberg
(1995), JRSS B 57; Benjamini & Yekutieli (2001), Annals of Statistics 29, and (2005), JASA 100, for the false
coverage rate; Wang & Ramdas (2022), JRSS B 84, for e-values; Strassburger & Bretz (2008), Statistics in
Medicine 27, for bounds that match Holm.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from assay.stats.contrast import Array, Contrast
from assay.stats.effect import Effect, LiftMethod, Reference, infer
from assay.stats.tails import Alternative, Interval, check_alpha

Correction = Literal[
    "none",
    "bonferroni",
    "sidak",
    "holm",
    "holm_sidak",
    "hochberg",
    "hommel",
    "benjamini_hochberg",
    "benjamini_yekutieli",
]
Key = TypeVar("Key", bound=Hashable)


class Corrected(NamedTuple):
    """Adjusted p-values in the order given, the decisions, and the levels of matching intervals.

    Hypotheses without a p-value are no members of the family: their entries are `None`. `alphas[i]` is the
    error of a two-sided interval that goes with the decision: 1 - coverage.
    """

    method: Correction
    alpha: float
    p_values: tuple[float | None, ...]
    rejected: tuple[bool | None, ...]
    alphas: tuple[float | None, ...]

    @property
    def members(self) -> int:
        """Size of the family: hypotheses that have a p-value."""
        return sum(p is not None for p in self.p_values)


class Member(NamedTuple):
    """One hypothesis of a family: the effect with its matching interval, and the decision."""

    effect: Effect
    adjusted_p_value: float | None
    rejected: bool | None


def correct(
    p_values: Sequence[float | None],
    *,
    method: Correction = "holm",
    alpha: float = 0.05,
    weights: Sequence[float] | None = None,
) -> Corrected:
    """Adjust p-values for their number; a hypothesis is rejected when its adjusted p-value is at most alpha.

    Bonferroni, Sidak, Holm, Hochberg and Hommel control the chance of any false rejection (Hochberg, Hommel
    and Sidak under independence or positive dependence); Benjamini-Hochberg and -Yekutieli the expected share
    of false rejections (the latter under any dependence). `weights` (Bonferroni and Holm) split alpha
    unequally.
    """
    check_alpha(alpha)
    at = [i for i, p in enumerate(p_values) if p is not None]
    p = np.array([p_values[i] for i in at], dtype=np.float64)
    if p.size and not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError("p-values must lie between 0 and 1")
    shares = _shares(weights, at, len(p_values), method)
    adjusted = _adjusted(p, shares, method) if p.size else p
    rejected = adjusted <= alpha
    levels = _levels(shares, rejected, method, alpha)
    out_p: list[float | None] = [None] * len(p_values)
    out_r: list[bool | None] = [None] * len(p_values)
    out_a: list[float | None] = [None] * len(p_values)
    for j, i in enumerate(at):
        out_p[i], out_r[i], out_a[i] = float(adjusted[j]), bool(rejected[j]), float(levels[j])
    return Corrected(method, alpha, tuple(out_p), tuple(out_r), tuple(out_a))


def _shares(weights: Sequence[float] | None, at: Sequence[int], count: int, method: Correction) -> Array:
    if weights is None:
        return np.full(len(at), 1.0 / max(len(at), 1))
    if method not in ("bonferroni", "holm"):
        raise ValueError(f"weights are for bonferroni and holm, not {method}")
    if len(weights) != count or min(weights) <= 0.0:
        raise ValueError("each hypothesis needs a positive weight")
    given = np.array([weights[i] for i in at], dtype=np.float64)
    shares: Array = given / given.sum()
    return shares


def _adjusted(p: Array, shares: Array, method: Correction) -> Array:
    m = len(p)
    if method == "none":
        return p
    if method == "bonferroni":
        # Equal weights by multiplication: 1/m is not exact.
        return np.minimum(1.0, p * m if np.all(shares == shares[0]) else p / shares)
    if method == "sidak":
        return _sidak(p, m)
    if method == "hommel":
        return _hommel(p)
    order = np.argsort(p / shares, kind="stable") if method == "holm" else np.argsort(p, kind="stable")
    ranked, rank = p[order], np.arange(1.0, m + 1.0)
    if method == "holm":
        if np.all(shares == shares[0]):
            steps = ranked * (m - rank + 1)
        else:
            # Each step tests the smallest p/w among the rest, whose weights then sum to less than one.
            left = np.cumsum(shares[order][::-1])[::-1]
            steps = ranked / shares[order] * left
        steps = np.maximum.accumulate(steps)
    elif method == "holm_sidak":
        steps = np.maximum.accumulate(_sidak(ranked, m - rank + 1))
    else:
        if method == "hochberg":
            steps = ranked * (m - rank + 1)
        else:
            steps = ranked * m / rank
            if method == "benjamini_yekutieli":
                steps = steps * (1.0 / rank).sum()
        steps = np.minimum.accumulate(steps[::-1])[::-1]
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted


def _sidak(p: Array, tests: Array | int) -> Array:
    """1 - (1 - p)^tests without cancellation."""
    found: Array = -np.expm1(tests * np.log1p(-np.minimum(p, 1.0 - 2.0**-53)))
    return found


def _hommel(p: Array) -> Array:
    """Adjusted p-values of Hommel's closed Simes procedure (Wright 1992, Biometrics 48)."""
    m = len(p)
    order = np.argsort(p, kind="stable")
    ranked = p[order]
    best = np.full(m, (m * ranked / np.arange(1, m + 1)).min())
    for size in range(m - 1, 1, -1):
        tail = ranked[m - size + 1 :]
        least = (size * tail / np.arange(2, size + 1)).min()
        head = np.minimum(size * ranked[: m - size + 1], least)
        best[: m - size + 1] = np.maximum(best[: m - size + 1], head)
        best[m - size + 1 :] = np.maximum(best[m - size + 1 :], best[m - size])
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1.0, np.maximum(best, ranked))
    return adjusted


def _levels(shares: Array, rejected: npt.NDArray[np.bool_], method: Correction, alpha: float) -> Array:
    """Error of the interval that goes with each decision."""
    m = len(shares)
    if method == "none" or m == 0:
        return np.full(m, alpha)
    if method in ("sidak", "holm_sidak"):
        return np.full(m, -math.expm1(math.log1p(-alpha) / m))
    if method in ("benjamini_hochberg", "benjamini_yekutieli"):
        # False coverage rate: the selected get 1 - R alpha / m; nothing selected reads like one selected.
        level = max(int(rejected.sum()), 1) * alpha / m
        if method == "benjamini_yekutieli":
            level /= (1.0 / np.arange(1, m + 1)).sum()
        return np.full(m, level)
    return shares * alpha


def family(
    contrasts: Mapping[Key, Contrast],
    *,
    method: Correction = "holm",
    alpha: float = 0.05,
    weights: Mapping[Key, float] | None = None,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    lift: LiftMethod = "fieller",
) -> dict[Key, Member]:
    """Judge a family of contrasts together, e.g. all metrics of all variants, keyed as the caller likes.

    Intervals have the level that matches the correction. Step-wise procedures (Holm, Hochberg, Hommel) reject
    more than simultaneous intervals of equal width can show: where one rejects, the interval ends at zero on
    that side, as in Strassburger & Bretz, so an interval contains effects of both signs exactly when its
    hypothesis stands.
    """
    plain = {
        key: infer(given, alpha=alpha, alternative=alternative, reference=reference, lift=lift)
        for key, given in contrasts.items()
    }
    found = correct(
        [effect.p_value for effect in plain.values()],
        method=method,
        alpha=alpha,
        weights=None if weights is None else [weights[key] for key in plain],
    )
    members = {}
    for (key, effect), p, rejected, level in zip(
        plain.items(), found.p_values, found.rejected, found.alphas, strict=True
    ):
        if level is not None:
            effect = infer(  # noqa: PLW2901 - the same effect, with the interval of its family
                contrasts[key], alpha=level, alternative=alternative, reference=reference, lift=lift
            )
        members[key] = Member(_ended_at_zero(effect) if rejected else effect, p, rejected)
    return members


def _ended_at_zero(effect: Effect) -> Effect:
    """The effect with its intervals cut at zero on the side that the rejection excludes."""
    estimate = effect.estimate or 0.0

    def cut(interval: Interval | None) -> Interval | None:
        if interval is None:
            return None
        low, high = interval
        if estimate > 0.0 and low is not None:
            low = max(low, 0.0)
        if estimate < 0.0 and high is not None:
            high = min(high, 0.0)
        return Interval(low, high)

    return effect._replace(
        interval=cut(effect.interval), lift=effect.lift._replace(interval=cut(effect.lift.interval))
    )


def e_benjamini_hochberg(
    log_e_values: Sequence[float | None], *, alpha: float = 0.05
) -> tuple[bool | None, ...]:
    """Rejections by e-values (natural logarithms) with false discovery rate alpha, under any dependence.

    Valid at any stopping time when the e-values are, which makes it the correction for always-valid results.
    """
    check_alpha(alpha)
    known = sorted((e for e in log_e_values if e is not None), reverse=True)
    m = len(known)
    count = max((k for k in range(1, m + 1) if known[k - 1] >= math.log(m / (k * alpha))), default=0)
    least = known[count - 1] if count else math.inf
    return tuple(None if e is None else e >= least for e in log_e_values)


def guardrail_power(power: float, guardrails: int) -> float:
    """Power each test needs for a success and all guardrails to be shown together with `power`.

    Guardrails that must all pass need no correction of alpha, but they do of the type-II error (Schultzberg,
    Ankargren & Franberg 2024): it is split evenly.
    """
    if guardrails < 0:
        raise ValueError(f"the number of guardrails must not be negative, got {guardrails}")
    return 1.0 - (1.0 - power) / (guardrails + 1)
