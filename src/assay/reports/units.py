"""One row for each unit: what it was given, and its numbers in each metric.

The numbers are those that the report's moments are made of. Whoever has the rows can compute the report.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from assay.events.timestamps import micros
from assay.eventstore.base import EventStore, Scope
from assay.eventstore.columns import UnitValues
from assay.reports.build import scope_of
from assay.reports.columns import observed_for, unit_columns
from assay.reports.report import MetricReport, Report
from assay.reports.spec import CapSpec, MetricSpec

#: Units read from a store at once; each page is a question of its own.
PAGE = 50_000


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit and its numbers by metric; a metric that leaves the unit out is not there."""

    unit: UnitValues
    numbers: Mapping[MetricSpec, tuple[float, ...]]


@dataclass(frozen=True)
class UnitTable:
    """Which numbers of which metrics are wanted of the units of a scope.

    `caps` are the values that amounts are pulled in to; `before` says whether metrics that look back get the
    columns of the time before the assignment. `until` (µs) is the end of what is reported on.
    """

    scope: Scope
    metrics: tuple[MetricSpec, ...]
    caps: Mapping[MetricSpec, CapSpec]
    until: int
    before: bool

    @property
    def columns(self) -> dict[MetricSpec, tuple[str, ...]]:
        """The names of each metric's numbers."""
        return {
            metric: tuple(unit_columns(metric, "", self.caps.get(metric), before=self.before))
            for metric in self.metrics
        }

    def rows(self, store: EventStore) -> Iterator[UnitRow]:
        """All units in the order in which they came; asked for page by page, as the store stands then."""
        after = 0
        while page := self._page(store, after):
            yield from page
            after = page[-1].unit.unit

    @classmethod
    def of(cls, report: Report, metrics: Iterable[MetricReport]) -> "UnitTable":
        """The units that a report is about, with the numbers of these of its metrics."""
        chosen = tuple(metrics)
        caps = {
            each.metric: tally.cap
            for each in chosen
            for by_phase in each.tallies.values()
            for tally in by_phase.values()
            if tally.cap is not None
        }
        return cls(
            scope_of(report.spec, report.question, report.members),
            tuple(each.metric for each in chosen),
            caps,
            micros(report.end),
            report.spec.analysis.cuped,
        )

    def _page(self, store: EventStore, after: int) -> list[UnitRow]:
        spans: dict[int, list[MetricSpec]] = {0: []}
        for metric in self.metrics:
            spans.setdefault(metric.closes or 0 if metric.complete_only else 0, []).append(metric)
        units: dict[int, UnitValues] = {}
        numbers: dict[int, dict[MetricSpec, tuple[float, ...]]] = {}
        with store.one_moment():
            for span, metrics in spans.items():
                for unit, found in self._of_span(store, span, metrics, after):
                    units.setdefault(unit.unit, unit)
                    numbers.setdefault(unit.unit, {}).update(found)
                if not span:
                    # Those of longer spans are among them; a page of those may reach further.
                    last = max(units, default=after)
        return [UnitRow(units[unit], numbers[unit]) for unit in sorted(units) if unit <= last]

    def _of_span(
        self, store: EventStore, span: int, metrics: Sequence[MetricSpec], after: int
    ) -> Iterator[tuple[UnitValues, dict[MetricSpec, tuple[float, ...]]]]:
        named = {
            metric: unit_columns(metric, str(place), self.caps.get(metric), before=self.before)
            for place, metric in enumerate(metrics)
        }
        every = [column for columns in named.values() for column in columns.values()]
        scope = observed_for(self.scope, span, self.until)
        for unit in store.unit_values(scope, every, PAGE, after):
            values = iter(unit.values)
            yield unit, {metric: tuple(next(values) for _ in columns) for metric, columns in named.items()}
