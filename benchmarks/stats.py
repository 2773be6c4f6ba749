"""How long a comparison takes, beside tea-tasting in the same process.

    python benchmarks/stats.py

Prints one table: this package against its goals, and the ratio to tea-tasting for the same numbers. Times are
the best of several repetitions, so that a busy machine distorts them least; imports run in fresh
interpreters.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

REPEATS = 7
FIRST = "m = assay.stats.Moments.from_mean(9, 1.0, 1.0); assay.stats.compare(m, m)"


def best(call: Callable[[], Any], number: int) -> float:
    """Seconds per call, best of the repetitions."""
    call()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(number):
            call()
        found.append((time.perf_counter() - start) / number)
    return min(found)


def import_time(module: str, first: str = "pass") -> float:
    """Seconds to import a module in a fresh interpreter and run a statement; best of the repetitions."""
    code = f"import time; t = time.perf_counter(); import {module}; {first}; print(time.perf_counter() - t)"
    return min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for _ in range(REPEATS)
    )


def rows() -> list[tuple[str, float, float | None, float | None]]:
    """Name, seconds, goal in seconds, seconds of tea-tasting."""
    import tea_tasting
    from tea_tasting.aggr import Aggregates

    from assay import stats as s

    rng = np.random.default_rng(1)
    control = s.Moments.from_sum(3407, 1396.87, 52377.9767)
    treatment = s.Moments.from_sum(3461, 2422.7, 134698.29)
    theirs = {
        0: Aggregates(3407, {"y": control.mean()}, {"y": control.variance() or 0.0}, {}),
        1: Aggregates(3461, {"y": treatment.mean()}, {"y": treatment.variance() or 0.0}, {}),
    }
    metric = tea_tasting.Mean("y")
    own = s.compare(control, treatment)
    other = metric.analyze_aggregates(theirs[0], theirs[1])
    assert own.p_value is not None
    assert abs(own.p_value / other.pvalue - 1.0) < 1e-9

    size = 10_000
    counts = rng.integers(100, 10_000, size), rng.integers(100, 10_000, size)
    means = rng.normal(1.0, 0.1, size), rng.normal(1.0, 0.1, size)
    variances = rng.gamma(2.0, 1.0, size), rng.gamma(2.0, 1.0, size)
    arms = tuple(zip(counts, means, variances, strict=True))

    wide = [
        s.Moments.from_arrays({name: rng.normal(10.0, 1.0, 500) for name in ("y", "a", "b", "c")})
        for _ in range(2)
    ]
    fractions = [(k + 1) / 28 for k in range(28)]
    given = s.contrast(control, treatment)

    def mean() -> Any:
        return s.compare(control, treatment)

    return [
        ("compare two means: t, interval, Fieller lift", best(mean, 5_000), 5e-6,
         best(lambda: metric.analyze_aggregates(theirs[0], theirs[1]), 50)),
        ("the same for 10,000 at once, each", best(lambda: s.compare_many(*arms), 3) / size, 1e-6, None),
        ("ratio of totals", best(lambda: s.compare(wide[0], wide[1], s.Ratio("y", "a")), 2_000), None, None),
        ("CUPED with three covariates",
         best(lambda: s.infer(s.adjust(wide[0], wide[1], "y", ["a", "b", "c"])), 200), None, None),
        ("always-valid look",
         best(lambda: s.always_valid(given, planned=10_000, burn_in=0.0), 2_000), None, None),
        ("group-sequential look, the 28th",
         best(lambda: s.group_sequential(given, fractions), 3), None, None),
        ("two proportions with score intervals",
         best(lambda: s.two_proportions(s.Count(1000, 100), s.Count(1000, 120)), 200), None, None),
        ("beta-binomial chance to win and losses",
         best(lambda: s.beta_binomial(s.Count(1000, 100), s.Count(1000, 120)), 20), None, None),
        ("merge two moments of four columns", best(lambda: wide[0] + wide[1], 2_000), None, None),
        ("cold import", import_time("assay.stats"), 0.5, import_time("tea_tasting")),
        ("cold import and first comparison, which loads scipy.special",
         import_time("assay.stats", FIRST), None, None),
    ]  # fmt: skip


def shown(seconds: float | None) -> str:
    """A duration with three digits in a fitting unit."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale or unit == "us":
            return f"{seconds / scale:.3g} {unit}"
    raise AssertionError


def main() -> None:
    """Print the table; exit status 1 when a goal is missed."""
    missed = False
    print(f"{'':<60} {'assay':>9} {'goal':>9} {'tea-tasting':>12} {'ratio':>7}")
    for name, own, goal, other in rows():
        verdict = "" if goal is None or own <= goal else "  missed"
        missed |= bool(verdict)
        ratio = f"{other / own:.0f}x" if other else "-"
        print(f"{name:<60} {shown(own):>9} {shown(goal):>9} {shown(other):>12} {ratio:>7}{verdict}")
    raise SystemExit(int(missed))


if __name__ == "__main__":
    main()
