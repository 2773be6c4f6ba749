"""What is odd about a metric's data, in sentences: the report says it, and goes on with the others."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from assay.reports.arms import SHARES, merged
from assay.reports.report import MetricReport, Why
from assay.reports.spec import MetricSpec, MetricType
from assay.reports.wording import duration
from assay.stats import Reason

_DAY_MICROS = 86_400_000_000
#: What to do about a statistic that is absent; nothing where only more data or nothing at all helps.
_REMEDIES = {
    Reason.NO_DATA: "Wait for units, or check that the application asks for assignments and sends events.",
    Reason.INSUFFICIENT_DATA: "Wait until every variant has two units.",
    Reason.ZERO_VARIANCE: "Check that the metric's events and property are those that the application sends.",
    Reason.BASELINE_ZERO: "Read the absolute difference.",
    Reason.BASELINE_NOT_SEPARATED: "Read the absolute difference, or wait for more units.",
    Reason.SIGNS_DIFFER: "Read the absolute difference.",
    Reason.DENOMINATOR_ZERO: "Check that events of the ratio's denominator are sent for every variant.",
    Reason.BURN_IN: (
        "Wait for more events. Where values cancel out, as net amounts may, that may take forever: judge the "
        "metric in an experiment of the method fixed or group_sequential."
    ),
    Reason.QUANTILE_TOO_EXTREME: "Wait for more events, or choose a quantile nearer to the median.",
    Reason.QUANTILE_TIES: "Choose another quantile, or a threshold or a mean of the same events.",
    Reason.ZERO_WEIGHT_ARM: "Find out how units came into a variant that was dealt none.",
    Reason.NOT_A_LOOK: "Wait for more units before the next look.",
    Reason.PRECISION_LOSS: "Subtract a constant from the values before sending them.",
}
_WHYS = {
    Why.NO_EVENTS: "Compare the event type with those that the application sends.",
    Why.OUTSIDE_WINDOW: "Choose a window that begins earlier.",
}


class Note(NamedTuple):
    """One oddity: a stable word for programs, a sentence, and what to do."""

    code: str
    sentence: str
    what_to_do: str


def remedy(reason: Reason | Why | None) -> str | None:
    """What to do about an absent number."""
    if isinstance(reason, Why):
        return _WHYS.get(reason)
    return None if reason is None else _REMEDIES.get(reason)


def notes(of: MetricReport, begin: datetime | None, end: datetime) -> tuple[Note, ...]:
    """All oddities of one metric's data; `begin` is when the first unit came."""
    return tuple(_notes(of, begin, end))


def _notes(of: MetricReport, begin: datetime | None, end: datetime) -> Iterator[Note]:
    metric = of.metric
    tallies = [merged(by_phase.values()) for by_phase in of.tallies.values()]
    events, unreadable = sum(each.events for each in tallies), sum(each.unreadable for each in tallies)
    if unreadable:
        yield Note(
            "unreadable_values",
            f"{unreadable:,} events have {metric.prop} with something else than a number, which counts for "
            "nothing.",
            "Send it as a JSON number.",
        )
    units = sum(each.units for each in tallies)
    converters = sum(each.converters for each in tallies)
    amounts = metric.prop is not None and metric.type not in SHARES
    if amounts and converters and not unreadable and not any(each.total for each in tallies):
        yield Note(
            "unknown_property",
            f"No event has a number other than 0 under {metric.prop}.",
            "Compare the property's name with what the application sends.",
        )
    if units and metric.type in (MetricType.RATIO, MetricType.MEAN) and not events:
        yield Note(
            "denominator_zero",
            "Nothing has been counted that the metric divides by.",
            remedy(Reason.DENOMINATOR_ZERO) or "",
        )
    yield from _window(metric, units, begin, end)


def _window(metric: MetricSpec, units: int, begin: datetime | None, end: datetime) -> Iterator[Note]:
    """A window that is longer than anybody has been watched."""
    longest = metric.closes if metric.closes is not None else metric.opens
    watched = max(timedelta(0), end - begin) if begin is not None else timedelta(0)
    if not longest or timedelta(microseconds=longest) <= watched or (begin is None and not units):
        return
    whole, seen = duration(longest / _DAY_MICROS), duration(watched / timedelta(days=1))
    left_out = " Until then nobody is counted." if metric.complete_only else ""
    yield Note(
        "window_not_over",
        f"The metric's window ends {whole} after the assignment, and the first unit has been watched for "
        f"{seen}.{left_out}",
        "Wait, or shorten the window.",
    )
