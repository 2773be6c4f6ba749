"""Proportions: intervals for one rate, tests and intervals for two, at small counts too.

Sources: Wilson (1927); Clopper & Pearson (1934); Agresti & Coull (1998); Newcombe (1998), Statistics in
Medicine 17; Agresti & Caffo (2000); Miettinen & Nurminen (1985), Statistics in Medicine 4; Farrington &
Manning (1990); Koopman (1984), Biometrics 40; Katz et al. (1978).
"""

import math
from typing import Literal, NamedTuple

from assay.stats import special
from assay.stats.contrast import Contrast
from assay.stats.effect import ArmInterval, Effect, Lift, LiftMethod, infer
from assay.stats.reasons import Reason
from assay.stats.roots import find_root
from assay.stats.tails import Alternative, Interval, check_alpha, critical_value, tail_area

OneMethod = Literal["wilson", "agresti_coull", "clopper_pearson", "jeffreys", "wald"]
DifferenceMethod = Literal[
    "newcombe", "score", "score_uncorrected", "score_statsmodels", "agresti_caffo", "wald"
]
RatioMethod = Literal["log", "log_adjusted", "score", "score_uncorrected"]
# Below this many successes or failures the normal approximation of a difference is not to be trusted.
FEW = 10


class Count(NamedTuple):
    """`successes` of `units` in one arm; both are integers of any size."""

    units: int
    successes: int

    @property
    def rate(self) -> float:
        """The observed proportion."""
        return self.successes / self.units

    def check(self) -> None:
        """Raise `ValueError` unless 0 <= successes <= units."""
        if not 0 <= self.successes <= self.units:
            raise ValueError(f"successes must lie between 0 and {self.units}, got {self.successes}")


def one_proportion(arm: Count, *, alpha: float = 0.05, method: OneMethod = "wilson") -> ArmInterval:
    """Confidence interval for one proportion.

    Wilson's inverts the score test and is the default; `clopper_pearson` never covers less than it says;
    `wald` collapses at 0 and 1 and is there for comparison only (it then gives no interval).
    """
    check_alpha(alpha)
    arm.check()
    n, x = arm
    if n == 0:
        return ArmInterval(method, 0, None, None, None, Reason.NO_DATA)
    p = x / n
    error = math.sqrt(p * (1.0 - p) / n)
    z = critical_value(None, alpha, "two-sided")
    if method == "wald" and error == 0.0:
        return ArmInterval(method, n, p, None, None, Reason.ZERO_VARIANCE)
    if method == "wilson":
        interval = _wilson(arm, z)
    elif method == "agresti_coull":
        centre = (x + z * z / 2.0) / (n + z * z)
        reach = z * math.sqrt(centre * (1.0 - centre) / (n + z * z))
        interval = Interval(max(0.0, centre - reach), min(1.0, centre + reach))
    elif method == "wald":
        interval = Interval(max(0.0, p - z * error), min(1.0, p + z * error))
    elif method not in ("clopper_pearson", "jeffreys"):
        raise ValueError(f"there is no interval for one proportion named {method!r}")
    else:
        # Clopper & Pearson shift one parameter of the beta distribution at each end, Jeffreys adds half to
        # both.
        a, up = (0.0, 1.0) if method == "clopper_pearson" else (0.5, 0.5)
        low = float(special.betaincinv(x + a, n - x + up, alpha / 2.0)) if x + a > 0.0 else 0.0
        high = float(special.betainccinv(x + up, n - x + a, alpha / 2.0)) if n - x + a > 0.0 else 1.0
        interval = Interval(low, high)
    return ArmInterval(method, n, p, error, interval)


def _wilson(arm: Count, z: float) -> Interval:
    n, x = arm
    zz = z * z
    centre = (x + zz / 2.0) / (n + zz)
    reach = z / (n + zz) * math.sqrt(x * (n - x) / n + zz / 4.0)
    return Interval(0.0 if x == 0 else centre - reach, 1.0 if x == n else centre + reach)


