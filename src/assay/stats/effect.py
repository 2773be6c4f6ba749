"""From a contrast to an effect: test, confidence interval and lift, at one critical value.

The p-value always belongs to the absolute difference; the interval of the relative lift is Fieller's, the
inversion of that very test, so the interval excludes zero exactly when the p-value is below alpha. Log-ratio
and delta intervals are offered by name.

Sources: Welch (1947), Biometrika 34; Fieller (1954), JRSS B 16; Katz et al. (1978), Biometrics 34, for the
log ratio.
"""

import math
from typing import Literal, NamedTuple

from assay.stats.contrast import NEGLIGIBLE, Contrast, Metric, contrast, mean_contrast, welch_df
from assay.stats.moments import Moments
from assay.stats.reasons import Reason
from assay.stats.tails import Alternative, Interval, build, check_alpha, critical_value, tail_area

LiftMethod = Literal["fieller", "log", "delta"]
Reference = Literal["t", "normal"]


class Lift(NamedTuple):
    """A relative effect: `value` = difference / |control|, as a fraction (0.1 is +10 %).

    `value` and `interval` are absent separately: near a zero baseline the ratio exists but no bounded
    interval does. `standard_error` is the delta method's and serves power and Bayesian summaries, not the
    interval.
    """

    method: LiftMethod | Literal["log_adjusted", "score", "score_uncorrected"]
    value: float | None
    interval: Interval | None
    standard_error: float | None = None
    g: float | None = None
    reason: Reason | None = None


class Effect(NamedTuple):
    """What was computed, on what, by which method, and when nothing can be said, why.

    `estimate` is treatment minus control in the metric's own unit; `statistic` is the estimate (less `null`)
    over its standard error; `df` is `None` for the normal reference; `p_value` is 0.0 once below the smallest
    double, and `log10_p_value` then still says how small it is. `critical` is the multiple of the standard
    error that `interval` and the lift's interval were made with.
    """

    method: str
    reference: Reference
    alternative: Alternative
    alpha: float
    count_control: int
    count_treatment: int
    control: float | None
    treatment: float | None
    estimate: float | None
    standard_error: float | None
    statistic: float | None
    df: float | None
    p_value: float | None
    log10_p_value: float | None
    critical: float | None
    interval: Interval | None
    lift: Lift
    reason: Reason | None = None

    @property
    def significant(self) -> bool | None:
        """Whether the null is rejected at `alpha`; `None` when there was no test."""
        return None if self.p_value is None else self.p_value <= self.alpha


def infer(
    given: Contrast,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    null: float = 0.0,
    lift: LiftMethod = "fieller",
) -> Effect:
    """Test a contrast and put intervals around it.

    `reference="normal"` replaces Student's t by the normal distribution; `null` is the difference under the
    null hypothesis, in the metric's unit. One-sided alternatives leave one side of the intervals unbounded
    (`None`).
    """
    check_alpha(alpha)
    estimate, variance = given.estimate, given.variance
    if given.reason is not None or estimate is None or not variance:
        return _untested(given, alpha, alternative, reference, lift)
    df = given.df if reference == "t" else None
    error = math.sqrt(variance)
    statistic = (estimate - null) / error
    p_value, log10_p = tail_area(statistic, df, alternative)
    critical = critical_value(df, alpha, alternative)
    for_lift = critical
    if lift == "log" and df is not None:
        for_lift = _log_critical(given, critical, alpha, alternative)
    reach = critical * error
    return build(
        Effect,
        (
            given.method,
            reference,
            alternative,
            alpha,
            given.count_control,
            given.count_treatment,
            given.control_shown,
            given.treatment_shown,
            estimate,
            error,
            statistic,
            df,
            p_value,
            log10_p,
            critical,
            build(
                Interval,
                (
                    None if alternative == "less" else estimate - reach,
                    None if alternative == "greater" else estimate + reach,
                ),
            ),
            relative(given, for_lift, alternative, lift),
            None,
        ),
    )


def _log_critical(given: Contrast, critical: float, alpha: float, alternative: Alternative) -> float:
    """The log ratio has Welch degrees of freedom of its own: the arms' shares of its variance differ."""
    if given.control is None or abs(given.control) < NEGLIGIBLE:
        return critical
    other = given.control + (given.estimate or 0.0)
    w, k = given.control_variance or 0.0, given.covariance or 0.0
    below, above = w / (given.control * given.control), (given.variance or 0.0) + k + k + w
    if abs(other) < NEGLIGIBLE or below + above <= 0.0:
        return critical
    own = welch_df(below, given.count_control - 1, above / (other * other), given.count_treatment - 1)
    return critical_value(own, alpha, alternative)


def _untested(
    given: Contrast, alpha: float, alternative: Alternative, reference: Reference, lift: LiftMethod
) -> Effect:
    reason = given.reason or Reason.ZERO_VARIANCE
    ratio = given.ratio
    return Effect(
        given.method,
        reference,
        alternative,
        alpha,
        given.count_control,
        given.count_treatment,
        given.control_shown,
        given.treatment_shown,
        given.estimate,
        given.standard_error,
        None,
        None,
        None,
        None,
        None,
        None,
        Lift(lift, ratio, None, None, None, reason),
        reason,
    )


