"""The event store in PostgreSQL, where events are acknowledged and reports ask for them in one place."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
import psycopg_pool

from assay.durable.watched import Away, never, watched
from assay.errors import AssayError, Conflict, Invalid, Unavailable
from assay.eventstore import cells, importing, listing, questions, trust
from assay.eventstore.base import (
    Appended,
    Arm,
    Arrivals,
    AssignmentImport,
    AssignmentRow,
    BadRow,
    Bucket,
    Cursor,
    Erased,
    EventCount,
    EventFilter,
    EventImport,
    Fate,
    Imported,
    LedgerEntry,
    Measure,
    Overlap,
    Position,
    Progress,
    Rejections,
    Repetitions,
    Scope,
    SeriesPoint,
    Statement,
    StoredEvent,
    Watermark,
)
from assay.eventstore.columns import Beside, Block, Cell, Column, Quantile, QuantileArm, UnitList, UnitValues
from assay.eventstore.dialects import Engine, Postgres
from assay.eventstore.reading import Connection as Reader
from assay.eventstore.statements import statements

_SCHEMA = statements("postgres/schema")
_APPEND = statements("postgres/append")

#: The tables this code works with; higher ones come from a newer version of it.
_VERSION: Final = 3
#: The first server that can say whether a text is JSON without failing, 16.
_OLDEST_SERVER: Final = 160_000
#: Whoever makes or changes tables holds this lock of the database until the end of the transaction.
_PREPARING: Final = 7_021_605_188
#: Rows of the ledger above which those of one kind are made one.
_LEDGER_ROWS: Final = 2_000
#: Seconds that a call waits for a connection to the database.
_CONNECTING: Final = 3.0
#: A question may hash or sort in four places at once, each in three processes; hashes may take twice as much.
_SHARES: Final = 16
#: Rows fetched at once from the engine that reads a file.
_BATCH: Final = 10_000

_PLACEHOLDER = re.compile(r"\$(\w+)")
_FOREIGN = re.compile("[\0\ud800-\udfff]")
_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

_TYPES: Final = (
    *("int8", "uuid", "text", "bool", "text", "text", "text", "int8", "int8", "int8"),
    *("float8", "float8", "text", "int8", "int8"),
)
_INCOMING: Final = """
SELECT seq, event_id, original_id, keyed, user_id, units, type, epoch_us(occurred_at), epoch_us(counts_until),
  epoch_us(received_at), value, amount, properties, experiment_id, variant_id
