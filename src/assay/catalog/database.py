"""The catalog's database: reading, writing, and the one place that commits.

A write takes its turn among the other writers, of the file or of all machines, runs in one transaction, and
leaves together with its audit entries and, where readers must notice it, a new catalog version. Only then is
the new ruleset published, and never an older one after a newer. An exception inside `writing` rolls
everything back.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Engine, create_engine, event, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from assay.catalog import postgres
from assay.catalog.tables import AuditEntry, CatalogVersion
from assay.durable.writer import unavailable
from assay.errors import AssayError, Unavailable

_log = structlog.get_logger("assay.catalog")

#: What entries of the audit log are about: the noun of each is one of these, and so is the first word of its
#: action, which says what of an experiment was changed: `variant.edit`. Whoever filters offers all of them.
RECORDED: Final = (
    *("experiment", "variant", "override", "look", "holdout"),
    *("segment", "layer", "metric", "template", "user", "key"),
)
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
        #: What was recorded so far.
        self.entries: list[AuditEntry] = []

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

        A person is named by `user_id` alone, so that erasing them finds every trace. Raises `ValueError` for
        a noun, or a first word of the action, that is not among `RECORDED`.
        """
        unknown = {noun, action.partition(".")[0]}.difference(RECORDED)
        if unknown:
            raise ValueError(f"nobody could filter the audit log by {', '.join(sorted(unknown))}")
        self.publishes = self.publishes or noun not in _UNPUBLISHED
        self.entries.append(
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
        self.add(self.entries[-1])


def sqlite_url(path: str | Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def open_engine(
    url: str, *, read_only: bool, prepared: bool = True, away: Callable[[], bool] | None = None
) -> Engine:
    """Connections to the database; `prepared` says whether PostgreSQL may keep prepared statements.

    While `away` says that PostgreSQL does not answer, nobody waits for it.

    On SQLite each transaction is begun explicitly. The driver would begin late and commit early by itself;
    a reader must see one moment and a writer must hold the lock from its first statement.
    """
    if postgres.is_url(url):
        return postgres.open_engine(url, read_only=read_only, prepared=prepared, away=away)
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
    """The catalog in one database: a SQLite file or a PostgreSQL.

    `turn` keeps other writers of a SQLite file away while a transaction is open; on PostgreSQL the database
    does. `publish(tx, now)` is called with a view of the catalog after each commit that readers must notice,
    and by `refresh`. `away` tells, at once and from any thread, whether PostgreSQL is known not to answer.
    """

    def __init__(
        self,
        url: str,
        *,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        publish: Callable[[ReadTx, datetime], None],
        prepared: bool = True,
        away: Callable[[], bool] | None = None,
    ) -> None:
        self._writer = open_engine(url, read_only=False, prepared=prepared, away=away)
        self._reader = open_engine(url, read_only=True, prepared=prepared, away=away)
        self._postgres = postgres.is_url(url)
        self._turn = turn
        # One connection of this process waits for the other machines, not one for each request.
        self._writing = threading.Lock() if self._postgres else nullcontext()
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
        with spoken_errors(), ReadTx(self._reader) as tx:
            if self._postgres:
                postgres.limit(tx)
            yield tx

    @contextmanager
    def writing(self, actor: Actor, now: datetime) -> Iterator[WriteTx]:
        """One transaction; committed when the block ends, undone when it raises.

        What was committed is in force here when this returns. If it cannot be read back just now, it is
        stored all the same, and `refresh` puts it in force.
        """
        with spoken_errors(), self._turn(), self._writing, WriteTx(self._writer, actor, now) as tx:
            if self._postgres:
                postgres.take_turn(tx)
            yield tx
            if tx.publishes:
                _bump(tx)
            tx.flush()
            _commit(tx)
        if tx.publishes:
            try:
                self._publish_newer(now)
            except Unavailable as error:
                _log.warning("catalog.published_later", reason=error.detail)

    @contextmanager
    def noting(self) -> Iterator[Session]:
        """A short transaction beside the catalog: no audit, no version, and no turn on PostgreSQL."""
        with spoken_errors(), self._turn(), Session(self._writer) as tx:
            if self._postgres:
                postgres.limit(tx)
            yield tx
            _commit(tx)

    def version(self) -> int:
        """The catalog's version now: one small read, for those who look often."""
        if not self._postgres:
            with self.reading() as tx:
                return catalog_version(tx)
        with spoken_errors(), self._reader.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            return alone.scalar(select(CatalogVersion.version)) or 0

    def refresh(self, now: datetime) -> bool:
        """Publish the catalog if it has changed since it last was; True if it had."""
        return self.version() != self._published_version and self._publish_newer(now)

    def _publish_newer(self, now: datetime) -> bool:
        """Publish what is stored unless it is in force already.

        The view begins when nobody else publishes any more, so that a later call never publishes an earlier
        moment.
        """
        with self._publishing, self.reading() as tx:
            version = catalog_version(tx)
            if version == self._published_version:
                return False
            self._publish(tx, now)
            self._published_version = version
            return True


def catalog_version(tx: ReadTx) -> int:
    """How many published changes the catalog has seen."""
    return tx.scalar(select(CatalogVersion.version)) or 0


def _bump(tx: WriteTx) -> None:
    grown = (
        update(CatalogVersion).values(version=CatalogVersion.version + 1).returning(CatalogVersion.version)
    )
    version = tx.scalar(grown)
    if version is None:
        version = 1
        tx.add(CatalogVersion(id=1, version=version))
    for entry in tx.entries:
        entry.ruleset_version = version


def _commit(tx: Session) -> None:
    with spoken_errors(committing=True):
        tx.commit()


@contextmanager
def spoken_errors(*, committing: bool = False) -> Iterator[None]:
    """A database that cannot be read or written is `Unavailable`, in one sentence."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable(
            "Too many requests look at the database at once: repeat this one a little later.",
            code="database_busy",
        ) from error
    except DBAPIError as error:
        said: AssayError | None
        if isinstance(error.orig, sqlite3.Error):
            said = unavailable(error.orig) if isinstance(error.orig, sqlite3.OperationalError) else None
        else:
            said = postgres.spoken(error, committing=committing)
        if said is None:
            raise
        raise said from error
