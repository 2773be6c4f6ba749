"""The audit log: read here, written by `WriteTx.record` in the transaction of the change itself."""

from sqlalchemy import func, select

from assay.catalog.checks import expect_storable
from assay.catalog.database import ReadTx
from assay.catalog.tables import AuditEntry


def page(
    tx: ReadTx,
    *,
    experiment_id: int | None = None,
    noun: str | None = None,
    actor: str | None = None,
    skip: int = 0,
    limit: int = 100,
) -> tuple[list[AuditEntry], int]:
    """The newest entries that match, and how many match."""
    expect_storable("noun", noun)
    expect_storable("actor", actor)
    rows = select(AuditEntry)
    if experiment_id is not None:
        rows = rows.where(AuditEntry.experiment_id == experiment_id)
    if noun is not None:
        rows = rows.where(AuditEntry.noun == noun)
    if actor is not None:
        rows = rows.where(AuditEntry.actor == actor)
    total = tx.scalar(select(func.count()).select_from(rows.subquery())) or 0
    return list(tx.scalars(rows.order_by(AuditEntry.id.desc()).offset(skip).limit(limit))), total
