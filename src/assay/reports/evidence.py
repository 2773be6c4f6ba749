"""What the checks of a report's health rest on, asked of the store at the report's own moment.

All of it is cheap beside the report: units are counted by the hour, and of events only the latest are looked
at, so that a log ten times as long costs the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from assay.events.timestamps import EPOCH, micros
from assay.eventstore.base import Arrivals, Bucket, EventStore, Fate, Repetitions, Scope
from assay.eventstore.columns import Beside, Block, BlockMoments, Cell, Column, Fold, Source
from assay.reports.arms import COLUMNS, value_of
from assay.reports.audience import ByAttribute, nothing_known
from assay.reports.columns import columns_of
from assay.reports.report import MetricReport
from assay.reports.spec import ExperimentSpec, MetricType, NeighbourSpec
from assay.stats import Mean, Moments, Phase, SampleRatio

#: Events that are looked at for what became of them.
LATEST_EVENTS = 25_000
#: Units, the latest of those that will do, that are looked at for what needs their events again.
COHORT = 10_000
#: An effect less surprising than this is not asked for its course, which costs a scan.
_WORTH_A_LOOK = 0.1
_DAY = 86_400_000_000
_HOUR = _DAY // 24
#: Days since the assignment that an effect is followed for, in steps, and how much longer it must have run.
_FEWEST_DAYS = 4
_MOST_DAYS = 14
_MOST_STEPS = 7
#: Experiments with so many units in common, and such a share, are told; those with the most are looked at.
FEWEST_SHARED = 100
SHARED = 0.01
MOST_MEETINGS = 2
#: The time before the assignment in which any event counts.
_BEFORE = 14 * _DAY
#: Metrics of which each step of time has its own; the others are about a course of time themselves.
_BY_STEP = frozenset(
    {
        MetricType.CONVERSION,
        MetricType.COUNT,
        MetricType.SUM,
        MetricType.REVENUE,
        MetricType.MEAN,
        MetricType.RATIO,
    }
)
#: Digits to which shares are the same split.
_SAME_SPLIT = 9


class Steps(NamedTuple):
    """One arm's units: the columns of each step of time in turn, and how many have something in each."""

    moments: Moments
    active: tuple[int, ...]

    def joined(self, other: "Steps") -> "Steps":
        """Both sets of units as one."""
        active = tuple(map(sum, zip(self.active, other.active, strict=True)))
        return Steps(self.moments + other.moments, active)


class Course(NamedTuple):
    """The primary metric of one set of units, step by step since their assignment.

    Each step is `length` microseconds long and has `width` columns: one for a mean, two for a ratio.
    """

    arms: Mapping[int, Steps]
    steps: int
    length: int
    width: int

    @property
    def units(self) -> int:
        """All units looked at."""
        return sum(arm.moments.count for arm in self.arms.values())


#: Units, and how many of them had an event before their assignment, by variant.
Before = Mapping[int, tuple[int, int]]


class Meeting(NamedTuple):
    """Another experiment that has units in common with this one.

    `cells` hold the primary metric's columns by the other's variant, for units of one split; None where it
    was not looked at, as others have more units in common.
    """

    other: NeighbourSpec
    units: int
    cells: Sequence[tuple[int, int, Moments]] | None
    """Variant here, variant there, and the units of both."""


class Evidence(NamedTuple):
    """All that checks may ask for, each part under the name by which they ask.

    `begin` is when the experiment started, or its first unit came where that was earlier (to the hour).
    `arrivals` are by the hour; `fates` are those of the latest events,
    `conflicts` the exposures with another variant than the unit's. `activated` is the sample ratio of the
    units that had the activation event, where the experiment has one; `before` is there where no metric looks
    back, `course` where the primary metric may have an effect, each of units of one split. `attributes` reads
    units by attributes of users, which costs too much where nothing is wrong.
    """

    spec: ExperimentSpec
    units: Mapping[int, int]
    metrics: Sequence[MetricReport]
    begin: datetime | None
    end: datetime
    arrivals: Sequence[Arrivals] = ()
    fates: Sequence[Fate] = ()
    repetitions: Repetitions = Repetitions(0, 0)
    conflicts: int = 0
    activated: SampleRatio | None = None
    before: Before | None = None
    course: Course | None = None
    meetings: Sequence[Meeting] = ()
    attributes: Callable[[], ByAttribute] = nothing_known


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
    begin = _begin(spec, arrivals)
    looked_back = any(_looks_back(report) for report in metrics)
    return Evidence(
        spec=spec,
        units=units,
        metrics=metrics,
        begin=begin,
        end=end,
        arrivals=arrivals,
        fates=store.fates(whole, LATEST_EVENTS),
        repetitions=store.repetitions(whole),
        conflicts=store.conflicts(whole),
        activated=activated,
        before=None if looked_back else _before(store, spec, whole, arrivals),
        course=_course(
            store, spec, replace(whole, activation=scope.activation), metrics, arrivals, begin, end
        ),
        meetings=_meetings(store, spec, replace(whole, activation=scope.activation), arrivals),
    )


