"""The event store in one DuckDB file, which one process owns."""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb

from assay.errors import Conflict, Invalid, Unavailable
from assay.eventstore import importing
from assay.eventstore.asking import Asking
from assay.eventstore.base import (
    Appended,
    AssignmentImport,
    AssignmentRow,
    BadRow,
    Erased,
    EventImport,
    Imported,
    Position,
    Progress,
    Rebuilt,
    Rejections,
    Watermark,
)
from assay.eventstore.dialects import Bound, Duckdb, Engine
from assay.eventstore.folding import Rollups
from assay.eventstore.statements import filled, statements

_SCHEMA = statements("schema")
_APPEND = statements("append")
_REVERSALS = statements("reversals")
_ROLLUPS = statements("rollups")

#: Rows of the ledger above which those of one kind are made one.
_LEDGER_ROWS: Final = 2_000

# What the engine says when the input is at fault; everything else may pass, and is tried again.
_INPUT_ERRORS: Final = (
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
)


class _Moment(threading.local):
    """The cursor of the thread that is asking several questions at one moment, if it is."""

    cursor: duckdb.DuckDBPyConnection | None = None


class DuckdbStore(Asking):
    """An `EventStore` in the file at `path`; its promises are those of `assay.eventstore.base`.

    `memory` bounds what questions and imports may take, as `1GiB`; `threads` is the number of cores they use,
    0 for all. Raises `Conflict` when the file is open already, here or in another process, and `Unavailable`
    when it cannot be opened for another reason.
    """

    _open_paths: set[Path] = set()  # noqa: RUF012 - the engine would silently share one file within a process
    _open_guard = threading.Lock()

    def __init__(self, path: str | Path, *, memory: str = "1GiB", threads: int = 0) -> None:
        self.path = Path(path).absolute()
        self._config: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": f"{self.path}.tmp",
            "autoinstall_known_extensions": False,  # the engine must not look for anything in the network
        }
        if threads:
            self._config["threads"] = threads
        self._writing = threading.RLock()
        self._moment = _Moment()
        self._rollups = Rollups()
        super().__init__(Engine(Duckdb(), self._ask, self._rollups))
        self._importing = threading.Lock()
        # One process has the file, so what it counts is all there is.
        self._writes = self._epoch = 0
        self._reached: Position | None = None
        self._closed = False
        with self._open_guard:
            if self.path in self._open_paths:
                raise Conflict(f"{self.path} is open already in this process.", code="store_in_use")
            self._connection: duckdb.DuckDBPyConnection | None = self._opened()
            self._open_paths.add(self.path)

    def close(self) -> None:
        """Make everything durable and let go of the file."""
        with self._writing, self._open_guard:
            if self._connection is not None:
                with contextlib.suppress(duckdb.Error):
                    self._connection.close()
                self._connection = None
            self._closed = True
            self._open_paths.discard(self.path)

    def belong_to(self, identity: int) -> bool:
        """Whether this store is fed from the log with that identity; one fed from none yet will be."""
        known = self._ask(_SCHEMA["source"])
        if not known:
            with self._transaction() as connection:
                connection.execute(_SCHEMA["name_source"], {"identity": identity})
            return True
        return bool(known[0][0] == identity)

    def position(self) -> Position:
        """See `EventStore`."""
        return Position(*self._ask(_SCHEMA["position"])[0])

    def append(
        self,
        position: tuple[int, int],
        events: str = "[]",
        assignments: str = "[]",
        rejections: Sequence[Rejections] = (),
    ) -> Appended:
        """See `EventStore`."""
        with self._transaction() as connection:
            after = Position(*connection.execute(_SCHEMA["position"]).fetchall()[0])
            assigned = 0
            if assignments != "[]":  # first, so that a repetition finds the experiments its user is in
                parameters = {"assignments": assignments, "after": after.assignments}
                assigned = connection.execute(_APPEND["store_assignments"], parameters).fetchall()[0][0]
                with _folding():
                    self._rollups.assigned(_folder(connection), after.assignments)
            stored, duplicates = self._append_events(connection, events, after.events)
            for note in rejections:
                self._note(connection, note)
            connection.execute(_APPEND["advance"], {"events": position[0], "assignments": position[1]})
        self._reached = Position(*map(max, after, position))
        return Appended(stored, duplicates, assigned)

    def watermark(self) -> Watermark:
        """See `EventStore`."""
        writes, epoch = self._writes, self._epoch
        if self._reached is None:
            self._reached = self.position()
        return Watermark((*self._reached, writes), epoch, settled=True)

    def recent_keys(self, limit: int) -> list[tuple[str, str]]:
        """See `EventStore`."""
        return [(row[0], row[1]) for row in self._ask(_SCHEMA["recent_keys"], {"limit": limit})]

    def purge(self, experiment_id: int) -> Erased:
        """See `EventStore`."""
        return self._removed("purge", {"experiment_id": experiment_id})

    def erase(self, user_id: str) -> Erased:
        """See `EventStore`."""
        return self._removed("erase", {"user_id": user_id})

    def expire(self, before: Mapping[str, int], otherwise: int | None, limit: int) -> int:
        """See `EventStore`."""
        bound = Bound(self._engine.dialect, {"limit": limit})
        parts = [
            f"(type = {bound.bind(kind)} AND occurred_at < {bound.time(at)})" for kind, at in before.items()
        ]
        if otherwise is not None:
            others = f"type <> ALL (CAST({bound.bind(list(before))} AS VARCHAR[]))"
            parts.append(f"({others} AND occurred_at < {bound.time(otherwise)})")
        older = " OR ".join(parts) or "false"
        text = filled(_SCHEMA["expire"], older=older)
        with self._transaction() as connection:
            with _folding():
                self._rollups.expiring(_folder(connection), older, bound.parameters)
            removed = int(connection.execute(text, bound.parameters).fetchall()[0][0])
            if removed and self._forget_reversals(connection):
                self._rollups.drop_all(_folder(connection))
        return removed

    def maintain(self) -> None:
        """See `EventStore`."""
        if self._rollups.is_due():
            with self._transaction(moves=False) as connection, _folding():
                self._rollups.maintain(_folder(connection))

    def rebuild(self) -> list[Rebuilt]:
        """See `EventStore`."""
        with self._transaction() as connection, _folding():
            return self._rollups.rebuild(_folder(connection))

    def import_events(
        self,
        what: EventImport,
        bad_row: Callable[[BadRow], None],
        progress: Callable[[Progress], None],
    ) -> Imported:
        """See `EventStore`."""
        if not self._importing.acquire(blocking=False):
            raise Conflict("Another import is under way; wait until it has ended.", code="import_under_way")
        try:
            return self._import_events(what, bad_row, progress)
        finally:
            self._epoch += 1
            self._importing.release()

    def _import_events(
        self, what: EventImport, bad_row: Callable[[BadRow], None], progress: Callable[[Progress], None]
    ) -> Imported:
        with self._reading_file(what.path) as connection:
            target = _Own(connection, lambda: self._transaction(connection), self._store_incoming)
            return importing.events(connection, target, what, bad_row, progress)

    def read_assignments(
        self, what: AssignmentImport, bad_row: Callable[[BadRow], None]
    ) -> Iterator[list[AssignmentRow]]:
        """See `EventStore`."""
        with self._reading_file(what.path) as connection:
            yield from importing.assignments(connection, what, bad_row)

    def _opened(self) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(str(self.path), config=self._config)
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(_SCHEMA["schema"])
            connection.execute(_ROLLUPS["schema"])
            connection.execute("BEGIN")
            self._rollups.drop_of_other_form(_folder(connection))
            connection.execute("COMMIT")
        except duckdb.Error as error:
            raise _failed(error) from error
        return connection

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of the calling thread's own."""
        if self._connection is None:
            if self._closed:
                raise Unavailable("The event store is closed.", code="store_closed")
            with self._open_guard:
                self._connection = self._connection or self._opened()
        return self._connection.cursor()

    def _append_events(
        self, connection: duckdb.DuckDBPyConnection, events: str, after: int
    ) -> tuple[int, int]:
        """Store those events that are new; how many, and how many were repetitions."""
        if events == "[]":
            return 0, 0
        data = events.encode()
        with _as_file(data) as path:
            # One row of the log may be nearly all of the portion.
            connection.execute(_APPEND["incoming"], {"path": path, "size": len(data), "after": after})
        return self._store_incoming(connection)

    def _store_incoming(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
        """Store what is new in the temporary table `incoming`; how many, and how many were repetitions."""
        count, keyed, unreadable, reversing = connection.execute(_APPEND["incoming_facts"]).fetchall()[0]
        if unreadable:
            raise Invalid(f"The properties of {unreadable} events are not JSON.")
        doubles = 0
        if keyed:
            doubles = connection.execute(_APPEND["doubles"]).fetchall()[0][0]
        if doubles:
            connection.execute(_APPEND["note_doubles"])
            self._shorten_ledger(connection)
            connection.execute(_APPEND["leave_doubles"])
        connection.execute(_APPEND["store_all"])
        if reversing:
            connection.execute(_REVERSALS["store_reversals"])
        with _folding():
            self._rollups.arrived(_folder(connection), reversing=bool(reversing))
        return count - doubles, doubles

    def _note(self, connection: duckdb.DuckDBPyConnection, note: Rejections) -> None:
        experiment_id, kind, code, count, samples = note
        parameters = {
            "experiment_id": experiment_id,
            "type": kind,
            "code": code,
            "count": count,
            "samples": list(samples),
        }
        connection.execute(_APPEND["note_rejections"], parameters)
        self._shorten_ledger(connection)

    @staticmethod
    def _shorten_ledger(connection: duckdb.DuckDBPyConnection) -> None:
        if connection.execute(_APPEND["ledger_length"]).fetchall()[0][0] > _LEDGER_ROWS:
            for step in ("ledger_summed", "ledger_cleared", "ledger_refilled"):
                connection.execute(_APPEND[step])

    @staticmethod
    def _forget_reversals(connection: duckdb.DuckDBPyConnection) -> bool:
        """Forget those whose own events are gone; whether there were such."""
        return bool(connection.execute(_REVERSALS["forget_reversals"]).fetchall()[0][0])

    def _removed(self, what: str, parameters: Mapping[str, Any]) -> Erased:
        with self._transaction() as connection:
            if what == "erase":
                with _folding():
                    self._rollups.erased(_folder(connection), parameters["user_id"])
            removed = [
                connection.execute(_SCHEMA[f"{what}_{table}"], parameters).fetchall()[0][0]
                for table in ("events", "assignments", "ledger")
            ]
            forgotten = self._forget_reversals(connection)
            if what == "purge":
                self._rollups.purged(_folder(connection), parameters["experiment_id"], reversals=forgotten)
        self._epoch += 1
        with self._writing, contextlib.suppress(duckdb.Error), self._cursor() as connection:
            connection.execute(
                "CHECKPOINT"
            )  # what was removed leaves the file; later, if a question is running
        return Erased(*removed)

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """See `EventStore`."""
        if self._moment.cursor is not None:
            yield
            return
        try:
            with self._cursor() as connection:
                connection.execute("BEGIN")
                self._moment.cursor = connection
                try:
                    yield
                finally:
                    self._moment.cursor = None
                    connection.execute("ROLLBACK")
        except duckdb.Error as error:
            raise _failed(error) from error

    def _ask(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        self._record(statement, parameters or {})
        try:
            if self._moment.cursor is not None:
                return self._moment.cursor.execute(statement, parameters or None).fetchall()
            with self._cursor() as connection:
                return connection.execute(statement, parameters or None).fetchall()
        except duckdb.Error as error:
            raise _failed(error) from error

    @contextlib.contextmanager
    def _transaction(
        self, own: duckdb.DuckDBPyConnection | None = None, *, moves: bool = True
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """One write at a time, kept whole: committed at the end, or nothing of it.

        It moves the watermark, unless answers are the same before and after it.
        """
        with self._writing:
            try:
                with contextlib.nullcontext(own) if own is not None else self._cursor() as connection:
                    connection.execute("BEGIN")
                    try:
                        yield connection
                        connection.execute("COMMIT")
                        self._writes += moves
                    except BaseException:
                        with contextlib.suppress(duckdb.Error):
                            connection.execute("ROLLBACK")
                        raise
            except _INPUT_ERRORS as error:
                raise Invalid(_sentence(error)) from error
            except _FoldingError as error:
                self._reopen_if_broken(error.reason)
                with self._transaction() as connection:
                    self._rollups.drop_all(_folder(connection))
                raise _failed(error.reason) from error
            except duckdb.Error as error:
                self._reopen_if_broken(error)
                raise _failed(error) from error
            except OSError as error:
                raise Unavailable(
                    f"The event store failed: {error}", code="store_failed", retry_after=2
                ) from error

    @contextlib.contextmanager
    def _reading_file(self, path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one import, whose temporary tables go with it."""
        if not path.is_file():
            raise Invalid(f"There is no file {path}.", code="no_such_file")
        try:
            with self._cursor() as connection:
                yield connection
        except (*_INPUT_ERRORS, duckdb.BinderException, duckdb.ParserException) as error:
            raise Invalid(
                f"{path.name} cannot be read: {_sentence(error)}", code="unreadable_file"
            ) from error
        except duckdb.Error as error:
            raise _failed(error) from error

    def _reopen_if_broken(self, error: duckdb.Error) -> None:
        """Having failed in the middle of writing its file, the engine refuses all work until opened anew."""
        if not (isinstance(error, duckdb.FatalException) or "invalidated" in str(error)):
            return
        broken, self._connection = self._connection, None  # whoever asks next opens it anew
        if broken is not None:
            with contextlib.suppress(duckdb.Error):
                broken.close()


class _Own(NamedTuple):
    """The target of an import into the very store whose engine reads the file."""

    connection: duckdb.DuckDBPyConnection
    transaction: Callable[[], contextlib.AbstractContextManager[Any]]
    store: Callable[[duckdb.DuckDBPyConnection], tuple[int, int]]

    def ask(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """See `importing.Target`."""
        return self.connection.execute(statement, parameters or None).fetchall()

    def take(self, *, again: bool) -> tuple[int, int]:
        """See `importing.Target`."""
        known = self.connection.execute(_APPEND["leave_known"]).fetchall()[0][0] if again else 0
        stored, doubles = self.store(self.connection)
        return stored, doubles + known


def _folder(connection: duckdb.DuckDBPyConnection) -> Engine:
    """The engine for work on rollups in a transaction."""
    return Engine(
        Duckdb(), lambda statement, parameters: connection.execute(statement, parameters or None).fetchall()
    )


class _FoldingError(Exception):
    """Rollups could not be carried along: they are dropped, and what was to be stored may be stored again."""

    def __init__(self, reason: duckdb.Error) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextlib.contextmanager
def _folding() -> Iterator[None]:
    """What fails in here fails because of rollups, never because of the input."""
    try:
        yield
    except duckdb.Error as error:
        raise _FoldingError(error) from error


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path under which the engine reads these bytes; in memory, where the system has files there."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("assay-portion"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory(prefix="assay-") as folder:
            path = Path(folder, "portion.json")
            path.write_bytes(data)
            yield str(path)


def _sentence(error: duckdb.Error) -> str:
    return re.sub(r"\s+", " ", str(error))[:300]


def _failed(error: duckdb.Error) -> Unavailable | Conflict:
    """What the engine said, in one sentence of ours."""
    text = str(error)
    if "Could not set lock" in text or "being used by another process" in text:
        return Conflict("Another process has the event store open; only one may.", code="store_in_use")
    if "No space left" in text or "Out of disk" in text or "File too large" in text:
        return Unavailable(
            "The disk is full: the event store took nothing.", code="store_full", retry_after=5
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        message = "The question needs more memory than the setting for reports allows."
        return Unavailable(message, code="store_out_of_memory", retry_after=5)
    return Unavailable(f"The event store failed: {_sentence(error)}", code="store_failed", retry_after=2)
