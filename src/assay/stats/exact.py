"""Two proportions without the normal approximation, and the family of chi-square statistics for the 2 x 2
table.

Sources: Fisher (1935); Barnard (1945), Nature 156; Boschloo (1970), Statistica Neerlandica 24; Cressie & Read
(1984), JRSS B 46, for the power divergence; Yates (1934) for the continuity correction.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from assay.stats import special
from assay.stats.contrast import Array
from assay.stats.proportions import Count
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, chi_square_tail

ExactMethod = Literal["fisher", "barnard", "boschloo"]
Divergence = Literal[
    "pearson", "log_likelihood", "freeman_tukey", "mod_log_likelihood", "neyman", "cressie_read"
]
_POWERS: dict[Divergence, float] = {
    "pearson": 1.0,
    "log_likelihood": 0.0,
    "freeman_tukey": -0.5,
    "mod_log_likelihood": -1.0,
    "neyman": -2.0,
    "cressie_read": 2.0 / 3.0,
}


class TableTest(NamedTuple):
    """A test of two proportions.

    `estimate` is treatment minus control, `statistic` that of a chi-square test.
    """

    method: str
    alternative: Alternative
    count_control: int
    count_treatment: int
    estimate: float | None
    statistic: float | None
    p_value: float | None
    log10_p_value: float | None
    reason: Reason | None = None


def exact_proportions(
    control: Count,
    treatment: Count,
    *,
    method: ExactMethod = "boschloo",
    alternative: Alternative = "two-sided",
) -> TableTest:
    """Exact test of two proportions, for counts too small for z tests.

    Fisher's conditions on the total number of successes and is conservative; Barnard's (pooled z) and
    Boschloo's maximise over the unknown common rate instead, at a cost that grows with the table: for
    hundreds of units, not millions.
    """
    control.check()
    treatment.check()
    (n, x), (m, y) = control, treatment
    if n == 0 or m == 0:
        return TableTest(method, alternative, n, m, None, None, None, None, Reason.INSUFFICIENT_DATA)
    gap = (y * n - x * m) / (n * m)
    if x + y in (0, n + m):
        return TableTest(method, alternative, n, m, gap, None, None, None, Reason.ZERO_VARIANCE)
    if method == "fisher":
        log_p = _fisher(control, treatment, alternative)
        p_value, log10_p = math.exp(log_p), log_p / math.log(10.0)
    else:
        from scipy import stats  # noqa: PLC0415 - too slow to import for what is rarely asked

        table = [[y, x], [m - y, n - x]]
        if method == "barnard":
            found = stats.barnard_exact(table, alternative=alternative, pooled=True)
        else:
            found = stats.boschloo_exact(table, alternative=alternative)
        p_value = min(1.0, float(found.pvalue))
        log10_p = math.log10(p_value)
    return TableTest(method, alternative, n, m, gap, None, p_value, log10_p)


def _fisher(control: Count, treatment: Count, alternative: Alternative) -> float:
    """Natural logarithm of the p-value of the hypergeometric test."""
    (n, x), (m, y) = control, treatment
    both = x + y
    at = np.arange(max(0, both - n), min(both, m) + 1, dtype=np.float64)

    def log_choose(total: float, k: Array) -> Array:
        found: Array = (
            special.gammaln(total + 1.0) - special.gammaln(k + 1.0) - special.gammaln(total - k + 1.0)
        )
        return found

    log_mass = log_choose(m, at) + log_choose(n, both - at) - log_choose(n + m, np.array([float(both)]))
    if alternative == "greater":
        kept = at >= y
    elif alternative == "less":
        kept = at <= y
    else:
        # As likely as the table seen, or less; equal ones must not be lost to rounding.
        kept = log_mass <= log_mass[at == y] + 1e-7
    return min(0.0, float(special.logsumexp(log_mass[kept])))


def contingency(
    control: Count, treatment: Count, *, method: Divergence = "pearson", correction: bool = True
) -> TableTest:
    """Test of independence in the 2 x 2 table by a power divergence statistic, two-sided, one degree of
    freedom.

    `correction` moves each cell half a unit towards its expectation (Yates).
    """
    control.check()
    treatment.check()
    (n, x), (m, y) = control, treatment
    if n == 0 or m == 0:
        return TableTest(method, "two-sided", n, m, None, None, None, None, Reason.INSUFFICIENT_DATA)
    gap = (y * n - x * m) / (n * m)
    both = x + y
    if both in (0, n + m):
        return TableTest(method, "two-sided", n, m, gap, None, None, None, Reason.ZERO_VARIANCE)
    total = n + m
    expected = [size * part / total for size in (n, m) for part in (both, total - both)]
    # All four cells are equally far from their expectation; integers keep that distance exact.
    away = (y * n - x * m) / total
    if correction:
        away = math.copysign(max(0.0, abs(away) - 0.5), away)
    gaps = [side * away / mean for side, mean in zip((-1.0, 1.0, 1.0, -1.0), expected, strict=True)]
    power = _POWERS[method]
    if power <= -1.0 and min(gaps) <= -1.0:
        # These statistics divide by the observed counts.
        return TableTest(method, "two-sided", n, m, gap, None, None, None, Reason.INSUFFICIENT_DATA)
    # Cressie & Read's statistic without its linear part, which adds up to zero over the table: then no cell
    # is negative, and nothing cancels between cells.
    statistic = math.fsum(mean * _excess(each, power) for each, mean in zip(gaps, expected, strict=True))
    tail = chi_square_tail(statistic, 1)
    return TableTest(method, "two-sided", n, m, gap, statistic, tail.p, tail.log10_p)


def _excess(gap: float, power: float) -> float:
    """2 ((1 + g)^(p + 1) - 1 - (p + 1) g) / (p (p + 1)), with its limits at p = 0 and p = -1.

    Near the expectation, as all cells of a large sample are, that cancels: its series is taken instead.
    """
    if abs(gap) < 0.05:
        term = total = gap * gap
        for order in range(2, 30):
            term *= (power + 1.0 - order) / (order + 1.0) * gap
            total += term
        return total
    if power == 1.0:
        return gap * gap
    ratio = 1.0 + gap
    if power == 0.0:
        return 2.0 * (ratio * math.log(ratio) - gap) if ratio > 0.0 else 2.0
    if power == -1.0:
        return 2.0 * (gap - math.log(ratio))
    return 2.0 * (math.pow(ratio, power + 1.0) - 1.0 - (power + 1.0) * gap) / (power * (power + 1.0))
