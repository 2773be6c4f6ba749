"""A catalog on a real file and on a real PostgreSQL, with a clock that stands where a test puts it."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import set_json_loads

from assay.bucketing.ruleset import Experiment as Compiled
from assay.bucketing.ruleset import Ruleset
from assay.catalog import documents, experiments, layers, schema
from assay.catalog.checks import parse
from assay.catalog.database import Actor, Database, ReadTx, WriteTx, sqlite_url
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.catalog.publish import Publisher
from assay.catalog.tables import Table
from assay.durable.writer import SqliteWriter
from assay.published import KeyRing, Published
from postgresql import Postgres

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


@dataclass
class Catalog:
    """A database, what it publishes, and shortcuts for what tests do all the time."""

    url: str
    database: Database
    published: Published
    now: datetime = NOON

    def later(self, **delta: float) -> datetime:
        """Let time pass."""
        self.now += timedelta(**delta)
        return self.now

    @contextlib.contextmanager
    def write(self, actor: str = "ada") -> Iterator[WriteTx]:
        with self.database.writing(Actor(actor, 7, "req-1"), self.now) as tx:
            yield tx

    @contextlib.contextmanager
    def read(self) -> Iterator[ReadTx]:
        with self.database.reading() as tx:
            yield tx

    def create(self, **fields: Any) -> int:
        """A new experiment; returns its id."""
        with self.write() as tx:
            return experiments.create(tx, parse(ExperimentCreate, {"name": "Test", **fields})).id

    def layer(self, **fields: Any) -> int:
        """A new layer; returns its id."""
        with self.write() as tx:
            return layers.create(tx, parse(layers.LayerInput, {"name": "Layer", **fields})).id

    def running(self, **fields: Any) -> int:
        """A new experiment that runs."""
        return self.create(**{"variants": HALVES, "status": "running", **fields})

    def edit(self, experiment: int | str, **fields: Any) -> documents.ExperimentDocument:
        with self.write() as tx:
            experiments.edit(tx, find(tx, experiment), parse(ExperimentEdit, fields))
        return self.document(experiment)

    def document(self, experiment: int | str) -> documents.ExperimentDocument:
        with self.read() as tx:
            return documents.experiment(find(tx, experiment))

    def compiled(self, experiment: int | str) -> Compiled:
        """The experiment as published."""
        found = self.published.ruleset.find(experiment)
        assert found is not None
        return found

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What another program would find in the database, or does to it; JSON as the text it is."""
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(file_of(self.url))) as connection, connection:
                return connection.execute(sql, values).fetchall()
        with psycopg.connect(self.url) as server:
            set_json_loads(bytes.decode, server)
            cursor = server.execute(sql.replace("?", "%s") if values else sql, values or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def allocations(self, experiment: int | str) -> Mapping[str, float]:
        return {each["key"]: each["allocation"] for each in self.document(experiment)["variants"]}


def file_of(url: str) -> Path:
    """The file that a SQLite URL names."""
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, or of a file that is not there yet."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "assay.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture(scope="session")
def lasting_url(postgres: Postgres) -> Iterator[str]:
    """A PostgreSQL database with all tables, which tests empty rather than make anew: ten times as quick."""
    with postgres.database() as found:
        schema.migrate(found)
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with all tables and nothing in them."""
    if request.param == "sqlite":
        schema.migrate(sqlite_url(tmp_path / "assay.db"))
        return sqlite_url(tmp_path / "assay.db")
    found: str = request.getfixturevalue("lasting_url")
    tables = ", ".join(Table.metadata.tables)
    with psycopg.connect(found) as server:
        server.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")  # type: ignore[arg-type]
    return found


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], Catalog]]:
    """Opens the database, as one more process would."""
    with contextlib.ExitStack() as stack:
        writer = None
        if url.startswith("sqlite"):
            writer = SqliteWriter(file_of(url))
            writer.start()
            stack.callback(writer.close)

        def build() -> Catalog:
            published = Published(Ruleset(), KeyRing([]))
            publish = Publisher(published).publish
            turn = writer.turn if writer is not None else contextlib.nullcontext
            database = Database(url, turn=turn, publish=publish)
            stack.callback(database.close)
            database.refresh(NOON)
            return Catalog(url, database, published)

        yield build


@pytest.fixture
def catalog(opened: Callable[[], Catalog]) -> Catalog:
    """The one that most tests use."""
    return opened()
