"""Reports kept for a little while, so that a page that is looked at again, or by many, costs one reading."""

import threading
import time
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from assay.dashboard.parts import Parts
from assay.eventstore.base import Bucket, SeriesPoint
from assay.reports.arms import measure_of
from assay.reports.build import build, scope_of
from assay.reports.picture import read_spec
from assay.reports.question import Grain, Question
from assay.reports.report import MetricReport, Report, Trend
from assay.reports.spec import ExperimentSpec
from assay.reports.trend import trend

#: How old a kept report may be before it is made anew without being asked.
FRESH: Final = timedelta(minutes=1)
_MOST: Final = 256

K = TypeVar("K")
V = TypeVar("V")


class _Name(NamedTuple):
    """What a kept answer is an answer to: another picture of the experiment asks another question."""

    spec: ExperimentSpec
    question: Question


class Shelf:
    """The reports of one process. Safe to share between threads; two that ask at once may both compute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Name, Report] = OrderedDict()
        self._trends: OrderedDict[tuple[_Name, str, str, datetime], Trend] = OrderedDict()
        self._activity: OrderedDict[tuple[_Name, str, str, datetime], list[SeriesPoint]] = OrderedDict()

    def found(self, parts: Parts, reference: str, now: datetime) -> Report | None:
        """The kept report of an experiment, if it is fresh enough."""
        with parts.database.reading() as tx:
            spec = read_spec(tx, reference)
        return self._fresh(_Name(spec, Question()), now)

    def report(self, parts: Parts, reference: str, now: datetime, *, anew: bool = False) -> Report:
        """The report of an experiment: kept, or made `anew`. Raises `NotFound`, `Unavailable`."""
        with parts.database.reading() as tx:
            spec = read_spec(tx, reference)
        name = _Name(spec, Question())
        kept = None if anew else self._fresh(name, now)
        if kept is not None:
            return kept
        parts.flush()
        begun = time.perf_counter()
        made = build(parts.store, spec, name.question, now)
        parts.analysed(made, time.perf_counter() - begun)
        with self._lock:
            _keep(self._kept, name, made)
        return made

    def trend(self, parts: Parts, report: Report, metric: MetricReport, grain: Grain) -> Trend:
        """The effect over time that belongs to a report."""
        name = (_Name(report.spec, report.question), metric.metric.key, grain, report.computed_at)
        with self._lock:
            kept = self._trends.get(name)
        if kept is None:
            kept = trend(parts.store, report, metric.metric, grain)
            with self._lock:
                _keep(self._trends, name, kept)
        return kept

    def activity(self, parts: Parts, report: Report, metric: MetricReport, grain: Grain) -> list[SeriesPoint]:
        """Who came and what they did in each stretch, as of the report."""
        name = (_Name(report.spec, report.question), metric.metric.key, grain, report.computed_at)
        with self._lock:
            kept = self._activity.get(name)
        if kept is None:
            scope = scope_of(report.spec, report.question)
            kept = parts.store.series(scope, measure_of(metric.metric), Bucket(grain))
            with self._lock:
                _keep(self._activity, name, kept)
        return kept

    def _fresh(self, name: _Name, now: datetime) -> Report | None:
        with self._lock:
            kept = self._kept.get(name)
        return kept if kept is not None and abs(now - kept.computed_at) <= FRESH else None


def _keep(shelf: OrderedDict[K, V], name: K, value: V) -> None:
    shelf[name] = value
    shelf.move_to_end(name)
    while len(shelf) > _MOST:
        shelf.popitem(last=False)
