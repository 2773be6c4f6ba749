"""Metrics that need more than the plain moments of an event type: filters, windows, caps, ratios, steps.

Each becomes three columns of a unit, as `assay.reports.arms` knows them: whether it converted, how many
events it had (or its denominator), and their total (or its numerator). A metric that looks back gets the
same of the time before the unit's assignment, in the same scan: what was known before the experiment takes
noise out of its result. Amounts are taken in two halves of that time, of which the later says more, and with
an indicator of units that had any.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from assay.eventstore.base import EventStore, Scope
from assay.eventstore.columns import (
    Block,
    Cell,
    Column,
    Filter,
    Fold,
    Operator,
    Quantile,
    Source,
    UnitList,
)
from assay.eventstore.columns import QuantileArm as Found
from assay.reports.arms import (
    BEFORE_AMOUNT,
    BEFORE_RATIO,
    BEFORE_SHARE,
    COLUMNS,
    SHARES,
    ByVariant,
    Quantiles,
    Sample,
    Tally,
)
from assay.reports.spec import CapSpec, ExperimentSpec, FilterSpec, MetricSpec, MetricType, SourceSpec
from assay.stats import Moments, QuantileArm, Reason, quantile_arm

#: Kinds that a single measure of an event type answers, where nothing narrows the events.
_SIMPLE = frozenset(
    {MetricType.CONVERSION, MetricType.COUNT, MetricType.SUM, MetricType.REVENUE, MetricType.MEAN}
)
_RATIOS = frozenset({MetricType.MEAN, MetricType.RATIO})
_FOLDS = {"any": Fold.ANY, "count": Fold.COUNT, "sum": Fold.SUM}
#: A column of a unit by its name in the moments.
_Named = Mapping[str, Column]
#: Tallies by variant, by the name of a group of units.
ByGroup = Mapping[str | None, ByVariant]


def is_plain(metric: MetricSpec, *, before: bool = True) -> bool:
    """Whether the moments of one measure over all of a unit's events are the whole answer.

    Those of a property are not: how many events have it, but not as a number, is part of the answer. `before`
    says whether the time before the assignment is asked for.
    """
    narrowed = metric.where or metric.opens or metric.closes is not None or metric.complete_only
    looks_back = before and metric.lookback is not None
    of_property = metric.prop is not None and metric.type is not MetricType.CONVERSION
    return metric.type in _SIMPLE and not (narrowed or metric.cap or looks_back or of_property)


def source_of(spec: SourceSpec) -> Source:
    """The events of a source, whenever they were."""
    return Source(spec.event_type, _filters(spec.where))


def ask_columns(
    store: EventStore, scope: Scope, metrics: Sequence[MetricSpec], until: int, *, before: bool = True
) -> dict[MetricSpec, ByVariant]:
    """The tallies of these metrics, by one scan for all that look at the same units.

    `until` (microseconds) is the end of what is reported on: a metric of complete windows leaves out units
    that came too late for theirs. `before` says whether metrics that look back get the columns of the time
    before the assignment.
    """
    by_group = ask_groups(store, scope, metrics, until, None, before=before)
    return {metric: groups.get(None, {}) for metric, groups in by_group.items()}


def ask_groups(
    store: EventStore,
    scope: Scope,
    metrics: Sequence[MetricSpec],
    until: int,
    groups: Mapping[str, UnitList] | None,
    *,
    before: bool = True,
) -> dict[MetricSpec, ByGroup]:
    """The same by the group that a unit is in; None for those in none."""
    found: dict[MetricSpec, ByGroup] = {}
    for span in sorted({_observed(metric) for metric in metrics}):
        chosen = [metric for metric in metrics if _observed(metric) == span]
        found.update(_scan(store, observed_for(scope, span, until), chosen, groups, before=before))
    return found


def ask_quantiles(
    store: EventStore, spec: ExperimentSpec, scope: Scope, counted: Mapping[MetricSpec, ByVariant], until: int
) -> dict[MetricSpec, Quantiles]:
    """The quantiles of those of these metrics that are one; `until` as above.

    Phases of one split are taken together. Where there were several splits, each arm is asked for twice: as a
    whole, which is what is shown of it, and within each split, which is what is compared.
    """
    found = {}
    for metric, tallies in counted.items():
        if metric.type is MetricType.QUANTILE:
            stratum_of = _strata(spec, {phase for by_phase in tallies.values() for phase in by_phase})
            first = min(stratum_of.values(), default=0)
            over = observed_for(scope, _observed(metric), until)
            whole = _sampled(store, over, metric, dict.fromkeys(stratum_of, first))
            several = len(set(stratum_of.values())) > 1
            parts = _sampled(store, over, metric, stratum_of) if several else whole
            overall = {variant: by_stratum[first] for variant, by_stratum in whole.items()}
            found[metric] = Quantiles(overall, parts, stratum_of)
    return found


def _strata(spec: ExperimentSpec, phases: Iterable[int]) -> dict[int, int]:
    """For each phase the first of those with the same split."""
    firsts: dict[tuple[float, ...], int] = {}
    return {
        phase: firsts.setdefault(tuple(round(weight, 9) for weight in spec.weights(phase)), phase)
        for phase in sorted(phases)
    }


def _sampled(
    store: EventStore, scope: Scope, metric: MetricSpec, strata: Mapping[int, int]
) -> dict[int, dict[int, Sample]]:
    """By variant and stratum."""
    q = metric.quantile or 0.5
    column = columns_of(metric, "q", metric.opens, metric.closes)["total"]
    asked = Quantile("q", column, q, of_events=metric.by_event, zeros=metric.zeros)
    found: dict[int, dict[int, Sample]] = {}
    for arm in store.quantiles(scope, [asked], strata):
        found.setdefault(arm.variant_id, {})[arm.phase] = Sample(sample_of(arm, q, metric.by_event), arm)
    return found


def sample_of(found: Found, q: float, by_event: bool) -> QuantileArm:
    """The quantile with its standard error; events of one unit are one cluster."""
    if found.value is None:
        return QuantileArm(q, 0, found.units, None, None, Reason.NO_DATA)
    if found.lower is None or found.upper is None:
        return QuantileArm(q, found.events, found.units, found.value, None, Reason.QUANTILE_TOO_EXTREME)
    clusters = None
    if by_event:
        names, of = ("below", "events"), found.clusters
        pairs = {(x, y): of.covariance[i][j] for i, x in enumerate(names) for j, y in enumerate(names)}
        clusters = Moments.from_centred(of.count, dict(zip(names, of.means, strict=True)), pairs)
    return quantile_arm(q, found.events, found.value, found.lower, found.upper, clusters=clusters)


def observed_for(scope: Scope, span: int, until: int) -> Scope:
    """The same units, as far as they were observed for so long before `until`; times in microseconds."""
    return scope if not span else replace(scope, observed_for=span, until=_earlier(scope.until, until))


def _earlier(first: int | None, second: int) -> int:
    return second if first is None else min(first, second)


def _observed(metric: MetricSpec) -> int:
    return metric.closes if metric.complete_only and metric.closes is not None else 0


def _scan(
    store: EventStore,
    scope: Scope,
    metrics: Sequence[MetricSpec],
    groups: Mapping[str, UnitList] | None,
    *,
    before: bool,
) -> dict[MetricSpec, ByGroup]:
    columns = {
        metric: _all_columns(metric, str(place), before=before) for place, metric in enumerate(metrics)
    }
    caps = {metric: _cap(store, scope, metric, columns[metric]) for metric in metrics if metric.cap}
    asked = {metric: _capped(columns[metric], metric, caps.get(metric)) for metric in metrics}
    blocks: dict[MetricSpec, Block] = {
        metric: tuple(each.key for each in asked[metric].values()) for metric in metrics
    }
    every = [each for some in asked.values() for each in some.values()]
    cells = store.columns(scope, every, list(blocks.values()), groups)
    found: dict[MetricSpec, dict[str | None, dict[int, dict[int, Tally]]]] = {
        metric: {} for metric in metrics
    }
    for cell in cells:
        for metric in metrics:
            tally = _tally(cell, blocks[metric], asked[metric], caps.get(metric))
            by_variant = found[metric].setdefault(cell.group, {})
            by_variant.setdefault(cell.variant_id, {})[cell.phase] = tally
    return dict(found)


def _all_columns(metric: MetricSpec, prefix: str, *, before: bool) -> _Named:
    """All columns of a metric: those of its window, and of the time before where it looks back."""
    own = columns_of(metric, prefix, metric.opens, metric.closes)
    if not before or metric.lookback is None or metric.type is MetricType.QUANTILE:
        return own
    whole = columns_of(metric, f"{prefix}b", -metric.lookback, 0)
    if metric.type in SHARES:
        return {**own, BEFORE_SHARE[0]: whole["converted"]}
    if metric.type in _RATIOS:
        return {**own, BEFORE_RATIO[0]: whole["total"], BEFORE_RATIO[1]: whole["events"]}
    half = metric.lookback // 2
    amount = _amount(metric)
    early = columns_of(metric, f"{prefix}p", -metric.lookback, -half)[amount] if half else whole[amount]
    late = columns_of(metric, f"{prefix}l", -half, 0)[amount] if half else whole[amount]
    return {**own, **dict(zip(BEFORE_AMOUNT, (whole["converted"], early, late), strict=True))}


def _amount(metric: MetricSpec) -> str:
    """The column that the metric is the mean of, and that a cap is about."""
    return "events" if metric.type is MetricType.COUNT else "total"


def columns_of(metric: MetricSpec, prefix: str, opens: int, closes: int | None) -> dict[str, Column]:
    """Converted, events and total of a metric in a window; the keys begin with `prefix`."""
    source = Source(metric.event_type or "", _filters(metric.where), opens, closes)
    counted = Fold.VALUED if metric.type is MetricType.MEAN else Fold.COUNT
    converted = Column(f"{prefix}c", source, Fold.ANY)
    events = Column(f"{prefix}e", source, counted, metric.prop if counted is Fold.VALUED else None)
    total = Column(f"{prefix}t", source, Fold.SUM, metric.prop)
    match metric.type:
        case MetricType.RATIO if metric.denominator is not None:
            fold = _FOLDS[metric.fold or ("sum" if metric.prop else "count")]
            total = Column(f"{prefix}t", source, fold, metric.prop if fold is Fold.SUM else None)
            events = _source_column(f"{prefix}e", metric.denominator, opens, closes)
        case MetricType.THRESHOLD:
            fold = _FOLDS[metric.fold or "count"]
            prop = metric.prop if fold is Fold.SUM else None
            converted = Column(f"{prefix}c", source, fold, prop, at_least=metric.at_least)
        case MetricType.FUNNEL:
            first, *rest = (
                Source(step.event_type, _filters(step.where), opens, closes) for step in metric.steps
            )
            converted = Column(f"{prefix}c", first, Fold.STEPS, steps=tuple(rest))
    return {"converted": converted, "events": events, "total": total}


def _source_column(key: str, spec: SourceSpec, opens: int, closes: int | None) -> Column:
    source = Source(spec.event_type, _filters(spec.where), opens, closes)
    fold = _FOLDS[spec.fold]
    return Column(key, source, fold, spec.prop if fold is Fold.SUM else None)


def _filters(specs: Sequence[FilterSpec]) -> tuple[Filter, ...]:
    return tuple(_filter(spec) for spec in specs)


def _filter(spec: FilterSpec) -> Filter:
    operator = Operator(spec.op)
    if operator in {Operator.IN, Operator.NOT_IN}:
        return Filter(spec.prop, operator, spec.values)
    return Filter(spec.prop, operator, spec.values[0] if spec.values else None)


def _cap(store: EventStore, scope: Scope, metric: MetricSpec, columns: _Named) -> CapSpec | None:
    """The cap in values; shares are of all arms' totals together, so that it favours none of them."""
    cap = metric.cap
    if cap is None or not cap.is_quantile:
        return cap
    pulled = columns[_amount(metric)]
    levels = [cap.high] if cap.low is None else [cap.high, cap.low]
    values = store.percentiles(scope, [pulled], levels)[pulled.key]
    if values[0] is None:
        return None
    return CapSpec(values[0], values[1] if len(values) > 1 else None)


