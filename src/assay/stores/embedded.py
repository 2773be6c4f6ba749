"""The stores of one data directory: SQLite and DuckDB, owned by one process."""

import asyncio
import contextlib
import secrets
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from assay.assignments.base import AssignmentStore
from assay.assignments.sqlite import SqliteAssignments
from assay.bucketing.ruleset import Ruleset
from assay.catalog import keys, schema
from assay.catalog.database import Database, sqlite_url
from assay.catalog.publish import Publisher
from assay.durable.ownership import DataDirectory
from assay.durable.priority import give_way
from assay.durable.writer import SqliteWriter
from assay.errors import AssayError, Conflict, Invalid, Unavailable
from assay.events.drain import Drain
from assay.events.log import EventLog
from assay.events.sqlite import SqliteEventLog
from assay.eventstore.base import EventStore
from assay.eventstore.duckdb import DuckdbStore
from assay.hotpath.attributes import Attributes, SqliteAttributes
from assay.published import KeyRing, Published
from assay.settings import Settings
from assay.stores.base import Answer, Lag, Written, utc_now
from assay.stores.keeping import keep_key
from assay.stores.retention import Retention


class EmbeddedStores:
    """`Stores` in the data directory that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.published = Published(Ruleset(), KeyRing(()))
        self._directory = DataDirectory(settings.data, settings.database_path)
        self._retention = Retention(settings)
        self._closing = contextlib.ExitStack()

    def open(self) -> None:
        """See `Stores`; this process becomes the owner of the directory."""
        settings, path = self.settings, self.settings.database_path
        if settings.workers != 1:
            raise Invalid.field(
                "ASSAY_WORKERS",
                f"the embedded stores have one owner process, so it must be 1; got {settings.workers}. "
                "Set DATABASE_URL to a PostgreSQL for more",
            )
        with contextlib.ExitStack() as stack:
            self._directory.acquire()
            stack.callback(self._directory.release)
            prepare(path)
            self.writer = SqliteWriter(path)
            self.assignments: AssignmentStore = SqliteAssignments(self.writer, path, settings.cache_max_size)
            stack.callback(self.assignments.close)
            self.attributes: Attributes = SqliteAttributes(path)
            stack.callback(self.attributes.close)
            self.writer.start()
            stack.callback(self.writer.close)
            publisher = Publisher(self.published, keys.environment_keys(settings.admin_secrets))
            self.database = Database(sqlite_url(path), turn=self.writer.turn, publish=publisher.publish)
            stack.callback(self.database.close)
            self.database.refresh(utc_now())
            # The engine's threads come from the one that opens it: they are to wait for who answers requests.
            with ThreadPoolExecutor(1, initializer=give_way) as behind:
                store = behind.submit(
                    DuckdbStore,
                    settings.data / "events.duckdb",
                    memory=settings.report_memory,
                    threads=settings.report_threads,
                ).result()
            self.store: EventStore = store
            stack.callback(store.close)
            self._match(store)
            self.log: EventLog = SqliteEventLog(self.writer, path, store.recent_keys)
            self.log.relearn()
            self.drain = Drain(self.writer, path, self.log.notes, store)
            stack.callback(self.drain.close)
            self.drain.start()
            self._closing = stack.pop_all()

    async def start(self) -> None:
        """See `Stores`; everything is open already."""

    async def stop(self) -> None:
        """See `Stores`."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Drain, close every file and give the directory back."""
        self._closing.close()

    def flush(self) -> None:
        """See `Stores`."""
        self.drain.flush()

    async def wait_past(self) -> None:
        """See `Stores`."""
        await self.drain.wait_past()

    def paused(self) -> AbstractContextManager[None]:
        """See `Stores`."""
        return self.drain.paused()

    def tend(self, now: datetime) -> None:
        """See `Stores`."""
        if self.writer.last_error is not None:
            self.writer.run(_probe)  # nobody else may come to find out that the disk is well again
        self.database.refresh(now)  # what could not be published when it was committed

    def pass_on(self, now: datetime) -> None:
        """See `Stores`."""
        if self._retention.apply(self.store, now):
            self.log.relearn()

    def leads(self) -> bool:
        """See `Stores`: there is nobody else."""
        return True

    def failures(self) -> dict[str, AssayError | None]:
        """See `Stores`."""
        return {"log": self.writer.last_error, "event_store": self.drain.last_error}

    def forget(self, unit_id: str) -> None:
        """See `Stores`; `erase` itself makes memory of assignments forget."""
        self.log.forget(unit_id)

    def written(self) -> Written:
        """See `Stores`."""
        return Written(self.writer.commits, self.writer.rows, self.writer.waiting[0])

    def lag(self) -> Lag:
        """See `Stores`."""
        return Lag(*self.drain.lag())

    def listen(self, answer: Answer) -> None:
        """See `Stores`."""
        self._directory.listen(answer)

    def stop_listening(self) -> None:
        """See `Stores`."""
        self._directory.stop_listening()

    def _match(self, store: DuckdbStore) -> None:
        """Refuse an event store that is fed from another log, or from a later state of this one.

        Its position would pass over events that are acknowledged here.
        """
        identity, last = self.writer.run(_identity)
        position = store.position()
        if not store.belong_to(identity):
            problem = "belongs to another database"
        elif position.events >> 16 > last.get("inbox", 0) or position.assignments > last.get(
            "assignments", 0
        ):
            problem = "is ahead of the database, which must be an older copy"
        else:
            return
        raise Conflict(
            f"{self.settings.data / 'events.duckdb'} {problem} ({self.settings.database_path}): "
            "put the two files that belong together into place.",
            code="stores_do_not_match",
        )

    def first_key(self) -> str | None:
        """See `Stores`."""
        if self.settings.admin_secrets:
            return None
        return keys.ensure_admin_key(self.database, utc_now(), lambda secret: keep_key(self.settings, secret))


def _probe(connection: sqlite3.Connection) -> None:
    """A write that changes nothing and yet must reach the disk."""
    connection.execute("UPDATE catalog_version SET version = version")


def _identity(connection: sqlite3.Connection) -> tuple[int, dict[str, int]]:
    """The random number that tells this database from others, and the last number of each table."""
    identity: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not identity:
        identity = secrets.randbelow(2**31 - 1) + 1
        connection.execute(f"PRAGMA user_version = {identity}")
    return identity, dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))


def prepare(path: Path) -> None:
    """Make the database file, or bring it to the newest tables."""
    if schema.is_current(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        schema.migrate(sqlite_url(path))
    except OSError as error:
        raise Unavailable(
            f"The database {path} cannot be made: {error.strerror}.", code="database"
        ) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        said = str(error).splitlines()[0]
        raise Unavailable(f"The database {path} cannot be used: {said}", code="database") from error


def migrate(settings: Settings) -> str:
    """Bring the database to the newest tables; its name."""
    directory = DataDirectory(settings.data, settings.database_path)
    directory.acquire()
    try:
        prepare(settings.database_path)
    finally:
        directory.release()
    return str(settings.database_path)
