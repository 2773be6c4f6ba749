"""Experiments by the thousand: how often does a rule call an effect that is not there, and one that is?

Units are real ones from a file, dealt to the arms anew in every run, or drawn from a rate or a normal
distribution. Each run is looked at on the way; every rule sees the same looks. Chunks of runs have seeds of
their own, so that the numbers do not depend on how many processes share the work.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.errors import Invalid
from assay.offline.request import Request
from assay.offline.source import opened
from assay.offline.units import unit_values
from assay.stats import boundaries, compare_many, multiplier, tuned_rho2
from assay.stats.sequential import BURN_IN
from assay.stats.tails import Alternative, critical_value

Array = npt.NDArray[np.float64]

#: Runs that are simulated together, with one seed.
CHUNK: Final = 100
#: Numbers drawn below which a second process costs more than it saves.
_WORTH: Final = 5_000_000

#: The rules, by name, and what each one does.
RULES: Final = {
    "fixed": "one look at the end",
    "peeking": "the fixed test at every look",
    "group-sequential": "O'Brien-Fleming spending at every look",
    "always-valid": "confidence sequence at every look",
    "chance-to-win": "a chance to win above 1 - alpha at any look",
}


@dataclass(frozen=True, slots=True)
class Population:
    """Where units come from: `values` of real ones, or a normal distribution, or with `sd=None` a rate."""

    mean: float
    sd: float | None = None
    values: Array | None = None
    units: int = 0

    @property
    def binary(self) -> bool:
        """Whether a unit is a yes or a no."""
        if self.values is None:
            return self.sd is None
        return bool(np.isin(self.values, (0.0, 1.0)).all())


@dataclass(frozen=True, slots=True)
class Trial:
    """How each simulated experiment is run: equally spaced looks, `share` of the units in the treatment."""

    looks: int = 28
    runs: int = 2000
    lift: float = 0.1
    alpha: float = 0.05
    share: float = 0.5
    alternative: Alternative = "two-sided"
    seed: int = 1


class Score(NamedTuple):
    """Of all runs, how many a rule called, and the units that it used in them together (shares of a run)."""

    called: int
    used: float
    covered: int | None


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of runs with its simulation error."""

    rate: float
    error: float


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What a rule did without an effect and with it.

    `coverage` is the share of runs in which the interval holds the true effect (at all looks at once, for the
    sequential rules); `used` the average share of the planned units when the effect is there.
    """

    rule: str
    false_positives: Rate
    power: Rate
    coverage: Rate | None
    used: float


def populations(request: Request) -> dict[str, Population]:
    """The units of a file, by metric; the file's values are in memory then, one number for each unit."""
    with opened(request.path, request.form, request.memory) as source:
        found = unit_values(source, request)
    for name, values in found.items():
        if not len(values) or values.min() == values.max():
            raise Invalid(f"{request.path}: all units have the same {name}; there is nothing to simulate.")
    return {
        name: Population(float(values.mean()), values=values, units=len(values))
        for name, values in found.items()
    }


def stored(values: Iterable[dict[str, Any]]) -> tuple[dict[str, Population], list[str]]:
    """The units of a stored experiment by metric, and sentences on metrics that have none to deal.

    `values` are messages: a metric's name, with a sentence or None, then lists of its values.
    """
    found: dict[str, list[float]] = {}
    lacking: list[str] = []
    name = ""
    for message in values:
        if "metric" in message:
            name = message["metric"]
            if message["sentence"] is not None:
                lacking.append(message["sentence"])
        else:
            found.setdefault(name, []).extend(message["values"])
    if not found:
        raise Invalid(" ".join(lacking) or "The experiment has no metric to simulate.")
    arrays = {name: np.array(numbers, dtype=np.float64) for name, numbers in found.items()}
    return {
        name: Population(float(values.mean()), values=values, units=len(values))
        for name, values in arrays.items()
    }, lacking


