"""What comes into a PostgreSQL store in bulk: portions of a log elsewhere, and files."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from assay.errors import Invalid, Unavailable
from assay.eventstore.postgres_server import Connection, Row, changed, run, sentence
from assay.eventstore.reading import Connection as Reader
from assay.eventstore.statements import statements

_APPEND = statements("postgres/append")

#: Rows of the ledger above which those of one kind are made one.
_LEDGER_ROWS: Final = 2_000
#: Rows fetched at once from the engine that reads a file.
_BATCH: Final = 10_000

_TYPES: Final = (
    *("int8", "uuid", "text", "bool", "text", "text", "text", "int8", "int8", "int8"),
    *("float8", "float8", "text", "int8", "int8"),
)
_INCOMING: Final = """
SELECT seq, event_id, original_id, keyed, user_id, units, type, epoch_us(occurred_at), epoch_us(counts_until),
  epoch_us(received_at), value, amount, properties, experiment_id, variant_id
FROM incoming
"""


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


class Target:
    """The target of an import whose file another engine reads.

    `begin` is called first in each transaction, `stored` after new events.
    """

    def __init__(
        self,
        reader: Reader,
        transaction: Callable[[], contextlib.AbstractContextManager[Connection]],
        begin: Callable[[Connection], object],
        stored: Callable[[Connection], None],
    ) -> None:
        self._reader = reader
        self._begin = begin
        self._stored = stored
        self._transaction = transaction
        self._connection: Connection | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See `importing.Target`."""
        with self._transaction() as connection:
            self._begin(connection)
            run(connection, _APPEND["taken"], {})
            run(connection, _APPEND["new_epoch"], {})
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None

    def ask(self, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        """See `importing.Target`."""
        if self._connection is not None:
            return run(self._connection, statement, parameters)
        with self._transaction() as connection:
            return run(connection, statement, parameters)

    def take(self, *, again: bool) -> tuple[int, int]:
        """See `importing.Target`."""
        assert self._connection is not None  # noqa: S101 - it is only called within a transaction
        found = self._reader.execute(_INCOMING)
        taken = store(self._connection, iter(lambda: found.fetchmany(_BATCH), []), again=again)
        shorten_ledger(self._connection)
        if taken[0]:
            self._stored(self._connection)
        return taken


def store(
    connection: Connection, batches: Iterable[Iterable[Row]], *, again: bool = False
) -> tuple[int, int]:
    """Store the events that are new; how many, and how many were repetitions."""
    connection.execute(_APPEND["incoming"])
    with connection.cursor() as cursor, cursor.copy(_APPEND["copy"]) as copy:
        copy.set_types(_TYPES)
        for batch in batches:
            for row in batch:
                copy.write_row(row)
    [(unreadable,)] = run(connection, _APPEND["unreadable"], {})
    if unreadable:
        raise Invalid(f"The properties of {unreadable} events are not JSON.")
    known = changed(connection, _APPEND["leave_known"], {}) if again else 0
    stored = changed(connection, _APPEND["store"], {})
    doubles = run(connection, _APPEND["remaining"], {})[0][0]
    if doubles:
        run(connection, _APPEND["note_doubles"], {})
    connection.execute(_APPEND["spent"])
    return stored, doubles + known


def shorten_ledger(connection: Connection) -> None:
    """Make those rows of the ledger one that are of one kind, where there are many."""
    if run(connection, _APPEND["ledger_length"], {})[0][0] > _LEDGER_ROWS:
        run(connection, _APPEND["ledger_summed"], {})


def decoded(events: str) -> list[_LogRow]:
    """A portion of the log; `Invalid` where it is none."""
    try:
        return _portion.decode(events)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise Invalid(f"The portion cannot be read: {error}") from error


def rows_of(portion: Sequence[_LogRow], after: int) -> Iterator[Row]:
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


@contextlib.contextmanager
def reading_file(path: Path, memory: str) -> Iterator[Reader]:
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
        raise Invalid(f"{path.name} cannot be read: {sentence(error)}", code="unreadable_file") from error
    except duckdb.Error as error:
        message = f"{path.name} could not be read: {sentence(error)}"
        raise Unavailable(message, code="store_failed", retry_after=2) from error
