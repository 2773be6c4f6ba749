"""Bring a database to the newest tables.

Alembic takes half a second to import, which is a third of what starting the server may take. So it is
left out where it has nothing to do: `is_current` compares revisions with plain sqlite3, and an empty
database gets the newest tables at once instead of the whole chain. A test holds the two ways equal.
"""

import contextlib
import functools
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from assay.catalog.database import open_engine
from assay.catalog.tables import Table

_MIGRATIONS = Path(__file__).parent / "migrations"


@functools.cache
def head() -> str:
    """The newest revision; migration files are named `<revision>_<pre|post>_<what>.py`."""
    return max(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def is_current(path: str | Path) -> bool:
    """Whether the SQLite file at `path` already has the newest tables."""
    if not Path(path).exists():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(),)]
    except sqlite3.Error:
        return False


def migrate(url: str) -> None:
    """Bring the database to the newest revision, in one transaction."""
    engine = open_engine(url, read_only=False)
    try:
        with engine.begin() as connection:
            if inspect(connection).get_table_names():
                _upgrade(connection)
            else:
                _create(connection)
    finally:
        engine.dispose()


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
