"""The judged parts of the canonical report: comparisons, plan, looks, decision, and what they rest on."""

from collections.abc import Iterator

from assay.eventstore.columns import QuantileArm
from assay.reports.arms import Quantiles, Sample
from assay.reports.notes import remedy
from assay.reports.report import Comparison, Decision, Judgement, MetricReport, Report, Why
from assay.reports.spec import ExperimentSpec, LookVerdict, SourceSpec
from assay.reports.views.common import Document, ends, iso, iso_or_none
from assay.stats import Moments, Reason, Verdict


def judged_document(each: Comparison, judged: Judgement, spec: ExperimentSpec, blank: Why | None) -> Document:
    """One treatment against the control, by the experiment's own method.

    `blank` says why there was nothing to count, if so.
    """
    numbers, contrast = judged.numbers, judged.contrast
    p_value, log10_p = numbers.p_value, numbers.log10_p_value
    if spec.analysis.method == "group_sequential":
        p_value, log10_p = (judged.look.p_value if judged.look is not None else None), None
    reason: Reason | Why | None = numbers.reason
    if blank is not None and reason is Reason.ZERO_VARIANCE:
        reason = blank
    return {
        "control_id": each.control.id,
        "control": each.control.name,
        "treatment_id": each.treatment.id,
        "treatment": each.treatment.name,
        "significant": judged.significant,
        **verdict_document(numbers),
        "p_value": p_value,
        "log10_p_value": log10_p,
        "units_control": contrast.count_control,
        "units_treatment": contrast.count_treatment,
        "df": contrast.df if numbers.method == contrast.method else None,
        "adjusted_p_value": judged.adjusted_p_value,
        "family": None
        if judged.members < 2
        else {"members": judged.members, "correction": spec.analysis.correction},
        "covariates": list(judged.covariates),
        "variance_reduction": judged.variance_reduction,
        "unadjusted": None if judged.unadjusted is None else verdict_document(judged.unadjusted),
        "margin": _margin(judged),
        "look": None
        if judged.look is None
        else {"number": judged.look_number, **look_verdict_document(judged.look)},
        "waiting": judged.waiting,
        "reason": None if reason is None else str(reason),
        "sentence": None if reason is None else reason.sentence,
        "what_to_do": remedy(reason),
        "strata": each.strata,
        "left_out": each.left_out,
    }


def verdict_document(found: Verdict) -> Document:
    """The numbers of one verdict."""
    statistic = None
    if found.difference is not None and found.standard_error:
        statistic = found.difference / found.standard_error
    return {
        "method": found.method,
        "alternative": found.alternative,
        "significance_level": found.alpha,
        "value_control": found.control,
        "value_treatment": found.treatment,
        "difference": found.difference,
        "standard_error": found.standard_error,
        "statistic": statistic,
        "p_value": found.p_value,
        "log10_p_value": found.log10_p_value,
        "interval": ends(found.interval),
        "lift": {
            "value": found.lift,
            "interval": ends(found.lift_interval),
            "reason": None if found.lift_reason is None else str(found.lift_reason),
            "what_to_do": remedy(found.lift_reason),
        },
        "chance_to_win": found.chance_to_win,
        "loss_if_shipped": found.loss_if_shipped,
        "loss_if_kept": found.loss_if_kept,
        "limit": found.limit,
        "reason": None if found.reason is None else str(found.reason),
    }


def _margin(judged: Judgement) -> Document | None:
    found = judged.margin
    if found is None:
        return None
    return {
        "size": found.margin,
        "relative": found.relative,
        "direction": found.direction,
        "passed": found.passed,
        "null": found.null,
        "statistic": found.statistic,
        "p_value": found.p_value,
        "interval": ends(found.interval),
        "significance_level": found.alpha,
        "reason": None if found.reason is None else str(found.reason),
    }


def statistics_document(of: MetricReport) -> list[Document]:
    """The sufficient statistics of a metric by variant and phase: every number can be made of them again."""
    return [
        {
            "variant_id": variant_id,
            "phase": phase,
            "units": tally.units,
            "converters": tally.converters,
            "events": tally.events,
            "total": tally.total,
            "unreadable": tally.unreadable,
            **_moments(tally.moments),
        }
        for variant_id, by_phase in sorted(of.tallies.items())
        for phase, tally in sorted(by_phase.items())
    ]


def _moments(moments: Moments) -> Document:
    """Means and the covariance of a sample (divided by n - 1); zeros where there are fewer than two units."""
    names = moments.columns
    return {
        "columns": list(names),
        "means": list(moments.means),
        "covariance": [[moments.covariance(x, y) or 0.0 for y in names] for x in names],
    }


def quantiles_document(found: Quantiles | None) -> Document | None:
    """What the quantiles were made of: of all units, and within each split."""
    if found is None:
        return None
    return {
        "overall": [_sample(variant, None, one) for variant, one in sorted(found.overall.items())],
        "strata": [
            _sample(variant, stratum, one)
            for variant, by_stratum in sorted(found.strata.items())
            for stratum, one in sorted(by_stratum.items())
        ],
        "stratum_of_phase": {str(phase): stratum for phase, stratum in sorted(found.stratum_of.items())},
    }


def _sample(variant: int, stratum: int | None, one: Sample) -> Document:
    found: QuantileArm = one.found
    return {
        "variant_id": variant,
        "stratum": stratum,
        "quantile": one.arm.q,
        "observations": found.events,
        "units": found.units,
        "value": found.value,
        "lower_neighbour": found.lower,
        "upper_neighbour": found.upper,
        "clusters": {
            "columns": ["below", "events"],
            "means": list(found.clusters.means),
            "covariance": [list(row) for row in found.clusters.covariance],
        },
        "standard_error": one.arm.standard_error,
        "reason": None if one.arm.reason is None else str(one.arm.reason),
    }