def two_proportions(
    control: Count,
    treatment: Count,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    method: Literal["pooled", "unpooled"] = "pooled",
    lift: LiftMethod = "fieller",
) -> Effect:
    """z test of two proportions, with intervals that invert the same test.

    `pooled` is the score test (its square is Pearson's chi-square); its intervals are the score intervals of
    the difference and of the relative risk. `unpooled` is Wald's test with Wald's interval and Fieller's lift
    (or the one that `lift` names); with 0 or 100 % in both arms it says nothing. Variances have divisor n.
    """
    check_alpha(alpha)
    control.check()
    treatment.check()
    name = f"{method}_z"
    given = _contrast(control, treatment, name)
    if method == "unpooled" or given.reason in (Reason.NO_DATA, Reason.INSUFFICIENT_DATA):
        return infer(given, alpha=alpha, alternative=alternative, reference="normal", lift=lift)
    n, m = control.units, treatment.units
    both = control.successes + treatment.successes
    # Integers all the way to the division: exact for counts beyond 2^53.
    pooled = both * (n + m - both) / ((n + m) * n * m)
    estimate = _difference(control, treatment)
    critical = critical_value(None, alpha, alternative)
    if pooled == 0.0:
        base = infer(given, alpha=alpha, alternative=alternative, reference="normal", lift=lift)
        # All or none converted in both arms: no test, but the score interval still bounds the difference.
        interval = _one_side(difference_interval(control, treatment, alpha=alpha), alternative)
        return base._replace(interval=interval, estimate=estimate, critical=critical)
    error = math.sqrt(pooled)
    statistic = estimate / error
    p_value, log10_p = tail_area(statistic, None, alternative)
    limits = alpha if alternative == "two-sided" else min(2.0 * alpha, 0.999)
    interval = difference_interval(control, treatment, alpha=limits, method="score_uncorrected")
    ratio = ratio_interval(control, treatment, alpha=limits, method="score_uncorrected")
    if ratio.interval is not None:
        ratio = ratio._replace(interval=_one_side(ratio.interval, alternative))
    return Effect(
        name,
        "normal",
        alternative,
        alpha,
        n,
        m,
        control.rate,
        treatment.rate,
        estimate,
        error,
        statistic,
        None,
        p_value,
        log10_p,
        critical,
        _one_side(interval, alternative),
        ratio,
    )


def _one_side(interval: Interval, alternative: Alternative) -> Interval:
    return Interval(
        None if alternative == "less" else interval.low, None if alternative == "greater" else interval.high
    )


def _difference(control: Count, treatment: Count) -> float:
    (n, x), (m, y) = control, treatment
    return (y * n - x * m) / (n * m)


def count_contrast(
    control: Count, treatment: Count, *, method: Literal["wald", "agresti_caffo"] = "wald"
) -> Contrast:
    """Difference of two proportions as a contrast with variances p(1-p)/n, for margins and sequential rules.

    `agresti_caffo` adds one success and one failure to each arm first.
    """
    control.check()
    treatment.check()
    if method == "agresti_caffo" and control.units and treatment.units:
        control = Count(control.units + 2, control.successes + 1)
        treatment = Count(treatment.units + 2, treatment.successes + 1)
    return _contrast(control, treatment, f"proportion_{method}")


def _contrast(control: Count, treatment: Count, name: str) -> Contrast:
    (n, x), (m, y) = control, treatment
    if n == 0 or m == 0:
        reason = Reason.INSUFFICIENT_DATA if n + m else Reason.NO_DATA
        return Contrast(name, n, m, None, None, None, None, None, None, None, None, reason)
    part_c, part_t = x * (n - x) / n**3, y * (m - y) / m**3
    gap, variance = _difference(control, treatment), part_c + part_t
    reason_or_none = None if variance > 0.0 else Reason.ZERO_VARIANCE
    return Contrast(name, n, m, x / n, gap, variance, part_c, -part_c, None, x / n, y / m, reason_or_none)


