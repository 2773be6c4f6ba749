"""What a report needs to know of an experiment: a frozen picture, free of tables and sessions."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from assay.stats import Alternative
from assay.stats.boundaries import Spending
from assay.stats.multiplicity import Correction
from assay.stats.verdicts import Method


class MetricType(StrEnum):
    """How a unit's events become one number; the value of an arm follows from it."""

    CONVERSION = "conversion"  # share of units with an event
    COUNT = "count"  # events per unit
    SUM = "sum"  # total amount per unit
    REVENUE = "revenue"  # the same, in money
    MEAN = "mean"  # average amount of one event
    RATIO = "ratio"  # what the numerator folds to, by what the denominator does
    QUANTILE = "quantile"  # of units' totals, or of single events
    RETENTION = "retention"  # share of units that come back in a stretch after their assignment
    FUNNEL = "funnel"  # share of units that do all steps in order
    THRESHOLD = "threshold"  # share of units whose count or sum reaches so much


class Direction(StrEnum):
    """Which way is better."""

    INCREASE = "increase"
    DECREASE = "decrease"


class Role(StrEnum):
    """What a metric is for."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    GUARDRAIL = "guardrail"
    EXPLORATORY = "exploratory"
    #: Asked for in a question, not declared in the experiment.
    AD_HOC = "ad_hoc"


#: What may be compared with a property of an event.
Value = str | float | bool


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """A test on a property: `op` is eq, ne, lt, le, gt, ge, in, not_in, exists or not_exists.

    `values` holds one value, those of a list, or none.
    """

    prop: str
    op: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Events of one type that pass all filters, folded over a unit to a count, a sum or any (0 or 1)."""

    event_type: str
    where: tuple[FilterSpec, ...] = ()
    fold: str = "count"
    prop: str | None = None


@dataclass(frozen=True, slots=True)
class CapSpec:
    """Where units' totals end: `high` and `low` are values, or fractions in (0, 1) of all arms' totals."""

    high: float
    low: float | None = None
    is_quantile: bool = False


