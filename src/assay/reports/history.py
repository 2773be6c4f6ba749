"""Past reports: those that the schedule, a look or an explicit call has made, as they stood."""

from datetime import datetime, timedelta
from typing import Final, Literal

from assay.catalog import snapshots
from assay.catalog.database import Actor, Database
from assay.catalog.tables import Experiment, ReportSnapshot
from assay.reports import looks
from assay.reports.question import Question
from assay.reports.snapshots import Snapshot, Snapshots

Why = Literal["schedule", "refresh", "look", "breaker"]
#: No time at all: whatever is there is old enough for one more.
_ANY: Final = timedelta(0)


def keep(
    database: Database,
    snapshot: Snapshot,
    why: Why,
    now: datetime,
    days: int,
    *,
    look: int | None = None,
    apart: timedelta = _ANY,
) -> bool:
    """Keep a report for so many `days`, one of a `look` for good; whether it was.

    It is not where another process has kept one less than `apart` ago, nor for an experiment that is gone.
    """
    report = snapshot.report
    if days == 0 and look is None:
        return False
    with database.noting() as tx:
        if tx.get(Experiment, report.spec.id) is None:
            return False
        newest = snapshots.newest(tx, report.spec.id)
        if newest is not None and now - newest[0] < apart:
            return False
        tx.add(
            ReportSnapshot(
                experiment_id=report.spec.id,
                computed_at=report.computed_at,
                why=why,
                look=look,
                position=list(snapshot.mark.mark),
                units=report.total_units,
                verdict=str(report.decision.verdict),
                headline=report.decision.text,
                document=snapshot.document.decode(),
            )
        )
        tx.flush()
        snapshots.prune(tx, report.spec.id, now, days)
    return True


def look(
    reports: Snapshots, database: Database, reference: int | str, actor: Actor, now: datetime, days: int
) -> looks.Made:
    """Make a look, and keep the report on what it saw. Raises what `looks.make` raises."""
    made = looks.make(reports, database, reference, actor, now)
    if made.new:
        keep(database, reports.get(reference, Question(), now), "look", now, days, look=made.look.number)
    return made