def difference_interval(
    control: Count, treatment: Count, *, alpha: float = 0.05, method: DifferenceMethod = "newcombe"
) -> Interval:
    """Two-sided confidence interval for treatment minus control; both arms need at least one unit.

    `newcombe` combines the arms' Wilson limits, `score` inverts Miettinen & Nurminen's test
    (`score_uncorrected` without their factor N/(N-1), which is Mee's), `agresti_caffo` adds one success and
    one failure to each arm. All three hold at zero counts; `wald` does not.
    """
    check_alpha(alpha)
    control.check()
    treatment.check()
    if not control.units or not treatment.units:
        raise ValueError("an interval for a difference needs at least one unit in each arm")
    z = critical_value(None, alpha, "two-sided")
    gap = _difference(control, treatment)
    if method == "newcombe":
        a, b = _wilson(control, z), _wilson(treatment, z)
        low_c, high_c, low_t, high_t = (float(end or 0.0) for end in (a.low, a.high, b.low, b.high))
        p, q = control.rate, treatment.rate
        return Interval(
            gap - math.hypot(q - low_t, high_c - p),
            gap + math.hypot(high_t - q, p - low_c),
        )
    if method in ("score", "score_uncorrected", "score_statsmodels"):
        return _score_interval(control, treatment, z, method)
    if method not in ("agresti_caffo", "wald"):
        raise ValueError(f"there is no interval for a difference of proportions named {method!r}")
    if method == "agresti_caffo":
        control = Count(control.units + 2, control.successes + 1)
        treatment = Count(treatment.units + 2, treatment.successes + 1)
        gap = _difference(control, treatment)
    p, q = control.rate, treatment.rate
    reach = z * math.sqrt(p * (1.0 - p) / control.units + q * (1.0 - q) / treatment.units)
    return Interval(max(-1.0, gap - reach), min(1.0, gap + reach))


ScoreMethod = Literal["score", "score_uncorrected", "score_statsmodels", "score_uncorrected_statsmodels"]


def score_statistic(
    control: Count, treatment: Count, difference: float, *, method: ScoreMethod = "score"
) -> float:
    """z for the null hypothesis p_T - p_C = difference, with the variance under that hypothesis.

    `score` is Miettinen & Nurminen's statistic (variance times N/(N-1)), `score_uncorrected` Farrington &
    Manning's. The names ending in `statsmodels` reproduce statsmodels up to 0.15, whose cubic has the
    control's successes where its units belong; the limits move in the fourth digit. It is there to compare
    reports, not to be chosen.
    """
    (n, x), (m, y) = control, treatment
    p_c = constrained_rate(control, treatment, difference, slip=method.endswith("statsmodels"))
    p_t = min(max(p_c + difference, 0.0), 1.0)
    variance = p_c * (1.0 - p_c) / n + p_t * (1.0 - p_t) / m
    if not method.startswith("score_uncorrected"):
        variance *= (n + m) / (n + m - 1)
    gap = y / m - x / n - difference
    if variance <= 0.0:
        return 0.0 if gap == 0.0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def constrained_rate(control: Count, treatment: Count, difference: float, *, slip: bool = False) -> float:
    """Maximum likelihood estimate of the control rate when p_T - p_C = difference.

    The root in range of the likelihood's cubic, by its trigonometric solution (Farrington & Manning 1990,
    appendix).
    """
    (n, x), (m, y) = control, treatment
    d = difference
    # Cubic a p^3 + b p^2 + c p + e = 0 in the control rate p, the treatment rate being p + d.
    a = float(n + m)
    b = (2.0 * n + m) * d - (n + m) - (x + y)
    c = ((x if slip else n) * d - (n + m) - 2.0 * x) * d + x + y
    e = x * d * (1.0 - d)
    third = b / (3.0 * a)
    v = third**3 - b * c / (6.0 * a * a) + e / (2.0 * a)
    u = math.copysign(math.sqrt(max(third * third - c / (3.0 * a), 0.0)), v)
    cosine = v / u**3 if u != 0.0 else 0.0
    angle = (math.pi + math.acos(min(max(cosine, -1.0), 1.0))) / 3.0
    rate = 2.0 * u * math.cos(angle) - third
    return min(max(rate, 0.0, -d), 1.0, 1.0 - d)


