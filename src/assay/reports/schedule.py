"""What reports are made of by themselves: past ones for the history, looks when due, and for breakers.

One experiment at a time, by one process, in a thread that gives way to everything else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from sqlalchemy import select

from assay.bucketing.ruleset import Status
from assay.catalog import snapshots as past
from assay.catalog.database import Database
from assay.catalog.lifecycle import SCHEDULE
from assay.catalog.tables import Experiment
from assay.errors import AssayError
from assay.reports import bandit, breaker, history, looks
from assay.reports.question import Question
from assay.reports.snapshots import Snapshots

_log = structlog.get_logger("assay.reports")

#: How often units are counted for looks that are planned by them, where no report is made by itself.
_COUNTED: Final = timedelta(hours=1)
#: After a look that could not be made, or found nothing new, until the next attempt.
_AGAIN: Final = timedelta(hours=1)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass
class Done:
    """What the schedule has done: reports kept, looks made, breakers tripped, bandits re-weighted."""

    reports: int = 0
    looks: int = 0
    trips: int = 0
    splits: int = 0


class _Row(NamedTuple):
    id: int
    status: str
    started_at: datetime
    sequential: bool
    guarded: bool
    bandit: bool


class Schedule:
    """Keeps the reports of running experiments up to date, every `refresh` (None: never), for `days` days.

    Those that have a circuit breaker are looked at every `watch`.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        database: Database,
        refresh: timedelta | None,
        days: int,
        watch: timedelta = timedelta(minutes=1),
    ) -> None:
        self._snapshots = snapshots
        self._database = database
        self._refresh = refresh
        self._days = days
        self._watch = watch
        self._watched: dict[int, datetime] = {}
        self._next_try: dict[int, datetime] = {}
        self._counted: dict[int, tuple[datetime, int]] = {}
        self.done = Done()

    def run(self, clock: Callable[[], datetime], go_on: Callable[[], bool]) -> None:
        """Do what is due, as long as `go_on` says so. Raises `Unavailable` if the catalog cannot be read."""
        # Breakers first: they must not wait for the reports of everything else.
        for row in sorted(self._rows(), key=lambda row: not row.guarded):
            if not go_on():
                return
            try:
                self._one(row, clock())
            except AssayError as error:
                _log.warning("schedule.report_failed", experiment_id=row.id, reason=error.detail)
            except Exception:  # noqa: BLE001 - logged; the other experiments have theirs
                _log.exception("schedule.report_failed", experiment_id=row.id)

    def _rows(self) -> list[_Row]:
        columns = select(
            Experiment.id,
            Experiment.status,
            Experiment.started_at,
            Experiment.analysis,
            Experiment.breaker.is_not(None),
        )
        wanted = columns.where(Experiment.status.in_([Status.RUNNING, Status.STOPPED]))
        with self._database.reading() as tx:
            return [
                _Row(
                    number,
                    status,
                    started_at,
                    analysis.get("method") in looks.METHODS,
                    guarded,
                    analysis.get("method") == "bandit",
                )
                for number, status, started_at, analysis, guarded in tx.execute(
                    wanted.order_by(Experiment.id)
                )
                if started_at is not None
            ]

    def _one(self, row: _Row, now: datetime) -> None:
        if row.guarded and row.status == Status.RUNNING and self._tripped(row, now):
            return
        if row.bandit and row.status == Status.RUNNING:
            self._reweighted(row, now)
        units = None
        if row.status == Status.RUNNING:
            units = self._refreshed(row, now)
        if row.sequential and now >= self._next_try.get(row.id, now):
            self._look(row, units, now)

    def _tripped(self, row: _Row, now: datetime) -> bool:
        """Look at the guardrails if it is time; whether the circuit breaker tripped."""
        last = self._watched.get(row.id)
        if last is not None and timedelta(0) <= now - last < self._watch:
            return False
        self._watched[row.id] = now
        snapshot = self._snapshots.get(row.id, Question(), now)
        if not breaker.look(self._database, snapshot, now):
            return False
        self.done.trips += 1
        _log.warning("experiment.circuit_breaker", experiment_id=row.id)
        history.keep(self._database, snapshot, "breaker", now, self._days)
        return True

    def _reweighted(self, row: _Row, now: datetime) -> None:
        """Deal a bandit's next units anew if it is time."""
        if bandit.due(self._snapshots.spec(row.id), now):
            snapshot = self._snapshots.get(row.id, Question(), now)
            self.done.splits += bandit.reweight(self._database, snapshot.report, now)

    def _refreshed(self, row: _Row, now: datetime) -> int | None:
        """Compute and keep a report if it is time; the units that the newest has found, if there is one."""
        period = self._refresh
        with self._database.reading() as tx:
            newest = past.newest(tx, row.id)
        newest = max(filter(None, (newest, self._counted.get(row.id))), default=None)
        since = row.started_at if newest is None else newest[0]
        wanted = period or (_COUNTED if row.sequential else None)
        if wanted is None or now - since < wanted:
            return None if newest is None else newest[1]
        snapshot = self._snapshots.anew(row.id, Question(), now)
        units = sum(snapshot.report.units.values())
        self._counted[row.id] = (now, units)
        if period is not None and history.keep(
            self._database, snapshot, "schedule", now, self._days, apart=period / 2
        ):
            self.done.reports += 1
        return units

    def _look(self, row: _Row, units: int | None, now: datetime) -> None:
        spec = self._snapshots.spec(row.id)
        if not looks.due(spec, units or 0, now):
            if row.status == Status.STOPPED:
                self._next_try[row.id] = _NEVER
            return
        self._next_try[row.id] = now + _AGAIN
        made = history.look(self._snapshots, self._database, row.id, SCHEDULE, now, self._days)
        if made.new:
            del self._next_try[row.id]
            self.done.looks += 1
