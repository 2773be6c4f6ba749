"""Who was erased lately, so that every process forgets what it remembers of them.

The rows name the unit in the clear, or memory could not be searched for it; they are gone within the hour.
"""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select

from assay.catalog.database import Database
from assay.catalog.tables import Erasure, Moment

#: Longer than any process goes without a look while it still answers from memory.
_KEPT: Final = timedelta(hours=1)
#: Numbers are given before they are committed, so the last few may come in another order.
_OVERLAP: Final = 100


def note(database: Database, unit_id: str) -> None:
    """Let all processes know; takes leave of notes that all have seen. The clock is the database's."""
    with database.noting() as tx:
        now: datetime = tx.scalars(select(func.current_timestamp(type_=Moment()))).one()
        tx.add(Erasure(unit_id=unit_id, erased_at=now))
        tx.execute(delete(Erasure).where(Erasure.erased_at < now - _KEPT))


def since(database: Database, last: int) -> list[tuple[int, str]]:
    """Number and unit of those erased after number `last`, and of a few before, in order."""
    recent = select(Erasure.id, Erasure.unit_id).where(Erasure.id > last - _OVERLAP).order_by(Erasure.id)
    with database.reading() as tx:
        return [(row.id, row.unit_id) for row in tx.execute(recent)]
