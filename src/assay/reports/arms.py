"""What the store answered, as moments by metric, variant and phase; and what one arm's numbers come to."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from assay.eventstore.base import Arm, Measure, UnitMoments
from assay.eventstore.columns import QuantileArm as Found
from assay.reports.spec import CapSpec, ExperimentSpec, MetricSpec, MetricType, VariantSpec
from assay.stats import (
    ArmInterval,
    Count,
    Mean,
    Moments,
    QuantileArm,
    Ratio,
    Reason,
    arm_interval,
    one_proportion,
    quantile_arm_interval,
)

COLUMNS = ("converted", "events", "total")
#: No event has the empty type, so in a measure it stands for all of them.
EVERY_TYPE = ""

_VALUES: Mapping[MetricType, Mean | Ratio] = {
    MetricType.CONVERSION: Mean("converted"),
    MetricType.COUNT: Mean("events"),
    MetricType.SUM: Mean("total"),
    MetricType.REVENUE: Mean("total"),
    MetricType.MEAN: Ratio("total", "events"),
    MetricType.RATIO: Ratio("total", "events"),
    MetricType.RETENTION: Mean("converted"),
    MetricType.FUNNEL: Mean("converted"),
    MetricType.THRESHOLD: Mean("converted"),
}
#: Columns of the time before the assignment, and what they adjust the metric by.
BEFORE_SHARE = ("before",)
BEFORE_AMOUNT = ("before_any", "before_early", "before_late")
BEFORE_RATIO = ("before_total", "before_events")
#: Metrics of which a unit has one or none: shares.
SHARES = frozenset({MetricType.CONVERSION, MetricType.RETENTION, MetricType.FUNNEL, MetricType.THRESHOLD})


@dataclass(frozen=True, slots=True)
class Tally:
    """The events of one metric over a set of units: exact counts, and the moments of the unit columns."""

    converters: int
    events: float
    """A whole number, but for a ratio whose denominator is a sum."""
    total: float
    moments: Moments
    """Of `COLUMNS`, and of those of the time before where the metric looks back."""
    unreadable: int = 0
    """Events that have the property, but not as a number."""
    cap: CapSpec | None = None
    """The values that units' amounts were pulled in to."""

    def __add__(self, other: "Tally") -> "Tally":
        """The tally of the union of two disjoint sets of units."""
        if not self.units or not other.units:
            return self if self.units else other
        return Tally(
            self.converters + other.converters,
            self.events + other.events,
            self.total + other.total,
            self.moments + other.moments,
            self.unreadable + other.unreadable,
            self.cap,
        )

    @property
    def units(self) -> int:
        """Units, with or without events."""
        return self.moments.count

    @property
    def count(self) -> Count:
        """Converters of units."""
        return Count(self.units, self.converters)


NOTHING = Tally(0, 0, 0.0, Moments.empty(COLUMNS))

#: Tallies by phase, by variant id.
ByPhase = Mapping[int, Tally]
ByVariant = Mapping[int, ByPhase]


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample quantile, and what its standard error was computed from."""

    arm: QuantileArm
    found: Found


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The quantiles of one metric by variant: of all its units, and of those of each split.

    Quantiles do not add up, so the phases of one split are asked for together: `stratum_of` has the first of
    them for each phase, and `strata` is by variant and that first phase.
    """

    overall: Mapping[int, Sample]
    strata: Mapping[int, Mapping[int, Sample]]
    stratum_of: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm by one metric.

    `value` is in the metric's own unit (a share, events or money per unit, money per event); `std_dev` is
    that of the value over units, and `interval` covers the arm's true value. `units` counts all who were
    assigned, those without events too.
    """

    variant: VariantSpec
    tally: Tally
    value: float | None
    std_dev: float | None
    interval: ArmInterval

    @property
    def units(self) -> int:
        """Units assigned to the arm."""
        return self.tally.units


def value_of(metric: MetricSpec) -> Mean | Ratio:
    """Which function of the unit columns the metric is; a quantile is none."""
    return _VALUES[metric.type]


def covariates_of(metric: MetricSpec, moments: Moments) -> tuple[Mean | Ratio, ...]:
    """What the metric is adjusted by, of the columns that are there.

    Units without a time before are zeros in it; an amount's are told apart by an indicator as well
    (`before_any`), and in a ratio they have no weight.
    """
    if BEFORE_RATIO[0] in moments.columns:
        return (Ratio(*BEFORE_RATIO),)
    names = BEFORE_SHARE if metric.type in SHARES else BEFORE_AMOUNT
    return tuple(Mean(name) for name in names if name in moments.columns)


def measure_of(metric: MetricSpec) -> Measure:
    """What the store must count for the metric; metrics that look at the same events share a measure."""
    event_type = metric.event_type or EVERY_TYPE
    return Measure(f"{event_type}\0{metric.prop or ''}", event_type, metric.prop)


def tallies(arms: Sequence[Arm], measure: Measure) -> ByVariant:
    """One measure's answers by variant and phase."""
    found: dict[int, dict[int, Tally]] = {}
    for arm in arms:
        found.setdefault(arm.variant_id, {})[arm.phase] = _tally(arm.measures[measure.key])
    return found


def merged(parts: Iterable[Tally]) -> Tally:
    """All parts as one."""
    return reduce(add, parts, NOTHING)


def summarise(
    metric: MetricSpec, variant: VariantSpec, tally: Tally, alpha: float, sample: Sample | None = None
) -> ArmSummary:
    """Value and interval of one arm: Wilson for a share, Student for a mean, the delta method for a ratio.

    `sample` is there for a quantile, which has no spread over units of its own.
    """
    if metric.type is MetricType.QUANTILE:
        nobody = QuantileArm(metric.quantile or 0.5, 0, tally.units, None, None, Reason.NO_DATA)
        around = quantile_arm_interval(nobody if sample is None else sample.arm, alpha=alpha)
        return ArmSummary(variant, tally, around.value, None, around)
    if metric.type in SHARES:
        interval = one_proportion(tally.count, alpha=alpha)
        return ArmSummary(
            variant, tally, interval.value, _root(tally.moments.variance("converted")), interval
        )
    value = value_of(metric)
    interval = arm_interval(tally.moments, value, alpha=alpha)
    if isinstance(value, Mean):
        shown = tally.moments.mean(value.column) if tally.units else None
        return ArmSummary(variant, tally, shown, _root(tally.moments.variance(value.column)), interval)
    shown = tally.total / tally.events if tally.events else None
    spread = interval.standard_error
    return ArmSummary(
        variant, tally, shown, None if spread is None else spread * math.sqrt(tally.units), interval
    )


def shown_variants(spec: ExperimentSpec, units: Mapping[int, int]) -> tuple[VariantSpec, ...]:
    """The arms worth a row: all that exist, and removed ones that somebody still has."""
    return tuple(variant for variant in spec.variants if not variant.removed or units.get(variant.id))


def _tally(found: UnitMoments) -> Tally:
    pairs = {
        (x, y): found.covariance[i][j] for i, x in enumerate(COLUMNS) for j, y in enumerate(COLUMNS) if i <= j
    }
    means = dict(zip(COLUMNS, found.means, strict=True))
    return Tally(found.converters, found.events, found.total, Moments.from_centred(found.count, means, pairs))


def _root(variance: float | None) -> float | None:
    return None if variance is None else math.sqrt(max(variance, 0.0))
