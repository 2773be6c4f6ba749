"""The report: one frozen value that every endpoint, page and export renders, so that they cannot disagree."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from assay.eventstore.base import EventCount, SeriesPoint, Statement
from assay.eventstore.columns import UnitList
from assay.reports.arms import ArmSummary, ByVariant, Quantiles, Tally
from assay.reports.question import Question
from assay.reports.spec import Direction, ExperimentSpec, LookVerdict, MetricSpec, VariantSpec
from assay.stats import Contrast, Effect, Interval, NonInferiority, Prediction, SampleRatio
from assay.stats import Verdict as Numbers
from assay.stats.heterogeneity import Heterogeneity, Shrunken


class Why(StrEnum):
    """Why a comparison is absent, where no statistic is to blame."""

    NO_CONTROL = "no_control"
    NO_TREATMENT = "no_treatment"
    NO_SUCH_VARIANT = "no_such_variant"
    NO_EVENTS = "no_events"
    OUTSIDE_WINDOW = "outside_window"

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return _WHY[self]


_WHY = {
    Why.NO_CONTROL: "The experiment has no variants, so there is nothing to compare.",
    Why.NO_TREATMENT: "Only the control is looked at, so there is nothing to compare it with.",
    Why.NO_SUCH_VARIANT: "The experiment has no variant with that id, key or name.",
    Why.NO_EVENTS: "No event of this type has arrived that counts.",
    Why.OUTSIDE_WINDOW: "The window begins after everything that is reported on.",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the experiment's own method says of a comparison.

    `numbers` are as they stand now, with covariates where there are any, at the level that the correction
    leaves; `significant` is the verdict, which under a sequential method is that of the looks so far and None
    before the first (`waiting` then says so). `members` is the size of the family that was corrected for; 1
    means none. `unadjusted` is the same without covariates, `variance_reduction` the share of the variance
    that they took away. `margin` is the test of a guardrail against its margin. `look` is the look that
    decided: the first that crossed, else the last.
    """

    numbers: Numbers
    contrast: Contrast
    significant: bool | None
    members: int = 1
    adjusted_p_value: float | None = None
    covariates: tuple[str, ...] = ()
    unadjusted: Numbers | None = None
    variance_reduction: float | None = None
    margin: NonInferiority | None = None
    look: LookVerdict | None = None
    look_number: int | None = None
    waiting: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A treatment against the control by one metric.

    `effect` is the fixed-horizon test without covariates, as the compatible views show it; `judged` is what
    the experiment's own method says, where the whole family was judged. The counts are those of the
    comparable units. `strata` is the number of stretches of equal split that the effect was averaged over;
    `left_out` units came while one of the arms was closed.
    """

    control: VariantSpec
    treatment: VariantSpec
    effect: Effect
    control_tally: Tally
    treatment_tally: Tally
    strata: int
    left_out: int
    judged: Judgement | None = None

    @property
    def significant(self) -> bool:
        """Whether the test rejects; no test, no rejection."""
        return bool(self.effect.significant)

    def improves(self, direction: Direction) -> bool:
        """Whether the treatment is ahead, on the metric's own terms."""
        gap = self.effect.estimate or 0.0
        return gap > 0.0 if direction is Direction.INCREASE else gap < 0.0


@dataclass(frozen=True, slots=True)
class NextLook:
    """The look to come: at a time, or when so many units are in; neither where looks are made daily."""

    number: int
    at: datetime | None
    units: int | None


@dataclass(frozen=True, slots=True)
class MetricReport:
    """One metric: its arms in display order, and each treatment against the control."""

    metric: MetricSpec
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    tallies: ByVariant
    quantiles: Quantiles | None = None

    @property
    def silent(self) -> bool:
        """Whether there are units, and no event of any of them counts."""
        return any(arm.units for arm in self.arms) and not any(arm.tally.events for arm in self.arms)

    def narrowed(self, shown: Collection[VariantSpec]) -> "MetricReport":
        """The same with the arms and treatments shown alone."""
        return replace(
            self,
            arms=tuple(arm for arm in self.arms if arm.variant in shown),
            comparisons=tuple(each for each in self.comparisons if each.treatment in shown),
        )

    def arm(self, variant_id: int) -> ArmSummary | None:
        """The arm of this variant."""
        return next((arm for arm in self.arms if arm.variant.id == variant_id), None)

    def comparison(self, variant_id: int) -> Comparison | None:
        """The comparison in which this variant is the treatment."""
        return next((each for each in self.comparisons if each.treatment.id == variant_id), None)


class Health(StrEnum):
    """The state a check found; `unknown` when the check itself could not be made."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One health check: what it looked at, what it found, in a sentence."""

    name: str
    health: Health
    sentence: str
    inputs: Mapping[str, object]


