"""Design: power, sample size, smallest detectable effect and duration, for every test in the package.

Sequential tests are designed by their own boundary-crossing probabilities, so their cost is exact rather than
a bound from the last look alone.

Sources: Cohen (1988); Fleiss, Levin & Paik (2003) for proportions; Jennison & Turnbull (2000), chapters 2 and
7.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from assay.stats import special
from assay.stats.adjusted import adjust
from assay.stats.boundaries import Spending, boundaries, crossing, drift_for_power
from assay.stats.contrast import Metric, contrast, welch_df
from assay.stats.effect import Reference
from assay.stats.moments import Moments
from assay.stats.reasons import Reason
from assay.stats.roots import find_root
from assay.stats.sequential import multiplier, tuned_rho2
from assay.stats.tails import Alternative, check_alpha, critical_value, normal_quantile, normal_sf

Test = Literal["fixed", "group_sequential", "always_valid"]
ProportionFormula = Literal["baseline_null", "pooled_null", "unpooled", "cohen_h"]


class Baseline(NamedTuple):
    """What the control is expected to look like: mean of the metric and variance of one unit.

    For a ratio the variance is that of a unit's influence, and with covariates what they leave over, so that
    variance / n is the variance of the arm's estimate either way. `treatment_variance` defaults to the
    control's.
    """

    mean: float
    variance: float
    treatment_variance: float | None = None

    @property
    def spread(self) -> tuple[float, float]:
        """Variances of a control and of a treatment unit."""
        other = self.variance if self.treatment_variance is None else self.treatment_variance
        return self.variance, other


class Design(NamedTuple):
    """How the experiment will be judged.

    `ratio` is treatment units per control unit; `looks` the number of equally spaced looks of a sequential
    test, the last one at the planned size (`fractions` overrides it); `spending` and `spending_power` belong
    to group-sequential tests. An always-valid test is tuned to the planned size.
    """

    test: Test = "fixed"
    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    ratio: float = 1.0
    looks: int = 28
    fractions: tuple[float, ...] = ()
    spending: Spending = "obrien_fleming"
    spending_power: float = 1.0


FIXED = Design()


class Plan(NamedTuple):
    """Size of an experiment: units per arm at its end, what it detects, and with which power.

    `expected_units` is the average total at which a sequential experiment stops when the effect is as
    planned; for a fixed test it equals `units`.
    """

    design: Design
    control: float | None
    treatment: float | None
    units: float | None
    difference: float | None
    lift: float | None
    power: float
    expected_units: float | None
    reason: Reason | None = None


def baseline_of(
    arm: Moments, metric: Metric | str | None = None, covariates: Sequence[Metric | str] = ()
) -> Baseline | Reason:
    """Baseline from one group of units of the past: mean, ratio, and either after covariate adjustment."""
    if covariates:
        # The group beside itself: pooled coefficients and residual variance are the group's own.
        given = adjust(arm, arm, metric or arm.columns[0], covariates)
        if given.reason or given.variance is None or given.control is None:
            return given.reason or Reason.INSUFFICIENT_DATA
        return Baseline(given.control, given.variance / 2.0 * arm.count)
    given = contrast(arm, arm, metric)
    if given.reason or given.control_variance is None or given.control is None:
        return given.reason or Reason.INSUFFICIENT_DATA
    return Baseline(given.control, given.control_variance * arm.count)


def _limits(design: Design) -> tuple[tuple[float, ...], tuple[float | None, ...], Literal[1, 2]]:
    """Information fractions and limits of a design; they do not depend on its size."""
    check_alpha(design.alpha)
    sides: Literal[1, 2] = 2 if design.alternative == "two-sided" else 1
    if design.test == "fixed":
        return (1.0,), (critical_value(None, design.alpha, design.alternative),), sides
    fractions = design.fractions or tuple((k + 1) / design.looks for k in range(design.looks))
    if design.test == "group_sequential":
        plan = boundaries(
            fractions, alpha=design.alpha, sides=sides, spending=design.spending, power=design.spending_power
        )
        return fractions, plan.z, sides
    tuned = tuned_rho2(1.0, design.alpha, design.alternative)
    return fractions, tuple(multiplier(tuned * t, design.alpha, design.alternative) for t in fractions), sides


def _variance_factor(baseline: Baseline, design: Design) -> float:
    """Variance of the difference per control unit: Var = factor / n_control."""
    own, other = baseline.spread
    return own + other / design.ratio


def power_of(baseline: Baseline, difference: float, units: float, design: Design = FIXED) -> float:
    """Chance to detect a true absolute difference with `units` in both arms together."""
    if units <= 0.0:
        raise ValueError(f"the number of units must be positive, got {units}")
    fractions, limits, sides = _limits(design)
    drift = _toward(difference, design) / math.sqrt(
        _variance_factor(baseline, design) * (1.0 + design.ratio) / units
    )
    return min(1.0, crossing(fractions, limits, drift=drift, sides=sides).total)


def _toward(difference: float, design: Design) -> float:
    return -difference if design.alternative == "less" else difference


def plan(
    baseline: Baseline,
    *,
    difference: float | None = None,
    lift: float | None = None,
    power: float = 0.8,
    design: Design = FIXED,
) -> Plan:
    """Units needed to detect an absolute difference, or a lift relative to |mean|, with the given power.

    Numbers of units are not rounded: round up when traffic is bought, not in between.
    """
    if (difference is None) == (lift is None):
        raise ValueError("give either difference or lift")
    size = abs(baseline.mean)
    if difference is None:
        difference = (lift or 0.0) * size
    relative = difference / size if size else None
    aim = _toward(difference, design)
    if difference == 0.0 or (design.alternative != "two-sided" and aim < 0.0):
        return Plan(design, None, None, None, difference, relative, power, None, Reason.UNREACHABLE)
    fractions, limits, sides = _limits(design)
    drift = drift_for_power(fractions, limits, power, sides=sides)
    control = drift * drift * _variance_factor(baseline, design) / (difference * difference)
    units = control * (1.0 + design.ratio)
    share = _expected_share(fractions, limits, sides, drift)
    return Plan(design, control, control * design.ratio, units, difference, relative, power, units * share)


def detectable(baseline: Baseline, units: float, *, power: float = 0.8, design: Design = FIXED) -> Plan:
    """The smallest effect, without sign, that `units` in both arms together detect with the given power."""
    if units <= 0.0:
        raise ValueError(f"the number of units must be positive, got {units}")
    fractions, limits, sides = _limits(design)
    drift = drift_for_power(fractions, limits, power, sides=sides)
    control = units / (1.0 + design.ratio)
    difference = drift * math.sqrt(_variance_factor(baseline, design) / control)
    lift = difference / abs(baseline.mean) if baseline.mean else None
    share = _expected_share(fractions, limits, sides, drift)
    return Plan(design, control, units - control, units, difference, lift, power, units * share)


def _expected_share(
    fractions: Sequence[float], limits: Sequence[float | None], sides: Literal[1, 2], drift: float
) -> float:
    """Average information fraction at the stop."""
    found = crossing(fractions, limits, drift=drift, sides=sides)
    stops = [up + down for up, down in zip(found.upper, found.lower, strict=True)]
    going = 1.0 - math.fsum(stops[:-1])
    return (
        math.fsum(stop * t for stop, t in zip(stops[:-1], fractions[:-1], strict=True))
        + going * fractions[-1]
    )


def days_needed(units: float, daily: float | Sequence[float]) -> int | None:
    """Days until `units` have entered, at a constant number a day or with the numbers expected day by day.

    Day-by-day numbers continue with the mean of their last seven; `None` when that never suffices.
    """
    if isinstance(daily, (int, float)):
        return math.ceil(units / daily) if daily > 0.0 else None
    reached = 0.0
    for day, arriving in enumerate(daily, start=1):
        reached += arriving
        if reached >= units:
            return day
    last = list(daily)[-7:]
    rate = math.fsum(last) / len(last) if last else 0.0
    return len(daily) + math.ceil((units - reached) / rate) if rate > 0.0 else None


def power_means(
    std_effect: float,
    n_control: float,
    *,
    ratio: float = 1.0,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    welch: bool = False,
) -> float:
    """Power of the two-sample test for a difference of `std_effect` standard deviations, arms equally noisy.

    The t version uses the noncentral t distribution with n_control (1 + ratio) - 2 degrees of freedom, or
    Welch's with `welch=True`; the two differ when the arms' sizes do.
    """
    check_alpha(alpha)
    drift = std_effect * math.sqrt(n_control * ratio / (1.0 + ratio))
    drift = -drift if alternative == "less" else drift
    sides = 2 if alternative == "two-sided" else 1
    if reference == "normal":
        z = critical_value(None, alpha, alternative)
        return normal_sf(z - drift) + (normal_sf(z + drift) if sides == 2 else 0.0)
    df = n_control * (1.0 + ratio) - 2.0
    if welch and n_control > 1.0 and n_control * ratio > 1.0:
        df = welch_df(1.0 / n_control, n_control - 1.0, 1.0 / (n_control * ratio), n_control * ratio - 1.0)
    if df <= 0.0:
        return alpha
    t = critical_value(df, alpha, alternative)
    found = _noncentral_t_above(df, drift, t)
    return found + (_noncentral_t_above(df, -drift, t) if sides == 2 else 0.0)


def _noncentral_t_above(df: float, drift: float, t: float) -> float:
    """P(T > t) for noncentral t: the normal tail averaged over the chi distribution of the standard error.

    Library routines lose digits, and then the value, beyond some ten thousand degrees of freedom.
    """
    points, weights = special.roots_legendre(160)
    reach = 9.0 / math.sqrt(2.0 * df)
    low, high = max(0.0, 1.0 - reach), 1.0 + reach * (1.0 + reach)
    s = 0.5 * (high - low) * points + 0.5 * (high + low)
    # Density of s = sqrt(chi^2 / df) up to its constant, which the weights' sum replaces; its peak is near 1.
    log_density = (df - 1.0) * np.log(s) - 0.5 * df * (s - 1.0) * (s + 1.0)
    mass = weights * np.exp(log_density - log_density.max())
    return float(mass @ special.ndtr(drift - t * s) / mass.sum())


def sample_size_means(
    std_effect: float,
    *,
    ratio: float = 1.0,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    welch: bool = False,
) -> float:
    """Control units (not rounded) for a given standardised effect.

    The treatment gets `ratio` times as many.
    """
    if std_effect == 0.0:
        raise ValueError("no sample size detects an effect of zero")
    if alternative != "two-sided" and (std_effect > 0.0) != (alternative == "greater"):
        raise ValueError(f"no sample size detects an effect of {std_effect} by a test for {alternative}")

    def short(n: float) -> float:
        return (
            power_means(
                std_effect,
                n,
                ratio=ratio,
                alpha=alpha,
                alternative=alternative,
                reference=reference,
                welch=welch,
            )
            - power
        )

    low, high = 2.0 / (1.0 + ratio) + 1e-3, 10.0
    while short(high) < 0.0:
        high *= 4.0
    return find_root(short, low, high, tolerance=1e-12)


def detectable_means(
    n_control: float,
    *,
    ratio: float = 1.0,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
    reference: Reference = "t",
    welch: bool = False,
) -> float:
    """Smallest standardised effect detected with the given power (positive; negative for "less")."""
    sign = -1.0 if alternative == "less" else 1.0

    def short(effect: float) -> float:
        found = power_means(
            sign * effect,
            n_control,
            ratio=ratio,
            alpha=alpha,
            alternative=alternative,
            reference=reference,
            welch=welch,
        )
        return found - power

    high = 1.0
    while short(high) < 0.0:
        high *= 2.0
    return sign * find_root(short, 0.0, high, tolerance=1e-12)


def power_proportions(
    baseline: float,
    difference: float,
    n_per_arm: float,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> float:
    """Power of the pooled z test with two equal arms.

    Pooled variance under the null, the arms' own under the alternative.
    """
    check_alpha(alpha)
    other = baseline + difference
    middle = baseline + difference / 2.0
    null = math.sqrt(2.0 * middle * (1.0 - middle) / n_per_arm)
    own = math.sqrt((baseline * (1.0 - baseline) + other * (1.0 - other)) / n_per_arm)
    z = critical_value(None, alpha, alternative)
    up, down = normal_sf((z * null - difference) / own), normal_sf((z * null + difference) / own)
    if alternative == "two-sided":
        return up + down
    return up if alternative == "greater" else down


def sample_size_proportions(
    baseline: float,
    difference: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
    formula: ProportionFormula = "pooled_null",
) -> float:
    """Units per arm for two equal arms; the formulas in use differ by 6 %, so name yours.

    `baseline_null` takes both arms at the baseline under the null (Evan Miller's calculator), `pooled_null`
    at the mean of the two rates (Fleiss), `unpooled` uses the arms' own variances throughout, `cohen_h` the
    arcsine scale. A one-sided test needs the difference to lie on its side.
    """
    check_alpha(alpha)
    p, q = baseline, baseline + difference
    if not (0.0 < p < 1.0 and 0.0 < q < 1.0) or difference == 0.0:
        raise ValueError("both rates must lie strictly between 0 and 1, and must differ")
    if alternative != "two-sided" and (difference > 0.0) != (alternative == "greater"):
        raise ValueError(f"no sample size detects a difference of {difference} by a test for {alternative}")
    z, z_power = critical_value(None, alpha, alternative), normal_quantile(power)
    own = p * (1.0 - p) + q * (1.0 - q)
    if formula == "cohen_h":
        h = 2.0 * (math.asin(math.sqrt(q)) - math.asin(math.sqrt(p)))
        return sample_size_means(h, alpha=alpha, power=power, alternative=alternative, reference="normal")
    if formula == "baseline_null":
        null = 2.0 * p * (1.0 - p)
    elif formula == "pooled_null":
        null = 2.0 * (p + difference / 2.0) * (1.0 - p - difference / 2.0)
    else:
        null = own
    return ((z * math.sqrt(null) + z_power * math.sqrt(own)) / difference) ** 2


def detectable_lift_delta(
    baseline: Baseline, n_per_arm: float, *, alpha: float = 0.05, power: float = 0.8
) -> float | Reason:
    """Smallest positive lift found by a test of the lift with the delta method's error.

    That is how other engines test. Our own test is on the absolute scale, where the answer is
    `detectable(...).lift`.
    """
    check_alpha(alpha)
    mean, noise = abs(baseline.mean), baseline.variance / n_per_arm
    k = critical_value(None, alpha, "two-sided") + normal_quantile(power)
    rest = 1.0 - k * k * noise / (mean * mean) if mean else 0.0
    if rest <= 0.0:
        return Reason.UNREACHABLE
    other = (mean + math.sqrt(mean * mean - rest * (mean * mean - k * k * noise))) / rest
    return (other - mean) / mean


def always_valid_last_look(
    estimate: float, standard_error: float, units: float, *, planned: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Half-width of the always-valid interval at a given size, and the power of that one look.

    Earlier looks can only add to the power: it is a lower bound for the whole sequence.
    """
    reach = multiplier(units * tuned_rho2(planned, alpha), alpha) * standard_error
    upper, lower = (reach - estimate) / standard_error, (reach + estimate) / standard_error
    return reach, normal_sf(upper) + normal_sf(lower)