def _capped(columns: _Named, metric: MetricSpec, cap: CapSpec | None) -> _Named:
    """The columns with the amounts pulled in; those of the time before are, too, as their tails are no less
    heavy."""
    if cap is None:
        return columns
    pulled = {_amount(metric), *BEFORE_AMOUNT[1:], BEFORE_RATIO[0]}
    return {
        name: replace(each, low=cap.low, high=cap.high) if name in pulled else each
        for name, each in columns.items()
    }


def unit_columns(metric: MetricSpec, prefix: str, cap: CapSpec | None, *, before: bool) -> _Named:
    """All columns of a metric by the names they have in its moments; `cap` is in values.

    Their keys begin with `prefix`. The moments over units are those of the report.
    """
    columns = _capped(_all_columns(metric, prefix, before=before), metric, cap)
    if metric.type is MetricType.MEAN and is_plain(metric, before=before):
        # Of a whole event type all events are counted, whether or not they have an amount.
        return {**columns, "events": replace(columns["events"], fold=Fold.COUNT, property=None)}
    return columns


def _tally(cell: Cell, block: Block, columns: _Named, cap: CapSpec | None) -> Tally:
    found, names = cell.blocks[block], tuple(columns)
    pairs: Mapping[tuple[str, str], float] = {
        (x, y): found.covariance[i][j] for i, x in enumerate(names) for j, y in enumerate(names) if i <= j
    }
    means = dict(zip(names, found.means, strict=True))
    converters, (_, events, total) = found.nonzero[0], found.totals[: len(COLUMNS)]
    # The same events may be missing from several columns: the most that one of them misses.
    unreadable = max((cell.unreadable.get(columns[name].key, 0) for name in COLUMNS), default=0)
    moments = Moments.from_centred(found.count, means, pairs)
    return Tally(converters, events, total, moments, unreadable, cap)
