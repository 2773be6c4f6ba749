"""One chain of migrations, and tables that agree with it."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from assay.catalog import schema
from assay.catalog.database import open_engine, sqlite_url
from assay.catalog.tables import Table


def layout(path: Path) -> dict[str, object]:
    """Columns, keys and indexes of every table, whatever their DDL was written like."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
            if not name.startswith("sqlite_")
        ]
        return {
            table: [
                sorted(str(row[1:]) for row in connection.execute(f"PRAGMA {pragma}({table})"))
                for pragma in ("table_info", "foreign_key_list", "index_list")
            ]
            for table in tables
        }


def by_the_chain(path: Path) -> None:
    engine = open_engine(sqlite_url(path), read_only=False)
    with engine.begin() as connection:
        schema._upgrade(connection)
    engine.dispose()


def test_the_chain_and_the_tables_agree(tmp_path: Path) -> None:
    by_the_chain(tmp_path / "chain.db")
    engine = open_engine(sqlite_url(tmp_path / "chain.db"), read_only=True)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_an_empty_database_gets_what_the_chain_would_make(tmp_path: Path) -> None:
    by_the_chain(tmp_path / "chain.db")
    schema.migrate(sqlite_url(tmp_path / "direct.db"))
    chain, direct = layout(tmp_path / "chain.db"), layout(tmp_path / "direct.db")
    assert chain.keys() == direct.keys()
    for table, columns in chain.items():
        if table != "alembic_version":
            assert direct[table] == columns, table


def test_the_newest_revision_is_what_alembic_says(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [schema.head()]
    for revision in script.walk_revisions():
        assert Path(revision.path).name.split("_")[1] in {"pre", "post"}


def test_whether_a_file_is_current(tmp_path: Path) -> None:
    path = tmp_path / "assay.db"
    assert not schema.is_current(path)
    assert not path.exists()
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    assert not schema.is_current(path)
    path.unlink()
    sqlite3.connect(path).close()
    assert not schema.is_current(path)
    schema.migrate(sqlite_url(path))
    assert schema.is_current(path)
    schema.migrate(sqlite_url(path))
    assert schema.is_current(path)


@pytest.mark.parametrize(
    "table", ["experiments", "variants", "segments", "api_keys", "audit", "assignments", "inbox"]
)
def test_ids_are_never_reused(tmp_path: Path, table: str) -> None:
    schema.migrate(sqlite_url(tmp_path / "assay.db"))
    with contextlib.closing(sqlite3.connect(tmp_path / "assay.db")) as connection:
        (ddl,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    assert "PRIMARY KEY AUTOINCREMENT" in ddl


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    schema.migrate(sqlite_url(tmp_path / "assay.db"))
    with contextlib.closing(sqlite3.connect(tmp_path / "assay.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
