"""What a caller may write about an experiment, in every accepted spelling."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from assay.bucketing.hashing import SLOTS
from assay.bucketing.ruleset import Status
from assay.catalog.checks import (
    Config,
    Fraction,
    Input,
    KeyText,
    Name,
    OuterId,
    Percent,
    Prose,
    Reference,
    Rule,
    Tag,
    Time,
    one,
    refuse,
    shown,
)
from assay.catalog.durations import Duration, minutes
from assay.catalog.measuring import MetricInput, Source

_TOLERANCE = 1e-9
#: Spellings of a variant's share, with the number that stands for all of the traffic.
SHARES = {
    "allocation": 1.0,
    "allocation_percent": 100.0,
    "traffic_percentage": 100.0,
    "traffic_allocation_percent": 100.0,
    "percent_allocated": 100.0,
}
MAX_VARIANTS = 100
MAX_METRICS = 100
MAX_PREREQUISITES = 10


class Share(Input):
    """How much of an experiment's traffic a variant gets, in whichever spelling."""

    allocation: Fraction | None = None
    allocation_percent: Percent | None = Field(default=None, description="`allocation` in percent.")
    traffic_percentage: Percent | None = Field(default=None, description="`allocation` in percent.")
    traffic_allocation_percent: Percent | None = Field(default=None, description="`allocation` in percent.")
    percent_allocated: Percent | None = Field(default=None, description="`allocation` in percent.")

    @model_validator(mode="after")
    def _shares_agree(self) -> Self:
        written = self._written()
        for name, value in written[1:]:
            first, reference = written[0]
            if abs(value / SHARES[name] - reference / SHARES[first]) > _TOLERANCE:
                raise refuse(f"says {value:g} where {first} says {reference:g}; give one of them", name)
        return self

    def _written(self) -> list[tuple[str, float]]:
        return [(name, value) for name in SHARES if (value := getattr(self, name)) is not None]

    @property
    def share(self) -> float | None:
        """The fraction given, 0..1; None if none was."""
        written = self._written()
        return written[0][1] / SHARES[written[0][0]] if written else None

    @property
    def spelling(self) -> str:
        """The field in which the share was given."""
        written = self._written()
        return written[0][0] if written else "allocation"


class VariantInput(Share):
    """A variant as a caller writes it. Fields left out stay as they are, or take their default."""

    id: int | None = Field(
        default=None, description="Which existing variant is meant, in a list of variants."
    )
    variant_id: int | None = Field(default=None, description="The same as `id`.")
    key: KeyText | None = None
    name: Name | None = None
    variant_name: Name | None = Field(default=None, description="The same as `name`.")
    description: Prose = ""
    enabled: bool = True
    is_control: bool | None = None
    config: Config = Field(default_factory=dict)
    configuration_json: Config = Field(default_factory=dict, description="The same as `config`.")

    @model_validator(mode="after")
    def _spellings_agree(self) -> Self:
        for names in (("id", "variant_id"), ("name", "variant_name"), ("config", "configuration_json")):
            one({name: getattr(self, name) for name in names if self.given(name)})
        return self

    @property
    def reference(self) -> int | None:
        """The existing variant this is about, if the caller says so."""
        return self.id if self.id is not None else self.variant_id

    @property
    def title(self) -> str | None:
        """The name, in either spelling."""
        return self.name or self.variant_name

    @property
    def payload(self) -> dict[str, Any] | None:
        """The configuration, in either spelling; None if none was given."""
        if self.given("config"):
            return self.config
        return self.configuration_json if self.given("configuration_json") else None


def _metric(value: object) -> object:
    return {"event_type": value} if isinstance(value, str) else value


def _status(value: object) -> object:
    if isinstance(value, str):
        word = value.strip().lower()
        word = "running" if word == "active" else word
        if word in set(Status):
            return Status(word)
    known = ", ".join(Status)
    raise refuse(f"must be one of {known}; got {shown(value)}")


def _segment(value: object) -> object:
    return value["id"] if isinstance(value, dict) and "id" in value else value


class RampStep(Input):
    """A step of a ramp: the share of the eligible units from then on, and when."""

    traffic_allocation: Fraction
    after: Duration | None = Field(
        default=None, description="How long after the step before it, or the start: 1d, 12h, 30m."
    )
    at: Time | None = Field(default=None, description="The time itself, in place of `after`.")

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.after is not None and self.at is not None:
            raise refuse("and after both say when; give one of them", "at")
        if self.after is None and self.at is None:
            raise refuse("is required, or at: how long after the step before it, or when", "after")
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        if self.at is not None:
            return {
                "traffic_allocation": self.traffic_allocation,
                "at": self.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        return {"traffic_allocation": self.traffic_allocation, "after": self.after}


class RampResumeInput(Input):
    """How a halted ramp goes on."""

    ignore_health: bool = Field(
        default=False, description="Open the step that did not open, whatever health says now."
    )


class RampHaltInput(Input):
    """Why a ramp halts."""

    reason: Prose = ""


def _prerequisite(value: object) -> object:
    """What GrowthBook's SDKs call `gate` decides what stands behind an unmet rule: here, always nothing."""
    if isinstance(value, dict) and "gate" in value:
        raise refuse(
            "is no choice here: who does not meet a prerequisite is served nothing, with the reason "
            "prerequisite, as behind a gate; leave it out",
            "gate",
        )
    return {"experiment": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


class PrerequisiteInput(Input):
    """Another experiment that must serve a unit something; its key or id alone will do for any variant."""

    experiment: Reference | None = None
    experiment_id: int | None = Field(default=None, description="The same as `experiment`, by id.")
    variants: Annotated[list[Name], Field(max_length=MAX_VARIANTS)] = Field(
        default_factory=list, description="Keys or names of variants of which it must be one; none for any."
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.experiment is None and self.experiment_id is None:
            raise refuse("is required", "experiment")
        return self


def _layer(value: object) -> object:
    if isinstance(value, str):
        return {"key": value}
    return {"id": value} if isinstance(value, int) and not isinstance(value, bool) else value


class LayerShare(Input):
    """What an experiment wants of a layer, of which a unit is in one experiment at most; a key will do."""

    key: Name | None = None
    id: int | None = None
    share: Annotated[float, Field(ge=1 / SLOTS, le=1)] | None = Field(
        default=None,
        description="Share of the layer's slots that it holds while it runs, of whose units "
        "`traffic_allocation` says how many enter. By default `traffic_allocation`, and all of them enter.",
    )
    slots: Any = Field(default=None, description="Those it holds, as an answer shows them; not read.")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.key is None and self.id is None:
            raise refuse("or id must say which layer", "key")
        return self


Method = Literal["fixed", "group_sequential", "always_valid", "bayesian", "bandit"]
Alternative = Literal["two-sided", "greater", "less"]
Correction = Literal[
    "none",
    "bonferroni",
    "sidak",
    "holm",
    "holm_sidak",
    "hochberg",
    "hommel",
    "benjamini_hochberg",
    "benjamini_yekutieli",
]
Spending = Literal["obrien_fleming", "pocock", "power"]
_SPENDING_FIELDS = ("looks", "look_dates", "spending", "spending_power")
_BANDIT_FIELDS = ("reweight_every", "floor", "sampling", "ship_probability", "ship_loss")
_SHORTEST_PERIOD = 60
_MAX_LOOKS = 1000


class Analysis(Input):
    """How the experiment is analysed, and when it may be stopped for what it shows."""

    method: Method = "fixed"
    alternative: Alternative = Field(
        default="two-sided", description="`greater` and `less` look for an effect in one direction alone."
    )
    correction: Correction = Field(
        default="holm", description="For the number of comparisons in the declared family of metrics."
    )
    cuped: bool = Field(
        default=True, description="Adjust by the time before assignment, where there is some."
    )
    looks: Annotated[int, Field(ge=1, le=_MAX_LOOKS)] | None = Field(
        default=None, description="group_sequential: at most so many looks, equally far apart."
    )
    look_dates: Annotated[list[Time], Field(min_length=1, max_length=_MAX_LOOKS)] | None = Field(
        default=None, description="group_sequential: the looks by date, in place of `looks`."
    )
    spending: Spending | None = Field(
        default=None, description="group_sequential: how the error is spent; obrien_fleming by default."
    )
    spending_power: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None, description="The exponent of the `power` spending function; 1 by default."
    )
    planned_units: Annotated[int, Field(gt=0, le=10**15)] | None = Field(
        default=None,
        description="Units at which a sequential test knows all; target_sample_size by default.",
    )
    reweight_every: Duration | None = Field(
        default=None, description="bandit: how long each split holds, 1d by default and 1h at least."
    )
    floor: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        default=None, description="bandit: the least share of a variant; 0.05 by default."
    )
    sampling: Literal["thompson", "top_two"] | None = Field(
        default=None, description="bandit: shares by the chance to be best, or best and second best."
    )
    ship_probability: Annotated[float, Field(gt=0.5, lt=1)] | None = Field(
        default=None, description="bandit: the chance to be best at which to ship; 0.95 by default."
    )
    ship_loss: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="bandit: the expected loss, as a share of the control's value, below which to ship; "
        "0.01 by default.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for method, fields in (("group_sequential", _SPENDING_FIELDS), ("bandit", _BANDIT_FIELDS)):
            said = [name for name in fields if getattr(self, name) is not None]
            if said and self.method != method:
                raise refuse(f"is read by {method}; the method is {self.method}", said[0])
        if self.reweight_every is not None and minutes(self.reweight_every) < _SHORTEST_PERIOD:
            raise refuse(f"must be at least 1h; got {shown(self.reweight_every)}", "reweight_every")
        if self.planned_units is not None and self.method not in {"group_sequential", "always_valid"}:
            raise refuse(
                f"is read by sequential methods; the method is {self.method}: say target_sample_size",
                "planned_units",
            )
        if self.alternative != "two-sided" and self.method == "bayesian":
            raise refuse("is read by tests; the method is bayesian", "alternative")
        if self.looks is not None and self.look_dates is not None:
            raise refuse("and looks both say when; give one of them", "look_dates")
        dates = self.look_dates or []
        for at, (earlier, later) in enumerate(pairwise(dates)):
            if earlier >= later:
                raise refuse("must be later than the look before it", f"look_dates[{at + 1}]")
        if self.spending_power is not None and self.spending != "power":
            raise refuse('is read by spending "power"', "spending_power")
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored: what the method reads, with defaults filled in."""
        bare: dict[str, Any] = {
            "method": self.method,
            "alternative": self.alternative,
            "correction": self.correction,
            "cuped": self.cuped,
        }
        if self.method == "bandit":
            bare |= {
                "reweight_every": self.reweight_every or "1d",
                "floor": self.floor or 0.05,
                "sampling": self.sampling or "thompson",
                "ship_probability": self.ship_probability or 0.95,
                "ship_loss": self.ship_loss or 0.01,
            }
        if self.method == "group_sequential":
            bare["spending"] = self.spending or "obrien_fleming"
        if self.spending == "power":
            bare["spending_power"] = self.spending_power or 1.0
        if self.look_dates:
            bare["look_dates"] = [moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for moment in self.look_dates]
        more = {"looks": self.looks, "planned_units": self.planned_units}
        return bare | {name: number for name, number in more.items() if number is not None}


class CircuitBreakerInput(Input):
    """What happens once a guardrail is shown to be harmed beyond its margin, or at all without one."""

    action: Literal["pause", "stop"] = Field(
        default="pause", description="Let nobody new in, or end the experiment."
    )
    false_trip_rate: Annotated[float, Field(ge=0.0001, le=0.05)] = Field(
        default=0.005,
        description="The chance that it ever trips though no guardrail is harmed, however often it looks.",
    )

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        return {"action": self.action, "false_trip_rate": self.false_trip_rate}


Metric = Annotated[MetricInput, BeforeValidator(_metric)]
StatusText = Annotated[Status, BeforeValidator(_status)]
SegmentReference = Annotated[Reference, BeforeValidator(_segment)]


class ExperimentInput(Input):
    """What may be said about an experiment when it is made and later."""

    key: KeyText | None = None
    description: Prose = ""
    hypothesis: Prose = ""
    owner: Name | None = None
    tags: Annotated[list[Tag], Field(max_length=50)] = Field(default_factory=list)
    status: StatusText | None = None
    start_at: Time | None = Field(
        default=None,
        description="When a draft starts by itself; a time of the last 24 hours starts it at once.",
    )
    end_at: Time | None = Field(default=None, description="When it stops by itself; must lie in the future.")
    ramp: Annotated[list[RampStep], Field(max_length=50)] | None = Field(
        default=None,
        description="Steps by which traffic_allocation grows by itself while the experiment is healthy.",
    )
    traffic_allocation: Fraction = Field(
        default=1.0, description="Share of the eligible units that enter at all."
    )
    variants: Annotated[list[VariantInput], Field(max_length=MAX_VARIANTS)] = Field(default_factory=list)
    segments: Annotated[list[SegmentReference], Field(max_length=100)] = Field(default_factory=list)
    condition: Rule | None = None
    private: bool = Field(
        default=False,
        description="Keep condition, segments and variants out of SDKs' payload: the server evaluates it.",
    )
    layer: Annotated[LayerShare, BeforeValidator(_layer)] | None = None
    prerequisites: Annotated[
        list[Annotated[PrerequisiteInput, BeforeValidator(_prerequisite)]],
        Field(max_length=MAX_PREREQUISITES),
    ] = Field(default_factory=list)
    unit: OuterId = "user_id"
    metrics: Annotated[list[Metric], Field(max_length=MAX_METRICS)] = Field(default_factory=list)
    primary_metric: Name | None = None
    primary_metric_name: Name | None = Field(default=None, description="The same as `primary_metric`.")
    guardrail_metrics: Annotated[list[Name], Field(max_length=MAX_METRICS)] = Field(default_factory=list)
    target_sample_size: Annotated[int, Field(gt=0, le=10**15)] | None = None
    significance_level: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    minimum_detectable_effect: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Relative to the control: 0.05 is 5 %."
    )
    analysis: Analysis = Analysis()
    activation_event: Source | None = Field(
        default=None,
        description="Analyse only units that have such an event, from it on; an event type will do.",
    )
    circuit_breaker: CircuitBreakerInput | None = Field(
        default=None, description="Pauses or stops the experiment when a guardrail is harmed."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        names = ("primary_metric", "primary_metric_name")
        one({name: getattr(self, name) for name in names if self.given(name)})
        if self.start_at is not None and self.end_at is not None and self.start_at >= self.end_at:
            raise refuse("must be later than start_at", "end_at")
        for at, (earlier, later) in enumerate(pairwise(self.ramp or ())):
            if earlier.traffic_allocation >= later.traffic_allocation:
                raise refuse(
                    f"must be more than in the step before, which has {earlier.traffic_allocation:g}",
                    f"ramp[{at + 1}].traffic_allocation",
                )
            if earlier.at is not None and later.at is not None and earlier.at >= later.at:
                raise refuse("must be later than the step before it", f"ramp[{at + 1}].at")
        return self

    @property
    def primary(self) -> str | None:
        """The primary metric, in either spelling."""
        return self.primary_metric or self.primary_metric_name

    @property
    def primary_field(self) -> str:
        """The field in which the primary metric was given."""
        return "primary_metric" if self.primary_metric else "primary_metric_name"

    @property
    def names_primary(self) -> bool:
        """Whether the caller said anything about the primary metric."""
        return self.given("primary_metric") or self.given("primary_metric_name")


class ExperimentCreate(ExperimentInput):
    """A new experiment."""

    name: Name


class ExperimentEdit(ExperimentInput):
    """A change: only what is given changes.

    What an answer contains may be sent back; fields that cannot be changed here must then hold what
    they hold now. `version` works like `If-Match`.
    """

    name: Name = ""
    version: int | None = None
    id: Any = None
    experiment_id: Any = None
    created_at: Any = None
    started_at: Any = None
    start_time: Any = None
    ended_at: Any = None
    end_time: Any = None
    winner: Any = None
    decision: Any = None
    holdout: Any = None
    holdouts: Any = None
    schedule_error: Any = None
    ramp_state: Any = None
    circuit_breaker_state: Any = None
    bandit_state: Any = None
    preregistration_hash: Any = None
    phase: Any = None
    warnings: Any = Field(default=None, description="Shown by a start; not read.")


class StopInput(Input):
    """How an experiment ends."""

    winner: Name | int | None = Field(
        default=None, description="Id, key or name of the variant everybody gets from now on."
    )
    reason: Prose = ""
