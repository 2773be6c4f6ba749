"""What a file is to be asked: metrics, arms and method, checked before the file is opened."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal, TypeVar, get_args

from assay.errors import Invalid
from assay.stats.multiplicity import Correction
from assay.stats.power import Test
from assay.stats.tails import Alternative

Method = Literal["fixed", "always-valid", "bayesian", "group-sequential"]
Aggregate = Literal["sum", "mean", "count", "any", "max"]
PlannedTest = Literal["fixed", "group-sequential", "always-valid"]
Missing = Literal["zero", "exclude"]
Format = Literal["csv", "parquet", "ndjson"]
Word = TypeVar("Word", bound=str)
Value = TypeVar("Value", str, float)

METHODS: Final[tuple[Method, ...]] = get_args(Method)
AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate)
MISSING: Final[tuple[Missing, ...]] = get_args(Missing)
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
#: Tests that an experiment can be planned for, and what `assay.stats` calls them.
STATS_TESTS: Final[dict[PlannedTest, Test]] = {
    "fixed": "fixed",
    "group-sequential": "group_sequential",
    "always-valid": "always_valid",
}
CORRECTIONS: Final[tuple[Correction, ...]] = get_args(Correction)


class Kind(StrEnum):
    """What a metric is of a unit, and so how it is compared."""

    MEAN = "mean"
    CONVERSION = "conversion"
    COUNT = "count"
    RATIO = "ratio"
    QUANTILE = "quantile"


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a unit's value is cut: at fixed numbers, or at shares of all units whatever their arm."""

    high: float | None = None
    high_share: float | None = None
    tails: float | None = None


@dataclass(frozen=True, slots=True)
class FileMetric:
    """One metric: `column` of the file, over the rows of a unit by `aggregate`; `denominator` for a ratio."""

    name: str
    kind: Kind
    column: str
    aggregate: Aggregate = "sum"
    denominator: str | None = None
    level: float | None = None
    limits: Limits | None = None
    lower_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Judging:
    """How comparisons are judged; `planned` is the number of units of all arms at the planned end.

    `total` is the number that has come, `earlier` are the information fractions of the looks before this one,
    and `final` says that this is the last.
    """

    method: Method = "fixed"
    alpha: float = 0.05
    one_sided: bool = False
    correction: Correction = "holm"
    planned: int | None = None
    earlier: tuple[float, ...] = ()
    final: bool = False
    total: int = 0

    @property
    def fraction(self) -> float:
        """The share of the planned units that has come."""
        return self.total / (self.planned or 1)

    def alternative(self, metric: FileMetric) -> Alternative:
        """A one-sided test asks whether the treatment is better, on the metric's own terms."""
        if not self.one_sided:
            return "two-sided"
        return "less" if metric.lower_is_better else "greater"


@dataclass(frozen=True, slots=True)
class Request:
    """One analysis of a file, or of all files that a pattern matches; no `variant` makes one group of all."""

    path: str
    unit: str
    variant: str | None
    metrics: tuple[FileMetric, ...]
    covariates: tuple[str, ...] = ()
    covariate_aggregates: Mapping[str, Aggregate] = field(default_factory=dict)
    control: str | None = None
    segments: tuple[str, ...] = ()
    where: str | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    missing: Missing = "zero"
    judging: Judging = Judging()
    form: Format | None = None
    memory: str = "1GiB"


def metrics_of(
    *,
    means: Sequence[str] = (),
    conversions: Sequence[str] = (),
    counts: Sequence[str] = (),
    ratios: Sequence[str] = (),
    quantiles: Sequence[str] = (),
) -> tuple[FileMetric, ...]:
    """Metrics as they are written on the command line; at least one is needed, and names must differ."""
    made = [FileMetric(column, Kind.MEAN, column) for column in means]
    made += [FileMetric(column, Kind.CONVERSION, column, "any") for column in conversions]
    made += [FileMetric(f"count of {column}", Kind.COUNT, column, "count") for column in counts]
    made += [_ratio(text) for text in ratios]
    made += [_quantile(text) for text in quantiles]
    if not made:
        raise Invalid("Name at least one metric: --metric, --conversion, --count, --ratio or --quantile.")
    seen: set[str] = set()
    for at, metric in enumerate(made):
        if metric.name in seen and metric.kind is Kind.CONVERSION:
            made[at] = replace(metric, name=f"conversion of {metric.column}")
        if made[at].name in seen:
            raise Invalid(f"The metric {metric.name!r} is named twice; once is enough.")
        seen.add(made[at].name)
    return tuple(made)


def _ratio(text: str) -> FileMetric:
    above, slash, below = text.partition("/")
    if not slash or not above.strip() or not below.strip():
        raise Invalid.field("--ratio", f"{text!r} is not NUMERATOR/DENOMINATOR, as in revenue/sessions.")
    return FileMetric(text, Kind.RATIO, above.strip(), denominator=below.strip())


def _quantile(text: str) -> FileMetric:
    level, colon, column = text.partition(":")
    share = _number(level)
    if not colon or not column or share is None or not 0.0 < share < 1.0:
        raise Invalid.field(
            "--quantile", f"{text!r} is not LEVEL:COLUMN with a level between 0 and 1, as in 0.95:latency."
        )
    return FileMetric(f"p{100 * share:g} of {column}", Kind.QUANTILE, column, level=share)


