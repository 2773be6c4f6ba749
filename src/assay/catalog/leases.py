"""Leases: work that one process does however many run, taken over when its holder is gone.

The clock is the database's, so that machines whose clocks differ agree. A lease is a row, not a lock: it
needs no connection of its own and works behind any pooler.
"""

from sqlalchemy import ColumnElement, delete, literal_column, select, text

from assay.catalog.database import Database
from assay.catalog.tables import Lease

#: Now, in microseconds, when it is read: a statement that waited for a row must not go by an older clock.
_CLOCKS = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000",
}

_HOLD = """
INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, {clock} + :ttl)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE leases.holder = excluded.holder OR leases.expires_at <= {clock}
RETURNING holder
"""


def hold(database: Database, name: str, holder: str, ttl: float) -> bool:
    """Take the lease `name`, or renew it, for `ttl` seconds from now; False if somebody else has it.

    One statement decides. Who was told True has it until the time is over, and asks again well before.
    """
    with database.noting() as tx:
        statement = text(_HOLD.format(clock=_CLOCKS[tx.get_bind().dialect.name]))
        taken = tx.scalar(statement, {"name": name, "holder": holder, "ttl": int(ttl * 1_000_000)})
        return bool(taken == holder)


def release(database: Database, name: str, holder: str) -> None:
    """Give the lease back at once; nothing happens if `holder` has it no more."""
    with database.noting() as tx:
        tx.execute(delete(Lease).where(Lease.name == name, Lease.holder == holder))


def holder(database: Database, name: str) -> str | None:
    """Who has the lease now, for people who look."""
    with database.reading() as tx:
        clock: ColumnElement[int] = literal_column(_CLOCKS[tx.get_bind().dialect.name])
        found = select(Lease.holder).where(Lease.name == name, Lease.expires_at > clock)
        return tx.scalar(found)