def imagined(baseline: float | None, mean: float | None, sd: float | None, units: int) -> Population:
    """Units drawn from a rate, or from a normal distribution."""
    if (baseline is None) == (mean is None):
        raise Invalid("Give a file, or --baseline for a rate, or --mean with --sd.")
    if baseline is not None:
        return Population(baseline, units=units)
    if sd is None or sd <= 0.0:
        raise Invalid.field("--sd", "--mean needs a standard deviation above 0.")
    return Population(mean or 0.0, sd, units=units)


def simulate(
    population: Population, trial: Trial, *, jobs: int = 1, progress: Callable[[int], None] = lambda _: None
) -> tuple[RuleResult, ...]:
    """Run what passed `check`, with and without the effect; `progress` hears how many runs were added."""
    sizes = [min(CHUNK, trial.runs - start) for start in range(0, trial.runs, CHUNK)]
    tasks = [(trial, at, size) for at, size in enumerate(sizes)]
    totals: list[dict[str, tuple[Score, Score]]] = []
    draws = trial.runs * (population.units if population.values is not None else trial.looks * 4)
    if jobs == 1 or draws < _WORTH:
        for task in tasks:
            totals.append(_chunk(population, *task))
            progress(task[2])
    else:
        with ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_take, initargs=(population,)
        ) as pool:
            for found, size in zip(pool.map(_remote, tasks), sizes, strict=True):
                totals.append(found)
                progress(size)
    return tuple(_result(rule, [each[rule] for each in totals], trial.runs) for rule in RULES)


def check(population: Population, trial: Trial, name: str = "the metric") -> None:
    """Raise `Invalid` where nothing could be simulated."""
    if population.units < 20 * trial.looks:
        raise Invalid.field(
            "--looks",
            f"{trial.looks} looks need at least {20 * trial.looks:,} units; there are {population.units:,}.",
        )
    if not 0.0 < trial.alpha < 1.0:
        raise Invalid.field("--alpha", f"{trial.alpha:g} does not lie between 0 and 1.")
    if not 0.0 < trial.share < 1.0:
        raise Invalid.field("--share", f"{trial.share:g} does not lie between 0 and 1.")
    if population.binary and not 0.0 < population.mean < 1.0:
        raise Invalid.field("--baseline", f"{population.mean:g} is no share between 0 and 1.")
    if population.binary and not 0.0 <= population.mean * (1.0 + trial.lift) <= 1.0:
        rate = population.mean * (1.0 + trial.lift)
        raise Invalid.field(
            "--lift",
            f"{trial.lift:g} makes {rate:g} of the {population.mean:g} that {name} has, which is no share "
            "between 0 and 1.",
        )
    if not population.binary and population.mean == 0.0:
        raise Invalid.field("--lift", f"a lift needs a mean other than 0; {name} has 0.")


# What a process was given when it started; values are large, and every chunk needs them.
_given: list[Population] = []


def _take(population: Population) -> None:
    _given[:] = [population]


def _remote(task: tuple[Trial, int, int]) -> dict[str, tuple[Score, Score]]:
    return _chunk(_given[0], *task)


class _Arm(NamedTuple):
    """Cumulative units, means and sample variances, each of shape (runs, looks)."""

    units: Array
    mean: Array
    variance: Array


def _chunk(population: Population, trial: Trial, at: int, runs: int) -> dict[str, tuple[Score, Score]]:
    """Scores of every rule over some runs, without and with the effect."""
    seeds = np.random.SeedSequence([trial.seed, at]).spawn(2)
    without, with_effect = (
        _judged(
            *_draw(population, trial, lift, runs, np.random.default_rng(seed)),
            trial,
            lift * abs(population.mean),
        )
        for lift, seed in zip((0.0, trial.lift), seeds, strict=True)
    )
    return {rule: (without[rule], with_effect[rule]) for rule in RULES}