def relative(
    given: Contrast, critical: float, alternative: Alternative = "two-sided", method: LiftMethod = "fieller"
) -> Lift:
    """The lift and its interval at a given critical value (a t or z quantile, or a sequential boundary).

    Fieller's set is {r : |estimate - r |m|| <= q sd(estimate - r |m|)} with m the control mean; it is an
    interval when g = q^2 Var(m)/m^2 is below 1, and unbounded otherwise.
    """
    base, estimate, variance = given.control, given.estimate, given.variance
    if base is None or estimate is None or variance is None:
        return Lift(method, None, None, None, None, given.reason or Reason.INSUFFICIENT_DATA)
    if abs(base) < NEGLIGIBLE:
        return Lift(method, None, None, None, None, Reason.BASELINE_ZERO)
    w, k = given.control_variance or 0.0, given.covariance or 0.0
    size = base
    if base < 0.0:
        size, k = -base, -k
    value = estimate / size
    spread = variance - 2.0 * value * k + value * value * w
    error: float | None = math.sqrt(spread) / size if spread > 0.0 else 0.0
    if error == math.inf:
        error = None
    g = critical * critical * w / (size * size)
    if method == "fieller":
        found: Interval | Reason = _fieller(given, size, k, critical, g)
    elif method == "log":
        found = _log_ratio(given, critical)
    elif error is None:
        found = Reason.BASELINE_NOT_SEPARATED
    else:
        found = Interval(value - critical * error, value + critical * error)
    if isinstance(found, Reason):
        return Lift(method, value, None, error, g, found)
    if alternative != "two-sided":
        found = Interval(found.low, None) if alternative == "greater" else Interval(None, found.high)
    return build(Lift, (method, value, found, error, g, None))


def _fieller(given: Contrast, size: float, k: float, critical: float, g: float) -> Interval | Reason:
    """Roots of (size^2 - q^2 w) r^2 - 2 (estimate size - q^2 k) r + (estimate^2 - q^2 variance) = 0."""
    if g >= 1.0:
        return Reason.BASELINE_NOT_SEPARATED
    estimate, variance, w = given.estimate or 0.0, given.variance or 0.0, given.control_variance or 0.0
    qq = critical * critical
    lead = size * size * (1.0 - g)
    along = estimate * size
    middle = along - qq * k
    last = estimate * estimate - qq * variance
    # middle^2 - lead * last, written without the cancellation.
    inside = variance * size * size - 2.0 * along * k + w * estimate * estimate - qq * (w * variance - k * k)
    root = critical * math.sqrt(inside) if inside > 0.0 else 0.0
    # The root of larger size is stable; the other follows from the product, whose sign is that of the test.
    if middle > 0.0:
        far = middle + root
        return build(Interval, (last / far, far / lead))
    if middle < 0.0:
        far = middle - root
        return build(Interval, (far / lead, last / far))
    return Interval(-root / lead, root / lead)


def _log_ratio(given: Contrast, critical: float) -> Interval | Reason:
    """Symmetric interval for log(treatment / control), carried back to the lift."""
    base, estimate, variance = given.control or 0.0, given.estimate or 0.0, given.variance or 0.0
    w = given.control_variance or 0.0
    size = abs(base)
    # Both means turned so that the baseline is positive; `turn` turns the interval back.
    turn = 1.0 if base > 0.0 else -1.0
    top = size + turn * estimate
    if top < NEGLIGIBLE:
        return Reason.SIGNS_DIFFER
    own = (given.covariance or 0.0) + w
    logs = (variance + own + own - w) / (top * top) + w / (size * size) - 2.0 * own / (top * size)
    reach = critical * math.sqrt(max(logs, 0.0))
    if reach > 300.0:
        return Reason.BASELINE_NOT_SEPARATED
    ends = [turn * (top / size * math.exp(side) - 1.0) for side in (-reach, reach)]
    return Interval(min(ends), max(ends))


def compare(
    control: Moments,
    treatment: Moments,
    metric: Metric | str | None = None,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    lift: LiftMethod = "fieller",
) -> Effect:
    """Compare two arms: Welch's t on the difference (or a z test with `reference="normal"`), lift by Fieller.

    `metric` is a column name (its mean), `Mean`, `Ratio`, or nothing for the first column.
    """
    given = mean_contrast(control, treatment) if metric is None else contrast(control, treatment, metric)
    return infer(given, alpha=alpha, alternative=alternative, reference=reference, lift=lift)


class ArmInterval(NamedTuple):
    """One arm's value with its confidence interval; `units` is how many units it rests on."""

    method: str
    units: int
    value: float | None
    standard_error: float | None
    interval: Interval | None
    reason: Reason | None = None


def arm_interval(arm: Moments, metric: Metric | str | None = None, *, alpha: float = 0.05) -> ArmInterval:
    """Confidence interval for the mean or ratio of one arm (Student's t with n - 1 degrees of freedom).

    For proportions `assay.stats.proportions.one_proportion` (Wilson) keeps its coverage at small counts.
    """
    check_alpha(alpha)
    # The arm against itself gives its own value and variance by the very same code as a comparison.
    given = contrast(arm, arm, metric)
    if given.reason is not None or given.control_variance is None or given.control is None:
        return ArmInterval(given.method, arm.count, given.control, None, None, given.reason)
    error = math.sqrt(given.control_variance)
    reach = critical_value(arm.count - 1, alpha, "two-sided") * error
    value = given.control
    return ArmInterval(given.method, arm.count, value, error, Interval(value - reach, value + reach))
