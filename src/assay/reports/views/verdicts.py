"""`POST …/results` and `GET …/stats`: who won, by how much, and how sure that is."""

from collections.abc import Sequence

from assay.reports.arms import ArmSummary
from assay.reports.report import Report
from assay.reports.spec import VariantSpec
from assay.reports.views.common import (
    Document,
    RateVerdict,
    note,
    percent,
    percent_or_none,
    rate,
    rate_interval,
    rate_verdicts,
    reason_of,
    value_of_converters,
    winner,
)


def winners(report: Report) -> Document:
    """The shape of `POST …/results`: rates, intervals and uplifts in percent."""
    threshold = report.alpha
    confidence = report.question.confidence_level or 1.0 - threshold
    found = rate_verdicts(report, threshold, 1.0 - confidence)
    best = winner(report, found)
    return {
        "experiment_id": report.spec.id,
        "experiment_key": report.spec.key,
        "experiment_name": report.spec.name,
        "status": report.spec.status,
        "segment": report.question.segment,
        "conversion_event_type": report.conversion.metric.event_type,
        "conversion_source": str(report.conversion_source),
        "confidence_level": confidence,
        "significance_threshold": threshold,
        "total_users": report.total_units,
        "variants": [_arm(report, arm, found, 1.0 - confidence) for arm in report.conversion.arms],
        "winner": best.name if best else None,
        "winner_variant_id": best.id if best else None,
        "recommendation": report.decision.text,
        "decision": str(report.decision.verdict),
        "method": found[0].method if found else None,
        "note": note(report, found[0].comparison) if found else None,
        "reason": reason_of(report, found),
    }


def stats(report: Report) -> Document:
    """The shape of `GET …/stats`: one headline comparison and a recommendation.

    The headline is the winner's comparison, else the one nearest to a verdict. `mean_value` and `std_dev`
    describe what a converter's events were worth in total; an event type that never carries a value counts 1
    for each event.
    """
    found = rate_verdicts(report, report.alpha, report.alpha)
    best = winner(report, found)
    headline = _headline(found, best)
    arms = report.conversion.arms
    control = report.spec.control
    return {
        "experiment_id": report.spec.id,
        "experiment_key": report.spec.key,
        "experiment_name": report.spec.name,
        "status": report.spec.status,
        "segment": report.question.segment,
        "variants": [_sample(arm, report.alpha) for arm in arms],
        "control_variant": control.name if control else None,
        "winner": best.name if best else None,
        "statistical_significance": headline is not None and headline.significant,
        "p_value": headline.p_value if headline else None,
        "confidence_level": 1.0 - report.alpha,
        "effect_size": headline.lift if headline else None,
        "recommendation": report.decision.text,
        "decision": str(report.decision.verdict),
        "sample_size_per_variant": report.total_units // len(arms) if arms else 0,
        "total_conversions": sum(arm.tally.converters for arm in arms),
        "conversion_event_type": report.conversion.metric.event_type,
        "conversion_source": str(report.conversion_source),
        "method": headline.method if headline else None,
        "note": note(report, headline.comparison) if headline else None,
        "reason": reason_of(report, found),
    }


def _arm(report: Report, arm: ArmSummary, found: Sequence[RateVerdict], alpha: float) -> Document:
    against = next((each for each in found if each.comparison.treatment.id == arm.variant.id), None)
    interval, how = rate_interval(arm.tally, alpha)
    return {
        "variant_id": arm.variant.id,
        "variant_key": arm.variant.key,
        "variant_name": arm.variant.name,
        "name": arm.variant.name,
        "total_users": arm.units,
        "conversions": arm.tally.converters,
        "conversion_rate": percent(rate(arm.tally)),
        "confidence_interval": {
            "lower": percent_or_none(interval.low) if interval else None,
            "upper": percent_or_none(interval.high) if interval else None,
        },
        "interval_method": how if interval else None,
        "is_control": report.spec.control is not None and arm.variant.id == report.spec.control.id,
        "p_value": against.p_value if against else None,
        "is_significant": against is not None and against.significant,
        "relative_uplift": percent_or_none(against.lift) if against else None,
        "reason": str(against.reason) if against and against.reason else None,
    }


def _sample(arm: ArmSummary, alpha: float) -> Document:
    interval, how = rate_interval(arm.tally, alpha)
    mean, spread = value_of_converters(arm.tally)
    return {
        "variant": arm.variant.name,
        "variant_id": arm.variant.id,
        "sample_size": arm.units,
        "conversions": arm.tally.converters,
        "conversion_rate": rate(arm.tally),
        "mean_value": mean,
        "std_dev": spread,
        "confidence_interval": [interval.low, interval.high] if interval else None,
        "interval_method": how if interval else None,
    }


def _headline(found: Sequence[RateVerdict], best: VariantSpec | None) -> RateVerdict | None:
    won = [each for each in found if best is not None and each.comparison.treatment.id == best.id]
    tested = [each for each in found if each.p_value is not None]
    nearest = min(tested, key=lambda each: each.p_value or 0.0, default=None)
    return next(iter(won), nearest or next(iter(found), None))