def _draw(
    population: Population, trial: Trial, lift: float, runs: int, rng: np.random.Generator
) -> tuple[_Arm, _Arm]:
    if population.values is not None:
        return _dealt(population, population.values, trial, lift, runs, rng)
    edges = np.linspace(0, population.units, trial.looks + 1).round()
    arriving = np.diff(edges).astype(np.int64)
    treated = rng.binomial(arriving, trial.share, (runs, trial.looks))
    shift = lift * abs(population.mean)
    return (
        _drawn(population, arriving - treated, population.mean, rng),
        _drawn(population, treated, population.mean + shift, rng),
    )


def _drawn(
    population: Population, counts: npt.NDArray[np.int64], mean: float, rng: np.random.Generator
) -> _Arm:
    if population.sd is None:
        hits = rng.binomial(counts, mean).astype(np.float64)
        return _cumulative(
            counts.astype(np.float64),
            hits - mean * counts,
            hits * (1 - 2 * mean) + mean * mean * counts,
            mean,
        )
    # Sum and sum of squares of normal values, drawn from their own distributions.
    size = counts.astype(np.float64)
    sums = rng.standard_normal(counts.shape) * np.sqrt(size)
    inside = rng.chisquare(np.maximum(size - 1.0, 1e-9))
    squares = np.where(size > 1.0, inside, 0.0) + sums * sums / np.maximum(size, 1.0)
    return _cumulative(size, population.sd * sums, population.sd**2 * squares, mean)


def _dealt(
    population: Population, values: Array, trial: Trial, lift: float, runs: int, rng: np.random.Generator
) -> tuple[_Arm, _Arm]:
    """Real units in a new order and new arms; the effect is put on the units that are treated."""
    centre = population.mean
    starts = np.linspace(0, len(values), trial.looks + 1).round().astype(np.int64)[:-1]
    binary = population.binary
    parts = np.empty((2, 3, runs, trial.looks))
    for run in range(runs):
        mixed = values[rng.permutation(len(values))]
        treated = rng.random(len(values)) < trial.share
        if lift and binary:
            mixed = np.where(treated, _flipped(mixed, centre, lift, rng), mixed)
        elif lift:
            mixed = np.where(treated, mixed + lift * np.sign(centre) * mixed, mixed)
        away = mixed - centre
        for side, mine in enumerate((~treated, treated)):
            inside = np.where(mine, away, 0.0)
            parts[side, 0, run] = np.add.reduceat(mine.astype(np.float64), starts)
            parts[side, 1, run] = np.add.reduceat(inside, starts)
            parts[side, 2, run] = np.add.reduceat(inside * inside, starts)
    low, high = (_cumulative(side[0], side[1], side[2], centre) for side in parts)
    return low, high


def _flipped(values: Array, rate: float, lift: float, rng: np.random.Generator) -> Array:
    """Yes and no with a rate higher (or lower) by the lift: just enough of the others change sides."""
    change = rng.random(len(values))
    if lift > 0.0:
        return np.where((values == 0.0) & (change < rate * lift / (1.0 - rate)), 1.0, values)
    return np.where((values == 1.0) & (change < -lift), 0.0, values)


def _cumulative(counts: Array, sums: Array, squares: Array, centre: float) -> _Arm:
    """From sums of deviations from `centre`, look by look, to the arms as they stood at each look."""
    n = np.cumsum(counts, axis=1)
    total, square = np.cumsum(sums, axis=1), np.cumsum(squares, axis=1)
    size = np.maximum(n, 1.0)
    return _Arm(
        n, centre + total / size, np.maximum(square - total * total / size, 0.0) / np.maximum(n - 1.0, 1.0)
    )


