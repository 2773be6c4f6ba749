"""The report by an attribute of users: every metric within each group, behind a gate.

Some group is always ahead by chance, and the more groups and metrics, the further. So two things are asked
before a group is called a winner: whether the effects differ between the groups at all (Cochran's test, the
gate, corrected across the gates of the dimension), and whether the group's own effect stands a correction for
all groups and metrics (Benjamini & Hochberg). Groups are looked at once, with a fixed-horizon test: the looks
of a sequential method are those of the whole. What a group is best taken to have is its effect pulled towards
the common one by as much as its noise deserves.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from assay.eventstore.base import EventStore, Scope
from assay.reports.arms import SHARES, ByVariant, Tally, shown_variants
from assay.reports.audience import MOST_DISTINCT, OTHER, Counted, Dimension
from assay.reports.checks.sample import FEWEST_UNITS
from assay.reports.checks.split import THRESHOLD
from assay.reports.columns import ask_groups
from assay.reports.compare import Contrasts, contrasts, report_metric
from assay.reports.evidence import by_split
from assay.reports.judging import alternative_of, decisive
from assay.reports.report import ByDimension, Comparison, Gate, Group, GroupedMetric, GroupEffect, Kind
from assay.reports.spec import Direction, ExperimentSpec, MetricSpec, MetricType, VariantSpec
from assay.reports.wording import p_value
from assay.stats import Case, Contrast, Judged, Rules, heterogeneity, judge_family, sample_ratio
from assay.stats.multiplicity import correct
from assay.stats.verdicts import Method

#: The group of units without the attribute.
NONE: Final = "none"
#: Units of each kind, with an event and without, that a share must have in an arm to be weighed.
_FEWEST_OF_EACH: Final = 5


class _Place(NamedTuple):
    """Where a comparison is."""

    metric: MetricSpec
    treatment: VariantSpec
    group: str


class _Weighed(NamedTuple):
    """A comparison within a group, on its way to a verdict."""

    contrast: Contrast
    case: Case
    too_few: bool


def by_dimension(
    store: EventStore,
    spec: ExperimentSpec,
    scope: Scope,
    metrics: Sequence[MetricSpec],
    dimension: Dimension,
    *,
    until: int,
    alpha: float,
) -> ByDimension:
    """These metrics by the groups of one attribute; `until` (microseconds) is the end of what is reported."""
    counted: dict[str, list[Counted]] = {}
    for cell in store.columns(scope, (), (), dimension.groups):
        counted.setdefault(cell.group or NONE, []).append((cell.variant_id, cell.phase, cell.units))
    known = [(each.label, "value", each.value) for each in dimension.values]
    groups = grouped(spec, (*known, (OTHER, "other", None), (NONE, "none", None)), counted)
    measured = [metric for metric in metrics if metric.type is not MetricType.QUANTILE]
    tallies = {
        metric: {group.name: found.get(None if group.name == NONE else group.name, {}) for group in groups}
        for metric, found in ask_groups(
            store, scope, measured, until, dimension.groups, before=spec.analysis.cuped
        ).items()
    }
    return weighed_by_groups(
        spec, metrics, dimension.attribute, dimension.distinct, groups, tallies, alpha=alpha
    )


def weighed_by_groups(
    spec: ExperimentSpec,
    metrics: Sequence[MetricSpec],
    attribute: str,
    distinct: int,
    groups: Sequence[Group],
    tallies: Mapping[MetricSpec, Mapping[str, ByVariant]],
    *,
    alpha: float,
) -> ByDimension:
    """What these tallies, by the name of the group, say; metrics that have none cannot be told apart."""
    units = {variant.id: sum(group.units.get(variant.id, 0) for group in groups) for variant in spec.variants}
    shown = shown_variants(spec, units)
    weighed: dict[_Place, _Weighed] = {}
    for metric, by_group in tallies.items():
        for group in groups:
            found = report_metric(spec, metric, by_group[group.name], shown, alpha=alpha)
            for each in found.comparisons:
                case = _case(spec, metric, each, contrasts(spec, found, each))
                few = _too_few(metric, each.control_tally) or _too_few(metric, each.treatment_tally)
                place = _Place(metric, each.treatment, group.name)
                weighed[place] = _Weighed(case.contrast, case, few)
    judged = _judged(spec, weighed, alpha)
    gates = _gates(attribute, groups, weighed, judged, alpha)
    return ByDimension(
        attribute,
        distinct,
        tuple(groups),
        tuple(_metric(metric, tallies.get(metric), gates) for metric in metrics),
        tuple(_sentences(spec, distinct, groups)),
    )


def grouped(
    spec: ExperimentSpec,
    known: Sequence[tuple[str, str, object]],
    counted: Mapping[str, Sequence[Counted]],
) -> tuple[Group, ...]:
    """Those groups that have units, in the order given: by name, kind and value."""
    present = [each for each in known if counted.get(each[0])]
    made = []
    for name, kind, value in present:
        units: dict[int, int] = {}
        for variant, _, count in counted[name]:
            units[variant] = units.get(variant, 0) + count
        splits = by_split(spec, counted[name])
        ratio = None
        if splits and len(spec.variants) > 1:
            # Each group is a chance of a false alarm.
            ratio = sample_ratio(splits, threshold=THRESHOLD / len(present))
        made.append(Group(name, cast("Kind", kind), value, units, ratio))
    return tuple(made)


def _too_few(metric: MetricSpec, tally: Tally) -> bool:
    """Whether the normal approximation that the gate rests on is out of reach."""
    if metric.type in SHARES and min(tally.converters, tally.units - tally.converters) < _FEWEST_OF_EACH:
        return True
    return tally.units < FEWEST_UNITS


def _case(spec: ExperimentSpec, metric: MetricSpec, each: Comparison, given: Contrasts) -> Case:
    lower = metric.direction is Direction.DECREASE
    plain = metric.type in SHARES and each.strata == 1 and not given.covariates
    counts = (each.control_tally.count, each.treatment_tally.count) if plain else None
    return Case(given.adjusted, alternative_of(spec, metric), lower, counts)


def _judged(
    spec: ExperimentSpec, weighed: Mapping[_Place, _Weighed], alpha: float
) -> Mapping[_Place, Judged]:
    """All verdicts; those of groups with too few units are numbers alone, and count for nothing."""
    method: Method = "bayesian" if spec.analysis.method == "bayesian" else "fixed"
    family = [place for place, each in weighed.items() if not each.too_few]
    others = [place for place, each in weighed.items() if each.too_few]
    corrected = judge_family(
        [weighed[place].case for place in family], Rules(method, alpha, "benjamini_hochberg")
    )
    alone = judge_family([weighed[place].case for place in others], Rules(method, alpha, "none"))
    return dict(zip((*family, *others), (*corrected, *alone), strict=True))


def _gates(
    attribute: str,
    groups: Sequence[Group],
    weighed: Mapping[_Place, _Weighed],
    judged: Mapping[_Place, Judged],
    alpha: float,
) -> dict[MetricSpec, list[Gate]]:
    """A gate for each metric and treatment, corrected for their number."""
    asked = dict.fromkeys((place.metric, place.treatment) for place in weighed)
    tested = {}
    for metric, treatment in asked:
        each = [weighed[_Place(metric, treatment, group.name)] for group in groups]
        usable = [None if one.too_few or one.contrast.reason else one.contrast for one in each]
        tested[metric, treatment] = heterogeneity(
            [None if one is None else one.estimate for one in usable],
            [None if one is None else one.variance for one in usable],
        )
    corrected = correct([each.p_value for each in tested.values()], method="benjamini_hochberg", alpha=alpha)
    found: dict[MetricSpec, list[Gate]] = {}
    for (metric, treatment), test, p, differs in zip(
        asked, tested.values(), corrected.p_values, corrected.rejected, strict=True
    ):
        effects = []
        for group, shrunken in zip(groups, test.segments, strict=True):
            place = _Place(metric, treatment, group.name)
            one, too_few = judged[place], weighed[place].too_few
            numbers = one.verdict
            own = decisive(numbers) if numbers.chance_to_win is not None else numbers.significant
            significant = own if differs and not too_few else None
            effects.append(GroupEffect(group, numbers, one.adjusted_p_value, significant, shrunken, too_few))
        said = _said(attribute, p, differs)
        found.setdefault(metric, []).append(Gate(treatment, test, p, differs, said, tuple(effects)))
    return found


def _said(attribute: str, p: float | None, differs: bool | None) -> str:
    if differs is None:
        return (
            f"Fewer than two groups have enough units and a measured effect (at least {FEWEST_UNITS} units "
            f"an arm; for a share {_FEWEST_OF_EACH} with an event and {_FEWEST_OF_EACH} without), so nothing "
            "can be said of differences between them."
        )
    if differs:
        return f"The effect differs by {attribute} more than chance makes it ({p_value(p)})."
    return (
        f"The effects do not differ by {attribute} more than chance makes them ({p_value(p)}): call no group "
        "a winner or a loser, and go by the effect of the whole."
    )


def _metric(
    metric: MetricSpec,
    by_group: Mapping[str, ByVariant] | None,
    gates: Mapping[MetricSpec, Sequence[Gate]],
) -> GroupedMetric:
    if by_group is None:
        why = "Quantiles of groups are not computed: ask for a segment that holds the group (segment=)."
        return GroupedMetric(metric, (), {}, why)
    return GroupedMetric(metric, tuple(gates.get(metric, ())), by_group)


def _sentences(spec: ExperimentSpec, distinct: int, groups: Iterable[Group]) -> Iterable[str]:
    """What to know when reading it."""
    if spec.unit != "user_id":
        yield f"Attributes are of users only, and the units of this experiment are {spec.unit}: none has any."
    elif distinct:
        yield (
            "Attributes are taken as they are stored now: one that the experiment itself can change makes "
            "groups that are not comparable."
        )
    if spec.analysis.bandit is not None:
        yield "The split followed what was learnt on the way: tests of its groups are approximate."
    if distinct >= MOST_DISTINCT:
        yield (
            f"There are {MOST_DISTINCT:,} different values or more: units with further ones are with the "
            "others. An attribute with fewer values says more."
        )
    for group in groups:
        ratio = group.sample_ratio
        if ratio is not None and ratio.mismatch:
            yield (
                f"The variants do not hold the shares of units that they were dealt in {described(group)} "
                f"({p_value(ratio.p_value)}): do not trust its effect."
            )


def described(group: Group) -> str:
    """The group in words."""
    if group.kind == "value":
        return f"the group {group.value!r}"
    return "the group of all other values" if group.kind == "other" else "the group without the attribute"
