"""The report: question -> moments -> verdicts -> health -> decision, as one frozen value."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from assay.events.timestamps import micros
from assay.eventstore.base import Arm, Arrivals, Bucket, EventStore, Scope
from assay.eventstore.columns import UnitList
from assay.reports.arms import ByVariant, Quantiles, measure_of, shown_variants, tallies
from assay.reports.audience import Audience
from assay.reports.bandit import bandit_of
from assay.reports.columns import ask_columns, ask_quantiles, is_plain, source_of
from assay.reports.compare import report_metric
from assay.reports.decision import Facts, decide
from assay.reports.dimensions import by_dimension
from assay.reports.evidence import by_split, gather
from assay.reports.health import examine
from assay.reports.judging import judged_reports, next_look
from assay.reports.question import Question
from assay.reports.report import ConversionSource, Report, Why
from assay.reports.spec import Direction, ExperimentSpec, MetricSpec, MetricType, Role, VariantSpec
from assay.stats import Phase, SampleRatio, sample_ratio

#: Every event that counts, whatever its type.
ANY_EVENT = MetricSpec("any_event", "any event", MetricType.CONVERSION, None, role=Role.AD_HOC)


#: What a question must know of users that asks for none of them apart.
EVERYBODY = Audience()


def build(
    store: EventStore,
    spec: ExperimentSpec,
    question: Question,
    now: datetime,
    audience: Audience = EVERYBODY,
) -> Report:
    """Answer the question as of one moment: one scan for all metrics, others only where asked for.

    `audience` is what the question must know of users.
    """
    if not question.sql:
        with store.one_moment():
            return _build(store, spec, question, now, audience)
    with store.one_moment(), store.recorded() as statements:
        report = _build(store, spec, question, now, audience)
    return replace(report, statements=tuple(statements))


def _build(
    store: EventStore, spec: ExperimentSpec, question: Question, now: datetime, audience: Audience
) -> Report:
    scope = scope_of(spec, question, audience.members)
    alpha = level(spec, question)
    wanted = wanted_metrics(spec, question)
    conversion, source = conversion_of(spec, question)
    primary = spec.primary or conversion
    activity = _activity(question)
    # The decision rests on all that the experiment declares, however few metrics are shown.
    declared = tuple(dict.fromkeys((*spec.metrics, primary)))
    every = tuple(dict.fromkeys((*declared, *wanted, conversion, *activity)))
    end = min([now, *(each for each in (spec.ended_at, question.end) if each is not None)])
    arms, by_metric, quantiles = _answers(store, spec, scope, every, micros(end))
    units = _units(spec, arms)
    shown, missing = shown_and_missing(spec, question, units)
    # The decision weighs every comparison, however few are shown.
    everyone, lacking = shown_and_missing(spec, replace(question, variant=None), units)
    whole = {
        metric: report_metric(
            spec, metric, by_metric[metric], everyone, alpha=alpha, quantiles=quantiles.get(metric)
        )
        for metric in every
    }
    total = sum(units.values())
    judged_as = spec if question.segment is None else spec.looked_at_once
    whole = judged_reports(judged_as, whole, primary, units=total, now=end, alpha=alpha)
    reports = whole if shown == everyone else {metric: of.narrowed(shown) for metric, of in whole.items()}
    ratio = _sample_ratio(spec, arms)
    judged = tuple(whole[metric] for metric in declared)
    activated = ratio if scope.activation else None
    evidence = gather(store, spec, scope, units=units, metrics=judged, end=end, activated=activated)
    # Whom the activation event lets in is one question, whom the assignment did another.
    assigned_ratio = (
        _sample_ratio(spec, evidence.arrivals) if scope.activation and evidence.arrivals else None
    )
    checks = examine(evidence._replace(attributes=audience.attributes))
    asked = [*(wanted if question.metrics is not None else ()), conversion]
    silent = tuple(dict.fromkeys(each.event_type or "" for each in asked if reports[each].silent))
    narrowed = question.is_narrowed
    due = next_look(spec)
    learnt = bandit_of(spec, whole[primary])
    facts = Facts(
        spec,
        whole[primary],
        judged,
        units,
        checks,
        lacking,
        narrowed,
        alpha,
        evidence.begin,
        end,
        due,
        silent,
        question.segment,
        learnt,
    )
    grain = question.grain
    return Report(
        spec=spec,
        question=question,
        computed_at=now,
        alpha=alpha,
        variants=shown,
        metrics=tuple(reports[metric] for metric in wanted) or (reports[primary],),
        primary=reports[primary],
        conversion=reports[conversion],
        conversion_source=source,
        units=units,
        sample_ratio=ratio,
        checks=checks,
        decision=decide(facts),
        activity=reports[activity[0]] if activity else None,
        counts=tuple(store.event_counts(replace(scope, event_type=question.event_type))) if activity else (),
        series=tuple(store.series(scope, measure_of(conversion), Bucket(grain))) if grain else (),
        missing=missing,
        begin=evidence.begin,
        bandit=learnt,
        next_look=due,
        assigned_ratio=assigned_ratio,
        members=audience.members,
        dimensions=tuple(
            by_dimension(store, judged_as, scope, wanted or (primary,), each, until=micros(end), alpha=alpha)
            for each in audience.dimensions
        ),
    )


class _Answers(NamedTuple):
    """What the store said of some metrics; `arms` are there whatever the metrics."""

    arms: Sequence[Arm]
    by_metric: Mapping[MetricSpec, ByVariant]
    quantiles: Mapping[MetricSpec, Quantiles]


def _answers(
    store: EventStore, spec: ExperimentSpec, scope: Scope, metrics: Sequence[MetricSpec], until: int
) -> _Answers:
    """Everything that the metrics need: one scan for the plain ones, one for the others, then quantiles."""
    plain = [metric for metric in metrics if is_plain(metric, before=spec.analysis.cuped)]
    measures = {measure.key: measure for measure in map(measure_of, plain)}
    arms = store.moments(scope, list(measures.values()))
    by_metric = {metric: tallies(arms, measure_of(metric)) for metric in plain}
    further = [metric for metric in metrics if metric not in by_metric]
    if further:
        by_metric.update(ask_columns(store, scope, further, until, before=spec.analysis.cuped))
    return _Answers(arms, by_metric, ask_quantiles(store, spec, scope, by_metric, until))


def scope_of(spec: ExperimentSpec, question: Question, members: UnitList | None = None) -> Scope:
    """Which units and events the store must look at; `members` are the only units, if there are some."""
    return Scope(
        experiment_id=spec.id,
        unit=spec.unit,
        ended_at=None if spec.ended_at is None else micros(spec.ended_at),
        events_from=None if question.start is None else micros(question.start),
        until=None if question.end is None else micros(question.end),
        excluded_units=spec.excluded_units,
        only=members,
        activation=None if spec.activation is None else source_of(spec.activation),
    )


def level(spec: ExperimentSpec, question: Question) -> float:
    """The significance level of the answer: the question's, else the experiment's."""
    if question.threshold is not None:
        return question.threshold
    if question.confidence_level is not None:
        return 1.0 - question.confidence_level
    return spec.significance_level


def wanted_metrics(spec: ExperimentSpec, question: Question) -> tuple[MetricSpec, ...]:
    """The metrics asked for, by key or name; a name that is neither is the conversion rate of that event."""
    if question.metrics is None:
        return spec.metrics
    return tuple(dict.fromkeys(_metric(spec, name) for name in question.metrics))


def conversion_of(spec: ExperimentSpec, question: Question) -> tuple[MetricSpec, ConversionSource]:
    """What counts as the conversion: named in the question, else by the experiment, else any event."""
    if question.primary_event_type is not None:
        return _conversion(question.primary_event_type, None), ConversionSource.PRIMARY_EVENT_TYPE
    if question.event_type is not None:
        return _conversion(question.event_type, None), ConversionSource.EVENT_TYPE
    primary = spec.primary
    if primary is None:
        return ANY_EVENT, ConversionSource.ANY_EVENT
    source = (
        ConversionSource.PRIMARY_METRIC if primary.role is Role.PRIMARY else ConversionSource.FIRST_METRIC
    )
    if primary.type is MetricType.CONVERSION:
        return primary, source
    return _conversion(primary.event_type, primary), source


def _activity(question: Question) -> tuple[MetricSpec, ...]:
    """Who has any of the events that are counted by type."""
    if not question.counts:
        return ()
    return (ANY_EVENT if question.event_type is None else _conversion(question.event_type, None),)


def _conversion(event_type: str | None, like: MetricSpec | None) -> MetricSpec:
    """The conversion rate of an event type, over the very events that the metric `like` looks at."""
    name = event_type or ANY_EVENT.name
    return MetricSpec(
        key=name,
        name=name,
        type=MetricType.CONVERSION,
        event_type=event_type,
        prop=None if like is None else like.prop,
        direction=Direction.INCREASE if like is None else like.direction,
        role=Role.AD_HOC,
    )


def _metric(spec: ExperimentSpec, name: str) -> MetricSpec:
    for metric in spec.metrics:
        if metric.key == name:
            return metric
    named = next((metric for metric in spec.metrics if metric.name == name), None)
    return named or _conversion(name, None)


def _units(spec: ExperimentSpec, arms: Sequence[Arm]) -> dict[int, int]:
    units = {variant.id: 0 for variant in spec.variants}
    for arm in arms:
        units[arm.variant_id] = units.get(arm.variant_id, 0) + arm.units
    return units


class _Shown(NamedTuple):
    variants: tuple[VariantSpec, ...]
    missing: Why | None


def shown_and_missing(spec: ExperimentSpec, question: Question, units: Mapping[int, int]) -> _Shown:
    """The arms to show after the variant filter, and why nothing can be compared, if so."""
    every = shown_variants(spec, units)
    if question.variant is not None:
        asked = question.variant
        every = tuple(
            variant
            for variant in every
            if asked == str(variant.id) or (not asked.isdecimal() and asked in (variant.key, variant.name))
        )
        if not every:
            return _Shown((), Why.NO_SUCH_VARIANT)
    control = spec.control
    if control is None:
        return _Shown((), Why.NO_CONTROL)
    if all(variant.id == control.id for variant in every):
        return _Shown(every, Why.NO_TREATMENT)
    return _Shown(every, None)


def _sample_ratio(spec: ExperimentSpec, arms: Sequence[Arm | Arrivals]) -> SampleRatio | None:
    """Units per arm against what each phase dealt; None where there are fewer than two arms to compare."""
    if len(spec.variants) < 2:
        return None
    splits = by_split(spec, ((arm.variant_id, arm.phase, arm.units) for arm in arms))
    return sample_ratio(splits or [Phase((0,) * len(spec.variants), spec.weights(-1))])