def bandit_document(report: Report) -> Document | None:
    """What a bandit knows of its variants, and how it deals them; null for other methods."""
    known, how = report.bandit, report.spec.analysis.bandit
    if known is None or how is None:
        return None
    return {
        "sampling": how.sampling,
        "floor": how.floor,
        "reweight_every_seconds": how.every.total_seconds(),
        "next_at": iso_or_none(how.next_at),
        "ship_probability": how.ship_probability,
        "ship_loss": how.ship_loss,
        "variants": [
            {
                "variant_id": arm.variant.id,
                "variant_key": arm.variant.key,
                "mean": arm.mean,
                "standard_error": arm.standard_error,
                "best_probability": arm.probability,
                "expected_loss": arm.loss,
                "share": arm.share,
                "next_share": arm.next_share,
            }
            for arm in known.arms
        ],
        "reason": known.sentence,
        "method": (
            "Means by phase, averaged with the phases' shares of all units; comparisons are post-stratified "
            "by phase and judged by always-valid sets, which an adaptive split leaves valid."
        ),
    }


def breaker_document(spec: ExperimentSpec) -> Document | None:
    """The circuit breaker, and when and why it tripped, where nobody has resumed the experiment since."""
    breaker = spec.breaker
    if breaker is None:
        return None
    return {
        "action": breaker.action,
        "false_trip_rate": breaker.rate,
        "since_phase": breaker.since_phase,
        "tripped_at": iso_or_none(breaker.tripped_at),
        "reason": breaker.reason,
    }


def plan_document(spec: ExperimentSpec) -> Document:
    """The plan that the report follows, the hash of the frozen one, and what was done otherwise since."""
    analysis = spec.analysis
    return {
        "hash": spec.plan_hash,
        "hypothesis": spec.hypothesis,
        "significance_level": spec.significance_level,
        "power": spec.power,
        "minimum_detectable_effect": spec.minimum_detectable_effect,
        "target_sample_size": spec.target_sample_size,
        "planned_units": analysis.planned_units,
        "method": analysis.method,
        "alternative": analysis.alternative,
        "correction": analysis.correction,
        "cuped": analysis.cuped,
        "looks": analysis.looks,
        "look_dates": [iso(each) for each in analysis.look_dates],
        "spending": analysis.spending,
        "spending_power": analysis.spending_power,
        "activation_event": source_document(spec.activation),
        "deviations": [
            {
                "field": each.field,
                "change": each.change,
                "from": each.before,
                "to": each.after,
                "at": each.at,
                "by": each.by,
            }
            for each in spec.deviations
        ],
    }


def source_document(source: SourceSpec | None) -> Document | None:
    """Events of one type that pass all filters."""
    if source is None:
        return None
    return {
        "event_type": source.event_type,
        "where": [
            {"property": each.prop, "op": each.op, "values": list(each.values)} for each in source.where
        ],
        "fold": source.fold,
        "property": source.prop,
    }


def looks_document(spec: ExperimentSpec) -> list[Document]:
    """The looks that were made."""
    return [
        {
            "number": look.number,
            "at": iso(look.at),
            "units": look.units,
            "information_fraction": look.fraction,
            "verdicts": [look_verdict_document(each) for each in look.verdicts],
        }
        for look in spec.looks
    ]


def look_verdict_document(found: LookVerdict) -> Document:
    """What one comparison showed at a look."""
    low, high = found.interval if found.interval is not None else (None, None)
    return {
        "metric": found.metric,
        "treatment_id": found.treatment_id,
        "z": found.z,
        "limit": found.limit,
        "crossed": found.crossed,
        "estimate": found.estimate,
        "interval": None if found.interval is None else {"low": low, "high": high},
        "p_value": found.p_value,
    }


def decision_document(decision: Decision) -> Document:
    """The decision with its rules, how far the experiment is, and what more days would bring."""
    ahead = decision.progress
    return {
        "verdict": str(decision.verdict),
        "sentence": decision.sentence,
        "cautions": list(decision.cautions),
        "winner": decision.winner.key if decision.winner else None,
        "metric": decision.metric.key if decision.metric else None,
        "significance_level": decision.alpha,
        "rules": list(decision.rules),
        "progress": None
        if ahead is None
        else {
            "units": ahead.units,
            "planned_units": ahead.planned,
            "information_fraction": ahead.fraction,
            "units_per_day": ahead.per_day,
            "days_left": ahead.days_left,
        },
        "outlook": list(_outlooks(decision)),
        "at_stop": [
            {
                "treatment_id": each.treatment.id,
                "treatment": each.treatment.name,
                "method": each.method,
                "naive": each.naive,
                "corrected": each.estimate,
                "interval": ends(each.interval),
                "sentence": each.sentence,
            }
            for each in decision.at_stop
        ],
    }


def _outlooks(decision: Decision) -> Iterator[Document]:
    for each in decision.outlooks:
        found = each.prediction
        yield {
            "treatment_id": each.treatment.id,
            "treatment": each.treatment.name,
            "days": each.days,
            "units": found.units,
            "better": found.better,
            "worse": found.worse,
            "inconclusive": found.inconclusive,
            "reason": None if found.reason is None else str(found.reason),
        }


def next_look_document(report: Report) -> Document | None:
    """The look to come."""
    due = report.next_look
    return None if due is None else {"number": due.number, "at": iso_or_none(due.at), "units": due.units}
