"""The catalog's database: reading, writing, and the one place that commits.

A write takes its turn among the other writers of the file, runs in one transaction, and leaves together
with its audit entries and, where readers must notice it, a new catalog version. Only then is the new
ruleset published, in the order of the commits. An exception inside `writing` rolls everything back.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, create_engine, event, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assay.catalog.tables import AuditEntry, CatalogVersion
from assay.durable.writer import unavailable

#: Nouns whose changes the hot path looks up for itself, so that the ruleset stays as it is.
_UNPUBLISHED = frozenset({"user"})


class Actor(NamedTuple):
    """Who writes: the name of a key, `schedule`, or a command; and with which request."""

    name: str
    key_id: int | None = None
    request_id: str | None = None


class ReadTx(Session):
    """A consistent view of the catalog. The connection beneath refuses to write."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, expire_on_commit=False)


class WriteTx(ReadTx):
    """One transaction that writes, by `actor` at `now`."""

    def __init__(self, engine: Engine, actor: Actor, now: datetime) -> None:
        super().__init__(engine)
        self.actor = actor
        self.now = now
        self.publishes = False

    def record(
        self,
        action: str,
        noun: str,
        noun_id: int | None = None,
        *,
        experiment_id: int | None = None,
        user_id: str | None = None,
        changes: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> None:
        """Put an entry into the audit log; it is stored if, and only if, the change itself is.

        A person is named by `user_id` alone, so that erasing them finds every trace.
        """
        self.publishes = self.publishes or noun not in _UNPUBLISHED
        self.add(
            AuditEntry(
                at=self.now,
                actor=self.actor.name,
                key_id=self.actor.key_id,
                request_id=self.actor.request_id,
                action=action,
                noun=noun,
                noun_id=noun_id,
                experiment_id=experiment_id,
                user_id=user_id,
                reason=reason,
                changes=dict(changes or {}),
            )
        )


def sqlite_url(path: str | Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def open_engine(url: str, *, read_only: bool) -> Engine:
    """Connections to the database, each transaction begun explicitly.

    The driver would begin late and commit early by itself; a reader must see one moment and a writer
    must hold the lock from its first statement.
    """
    sizes = {"pool_size": 8, "max_overflow": 32} if read_only else {"pool_size": 1, "max_overflow": 0}
    engine = create_engine(url, connect_args={"timeout": 10.0}, **sizes)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin_now(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


class Database:
    """The catalog in one database.

    `turn` keeps other writers of the file away while a transaction is open. `publish(tx, now)` is called
    with a view of the catalog after each commit that readers must notice, and by `refresh`.
    """

    def __init__(
        self,
        url: str,
        *,
        turn: Callable[[], AbstractContextManager[None]],
        publish: Callable[[ReadTx, datetime], None],
    ) -> None:
        self._writer = open_engine(url, read_only=False)
        self._reader = open_engine(url, read_only=True)
        self._turn = turn
        self._publish = publish
        self._publishing = threading.Lock()
        self._published_version: int | None = None

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()

    @contextmanager
    def reading(self) -> Iterator[ReadTx]:
        """A view of one moment."""
        with _spoken_errors(), ReadTx(self._reader) as tx:
            yield tx

    @contextmanager
    def writing(self, actor: Actor, now: datetime) -> Iterator[WriteTx]:
        """One transaction; committed when the block ends, undone when it raises.

        Commits are published before the next one may begin, so that readers never go back in time.
        """
        with self._publishing:
            with _spoken_errors(), self._turn(), WriteTx(self._writer, actor, now) as tx:
                yield tx
                tx.flush()
                if tx.publishes:
                    _bump(tx)
                tx.commit()
            if tx.publishes:
                self._publish_now(now)

    def refresh(self, now: datetime) -> bool:
        """Publish the catalog if it has changed since it last was; True if it had."""
        with self._publishing:
            with self.reading() as tx:
                version = catalog_version(tx)
            if version == self._published_version:
                return False
            self._publish_now(now)
            return True

    def _publish_now(self, now: datetime) -> None:
        with self.reading() as tx:
            version = catalog_version(tx)
            self._publish(tx, now)
        self._published_version = version


def catalog_version(tx: ReadTx) -> int:
    """How many published changes the catalog has seen."""
    return tx.scalar(select(CatalogVersion.version)) or 0


def _bump(tx: WriteTx) -> None:
    grown = (
        update(CatalogVersion).values(version=CatalogVersion.version + 1).returning(CatalogVersion.version)
    )
    if tx.scalar(grown) is None:
        tx.add(CatalogVersion(id=1, version=1))


@contextmanager
def _spoken_errors() -> Iterator[None]:
    """A database that cannot be read or written is `Unavailable`, in one sentence."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.OperationalError):
            raise unavailable(error.orig) from error
        raise
