"""The PostgreSQL that an installation is copied to, and how far the copy is: written with every step."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import psycopg

from assay.catalog import postgres, schema
from assay.errors import Conflict, Unavailable
from assay.eventstore.postgres import PostgresStore
from assay.settings import PostgresUrl
from assay.transfer.source import Known, Step
from assay.transfer.tables import DERIVED, ROLLUPS, Copied, copied, postgres_sum

_STATE: Final = """
CREATE TABLE transfer (
  identity BIGINT NOT NULL, fingerprint TEXT NOT NULL, begun_at TIMESTAMPTZ NOT NULL, finished_at TIMESTAMPTZ
);
CREATE TABLE transfer_tables (name TEXT PRIMARY KEY, position TEXT NOT NULL, rows BIGINT NOT NULL);
CREATE TABLE transfer_indexes (name TEXT PRIMARY KEY, definition TEXT NOT NULL);
"""
_STATE_TABLES: Final = frozenset({"transfer", "transfer_tables", "transfer_indexes"})
#: What a database has that was migrated and never used.
_BARE: Final = frozenset(
    {"alembic_version", "event_store_version", "position", "source", "catalog_version", "rollup_position"}
)
#: Tables of the current schema that no extension brought.
_TABLES: Final = """
SELECT relname FROM pg_class
WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'p', 'f', 'v', 'm')
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend
    WHERE classid = CAST('pg_class' AS regclass) AND objid = pg_class.oid AND deptype = 'e'
  )
ORDER BY relname
"""
#: What can be made when the rows are there, in a fraction of the time: every index but primary keys.
_INDEXES: Final = """
SELECT conname,
  format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, pg_get_constraintdef(oid)),
  format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname)
FROM pg_constraint WHERE conrelid = CAST(%(table)s AS regclass) AND contype = 'u'
UNION ALL
SELECT relname, pg_get_indexdef(indexrelid), format('DROP INDEX %%s', indexrelid::regclass)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = CAST(%(table)s AS regclass)
  AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u'))
