"""Leases: work that one process does however many run, taken over when its holder is gone.

The clock is the database's, so that machines whose clocks differ agree. A lease is a row, not a lock: it
needs no connection of its own and works behind any pooler.
"""

from sqlalchemy import ColumnElement, delete, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from assay.catalog.database import Database
from assay.catalog.tables import Lease

#: Now, in microseconds, when it is read: a statement that waited for a row must not go by an older clock.
_CLOCKS = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000",
}


def hold(database: Database, name: str, holder: str, ttl: float) -> bool:
    """Take the lease `name`, or renew it, for `ttl` seconds from now; False if somebody else has it.

    One statement decides. Who was told True has it until the time is over, and asks again well before.
    """
    with database.noting() as tx:
        dialect = tx.get_bind().dialect.name
        clock: ColumnElement[int] = literal_column(_CLOCKS[dialect])
        until = clock + int(ttl * 1_000_000)
        insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        taken = insert(Lease).values(name=name, holder=holder, expires_at=until)
        taken = taken.on_conflict_do_update(
            index_elements=[Lease.name],
            set_={"holder": holder, "expires_at": until},
            where=or_(Lease.holder == holder, Lease.expires_at <= clock),
        )
        return tx.scalar(taken.returning(Lease.holder)) == holder


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