def _score_interval(control: Count, treatment: Count, z: float, method: ScoreMethod) -> Interval:
    gap = _difference(control, treatment)

    def above(difference: float) -> float:
        return _clip(score_statistic(control, treatment, difference, method=method)) - z

    def below(difference: float) -> float:
        return _clip(score_statistic(control, treatment, difference, method=method)) + z

    low = -1.0 if above(-1.0) <= 0.0 else find_root(above, -1.0, gap)
    high = 1.0 if below(1.0) >= 0.0 else find_root(below, gap, 1.0)
    return Interval(low, high)


def _clip(statistic: float) -> float:
    return min(max(statistic, -1e8), 1e8)


def ratio_interval(
    control: Count, treatment: Count, *, alpha: float = 0.05, method: RatioMethod = "log"
) -> Lift:
    """Relative risk less one, with a two-sided interval.

    `log` (Katz) needs successes in both arms, `log_adjusted` (Walter) adds half a success and half a unit to
    each arm and so has an interval at zero successes too, where the ratio itself has no value. `score` is
    Miettinen & Nurminen's, `score_uncorrected` Koopman's (without their factor N/(N-1)); both need successes
    in the control arm only.
    """
    check_alpha(alpha)
    control.check()
    treatment.check()
    (n, x), (m, y) = control, treatment
    if n == 0 or m == 0:
        return Lift(method, None, None, None, None, Reason.NO_DATA)
    if method not in ("log", "log_adjusted", "score", "score_uncorrected"):
        raise ValueError(f"there is no interval for a ratio of proportions named {method!r}")
    if x == 0 and method != "log_adjusted":
        return Lift(method, None, None, None, None, Reason.BASELINE_ZERO)
    value = (y * n - x * m) / (x * m) if x else None
    error = math.sqrt((n - x) / (n * x) + (m - y) / (m * y)) if x and y else None
    z = critical_value(None, alpha, "two-sided")
    if method == "log_adjusted":
        spread = math.sqrt(1.0 / (x + 0.5) - 1.0 / (n + 0.5) + 1.0 / (y + 0.5) - 1.0 / (m + 0.5))
        scale = (y + 0.5) / (m + 0.5) * (n + 0.5) / (x + 0.5)
        ends = Interval(scale * math.exp(-z * spread) - 1.0, scale * math.exp(z * spread) - 1.0)
    elif method == "log":
        if error is None or value is None:
            return Lift("log", value, None, None, None, Reason.SIGNS_DIFFER)
        scale = 1.0 + value
        ends = Interval(scale * math.exp(-z * error) - 1.0, scale * math.exp(z * error) - 1.0)
    else:
        factor = (n + m) / (n + m - 1) if method == "score" else 1.0
        ends = _score_ratio(control, treatment, z * math.sqrt(factor))
    if value is None:
        return Lift(method, None, ends, None, None, Reason.BASELINE_ZERO)
    return Lift(method, value, ends, error and error * (1.0 + value))


def _score_ratio(control: Count, treatment: Count, z: float) -> Interval:
    (n, x), (m, y) = control, treatment
    a, b = float(n + m), x + y

    def statistic(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        # Constrained estimate of the control rate: the smaller root of a quadratic.
        linear = n + y + ratio * (m + x)
        inside = max(linear * linear - 4.0 * ratio * a * b, 0.0)
        p = 2.0 * b / (linear + math.sqrt(inside))
        q = min(p * ratio, 1.0)
        variance = q * (1.0 - q) / m + ratio * ratio * p * (1.0 - min(p, 1.0)) / n
        gap = y / m - ratio * x / n
        if variance <= 0.0:
            return 0.0 if gap == 0.0 else math.copysign(1e8, gap)
        return _clip(gap / math.sqrt(variance))

    centre = math.log((y or 0.5) / m) - math.log(x / n)
    lowest = centre
    while statistic(lowest) < z and lowest > centre - 700.0:
        lowest -= 2.0
    highest = centre
    while statistic(highest) > -z and highest < centre + 700.0:
        highest += 2.0
    low = (
        -1.0
        if y == 0 or statistic(lowest) < z
        else math.expm1(find_root(lambda at: statistic(at) - z, lowest, lowest + 2.0))
    )
    high = math.expm1(find_root(lambda at: statistic(at) + z, highest - 2.0, highest))
    return Interval(low, high)