class Verdict(StrEnum):
    """What to do."""

    SHIP = "ship"
    ROLL_BACK = "roll_back"
    KEEP_RUNNING = "keep_running"
    INCONCLUSIVE = "inconclusive"
    FIX = "fix"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the experiment is.

    `fraction` is the share of the planned units that is in, at most 1; `per_day` how many have come a day so
    far, and `days_left` how long the rest takes at that pace.
    """

    units: int
    planned: int | None
    fraction: float | None
    per_day: float | None
    days_left: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a fixed-horizon test of one treatment will say after so many more days, by the data so far."""

    treatment: VariantSpec
    days: int
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class AtStop:
    """The primary effect of one treatment at the stop: as measured, and corrected for having been chosen.

    An effect that is looked at because it was significant is too large on average (the winner's curse).
    `estimate` is None with a `sentence` where there is nothing to correct, or no correction is known.
    """

    treatment: VariantSpec
    method: str
    naive: float | None
    estimate: float | None
    interval: Interval | None
    sentence: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision that the rules lead to, in a sentence somebody can act on, and what to be wary of.

    `winner` is the arm to ship; `cautions` do not change the verdict. `rules` are those that were applied, in
    the order in which they speak. `outlooks` are there while the experiment runs, `at_stop` once it is to be
    stopped or has been.
    """

    verdict: Verdict
    sentence: str
    winner: VariantSpec | None
    cautions: tuple[str, ...]
    metric: MetricSpec | None
    alpha: float
    rules: tuple[str, ...] = ()
    progress: Progress | None = None
    outlooks: tuple[Outlook, ...] = ()
    at_stop: tuple[AtStop, ...] = ()

    @property
    def text(self) -> str:
        """The sentence with its cautions."""
        return " ".join((self.sentence, *self.cautions))


@dataclass(frozen=True, slots=True)
class BanditArm:
    """What a bandit knows of one variant: by what its `mean` may be, the `probability` that it is the best.

    `loss` is what choosing it is expected to cost, as a share of the control's value; `share` is what new
    units are dealt now, `next_share` what the next split would deal them.
    """

    variant: VariantSpec
    mean: float
    standard_error: float
    probability: float
    loss: float | None
    share: float
    next_share: float


@dataclass(frozen=True, slots=True)
class Bandit:
    """What a bandit knows of its variants; no arms where a `sentence` says why it knows nothing yet."""

    arms: tuple[BanditArm, ...]
    sentence: str | None = None

    @property
    def best(self) -> BanditArm | None:
        """The variant that is most probably the best."""
        return max(self.arms, key=lambda arm: arm.probability, default=None)


class ConversionSource(StrEnum):
    """Where the event type that counts as the conversion came from."""

    PRIMARY_EVENT_TYPE = "primary_event_type"
    EVENT_TYPE = "event_type"
    PRIMARY_METRIC = "primary_metric"
    FIRST_METRIC = "first_metric"
    ANY_EVENT = "any_event"


@dataclass(frozen=True, slots=True)
class Point:
    """The effect as it stood at one time, for a chart."""

    start: datetime
    end: datetime
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]


class BandKind(StrEnum):
    """What the intervals of a series promise together; `sentence` says it for a person."""

    FIXED_HORIZON = "fixed_horizon"
    CONFIDENCE_SEQUENCE = "confidence_sequence"
    REPEATED_INTERVALS = "repeated_intervals"
    CREDIBLE = "credible"
    NONE = "none"

    @property
    def sentence(self) -> str:
        """What may be read from the band."""
        return _BANDS[self]


_BANDS = {
    BandKind.FIXED_HORIZON: (
        "Each interval holds for its own time alone, as if that were the only look: a band that leaves zero "
        "on the way is no verdict."
    ),
    BandKind.CONFIDENCE_SEQUENCE: (
        "A confidence sequence: all of its intervals hold together, however often somebody looks."
    ),
    BandKind.REPEATED_INTERVALS: (
        "Repeated intervals, each as wide as a look at its time would have made it: they hold together at "
        "the looks that were made, and not at every point between."
    ),
    BandKind.CREDIBLE: (
        "Credible intervals, each by the data up to its time: what to believe then, and no error rate for "
        "looking often."
    ),
    BandKind.NONE: (
        "There is no band: a group-sequential test without a planned number of units has no limits. Set "
        "a target sample size."
    ),
}


@dataclass(frozen=True, slots=True)
class Trend:
    """The points of a series, of how many stretches in which anything happened.

    There are fewer points than stretches where a cumulative series was thinned; `compared` is false where the
    points hold sums alone, without intervals and comparisons. `band` says what the intervals promise: they
    are those of the experiment's method, not adjusted for the time before and not corrected for the family.
    """

    points: tuple[Point, ...]
    stretches: int
    compared: bool = True
    band: BandKind = BandKind.FIXED_HORIZON


Kind = Literal["value", "other", "none"]


@dataclass(frozen=True, slots=True)
class Group:
    """Some units by one attribute of users: those with one `value`, with any `other` one, or with none.

    `name` is unique within the dimension. `units` are by variant; `sample_ratio` is that within the group.
    """

    name: str
    kind: Kind
    value: object
    units: Mapping[int, int]
    sample_ratio: SampleRatio | None

    @property
    def total(self) -> int:
        """Units of all variants."""
        return sum(self.units.values())


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """One comparison within one group.

    `numbers` are of a single fixed look, at the level that the correction across all groups and metrics
    leaves. `too_few` says that there are too few units to weigh the group against others: it takes no part in
    the gate or the correction. `significant` is None then, and wherever the gate is silent. `shrunken` is the
    effect pulled towards the common one.
    """

    group: Group
    numbers: Numbers
    adjusted_p_value: float | None
    significant: bool | None
    shrunken: Shrunken | None
    too_few: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the effect of one treatment on one metric differs between the groups of a dimension.

    `differs` is Cochran's test, corrected for all gates of the dimension; None where it cannot be made. Only
    where it is true may any group be called a winner or a loser.
    """

    treatment: VariantSpec
    found: Heterogeneity
    adjusted_p_value: float | None
    differs: bool | None
    sentence: str
    effects: tuple[GroupEffect, ...]


