"""An analysis as a document for programs: numbers unrounded, and `null` with a reason where there is none."""

from dataclasses import asdict
from typing import Any, Final

from assay.offline.report import Analysis, Arm, Comparison, MetricResult, Segmented
from assay.offline.request import FileMetric, Kind
from assay.offline.sentences import headline
from assay.offline.units import Tail
from assay.stats import Interval, Reason, Verdict

#: Raised when a field changes its meaning or goes away; new fields may come at any time.
SCHEMA_VERSION: Final = 1


def document(analysis: Analysis) -> dict[str, Any]:
    """The whole analysis; every value is one that JSON can hold."""
    request, judging = analysis.request, analysis.judging
    ratio = analysis.sample_ratio
    return {
        "schema_version": SCHEMA_VERSION,
        "file": analysis.name,
        "rows": analysis.rows,
        "where": request.where,
        "unit": request.unit,
        "variant": request.variant,
        "control": analysis.control,
        "units": dict(analysis.units),
        "headline": headline(analysis),
        "healthy": analysis.healthy,
        "method": {
            "name": judging.method,
            "alpha": judging.alpha,
            "one_sided": judging.one_sided,
            "correction": judging.correction,
            "planned": judging.planned,
            "looks": list(judging.earlier),
            "final": judging.final,
            "covariates": list(request.covariates),
            "missing": request.missing,
        },
        "sample_ratio": {
            "counts": dict(zip(analysis.units, ratio.counts, strict=True)),
            "expected": dict(zip(analysis.units, ratio.expected, strict=True)),
            "statistic": ratio.statistic,
            "df": ratio.df,
            "p_value": ratio.p_value,
            "log10_p_value": ratio.log10_p_value,
            "threshold": ratio.threshold,
            "mismatch": ratio.mismatch,
            "test": ratio.method,
        },
        "health": [asdict(finding) for finding in analysis.findings],
        "metrics": [_metric(result) for result in analysis.metrics],
    }


def _metric(result: MetricResult) -> dict[str, Any]:
    metric = result.metric
    return {
        "name": metric.name,
        "type": metric.kind.value,
        "column": metric.column,
        "denominator": metric.denominator,
        "level": metric.level,
        "aggregate": None if metric.kind in {Kind.QUANTILE, Kind.RATIO} else metric.aggregate,
        "direction": "decrease" if metric.lower_is_better else "increase",
        "limits": _tail(metric, result.tail),
        "units_without_value": result.without_value,
        "arms": [_arm(arm) for arm in result.arms],
        "comparisons": [_comparison(each) for each in result.comparisons],
        "segments": [_segmented(each) for each in result.segments],
    }


def _tail(metric: FileMetric, tail: Tail) -> dict[str, Any] | None:
    return None if metric.limits is None else {"low": tail.low, "high": tail.high}


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "variant": arm.variant,
        "units": arm.units,
        "value": arm.value,
        "interval": _interval(arm.interval),
        "converted": arm.successes,
    }


def _comparison(each: Comparison) -> dict[str, Any]:
    return {
        "control": each.control,
        "treatment": each.treatment,
        **_verdict(each.judged.verdict),
        "adjusted_p_value": each.judged.adjusted_p_value,
        "variance_reduction": each.variance_reduction,
        "unadjusted": None if each.unadjusted is None else _verdict(each.unadjusted),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "method": verdict.method,
        "alternative": verdict.alternative,
        "alpha": verdict.alpha,
        "control_value": verdict.control,
        "treatment_value": verdict.treatment,
        "difference": verdict.difference,
        "standard_error": verdict.standard_error,
        "interval": _interval(verdict.interval),
        "lift": verdict.lift,
        "lift_interval": _interval(verdict.lift_interval),
        "lift_reason": _reason(verdict.lift_reason),
        "p_value": verdict.p_value,
        "log10_p_value": verdict.log10_p_value,
        "significant": verdict.significant,
        "chance_to_win": verdict.chance_to_win,
        "loss_if_shipped": verdict.loss_if_shipped,
        "loss_if_kept": verdict.loss_if_kept,
        "information_fraction": verdict.fraction,
        "limit": verdict.limit,
        "last_look": verdict.last,
        "reason": _reason(verdict.reason),
    }


def _segmented(each: Segmented) -> dict[str, Any]:
    found = each.heterogeneity
    return {
        "column": each.column,
        "treatment": each.treatment,
        "differ": each.differ,
        "heterogeneity": {
            "q": found.q,
            "df": found.df,
            "p_value": found.p_value,
            "log10_p_value": found.log10_p_value,
            "i2": found.i2,
            "tau2": found.tau2,
            "reason": _reason(found.reason),
        },
        "effects": [
            {
                "segment": effect.segment,
                **_verdict(effect.verdict),
                "shrunken": None if effect.shrunken is None else effect.shrunken[0],
                "shrunken_error": None if effect.shrunken is None else effect.shrunken[1],
            }
            for effect in each.effects
        ],
    }


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else {"low": interval.low, "high": interval.high}


def _reason(reason: Reason | None) -> dict[str, str] | None:
    return None if reason is None else {"code": reason.value, "sentence": reason.sentence}
