"""What the checks of a report's health rest on, asked of the store at the report's own moment.

All of it is cheap beside the report: units are counted by the hour, and of events only the latest are looked
at, so that a log ten times as long costs the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from assay.events.timestamps import EPOCH
from assay.eventstore.base import Arrivals, Bucket, EventStore, Fate, Repetitions, Scope
from assay.reports.report import MetricReport
from assay.reports.spec import ExperimentSpec
from assay.stats import Phase, SampleRatio

#: Events that are looked at for what became of them.
LATEST_EVENTS = 100_000
#: Digits to which shares are the same split.
_SAME_SPLIT = 9


class Evidence(NamedTuple):
    """All that checks may ask for, each part under the name by which they ask.

    `begin` is when the experiment started, or its first unit came where that was earlier (to the hour).
    `arrivals` are by the hour; `fates` are those of the latest events. `activated`
    is the sample ratio of the units that had the activation event, where the experiment has one.
    """

    spec: ExperimentSpec
    units: Mapping[int, int]
    metrics: Sequence[MetricReport]
    begin: datetime | None
    end: datetime
    arrivals: Sequence[Arrivals] = ()
    fates: Sequence[Fate] = ()
    repetitions: Repetitions = Repetitions(0, 0)
    activated: SampleRatio | None = None


def gather(
    store: EventStore,
    spec: ExperimentSpec,
    scope: Scope,
    *,
    units: Mapping[int, int],
    metrics: Sequence[MetricReport],
    end: datetime,
    activated: SampleRatio | None,
) -> Evidence:
    """Ask the store for what the checks need; `metrics` and `units` have been asked for already.

    Checks look at all units and all events of the time reported on, however few are shown.
    """
    whole = replace(scope, event_type=None, events_from=None, activation=None, observed_for=None)
    arrivals = store.arrivals(whole, Bucket.HOUR)
    return Evidence(
        spec=spec,
        units=units,
        metrics=metrics,
        begin=_begin(spec, arrivals),
        end=end,
        arrivals=arrivals,
        fates=store.fates(whole, LATEST_EVENTS),
        repetitions=store.repetitions(whole),
        activated=activated,
    )


def by_split(spec: ExperimentSpec, rows: Iterable[tuple[int, int, int]]) -> list[Phase]:
    """Units of `(variant id, phase, units)` against what they were dealt, in the order of `spec.variants`.

    Phases of the same split are one, which keeps the test of them exact where it can be. Units of variants
    that are none of the experiment's are left out.
    """
    places = {variant.id: place for place, variant in enumerate(spec.variants)}
    splits: dict[int, tuple[float, ...]] = {}
    counts: dict[tuple[float, ...], list[int]] = {}
    for variant_id, phase, units in rows:
        if variant_id in places:
            if phase not in splits:
                splits[phase] = tuple(round(weight, _SAME_SPLIT) for weight in spec.weights(phase))
            counts.setdefault(splits[phase], [0] * len(places))[places[variant_id]] += units
    return [Phase(tuple(units), split) for split, units in counts.items()]


def _begin(spec: ExperimentSpec, arrivals: Sequence[Arrivals]) -> datetime | None:
    """When it all began: assignments of before the start, imported ones, are found to the hour."""
    if not arrivals:
        return spec.started_at
    first = EPOCH + timedelta(microseconds=arrivals[0].bucket)
    started = spec.started_at
    return first if started is None or first + timedelta(hours=1) <= started else started