def _judged(control: _Arm, treatment: _Arm, trial: Trial, truth: float) -> dict[str, Score]:
    tests = compare_many(control, treatment, alpha=trial.alpha, alternative=trial.alternative)
    z = tests.statistic.filled(0.0)
    toward = np.abs(z) if trial.alternative == "two-sided" else (z if trial.alternative == "greater" else -z)
    p_values, error = tests.p_value.filled(1.0), tests.standard_error.filled(math.inf)
    away = np.abs(tests.estimate.filled(0.0) - truth)
    if trial.alternative != "two-sided":
        away = (tests.estimate.filled(0.0) - truth) * (1.0 if trial.alternative == "greater" else -1.0)
    fractions = [(look + 1) / trial.looks for look in range(trial.looks)]
    sides = 2 if trial.alternative == "two-sided" else 1
    planned = boundaries(fractions, alpha=trial.alpha, sides=2 if sides == 2 else 1)
    limits = np.array([math.inf if limit is None else limit for limit in planned.z])
    k = tuned_rho2(1.0, trial.alpha, trial.alternative)
    valid = np.array([multiplier(k * t, trial.alpha, trial.alternative) for t in fractions])
    ready = _effective(control) & _effective(treatment)
    likely = critical_value(None, trial.alpha, "greater")
    last = np.zeros(trial.looks, dtype=bool)
    last[-1] = True
    ends = tests.high.filled(math.inf)[:, -1], tests.low.filled(-math.inf)[:, -1]
    return {
        "fixed": _score((p_values <= trial.alpha) & last, (truth <= ends[0]) & (truth >= ends[1])),
        "peeking": _score(p_values <= trial.alpha, None),
        "group-sequential": _score(toward >= limits, np.all(away <= limits * error, axis=1)),
        "always-valid": _score((toward >= valid) & ready, np.all((away <= valid * error) | ~ready, axis=1)),
        "chance-to-win": _score(toward > likely, None),
    }


def _effective(arm: _Arm) -> npt.NDArray[np.bool_]:
    """Whether an arm has the effective events that an always-valid verdict waits for."""
    found: npt.NDArray[np.bool_] = arm.mean**2 * np.maximum(arm.units, 1.0) > BURN_IN * arm.variance
    return found


def _score(called: npt.NDArray[np.bool_], covered: npt.NDArray[np.bool_] | None) -> Score:
    looks = called.shape[1]
    ever = called.any(axis=1)
    stops = np.where(ever, (called.argmax(axis=1) + 1) / looks, 1.0)
    return Score(int(ever.sum()), float(stops.sum()), None if covered is None else int(covered.sum()))


def _result(rule: str, scores: Sequence[tuple[Score, Score]], runs: int) -> RuleResult:
    covered = [found.covered for _, found in scores if found.covered is not None]
    return RuleResult(
        rule,
        _rate(sum(found.called for found, _ in scores), runs),
        _rate(sum(found.called for _, found in scores), runs),
        _rate(sum(covered), runs) if covered else None,
        sum(found.used for _, found in scores) / runs,
    )


def _rate(count: int, runs: int) -> Rate:
    share = count / runs
    return Rate(share, math.sqrt(share * (1.0 - share) / runs))


def document(
    name: str, population: Population, trial: Trial, results: Sequence[RuleResult]
) -> dict[str, Any]:
    """The results for one metric, for programs."""
    return {
        "name": name,
        "units": population.units,
        "mean": population.mean,
        "real_units": population.values is not None,
        "looks": trial.looks,
        "runs": trial.runs,
        "lift": trial.lift,
        "alpha": trial.alpha,
        "alternative": trial.alternative,
        "share": trial.share,
        "seed": trial.seed,
        "rules": [
            {
                "rule": each.rule,
                "what": RULES[each.rule],
                "false_positive_rate": each.false_positives.rate,
                "false_positive_error": each.false_positives.error,
                "power": each.power.rate,
                "power_error": each.power.error,
                "coverage": None if each.coverage is None else each.coverage.rate,
                "units_used": each.used,
            }
            for each in results
        ],
    }
