"""`GET …/report` and `GET …/timeseries`: everything that was computed, under its own names."""

from datetime import datetime

from assay.eventstore.base import Statement
from assay.reports.arms import ArmSummary
from assay.reports.notes import notes
from assay.reports.report import Comparison, MetricReport, Report, Trend, Why
from assay.reports.spec import MetricSpec, Role
from assay.reports.views.common import Document, ends, iso, iso_or_none
from assay.reports.views.dimensions import dimensions_document
from assay.reports.views.judgement import (
    bandit_document,
    breaker_document,
    decision_document,
    judged_document,
    looks_document,
    next_look_document,
    plan_document,
    quantiles_document,
    source_document,
    statistics_document,
)
from assay.reports.views.results import sample_ratio
from assay.stats import Effect, Lift, Reason

#: Characters of a parameter that are shown.
_LONGEST = 500
_SUMS_ALONE = (
    "A series this long holds sums alone, without intervals and comparisons; ask for longer steps, a shorter "
    "window or the cumulative series to have them."
)


def canonical(report: Report) -> Document:
    """The complete report."""
    return {
        "experiment": _experiment(report),
        "computed_at": iso(report.computed_at),
        "window": {
            "start": iso_or_none(report.question.start),
            "end": iso(report.end),
            "narrowed": report.question.is_narrowed,
        },
        "segment": report.question.segment,
        "complete": {each.metric for each in report.metrics} >= set(report.spec.metrics),
        "significance_level": report.alpha,
        "headline": report.decision.text,
        "decision": decision_document(report.decision),
        "total_units": report.total_units,
        "units": {str(variant_id): units for variant_id, units in report.units.items()},
        "primary_metric": report.primary.metric.key,
        "metrics": [_metric(report, each) for each in report.metrics],
        "plan": plan_document(report.spec),
        "looks": looks_document(report.spec),
        "next_look": next_look_document(report),
        "bandit": bandit_document(report),
        "breaker": breaker_document(report.spec),
        "health": [
            {
                "check": check.name,
                "health": str(check.health),
                "sentence": check.sentence,
                "inputs": dict(check.inputs),
            }
            for check in report.checks
        ],
        "srm": sample_ratio(report),
        "reason": None if report.missing is None else str(report.missing),
        **({"dimensions": dimensions_document(report)} if report.question.dimensions else {}),
        **({"sql": [_statement(each) for each in report.statements]} if report.question.sql else {}),
    }


def _metric(report: Report, each: MetricReport) -> Document:
    """One metric: what it is, its arms and comparisons, and what they were computed from."""
    metric, blank = each.metric, report.blank(each)
    return {
        **metric_document(metric),
        "definition": _definition(metric),
        "capped_at": _capped_at(each),
        "registered": metric.registered,
        "exploratory": not metric.registered or metric.role in (Role.EXPLORATORY, Role.AD_HOC),
        "variants": [arm_document(arm) for arm in each.arms],
        "comparisons": [
            comparison_document(found, blank)
            if found.judged is None
            else judged_document(found, found.judged, report.judged_as, blank)
            for found in each.comparisons
        ],
        "notes": [note._asdict() for note in notes(each, report.begin, report.end)],
        "statistics": statistics_document(each),
        "quantiles": quantiles_document(each.quantiles),
    }


def _capped_at(each: MetricReport) -> Document | None:
    """The values that units' amounts were pulled in to; those of percentiles, too."""
    tallies = (tally for by_phase in each.tallies.values() for tally in by_phase.values())
    cap = next((tally.cap for tally in tallies if tally.cap is not None), None)
    return None if cap is None else {"high": cap.high, "low": cap.low}


def _definition(metric: MetricSpec) -> Document:
    """All that the metric's numbers depend on; windows in seconds."""
    cap, margin = metric.cap, metric.margin
    return {
        "name": metric.definition,
        "version": metric.definition_version,
        "where": [
            {"property": each.prop, "op": each.op, "values": list(each.values)} for each in metric.where
        ],
        "fold": metric.fold,
        "denominator": source_document(metric.denominator),
        "quantile": metric.quantile,
        "of_events": metric.by_event,
        "zeros": metric.zeros,
        "steps": [source_document(each) for each in metric.steps],
        "at_least": metric.at_least,
        "window": {"from": metric.opens / 1e6, "to": None if metric.closes is None else metric.closes / 1e6},
        "complete_only": metric.complete_only,
        "lookback": None if metric.lookback is None else metric.lookback / 1e6,
        "cap": None if cap is None else {"high": cap.high, "low": cap.low, "of_percentiles": cap.is_quantile},
        "margin": None if margin is None else {"size": margin.size, "relative": margin.is_relative},
    }


def _statement(each: Statement) -> Document:
    return {"text": each.text, "parameters": {name: _shown(value) for name, value in each.parameters.items()}}


