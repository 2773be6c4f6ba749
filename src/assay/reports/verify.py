"""Is a report what its own statistics say? Reads the canonical document back and computes it anew.

Every number of the document that follows from sufficient statistics in it (units, means, covariances, sample
quantiles) is computed again by the code that made it and compared: units, arms, comparisons, the sample
ratio, the decision with its outlook and what is corrected at a stop, a bandit's probabilities, groups of
users, and the checks of health that rest on these. What follows from events (the statistics themselves, the
other checks) needs the store; what was decided before (plan, looks, a breaker that tripped) is taken as it
stands.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, cast

from assay.errors import Invalid
from assay.eventstore.columns import BlockMoments
from assay.eventstore.columns import QuantileArm as Found
from assay.reports.arms import ByVariant, Quantiles, Sample, Tally
from assay.reports.audience import Counted
from assay.reports.bandit import bandit_of
from assay.reports.build import shown_and_missing
from assay.reports.columns import sample_of
from assay.reports.compare import report_metric
from assay.reports.decision import Facts, decide
from assay.reports.dimensions import grouped, weighed_by_groups
from assay.reports.evidence import Evidence, by_split
from assay.reports.health import CHECKS, examine
from assay.reports.judging import judged_reports, next_look
from assay.reports.question import Question
from assay.reports.report import ByDimension, Check, ConversionSource, Health, Report
from assay.reports.spec import (
    AnalysisSpec,
    BanditSpec,
    BreakerSpec,
    CapSpec,
    Direction,
    ExperimentSpec,
    LookSpec,
    LookVerdict,
    MarginSpec,
    MetricSpec,
    MetricType,
    PhaseSpec,
    Role,
    VariantSpec,
)
from assay.reports.views.canonical import canonical
from assay.reports.views.common import Document
from assay.stats import Moments, Phase, SampleRatio, sample_ratio

#: Relative to the larger of two numbers: what another machine's arithmetic may differ by.
TOLERANCE: Final = 1e-9
#: Below this two numbers are both zero: differences of equal means leave such dust.
_DUST: Final = 1e-12
#: Words about numbers; and what only the store can tell.
_NOT_COMPARED: Final = frozenset(
    {"headline", "sentence", "cautions", "rules", "what_to_do", "waiting", "sql"}
)
#: Parts that are read, not computed: what the report is about, and what was decided before it.
_GIVEN: Final = ("experiment", "plan", "looks", "breaker", "window", "complete", "segment")
#: What checks may rest on that is in the document.
_KNOWN: Final = frozenset({"spec", "metrics", "units", "begin", "end"})


class Mismatch(NamedTuple):
    """One value of the document that is not what its statistics give."""

    path: str
    said: object
    computed: object


class Verification(NamedTuple):
    """What was compared, what differs, and what could not be computed again, in sentences."""

    compared: int
    mismatches: tuple[Mismatch, ...]
    left_out: tuple[str, ...]


def verify(document: Mapping[str, Any]) -> Verification:
    """Compute a canonical report anew from the statistics in it.

    Raises `Invalid` where the document is no such report, or lacks what it would be computed from.
    """
    try:
        again, left_out = _rebuilt(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise Invalid(
            "This is no complete report: save what GET /api/v1/experiments/{experiment}/report answers "
            f"({type(problem).__name__}: {problem}).",
            code="not_a_report",
        ) from problem
    compared, found = 0, []
    for path, said, computed in _pairs("", document, again, frozenset(left_out)):
        compared += 1
        if not _same(said, computed):
            found.append(Mismatch(path, said, computed))
    return Verification(compared, tuple(found), tuple(left_out.values()))


def _pairs(
    path: str, said: object, computed: object, skipped: frozenset[str]
) -> Iterator[tuple[str, object, object]]:
    """The leaves of two documents side by side; a missing branch is one leaf."""
    if path in skipped or path.rpartition(".")[2] in _NOT_COMPARED:
        return
    if isinstance(said, Mapping) and isinstance(computed, Mapping):
        for name in dict.fromkeys((*said, *computed)):
            below = f"{path}.{name}" if path else str(name)
            yield from _pairs(below, said.get(name), computed.get(name), skipped)
    elif isinstance(said, list) and isinstance(computed, list) and len(said) == len(computed):
        for place, (one, other) in enumerate(zip(said, computed, strict=True)):
            yield from _pairs(f"{path}[{_label(one, place)}]", one, other, skipped)
    else:
        yield path, said, computed


def _label(one: object, place: int) -> object:
    """What a person calls a member of a list."""
    if isinstance(one, Mapping):
        for name in ("key", "treatment", "variant_name", "variant_key", "check"):
            if name in one:
                return one[name]
    return place


def _same(said: object, computed: object) -> bool:
    numbers = [
        float(each)
        for each in (said, computed)
        if isinstance(each, (int, float)) and not isinstance(each, bool)
    ]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=TOLERANCE, abs_tol=_DUST)
    return said == computed


def _rebuilt(document: Mapping[str, Any]) -> tuple[Document, dict[str, str]]:
    """The document as its statistics give it, and what of it they do not: path to sentence."""
    spec = _spec(document)
    alpha = float(document["significance_level"])
    end = _time(document["window"]["end"])
    begin = _time_or_none(document["experiment"]["began_at"])
    narrowed = bool(document["window"]["start"]) or document["window"]["narrowed"]
    specs = {each["key"]: _metric(each) for each in document["metrics"]}
    tallies = {specs[each["key"]]: _tallies(each["statistics"], _cap(each)) for each in document["metrics"]}
    units = _units(document, tallies)
    shown, missing = shown_and_missing(spec, Question(), units)
    quantiles = {specs[each["key"]]: _quantiles(each) for each in document["metrics"]}
    whole = {
        metric: report_metric(spec, metric, found, shown, alpha=alpha, quantiles=quantiles[metric])
        for metric, found in tallies.items()
    }
    left_out: dict[str, str] = {}
    chosen = specs.get(document["primary_metric"])
    primary = chosen or next(iter(specs.values()))
    segment = document["segment"]
    judged_as = spec if segment is None else spec.looked_at_once
    whole = judged_reports(judged_as, whole, primary, units=sum(units.values()), now=end, alpha=alpha)
    ratio = _ratio(spec, units, tallies, left_out)
    due = next_look(spec)
    judged = tuple(whole.values())
    declared = tuple(
        of for metric, of in whole.items() if metric.role is not Role.AD_HOC or metric == primary
    )
    checks = _checks(document, Evidence(spec, units, declared, begin, end))
    learnt = bandit_of(spec, whole[primary])
    facts = Facts(
        spec,
        whole[primary],
        judged,
        units,
        checks,
        missing,
        narrowed,
        alpha,
        begin,
        end,
        due,
        segment=segment,
        bandit=learnt,
    )
    if not document["complete"]:
        _leave_corrected(document, left_out)
    dimensions = tuple(
        _dimension(judged_as, each, specs, alpha, left_out) for each in document.get("dimensions", ())
    )
    report = Report(
        spec=spec,
        question=Question(
            start=_time_or_none(document["window"]["start"]),
            end=end if narrowed else None,
            segment=segment,
            dimensions=tuple(each.attribute for each in dimensions),
        ),
        computed_at=_time(document["computed_at"]),
        alpha=alpha,
        variants=shown,
        metrics=judged,
        primary=whole[primary],
        conversion=whole[primary],
        conversion_source=ConversionSource.PRIMARY_METRIC,
        units=units,
        sample_ratio=ratio,
        checks=checks,
        decision=decide(facts),
        missing=missing,
        begin=begin,
        next_look=due,
        bandit=learnt,
        dimensions=dimensions,
    )
    again = canonical(report)
    for name in _GIVEN:
        again[name] = document.get(name)
    for told, made in zip(document["metrics"], again["metrics"], strict=True):
        made["definition"] = told["definition"]
    return again, left_out


def _units(document: Mapping[str, Any], tallies: Mapping[MetricSpec, ByVariant]) -> dict[int, int]:
    """Units by variant, from a metric that leaves none out; as the document says, where there is none."""
    for metric, found in tallies.items():
        if not metric.complete_only:
            known = {int(variant): 0 for variant in document["units"]}
            return known | {
                variant: sum(tally.units for tally in by_phase.values())
                for variant, by_phase in found.items()
            }
    return {int(variant): int(count) for variant, count in document["units"].items()}


def _checks(document: Mapping[str, Any], evidence: Evidence) -> tuple[Check, ...]:
    """The checks of the document; those that rest on its own numbers are made again."""
    again: dict[str, Check] = {}
    if document["complete"]:
        again = {
            each.name: each
            for each in examine(evidence, [check for check in CHECKS if _KNOWN.issuperset(check.needs)])
        }
    return tuple(
        again.get(
            each["check"], Check(each["check"], Health(each["health"]), each["sentence"], each["inputs"])
        )
        for each in document["health"]
    )


def _dimension(
    spec: ExperimentSpec,
    said: Mapping[str, Any],
    specs: Mapping[str, MetricSpec],
    alpha: float,
    left_out: dict[str, str],
) -> ByDimension:
    """What one attribute's groups say by their own tallies."""
    tallies = {
        specs[each["metric"]]: {of["group"]: _tallies(of["variants"]) for of in each["statistics"]}
        for each in said["metrics"]
        if each["sentence"] is None
    }
    counted: dict[str, list[Counted]] = {}
    for group in said["groups"]:
        found = (by_group[group["group"]] for by_group in tallies.values())
        rows = (
            [(arm, phase, one.units) for arm, of in each.items() for phase, one in of.items()]
            for each in found
        )
        whole = (each for each in rows if sum(count for _, _, count in each) == group["units"])
        counted[group["group"]] = next(whole, [])
    known = [(each["group"], each["kind"], each["value"]) for each in said["groups"]]
    if not all(counted.values()):
        left_out["dimensions"] = (
            "No metric counts all units of each group: what is told by groups was left out."
        )
    groups = grouped(spec, known, counted)
    metrics = [specs[each["metric"]] for each in said["metrics"]]
    attribute, distinct = said["attribute"], said["distinct_values"]
    return weighed_by_groups(spec, metrics, attribute, distinct, groups, tallies, alpha=alpha)


