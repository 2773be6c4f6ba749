"""The way to a PostgreSQL server: connections, statements with named parameters, and what errors mean."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import psycopg
import psycopg_pool

from assay.durable.watched import Away, never, watched
from assay.errors import AssayError, Invalid, Unavailable

#: Seconds that a call waits for a connection to the database.
_CONNECTING: Final = 3.0

_PLACEHOLDER = re.compile(r"\$(\w+)")
_FOREIGN = re.compile("[\0\ud800-\udfff]")

Row = tuple[Any, ...]
Connection = psycopg.Connection[Row]
Pool = psycopg_pool.ConnectionPool[Connection]


def pool(url: str, connections: int, *, prepared: bool, away: Away = never) -> Pool:
    """Connections to a server, opened as they are needed; while it is `away` nobody waits on one of them."""
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


def run(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Run a statement whose parameters are named; its rows."""
    cursor = _executed(connection, statement, parameters)
    return cursor.fetchall() if cursor.description else []


def changed(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> int:
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


def sentence(error: Exception) -> str:
    """What an engine said, short enough for a message."""
    return re.sub(r"\s+", " ", str(error)).strip()[:300]


@contextlib.contextmanager
def errors(*, storing: bool = False) -> Iterator[None]:
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
        return Invalid(sentence(error))
    known = _KNOWN.get(state) or _KNOWN.get(state[:2])
    if known is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not state:
        known = LOST
    if known is None:
        return Unavailable(f"The event store failed: {sentence(error)}", code="store_failed", retry_after=2)
    message, code, retry_after = known
    return Unavailable(message, code=code, retry_after=retry_after)


LOST: Final = ("The connection to the event store's database was lost.", "store_unreachable", 2)
_BUSY: Final = ("The event store's database had to give way to another transaction.", "store_busy", 1)
_UNPREPARED: Final = ("The event store's tables are missing; run `assay migrate`.", "store_not_prepared", 5)
# By the server's code of an error, or the class it begins with.
_KNOWN: Final[Mapping[str, tuple[str, str, int]]] = {
    "08": LOST,
    "57P": LOST,
    "57P01": LOST,
    "57P02": LOST,
    "57P03": LOST,
    "25P03": LOST,
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
