"""The installation that is copied: its files, owned and read, and whether PostgreSQL can hold them."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import duckdb
import msgspec

from assay.durable.ownership import DataDirectory
from assay.durable.writer import open_reader
from assay.errors import Conflict, Invalid, Unavailable
from assay.eventstore.duckdb import DuckdbStore
from assay.settings import Settings
from assay.stores.embedded import EmbeddedStores
from assay.transfer.tables import (
    EVENTS,
    IMPORTS,
    LEDGER,
    Copied,
    Field,
    Kind,
    Row,
    Sum,
    copied,
    counted,
    duckdb_copy_line,
    duckdb_hash,
)

#: Rows of one step, which is one transaction of the target: what an interruption can cost. Those of the
#: catalog are all in memory at once.
_PAGE: Final = 20_000
_ROWS: Final = 100_000
_BYTES: Final = 32 * 2**20
#: Rows of an event block, the unit from which steps are made, and rows fetched at once.
_BLOCK: Final = 1_024
_FETCHED: Final = 5_000
#: Bytes of a text in an index: a page of PostgreSQL holds three entries, with what else is in them.
_INDEXED_BYTES: Final = 2_500
#: The longest text of all.
_TEXT_BYTES: Final = 2**29

# Two events with one user and one id: PostgreSQL tells events apart by these, DuckDB only those whose ids
# were the caller's. One that has the id from us gets another of ours.
_RENAMED: Final = """
CREATE TEMP TABLE renamed AS
WITH twice AS (SELECT hash(user_id, event_id) FROM events GROUP BY 1 HAVING count(*) > 1)
SELECT seq, CAST(md5(CAST(event_id AS VARCHAR) || ' ' || CAST(seq AS VARCHAR)) AS UUID) AS event_id
FROM (
  SELECT seq, event_id, row_number() OVER (PARTITION BY user_id, event_id ORDER BY keyed DESC, seq) AS nth
  FROM events
  WHERE hash(user_id, event_id) IN (FROM twice)
)
WHERE nth > 1
"""
_MOVING: Final = """
CREATE TEMP VIEW moving AS
SELECT e.seq, coalesce(r.event_id, e.event_id) AS event_id, original_id, keyed, user_id, units, type,
  epoch_us(occurred_at) AS occurred_at, epoch_us(counts_until) AS counts_until,
  epoch_us(received_at) AS received_at, value, amount, properties, experiment_id, variant_id
FROM events AS e
LEFT JOIN renamed AS r ON r.seq = e.seq
"""
_EVENT_TEXTS: Final = ("original_id", "user_id", "units", "type", "properties")
_LONGEST_EVENT: Final = f"strlen(user_id) + strlen(type) > {_INDEXED_BYTES}"
_BLOCKS: Final = f"""
SELECT max(seq), count(*),
  sum(200 + {" + ".join(f"coalesce(strlen({name}), 0)" for name in _EVENT_TEXTS)}),
  bool_or({" OR ".join(f"coalesce(contains({name}, chr(0)), false)" for name in _EVENT_TEXTS)}
    OR {_LONGEST_EVENT})
FROM events
GROUP BY rowid // {_BLOCK}
ORDER BY 1
"""
_EVENT_SUM: Final = f"SELECT count(*), coalesce(sum({duckdb_hash(EVENTS)}), 0) FROM moving"
_EVENT_LINES: Final = f"""
SELECT {duckdb_copy_line(EVENTS)} FROM moving WHERE seq > $after AND seq <= $upto ORDER BY seq
"""
_SHORT: Final = {
    LEDGER.name: "SELECT experiment_id, type, reason, detail, count, samples FROM ledger ORDER BY rowid",
    IMPORTS.name: "SELECT digest, rows_done, events, duplicates, bad, finished FROM imports ORDER BY rowid",
}


class Known(NamedTuple):
    """What a table holds: how many rows, and the sum of their hashes."""

    rows: int
    total: int


class Step(NamedTuple):
    """Rows that are stored together, and where the next step goes on: the key of the last of them."""

    rows: Sequence[Row]
    lines: Iterable[str]
    """Or, in the place of rows, pieces of what PostgreSQL's COPY reads."""
    after: list[Any]


