"""The open parts of one data directory, and what a command may ask of whoever owns it."""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from assay.assignments.sqlite import SqliteAssignments
from assay.bucketing.ruleset import Ruleset
from assay.catalog import documents, keys, schema
from assay.catalog.checks import parse
from assay.catalog.database import Actor, Database, sqlite_url
from assay.catalog.publish import Publisher
from assay.durable.ownership import DataDirectory
from assay.durable.writer import SqliteWriter
from assay.errors import Conflict, Invalid, Unavailable
from assay.events.drain import Drain
from assay.events.sqlite import SqliteEventLog
from assay.eventstore.duckdb import DuckdbStore
from assay.hotpath.app import microseconds
from assay.importing import ImportRequest, ImportTarget, run_import
from assay.published import KeyRing, Published
from assay.settings import Settings

_COMMAND = Actor("command")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Stores:
    """The open parts of one data directory: what a server, or a command without one, works on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = DataDirectory(settings.data, settings.database_path)
        self.published = Published(Ruleset(), KeyRing(()))
        self._closing = contextlib.ExitStack()

    def open(self) -> None:
        """Become the owner of the directory and open everything in it; nothing stays open on failure.

        Raises `Conflict` when another process owns it, `Unavailable` when a file cannot be opened.
        """
        settings, path = self.settings, self.settings.database_path
        with contextlib.ExitStack() as stack:
            self.directory.acquire()
            stack.callback(self.directory.release)
            prepare(path)
            self.writer = SqliteWriter(path)
            self.assignments = SqliteAssignments(self.writer, path, settings.cache_max_size)
            stack.callback(self.assignments.close)
            self.log = SqliteEventLog(self.writer, path, lambda limit: self.store.recent_keys(limit))
            self.writer.start()
            stack.callback(self.writer.close)
            environment = keys.environment_keys(settings.admin_secrets)
            publisher = Publisher(self.published, environment)
            self.database = Database(sqlite_url(path), turn=self.writer.turn, publish=publisher.publish)
            stack.callback(self.database.close)
            self.database.refresh(utc_now())
            self.store = DuckdbStore(
                settings.data / "events.duckdb",
                memory=settings.report_memory,
                threads=settings.report_threads,
            )
            stack.callback(self.store.close)
            self._match()
            self.log.relearn()
            self.drain = Drain(self.writer, path, self.log.notes, self.store)
            stack.callback(self.drain.close)
            self.drain.start()
            self._closing = stack.pop_all()

    def _match(self) -> None:
        """Refuse an event store that is fed from another log, or from a later state of this one.

        Its position would pass over events that are acknowledged here.
        """
        identity, last = self.writer.run(_identity)
        position = self.store.position()
        if not self.store.belong_to(identity):
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

    def close(self) -> None:
        """Drain, close every file and give the directory back."""
        self._closing.close()

    def first_key(self) -> str | None:
        """On a catalog that never had a key, and with none in the environment: make one and write it down."""
        if self.settings.admin_secrets:
            return None
        return keys.ensure_admin_key(self.database, utc_now(), self._keep)

    def _keep(self, secret: str) -> None:
        path = self.settings.data / "admin.key"
        try:
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise Unavailable(
                f"The admin key cannot be kept in {path}: {error.strerror}.", code="admin_key"
            ) from error


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


def migrate(settings: Settings) -> Path:
    """`assay migrate`: bring the database to the newest tables; gives back its path."""
    directory = DataDirectory(settings.data, settings.database_path)
    directory.acquire()
    try:
        prepare(settings.database_path)
    finally:
        directory.release()
    return settings.database_path


def perform(stores: Stores, request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Do what a command asks of the owner of the directory, saying each message as it comes."""
    now = utc_now()
    match request:
        case {"do": "import", "request": dict(what)}:
            target = ImportTarget(
                stores.assignments,
                stores.store,
                stores.published.ruleset,
                stores.drain.flush,
                stores.settings.max_name_length,
            )
            run_import(target, msgspec.convert(what, ImportRequest), microseconds(), say)
            stores.log.relearn()
        case {"do": "create_key", "name": str(name), "role": str(role)}:
            with stores.database.writing(_COMMAND, now) as tx:
                row, secret = keys.create(tx, parse(keys.KeyInput, {"name": name, "role": role}))
                made = {**documents.key(row, now), "key": secret}
            say(made)
        case {"do": "list_keys"}:
            with stores.database.reading() as read:
                rows, _ = keys.page(read, limit=1000)
                say({"keys": [dict(documents.key(row, now)) for row in rows]})
        case {"do": "revoke_key", "id": int(key_id)}:
            with stores.database.writing(_COMMAND, now) as tx:
                keys.revoke(tx, key_id)
            say({"revoked": key_id})
        case _:
            raise Invalid("The command is not one that this server knows.", code="unknown_command")