def _shown(value: object) -> object:
    if isinstance(value, str) and len(value) > _LONGEST:  # as the ids of a million units
        return f"{value[:_LONGEST]}… ({len(value):,} characters)"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_shown(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def timeseries(report: Report, metric: MetricSpec, trend: Trend) -> Document:
    """The effect over time, for charts."""
    shown, missing = len(trend.points), report.missing
    asked = report.primary if report.question.metrics is None else report.metrics[0]
    if missing is None:
        missing = report.blank(asked)
    return {
        "experiment_id": report.spec.id,
        "experiment_key": report.spec.key,
        "metric": metric_document(metric),
        "by": report.question.grain,
        "cumulative": report.question.cumulative,
        "segment": report.question.segment,
        "significance_level": report.alpha,
        "band": {
            "kind": str(trend.band),
            "method": report.spec.analysis.method,
            "level": 1.0 - report.alpha,
            "sentence": trend.band.sentence,
        }
        if trend.compared
        else None,
        "points": [
            {
                "bucket": iso(point.start),
                "until": iso(point.end),
                "variants": [arm_document(arm) for arm in point.arms],
                "comparisons": [
                    judged_document(found, found.judged, report.judged_as, None)
                    for found in point.comparisons
                    if found.judged is not None
                ],
            }
            for point in trend.points
        ],
        "thinned": None if shown == trend.stretches else {"shown": shown, "of": trend.stretches},
        "note": None if trend.compared else _SUMS_ALONE,
        "reason": None if missing is None else str(missing),
    }


def metric_document(metric: MetricSpec) -> Document:
    """A metric's definition."""
    return {
        "key": metric.key,
        "name": metric.name,
        "type": str(metric.type),
        "event_type": metric.event_type,
        "property": metric.prop,
        "direction": str(metric.direction),
        "role": str(metric.role),
    }


def arm_document(arm: ArmSummary) -> Document:
    """One arm by one metric."""
    found = arm.interval
    return {
        "variant_id": arm.variant.id,
        "variant_key": arm.variant.key,
        "variant_name": arm.variant.name,
        "units": arm.units,
        "converters": arm.tally.converters,
        "events": arm.tally.events,
        "total": arm.tally.total,
        "value": arm.value,
        "std_dev": arm.std_dev,
        "standard_error": found.standard_error,
        "interval": ends(found.interval),
        "interval_method": found.method,
        "reason": None if found.reason is None else str(found.reason),
    }


def comparison_document(each: Comparison, blank: Why | None = None) -> Document:
    """One treatment against the control by one metric; `blank` says why there was nothing to count, if so."""
    effect = each.effect
    why = blank if blank is not None and effect.reason is Reason.ZERO_VARIANCE else None
    return {
        "control_id": each.control.id,
        "control": each.control.name,
        "treatment_id": each.treatment.id,
        "treatment": each.treatment.name,
        "significant": effect.significant,
        **effect_document(effect),
        **({} if why is None else {"reason": str(why), "sentence": why.sentence}),
        "strata": each.strata,
        "left_out": each.left_out,
    }


def effect_document(effect: Effect) -> Document:
    """What a test concluded."""
    return {
        "method": effect.method,
        "reference": effect.reference,
        "alternative": effect.alternative,
        "units_control": effect.count_control,
        "units_treatment": effect.count_treatment,
        "value_control": effect.control,
        "value_treatment": effect.treatment,
        "difference": effect.estimate,
        "standard_error": effect.standard_error,
        "statistic": effect.statistic,
        "df": effect.df,
        "p_value": effect.p_value,
        "log10_p_value": effect.log10_p_value,
        "interval": ends(effect.interval),
        "lift": _lift(effect.lift),
        "reason": None if effect.reason is None else str(effect.reason),
        "sentence": None if effect.reason is None else effect.reason.sentence,
    }


def _lift(lift: Lift) -> Document:
    return {
        "value": lift.value,
        "interval": ends(lift.interval),
        "method": lift.method,
        "reason": None if lift.reason is None else str(lift.reason),
    }


def _experiment(report: Report) -> Document:
    spec = report.spec
    return {
        "id": spec.id,
        "key": spec.key,
        "name": spec.name,
        "status": spec.status,
        "unit": spec.unit,
        "created_at": iso(spec.created_at),
        "began_at": iso_or_none(report.begin),
        "started_at": iso_or_none(spec.started_at),
        "ended_at": iso_or_none(spec.ended_at),
        "target_sample_size": spec.target_sample_size,
        "analysis": {"method": spec.analysis.method},
        "excluded_units": len(spec.excluded_units),
        "winner_id": spec.winner_id,
        "variants": [
            {
                "id": each.id,
                "key": each.key,
                "name": each.name,
                "allocation": each.allocation,
                "is_control": each.is_control,
                "enabled": each.enabled,
                "removed": each.removed,
            }
            for each in spec.variants
        ],
        "phases": [
            {
                "number": phase.number,
                "started_at": iso(phase.started_at),
                "ended_at": iso_or_none(phase.ended_at),
                "split": {str(variant_id): share for variant_id, share in phase.allocations},
            }
            for phase in spec.phases
        ],
    }
