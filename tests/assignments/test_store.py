"""The SQLite store keeps the contract, and the memory its bounds."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.assignments.memory import RecentAssignments
from assay.assignments.store import Record, SqliteAssignments
from assay.durable.writer import SqliteWriter
from assay.errors import Unavailable
from contracts.assignment_store import NOW, AssignmentStoreContract, Run
from contracts.embedded import make_hot_tables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "assay.db"
    make_hot_tables(path)
    return path


@pytest.fixture
def run() -> Iterator[Run]:
    loop = asyncio.new_event_loop()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(work)

    yield run
    loop.close()


@pytest.fixture
def writer(path: Path) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(path)
    writer.start()
    yield writer
    writer.close()


@pytest.fixture
def small(writer: SqliteWriter, path: Path) -> Iterator[Callable[[int], SqliteAssignments]]:
    opened: list[SqliteAssignments] = []

    def small(size: int) -> SqliteAssignments:
        opened.append(SqliteAssignments(writer, path, size))
        return opened[-1]

    yield small
    for store in opened:
        store.close()


@pytest.fixture
def store(small: Callable[[int], SqliteAssignments]) -> SqliteAssignments:
    return small(100_000)


@pytest.fixture
def reopened(
    writer: SqliteWriter, path: Path, small: Callable[[int], SqliteAssignments]
) -> Callable[[], SqliteAssignments]:
    def reopened() -> SqliteAssignments:
        writer.close()
        return small(100)

    return reopened


class TestSqliteAssignments(AssignmentStoreContract):
    """All of the contract."""


def test_a_put_after_closing_is_refused(store: SqliteAssignments, writer: SqliteWriter, run: Run) -> None:
    writer.close()

    async def put() -> None:
        with pytest.raises(Unavailable, match="shutting down"):
            store.put(Record(1, "u", 10, 0, NOW))

    run(put())


def test_a_failed_put_is_not_remembered(store: SqliteAssignments, writer: SqliteWriter, run: Run) -> None:
    writer.run(lambda connection: connection.execute("DROP TABLE assignments"))

    async def put() -> None:
        with pytest.raises(Unavailable):
            await store.put(Record(1, "u", 10, 0, NOW))

    run(put())
    assert store.peek(1, "u") is None
    for question in (
        lambda: store.find(1, "u"),
        lambda: store.find_many([(1, "u")]),
        lambda: store.count_by_variant(1),
    ):
        with pytest.raises(Unavailable):
            question()


def test_memory_keeps_what_is_asked_for() -> None:
    memory = RecentAssignments(20)
    for index in range(1_000):
        memory.put(1, f"u{index}", (index, NOW))
        assert memory.get(1, "u0") == (0, NOW)
        assert memory.held().entries <= 20
    assert memory.get(1, "u500") is None
    assert memory.held().hits == 1_000
    assert memory.held().misses == 1


def test_memory_forgets_experiments_and_units() -> None:
    memory = RecentAssignments(100)
    for experiment in (1, 2):
        for unit in "uv":
            memory.put(experiment, unit, (experiment, NOW))
    memory.forget_unit("u")
    memory.forget_experiment(2)
    assert [memory.get(experiment, unit) for experiment in (1, 2) for unit in "uv"] == [
        None,
        (1, NOW),
        None,
        None,
    ]
    assert memory.held().entries == 1


def test_writing_the_same_entry_again_takes_no_room() -> None:
    memory = RecentAssignments(4)
    for _ in range(10):
        memory.put(1, "u", (1, NOW))
    assert memory.held().entries == 1