def with_aggregates(
    metrics: Sequence[FileMetric], covariates: Sequence[str], given: Sequence[str]
) -> tuple[tuple[FileMetric, ...], dict[str, Aggregate]]:
    """The metrics, and how covariates are taken, by `HOW` for all means or `COLUMN=HOW` for one column."""
    changed = list(metrics)
    of_covariates: dict[str, Aggregate] = {}
    for text in given:
        column, equals, word = text.rpartition("=")
        how = next((each for each in AGGREGATES if each == word), None)
        if how is None:
            raise Invalid.field("--aggregate", f"{word!r} is not one of {', '.join(AGGREGATES)}.")
        hit = [
            at
            for at, metric in enumerate(changed)
            if metric.kind is Kind.MEAN and (not equals or metric.column == column)
        ]
        for at in hit:
            changed[at] = replace(changed[at], aggregate=how)
        if column in covariates:
            of_covariates[column] = how
        elif equals and not hit:
            raise Invalid.field("--aggregate", f"{column!r} is neither a --metric nor a --covariate.")
    return tuple(changed), of_covariates


def with_limits(
    metrics: Sequence[FileMetric], caps: Sequence[str], winsorised: Sequence[str]
) -> tuple[FileMetric, ...]:
    """The metrics with `COLUMN=500` or `COLUMN=99%` as caps, and `COLUMN=1%` cut off both tails."""
    changed = list(metrics)
    for option, texts in (("--cap", caps), ("--winsorise", winsorised)):
        for text in texts:
            column, _, size = text.rpartition("=")
            at = next(
                (
                    at
                    for at, metric in enumerate(changed)
                    if metric.kind is Kind.MEAN and metric.column == column
                ),
                None,
            )
            if at is None:
                raise Invalid.field(option, f"{text!r} is not COLUMN=SIZE with the column of a --metric.")
            if changed[at].limits is not None:
                raise Invalid.field(option, f"{column!r} has a limit already; one for each metric.")
            changed[at] = replace(changed[at], limits=_limits(option, text, size))
    return tuple(changed)


def _limits(option: str, text: str, size: str) -> Limits:
    share = _number(size.removesuffix("%")) if size.endswith("%") else None
    if option == "--winsorise":
        if share is None or not 0.0 < share < 50.0:
            raise Invalid.field(option, f"{text!r} needs a share of each tail between 0% and 50%, as in 1%.")
        return Limits(tails=share / 100.0)
    if size.endswith("%"):
        if share is None or not 0.0 < share < 100.0:
            raise Invalid.field(option, f"{text!r} needs a percentile between 0% and 100%, as in 99%.")
        return Limits(high_share=share / 100.0)
    high = _number(size)
    if high is None:
        raise Invalid.field(option, f"{text!r} needs a number or a percentile, as in 500 or 99%.")
    return Limits(high=high)


def with_directions(metrics: Sequence[FileMetric], lower: Sequence[str]) -> tuple[FileMetric, ...]:
    """The metrics, those named (by name or column) marked as better when lower."""
    for name in lower:
        if not any(name in {metric.name, metric.column} for metric in metrics):
            there = ", ".join(metric.name for metric in metrics)
            raise Invalid.field("--lower-is-better", f"there is no metric {name!r}; there are {there}.")
    return tuple(
        replace(metric, lower_is_better=bool({metric.name, metric.column} & set(lower))) for metric in metrics
    )


def one_of(option: str, text: str, words: Sequence[Word]) -> Word:
    """The word, when it is one of those; raises `Invalid` naming them when not."""
    for word in words:
        if word == text:
            return word
    raise Invalid.field(option, f"{text!r} is not one of {', '.join(words)}.")


def needed(option: str, value: Value | None, by: str) -> Value:
    """The value of an option that another one makes necessary; raises `Invalid` when it was not given."""
    if value is None:
        raise Invalid.field(option, f"{by} needs it; it was not given.")
    return value


def shares_of(option: str, text: str | None) -> dict[str, float]:
    """`control=0.5,new=0.5` as positive weights by name; nothing at all as no weights."""
    found: dict[str, float] = {}
    for part in (text or "").split(",") if text else ():
        name, _, size = part.rpartition("=")
        weight = _number(size)
        if not name.strip() or weight is None or weight <= 0.0:
            raise Invalid.field(option, f"{part!r} is not VARIANT=SHARE with a share above 0.")
        found[name.strip()] = weight
    return found


def fractions_of(option: str, text: str | None) -> tuple[float, ...]:
    """`0.25,0.5` as increasing fractions of the planned size."""
    found: list[float] = []
    for part in (text or "").split(",") if text else ():
        share = _number(part)
        if share is None or share <= (found[-1] if found else 0.0):
            raise Invalid.field(option, f"{text!r} is not a list of increasing fractions, as in 0.25,0.5.")
        found.append(share)
    return tuple(found)


def check(judging: Judging) -> None:
    """Raise `Invalid` where the method lacks what it needs."""
    if not 0.0 < judging.alpha < 1.0:
        raise Invalid.field("--alpha", f"{judging.alpha:g} does not lie between 0 and 1.")
    sequential = judging.method in {"always-valid", "group-sequential"}
    if sequential and (judging.planned is None or judging.planned < 1):
        raise Invalid.field(
            "--planned",
            f"the method {judging.method} needs the number of units of all arms that was planned before the "
            "data came; the number in the file would be chosen by the data.",
        )
    if judging.method != "group-sequential" and (judging.earlier or judging.final):
        raise Invalid.field("--method", "--looks and --final belong to group-sequential.")


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
