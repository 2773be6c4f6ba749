"""What a metric counts, in words: one sentence, and what narrows it."""

from collections.abc import Sequence
from typing import Final

from assay.dashboard import literals, wording
from assay.dashboard.metric_fields import OPERATORS
from assay.reports.spec import Direction, FilterSpec, MetricSpec, MetricType, SourceSpec

_MINUTE: Final = 60_000_000
_WORDS = dict(OPERATORS)
_ENDINGS = {"1": "st", "2": "nd", "3": "rd"}
#: Kinds of metrics whose value is a share of units, to be read in percent.
SHARES = frozenset({MetricType.CONVERSION, MetricType.RETENTION, MetricType.FUNNEL, MetricType.THRESHOLD})


def is_share(metric: MetricSpec) -> bool:
    """Whether the metric's value is a share of units, to be read in percent."""
    return metric.type in SHARES


def meaning(metric: MetricSpec) -> str:
    """What a metric counts, in a sentence without its full stop."""
    events = _events(metric.event_type, metric.where)
    amount = _amount(metric.prop)
    match metric.type:
        case MetricType.CONVERSION:
            return f"Share of units with at least one of the {events}"
        case MetricType.COUNT:
            return f"Number of {events} per unit"
        case MetricType.SUM:
            return f"Total of {amount} of {events} per unit"
        case MetricType.REVENUE:
            return f"Total of {amount} of {events} per unit, in money"
        case MetricType.MEAN:
            return f"Average of {amount} over all {events}"
        case MetricType.RATIO:
            top = _folded(metric.fold, metric.prop, events)
            return f"{_capital(top)}, divided by {_source(metric.denominator)}, over all units"
        case _:
            return _rarer(metric, events, amount)


def facts(metric: MetricSpec) -> list[tuple[str, str]]:
    """What narrows or adjusts the metric, as name and words; nothing for what it does not say."""
    found = [("Better is", "more" if metric.direction is Direction.INCREASE else "less")]
    if metric.type is not MetricType.RETENTION and (metric.opens or metric.closes is not None):
        found.append(("Counts events", _window(metric)))
    if metric.complete_only:
        found.append(("Leaves out", "units that were not yet observed for all of it"))
    if metric.lookback is not None:
        found.append(("Adjusted by", f"the same events in the {span(metric.lookback)} before assignment"))
    if metric.cap is not None:
        show = _quantile if metric.cap.is_quantile else wording.tick
        low = "" if metric.cap.low is None else f" and raised to {show(metric.cap.low)}"
        found.append(("Capped", f"units' totals are pulled in to {show(metric.cap.high)}{low}"))
    if metric.margin is not None:
        size = metric.margin.size
        shown = (
            f"{wording.share_tick(size)} of the control's value"
            if metric.margin.is_relative
            else f"{_unit(metric, size)} in its own unit"
        )
        found.append(("Tolerated harm", f"up to {shown}"))
    return found


def span(microseconds: int) -> str:
    """`14 days`, `24 hours`, `30 minutes`."""
    minutes = microseconds // _MINUTE
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes % size == 0 and minutes >= size:
            return f"{minutes // size:,} {unit}{'' if minutes == size else 's'}"
    return "0 minutes"


def _rarer(metric: MetricSpec, events: str, amount: str) -> str:
    match metric.type:
        case MetricType.QUANTILE:
            if metric.by_event:
                return f"{_capital(_quantile(metric.quantile or 0.0))} of {amount} over all {events}"
            zeros = ", units without one as zeros" if metric.zeros else ""
            level = _capital(_quantile(metric.quantile or 0.0))
            return f"{level} of units' totals of {amount} of {events}{zeros}"
        case MetricType.RETENTION:
            until = "" if metric.closes is None else f" and before {span(metric.closes)}"
            return (
                f"Share of units with one of the {events} from {span(metric.opens)}{until} after assignment"
            )
        case MetricType.FUNNEL:
            steps = ", then ".join(_step(step) for step in metric.steps)
            return f"Share of units that do {steps}, in this order"
        case _:
            least = wording.tick(metric.at_least or 0.0)
            if metric.fold == "sum":
                return f"Share of units whose total of {amount} of {events} reaches {least}"
            return f"Share of units with at least {least} of the {events}"


def _events(kind: str | None, where: Sequence[FilterSpec]) -> str:
    named = "events of any type" if kind is None else f"“{kind}” events"
    return f"{named}{_where(where)}"


def _step(step: SourceSpec) -> str:
    return f"“{step.event_type}”{_where(step.where)}"


def _where(where: Sequence[FilterSpec]) -> str:
    if not where:
        return ""
    return " where " + " and ".join(_test(each) for each in where)


def _test(test: FilterSpec) -> str:
    values = literals.written_list(test.values)
    return f"“{test.prop}” {_WORDS[test.op]} {values}".rstrip()


def _amount(prop: str | None) -> str:
    return "the amount" if prop is None else f"the property “{prop}”"


def _source(source: SourceSpec | None) -> str:
    if source is None:
        return "nothing"
    return _folded(source.fold, source.prop, _events(source.event_type, source.where))


def _folded(fold: str | None, prop: str | None, events: str) -> str:
    match fold or ("sum" if prop else "count"):
        case "sum":
            return f"the total of {_amount(prop)} of {events}"
        case "any":
            return f"the number of units with {events}"
        case _:
            return f"the number of {events}"


def _window(metric: MetricSpec) -> str:
    after = f"from {span(metric.opens)} after assignment on" if metric.opens else ""
    if metric.closes is None:
        return after
    length = span(metric.closes - metric.opens)
    return f"{after}, for {length}" if after else f"of the {length} after assignment"


def _quantile(share: float) -> str:
    percent = wording.tick(share * 100.0)
    last = "" if percent[-2:] in {"11", "12", "13"} or "." in percent else percent[-1]
    return f"the {percent}{_ENDINGS.get(last, 'th')} percentile"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _unit(metric: MetricSpec, size: float) -> str:
    return f"{wording.tick(size * 100.0)} points" if is_share(metric) else wording.tick(size)
