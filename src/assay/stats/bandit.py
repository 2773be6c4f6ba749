"""Bandit weights: how to split traffic by what is known, exactly and without simulation.

Sources: Thompson (1933), Biometrika 25; Scott (2010) for probability matching; Russo (2020), Operations
Research 68, for top-two sampling.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from assay.stats.moments import Moments, total
from assay.stats.posterior import Normal, best_probabilities, expected_losses, second_probabilities
from assay.stats.reasons import Reason


class BanditWeights(NamedTuple):
    """Traffic shares, each arm's probability to be best, and what choosing it is expected to cost."""

    method: Literal["thompson", "top_two"]
    weights: tuple[float, ...]
    best: tuple[float, ...]
    losses: tuple[float, ...]
    reason: Reason | None = None


def bandit_weights(
    arms: Sequence[Normal],
    *,
    method: Literal["thompson", "top_two"] = "thompson",
    floor: float = 0.01,
    lower_is_better: bool = False,
) -> BanditWeights:
    """Weights from independent normal posteriors of the arms' means.

    Thompson: each arm's probability to be the best. Top-two: half of that plus half of its probability to be
    the second best, which keeps learning about the runner-up. Every arm gets `floor`, the rest is split: f +
    (1 - K f) w.
    """
    count = len(arms)
    if count < 2:
        raise ValueError("a bandit needs at least two arms")
    if not 0.0 <= floor * count < 1.0:
        raise ValueError(f"a floor of {floor} leaves nothing to split among {count} arms")
    turned = [Normal(-arm.mean, arm.sd) for arm in arms] if lower_is_better else list(arms)
    best = best_probabilities(turned)
    raw = best
    if method == "top_two":
        second = second_probabilities(turned).sum(axis=0)
        raw = tuple(0.5 * p + 0.5 * float(q) for p, q in zip(best, second, strict=True))
    weights = tuple(floor + (1.0 - count * floor) * value for value in raw)
    return BanditWeights(method, weights, best, expected_losses(turned))


def period_posteriors(
    periods: Sequence[Sequence[Moments]], column: str | None = None, *, borrow: bool = False
) -> tuple[Normal, ...] | Reason:
    """Posteriors of the arms' means from periods with different traffic shares (flat prior).

    `periods[t][a]` are the moments of arm a in period t. Arms are averaged over periods with the periods' own
    shares of all units: pooling units instead would let the busiest period of each arm decide (Simpson's
    paradox). Every arm needs two units in every period that has any. With `borrow` an arm whose units do not
    vary at all, as before its first event, is taken to vary as all units together do.
    """
    used = [period for period in periods if sum(arm.count for arm in period)]
    if not used:
        return Reason.NO_DATA
    if any(arm.count < 2 for period in used for arm in period):
        return Reason.INSUFFICIENT_DATA
    sizes = [sum(arm.count for arm in period) for period in used]
    everyone = sum(sizes)
    arms = []
    for a in range(len(used[0])):
        mean = sum(size / everyone * period[a].mean(column) for size, period in zip(sizes, used, strict=True))
        variance = sum(
            (size / everyone) ** 2 * (period[a].variance(column) or 0.0) / period[a].count
            for size, period in zip(sizes, used, strict=True)
        )
        if variance <= 0.0 and borrow:
            spread = total(arm for period in used for arm in period).variance(column) or 0.0
            shares = ((size / everyone, period) for size, period in zip(sizes, used, strict=True))
            variance = sum(share**2 * spread / period[a].count for share, period in shares)
        if variance <= 0.0:
            return Reason.ZERO_VARIANCE
        arms.append(Normal(mean, variance**0.5))
    return tuple(arms)
