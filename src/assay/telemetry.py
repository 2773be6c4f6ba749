"""Our own operational numbers and logs. (The word *metric* belongs to experiments.)

Counters on the hot path are plain dictionaries, an increment each; they become Prometheus series only
when somebody scrapes. Labels that callers can invent are bounded: past the bound they count as `other`.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

if "structlog" not in sys.modules and "rich" not in sys.modules:
    # It would load rich, 7 MiB of an idle server, for tracebacks in colours that nobody asks for here.
    sys.modules["rich"] = None  # type: ignore[assignment] # that is how one says: not there
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]

import structlog
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

K = TypeVar("K", bound=Hashable)

#: Most label combinations of one series, whatever callers send.
MAX_SERIES = 1000
OTHER = "other"
#: Gauges of which each worker has a part. Of the others, which show what all see, the largest stands for all.
ADDED_GAUGES = frozenset({"assay_waiting_requests", "assay_waiting_rows", "assay_cache_entries"})


class Counts(Generic[K]):
    """Counts by label values, of which at most `limit` are kept apart; the rest add up in `overflow`."""

    __slots__ = ("_counts", "limit", "overflow")

    def __init__(self, limit: int = MAX_SERIES) -> None:
        self._counts: dict[K, int] = {}
        self.limit = limit
        self.overflow = 0

    def add(self, key: K, amount: int = 1) -> None:
        """Count `amount` more for `key`."""
        counts = self._counts
        if key in counts:
            counts[key] += amount
        elif len(counts) < self.limit:
            counts[key] = amount
        else:
            self.overflow += amount

    def items(self) -> Iterable[tuple[K, int]]:
        """What was counted, as of now."""
        return list(self._counts.items())


class Telemetry:
    """The process's counters, gauges and histograms.

    `watch` registers a gauge that is read when scraped. `variant_name` maps (experiment id, variant
    id) to the variant's key for labels.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.assignments: Counts[tuple[int, int]] = Counts()
        self.events: Counts[tuple[int | None, int | None, str]] = Counts()
        self.rejected_events: Counts[str] = Counts(100)
        self.significant: Counts[int] = Counts()
        #: Answers on the hot path by route and status; the hot path counts in it directly.
        self.answered: dict[tuple[str, int], int] = {}
        self.statuses: Callable[[], dict[str, int]] = dict
        self.variant_key: Callable[[int, int], str] = lambda _, variant: str(variant)
        #: Snapshots of the other workers, each with whether it lives; None where there is only one.
        self.others: Callable[[], Iterable[tuple[bytes, bool]]] | None = None
        self._inherited: list[_Family] = []
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._counters: list[tuple[str, str, Callable[[], float]]] = []
        self._analysed: set[int] = set()
        self._significant: set[int] = set()
        self._registry = CollectorRegistry()
        self._durations = Histogram(
            "experimentation_analysis_duration_seconds",
            "Time taken to compute one report, in seconds.",
            ["experiment_id"],
            registry=self._registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self._registry.register(self)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge read at scrape time; what is true or false is 1 or 0."""
        self._gauges.append((name, text, read))

    def count(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter read at scrape time; `name` ends in `_total`."""
        self._counters.append((name, text, read))

    def analysed(self, experiment_id: int, seconds: float, *, significant: bool) -> None:
        """Note one computed report."""
        if len(self._analysed) < MAX_SERIES or experiment_id in self._analysed:
            self._analysed.add(experiment_id)
            self._durations.labels(str(experiment_id)).observe(seconds)
        else:
            self._durations.labels(OTHER).observe(seconds)
        if significant and experiment_id not in self._significant:
            self.significant.add(experiment_id)
        (self._significant.add if significant else self._significant.discard)(experiment_id)

    def collect(self) -> Iterator[Metric]:
        """The series, as the Prometheus client wants them."""
        statuses = self.statuses()
        total = GaugeMetricFamily(
            "experimentation_experiments_total", "Experiments by status.", labels=["status"]
        )
        for status, number in sorted(statuses.items()):
            total.add_metric([status], number)
        yield total
        yield GaugeMetricFamily(
            "experimentation_experiments_active", "Experiments running now.", value=statuses.get("running", 0)
        )
        yield self._family(
            "experimentation_variant_assignments_total",
            "New assignments made by this process.",
            ["experiment_id", "variant"],
            (([str(e), self.variant_key(e, v)], number) for (e, v), number in self.assignments.items()),
            self.assignments.overflow,
        )
        yield self._family(
            "experimentation_events_total",
            "Events accepted by this process; experiment and variant are empty where the event names none.",
            ["experiment_id", "variant", "event_name"],
            (
                (
                    [str(e or ""), "" if e is None or v is None else self.variant_key(e, v), name],
                    number,
                )
                for (e, v, name), number in self.events.items()
            ),
            self.events.overflow,
        )
        yield self._family(
            "experimentation_significant_results_total",
            "Times that an experiment's primary comparison became significant.",
            ["experiment_id"],
            (([str(e)], number) for e, number in self.significant.items()),
            self.significant.overflow,
        )
        yield self._family(
            "assay_events_rejected_total",
            "Events refused, by code.",
            ["code"],
            (([code], number) for code, number in self.rejected_events.items()),
            self.rejected_events.overflow,
        )
        yield self._family(
            "assay_hot_requests_total",
            "Answers on the hot path, by route and status.",
            ["route", "status"],
            (([route, str(status)], number) for (route, status), number in list(self.answered.items())),
            0,
        )
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, value=float(read()))
        for name, text, read in self._counters:
            yield CounterMetricFamily(name, text, value=float(read()))

    @staticmethod
    def _family(
        name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], int]], overflow: int
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=labels)
        merged: dict[tuple[str, ...], int] = {}
        for values, number in rows:
            merged[tuple(values)] = merged.get(tuple(values), 0) + number
        for key, number in merged.items():
            family.add_metric(list(key), number)
        if overflow:
            family.add_metric([OTHER] * len(labels), overflow)
        return family

    def exposition(self) -> bytes:
        """The Prometheus text format; of all workers together, where there are several."""
        if self.others is None:
            return generate_latest(self._registry)
        families = _Families()
        families.add(_read(self.snapshot()), gauges=True)
        for snapshot, alive in self.others():
            families.add(_read(snapshot), gauges=alive)
        return generate_latest(families)

    def snapshot(self) -> bytes:
        """What this process has counted, with what those before it in its place had, for its siblings."""
        families = _Families()
        families.add(
            [
                (
                    each.name,
                    each.documentation,
                    each.type,
                    [(s.name, s.labels, s.value) for s in each.samples],
                )
                for each in self._registry.collect()
            ],
            gauges=True,
        )
        families.add(self._inherited, gauges=False)
        return msgspec.json.encode(families.plain())

    def inherit(self, snapshot: bytes) -> None:
        """Go on counting where another process has ended: a scraper must not see its counters shrink."""
        self._inherited = _read(snapshot)