class Source:
    """A data directory whose owner this process is. Used as a context; nothing in it is changed meanwhile.

    Entering raises `Conflict` when a server runs on it, and `Invalid` when there is none.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = settings.database_path
        self.events_path = settings.data / "events.duckdb"
        self.identity = 0
        self._closing = contextlib.ExitStack()
        self._steps: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        if not self.path.is_file():
            raise Invalid(
                f"There is no installation at {self.settings.data}: no file {self.path}. Name the data "
                "directory with --data.",
                code="no_installation",
            )
        drain(self.settings)
        with contextlib.ExitStack() as stack:
            directory = DataDirectory(self.settings.data, self.path)
            directory.acquire()
            stack.callback(directory.release)
            self._catalog = stack.enter_context(contextlib.closing(open_reader(self.path)))
            self._events = stack.enter_context(_reading(self.events_path, self.settings))
            self._expect_drained()
            self.identity = self._catalog.execute("PRAGMA user_version").fetchone()[0]
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def examine(self, seen: Callable[[str, Known], None]) -> dict[str, Known]:
        """Look at every row once: what each table holds.

        Raises `Invalid` naming table, column and row of a value that PostgreSQL cannot hold.
        """
        found = {}
        for table in copied():
            known = self._examine_events() if table is EVENTS else self._examine(table)
            found[table.name] = known
            seen(table.name, known)
        return found

    def steps(self, table: Copied, after: list[Any]) -> Iterator[Step]:
        """The rows of a table after the one with this key (empty: all), in the order of the key."""
        if table is EVENTS:
            yield from self._event_steps(after)
        elif not table.key:
            if not after:
                yield Step(self._short(table), (), [True])
        else:
            while rows := self._page(table, after):
                at = [[each.name for each in table.fields].index(name) for name in table.key]
                after = [rows[-1][place] for place in at]
                yield Step(rows, (), after)

    def highest(self) -> Mapping[str, int]:
        """The last number that each table has ever given, by table."""
        given = dict(self._catalog.execute("SELECT name, seq FROM sqlite_sequence"))
        return {
            name: max(
                given.get(name, 0),
                self._catalog.execute(f"SELECT max({column}) FROM {name}").fetchone()[0] or 0,
            )
            for name, column in counted().items()
        }

    @contextlib.contextmanager
    def store(self) -> Iterator[DuckdbStore]:
        """The event store, to ask what reports ask; nothing else can be read afterwards."""
        self._events.close()
        store = DuckdbStore(
            self.events_path, memory=self.settings.report_memory, threads=self.settings.report_threads
        )
        try:
            yield store
        finally:
            store.close()

    def _expect_drained(self) -> None:
        events, assigned = self._events.execute("SELECT events, assignments FROM position").fetchall()[0]
        last_event, last_assigned = self._catalog.execute(
            "SELECT (SELECT max(seq) FROM inbox), (SELECT max(seq) FROM assignments)"
        ).fetchone()
        waiting = last_event is not None and last_event >= events + 1 >> 16
        if waiting or (last_assigned or 0) > assigned:
            raise Conflict(
                f"Somebody wrote to {self.settings.data} while it was being opened: stop every server on it "
                "and repeat the command.",
                code="data_directory_in_use",
            )

    def _page(self, table: Copied, after: list[Any]) -> list[Row]:
        key = ", ".join(table.key)
        places = ", ".join("?" * len(table.key))
        beyond = f"WHERE ({key}) > ({places})" if after else ""
        asked = f"SELECT {table.names} FROM {table.name} {beyond} ORDER BY {key} LIMIT ?"
        return self._catalog.execute(asked, (*after, _PAGE)).fetchall()

    def _short(self, table: Copied) -> list[Row]:
        """All rows of a table of the event store. The ledger quotes what was refused, whatever it was."""
        rows = self._events.execute(_SHORT[table.name]).fetchall()
        return [tuple(map(_storable, row)) for row in rows]

    def _examine(self, table: Copied) -> Known:
        counting = Sum(table.fields)
        if not table.key:
            counting.add(self._short(table))
        else:
            self._expect_storable(table)
            rows = self._catalog.execute(f"SELECT {table.names} FROM {table.name}")
            while page := rows.fetchmany(_FETCHED):
                counting.add(page)
        return Known(counting.rows, counting.total)

    def _expect_storable(self, table: Copied) -> None:
        wrong = [(each, reason, test) for each in table.fields for reason, test in _tests(each)]
        if not wrong:
            return
        any_of = " OR ".join(f"({test})" for *_, test in wrong)
        if not self._catalog.execute(f"SELECT EXISTS (SELECT 1 FROM {table.name} WHERE {any_of})").fetchone()[
            0
        ]:
            return
        key = ", ".join(table.key)
        for field, reason, test in wrong:
            row = self._catalog.execute(f"SELECT {key} FROM {table.name} WHERE {test} LIMIT 1").fetchone()
            if row is not None:
                raise _unstorable(table, field.name, row, reason)

    def _examine_events(self) -> Known:
        self._events.execute(_RENAMED)
        self._events.execute(_MOVING)
        blocks = self._events.execute(_BLOCKS).fetchall()
        if any(block[3] for block in blocks):
            self._name_event()
        self._steps = []
        rows = size = 0
        for last, count, held, _ in blocks:
            rows, size = rows + count, size + held
            if rows >= _ROWS or size >= _BYTES:
                self._steps.append((last, rows))
                rows = size = 0
        if rows:
            self._steps.append((blocks[-1][0], rows))
        found = self._events.execute(_EVENT_SUM).fetchall()[0]
        return Known(int(found[0]), int(found[1]))

    def _name_event(self) -> None:
        """Say which event it is that cannot be stored."""
        for name in _EVENT_TEXTS:
            row = self._events.execute(
                f"SELECT seq FROM events WHERE contains({name}, chr(0)) LIMIT 1"
            ).fetchone()
            if row is not None:
                raise _unstorable(EVENTS, name, row, _NUL)
        row = self._events.execute(f"SELECT seq FROM events WHERE {_LONGEST_EVENT} LIMIT 1").fetchone()
        if row is not None:
            raise _unstorable(EVENTS, "user_id with type", row, _TOO_LONG)

    def _event_steps(self, after: list[Any]) -> Iterator[Step]:
        low = after[0] if after else -(2**63)
        for upto, _ in self._steps:
            if upto > low:
                yield Step((), self._lines(low, upto), [upto])
                low = upto

    def _lines(self, after: int, upto: int) -> Iterator[str]:
        found = self._events.execute(_EVENT_LINES, {"after": after, "upto": upto})
        while rows := found.fetchmany(_FETCHED):
            yield "".join([row[0] for row in rows])


def drain(settings: Settings) -> None:
    """Bring the files to their newest form, and everything acknowledged into the event store.

    Raises `Conflict` when another process owns them.
    """
    stores = EmbeddedStores(settings)
    stores.open()
    try:
        while not _flushed(stores):
            pass
    finally:
        stores.close()


def _flushed(stores: EmbeddedStores) -> bool:
    """Whether all is in the event store; there may be more than is moved in the time that one call has."""
    try:
        stores.flush()
    except Unavailable as error:
        if error.code == "store_behind":
            return False
        raise
    return True


def fingerprint(found: Mapping[str, Known], highest: Mapping[str, int]) -> str:
    """One text for all that a source holds: another one where anything is different."""
    whole = msgspec.json.encode([sorted((name, *map(str, held)) for name, held in found.items()), highest])
    return hashlib.sha256(whole).hexdigest()


@contextlib.contextmanager
def _reading(path: Path, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    config: dict[str, Any] = {
        "memory_limit": settings.report_memory,
        "temp_directory": f"{path}.tmp",
        "autoinstall_known_extensions": False,  # the engine must not look for anything in the network
    }
    if settings.report_threads:
        config["threads"] = settings.report_threads
    try:
        connection = duckdb.connect(str(path), read_only=True, config=config)
    except duckdb.Error as error:
        raise Unavailable(
            f"{path} cannot be read: {str(error).splitlines()[0]}", code="store_failed"
        ) from error
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


_NUL: Final = "contains the character NUL, which PostgreSQL cannot hold"
_TOO_LONG: Final = f"is longer than the {_INDEXED_BYTES:,} bytes that an index of PostgreSQL can hold"


def _tests(field: Field) -> Iterator[tuple[str, str]]:
    """Why a value could not be stored, each with the condition under which it is so, for SQLite."""
    name = f'"{field.name}"'
    if field.kind in {Kind.TEXT, Kind.JSON}:
        yield _NUL, f"instr(CAST({name} AS BLOB), x'00') > 0"
        yield "is too long for PostgreSQL", f"length(CAST({name} AS BLOB)) > {_TEXT_BYTES}"
    if field.kind is Kind.JSON:
        yield "is not JSON", f"{name} IS NOT NULL AND NOT json_valid({name})"
    if field.longest is not None:
        yield f"is longer than {field.longest} characters", f"length({name}) > {field.longest}"
    if field.indexed and field.kind is Kind.TEXT:
        yield _TOO_LONG, f"length(CAST({name} AS BLOB)) > {_INDEXED_BYTES}"


def _unstorable(table: Copied, column: str, key: Row, reason: str) -> Invalid:
    row = ", ".join(f"{name} {value!r}" for name, value in zip(table.key, key, strict=True))
    return Invalid(
        f"{table.name}.{column} of {row} {reason}: nothing was transferred. Correct or remove it first.",
        code="value_not_storable",
    )


def _storable(value: Any) -> Any:
    """The value, with another character that is no character in the place of NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufdd0")
    return [_storable(each) for each in value] if isinstance(value, list) else value