def _meetings(
    store: EventStore, spec: ExperimentSpec, scope: Scope, arrivals: Sequence[Arrivals]
) -> list[Meeting]:
    """The experiments with units in common, the most first; those with the most are looked at."""
    metric, neighbours = spec.primary, {each.id: each for each in spec.neighbours}
    fewest = max(FEWEST_SHARED, SHARED * sum(row.units for row in arrivals))
    if metric is None or metric.type is MetricType.QUANTILE or not neighbours:
        return []
    shared = [each for each in store.overlaps(scope, sorted(neighbours)) if each.units >= fewest]
    value = value_of(metric)
    names = (value.column,) if isinstance(value, Mean) else (value.numerator, value.denominator)
    made = columns_of(metric, "m", metric.opens, metric.closes)
    columns = [replace(made[name], key=name) for name in names]
    found = []
    for place, each in enumerate(sorted(shared, key=lambda each: (-each.units, each.experiment_id))):
        cells = None
        if place < MOST_MEETINGS:
            beside = store.columns(scope, columns, [names], Beside(each.experiment_id))
            cells = [
                (cell.variant_id, int(cell.group), _steps(names, cell.blocks[names]).moments)
                for cell in _of_one_split(spec, [cell for cell in beside if cell.group is not None])
                if cell.group is not None
            ]
        found.append(Meeting(neighbours[each.experiment_id], each.units, cells))
    return found


def _looks_back(report: MetricReport) -> bool:
    tallies = (tally for by_phase in report.tallies.values() for tally in by_phase.values())
    return any(len(tally.moments.columns) > len(COLUMNS) for tally in tallies)


def _before(
    store: EventStore, spec: ExperimentSpec, scope: Scope, arrivals: Sequence[Arrivals]
) -> Before | None:
    """Who of the latest units had any event before the assignment."""
    if not arrivals:
        return None
    column = Column("any", Source("", (), -_BEFORE, 0), Fold.ANY)
    newest = arrivals[-1].bucket
    # Nothing that happened after the last of them came was before: the events since need not be read.
    until = newest + _HOUR if scope.until is None else min(newest + _HOUR, scope.until)
    recent = replace(scope, assigned_from=_since(arrivals, newest), until=until)
    found: dict[int, tuple[int, int]] = {}
    for cell in _of_one_split(spec, store.columns(recent, [column], [("any",)])):
        units, active = found.get(cell.variant_id, (0, 0))
        found[cell.variant_id] = (units + cell.units, active + cell.blocks["any",].nonzero[0])
    return found


def _course(
    store: EventStore,
    spec: ExperimentSpec,
    scope: Scope,
    metrics: Sequence[MetricReport],
    arrivals: Sequence[Arrivals],
    begin: datetime | None,
    end: datetime,
) -> Course | None:
    """The primary metric of the latest units observed long enough, if it seems to have an effect."""
    metric = spec.primary
    report = next((each for each in metrics if each.metric == metric), None)
    if metric is None or report is None or metric.type not in _BY_STEP or metric.opens or begin is None:
        return None
    p_values = [each.effect.p_value for each in report.comparisons]
    if not any(p is not None and p < _WORTH_A_LOOK for p in p_values):
        return None
    days = min(_MOST_DAYS, (end - begin) // timedelta(days=2), (metric.closes or _MOST_DAYS * _DAY) // _DAY)
    if days < _FEWEST_DAYS:
        return None
    steps = min(days, _MOST_STEPS)
    length = days * _DAY // steps
    until = min(micros(end), scope.until) if scope.until is not None else micros(end)
    observed = replace(
        scope,
        until=until,
        observed_for=days * _DAY,
        assigned_from=_since(arrivals, until - days * _DAY),
    )
    value = value_of(metric)
    names = (value.column,) if isinstance(value, Mean) else (value.numerator, value.denominator)
    columns = []
    for step in range(steps):
        made = columns_of(metric, f"{step}", step * length, (step + 1) * length)
        columns += [made[name] for name in names]
    block = tuple(column.key for column in columns)
    arms: dict[int, Steps] = {}
    for cell in _of_one_split(spec, store.columns(observed, columns, [block])):
        own, known = _steps(block, cell.blocks[block]), arms.get(cell.variant_id)
        arms[cell.variant_id] = own if known is None else known.joined(own)
    return Course(arms, steps, length, len(names))


def _steps(block: Block, found: BlockMoments) -> Steps:
    pairs = {
        (x, y): found.covariance[i][j] for i, x in enumerate(block) for j, y in enumerate(block) if i <= j
    }
    means = dict(zip(block, found.means, strict=True))
    return Steps(Moments.from_centred(found.count, means, pairs), found.nonzero)


def _since(arrivals: Sequence[Arrivals], until: int) -> int:
    """From when on enough units were assigned, up to a time."""
    units, since = 0, until
    for row in reversed(arrivals):
        if row.bucket <= until:
            units, since = units + row.units, row.bucket
            if units >= COHORT:
                break
    return since


def _of_one_split(spec: ExperimentSpec, cells: Sequence[Cell]) -> list[Cell]:
    """The cells of that split under which most units came: arms are comparable within a split only."""
    by_weights: dict[tuple[float, ...], list[Cell]] = {}
    for cell in cells:
        weights = tuple(round(weight, _SAME_SPLIT) for weight in spec.weights(cell.phase))
        by_weights.setdefault(weights, []).append(cell)
    return max(by_weights.values(), key=lambda some: sum(cell.units for cell in some), default=[])


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