@dataclass(frozen=True, slots=True)
class GroupedMetric:
    """One metric by the groups of a dimension: a gate for each treatment, and the tallies of each group.

    `sentence` says why there is nothing to compare, where there is not.
    """

    metric: MetricSpec
    gates: tuple[Gate, ...]
    tallies: Mapping[str, ByVariant]
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class ByDimension:
    """The report by one attribute of users. `sentences` say what to know when reading it."""

    attribute: str
    distinct: int
    groups: tuple[Group, ...]
    metrics: tuple[GroupedMetric, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was computed for one question, at one moment.

    `metrics` are those asked for, or all that the experiment declares; `primary` is the one that decides.
    `conversion` counts the units with an event of the type that the question, or else the experiment, calls
    the conversion. `counts`, with `activity` (the units that have any of those events), and `series` are
    there when asked for. `variants` are the arms to show. `missing` says why there is no comparison.
    `begin` is when the experiment started, or its first unit came where that was earlier (to the hour).
    Where only units with the activation event are analysed, `units` and `sample_ratio` are theirs, and
    `assigned_ratio` is that of all that were assigned. `statements` are what the store was asked, where the
    question wants to know. `members` are the units of the segment that the question is about, where it names
    one, and `dimensions` is the report by each attribute that it asks for.
    """

    spec: ExperimentSpec
    question: Question
    computed_at: datetime
    alpha: float
    variants: tuple[VariantSpec, ...]
    metrics: tuple[MetricReport, ...]
    primary: MetricReport
    conversion: MetricReport
    conversion_source: ConversionSource
    units: Mapping[int, int]
    sample_ratio: SampleRatio | None
    checks: tuple[Check, ...]
    decision: Decision
    activity: MetricReport | None = None
    counts: tuple[EventCount, ...] = ()
    series: tuple[SeriesPoint, ...] = ()
    missing: Why | None = None
    begin: datetime | None = None
    next_look: NextLook | None = None
    assigned_ratio: SampleRatio | None = None
    statements: tuple[Statement, ...] = ()
    bandit: Bandit | None = None
    members: UnitList | None = None
    dimensions: tuple[ByDimension, ...] = ()

    @property
    def judged_as(self) -> ExperimentSpec:
        """The experiment as this report is judged: a segment of it is looked at once."""
        return self.spec if self.question.segment is None else self.spec.looked_at_once

    def blank(self, of: MetricReport) -> Why | None:
        """Why there is nothing to count for this metric, if so."""
        if self.question.start is not None and self.question.start > self.end:
            return Why.OUTSIDE_WINDOW
        return Why.NO_EVENTS if of.silent else None

    @property
    def end(self) -> datetime:
        """The last moment the report covers."""
        ends = [moment for moment in (self.question.end, self.spec.ended_at) if moment is not None]
        return min([self.computed_at, *ends])

    @property
    def total_units(self) -> int:
        """Units assigned to any of the arms shown."""
        return sum(self.units.get(variant.id, 0) for variant in self.variants)
