"""The questions of `EventStore`, the same for every engine that understands our statements."""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from assay.eventstore import cells, listing, questions, trust
from assay.eventstore.base import (
    Arm,
    Arrivals,
    Bucket,
    Cursor,
    EventCount,
    EventFilter,
    Fate,
    LedgerEntry,
    Measure,
    Overlap,
    Repetitions,
    Scope,
    SeriesPoint,
    Statement,
    StoredEvent,
)
from assay.eventstore.columns import Beside, Block, Cell, Column, Quantile, QuantileArm, UnitList, UnitValues
from assay.eventstore.dialects import Engine


class _Noted(threading.local):
    """What the thread that is asking wants noted."""

    statements: list[Statement] | None = None


class Asking(ABC):
    """A store's answers, given its engine and how it holds a moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._noted = _Noted()

    @abstractmethod
    def one_moment(self) -> AbstractContextManager[None]:
        """See `EventStore`."""

    def moments(self, scope: Scope, measures: Sequence[Measure]) -> list[Arm]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.moments(self._engine, scope, measures)

    def columns(
        self,
        scope: Scope,
        columns: Sequence[Column],
        blocks: Sequence[Block],
        groups: Mapping[str, UnitList] | Beside | None = None,
    ) -> list[Cell]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.columns(self._engine, scope, columns, blocks, groups)

    def percentiles(
        self, scope: Scope, columns: Sequence[Column], levels: Sequence[float]
    ) -> dict[str, tuple[float | None, ...]]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.percentiles(self._engine, scope, columns, levels)

    def quantiles(
        self, scope: Scope, asked: Sequence[Quantile], strata: Mapping[int, int] | None = None
    ) -> list[QuantileArm]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.quantiles(self._engine, scope, asked, strata)

    def unit_values(
        self, scope: Scope, columns: Sequence[Column], limit: int, after: int = 0
    ) -> list[UnitValues]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.unit_values(self._engine, scope, columns, limit, after)

    def event_counts(self, scope: Scope) -> list[EventCount]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.event_counts(self._engine, scope)

    def series(self, scope: Scope, measure: Measure, by: Bucket) -> list[SeriesPoint]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.series(self._engine, scope, measure, by)

    def arrivals(self, scope: Scope, by: Bucket) -> list[Arrivals]:
        """See `EventStore`."""
        with self.one_moment():
            return trust.arrivals(self._engine, scope, by)

    def fates(self, scope: Scope, latest: int) -> list[Fate]:
        """See `EventStore`."""
        with self.one_moment():
            return trust.fates(self._engine, scope, latest)

    def repetitions(self, scope: Scope) -> Repetitions:
        """See `EventStore`."""
        with self.one_moment():
            return trust.repetitions(self._engine, scope)

    def conflicts(self, scope: Scope) -> int:
        """See `EventStore`."""
        with self.one_moment():
            return trust.conflicts(self._engine, scope)

    def overlaps(self, scope: Scope, others: Sequence[int]) -> list[Overlap]:
        """See `EventStore`."""
        with self.one_moment():
            return trust.overlaps(self._engine, scope, others)

    def ledger(self, scope: Scope, types: Sequence[str] = ()) -> list[LedgerEntry]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.ledger(self._engine, scope, types)

    def events(
        self, which: EventFilter, limit: int, after: Cursor | None = None
    ) -> tuple[list[StoredEvent], Cursor | None]:
        """See `EventStore`."""
        return listing.events(self._engine, which, limit, after)

    def event(self, event_id: str, user_id: str | None = None) -> StoredEvent | None:
        """See `EventStore`."""
        return listing.event(self._engine, event_id, user_id)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[Statement]]:
        """See `EventStore`."""
        before, statements = self._noted.statements, list[Statement]()
        self._noted.statements = statements
        try:
            yield statements
        finally:
            self._noted.statements = before

    def _record(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Note a statement that is about to be asked, where somebody wants to know."""
        if self._noted.statements is not None:
            self._noted.statements.append(Statement(statement, parameters))