"""
#: Tables that may be so large that their indexes are made last.
_LARGE: Final = frozenset({"events", "assignments"})
#: For the making of indexes.
_MEMORY: Final = "256MB"
#: Microseconds since the epoch, by the database's clock.
_NOW: Final = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


def _foreign(url: PostgresUrl, why: str) -> Conflict:
    return Conflict(
        f"{url.shown} {why}: nothing was changed there. Give an empty database.", code="target_not_empty"
    )


class State(NamedTuple):
    """How far the copy in the target is."""

    fingerprint: str
    """Of the source as it was when the copy began."""
    finished_at: datetime | None


class Done(NamedTuple):
    """How far one table is: the key of the last row, and how many."""

    after: list[Any]
    rows: int


class Target:
    """One PostgreSQL database. Used as a context; connects on entering."""

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url

    def __enter__(self) -> Self:
        try:
            made = postgres.connect(self._url.url, prepared=False)
        except psycopg.Error as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Unavailable(f"{self._url.shown} cannot be used: {said}", code="target_failed") from error
        self._connection: psycopg.Connection[tuple[Any, ...]] = made
        self._connection.autocommit = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def state(self, identity: int) -> State | None:
        """What a transfer of the source with this identity has left here; None in an empty database.

        Raises `Conflict`, and changes nothing, when there is anything else.
        """
        present = {str(row[0]) for row in self._ask(_TABLES)}
        if present >= _STATE_TABLES:
            found = self._ask("SELECT identity, fingerprint, finished_at FROM transfer")
            if found and found[0][0] == identity:
                return State(found[0][1], found[0][2])
            raise _foreign(self._url, "holds a transfer of another installation")
        known = (
            {each.name for each in copied()}
            | _BARE
            | _STATE_TABLES
            | {"inbox", "leases", "erasures", DERIVED, *ROLLUPS}
        )
        for name in sorted(present):
            if name not in known:
                raise _foreign(self._url, f"has a table {name}, which is not Assay's")
        for name in sorted(present - _BARE - {"leases"}):
            if self._ask(f"SELECT EXISTS (SELECT 1 FROM {name})")[0][0]:
                raise _foreign(self._url, f"has rows in {name}")
        if "leases" in present and self._ask(f"SELECT 1 FROM leases WHERE expires_at > ({_NOW})"):
            raise _foreign(self._url, "has a server running on it")
        return None

    def prepare(self) -> None:
        """Make the tables, as `assay migrate` does."""
        if not schema.is_current(self._url.url):
            schema.migrate(self._url.url)
        store = PostgresStore(self._url.url, prepared=False)
        try:
            store.prepare()
        finally:
            store.close()

    def begin(self, identity: int, fingerprint: str, now: datetime) -> None:
        """Begin, or begin anew: empty tables, none of which is done."""
        with self._transaction():
            self._take_turn()
            if self.state(identity) is None:
                self._ask(_STATE)
            self._ask("DELETE FROM transfer")
            self._ask("DELETE FROM transfer_tables")
            self._ask(f"TRUNCATE {', '.join([*(each.name for each in copied()), DERIVED, *ROLLUPS])}")
            self._ask("INSERT INTO transfer VALUES (%s, %s, %s)", (identity, fingerprint, now))

    def expect_untouched(self) -> None:
        """Raise `Conflict` when a table has other rows than an interrupted transfer left in it."""
        done = {row[0]: row[1] for row in self._ask("SELECT name, rows FROM transfer_tables")}
        for table in copied():
            rows = self._ask(f"SELECT count(*) FROM {table.name}")[0][0]
            if rows != done.get(table.name, 0):
                raise _foreign(
                    self._url,
                    f"has {rows:,} rows in {table.name}, where the interrupted transfer left "
                    f"{done.get(table.name, 0):,}: somebody else has written there",
                )

    def done(self, table: Copied) -> Done:
        """How far a table is."""
        found = self._ask("SELECT position, rows FROM transfer_tables WHERE name = %s", (table.name,))
        return Done(json.loads(found[0][0]), found[0][1]) if found else Done([], 0)

    def store(self, table: Copied, step: Step, stored: Callable[[int], None]) -> None:
        """Store one step and that it is done. `stored` hears of rows, some while they are on their way."""
        with self._transaction(), self._connection.cursor() as cursor:
            # A step that a crash of the server takes back takes its position along.
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute("SET LOCAL TimeZone = 'UTC'")
            if table.name in _LARGE and not self.done(table).after:
                self._drop_indexes(table)
            rows = len(step.rows)
            with cursor.copy(f"COPY {table.name} ({table.names}) FROM STDIN") as copy:
                for text in step.lines:
                    copy.write(text)
                    count = text.count("\n")
                    rows += count
                    stored(count)
                for row in step.rows:
                    copy.write_row(row)
            cursor.execute(
                "INSERT INTO transfer_tables VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE "
                "SET position = excluded.position, rows = transfer_tables.rows + excluded.rows",
                (table.name, json.dumps(step.after), rows),
            )
        stored(len(step.rows))

    def count_on(self, highest: Mapping[str, int], columns: Mapping[str, str]) -> None:
        """Let every numbered table go on above these, so that no number is given twice."""
        for name, number in highest.items():
            if number:
                self._ask("SELECT setval(pg_get_serial_sequence(%s, %s), %s)", (name, columns[name], number))
        start = "(SELECT seqstart FROM pg_sequence WHERE seqrelid = CAST(counter AS regclass))"
        self._ask(
            "SELECT setval(counter, last) FROM (SELECT pg_get_serial_sequence('events', 'seq') AS counter, "
            f"(SELECT max(seq) FROM events) AS last) AS numbered WHERE last >= {start}"
        )

    def sums(self, table: Copied) -> Known:
        """What a table holds."""
        with self._transaction():
            rows, total = self._ask(postgres_sum(table))[0]
        return Known(int(rows), int(total))

    def missing_indexes(self) -> list[str]:
        """The indexes that are still to be made."""
        return [row[0] for row in self._ask("SELECT name FROM transfer_indexes ORDER BY name DESC")]

    def make_index(self, name: str) -> None:
        """Make an index that was left out while rows were copied."""
        with self._transaction():
            self._ask(f"SET LOCAL maintenance_work_mem = '{_MEMORY}'")
            found = self._ask("DELETE FROM transfer_indexes WHERE name = %s RETURNING definition", (name,))
            self._ask(found[0][0])

    def tidy(self) -> None:
        """Let the planner know what there is, and readers look at indexes alone."""
        self._ask(f"VACUUM (ANALYZE) {', '.join(each.name for each in copied())}")

    def fail(self) -> None:
        """What was copied is not what the source has: it is to be copied anew."""
        self._ask("UPDATE transfer SET fingerprint = ''")

    def finish(self, now: datetime) -> None:
        """All is there, and checked."""
        self._ask("UPDATE transfer SET finished_at = %s", (now,))

    def _drop_indexes(self, table: Copied) -> None:
        for name, definition, drop in self._ask(_INDEXES, {"table": table.name}):
            self._ask(
                "INSERT INTO transfer_indexes VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
                (name, definition),
            )
            self._ask(drop)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Kept whole, or nothing of it; it may take as long as it needs, whatever the database's settings."""
        with self._connection.transaction():
            self._ask("SET LOCAL statement_timeout = 0")
            yield

    def _take_turn(self) -> None:
        """Let no other transfer into this database begin meanwhile."""
        self._ask("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")

    def _ask(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []
