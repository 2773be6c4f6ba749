"""What a caller may write about a metric: in an experiment, as a definition, in every type of metric.

The same words come back in answers, so what is stored can be sent back as it is.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from assay.catalog.checks import Input, KeyText, Name, Prose, one, refuse, shown, storable
from assay.catalog.durations import LONGEST_DAYS, Duration, minutes

Direction = Literal["increase", "decrease"]
MetricRole = Literal["primary", "secondary", "guardrail", "exploratory"]
MetricType = Literal[
    "conversion",
    "count",
    "sum",
    "mean",
    "revenue",
    "ratio",
    "quantile",
    "retention",
    "funnel",
    "threshold",
]
Fold = Literal["count", "sum", "any"]
Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "exists", "not_exists"]

_ORDERED, _LISTED, _BARE = {"lt", "le", "gt", "ge"}, {"in", "not_in"}, {"exists", "not_exists"}
_LONGEST_TEXT, _MOST_VALUES = 1000, 100

_TIMED = frozenset({"where", "window", "complete_only", "lookback"})
#: Which fields each type of metric reads, beside those that all do.
USES: Mapping[str, frozenset[str]] = {
    "conversion": _TIMED,
    "count": _TIMED | {"cap"},
    "sum": _TIMED | {"property", "cap"},
    "revenue": _TIMED | {"property", "cap"},
    "mean": _TIMED | {"property", "cap"},
    "ratio": _TIMED | {"property", "cap", "fold", "denominator"},
    "quantile": (_TIMED - {"lookback"}) | {"property", "quantile", "level", "zeros"},
    "retention": (_TIMED - {"window"}) | {"from", "to"},
    "funnel": (_TIMED - {"where"}) | {"steps"},
    "threshold": _TIMED | {"property", "fold", "at_least"},
}
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "ratio": ("denominator",),
    "quantile": ("quantile",),
    "retention": ("from", "to"),
    "funnel": ("steps",),
    "threshold": ("at_least",),
}
_ASKS = {
    "denominator": "what the ratio divides by, such as {event_type: visit}",
    "quantile": "which quantile, such as 0.9",
    "from": "when the return begins to count, such as 7d",
    "to": "when the return no longer counts, such as 14d",
    "steps": "two or more steps such as {event_type: cart}",
    "at_least": "what a unit must reach",
}


class FilterInput(Input):
    """A test on a property of an event; an event must pass all of them to count."""

    property_name: Name = Field(alias="property", description="The property that is looked at.")
    op: Operator = Field(
        default="eq", description="`in` and `not_in` take a list, `exists` and `not_exists` no value."
    )
    value: Any = Field(default=None, description="Text, a number or true or false; a list of them for `in`.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.op in _BARE:
            if self.value is not None:
                raise refuse(f"is not read by {self.op}; got {shown(self.value)}", "value")
        elif self.op in _LISTED:
            if not isinstance(self.value, list) or not 0 < len(self.value) <= _MOST_VALUES:
                raise refuse(
                    f"must be a list of 1 to {_MOST_VALUES} values for {self.op}; got {shown(self.value)}",
                    "value",
                )
            for at, each in enumerate(self.value):
                _expect_scalar(each, f"value[{at}]")
        elif self.op in _ORDERED:
            if isinstance(self.value, bool) or not isinstance(self.value, int | float):
                raise refuse(f"must be a number for {self.op}; got {shown(self.value)}", "value")
        else:
            _expect_scalar(self.value, "value")
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        bare = {"property": self.property_name, "op": self.op}
        return bare if self.op in _BARE else {**bare, "value": self.value}


def _expect_scalar(value: object, field: str) -> None:
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT or not storable(value):
            raise refuse(
                f"must be text of at most {_LONGEST_TEXT} characters without NUL; got {shown(value)}", field
            )
    elif value is None:
        raise refuse("must not be null; exists and not_exists ask whether a property is there", field)
    elif not isinstance(value, bool | int | float):
        raise refuse(f"must be text, a number, true or false; got {shown(value)}", field)


Where = Annotated[list[FilterInput], Field(max_length=20)]


class SourceInput(Input):
    """The events of one type, perhaps only some of them. A bare string is an event type."""

    event_type: Name
    where: Where = Field(default_factory=list)

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        filters = [each.normal for each in self.where]
        return {"event_type": self.event_type, **({"where": filters} if filters else {})}


class DenominatorInput(SourceInput):
    """What a ratio divides by, summed over each unit."""

    property_name: Name | None = Field(default=None, alias="property")
    fold: Fold | None = Field(default=None, description="By default sum with a property, else count.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _expect_folded(self.property_name, self.fold)
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        bare: dict[str, Any] = {**super().normal, "fold": _folded(self.property_name, self.fold)}
        return {**bare, "property": self.property_name} if self.property_name else bare


def _event_type(value: object) -> object:
    return {"event_type": value} if isinstance(value, str) else value


Source = Annotated[SourceInput, BeforeValidator(_event_type)]
Denominator = Annotated[DenominatorInput, BeforeValidator(_event_type)]


class WindowInput(Input):
    """When after its assignment a unit's events count: from `delay` on, for `duration`."""

    delay: Duration | None = None
    duration: Duration | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.delay is None and self.duration is None:
            raise refuse("must say delay, duration or both")
        if self.duration is not None and not minutes(self.duration):
            raise refuse(f"must be longer than nothing; got {shown(self.duration)}", "duration")
        whole = sum(minutes(each) for each in (self.delay, self.duration) if each is not None)
        if whole > LONGEST_DAYS * 1440:
            raise refuse(f"must end at most {LONGEST_DAYS}d after the assignment, delay included")
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        return {
            name: text
            for name, text in (("delay", self.delay), ("duration", self.duration))
            if text is not None and minutes(text)
        }


class CapInput(Input):
    """How far a unit's total may reach: to a value, or to a percentile of all arms' totals together.

    Totals beyond are pulled in to it. `lower` does the same at the other end, in the same terms.
    """

    value: float | None = None
    percentile: float | None = Field(default=None, description="Such as 99: the top 1 % is pulled in.")
    lower: float | None = Field(default=None, description="Pulls in small totals; a value or a percentile.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if (self.value is None) == (self.percentile is None):
            both = "got both" if self.value is not None else "got neither"
            raise refuse(f"must be a value or a percentile; {both}")
        if self.value is not None and self.lower is not None and self.lower >= self.value:
            raise refuse(f"must be less than value, which is {self.value:g}; got {self.lower:g}", "lower")
        if self.percentile is not None:
            if not 50 < self.percentile < 100:
                raise refuse(
                    "must be more than 50 and less than 100 (99 pulls in the top 1 %); "
                    f"got {self.percentile:g}",
                    "percentile",
                )
            if self.lower is not None and not 0 < self.lower < 50:
                raise refuse(f"must be more than 0 and less than 50; got {self.lower:g}", "lower")
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        given = {"value": self.value, "percentile": self.percentile, "lower": self.lower}
        return {name: number for name, number in given.items() if number is not None}


class MarginInput(Input):
    """How much worse than the control a guardrail may be: a share of it, or so much in its own unit."""

    relative: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Such as 0.02 for 2 % of the control's value."
    )
    absolute: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if (self.relative is None) == (self.absolute is None):
            both = "got both" if self.relative is not None else "got neither"
            raise refuse(f"must be relative or absolute; {both}")
        return self

    @property
    def normal(self) -> dict[str, Any]:
        """The one form in which it is stored."""
        if self.relative is not None:
            return {"relative": self.relative}
        return {"absolute": self.absolute}


