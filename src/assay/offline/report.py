"""The whole answer about a file: read, judged, checked, said in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from assay.errors import Invalid
from assay.offline.health import Finding, findings
from assay.offline.judging import Pair, judge_pair, judge_pairs
from assay.offline.request import FileMetric, Judging, Kind, Request, check
from assay.offline.source import opened
from assay.offline.units import ByArm, Read, Summary, Tail, read
from assay.stats import (
    ArmInterval,
    Contrast,
    Count,
    Interval,
    Judged,
    Moments,
    Ratio,
    Verdict,
    arm_interval,
    one_proportion,
    quantile_arm_interval,
)
from assay.stats.heterogeneity import Heterogeneity, heterogeneity
from assay.stats.srm import Phase, SampleRatio, sample_ratio

#: Names that a control usually has, likeliest first.
CONTROLS: Final = ("control", "baseline", "off", "a", "0", "0.0", "false")
_CHECK_LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm by one metric; `units` counts those with a value, `successes` is a conversion's."""

    variant: str
    units: int
    value: float | None
    interval: Interval | None
    successes: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A treatment against the control; `unadjusted` is the verdict without covariates, where there are any.

    `variance_reduction` is the share of the variance that the covariates took away.
    """

    control: str
    treatment: str
    judged: Judged
    unadjusted: Verdict | None = None
    variance_reduction: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentEffect:
    """The effect within one segment; `shrunken` is it pulled towards the common one (with its error)."""

    segment: str
    verdict: Verdict
    shrunken: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Segmented:
    """One treatment's effects along one column, behind the gate of `heterogeneity`."""

    column: str
    treatment: str
    heterogeneity: Heterogeneity
    effects: tuple[SegmentEffect, ...]

    @property
    def differ(self) -> bool:
        """Whether the segments may be called different at all."""
        return self.heterogeneity.p_value is not None and self.heterogeneity.p_value <= _CHECK_LEVEL


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric: arms with the control first, comparisons, and segments where they were asked for."""

    metric: FileMetric
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    segments: tuple[Segmented, ...]
    tail: Tail
    without_value: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything that was found in a file."""

    request: Request
    judging: Judging
    name: str
    rows: int
    units: Mapping[str, int]
    control: str
    sample_ratio: SampleRatio
    findings: tuple[Finding, ...]
    metrics: tuple[MetricResult, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed; warnings do not count."""
        return not any(finding.state == "failed" for finding in self.findings)


def analyze(request: Request) -> Analysis:
    """Read the file and judge it; raises `Invalid` with one sentence when that cannot be done."""
    check(request.judging)
    with opened(request.path, request.form, request.memory) as source:
        found = read(source, request)
    control = _control(request, found)
    judging = replace(request.judging, total=sum(found.units.values()))
    order = (control, *(name for name in found.units if name != control))
    pairs = [
        (metric, treatment, _pair(metric, found.whole[metric.name], control, treatment, found))
        for metric in request.metrics
        for treatment in order[1:]
    ]
    family = judge_pairs([pair for _, _, pair in pairs], judging)
    comparisons: dict[str, list[Comparison]] = {}
    for (metric, treatment, pair), judged in zip(pairs, family, strict=True):
        comparisons.setdefault(metric.name, []).append(
            _comparison(pair, judged, judging, control=control, treatment=treatment)
        )
    results = tuple(
        MetricResult(
            metric,
            tuple(_arm(metric, name, found.whole[metric.name].get(name), judging.alpha) for name in order),
            tuple(comparisons[metric.name]),
            tuple(_segments(metric, found, judging, order)),
            found.tails[metric.name],
            found.without_value.get(metric.name, 0),
        )
        for metric in request.metrics
    )
    ratio = sample_ratio([Phase(tuple(found.units[name] for name in order), _weights(request, order))])
    balance = _balance(request, found, order)
    return Analysis(
        request,
        judging,
        found.name,
        found.rows,
        {name: found.units[name] for name in order},
        control,
        ratio,
        findings(request, found, order, ratio, balance),
        results,
    )


def _control(request: Request, found: Read) -> str:
    names = ", ".join(repr(name) for name in found.units)
    if request.control is not None:
        if request.control not in found.units:
            raise Invalid.field(
                "--control", f"{found.name} has no variant {request.control!r}; it has {names}."
            )
        return request.control
    for usual in CONTROLS:
        for name in found.units:
            if name.lower() == usual:
                return name
    raise Invalid.field("--control", f"say which variant of {found.name} is the control: {names}.")


def _weights(request: Request, order: Sequence[str]) -> tuple[float, ...]:
    if not request.expected:
        return (1.0,) * len(order)
    if set(request.expected) != set(order):
        named, there = ", ".join(request.expected), ", ".join(order)
        raise Invalid.field("--expected", f"names {named}, but the file has {there}; name each variant once.")
    return tuple(request.expected[name] for name in order)


def _pair(metric: FileMetric, arms: ByArm, control: str, treatment: str, found: Read) -> Pair:
    covariates = () if metric.kind is Kind.QUANTILE else found.covariates
    nobody = next(iter(arms.values())) if arms else None
    return Pair(
        metric,
        arms.get(control) or _empty(nobody),
        arms.get(treatment) or _empty(nobody),
        covariates,
    )


def _empty(like: Summary | None) -> Summary:
    """An arm without units, with the columns that the other arms have."""
    columns = like.moments.columns if like is not None else ("y",)
    return Summary(0, Moments.empty(columns), None if like is None or like.successes is None else 0)


def _comparison(pair: Pair, judged: Judged, judging: Judging, *, control: str, treatment: str) -> Comparison:
    if not pair.covariates:
        return Comparison(control, treatment, judged)
    plain, adjusted = pair.plain.contrast().variance, pair.contrast().variance
    reduction = 1.0 - adjusted / plain if plain and adjusted is not None else None
    unadjusted = judge_pair(pair.plain, judging, judged.verdict.alpha)
    return Comparison(control, treatment, judged, unadjusted, reduction)


def _arm(metric: FileMetric, variant: str, summary: Summary | None, alpha: float) -> Arm:
    if summary is None:
        return Arm(variant, 0, None, None, None)
    if summary.quantile is not None:
        around = quantile_arm_interval(summary.quantile, alpha=alpha)
        return Arm(variant, summary.units, around.value, around.interval, None)
    if summary.successes is not None:
        shown: ArmInterval = one_proportion(Count(summary.units, summary.successes), alpha=alpha)
    else:
        value = Ratio("y", "d") if metric.kind is Kind.RATIO else "y"
        shown = arm_interval(summary.moments, value, alpha=alpha)
    return Arm(variant, summary.units, shown.value, shown.interval, summary.successes)


def _segments(metric: FileMetric, found: Read, judging: Judging, order: Sequence[str]) -> list[Segmented]:
    """Effects by segment; a quantile has none, since its noise is that of all rows together."""
    if metric.kind is Kind.QUANTILE:
        return []
    # Segments are looked at once, at the end: sequential limits are those of the whole.
    single = replace(judging, method="bayesian" if judging.method == "bayesian" else "fixed")
    results = []
    for column, segments in found.segmented.items():
        for treatment in order[1:]:
            pairs = {
                name: _pair(metric, arms[metric.name], order[0], treatment, found)
                for name, arms in segments.items()
            }
            contrasts: list[Contrast] = [pair.contrast() for pair in pairs.values()]
            gate = heterogeneity(
                [None if each.reason else each.estimate for each in contrasts],
                [None if each.reason else each.variance for each in contrasts],
            )
            effects = tuple(
                SegmentEffect(
                    name,
                    judge_pair(pair, single, judging.alpha),
                    (pulled.estimate, pulled.standard_error) if pulled else None,
                )
                for (name, pair), pulled in zip(pairs.items(), gate.segments, strict=True)
            )
            results.append(Segmented(column, treatment, gate, effects))
    return results


def _balance(request: Request, found: Read, order: Sequence[str]) -> dict[tuple[str, str], float]:
    """p-values of the covariates' differences between arms, which chance alone should make."""
    metric = next((each for each in request.metrics if each.kind is not Kind.QUANTILE), None)
    if metric is None:
        return {}
    arms = found.whole[metric.name]
    balance = {}
    for column in request.covariates:
        shown = FileMetric(f"z:{column}", Kind.MEAN, column)
        for treatment in order[1:]:
            sides = [
                replace(arms[name], moments=arms[name].moments.select(f"z:{column}"), successes=None)
                for name in (order[0], treatment)
                if name in arms
            ]
            if len(sides) == 2:
                p_value = _p_of(shown, sides[0], sides[1])
                if p_value is not None:
                    balance[column, treatment] = p_value
    return balance


def _p_of(metric: FileMetric, control: Summary, treatment: Summary) -> float | None:
    column = control.moments.columns[0]
    one, other = (
        replace(side, moments=side.moments.transform({"y": {column: 1.0}})) for side in (control, treatment)
    )
    return judge_pair(Pair(metric, one, other), Judging(), _CHECK_LEVEL).p_value
