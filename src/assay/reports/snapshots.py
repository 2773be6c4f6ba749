"""Reports that are kept while nothing new has come, and computed once however many ask for one.

A kept report is an answer for as long as the experiment's picture, the question and the store's watermark are
those it was made from: whoever sends an event and then asks has moved the watermark, and sees the event. The
time is part of the answer, too, so a report on something that goes on is made anew when it is a minute old.

Those who ask for the same while it is being computed wait for it. If something new has come since it was
begun, they wait for the next one, which one of them begins and all of them share. So a question is computed
by one thread at a time, whatever the traffic, and nobody gets an answer from before they asked.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, TypeVar

import msgspec

from assay.catalog.database import Database, catalog_version
from assay.durable.priority import give_way
from assay.errors import AssayError
from assay.eventstore.base import Bucket, EventStore, SeriesPoint, Watermark
from assay.reports.arms import measure_of
from assay.reports.audience import Audience, ByAttribute, changed, read_attributes, read_audience
from assay.reports.build import build, scope_of
from assay.reports.picture import read_spec
from assay.reports.question import Grain, Question
from assay.reports.report import Report, Trend
from assay.reports.spec import ExperimentSpec, MetricSpec
from assay.reports.trend import trend
from assay.reports.views.canonical import canonical

#: Most reports kept, and most bytes they may take by estimate.
_MOST: Final = 256
_MOST_BYTES: Final = 64 * 1024 * 1024
#: What one arm or one comparison takes in memory, and one row of a series, roughly.
_ARM_BYTES, _ROW_BYTES = 6_000, 250

V = TypeVar("V")


class Snapshot:
    """A report as it stood at one moment, with what was cut from it since."""

    def __init__(self, report: Report, mark: Watermark, begun: int, users: int = 0) -> None:
        self.report = report
        self.mark = mark
        #: Where the catalog's users and segments stood, where the report depends on them.
        self.users = users
        #: Its place among all computations: it holds everything acknowledged before.
        self.begun = begun
        self.size = _size(report)
        self._lock = threading.RLock()
        self._made: dict[Hashable, Any] = {}

    def kept(self, name: Hashable, make: Callable[[], V]) -> V:
        """What `make` gives, made once; others who ask for it meanwhile wait."""
        with self._lock:
            if name not in self._made:
                made = make()
                self.size += len(made) if isinstance(made, bytes) else _ARM_BYTES
                self._made[name] = made
            found: V = self._made[name]
            return found

    @property
    def document(self) -> bytes:
        """The complete report as JSON."""
        return self.kept(canonical, lambda: msgspec.json.encode(canonical(self.report)))

    def age(self, now: datetime) -> timedelta:
        """How long ago it was computed."""
        return max(now - self.report.computed_at, timedelta(0))


@dataclass
class Counted:
    """What became of those who asked: given what was kept, waited for another, or computed."""

    hits: int = 0
    waits: int = 0
    misses: int = 0


@dataclass
class _Flight:
    """Those who ask for one report that is not there. `failed` is the latest computation that did."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    failed: tuple[int, AssayError] | None = None


_Name = tuple[int, Question]


