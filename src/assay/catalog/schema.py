"""Bring a database to the newest tables.

Alembic takes half a second to import, which is a third of what starting the server may take. So it is
left out where it has nothing to do: `is_current` compares revisions with the plain driver, and an empty
database gets the newest tables at once instead of the whole chain. A test holds the two ways equal.
"""

import contextlib
import functools
import sqlite3
from pathlib import Path

import structlog
from sqlalchemy import Connection, inspect, text

from assay.catalog import postgres
from assay.catalog.database import open_engine, spoken_errors
from assay.catalog.tables import Table
from assay.errors import Conflict, Unavailable

_log = structlog.get_logger("assay.catalog")

_MIGRATIONS = Path(__file__).parent / "migrations"


#: Seconds that one starting server waits for another that is migrating the same PostgreSQL.
_PATIENCE = 600


@functools.cache
def head() -> str:
    """The newest revision; migration files are named `<revision>_<pre|post>_<what>.py`."""
    return max(_revisions())


def _revisions() -> frozenset[str]:
    return frozenset(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def is_current(database: str | Path) -> bool:
    """Whether the SQLite file, or the PostgreSQL with this URL, already has the newest tables.

    Raises `Unavailable` for a PostgreSQL that cannot be asked, and `Conflict` for one that has lost tables.
    """
    if isinstance(database, str) and postgres.is_url(database):
        engine = open_engine(database, read_only=True, prepared=False)
        try:
            with spoken_errors(), engine.connect() as connection:
                if _revision(connection) != head():
                    return False
                _expect_whole(connection)
                return True
        finally:
            engine.dispose()
    if not Path(database).exists():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=ro", uri=True)
        ) as file:
            return file.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(),)]
    except sqlite3.Error:
        return False


def migrate(url: str) -> None:
    """Bring the database to the newest revision, in one transaction; others that start meanwhile wait.

    Tables of other programs stay as they are. Raises `Conflict` for a database that a newer version of the
    program has migrated, that cannot hold every text, that has lost tables, or where other programs use the
    same names; and `Unavailable` for a PostgreSQL that cannot be used.
    """
    engine = open_engine(url, read_only=False, prepared=False)
    server = postgres.is_url(url)
    try:
        with spoken_errors() if server else contextlib.nullcontext(), engine.begin() as connection:
            if server:
                postgres.take_turn(connection, wait_seconds=_PATIENCE, bounded=False)
                _expect_unicode(connection)
            revision = _revision(connection)
            if revision == head():
                _expect_whole(connection)
                return
            if revision not in _revisions():
                _expect_ours(connection, revision)
            if server:
                _expect_right_to_create(connection)
            if inspect(connection).has_table("alembic_version"):
                _upgrade(connection)
            else:
                _create(connection)
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    """The revision of the tables; None where nothing was ever migrated."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
    return found


def _expect_whole(connection: Connection) -> None:
    """Refuse a database whose newest tables are not all there: nothing here could bring them back."""
    lost = sorted(set(Table.metadata.tables) - set(inspect(connection).get_table_names()))
    if lost:
        raise Conflict(
            f"The database was brought to revision {head()}, and has lost these tables since: "
            f"{', '.join(lost)}. Restore a backup of it.",
            code="database_incomplete",
        )


def _expect_ours(connection: Connection, revision: str | None) -> None:
    """Refuse tables of somebody else with names that are needed here, and tables of a newer version."""
    found = set(inspect(connection).get_table_names()) - {"alembic_version"}
    taken = sorted(found & set(Table.metadata.tables))
    if revision is not None and taken:
        raise Conflict(
            f"The database has revision {revision}, which this version of Assay does not know "
            f"(its newest is {head()}): start the version that made it, or one that is newer.",
            code="database_newer",
        )
    if revision is not None:
        taken = ["alembic_version"]
    if taken:
        raise Conflict(
            "The database holds tables of another program with names that Assay uses: "
            f"{', '.join(taken)}. Give Assay an empty database, or, on PostgreSQL, a schema of its own with "
            "?options=-c%20search_path%3Dassay at the end of the URL.",
            code="database_taken",
        )
    if found:
        shown = ", ".join(sorted(found)[:10])
        _log.warning("database.shared", reason="tables of another program are left as they are", tables=shown)


def _expect_right_to_create(connection: Connection) -> None:
    user, schema, path = connection.execute(
        text(
            "SELECT quote_ident(current_user), quote_ident(current_schema()), current_setting('search_path')"
        )
    ).one()
    if schema is None:
        raise Unavailable(
            f"The database has no schema that the user {user} may use (search_path is {path}): CREATE SCHEMA "
            f"assay AUTHORIZATION {user}, and name it by ?options=-c%20search_path%3Dassay in the URL.",
            code="database_forbids",
            retry_after=5,
        )
    if not connection.scalar(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")):
        raise Unavailable(
            f"The user {user} may not create tables in the schema {schema}: GRANT CREATE ON SCHEMA {schema} "
            f"TO {user}, or make {user} the owner of the database.",
            code="database_forbids",
            retry_after=5,
        )


def _expect_unicode(connection: Connection) -> None:
    encoding = connection.scalar(text("SELECT current_setting('server_encoding')"))
    if encoding != "UTF8":
        raise Conflict(
            f"The database has the encoding {encoding}, which cannot hold every text: make one with "
            "ENCODING 'UTF8'.",
            code="database_encoding",
        )


def _create(connection: Connection) -> None:
    Table.metadata.create_all(connection, checkfirst=False)
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": head()})


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - see the module's first lines
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS))
    command.upgrade(config, "head")
