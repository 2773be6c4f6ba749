"""What a report needs to know of an experiment: a frozen picture, free of tables and sessions."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MetricType(StrEnum):
    """How a unit's events become one number; the value of an arm follows from it."""

    CONVERSION = "conversion"  # share of units with an event
    COUNT = "count"  # events per unit
    SUM = "sum"  # total amount per unit
    REVENUE = "revenue"  # the same, in money
    MEAN = "mean"  # average amount of one event


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


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `event_type` None means any event.

    `prop` names the property that holds the amount; None stands for the amount as it was recorded.
    """

    key: str
    name: str
    type: MetricType
    event_type: str | None
    prop: str | None = None
    direction: Direction = Direction.INCREASE
    role: Role = Role.SECONDARY


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
class ExperimentSpec:
    """An experiment as the report sees it. `variants` holds every arm that ever was, in display order."""

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
    method: str = "fixed"
    winner_id: int | None = None
    excluded_units: frozenset[str] = frozenset()

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

        A phase that is not on record (assignments imported from elsewhere) is taken to have the shares of
        now. Where no arm had a share, no unit was dealt, and equal shares are as good as any.
        """
        recorded = next((each for each in self.phases if each.number == phase), None)
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
