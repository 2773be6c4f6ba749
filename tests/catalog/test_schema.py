"""One chain of migrations, and tables that agree with it."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from assay.catalog import schema
from assay.catalog.database import ReadTx, open_engine, sqlite_url
from assay.catalog.tables import Experiment, Layer, LayerSlots, Phase, Table
from assay.errors import Conflict, Unavailable
from catalog.conftest import file_of
from postgresql import Postgres


def layout(url: str) -> dict[str, object]:
    """Columns, keys and indexes of every table, whatever their DDL was written like."""
    if url.startswith("postgresql"):
        return _layout_of_a_server(url)
    with contextlib.closing(sqlite3.connect(file_of(url))) as connection:
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


def _layout_of_a_server(url: str) -> dict[str, object]:
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        columns = "column_name, data_type, character_maximum_length, is_nullable, collation_name"
        numbering = "is_identity, identity_generation, column_default"
        questions = [
            f"SELECT {columns}, {numbering} FROM information_schema.columns WHERE table_name = %s",
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass",
            "SELECT indexdef FROM pg_indexes WHERE tablename = %s",
        ]
        return {
            table: [sorted(map(str, connection.execute(each, [table]).fetchall())) for each in questions]
            for (table,) in tables
        }


def run(url: str, *statements: str) -> None:
    engine = open_engine(url, read_only=False)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def by_the_chain(url: str) -> None:
    engine = open_engine(url, read_only=False)
    with engine.begin() as connection:
        schema._upgrade(connection)
    engine.dispose()


@pytest.fixture
def other_url(empty_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """One more empty database of the same kind."""
    if empty_url.startswith("sqlite"):
        yield sqlite_url(tmp_path / "other.db")
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        with postgres.database() as found:
            yield found


def test_the_chain_and_the_tables_agree(empty_url: str) -> None:
    by_the_chain(empty_url)
    engine = open_engine(empty_url, read_only=True)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_an_empty_database_gets_what_the_chain_would_make(empty_url: str, other_url: str) -> None:
    by_the_chain(empty_url)
    schema.migrate(other_url)
    chain, direct = layout(empty_url), layout(other_url)
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


def test_whether_a_server_is_current(postgres_url: str) -> None:
    assert not schema.is_current(postgres_url)
    schema.migrate(postgres_url)
    assert schema.is_current(postgres_url)
    schema.migrate(postgres_url)
    assert schema.is_current(postgres_url)


def test_an_older_database_is_brought_forward(empty_url: str) -> None:
    engine = open_engine(empty_url, read_only=False)
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(text("INSERT INTO catalog_version (id, version) VALUES (1, 7)"))
    assert not schema.is_current(empty_url if "postgresql" in empty_url else file_of(empty_url))
    schema.migrate(empty_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version FROM catalog_version")) == 7
        assert connection.scalar(text("SELECT count(*) FROM leases")) == 0
    engine.dispose()


def test_ranges_of_layers_become_slots(empty_url: str) -> None:
    engine = open_engine(empty_url, read_only=False)
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    row = text(
        "INSERT INTO experiments (id, key, name, description, hypothesis, status, unit, coverage, layer, "
        "metrics, significance_level, power, analysis, created_at, updated_at, phase, version) VALUES "
        "(:id, :key, 'n', '', '', :status, 'user_id', 1, :layer, '[]', 0.05, 0.8, '{}', '2026-11-01', "
        "'2026-11-01', 1, 1)"
    )
    phase = text(
        "INSERT INTO phases (experiment_id, number, started_at, coverage, allocations, layer, segments) "
        "VALUES (1, 1, '2026-11-01', 1, '[]', :layer, '[]')"
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for number, status, low, high in (
            (1, "running", 0, 0.25),
            (2, "draft", 0.5, 1.0),
            (3, "stopped", 0, 1),
        ):
            layer = json.dumps({"key": "page", "low": low, "high": high})
            given = {"id": number, "key": f"e{number}", "status": status, "layer": layer}
            connection.execute(row, given)
        connection.execute(phase, {"layer": json.dumps({"key": "page", "low": 0, "high": 0.25})})
    schema.migrate(empty_url)
    with ReadTx(engine) as tx:
        (made,) = tx.scalars(select(Layer))
        assert (made.key, made.unit, made.wash_out, made.version) == ("page", "user_id", "7d", 1)
        found = {each.id: each.layer for each in tx.scalars(select(Experiment))}
        share = {"id": made.id, "key": "page"}
        assert found == {
            1: {**share, "share": 0.25, "slots": [[0, 2500]]},
            2: {**share, "share": 0.5, "slots": []},
            3: {**share, "share": 1.0, "slots": []},
        }
        (held,) = tx.scalars(select(LayerSlots))
        assert (held.experiment_id, held.low, held.high, held.released_at) == (1, 0, 2500, None)
        assert tx.scalars(select(Phase)).one().layer == found[1]
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    schema.migrate(empty_url)
    engine = open_engine(empty_url, read_only=False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    assert not schema.is_current(empty_url if "postgresql" in empty_url else file_of(empty_url))
    with pytest.raises(Conflict) as caught:
        schema.migrate(empty_url)
    assert caught.value.code == "database_newer"
    assert caught.value.detail.startswith(
        "The database has revision 9999, which this version of Assay does not"
    )


def test_many_that_start_at_once_migrate_once(postgres_url: str) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            schema.migrate(postgres_url)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert schema.is_current(postgres_url)


@pytest.mark.parametrize("names", [["users"], ["audit", "other", "templates"]])
def test_names_that_another_program_uses_are_refused(empty_url: str, names: list[str]) -> None:
    run(empty_url, *(f"CREATE TABLE {name} (id INT)" for name in names))
    with pytest.raises(Conflict) as caught:
        schema.migrate(empty_url)
    taken = ", ".join(name for name in names if name != "other")
    assert caught.value.code == "database_taken"
    assert f"with names that Assay uses: {taken}. Give Assay an empty database" in caught.value.detail
    assert set(layout(empty_url)) == set(names)


def test_another_program_that_uses_alembic_is_told_from_a_newer_version(empty_url: str) -> None:
    run(
        empty_url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('ae1027a6acf')",
    )
    with pytest.raises(Conflict, match="names that Assay uses: alembic_version"):
        schema.migrate(empty_url)


def test_other_tables_of_another_program_are_left_alone_and_mentioned(empty_url: str) -> None:
    run(empty_url, "CREATE TABLE other (id INT)")
    with structlog.testing.capture_logs() as logged:
        schema.migrate(empty_url)
    assert [(each["event"], each["tables"]) for each in logged] == [("database.shared", "other")]
    assert {"other", *Table.metadata.tables} < set(layout(empty_url))


def test_a_server_that_lost_a_table_is_neither_current_nor_migrated(postgres_url: str) -> None:
    schema.migrate(postgres_url)
    run(postgres_url, "DROP TABLE leases", "DROP TABLE templates")
    for work in (schema.is_current, schema.migrate):
        with pytest.raises(Conflict, match="has lost these tables since: leases, templates") as caught:
            work(postgres_url)
        assert caught.value.code == "database_incomplete"


def test_who_may_not_create_tables_hears_what_to_grant(postgres: Postgres, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f'CREATE ROLE "{name}" LOGIN')
    mine = postgres_url.replace("postgres@", f"{name}@")
    with pytest.raises(Unavailable, match=f"GRANT CREATE ON SCHEMA public TO {name}") as caught:
        schema.migrate(mine)
    assert caught.value.code == "database_forbids"
    with pytest.raises(Unavailable, match="no schema that the user"):
        schema.migrate(f"{mine}?options=-c%20search_path%3Dassay")
    run(postgres_url, f'CREATE SCHEMA assay AUTHORIZATION "{name}"')
    schema.migrate(f"{mine}?options=-c%20search_path%3Dassay")
    run(postgres_url, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


def test_a_server_without_unicode_is_refused(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(Conflict) as caught:
        schema.migrate(postgres.url("latin"))
    assert (caught.value.code, "LATIN1" in caught.value.detail) == ("database_encoding", True)


@pytest.mark.parametrize(
    "table",
    [
        *("experiments", "variants", "segments", "api_keys", "audit", "assignments", "inbox", "erasures"),
        *("metric_definitions", "templates"),
    ],
)
def test_ids_are_never_reused(url: str, table: str) -> None:
    if url.startswith("postgresql"):
        column = "seq" if table in {"assignments", "inbox"} else "id"
        with psycopg.connect(url) as server:
            found = server.execute(
                "SELECT identity_generation FROM information_schema.columns "
                "WHERE table_name = %s AND column_name = %s",
                [table, column],
            ).fetchone()
        assert found == ("BY DEFAULT",)
        return
    with contextlib.closing(sqlite3.connect(file_of(url))) as connection:
        (ddl,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    assert "PRIMARY KEY AUTOINCREMENT" in ddl


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    schema.migrate(sqlite_url(tmp_path / "assay.db"))
    with contextlib.closing(sqlite3.connect(tmp_path / "assay.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