class MetricFields(Input):
    """What is measured. Which fields a metric reads follows from its `type`."""

    name: Name | None = None
    description: Prose = ""
    type: MetricType = "conversion"
    event_type: Name | None = Field(
        default=None, description="The type of event to look at; by default `name` or `key`."
    )
    event: Name | None = Field(default=None, description="The same as `event_type`.")
    property_name: Name | None = Field(
        default=None,
        alias="property",
        description="Which property to add up; by default value, amount, price …",
    )
    direction: Direction = Field(default="increase", description="Which way is better.")
    role: MetricRole | None = None
    where: Where = Field(default_factory=list, description="Which of the events count: those that pass all.")
    fold: Fold | None = Field(
        default=None,
        description="What ratio and threshold make of a unit's events; by default sum with a property.",
    )
    denominator: Denominator | None = Field(default=None, description="What a ratio divides by.")
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Of a quantile metric, such as 0.9."
    )
    level: Literal["user", "event"] | None = Field(
        default=None, description="A quantile of units' totals (user, the default) or of single events."
    )
    zeros: bool | None = Field(default=None, description="Whether units without events are zeros there.")
    from_: Duration | None = Field(
        default=None, alias="from", description="Retention: a return counts from so long after assignment on."
    )
    to: Duration | None = Field(default=None, description="Retention: and before so long after it.")
    steps: Annotated[list[Source], Field(min_length=2, max_length=20)] | None = Field(
        default=None, description="Of a funnel, in order of time; who did all has converted."
    )
    at_least: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Threshold: what a unit's count or sum must reach."
    )
    window: WindowInput | None = None
    complete_only: bool | None = Field(
        default=None, description="Leave out units that were not yet observed for the whole window."
    )
    lookback: Duration | None = Field(
        default=None, description="How long before its assignment a unit's same events make the covariate."
    )
    cap: CapInput | None = None
    margin: MarginInput | None = Field(
        default=None, description="Of a guardrail: how much worse is still tolerable."
    )

    @property
    def source(self) -> str:
        """The event type, in either spelling; that of the last step of a funnel."""
        if self.steps:
            return self.steps[-1].event_type
        return self.event_type or self.event or ""

    def normal(self, key: str) -> dict[str, Any]:
        """The one form in which it is stored: common fields always, others where they say something."""
        bare: dict[str, Any] = {
            "key": key,
            "name": self.name or key,
            "type": self.type,
            "event_type": self.source or self.name or key,
            "property": self.property_name,
            "direction": self.direction,
            "role": self.role,
        }
        folds = self.type in {"ratio", "threshold"}
        more: dict[str, Any] = {
            "description": self.description or None,
            "where": [each.normal for each in self.where] or None,
            "fold": _folded(self.property_name, self.fold) if folds else None,
            "denominator": self.denominator and self.denominator.normal,
            "quantile": self.quantile,
            "level": (self.level or "user") if self.type == "quantile" else None,
            "zeros": self.zeros or None,
            "from": self.from_,
            "to": self.to,
            "steps": [each.normal for each in self.steps] if self.steps else None,
            "at_least": self.at_least,
            "window": (self.window and self.window.normal) or None,
            "complete_only": self.complete_only or None,
            "lookback": self.lookback,
            "cap": self.cap and self.cap.normal,
            "margin": self.margin and self.margin.normal,
        }
        return bare | {name: value for name, value in more.items() if value is not None}

    def expect_whole(self, key: str | None) -> None:
        """Refuse a metric that does not say what it measures, or says what its type does not read."""
        spelled = {"event_type": self.event_type, "event": self.event}
        one({name: value for name, value in spelled.items() if value is not None})
        for name in _NEEDS.get(self.type, ()):
            if self._said(name) is None:
                raise refuse(f"is required of a {self.type} metric: {_ASKS[name]}", name)
        for name in sorted(set().union(*USES.values()) - USES[self.type]):
            if self._said(name) not in (None, [], False):
                readers = ", ".join(each for each, used in USES.items() if name in used)
                raise refuse(f"is read by {readers} metrics, not by a {self.type} metric", name)
        if self.steps:
            said = self.event_type or self.event
            if said is not None and said != self.source:
                raise refuse(
                    f"is that of the last step, {shown(self.source)}, or left out; got {shown(said)}",
                    "event_type",
                )
        elif not self.source:
            if self.name is None and key is None:
                raise refuse("is required: the type of event that the metric looks at", "event_type")
            if None not in {self.name, key} and self.name != key:
                raise refuse("is required, because key and name do not agree on one", "event_type")
        self._expect_sensible()

    def _expect_sensible(self) -> None:
        _expect_folded(self.property_name, self.fold)
        if self.type == "threshold" and self.fold == "any":
            raise refuse('must be count or sum for a threshold metric; got "any"', "fold")
        if self.zeros and self.level == "event":
            raise refuse("is read by quantiles of units, not of events", "zeros")
        if self.from_ is not None and self.to is not None and minutes(self.from_) >= minutes(self.to):
            raise refuse(f"must be later than from, which is {self.from_}; got {shown(self.to)}", "to")
        timed = self.type == "retention" or (self.window is not None and self.window.duration is not None)
        if self.complete_only and not timed:
            raise refuse(
                "needs a window with a duration, which a unit can have been observed for", "complete_only"
            )
        if self.lookback is not None and not minutes(self.lookback):
            raise refuse(f"must be longer than nothing; got {shown(self.lookback)}", "lookback")

    def _said(self, name: str) -> object:
        field = {"property": "property_name", "from": "from_"}.get(name, name)
        return getattr(self, field)


def _folded(prop: str | None, fold: Fold | None) -> str:
    return fold or ("sum" if prop is not None else "count")


def _expect_folded(prop: str | None, fold: Fold | None) -> None:
    if prop is not None and fold in {"count", "any"}:
        raise refuse(f"is added up, so fold must be sum; got {shown(fold)}", "property")


class MetricInput(MetricFields):
    """A measure of success. A bare string is the conversion rate of that type of event.

    With `definition` it is a copy of that definition, of its newest version unless `definition_version` says
    which; `key`, `name`, `description`, `role`, `direction`, `window`, `complete_only`, `lookback`, `cap` and
    `margin` may differ from it.
    """

    key: Name | None = None
    definition: KeyText | None = Field(default=None, description="The key of a metric definition.")
    definition_version: Annotated[int, Field(ge=1, le=2**31)] | None = None
    newest_version: int | None = Field(default=None, description="Shown in answers; not read.")
    registered: bool | None = Field(default=None, description="Shown in answers; not read.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.definition is None:
            if self.definition_version is not None:
                raise refuse("is read together with definition", "definition_version")
            self.expect_whole(self.key)
        return self


class DefinitionInput(MetricFields):
    """A new metric definition."""

    key: KeyText | None = Field(default=None, description="By default made from the name.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name is None and self.key is None:
            raise refuse("is required", "name")
        self.expect_whole(self.key)
        if self.margin is not None and self.role != "guardrail":
            raise refuse(f"is read of guardrails; this metric's role is {shown(self.role)}", "margin")
        return self


class DefinitionEdit(MetricFields):
    """A change of a metric definition: only what is given changes; null takes a field away.

    What an answer contains may be sent back. `version` works like `If-Match`.
    """

    key: KeyText | None = None
    version: int | None = None
    id: Any = None
    archived: Any = None
    created_at: Any = None
    updated_at: Any = None
    updated_by: Any = None
    experiments: Any = None
