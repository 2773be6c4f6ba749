"""The report by attributes of users, under its own names."""

from assay.reports.report import ByDimension, Gate, Group, GroupedMetric, GroupEffect, MetricReport, Report
from assay.reports.spec import ExperimentSpec
from assay.reports.views.common import Document
from assay.reports.views.judgement import statistics_document, verdict_document


def dimensions_document(report: Report) -> list[Document]:
    """One part for each attribute that was asked for."""
    return [_dimension(report.spec, each) for each in report.dimensions]


def _dimension(spec: ExperimentSpec, by: ByDimension) -> Document:
    return {
        "attribute": by.attribute,
        "distinct_values": by.distinct,
        "sentences": list(by.sentences),
        "groups": [_group(spec, each) for each in by.groups],
        "metrics": [_metric(each) for each in by.metrics],
    }


def _group(spec: ExperimentSpec, group: Group) -> Document:
    ratio = group.sample_ratio
    return {
        **_name(group),
        "units": group.total,
        "variants": [
            {"variant_id": variant.id, "variant_key": variant.key, "units": group.units.get(variant.id, 0)}
            for variant in spec.variants
        ],
        "srm": None
        if ratio is None
        else {
            "method": ratio.method,
            "expected": list(ratio.expected),
            "p_value": ratio.p_value,
            "threshold": ratio.threshold,
            "flagged": ratio.mismatch,
        },
    }


def _name(group: Group) -> Document:
    return {"group": group.name, "kind": group.kind, "value": group.value}


def _metric(each: GroupedMetric) -> Document:
    return {
        "metric": each.metric.key,
        "sentence": each.sentence,
        "comparisons": [_gate(gate) for gate in each.gates],
        "statistics": [
            {"group": name, "variants": statistics_document(MetricReport(each.metric, (), (), tallies))}
            for name, tallies in each.tallies.items()
        ],
    }


def _gate(gate: Gate) -> Document:
    found = gate.found
    return {
        "treatment_id": gate.treatment.id,
        "treatment": gate.treatment.name,
        "differs": gate.differs,
        "sentence": gate.sentence,
        "heterogeneity": {
            "q": found.q,
            "df": found.df,
            "p_value": found.p_value,
            "log10_p_value": found.log10_p_value,
            "adjusted_p_value": gate.adjusted_p_value,
            "correction": "benjamini_hochberg",
            "i2": found.i2,
            "tau2": found.tau2,
            "common": _with_error(found.fixed, found.fixed_error),
            "mean": _with_error(found.random, found.random_error),
            "reason": None if found.reason is None else str(found.reason),
        },
        "effects": [_effect(each) for each in gate.effects],
    }


def _with_error(estimate: float | None, error: float | None) -> Document | None:
    return None if estimate is None else {"estimate": estimate, "standard_error": error}


def _effect(each: GroupEffect) -> Document:
    pulled = each.shrunken
    return {
        **_name(each.group),
        **verdict_document(each.numbers),
        "adjusted_p_value": each.adjusted_p_value,
        "correction": "benjamini_hochberg",
        "significant": each.significant,
        "too_few_units": each.too_few,
        "shrunken": None if pulled is None else _with_error(pulled.estimate, pulled.standard_error),
    }