def _leave_corrected(document: Mapping[str, Any], left_out: dict[str, str]) -> None:
    """A report of some metrics lacks the rest of the family, and perhaps what decides."""
    sentence = "The report holds some of the experiment's metrics: what rests on all of them was left out."
    for name in ("decision", "primary_metric", "bandit"):
        left_out[name] = sentence
    for metric in document["metrics"]:
        for place, each in enumerate(metric["comparisons"]):
            label = _label(each, place)
            for name in ("interval", "lift", "adjusted_p_value", "family", "significant"):
                left_out[f"metrics[{metric['key']}].comparisons[{label}].{name}"] = sentence
            for name in ("significance_level", "margin", "unadjusted"):
                left_out[f"metrics[{metric['key']}].comparisons[{label}].{name}"] = sentence


def _ratio(
    spec: ExperimentSpec,
    units: Mapping[int, int],
    tallies: Mapping[MetricSpec, ByVariant],
    left_out: dict[str, str],
) -> SampleRatio | None:
    """The sample ratio from a metric that counts every unit."""
    if len(spec.variants) < 2:
        return None
    total = sum(units.values())
    for found in tallies.values():
        rows = [(arm, phase, one.units) for arm, of in found.items() for phase, one in of.items()]
        if sum(count for _, _, count in rows) == total:
            splits = by_split(spec, rows)
            return sample_ratio(splits or [Phase((0,) * len(spec.variants), spec.weights(-1))])
    left_out["srm"] = "No metric counts all units by phase: the sample ratio was left out."
    return None


