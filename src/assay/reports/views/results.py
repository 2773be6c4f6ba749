"""`GET …/results`: the detailed shape and the flat summary, whose names do not collide."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from assay.events.timestamps import EPOCH
from assay.events.timestamps import iso as micros_iso
from assay.eventstore.base import EventCount, SeriesPoint
from assay.reports.arms import ArmSummary
from assay.reports.report import Report
from assay.reports.spec import MetricType, VariantSpec
from assay.reports.trend import last_moment
from assay.reports.views.common import (
    Document,
    RateVerdict,
    iso,
    iso_or_none,
    names,
    note,
    percent,
    percent_or_none,
    rate,
    rate_verdicts,
    reason_of,
    share_percent,
)
from assay.stats import Reason

#: The interval's field carries its level in its name.
_NAMED_LEVEL = 0.05


def results(report: Report) -> Document:
    """The whole answer; needs a report with counts."""
    found = rate_verdicts(report, report.alpha, _NAMED_LEVEL)
    return {
        **summary(report),
        "experiment": _experiment(report),
        "summary": _totals(report),
        "variants": [_variant(report, arm) for arm in report.conversion.arms],
        "comparison": _comparison(report, found),
        "comparisons": [_against(report, each) for each in found],
        "timeseries": list(_timeseries(report)),
        "srm": sample_ratio(report),
        "conversion_event_type": report.conversion.metric.event_type,
        "conversion_source": str(report.conversion_source),
        "recommendation": report.decision.text,
        "decision": str(report.decision.verdict),
        "method": found[0].method if found else None,
        "note": note(report, found[0].comparison) if found else None,
        "reason": reason_of(report, found),
    }


def summary(report: Report) -> Document:
    """The flat summary alone: the headline rate and each variant by its name."""
    spec, labels = report.spec, names(report.variants)
    converters = sum(arm.tally.converters for arm in report.conversion.arms)
    end = min(moment for moment in (spec.ended_at, report.computed_at) if moment is not None)
    running = (end - report.begin).days if report.begin else 0
    return {
        "name": spec.name,
        "description": spec.description,
        "start_time": iso_or_none(spec.started_at),
        "end_time": iso_or_none(spec.ended_at),
        "experiment_days_running": max(running, 0),
        "status": spec.status,
        "total_variants": len(report.variants),
        "total_events": sum(count.events for count in _shown(report)),
        "primary_metric_name": spec.primary.name if spec.primary else None,
        "conversion_event_type": report.conversion.metric.event_type,
        "conversion_source": str(report.conversion_source),
        "total_users_in_experiment": report.total_units,
        "segment": report.question.segment,
        "global_conversion_rate": converters / report.total_units if report.total_units else 0.0,
        "variant_stats": {
            labels[arm.variant.id]: {
                "variant_id": arm.variant.id,
                "total_assigned_users": arm.units,
                "conversion_rate": rate(arm.tally),
                "conversion_count": arm.tally.converters,
                "event_counts": _by_type(report, arm.variant),
                "metrics": {"total_revenue": _revenue(report, arm.variant)},
                "traffic_allocation": share_percent(arm.variant.allocation),
            }
            for arm in report.conversion.arms
        },
    }


def sample_ratio(report: Report) -> Document:
    """Whether the arms hold the units they were dealt; always about the whole experiment."""
    found, spec = report.sample_ratio, report.spec
    total = sum(report.units.get(variant.id, 0) for variant in spec.variants)
    expected = _expected(report)
    tested = found is not None and found.statistic is not None
    kept = [
        (place, variant)
        for place, variant in enumerate(spec.variants)
        if not variant.removed or report.units.get(variant.id) or expected[place]
    ]
    return {
        "total_assigned": total,
        "expected_split_percent": {
            str(variant.id): share_percent(expected[place]) for place, variant in kept
        },
        "observed_split_percent": {
            str(variant.id): percent(report.units.get(variant.id, 0) / total) if total else 0.0
            for _, variant in kept
        },
        "chi_square": found.statistic if found is not None else None,
        "df": found.df if found is not None else 0,
        "p_value": found.p_value if found is not None and tested else None,
        "flagged": found is not None and found.mismatch,
        "threshold": found.threshold if found is not None else None,
        "method": found.method if found is not None and tested else None,
        "reason": _why(report),
    }


def _expected(report: Report) -> Sequence[float]:
    """The share of all units that each arm should hold by the history of the split."""
    found, spec = report.sample_ratio, report.spec
    total = sum(found.expected) if found is not None else 0.0
    if found is not None and total:
        return [count / total for count in found.expected]
    return spec.weights(spec.phases[-1].number if spec.phases else -1)


def _why(report: Report) -> str | None:
    found = report.sample_ratio
    if found is None:
        return str(Reason.NO_DATA)
    return None if found.reason is None else str(found.reason)


def _experiment(report: Report) -> Document:
    spec = report.spec
    return {
        "id": spec.id,
        "key": spec.key,
        "name": spec.name,
        "description": spec.description,
        "status": spec.status,
        "created_at": iso(spec.created_at),
        "started_at": iso_or_none(spec.started_at),
        "ended_at": iso_or_none(spec.ended_at),
        "variants": [
            {
                "id": variant.id,
                "key": variant.key,
                "name": variant.name,
                "allocation": variant.allocation,
                "allocation_percent": share_percent(variant.allocation),
                "enabled": variant.enabled,
                "is_control": spec.control is not None and variant.id == spec.control.id,
            }
            for variant in spec.variants
            if not variant.removed
        ],
    }


def _totals(report: Report) -> Document:
    return {
        "total_assigned": report.total_units,
        "total_events": sum(count.events for count in _shown(report)),
        "date_range": {
            "start": iso_or_none(_since(report)),
            "end": iso(report.end),
        },
    }


def _since(report: Report) -> datetime | None:
    """From when on events can count: never after the end, so that an empty range reads as one."""
    begins = [moment for moment in (report.question.start, report.begin) if moment is not None]
    return min(max(begins), report.end) if begins else None


def _variant(report: Report, arm: ArmSummary) -> Document:
    tally, counts = arm.tally, _by_type(report, arm.variant)
    active = report.activity.arm(arm.variant.id) if report.activity else None
    return {
        "variant_id": arm.variant.id,
        "variant_key": arm.variant.key,
        "variant_name": arm.variant.name,
        "is_control": report.spec.control is not None and arm.variant.id == report.spec.control.id,
        "assigned_count": arm.units,
        "event_count": sum(counts.values()),
        "events_by_type": counts,
        "conversion_rate": rate(tally),
        "unique_users_with_events": active.tally.converters if active else 0,
        "primary_event_type": report.conversion.metric.event_type,
        "primary_event_count": tally.events,
        "primary_unique_users": tally.converters,
        "primary_conversion_rate": rate(tally),
        "primary_events_per_assigned_user": tally.events / arm.units if arm.units else 0.0,
    }


def _comparison(report: Report, found: Sequence[RateVerdict]) -> Document:
    """The first treatment against the control."""
    if found:
        return _against(report, found[0])
    control = report.spec.control
    return {
        "baseline": control.name if control else None,
        "baseline_variant_id": control.id if control else None,
        "treatment": None,
        "treatment_variant_id": None,
        "metric": report.conversion.metric.name,
        "lift_percentage": None,
        "conversion_rate_diff": None,
        "z_score": None,
        "p_value": None,
        "significant": False,
        "conversion_rate_diff_ci_95": {"diff_low": None, "diff_high": None},
        "method": None,
        "interval_method": None,
        "value_control": None,
        "value_treatment": None,
        "note": None,
        "reason": str(report.missing),
    }


def _against(report: Report, each: RateVerdict) -> Document:
    control, treatment = each.comparison.control, each.comparison.treatment
    return {
        "baseline": control.name,
        "baseline_variant_id": control.id,
        "treatment": treatment.name,
        "treatment_variant_id": treatment.id,
        "metric": report.conversion.metric.name,
        "lift_percentage": percent_or_none(each.lift),
        "conversion_rate_diff": each.difference,
        "z_score": each.statistic,
        "p_value": each.p_value,
        "significant": each.significant,
        "conversion_rate_diff_ci_95": {
            "diff_low": each.interval.low if each.interval else None,
            "diff_high": each.interval.high if each.interval else None,
        },
        "method": each.method,
        "interval_method": each.interval_method if each.interval else None,
        "value_control": each.comparison.effect.control,
        "value_treatment": each.comparison.effect.treatment,
        "note": note(report, each.comparison),
        "reason": None if each.reason is None else str(each.reason),
    }


def _timeseries(report: Report) -> Iterator[Document]:
    """What happened in each stretch, and where it had led to; rates divide by the units assigned so far.

    Stretches that end before the window begins are left out: their events do not count, which is not to say
    that there were none.
    """
    grain = report.question.grain
    if grain is None:
        return
    so_far = {variant.id: 0 for variant in report.variants}
    for bucket, points in groupby(report.series, key=lambda point: point.bucket):
        by_variant = {point.variant_id: point for point in points}
        variants = []
        for variant in report.variants:
            point = by_variant.get(variant.id) or SeriesPoint(bucket, variant.id, 0, 0, 0, 0, 0, 0.0)
            so_far[variant.id] += point.first_converters
            variants.append(_stretch(point, variant, so_far[variant.id]))
        begin = EPOCH + timedelta(microseconds=bucket)
        last, since = last_moment(begin, grain), report.question.start
        if since is not None and last < since:
            continue
        yield {
            "bucket": micros_iso(bucket),
            "partial": (since is not None and begin < since) or report.end < last,
            "group_by": grain,
            "metric": report.conversion.metric.name,
            "variants": variants,
        }


def _stretch(point: SeriesPoint, variant: VariantSpec, so_far: int) -> Document:
    return {
        "variant_id": variant.id,
        "variant_name": variant.name,
        "assigned": point.assigned,
        "newly_assigned": point.newly_assigned,
        "events": point.events,
        "conversions": point.converters,
        "conversion_rate": point.converters / point.assigned if point.assigned else 0.0,
        "cumulative_conversions": so_far,
        "cumulative_conversion_rate": so_far / point.assigned if point.assigned else 0.0,
    }


def _shown(report: Report) -> Iterator[EventCount]:
    shown = {variant.id for variant in report.variants}
    return (count for count in report.counts if count.variant_id in shown)


def _by_type(report: Report, variant: VariantSpec) -> dict[str, int]:
    return {count.type: count.events for count in report.counts if count.variant_id == variant.id}


def _revenue(report: Report, variant: VariantSpec) -> float:
    """The experiment's revenue where it declares a metric of it, else the conversion's amounts."""
    declared = [each for each in report.metrics if each.metric.type is MetricType.REVENUE]
    if declared:
        arms = [each.arm(variant.id) for each in declared]
        return sum(arm.tally.total for arm in arms if arm is not None)
    arm = report.conversion.arm(variant.id)
    return arm.tally.total if arm else 0.0
