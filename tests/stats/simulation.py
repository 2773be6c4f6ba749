"""Experiments by the thousand, as arrays: one row per run, one column per look."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from assay import stats as s

Array = npt.NDArray[np.float64]
ALPHA = 0.05


class Arm(NamedTuple):
    """Cumulative counts, means and sample variances, each of shape (runs, looks)."""

    count: Array
    mean: Array
    variance: Array


class Band(NamedTuple):
    """Where a simulated rate has to lie."""

    low: float
    high: float

    def holds(self, rate: float) -> bool:
        return self.low <= rate <= self.high


def band(nominal: float, runs: int, *, slack: float = 0.0) -> Band:
    """Four standard errors around the nominal rate, plus what the method's approximation is allowed."""
    reach = 4.0 * math.sqrt(nominal * (1.0 - nominal) / runs) + slack
    return Band(nominal - reach, nominal + reach)


def at_most(nominal: float, runs: int) -> Band:
    return Band(0.0, band(nominal, runs).high)


def say(line: str) -> None:
    """A line of the table that `pytest -s` shows."""
    print(line)  # noqa: T201 - the table is what the long runs are for


def check(name: str, rate: float, wanted: Band) -> None:
    """Print the rate beside its band, and hold it to it."""
    say(f"{name:<64} {rate:7.4f}   band {wanted.low:.4f} .. {wanted.high:.4f}")
    assert wanted.holds(rate), f"{name}: {rate:.4f} outside {wanted}"


def cumulative(counts: Array, sums: Array, squares: Array) -> Arm:
    n = np.cumsum(counts, axis=1)
    total, square = np.cumsum(sums, axis=1), np.cumsum(squares, axis=1)
    mean = total / n
    return Arm(n, mean, np.maximum(square - n * mean**2, 0.0) / (n - 1.0))


def conversions(rng: np.random.Generator, runs: int, looks: int, daily: int, rate: float) -> Arm:
    """A yes/no metric; values are their own squares."""
    hits = rng.binomial(daily, rate, (runs, looks)).astype(float)
    return cumulative(np.full((runs, looks), float(daily)), hits, hits)


def revenue(
    rng: np.random.Generator, runs: int, looks: int, daily: int, *, payers: float = 0.08, lift: float = 0.0
) -> Arm:
    """Lognormal revenue of a few payers, zero from all others."""
    buying = rng.binomial(daily, payers, (runs, looks))
    values = (1.0 + lift) * rng.lognormal(0.0, 1.2, int(buying.sum()))
    cell = np.repeat(np.arange(runs * looks), buying.ravel())
    sums = np.bincount(cell, weights=values, minlength=runs * looks).reshape(runs, looks)
    squares = np.bincount(cell, weights=values**2, minlength=runs * looks).reshape(runs, looks)
    return cumulative(np.full((runs, looks), float(daily)), sums, squares)


def effective(arm: Arm) -> Array:
    """Squared mean over its variance: the number of events that carry the mean."""
    noise = arm.variance / arm.count
    found: Array = np.where(noise > 0.0, arm.mean**2 / np.where(noise > 0.0, noise, 1.0), 0.0)
    return found


def multipliers(totals: Sequence[float], planned: float) -> Array:
    rho2 = s.tuned_rho2(planned, ALPHA)
    return np.array([s.multiplier(total * rho2, ALPHA) for total in totals])


def ever(rule: npt.NDArray[np.bool_]) -> float:
    return float(rule.any(axis=1).mean())


