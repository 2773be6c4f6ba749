"""Do units and events keep coming?"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import sqrt

from assay.events.timestamps import micros
from assay.eventstore.base import Arrivals, Fate, LedgerReason
from assay.reports.checks.base import Finding
from assay.reports.report import Health
from assay.reports.spec import ExperimentSpec
from assay.reports.wording import duration

_DAY = 86_400_000_000
#: Days looked back at, and how few of them say what is usual.
_BACK = 7
_FEWEST = 3
#: A fall below this share of the weakest of those days is sharp, if chance does not make it either.
_SHARP = 0.5
_DEVIATIONS = 4.0
#: Events that were to be expected since the last one, before their absence says anything.
_MISSED = 100


def exposure_drop(spec: ExperimentSpec, arrivals: Sequence[Arrivals], end: datetime) -> Finding:
    """Whether far fewer units came in the last 24 hours than on each of the days before."""
    if spec.status != "running":
        return Finding(Health.OK, "Units come in while the experiment runs; it does not now.", {})
    now, current = micros(end), max((row.phase for row in arrivals), default=0)
    counts: dict[int, int] = {}
    for row in arrivals:
        ago = (now - row.bucket) // _DAY
        counts[ago] = counts.get(ago, 0) + row.units
    # Days of another phase say nothing of this one: coverage or targeting may have been changed on purpose.
    since = max((row.bucket for row in arrivals if row.phase != current), default=-1)
    first = arrivals[0].bucket if arrivals else now
    usual = [
        counts.get(ago, 0)
        for ago in range(1, _BACK + 1)
        if now - (ago + 1) * _DAY >= first and now - (ago + 1) * _DAY > since
    ]
    latest = counts.get(0, 0)
    inputs = {"last_24_hours": latest, "days_before": usual}
    if len(usual) < _FEWEST:
        return Finding(Health.OK, "It is too early to say how many units usually come in a day.", inputs)
    weakest = min(usual)
    if latest < _SHARP * weakest and latest < weakest - _DEVIATIONS * sqrt(weakest):
        return Finding(
            Health.WARNING,
            f"Only {latest:,} units came in during the last 24 hours, {weakest:,} or more on each of the "
            f"{len(usual)} days before: check that the application still asks for assignments.",
            inputs,
        )
    return Finding(Health.OK, "Units come in as they did on the days before.", inputs)


def events_stop(spec: ExperimentSpec, fates: Sequence[Fate], end: datetime) -> Finding:
    """Whether events that count have stopped coming."""
    counted = [each for each in fates if each.reason is LedgerReason.COUNTED]
    if spec.status != "running" or not counted:
        return Finding(Health.OK, "There are no events whose coming could stop.", {})
    events = sum(each.events for each in counted)
    first, last = min(each.first for each in counted), max(each.last for each in counted)
    span, silence = max(last - first, 1), max(micros(end) - last, 0)
    expected = events * silence / max(span, _DAY)
    inputs = {"events": events, "last_at": last, "days_without": silence / _DAY, "expected_since": expected}
    if silence >= _DAY and expected >= _MISSED:
        return Finding(
            Health.WARNING,
            f"No event has counted for {duration(timedelta(microseconds=silence) / timedelta(days=1))}, when "
            f"about {expected:,.0f} were to be expected: check that events are still sent.",
            inputs,
        )
    return Finding(Health.OK, "Events that count keep coming.", inputs)