def _spec(document: Mapping[str, Any]) -> ExperimentSpec:
    about, plan = document["experiment"], document["plan"]
    return ExperimentSpec(
        id=about["id"],
        key=about["key"],
        name=about["name"],
        status=about["status"],
        created_at=_time(about["created_at"]),
        variants=tuple(
            VariantSpec(
                each["id"],
                each["key"],
                each["name"],
                each["allocation"],
                each["is_control"],
                each["enabled"],
                each["removed"],
            )
            for each in about["variants"]
        ),
        unit=about["unit"],
        phases=tuple(
            PhaseSpec(
                each["number"],
                _time(each["started_at"]),
                _time_or_none(each["ended_at"]),
                tuple((int(variant), share) for variant, share in each["split"].items()),
            )
            for each in about["phases"]
        ),
        started_at=_time_or_none(about["started_at"]),
        ended_at=_time_or_none(about["ended_at"]),
        metrics=tuple(_metric(each) for each in document["metrics"] if each["role"] != str(Role.AD_HOC)),
        target_sample_size=about["target_sample_size"],
        significance_level=plan["significance_level"],
        power=plan["power"],
        minimum_detectable_effect=plan["minimum_detectable_effect"],
        winner_id=about["winner_id"],
        analysis=AnalysisSpec(
            plan["method"],
            plan["alternative"],
            plan["correction"],
            plan["cuped"],
            plan["looks"],
            tuple(map(_time, plan["look_dates"])),
            plan["spending"],
            plan["spending_power"],
            plan["planned_units"],
            _bandit(document["bandit"]),
        ),
        hypothesis=plan["hypothesis"],
        plan_hash=plan["hash"],
        breaker=_breaker(document.get("breaker")),
        looks=tuple(
            LookSpec(
                each["number"],
                _time(each["at"]),
                each["units"],
                each["information_fraction"],
                tuple(map(_look, each["verdicts"])),
            )
            for each in document["looks"]
        ),
    )