def peeking(control: Arm, treatment: Arm) -> dict[str, float]:
    """How often each rule stops at any of the looks."""
    tests = s.compare_many(control, treatment)
    z = np.abs(tests.statistic.filled(0.0))
    looks = z.shape[1]
    limits = np.array(s.boundaries([(k + 1) / looks for k in range(looks)]).z, dtype=float)
    totals = control.count[0] + treatment.count[0]
    ready = (effective(control) > 25.0) & (effective(treatment) > 25.0)
    win = 1.959963984540054
    return {
        "fixed": float((tests.p_value[:, -1].filled(1.0) < ALPHA).mean()),
        "naive": ever(tests.p_value.filled(1.0) < ALPHA),
        "chance_to_win": ever(z > 1.6448536269514722),
        "spent_as_level": ever(z > _misread_limits(looks)),
        "group_sequential": ever(z >= limits),
        "always_valid": ever((z > multipliers(totals, float(totals[-1]))) & ready),
        "bonferroni_like": ever(z > win * 2.0),
    }


def _misread_limits(looks: int) -> Array:
    """Cumulative spending taken for the level of each look, as one published engine does."""
    from assay.stats.boundaries import spent_by
    from assay.stats.tails import normal_quantile

    return np.array([-normal_quantile(spent_by((k + 1) / looks, ALPHA / 2.0)) for k in range(looks)])


def uniform_misses(control: Arm, treatment: Arm, lift: float) -> dict[str, float]:
    """How often a lift interval ever misses the truth: ours, and the delta method at the same limits."""
    totals = control.count[0] + treatment.count[0]
    limits = multipliers(totals, float(totals[-1]))
    found = s.compare_many(control, treatment, critical=limits[None, :])
    ready = (effective(control) > 25.0) & (effective(treatment) > 25.0)
    bounded = ~np.ma.getmaskarray(found.lift_low) & ready
    outside = (found.lift_low.filled(lift) > lift) | (found.lift_high.filled(lift) < lift)
    v_c, v_t = control.variance / control.count, treatment.variance / treatment.count
    base = np.where(control.mean > 0.0, control.mean, 1.0)
    error = np.sqrt(v_t + v_c * (treatment.mean / base) ** 2) / base
    away = np.abs(treatment.mean / base - 1.0 - lift)
    # Other engines show the delta interval as soon as there is a baseline.
    delta = (away > limits * error) & (control.mean > 0.0) & (error > 0.0)
    return {"ours": ever(outside & bounded), "delta": ever(delta)}


def coverage(control: Arm, treatment: Arm, lift: float) -> dict[str, float]:
    """Coverage of single-look lift intervals, with misses on either side and the share of unbounded sets."""
    found = s.compare_many(control, treatment)
    v_c, v_t = control.variance / control.count, treatment.variance / treatment.count
    gap = treatment.mean - (1.0 + lift) * control.mean
    spread = v_t + (1.0 + lift) ** 2 * v_c
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.sqrt(spread) * 1.96
        base = np.where(control.mean > 0.0, control.mean, np.nan)
        error = np.sqrt(v_t + v_c * (treatment.mean / base) ** 2) / base
        delta = np.abs(treatment.mean / base - 1.0 - lift) <= 1.96 * error
    shown = ~np.ma.getmaskarray(found.lift_low)
    inside = (found.lift_low.filled(-np.inf) <= lift) & (lift <= found.lift_high.filled(np.inf))
    # An unbounded set is still a set: it covers when the test of the true lift does not reject.
    covered = np.where(shown, inside, np.abs(gap) <= limit)
    return {
        "fieller": float(covered.mean()),
        "false_statements": float((shown & ~inside).mean()),
        "unbounded": float(1.0 - shown.mean()),
        "too_low": float((shown & (found.lift_high.filled(np.inf) < lift)).mean()),
        "too_high": float((shown & (found.lift_low.filled(-np.inf) > lift)).mean()),
        "delta": float(delta[~np.isnan(base)].mean()),
    }


def chunked(runs: int, size: int, part: Callable[[int], dict[str, float]]) -> dict[str, float]:
    """Averages over blocks of runs, so that memory stays small."""
    blocks = [min(size, runs - start) for start in range(0, runs, size)]
    found = [part(block) for block in blocks]
    return {
        name: sum(f[name] * block for f, block in zip(found, blocks, strict=True)) / runs for name in found[0]
    }
