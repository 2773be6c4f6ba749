"""Reports as they stood: kept beside the catalog, thinned as they age."""

import json
from datetime import datetime, time, timedelta
from typing import TypedDict

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, defer

from assay.catalog.database import ReadTx
from assay.catalog.documents import iso
from assay.catalog.tables import ReportSnapshot
from assay.errors import NotFound


class SnapshotDocument(TypedDict):
    """A past report in a list: `why` is schedule, refresh, look or breaker; `position` is the store's."""

    id: int
    computed_at: str
    why: str
    look: int | None
    position: list[int | None]
    total_units: int
    verdict: str
    headline: str


def document(row: ReportSnapshot) -> SnapshotDocument:
    """One of the list."""
    return {
        "id": row.id,
        "computed_at": iso(row.computed_at),
        "why": row.why,
        "look": row.look,
        "position": row.position,
        "total_units": row.units,
        "verdict": row.verdict,
        "headline": row.headline,
    }


def page(
    tx: ReadTx, experiment_id: int, *, skip: int = 0, limit: int = 100
) -> tuple[list[ReportSnapshot], int]:
    """The newest of an experiment, without their documents, and how many there are."""
    mine = select(ReportSnapshot).where(ReportSnapshot.experiment_id == experiment_id)
    total = tx.scalar(select(func.count()).select_from(mine.subquery())) or 0
    newest = mine.order_by(ReportSnapshot.computed_at.desc(), ReportSnapshot.id.desc())
    return list(tx.scalars(newest.options(defer(ReportSnapshot.document)).offset(skip).limit(limit))), total


def find(tx: ReadTx, experiment_id: int, number: int) -> ReportSnapshot:
    """One of an experiment. Raises `NotFound`."""
    row = tx.get(ReportSnapshot, number) if 0 < number < 2**63 else None
    if row is None or row.experiment_id != experiment_id:
        raise NotFound(f"The experiment has no past report {number}.", code="unknown_snapshot")
    return row


def newest(tx: Session, experiment_id: int) -> tuple[datetime, int] | None:
    """When the newest of an experiment was computed, and how many units it found."""
    found = select(ReportSnapshot.computed_at, ReportSnapshot.units)
    mine = found.where(ReportSnapshot.experiment_id == experiment_id)
    row = tx.execute(mine.order_by(ReportSnapshot.computed_at.desc()).limit(1)).first()
    return None if row is None else (row.computed_at, row.units)


def prune(tx: Session, experiment_id: int, now: datetime, days: int) -> None:
    """Let go of what is older than so many days, and of each day gone by of all but the last."""
    columns = select(ReportSnapshot.id, ReportSnapshot.computed_at)
    mine = columns.where(ReportSnapshot.experiment_id == experiment_id, ReportSnapshot.look.is_(None))
    today = datetime.combine(now.date(), time(), now.tzinfo)
    oldest = now - timedelta(days=days)
    last = {
        at.date(): number
        for number, at in tx.execute(mine.order_by(ReportSnapshot.computed_at, ReportSnapshot.id))
    }
    kept = set(last.values())
    past = [
        number
        for number, at in tx.execute(mine)
        if at < oldest or days == 0 or (at < today and number not in kept)
    ]
    if past:
        tx.execute(delete(ReportSnapshot).where(ReportSnapshot.id.in_(past)))


def forget(tx: Session, user_id: str) -> int:
    """Remove those that say a user's id anywhere; how many. Reports are about arms and hardly name any."""
    named = ReportSnapshot.document.contains(json.dumps(user_id, ensure_ascii=False), autoescape=True)
    return int(tx.connection().execute(delete(ReportSnapshot).where(named)).rowcount)