FROM incoming
"""

Row = tuple[Any, ...]
Connection = psycopg.Connection[Row]


class _Event(msgspec.Struct, gc=False):
    """An event as the log has it; see `assay.events.event`."""

    e: UUID
    u: str
    t: str
    s: int
    r: int
    c: int | None = None
    o: str | None = None
    k: bool = False
    m: dict[str, str] | None = None
    v: float | None = None
    a: float | None = None
    p: str | None = None
    x: int | None = None
    y: int | None = None


class _LogRow(msgspec.Struct, gc=False):
    q: int
    i: int
    b: list[_Event]


_portion = msgspec.json.Decoder(list[_LogRow])
_encode = msgspec.json.Encoder().encode


class _Moment(threading.local):
    """The connection of the thread that is asking several questions at one moment, if it is."""

    connection: Connection | None = None
    statements: list[Statement] | None = None


class PostgresStore:
    """An `EventStore` in a PostgreSQL database; its promises are those of `assay.eventstore.base`.

    `url` is a libpq connection string or URL; `replica` names one that answers questions. `prepared`:
    False behind a pooler that gives each transaction another connection. `statement_timeout`: seconds that a
    question or a portion may take. `memory` bounds what one question may take, and the reading of a file, as
    `1GiB`. `connections` bounds those for writing and those for reading, each. While `away` says that the
    server of `url` does not answer, nobody waits for it. Connects when first used.
    """

    def __init__(
        self,
        url: str,
        *,
        replica: str | None = None,
        prepared: bool = True,
        statement_timeout: float = 60.0,
        memory: str = "1GiB",
        connections: int = 4,
        away: Away = never,
    ) -> None:
        self._memory = memory
        self._timeout = max(round(statement_timeout * 1_000), 1)
        work = max(_bytes(memory) // _SHARES // 1_024, 64)
        # Compiling a question costs more than it gives; taking rows from workers costs less than is thought.
        self._asking = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off; "
            f"SET LOCAL statement_timeout = {self._timeout}; SET LOCAL work_mem = {work}; "
            "SET LOCAL parallel_tuple_cost = 0.001; SET LOCAL parallel_setup_cost = 100"
        )
        self._away = away
        self._writing = _pool(url, connections, prepared=prepared, away=away)
        self._reading = self._writing if replica is None else _pool(replica, connections, prepared=prepared)
        self._importing = threading.Lock()
        self._moment = _Moment()
        self._engine = Engine(Postgres(), self._ask)

    def close(self) -> None:
        """Let go of the connections."""
        for pool in {self._writing, self._reading}:
            pool.close()

    def prepare(self) -> None:
        """Make the tables, or bring them to the newest form; does nothing where they are.

        Where the catalog lies in the same database its tables must be there first, `assignments` being one.
        """
        with self._transaction(timeout=0) as connection:
            server = connection.info.server_version
            if server < _OLDEST_SERVER:
                raise Unavailable(
                    f"Events need PostgreSQL 16 or newer; this server is {server // 10_000}.",
                    code="database_too_old",
                    retry_after=60,
                )
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_PREPARING])
            connection.execute(_SCHEMA["versions"])
            found = _run(connection, _SCHEMA["version"], {})
            if found and found[0][0] > _VERSION:
                raise Conflict(
                    f"The event store's tables are of version {found[0][0]}; this program knows {_VERSION}.",
                    code="store_is_newer",
                )
            if not found or found[0][0] < _VERSION:
                connection.execute(_SCHEMA["schema"])
                connection.execute(_SCHEMA["functions"])
                _run(connection, _SCHEMA["set_version"], {"version": _VERSION})

    def belong_to(self, identity: int) -> bool:
        """Whether this store is fed from the log with that identity; one fed from none yet will be."""
        with self._transaction() as connection:
            _run(connection, _APPEND["taken"], {})
            known = _run(connection, _SCHEMA["source"], {})
            if not known:
                _run(connection, _SCHEMA["name_source"], {"identity": identity})
        return not known or bool(known[0][0] == identity)

    def caught_up(self, timeout: float) -> None:
        """Wait until the replica has all that is acknowledged; `Unavailable` after so many seconds."""
        if self._reading is self._writing:
            return
        with self._transaction() as connection:
            [(place,)] = _run(connection, _SCHEMA["written"], {})
        deadline = time.monotonic() + timeout
        pause = 0.001
        with _errors(), self._reading.connection() as connection:
            while not _run(connection, _SCHEMA["replayed"], {"place": place})[0][0]:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"The database for reports is behind by more than {timeout:g} s; ask again soon.",
                        code="store_behind",
                        retry_after=2,
                    )
                time.sleep(pause)
                pause = min(pause * 2, 0.1)

    def position(self) -> Position:
        """See `EventStore`. Always that of the primary: it says where writing goes on."""
        with self._transaction() as connection:
            return Position(*_run(connection, _SCHEMA["position"], {})[0])

    def append(
        self,
        position: tuple[int, int],
        events: str = "[]",
        assignments: str = "[]",
        rejections: Sequence[Rejections] = (),
    ) -> Appended:
        """See `EventStore`."""
        try:
            portion = _portion.decode(events)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise Invalid(f"The portion cannot be read: {error}") from error
        with self._transaction(storing=True) as connection:
            after = Position(*_run(connection, _APPEND["taken"], {})[0])
            assigned = 0
            if assignments != "[]":  # first, so that a repetition finds the experiments its user is in
                parameters = {"assignments": assignments, "after": after.assignments}
                assigned = _changed(connection, _APPEND["store_assignments"], parameters)
            rows = list(_rows(portion, after.events))
            stored, duplicates = _store(connection, [rows]) if rows else (0, 0)
            for experiment_id, kind, code, count, samples in rejections:
                note = {
                    "experiment_id": experiment_id,
                    "type": kind,
                    "code": code,
                    "count": count,
                    "samples": list(samples),
                }
                _run(connection, _APPEND["note_rejections"], note)
            _shorten_ledger(connection)
            _run(connection, _APPEND["advance"], {"events": position[0], "assignments": position[1]})
        return Appended(stored, duplicates, assigned)

    def watermark(self) -> Watermark:
        """See `EventStore`.

        Rows are numbered by sequences, which count at once what is written later. So an unchanged count says
        that nothing was added since, unless somebody held a number then that was not committed: whoever does
        has locked the table, which is looked at after the count.
        """
        with self._transaction() as connection:
            [(events, assignments, changes, epoch)] = _run(connection, _SCHEMA["watermark"], {})
            [(writing,)] = _run(connection, _SCHEMA["being_written"], {})
        return Watermark((events, assignments, changes), epoch, settled=not writing)

    def recent_keys(self, limit: int) -> list[tuple[str, str]]:
        """See `EventStore`."""
        return [(row[0], row[1]) for row in self._ask(_SCHEMA["recent_keys"], {"limit": limit})]

    def moments(self, scope: Scope, measures: Sequence[Measure]) -> list[Arm]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.moments(self._engine, scope, measures)

    def columns(
        self,
        scope: Scope,
        columns: Sequence[Column],
        blocks: Sequence[Block],
        groups: Mapping[str, UnitList] | Beside | None = None,
    ) -> list[Cell]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.columns(self._engine, scope, columns, blocks, groups)

    def percentiles(
        self, scope: Scope, columns: Sequence[Column], levels: Sequence[float]
    ) -> dict[str, tuple[float | None, ...]]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.percentiles(self._engine, scope, columns, levels)

    def quantiles(
        self, scope: Scope, asked: Sequence[Quantile], strata: Mapping[int, int] | None = None
    ) -> list[QuantileArm]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.quantiles(self._engine, scope, asked, strata)

    def unit_values(
        self, scope: Scope, columns: Sequence[Column], limit: int, after: int = 0
    ) -> list[UnitValues]:
        """See `EventStore`."""
        with self.one_moment():
            return cells.unit_values(self._engine, scope, columns, limit, after)

    def event_counts(self, scope: Scope) -> list[EventCount]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.event_counts(self._engine, scope)

    def series(self, scope: Scope, measure: Measure, by: Bucket) -> list[SeriesPoint]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.series(self._engine, scope, measure, by)

    def arrivals(self, scope: Scope, by: Bucket) -> list[Arrivals]:
        """See `EventStore`."""
        with self.one_moment():
            return trust.arrivals(self._engine, scope, by)

    def fates(self, scope: Scope, latest: int) -> list[Fate]:
        """See `EventStore`."""
        with self.one_moment():
            return trust.fates(self._engine, scope, latest)

    def repetitions(self, scope: Scope) -> Repetitions:
        """See `EventStore`."""
        with self.one_moment():
            return trust.repetitions(self._engine, scope)

    def conflicts(self, scope: Scope) -> int:
        """See `EventStore`."""
        with self.one_moment():
            return trust.conflicts(self._engine, scope)

    def overlaps(self, scope: Scope, others: Sequence[int]) -> list[Overlap]:
        """See `EventStore`."""
        with self.one_moment():
            return trust.overlaps(self._engine, scope, others)

    def ledger(self, scope: Scope, types: Sequence[str] = ()) -> list[LedgerEntry]:
        """See `EventStore`."""
        with self.one_moment():
            return questions.ledger(self._engine, scope, types)

    def events(
        self, which: EventFilter, limit: int, after: Cursor | None = None
    ) -> tuple[list[StoredEvent], Cursor | None]:
        """See `EventStore`."""
        return listing.events(self._engine, which, limit, after)

    def event(self, event_id: str, user_id: str | None = None) -> StoredEvent | None:
        """See `EventStore`."""
        return listing.event(self._engine, event_id, user_id)

    def purge(self, experiment_id: int) -> Erased:
        """See `EventStore`."""
        return self._removed("purge", {"experiment_id": experiment_id})

    def erase(self, user_id: str) -> Erased:
        """See `EventStore`."""
        return self._removed("erase", {"user_id": user_id})

    def expire(self, before: Mapping[str, int], otherwise: int | None, limit: int) -> int:
        """See `EventStore`."""
        with self._transaction(timeout=0) as connection:
            types = [row[0] for row in _run(connection, _SCHEMA["types"], {})]
            removed = 0
            for kind in types:
                at = before.get(kind, otherwise)
                if at is not None and removed < limit:
                    older = {"type": kind, "before": Postgres.time(at), "limit": limit - removed}
                    removed += _changed(connection, _SCHEMA["expire"], older)
            if removed:
                _run(connection, _APPEND["taken"], {})
        return removed

    def maintain(self) -> None:
        """See `EventStore`; there is nothing to do: every question is answered from the events."""

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
            with _reading_file(what.path, self._memory) as reader:
                target = _Target(reader, lambda: self._transaction(timeout=0, storing=True))
                return importing.events(reader, target, what, bad_row, progress)
        finally:
            self._importing.release()

    def read_assignments(
        self, what: AssignmentImport, bad_row: Callable[[BadRow], None]
    ) -> Iterator[list[AssignmentRow]]:
        """See `EventStore`."""
        with _reading_file(what.path, self._memory) as reader:
            yield from importing.assignments(reader, what, bad_row)

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """See `EventStore`."""
        if self._moment.connection is not None:
            yield
            return
        with self._snapshot() as connection:
            self._moment.connection = connection
            try:
                yield
            finally:
                self._moment.connection = None

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[Statement]]:
        """See `EventStore`."""
        before, statements = self._moment.statements, list[Statement]()
        self._moment.statements = statements
        try:
            yield statements
        finally:
            self._moment.statements = before

    def _ask(self, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        if self._moment.statements is not None:
            self._moment.statements.append(Statement(statement, parameters))
        if self._moment.connection is not None:
            with _errors():
                return _run(self._moment.connection, statement, parameters)
        with self._snapshot() as connection:
            return _run(connection, statement, parameters)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        self._refuse_away(self._reading)
        with _errors(), self._reading.connection() as connection:
            connection.execute(self._asking)
            try:
                yield connection
            finally:
                with contextlib.suppress(psycopg.Error):  # whatever happened has been said, or will be
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self, *, timeout: int | None = None, storing: bool = False) -> Iterator[Connection]:
        """A write, kept whole: committed at the end, or nothing of it. `timeout` in ms, 0 for none.

        `storing`: what the server says of values is said of the input.
        """
        self._refuse_away(self._writing)
        limit = self._timeout if timeout is None else timeout
        with _errors(storing=storing), self._writing.connection() as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {limit}")
            yield connection

    def _refuse_away(self, pool: psycopg_pool.ConnectionPool[Connection]) -> None:
        if pool is self._writing and self._away():
            sentence, code, retry_after = _LOST
            raise Unavailable(sentence, code=code, retry_after=retry_after)

    def _removed(self, what: str, parameters: Mapping[str, Any]) -> Erased:
        with self._transaction(timeout=0) as connection:
            _run(connection, _APPEND["taken"], {})
            _run(connection, _APPEND["new_epoch"], {})
            return Erased(
                *(
                    _changed(connection, _SCHEMA[f"{what}_{table}"], parameters)
                    for table in ("events", "assignments", "ledger")
                )
            )


class _Target:
    """The target of an import whose file another engine reads."""

    def __init__(
        self, reader: Reader, transaction: Callable[[], contextlib.AbstractContextManager[Connection]]
    ) -> None:
        self._reader = reader
        self._transaction = transaction
        self._connection: Connection | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See `importing.Target`."""
        with self._transaction() as connection:
            _run(connection, _APPEND["taken"], {})
            _run(connection, _APPEND["new_epoch"], {})
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None

    def ask(self, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        """See `importing.Target`."""
        if self._connection is not None:
            return _run(self._connection, statement, parameters)
        with self._transaction() as connection:
            return _run(connection, statement, parameters)

    def take(self, *, again: bool) -> tuple[int, int]:
        """See `importing.Target`."""
        assert self._connection is not None  # noqa: S101 - it is only called within a transaction
        found = self._reader.execute(_INCOMING)
        taken = _store(self._connection, iter(lambda: found.fetchmany(_BATCH), []), again=again)
        _shorten_ledger(self._connection)
        return taken


def _store(connection: Connection, batches: Any, *, again: bool = False) -> tuple[int, int]:
    """Store the events that are new; how many, and how many were repetitions."""
    connection.execute(_APPEND["incoming"])
    with connection.cursor() as cursor, cursor.copy(_APPEND["copy"]) as copy:
        copy.set_types(_TYPES)
        for batch in batches:
            for row in batch:
                copy.write_row(row)
    [(unreadable,)] = _run(connection, _APPEND["unreadable"], {})
    if unreadable:
        raise Invalid(f"The properties of {unreadable} events are not JSON.")
    known = _changed(connection, _APPEND["leave_known"], {}) if again else 0
    stored = _changed(connection, _APPEND["store"], {})
    doubles = _run(connection, _APPEND["remaining"], {})[0][0]
    if doubles:
        _run(connection, _APPEND["note_doubles"], {})
    connection.execute(_APPEND["spent"])
    return stored, doubles + known


def _shorten_ledger(connection: Connection) -> None:
    if _run(connection, _APPEND["ledger_length"], {})[0][0] > _LEDGER_ROWS:
        _run(connection, _APPEND["ledger_summed"], {})


def _rows(portion: Sequence[_LogRow], after: int) -> Iterator[Row]:
    """The events of a portion that come after the one with this number, as rows of the table."""
    for line in portion:
        for seq, event in enumerate(line.b, start=line.q * 65_536 + line.i):
            if seq > after:
                units = None if event.m is None else _encode(event.m).decode()
                until = event.s if event.c is None else event.c
                yield (
                    *(seq, event.e, event.o, event.k, event.u, units, event.t, event.s, until, event.r),
                    *(event.v, event.a, event.p, event.x, event.y),
                )


def _pool(
    url: str, connections: int, *, prepared: bool, away: Away = never
) -> psycopg_pool.ConnectionPool[Connection]:
    kwargs: dict[str, Any] = {"autocommit": True, "connect_timeout": 5, "application_name": "assay events"}
    if not prepared:
        kwargs["prepare_threshold"] = None

    def watch(connection: Any) -> None:
        connection.away = away

    return psycopg_pool.ConnectionPool(
        url,
        connection_class=watched(),
        configure=watch,
        min_size=0,
        max_size=connections,
        open=True,
        kwargs=kwargs,
        timeout=_CONNECTING,
        # One that the server has cut meanwhile is replaced; and after an outage the next call tries at once.
        check=psycopg_pool.ConnectionPool.check_connection,
        reconnect_timeout=1,
        name="assay events",
    )


def _run(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Run a statement whose parameters are named; its rows."""
    cursor = _executed(connection, statement, parameters)
    return cursor.fetchall() if cursor.description else []


def _changed(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> int:
    """Run a statement; how many rows it added, changed or removed."""
    return _executed(connection, statement, parameters).rowcount


def _executed(
    connection: Connection, statement: str, parameters: Mapping[str, Any]
) -> psycopg.RawCursor[Row]:
    text, names = _numbered(statement)
    cursor: psycopg.RawCursor[Row] = psycopg.RawCursor(connection)
    cursor.execute(text.encode(), [_storable(parameters[name]) for name in names])
    return cursor


@cache
def _numbered(statement: str) -> tuple[str, list[str]]:
    """The statement with numbers for the names of its parameters, and the names in that order."""
    names = list(dict.fromkeys(_PLACEHOLDER.findall(statement)))
    return _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", statement), names


def _storable(value: Any) -> Any:
    """The value, its texts without the characters that PostgreSQL has not (see `assay_member`)."""
    if isinstance(value, str):
        return _FOREIGN.sub("\ufdd0", value)
    return [_storable(item) for item in value] if isinstance(value, list) else value


def _bytes(size: str) -> int:
    """A size as `512MiB` or `1GB` in bytes."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)i?b?\s*", size.lower())
    if found is None:
        raise Invalid.field("memory", f"{size!r} is no size; it would be one like 1GiB.")
    return int(float(found[1]) * _UNITS[found[2]])


@contextlib.contextmanager
def _reading_file(path: Path, memory: str) -> Iterator[Reader]:
    """An engine in memory that reads one file, and is gone afterwards."""
    import duckdb  # noqa: PLC0415 - only imports need it

    if not path.is_file():
        raise Invalid(f"There is no file {path}.", code="no_such_file")
    try:
        with duckdb.connect(config={"memory_limit": memory}) as reader:
            reader.execute("SET autoinstall_known_extensions = false")  # it must not look into the network
            reader.execute("SET TimeZone = 'UTC'")
            yield reader
    except (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError) as error:
        raise Invalid(f"{path.name} cannot be read: {_sentence(error)}", code="unreadable_file") from error
    except duckdb.Error as error:
        message = f"{path.name} could not be read: {_sentence(error)}"
        raise Unavailable(message, code="store_failed", retry_after=2) from error


def _sentence(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:300]


@contextlib.contextmanager
def _errors(*, storing: bool = False) -> Iterator[None]:
    """What the server or the way to it said, as an error of ours."""
    try:
        yield
    except psycopg_pool.PoolTimeout as error:
        message = "The event store's database cannot be reached, or all connections to it are in use."
        raise Unavailable(message, code="store_unreachable", retry_after=2) from error
    except psycopg_pool.PoolClosed as error:
        raise Unavailable("The event store is closed.", code="store_closed") from error
    except psycopg.Error as error:
        raise _failed(error, storing=storing) from error


def _failed(error: psycopg.Error, *, storing: bool) -> AssayError:
    state = error.sqlstate or ""
    if storing and (state[:2] in {"22", "23", "54"} or (isinstance(error, psycopg.DataError) and not state)):
        return Invalid(_sentence(error))
    known = _KNOWN.get(state) or _KNOWN.get(state[:2])
    if known is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not state:
        known = _LOST
    if known is None:
        return Unavailable(f"The event store failed: {_sentence(error)}", code="store_failed", retry_after=2)
    message, code, retry_after = known
    return Unavailable(message, code=code, retry_after=retry_after)


_LOST: Final = ("The connection to the event store's database was lost.", "store_unreachable", 2)
_BUSY: Final = ("The event store's database had to give way to another transaction.", "store_busy", 1)
_UNPREPARED: Final = ("The event store's tables are missing; run `assay migrate`.", "store_not_prepared", 5)
# By the server's code of an error, or the class it begins with.
_KNOWN: Final[Mapping[str, tuple[str, str, int]]] = {
    "08": _LOST,
    "57P": _LOST,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _LOST,
    "25P03": _LOST,
    "40": _BUSY,
    "55P03": _BUSY,
    "57014": ("The event store's database took longer than the setting allows.", "store_timeout", 5),
    "53100": ("The disk is full: the event store took nothing.", "store_full", 5),
    "53200": ("The event store's database is out of memory.", "store_out_of_memory", 5),
    "53300": ("The event store's database takes no more connections.", "database_connections", 2),
    "25006": ("The event store's database is read-only.", "store_readonly", 5),
    "42P01": _UNPREPARED,
    "42883": _UNPREPARED,
}
