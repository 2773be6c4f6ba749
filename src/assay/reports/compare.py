"""Verdicts on one metric: every treatment against the control, by the experiment's own method."""

from collections.abc import Sequence

from assay.reports.arms import SHARES, ByVariant, merged, summarise, value_of
from assay.reports.report import Comparison, MetricReport
from assay.reports.spec import ExperimentSpec, MetricSpec, VariantSpec
from assay.reports.strata import Strata, comparable
from assay.stats import Effect, Mean, Reason, compare, infer, stratify, two_proportions
from assay.stats.contrast import nothing


def report_metric(
    spec: ExperimentSpec,
    metric: MetricSpec,
    tallies: ByVariant,
    shown: Sequence[VariantSpec],
    *,
    alpha: float,
) -> MetricReport:
    """Arms and comparisons of one metric; comparisons are those in which a shown variant takes part."""
    control = spec.control
    arms = tuple(
        summarise(metric, variant, merged(tallies.get(variant.id, {}).values()), alpha) for variant in shown
    )
    compared: list[Comparison] = []
    if control is not None:
        compared = [
            compare_arms(spec, metric, (control, variant), tallies, alpha=alpha)
            for variant in shown
            if variant.id != control.id
        ]
    return MetricReport(metric, arms, tuple(compared), tallies)


def compare_arms(
    spec: ExperimentSpec,
    metric: MetricSpec,
    arms: tuple[VariantSpec, VariantSpec],
    tallies: ByVariant,
    *,
    alpha: float,
) -> Comparison:
    """Control and treatment, stratified by phase where the split between the two changed."""
    control, treatment = arms
    places = spec.variants.index(control), spec.variants.index(treatment)
    strata = comparable(spec, tallies.get(control.id, {}), tallies.get(treatment.id, {}), places)
    pooled = strata.pooled
    effect = _effect(metric, strata, alpha)
    return Comparison(
        control, treatment, effect, pooled.control, pooled.treatment, len(strata.pairs), strata.left_out
    )


def _effect(metric: MetricSpec, strata: Strata, alpha: float) -> Effect:
    control, treatment = strata.pooled
    value = value_of(metric)
    if min(control.units, treatment.units) < 2:
        # The normal approximation would judge a single unit, too.
        reason = Reason.INSUFFICIENT_DATA if control.units + treatment.units else Reason.NO_DATA
        return infer(nothing(_name(metric), control.units, treatment.units, reason), alpha=alpha)
    if len(strata.pairs) > 1:
        pairs = [(pair.control.moments, pair.treatment.moments) for pair in strata.pairs]
        return infer(stratify(pairs, value), alpha=alpha)
    if metric.type in SHARES:
        return two_proportions(control.count, treatment.count, alpha=alpha)
    return compare(control.moments, treatment.moments, value, alpha=alpha)


def _name(metric: MetricSpec) -> str:
    if metric.type in SHARES:
        return "pooled_z"
    return "mean" if isinstance(value_of(metric), Mean) else "ratio"
