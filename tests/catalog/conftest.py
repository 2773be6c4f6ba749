"""A catalog on a real file, with a clock that stands where a test puts it."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from assay.bucketing.ruleset import Experiment as Compiled
from assay.bucketing.ruleset import Ruleset
from assay.catalog import documents, experiments, schema
from assay.catalog.checks import parse
from assay.catalog.database import Actor, Database, ReadTx, WriteTx, sqlite_url
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.catalog.publish import Publisher
from assay.durable.writer import SqliteWriter
from assay.published import KeyRing, Published

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


@dataclass
class Catalog:
    """A database, what it publishes, and shortcuts for what tests do all the time."""

    path: Path
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
        """What another program would find in the file."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()

    def allocations(self, experiment: int | str) -> Mapping[str, float]:
        return {each["key"]: each["allocation"] for each in self.document(experiment)["variants"]}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    path = tmp_path / "assay.db"
    schema.migrate(sqlite_url(path))
    writer = SqliteWriter(path)
    writer.start()
    published = Published(Ruleset(), KeyRing([]))
    database = Database(sqlite_url(path), turn=writer.turn, publish=Publisher(published).publish)
    database.refresh(NOON)
    yield Catalog(path, database, published)
    database.close()
    writer.close()