class Snapshots:
    """The reports that one process keeps. Safe to share between threads; any method may wait for the stores.

    `flush` returns once everything acknowledged before the call can be read from `store`. `max_age` is how
    old a report on something that goes on may be when nothing new has come: its days and rates move on.
    `analysed` hears of each report that was computed, and the seconds it took.
    """

    def __init__(
        self,
        database: Database,
        store: EventStore,
        flush: Callable[[], None],
        max_age: timedelta = timedelta(minutes=1),
        analysed: Callable[[Report, float], None] = lambda _report, _seconds: None,
    ) -> None:
        self._database = database
        self._store = store
        self._flush = flush
        self._analysed = analysed
        self.max_age = max_age
        self.counted = Counted()
        self._lock = threading.Lock()
        self._ticks = count(1)
        self._kept: OrderedDict[_Name, Snapshot] = OrderedDict()
        self._epoch: int | None = None
        self._flights: dict[_Name, _Flight] = {}
        self._version = -1
        self._specs: dict[int | str, ExperimentSpec] = {}

    def get(
        self, reference: int | str, question: Question, now: datetime, *, max_age: timedelta | None = None
    ) -> Snapshot:
        """The report on everything acknowledged before the call; with `max_age`, one that old will do.

        Raises `NotFound`, `Invalid` for a question that the experiment cannot be asked, and `Unavailable`.
        """
        arrived = next(self._ticks)
        if max_age is None:
            self._flush()
        spec, mark, users = self.spec(reference), self._watermark(), self._users(question)
        kept = self._find(spec, question, mark, now, max_age, users)
        if kept is not None:
            with self._lock:
                self.counted.hits += 1
            return kept
        return self._computed(
            (spec.id, question), now, arrived, lambda: self._find(spec, question, mark, now, max_age, users)
        )

    def anew(self, reference: int | str, question: Question, now: datetime) -> Snapshot:
        """The same, computed after the call. Raises the same."""
        arrived = next(self._ticks)
        return self._computed((self.spec(reference).id, question), now, arrived, lambda: None)

    def found(
        self, reference: int | str, question: Question, now: datetime, max_age: timedelta
    ) -> Snapshot | None:
        """What is kept and not older than that, if anything is. Raises `NotFound` and `Unavailable`."""
        spec, mark, users = self.spec(reference), self._watermark(), self._users(question)
        return self._find(spec, question, mark, now, max_age, users)

    def trend(self, of: Snapshot, metric: MetricSpec, grain: Grain) -> Trend:
        """The effect over time that belongs to a report. Raises `Unavailable`."""
        return of.kept(("trend", metric, grain), lambda: trend(self._store, of.report, metric, grain))

    def activity(self, of: Snapshot, metric: MetricSpec, grain: Grain) -> list[SeriesPoint]:
        """Who came and what they did in each stretch, for a report. Raises `Unavailable`."""
        scope = scope_of(of.report.spec, of.report.question, of.report.members)
        return of.kept(
            ("activity", metric, grain),
            lambda: self._store.series(scope, measure_of(metric), Bucket(grain)),
        )

    def spec(self, reference: int | str) -> ExperimentSpec:
        """The picture of an experiment as it is now. Raises `NotFound` and `Unavailable`."""
        version = self._database.version()
        with self._lock:
            known = self._specs.get(reference) if version == self._version else None
        if known is not None:
            return known
        with self._database.reading() as tx:
            version = catalog_version(tx)
            spec = read_spec(tx, reference)
        with self._lock:
            if version > self._version:
                self._version = version
                self._specs.clear()
            if version == self._version and len(self._specs) < _MOST:
                self._specs[reference] = spec
        return spec

    def _watermark(self) -> Watermark:
        """Where the store stands; what is kept from before a removal goes."""
        mark = self._store.watermark()
        with self._lock:
            if mark.epoch != self._epoch:
                for name in [name for name, each in self._kept.items() if each.mark.epoch < mark.epoch]:
                    del self._kept[name]
                self._epoch = mark.epoch
        return mark

    def _find(
        self,
        spec: ExperimentSpec,
        question: Question,
        mark: Watermark,
        now: datetime,
        max_age: timedelta | None,
        users: int,
    ) -> Snapshot | None:
        name = (spec.id, question)
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.report.spec != spec or kept.mark.epoch != mark.epoch:
                return None
            self._kept.move_to_end(name)
        # A clock that was put back must not make what was computed after it good for ever.
        age = abs(now - kept.report.computed_at)
        if max_age is not None:
            return kept if age <= max_age else None
        if not kept.mark.settled or kept.mark.mark != mark.mark or kept.users != users:
            return None
        return kept if age <= self.max_age or kept.report.end < kept.report.computed_at else None

    def _computed(
        self, name: _Name, now: datetime, arrived: int, find: Callable[[], Snapshot | None]
    ) -> Snapshot:
        """A report begun after `arrived`, by whoever comes first; or an earlier one that `find` finds now."""
        with self._flight(name) as flight, flight.lock:
            with self._lock:
                kept = self._kept.get(name)
            if kept is None or kept.begun <= arrived:
                kept = find()
            if kept is not None:
                with self._lock:
                    self.counted.waits += 1
                return kept
            if flight.failed is not None and flight.failed[0] > arrived:
                raise flight.failed[1]
            begun = next(self._ticks)
            try:
                made = self._made(name, now, begun)
            except AssayError as error:
                flight.failed = (begun, error)
                raise
            self._keep(name, made)
            return made

    def _made(self, name: _Name, now: datetime, begun: int) -> Snapshot:
        give_way()  # a report may take seconds of all cores, an assignment takes microseconds of one
        experiment_id, question = name
        spec = self.spec(experiment_id)
        # First the mark, then the wait: a replica that is read from may still lack what the mark stands for.
        mark, users = self._watermark(), self._users(question)
        self._flush()
        started = time.perf_counter()
        report = build(self._store, spec, question, now, self._audience(spec, question))
        self._analysed(report, time.perf_counter() - started)
        return Snapshot(report, mark, begun, users)

    def _users(self, question: Question) -> int:
        """Where users and segments stand, if the question depends on them."""
        if not question.looks_at_users:
            return 0
        with self._database.reading() as tx:
            return changed(tx)

    def _audience(self, spec: ExperimentSpec, question: Question) -> Audience:
        found = Audience()
        if question.looks_at_users:
            with self._database.reading() as tx:
                found = read_audience(tx, spec, question)
        if question.segment is not None:
            return found

        def attributes() -> ByAttribute:
            with self._database.reading() as tx:
                return read_attributes(tx, spec, question.end)

        return found._replace(attributes=attributes)

    def _keep(self, name: _Name, made: Snapshot) -> None:
        with self._lock:
            self.counted.misses += 1
            self._kept[name] = made
            self._kept.move_to_end(name)
            size = sum(each.size for each in self._kept.values())
            while len(self._kept) > _MOST or (size > _MOST_BYTES and len(self._kept) > 1):
                size -= self._kept.popitem(last=False)[1].size

    @contextmanager
    def _flight(self, name: _Name) -> Iterator[_Flight]:
        with self._lock:
            flight = self._flights.setdefault(name, _Flight())
            flight.waiting += 1
        try:
            yield flight
        finally:
            with self._lock:
                flight.waiting -= 1
                if not flight.waiting:
                    del self._flights[name]


def _size(report: Report) -> int:
    """Bytes that a report takes, roughly; the picture of the experiment is shared by all of its reports."""
    metrics = [*report.metrics, report.primary, report.conversion]
    parts = sum(len(each.arms) + len(each.comparisons) + len(each.tallies) for each in metrics)
    parts += sum(len(gate.effects) for by in report.dimensions for each in by.metrics for gate in each.gates)
    listed = 0 if report.members is None else len(report.members.text)
    return _ARM_BYTES * (1 + parts) + _ROW_BYTES * (len(report.series) + len(report.counts)) + listed