#: Name, text, type, and samples of name, labels and value.
_Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]


def _read(snapshot: bytes) -> list[_Family]:
    return msgspec.json.decode(snapshot, type=list[_Family]) if snapshot else []


class _Families:
    """Series of several processes added up; gauges that all of them show alike stand for all."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, str]] = {}
        self._samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}

    def add(self, families: Iterable[_Family], *, gauges: bool) -> None:
        """Add one process's series; without `gauges`, what it has counted only."""
        for name, text, kind, samples in families:
            if kind == "gauge" and not gauges:
                continue
            self._kinds.setdefault(name, (text, kind))
            known = self._samples.setdefault(name, {})
            alike = kind == "gauge" and name not in ADDED_GAUGES
            for sample, labels, value in samples:
                key = (sample, tuple(sorted(labels.items())))
                before = known.get(key)
                known[key] = value if before is None else max(before, value) if alike else before + value

    def plain(self) -> list[_Family]:
        """All of them."""
        return [
            (
                name,
                *self._kinds[name],
                [(sample, dict(labels), value) for (sample, labels), value in rows.items()],
            )
            for name, rows in self._samples.items()
        ]

    def collect(self) -> Iterator[Metric]:
        """All of them, as the Prometheus client wants them."""
        for name, text, kind, samples in self.plain():
            family = Metric(name, text, kind)
            for sample, labels, value in samples:
                family.add_sample(sample, labels, value)
            yield family


def configure_logging(level: str, form: str) -> None:
    """Structured logs on standard error: readable on a terminal, JSON lines elsewhere."""
    readable = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the frames' local variables: among them are callers' keys.
    quiet = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    tail: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if readable
        else [structlog.processors.ExceptionRenderer(quiet), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
