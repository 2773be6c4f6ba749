"""PostgreSQL as the catalog uses it: connections, the writers' turn, and errors in one sentence.

Everything that is set lasts one transaction, and no lock outlives it, so that a pooler in transaction mode
may give the connection to somebody else in between.
"""

from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.orm import Session

from assay.durable.watched import Away, never, watched
from assay.errors import AssayError, Invalid, Unavailable

#: The lock that whoever changes the catalog or its tables holds until the end of the transaction.
_WRITERS = 0x41535341595F01  # "ASSAY_" and a number
_WAIT_SECONDS = 10
_STATEMENT_SECONDS = 60
#: A writer that has hung keeps all others waiting no longer than this.
_IDLE_SECONDS = 30
#: Of libpq, where the URL says nothing else: give up early, and notice a machine that is gone.
_CONNECTION = {
    "connect_timeout": 5,
    "fallback_application_name": "assay",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: After so many uses a statement is prepared, which is what the driver does by itself.
_USES = 5


def is_url(database: str) -> bool:
    """Whether this is the URL of a PostgreSQL."""
    return database.startswith("postgresql://")


def connect(url: str, *, prepared: bool = True, away: Away = never) -> Any:
    """A connection of the driver, which is loaded with the first one.

    It waits for its server as long as it takes, but not when `away` says, asked ten times a second, that
    nobody there answers.
    """
    kind = watched()
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - not needed where SQLite is the database

    if away():
        raise kind.silent()
    settings: dict[str, Any] = {**_CONNECTION, **conninfo_to_dict(url), "client_encoding": "UTF8"}
    connection = kind.connect(**settings, prepare_threshold=_USES if prepared else None)
    connection.away = away
    return connection


def open_engine(url: str, *, read_only: bool, prepared: bool, away: Away | None = None) -> Engine:
    """Connections that are tried before each use, so that a database that was restarted does no harm.

    A reader sees one moment. A writer sees what was committed before each statement: it waits for its turn
    first, and must see what those before it did. For `away` see `connect`.
    """

    def made() -> Any:
        connection = connect(url, prepared=prepared, away=away or never)
        connection.read_only = read_only
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=made,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        use_native_hstore=False,  # would be one more question for each worker at its start
        pool_pre_ping=True,
        pool_timeout=_WAIT_SECONDS,
        pool_size=2,
        max_overflow=8 if read_only else 2,
    )


def limit(tx: Session | Connection) -> None:
    """Bound what each statement of this transaction may take."""
    tx.execute(text(f"SELECT set_config('statement_timeout', '{_STATEMENT_SECONDS}s', true)"))


def take_turn(tx: Session | Connection, *, wait_seconds: int = _WAIT_SECONDS, bounded: bool = True) -> None:
    """Wait until no other transaction of any machine writes the catalog; the turn ends with this one.

    Without `bounded` the statements that follow may take as long as they need.
    """
    seconds = _STATEMENT_SECONDS if bounded else 0
    tx.execute(
        text(
            f"SELECT set_config('lock_timeout', '{wait_seconds}s', true), "
            f"set_config('statement_timeout', '{seconds}s', true), "
            f"set_config('idle_in_transaction_session_timeout', '{_IDLE_SECONDS}s', true), "
            f"pg_advisory_xact_lock({_WRITERS})"
        )
    )


#: By the first characters of SQLSTATE, the longest first: code, sentence, seconds after which to try again.
_SENTENCES = {
    "40001": ("database_busy", "Somebody else changed the same rows: nothing was stored.", 1),
    "40P01": ("database_busy", "Somebody else changed the same rows: nothing was stored.", 1),
    "55P03": ("database_busy", "Others are writing to the database: nothing was stored.", 1),
    "57014": ("database_timeout", "The database took too long: nothing was stored.", 2),
    "25P03": ("database_timeout", "The transaction was left waiting too long: nothing was stored.", 2),
    "25006": ("database_read_only", "The database is read-only: nothing was stored.", 5),
    "53100": ("database_full", "The disk of the database is full: nothing was stored.", 5),
    "53300": ("database_connections", "The database takes no more connections ({said}).", 2),
    "42P01": ("database_not_migrated", "The database lacks tables: run assay migrate.", 5),
    "42703": ("database_not_migrated", "The database lacks columns: run assay migrate.", 5),
    "42P07": ("database_taken", "The database holds something else of that name: {said}.", 5),
    "42501": ("database_forbids", "The database does not let this user do that: {said}.", 5),
}


def spoken(error: DBAPIError, *, committing: bool = False) -> AssayError | None:
    """What an error of the driver means to a caller; None for our own mistakes, as broken constraints."""
    if isinstance(error, DataError):
        return Invalid(
            f"A value is not one that the database can hold: {_said(error)}.", code="value_not_storable"
        )
    state = getattr(error.orig, "sqlstate", None)
    if state in _SENTENCES:
        code, sentence, again = _SENTENCES[state]
        return Unavailable(sentence.format(said=_said(error)), code=code, retry_after=again)
    if state is not None and not state.startswith(("08", "28", "3D", "53", "57", "58", "XX")):
        return None
    if committing:
        return Unavailable(
            "The connection to PostgreSQL broke while a change was stored: it may be there; look before "
            "repeating it.",
            code="database_in_doubt",
            retry_after=2,
        )
    return Unavailable(
        f"PostgreSQL cannot be used: {_said(error)}.", code="database_unreachable", retry_after=2
    )


def _said(error: DBAPIError) -> str:
    """The first line of what the driver says, without its preface."""
    line = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
    for preface in ("connection failed: ", "connection is bad: "):
        line = line.removeprefix(preface)
    return line.rstrip(".")[:300]
