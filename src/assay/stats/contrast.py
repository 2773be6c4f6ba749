"""From moments to one contrast: what differs between two arms, and how uncertain that is.

Mean, ratio, covariate adjustment and strata differ only in how they arrive at a `Contrast`; every test,
interval, sequential rule and posterior in this package starts from one. `adjusted.py` makes contrasts with
covariates and strata.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from assay.stats.moments import Moments
from assay.stats.reasons import Reason
from assay.stats.tails import build

Array = npt.NDArray[np.float64]


# Doubles near m are 2e-16 m apart: a standard error of 1e-20 m is no noise, but what rounding left of none.
_NOISELESS = 1e40
# Nothing can be divided by the square of a number this small.
NEGLIGIBLE = 1e-145


class Mean(NamedTuple):
    """The mean of a column over units; a proportion when the column is 0 or 1."""

    column: str = "y"


class Ratio(NamedTuple):
    """The ratio of two columns' totals, e.g. revenue per session, where units hold many sessions or none."""

    numerator: str
    denominator: str


Metric = Mean | Ratio
Theta = Literal["within", "joint", "interacted"]


class Contrast(NamedTuple):
    """Treatment minus control, with all that tests and intervals need.

    `control` is the baseline that a lift is relative to, in units of the metric, and `control_variance` the
    variance of that estimate; `estimate` is the difference and `variance` its variance; `covariance` is
    Cov(estimate, control), which is `-control_variance` for two independent arms. `df` are Welch's degrees of
    freedom. `control_shown` and `treatment_shown` are the arms' values for display (adjusted when covariates
    were used). When `reason` is set the numbers after the counts may be `None`, and no test can be made.
    """

    method: str
    count_control: int
    count_treatment: int
    control: float | None
    estimate: float | None
    variance: float | None
    control_variance: float | None
    covariance: float | None
    df: float | None
    control_shown: float | None
    treatment_shown: float | None
    reason: Reason | None = None
    theta: tuple[float, ...] = ()

    @property
    def standard_error(self) -> float | None:
        """Standard error of the difference."""
        return None if self.variance is None else self.variance**0.5

    @property
    def ratio(self) -> float | None:
        """The lift's point estimate, difference / |control|; `None` at a baseline of (practically) zero."""
        if self.estimate is None or self.control is None or abs(self.control) < NEGLIGIBLE:
            return None
        return self.estimate / abs(self.control)

    @property
    def units(self) -> int:
        """Units in both arms together."""
        return self.count_control + self.count_treatment


def nothing(method: str, control: int, treatment: int, reason: Reason) -> Contrast:
    """A contrast about which nothing can be said."""
    return Contrast(method, control, treatment, None, None, None, None, None, None, None, None, reason)


def mean_contrast(control: Moments, treatment: Moments, column: str | None = None) -> Contrast:
    """Difference of two means (or proportions).

    The variance of each mean is s^2/n with divisor n - 1, and df is Welch's (1947). Needs two units in each
    arm.
    """
    n, m = control.count, treatment.count
    if n < 2 or m < 2:
        reason = Reason.INSUFFICIENT_DATA if n + m else Reason.NO_DATA
        means = (control.mean(column) if n else None, treatment.mean(column) if m else None)
        gap = means[1] - means[0] if means[0] is not None and means[1] is not None else None
        return Contrast("mean", n, m, means[0], gap, None, None, None, None, *means, reason)
    i = control.columns.index(column) if column else 0
    j = treatment.columns.index(column) if column else 0
    base, other = control.means[i], treatment.means[j]
    # The carries matter when both means share a large offset: their difference then lives in the low-order
    # parts.
    estimate = (other - base) + (treatment.carries[j] - control.carries[i])
    flaw = control.flaw or treatment.flaw
    if flaw:
        return Contrast("mean", n, m, base, estimate, None, None, None, None, base, other, flaw)
    part_c = control.comoments[i][i] / (n - 1) / n
    part_t = treatment.comoments[j][j] / (m - 1) / m
    variance = part_c + part_t
    if variance * _NOISELESS <= max(base * base, other * other) or variance <= 0.0:
        reason = Reason.ZERO_VARIANCE
        return Contrast("mean", n, m, base, estimate, 0.0, 0.0, 0.0, None, base, other, reason)
    df = welch_df(part_c, n - 1, part_t, m - 1)
    return build(
        Contrast, ("mean", n, m, base, estimate, variance, part_c, -part_c, df, base, other, None, ())
    )


def welch_df(part_c: float, df_c: float, part_t: float, df_t: float) -> float:
    """Degrees of freedom of a sum of two independent variance estimates (Welch 1947; Satterthwaite 1946)."""
    # Shares of one keep the squares away from underflow: variances of 1e-200 are legal.
    share = part_c / (part_c + part_t)
    rest = 1.0 - share
    return 1.0 / (share * share / df_c + rest * rest / df_t)


def contrast(control: Moments, treatment: Moments, metric: Metric | str | None = None) -> Contrast:
    """Difference of a metric between two arms, without covariates.

    A string names a column whose mean is compared; nothing at all means the first column.
    """
    if metric is None or isinstance(metric, str):
        return mean_contrast(control, treatment, metric)
    if isinstance(metric, Mean):
        return mean_contrast(control, treatment, metric.column)
    return ratio_contrast(control, treatment, metric)


def ratio_contrast(control: Moments, treatment: Moments, metric: Ratio) -> Contrast:
    """Difference of two ratios of totals by the delta method (Deng, Knoblich & Lu 2018).

    The unit is whoever was randomised: numerator and denominator are that unit's totals.
    """
    n, m = control.count, treatment.count
    if n < 2 or m < 2:
        return nothing("ratio", n, m, Reason.INSUFFICIENT_DATA if n + m else Reason.NO_DATA)
    values, parts = [], []
    for arm in (control, treatment):
        if arm.mean(metric.denominator) == 0.0:
            return nothing("ratio", n, m, Reason.DENOMINATOR_ZERO)
        value, spread = _ratio(arm, metric)
        values.append(value)
        parts.append(spread / (arm.count - 1) / arm.count)
    base, other = values
    estimate = other - base
    flaw = control.flaw or treatment.flaw
    if flaw:
        return Contrast("ratio", n, m, base, estimate, None, None, None, None, base, other, flaw)
    part_c, part_t = parts
    variance = part_c + part_t
    if variance * _NOISELESS <= max(base * base, other * other) or variance <= 0.0:
        return Contrast("ratio", n, m, base, estimate, 0.0, 0.0, 0.0, None, base, other, Reason.ZERO_VARIANCE)
    df = welch_df(part_c, n - 1, part_t, m - 1)
    return Contrast("ratio", n, m, base, estimate, variance, part_c, -part_c, df, base, other)


def _ratio(arm: Moments, metric: Ratio) -> tuple[float, float]:
    """Ratio of means and the sum of squared influences (M_i - R D_i) / mean(D)."""
    i, j = arm.columns.index(metric.numerator), arm.columns.index(metric.denominator)
    below = arm.means[j]
    value = arm.means[i] / below
    # A quadratic form of a positive semidefinite matrix; rounding alone can make it negative.
    form = arm.comoments[i][i] - 2.0 * value * arm.comoments[i][j] + value * value * arm.comoments[j][j]
    noise = 8.0 * 2.0**-52 * (arm.comoments[i][i] + value * value * arm.comoments[j][j])
    return value, 0.0 if form <= noise else form / (below * below)


def point(arm: Moments, metrics: Sequence[Metric]) -> tuple[Array, Array]:
    """Values of several metrics in one arm and their gradient with respect to the column means.

    Returns arrays of shape (metrics,) and (metrics, columns). Denominators must not be zero.
    """
    values = np.empty(len(metrics))
    gradient = np.zeros((len(metrics), len(arm.columns)))
    for row, metric in enumerate(metrics):
        if isinstance(metric, Mean):
            column = arm.columns.index(metric.column)
            values[row] = arm.means[column]
            gradient[row, column] = 1.0
        else:
            above, below = arm.columns.index(metric.numerator), arm.columns.index(metric.denominator)
            values[row] = arm.means[above] / arm.means[below]
            gradient[row, above] += 1.0 / arm.means[below]
            gradient[row, below] -= values[row] / arm.means[below]
    return values, gradient