@dataclass(frozen=True, slots=True)
class MarginSpec:
    """How much worse a guardrail may be: a share of the control's value, or so much in the metric's unit."""

    size: float
    is_relative: bool


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `event_type` None means any event; a funnel's is that of its last step.

    `prop` names the property that holds the amount; None stands for the amount as it was recorded. `opens`
    and `closes` bound the events that count, in microseconds after the unit's assignment: window, or a
    retention's stretch; `closes` None is no bound. `lookback` is the microseconds before it that make the
    covariate. `registered` is false for what was not in the plan frozen at the start.
    """

    key: str
    name: str
    type: MetricType
    event_type: str | None
    prop: str | None = None
    direction: Direction = Direction.INCREASE
    role: Role = Role.SECONDARY
    description: str = ""
    where: tuple[FilterSpec, ...] = ()
    fold: str | None = None
    denominator: SourceSpec | None = None
    quantile: float | None = None
    by_event: bool = False
    zeros: bool = False
    steps: tuple[SourceSpec, ...] = ()
    at_least: float | None = None
    opens: int = 0
    closes: int | None = None
    complete_only: bool = False
    lookback: int | None = None
    cap: CapSpec | None = None
    margin: MarginSpec | None = None
    definition: str | None = None
    definition_version: int | None = None
    registered: bool = True


@dataclass(frozen=True, slots=True)
class BanditSpec:
    """How a bandit deals its traffic, and when it is over.

    Every variant gets `floor` at least. `ship_probability` to be the best and an expected loss below
    `ship_loss`, as a share of the control's value, are what it takes to ship. `every` is how long a split
    holds, `next_at` when the next is due (None: that long after the phase began).
    """

    every: timedelta
    floor: float
    sampling: Literal["thompson", "top_two"]
    ship_probability: float
    ship_loss: float
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AnalysisSpec:
    """How the experiment is judged.

    `looks` is how many there will be at most, `look_dates` when, where they were planned by date; both
    belong to a group-sequential test, as do `spending` and `spending_power`. `planned_units` is the number
    of units at which all information is in.
    """

    method: Method | Literal["bandit"] = "fixed"
    alternative: Alternative = "two-sided"
    correction: Correction = "holm"
    cuped: bool = True
    looks: int | None = None
    look_dates: tuple[datetime, ...] = ()
    spending: Spending = "obrien_fleming"
    spending_power: float = 1.0
    planned_units: int | None = None
    bandit: BanditSpec | None = None

    @property
    def is_sequential(self) -> bool:
        """Whether its verdicts belong to looks."""
        return self.method in ("group_sequential", "always_valid")


@dataclass(frozen=True, slots=True)
class DeviationSpec:
    """Something done otherwise than the plan frozen at the start says: what, when, and by whom.

    `field` is `metrics.<key>` for a metric; `change` is added, removed or changed.
    """

    field: str
    change: str
    before: object = dataclasses.field(hash=False)
    after: object = dataclasses.field(hash=False)
    at: str
    by: str


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """One arm as it is now; `removed` arms stay in the report while units have them."""

    id: int
    key: str
    name: str
    allocation: float
    is_control: bool = False
    enabled: bool = True
    removed: bool = False

    @property
    def is_on(self) -> bool:
        """Whether it is there to be given to anybody."""
        return self.enabled and not self.removed


@dataclass(frozen=True, slots=True)
class PhaseSpec:
    """A stretch of unchanged allocation: the share that each variant id was dealt, zero when switched off."""

    number: int
    started_at: datetime
    ended_at: datetime | None
    allocations: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class LookVerdict:
    """What one comparison showed at a look.

    `z` is the difference over its standard error and `limit` what its size had to reach; `crossed` says
    whether it did, after the correction for the family, and is `None` where no test could be made. `interval`
    is the repeated interval of the difference. `p_value` is uncorrected: the stage-wise one of a
    group-sequential test that ended here, the smallest so far of an always-valid one.
    """

    metric: str
    treatment_id: int
    z: float | None
    limit: float | None
    crossed: bool | None
    estimate: float | None
    interval: tuple[float | None, float | None] | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class LookSpec:
    """A look that was made: its number from 1 on, when, at how many units and what share of the plan."""

    number: int
    at: datetime
    units: int
    fraction: float
    verdicts: tuple[LookVerdict, ...] = ()

    def verdict(self, metric: str, treatment_id: int) -> LookVerdict | None:
        """What the comparison of this metric and treatment showed."""
        return next(
            (one for one in self.verdicts if (one.metric, one.treatment_id) == (metric, treatment_id)), None
        )


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """A circuit breaker: what it does, its false-trip rate, and since which phase units count for it.

    `tripped_at` is when it tripped, for `reason`, where nobody has resumed the experiment since.
    """

    action: str
    rate: float
    since_phase: int = 0
    tripped_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NeighbourSpec:
    """An experiment on the same kind of unit that ran while this one did: its variants, the control first."""

    id: int
    key: str
    variants: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """An experiment as the report sees it. `variants` holds every arm that ever was, in display order.

    `activation` is the event a unit must have to be analysed. `plan_hash` is that of the frozen plan,
    `deviations` are what was done otherwise since. `looks` are those made so far, in order; the verdicts of
    the sequential methods change with them alone.
    """

    id: int
    key: str
    name: str
    status: str
    created_at: datetime
    variants: tuple[VariantSpec, ...]
    description: str = ""
    unit: str = "user_id"
    phases: tuple[PhaseSpec, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    metrics: tuple[MetricSpec, ...] = ()
    target_sample_size: int | None = None
    significance_level: float = 0.05
    power: float = 0.8
    minimum_detectable_effect: float | None = None
    winner_id: int | None = None
    excluded_units: frozenset[str] = frozenset()
    analysis: AnalysisSpec = AnalysisSpec()
    activation: SourceSpec | None = None
    hypothesis: str = ""
    plan_hash: str | None = None
    deviations: tuple[DeviationSpec, ...] = ()
    #: Not part of what the experiment is: a new one among them shares no unit until assignments come in.
    neighbours: tuple[NeighbourSpec, ...] = dataclasses.field(default=(), compare=False)
    looks: tuple[LookSpec, ...] = ()
    breaker: BreakerSpec | None = None

    @property
    def looked_at_once(self) -> "ExperimentSpec":
        """The same as judged for a part of the units: once, at the end; the looks are those of the whole."""
        if not self.analysis.is_sequential:
            return self
        return dataclasses.replace(
            self, analysis=dataclasses.replace(self.analysis, method="fixed"), looks=()
        )

    @property
    def control(self) -> VariantSpec | None:
        """The arm that the others are compared with."""
        chosen = [variant for variant in self.variants if variant.is_control]
        return next(iter(chosen or self.variants), None)

    @property
    def primary(self) -> MetricSpec | None:
        """The metric that decides: the one with that role, else the first."""
        chosen = [metric for metric in self.metrics if metric.role is Role.PRIMARY]
        return next(iter(chosen or self.metrics), None)

    def variant(self, variant_id: int) -> VariantSpec | None:
        """The arm with this id."""
        return next((variant for variant in self.variants if variant.id == variant_id), None)

    def weights(self, phase: int) -> tuple[float, ...]:
        """Shares that new units were dealt in this phase, in the order of `variants`; they sum to 1.

        Units of before the first phase, imported ones, are taken to have been dealt its shares; those of any
        other phase that is not on record, the shares of now. Where no arm had a share, no unit was dealt, and
        equal shares are as good as any.
        """
        recorded = next((each for each in self.phases if each.number == phase), None)
        if recorded is None and self.phases and phase < self.phases[0].number:
            recorded = self.phases[0]
        if recorded is not None:
            dealt = dict(recorded.allocations)
            shares = [dealt.get(variant.id, 0.0) for variant in self.variants]
        else:
            shares = [
                variant.allocation if variant.enabled and not variant.removed else 0.0
                for variant in self.variants
            ]
        total = sum(shares)
        if total <= 0.0:
            return tuple(1.0 / len(self.variants) for _ in self.variants)
        return tuple(share / total for share in shares)