def _bandit(said: Mapping[str, Any] | None) -> BanditSpec | None:
    if said is None:
        return None
    return BanditSpec(
        timedelta(seconds=said["reweight_every_seconds"]),
        said["floor"],
        said["sampling"],
        said["ship_probability"],
        said["ship_loss"],
        _time_or_none(said["next_at"]),
    )


def _breaker(said: Mapping[str, Any] | None) -> BreakerSpec | None:
    if said is None:
        return None
    at = _time_or_none(said["tripped_at"])
    return BreakerSpec(said["action"], said["false_trip_rate"], said["since_phase"], at, said["reason"])


def _look(said: Mapping[str, Any]) -> LookVerdict:
    around = said["interval"]
    return LookVerdict(
        said["metric"],
        said["treatment_id"],
        said["z"],
        said["limit"],
        said["crossed"],
        said["estimate"],
        None if around is None else (around["low"], around["high"]),
        said["p_value"],
    )


def _metric(said: Mapping[str, Any]) -> MetricSpec:
    how = said["definition"]
    margin, look, window = how["margin"], how["lookback"], how["window"]
    return MetricSpec(
        key=said["key"],
        name=said["name"],
        type=MetricType(said["type"]),
        event_type=said["event_type"],
        prop=said["property"],
        direction=Direction(said["direction"]),
        role=Role(said["role"]),
        quantile=how["quantile"],
        by_event=how["of_events"],
        zeros=how["zeros"],
        opens=round(window["from"] * 1e6),
        closes=None if window["to"] is None else round(window["to"] * 1e6),
        complete_only=how["complete_only"],
        lookback=None if look is None else round(look * 1e6),
        margin=None if margin is None else MarginSpec(margin["size"], margin["relative"]),
        registered=said["registered"],
    )


def _cap(said: Mapping[str, Any]) -> CapSpec | None:
    """Where amounts were pulled in to: a quantile of the amounts themselves, so read and not computed."""
    found = said["capped_at"]
    return None if found is None else CapSpec(found["high"], found["low"])


def _tallies(rows: Sequence[Mapping[str, Any]], cap: CapSpec | None = None) -> ByVariant:
    found: dict[int, dict[int, Tally]] = {}
    for row in rows:
        moments = _moments(row["units"], row["columns"], row["means"], row["covariance"])
        found.setdefault(row["variant_id"], {})[row["phase"]] = Tally(
            row["converters"], row["events"], row["total"], moments, row["unreadable"], cap
        )
    return found


def _moments(
    count: int, names: Sequence[str], means: Sequence[float], covariance: Sequence[Sequence[float]]
) -> Moments:
    pairs = {(x, y): covariance[i][j] for i, x in enumerate(names) for j, y in enumerate(names)}
    return Moments.from_centred(count, dict(zip(names, means, strict=True)), pairs)


def _quantiles(said: Mapping[str, Any]) -> Quantiles | None:
    found = said["quantiles"]
    if found is None:
        return None
    by_event = said["definition"]["of_events"]
    strata: dict[int, dict[int, Sample]] = {}
    for row in found["strata"]:
        strata.setdefault(row["variant_id"], {})[row["stratum"]] = _sample(row, by_event)
    return Quantiles(
        {row["variant_id"]: _sample(row, by_event) for row in found["overall"]},
        strata,
        {int(phase): stratum for phase, stratum in found["stratum_of_phase"].items()},
    )


def _sample(row: Mapping[str, Any], by_event: bool) -> Sample:
    around = row["clusters"]
    means, covariance = tuple(around["means"]), tuple(map(tuple, around["covariance"]))
    totals = tuple(mean * row["units"] for mean in means)
    clusters = BlockMoments(row["units"], means, covariance, (0,) * len(means), totals)
    found = Found(
        row["variant_id"],
        cast("int", row["stratum"]),
        "q",
        row["observations"],
        row["units"],
        row["value"],
        row["lower_neighbour"],
        row["upper_neighbour"],
        clusters,
        0,
    )
    return Sample(sample_of(found, row["quantile"], by_event), found)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time_or_none(text: str | None) -> datetime | None:
    return None if text is None else _time(text)
