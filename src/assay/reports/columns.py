"""Metrics that need more than the plain moments of an event type: filters, windows, caps, ratios, steps.

Each becomes three columns of a unit, as `assay.reports.arms` knows them: whether it converted, how many
events it had (or its denominator), and their total (or its numerator).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from assay.eventstore.base import EventStore, Scope
from assay.eventstore.columns import Block, BlockMoments, Column, Filter, Fold, Operator, Source
from assay.reports.arms import COLUMNS, ByVariant, Tally
from assay.reports.spec import CapSpec, FilterSpec, MetricSpec, MetricType, SourceSpec
from assay.stats import Moments

#: Kinds that a single measure of an event type answers, where nothing narrows the events.
_SIMPLE = frozenset(
    {MetricType.CONVERSION, MetricType.COUNT, MetricType.SUM, MetricType.REVENUE, MetricType.MEAN}
)
_FOLDS = {"any": Fold.ANY, "count": Fold.COUNT, "sum": Fold.SUM}


def is_plain(metric: MetricSpec) -> bool:
    """Whether the moments of one measure over all of a unit's events are the whole answer."""
    narrowed = metric.where or metric.opens or metric.closes is not None or metric.complete_only
    return metric.type in _SIMPLE and not (narrowed or metric.cap)


def is_computed(metric: MetricSpec) -> bool:
    """Whether reports can compute the metric: all but quantiles."""
    return metric.type is not MetricType.QUANTILE


def ask_columns(
    store: EventStore, scope: Scope, metrics: Sequence[MetricSpec], until: int
) -> dict[MetricSpec, ByVariant]:
    """The tallies of these metrics, by one scan for all that look at the same units.

    `until` (microseconds) is the end of what is reported on: a metric of complete windows leaves out units
    that came too late for theirs.
    """
    found: dict[MetricSpec, ByVariant] = {}
    for span in sorted({_observed(metric) for metric in metrics}):
        chosen = [metric for metric in metrics if _observed(metric) == span]
        over = scope if not span else replace(scope, observed_for=span, until=_earlier(scope.until, until))
        found.update(_scan(store, over, chosen))
    return found


def _earlier(first: int | None, second: int) -> int:
    return second if first is None else min(first, second)


def _observed(metric: MetricSpec) -> int:
    return metric.closes if metric.complete_only and metric.closes is not None else 0


def _scan(store: EventStore, scope: Scope, metrics: Sequence[MetricSpec]) -> dict[MetricSpec, ByVariant]:
    columns = {metric: _columns(metric, str(place)) for place, metric in enumerate(metrics)}
    caps = {metric: _cap(store, scope, metric, columns[metric]) for metric in metrics if metric.cap}
    asked = {metric: _capped(columns[metric], metric, caps.get(metric)) for metric in metrics}
    blocks: dict[MetricSpec, Block] = {
        metric: tuple(each.key for each in asked[metric]) for metric in metrics
    }
    cells = store.columns(scope, [each for some in asked.values() for each in some], list(blocks.values()))
    found: dict[MetricSpec, dict[int, dict[int, Tally]]] = {metric: {} for metric in metrics}
    for cell in cells:
        for metric, block in blocks.items():
            found[metric].setdefault(cell.variant_id, {})[cell.phase] = _tally(cell.blocks[block])
    return dict(found)


def _columns(metric: MetricSpec, prefix: str) -> tuple[Column, Column, Column]:
    """Converted, events and total of a metric; the keys begin with `prefix`."""
    source = Source(metric.event_type or "", _filters(metric.where), metric.opens, metric.closes)
    counted = Fold.VALUED if metric.type is MetricType.MEAN else Fold.COUNT
    converted = Column(f"{prefix}c", source, Fold.ANY)
    events = Column(f"{prefix}e", source, counted, metric.prop)
    total = Column(f"{prefix}t", source, Fold.SUM, metric.prop)
    match metric.type:
        case MetricType.RATIO if metric.denominator is not None:
            fold = _FOLDS[metric.fold or ("sum" if metric.prop else "count")]
            total = Column(f"{prefix}t", source, fold, metric.prop if fold is Fold.SUM else None)
            events = _source_column(f"{prefix}e", metric.denominator, metric)
        case MetricType.THRESHOLD:
            fold = _FOLDS[metric.fold or "count"]
            prop = metric.prop if fold is Fold.SUM else None
            converted = Column(f"{prefix}c", source, fold, prop, at_least=metric.at_least)
        case MetricType.FUNNEL:
            first, *rest = (
                Source(step.event_type, _filters(step.where), metric.opens, metric.closes)
                for step in metric.steps
            )
            converted = Column(f"{prefix}c", first, Fold.STEPS, steps=tuple(rest))
    return converted, events, total


def _source_column(key: str, spec: SourceSpec, metric: MetricSpec) -> Column:
    source = Source(spec.event_type, _filters(spec.where), metric.opens, metric.closes)
    fold = _FOLDS[spec.fold]
    return Column(key, source, fold, spec.prop if fold is Fold.SUM else None)


def _filters(specs: Sequence[FilterSpec]) -> tuple[Filter, ...]:
    return tuple(_filter(spec) for spec in specs)


def _filter(spec: FilterSpec) -> Filter:
    operator = Operator(spec.op)
    if operator in {Operator.IN, Operator.NOT_IN}:
        return Filter(spec.prop, operator, spec.values)
    return Filter(spec.prop, operator, spec.values[0] if spec.values else None)


def _pulled(metric: MetricSpec, columns: tuple[Column, Column, Column]) -> Column:
    """The column that a cap is about."""
    return columns[1] if metric.type is MetricType.COUNT else columns[2]


def _cap(
    store: EventStore, scope: Scope, metric: MetricSpec, columns: tuple[Column, Column, Column]
) -> CapSpec | None:
    """The cap in values; shares are of all arms' totals together, so that it favours none of them."""
    cap = metric.cap
    if cap is None or not cap.is_quantile:
        return cap
    pulled = _pulled(metric, columns)
    levels = [cap.high] if cap.low is None else [cap.high, cap.low]
    values = store.percentiles(scope, [pulled], levels)[pulled.key]
    if values[0] is None:
        return None
    return CapSpec(values[0], values[1] if len(values) > 1 else None)


def _capped(
    columns: tuple[Column, Column, Column], metric: MetricSpec, cap: CapSpec | None
) -> tuple[Column, Column, Column]:
    if cap is None:
        return columns
    pulled = _pulled(metric, columns)
    bounded = replace(pulled, low=cap.low, high=cap.high)
    first, second, third = (bounded if each is pulled else each for each in columns)
    return first, second, third


def _tally(found: BlockMoments) -> Tally:
    pairs: Mapping[tuple[str, str], float] = {
        (x, y): found.covariance[i][j] for i, x in enumerate(COLUMNS) for j, y in enumerate(COLUMNS) if i <= j
    }
    means = dict(zip(COLUMNS, found.means, strict=True))
    converters, (_, events, total) = found.nonzero[0], found.totals
    return Tally(converters, events, total, Moments.from_centred(found.count, means, pairs))
