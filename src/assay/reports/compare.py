"""Comparisons by one metric: every treatment against the control, and what differs between the two."""

from collections.abc import Sequence
from typing import NamedTuple

from assay.reports.arms import SHARES, ByVariant, Quantiles, covariates_of, merged, summarise, value_of
from assay.reports.report import Comparison, MetricReport
from assay.reports.spec import ExperimentSpec, MetricSpec, MetricType, VariantSpec
from assay.reports.strata import Strata, comparable
from assay.stats import (
    Contrast,
    Effect,
    Mean,
    Reason,
    adjust,
    compare,
    contrast,
    infer,
    stratified_quantiles,
    stratify,
    two_proportions,
)
from assay.stats.contrast import nothing

#: Why a stratum has no quantile to compare, where others may have one.
_TOO_FEW = frozenset({Reason.NO_DATA, Reason.QUANTILE_TOO_EXTREME})


class Contrasts(NamedTuple):
    """What differs between two arms, plainly and adjusted for the time before.

    `adjusted` is `plain` where there is nothing to adjust by, and `covariates` then is empty.
    """

    plain: Contrast
    adjusted: Contrast
    covariates: tuple[str, ...]


def report_metric(
    spec: ExperimentSpec,
    metric: MetricSpec,
    tallies: ByVariant,
    shown: Sequence[VariantSpec],
    *,
    alpha: float,
    quantiles: Quantiles | None = None,
) -> MetricReport:
    """Arms and comparisons of one metric; comparisons are those in which a shown variant takes part."""
    control = spec.control
    samples = quantiles.overall if quantiles is not None else {}
    arms = tuple(
        summarise(
            metric, variant, merged(tallies.get(variant.id, {}).values()), alpha, samples.get(variant.id)
        )
        for variant in shown
    )
    compared: list[Comparison] = []
    if control is not None:
        compared = [
            compare_arms(spec, metric, (control, variant), tallies, alpha=alpha, quantiles=quantiles)
            for variant in shown
            if variant.id != control.id
        ]
    return MetricReport(metric, arms, tuple(compared), tallies, quantiles)


def compare_arms(
    spec: ExperimentSpec,
    metric: MetricSpec,
    arms: tuple[VariantSpec, VariantSpec],
    tallies: ByVariant,
    *,
    alpha: float,
    quantiles: Quantiles | None = None,
) -> Comparison:
    """Control and treatment, stratified by phase where the split between the two changed."""
    control, treatment = arms
    strata = _strata(spec, arms, tallies)
    pooled = strata.pooled
    if metric.type is MetricType.QUANTILE:
        given, count = _quantile_contrast(spec, arms, tallies, quantiles)
        effect = infer(given, alpha=alpha)
    else:
        effect, count = _effect(metric, strata, alpha), len(strata.pairs)
    return Comparison(control, treatment, effect, pooled.control, pooled.treatment, count, strata.left_out)


def contrasts(spec: ExperimentSpec, of: MetricReport, each: Comparison) -> Contrasts:
    """What differs between the two arms of a comparison."""
    metric, arms = of.metric, (each.control, each.treatment)
    if metric.type is MetricType.QUANTILE:
        given, _ = _quantile_contrast(spec, arms, of.tallies, of.quantiles)
        return Contrasts(given, given, ())
    strata = _strata(spec, arms, of.tallies)
    control, treatment = strata.pooled
    if min(control.units, treatment.units) < 2:
        given = nothing(_name(metric), control.units, treatment.units, _lacking(strata))
        return Contrasts(given, given, ())
    value, pairs = value_of(metric), [(low.moments, high.moments) for low, high in strata.pairs]
    plain = contrast(*pairs[0], value) if len(pairs) == 1 else stratify(pairs, value)
    covariates = covariates_of(metric, pairs[0][0])
    if not covariates or plain.reason:
        return Contrasts(plain, plain, ())
    adjusted = adjust(*pairs[0], value, covariates) if len(pairs) == 1 else stratify(pairs, value, covariates)
    if adjusted.reason or not any(adjusted.theta):
        # Nobody did anything before: there is nothing to adjust by.
        return Contrasts(plain, plain, ())
    names = tuple(one.column if isinstance(one, Mean) else "/".join(one) for one in covariates)
    return Contrasts(plain, adjusted, names)


def _strata(spec: ExperimentSpec, arms: tuple[VariantSpec, VariantSpec], tallies: ByVariant) -> Strata:
    control, treatment = arms
    places = spec.variants.index(control), spec.variants.index(treatment)
    return comparable(spec, tallies.get(control.id, {}), tallies.get(treatment.id, {}), places)


def _quantile_contrast(
    spec: ExperimentSpec,
    arms: tuple[VariantSpec, VariantSpec],
    tallies: ByVariant,
    quantiles: Quantiles | None,
) -> tuple[Contrast, int]:
    """The difference of two quantiles, and the number of strata it was averaged over.

    Strata without a measured quantile in both arms are left out where others have one.
    """
    control, treatment = arms
    places = spec.variants.index(control), spec.variants.index(treatment)
    by_arm = [dict(quantiles.strata.get(arm.id, {})) if quantiles is not None else {} for arm in arms]
    stratum_of = quantiles.stratum_of if quantiles is not None else {}
    units: dict[int, int] = {}
    for arm in arms:
        for phase, tally in tallies.get(arm.id, {}).items():
            number = stratum_of.get(phase, phase)
            units[number] = units.get(number, 0) + tally.units
    both = sorted(by_arm[0].keys() & by_arm[1].keys())
    # Units that came while one of the two was closed have nobody to be compared with.
    fair = [number for number in both if all(spec.weights(number)[place] for place in places)] or both
    pairs = {number: (by_arm[0][number].arm, by_arm[1][number].arm) for number in fair}
    measured = {
        number: pair for number, pair in pairs.items() if not any(arm.reason in _TOO_FEW for arm in pair)
    }
    chosen = measured or pairs
    if not chosen:
        counts = [sum(tally.units for tally in tallies.get(arm.id, {}).values()) for arm in arms]
        return nothing("quantile", counts[0], counts[1], Reason.NO_DATA), 1
    weights = [float(max(units.get(number, 0), 1)) for number in chosen]
    return stratified_quantiles(list(chosen.values()), weights), len(chosen)


def _lacking(strata: Strata) -> Reason:
    control, treatment = strata.pooled
    return Reason.INSUFFICIENT_DATA if control.units + treatment.units else Reason.NO_DATA


def _effect(metric: MetricSpec, strata: Strata, alpha: float) -> Effect:
    control, treatment = strata.pooled
    value = value_of(metric)
    if min(control.units, treatment.units) < 2:
        # The normal approximation would judge a single unit, too.
        lacking = nothing(_name(metric), control.units, treatment.units, _lacking(strata))
        return infer(lacking, alpha=alpha)
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
