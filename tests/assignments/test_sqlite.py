"""The SQLite store keeps the contract, and the memory its bounds."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.assignments.base import Record
from assay.assignments.memory import RecentAssignments
from assay.assignments.sqlite import SqliteAssignments
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
        lambda: run(store.find(1, "u")),
        lambda: run(store.find_many([(1, "u")])),
        lambda: store.page(1, 0, 1),
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


def test_memory_of_which_everything_is_asked_for_forgets_nothing() -> None:
    memory = RecentAssignments(1_000)
    for round_ in range(5):
        for index in range(1_000):
            if round_ == 0:
                memory.put(1, f"u{index}", (index, NOW))
            assert memory.get(1, f"u{index}") == (index, NOW)
    assert memory.held() == (1_000, 5_000, 0)
    assert not memory.forgot


def test_memory_that_forgot_is_never_complete() -> None:
    memory = RecentAssignments(10)
    memory.declare_complete()
    assert memory.complete
    for index in range(11):
        memory.put(1, f"u{index}", (index, NOW))
    assert not memory.complete
    memory.declare_complete()
    assert not memory.complete


def test_earlier_assignments_never_push_out_later_ones() -> None:
    memory = RecentAssignments(3)
    for unit in "abc":
        memory.put(1, unit, (1, NOW))
    assert memory.put_older(1, "d", (2, NOW)) is False
    assert [memory.get(1, unit) for unit in "abcd"] == [(1, NOW), (1, NOW), (1, NOW), None]


def test_filled_memory_knows_who_has_no_record(small: Callable[[int], SqliteAssignments], run: Run) -> None:
    async def put(store: SqliteAssignments) -> None:
        await store.put_many([Record(1, f"u{index}", index, 0, NOW + index) for index in range(10_000)])

    run(put(small(0)))
    roomy, tight = small(10_000), small(9_999)
    assert (run(roomy.fill()), run(tight.fill())) == (10_000, 9_999)
    assert (roomy.complete, tight.complete) == (True, False)
    assert roomy.peek(1, "u0") == (0, NOW)
    assert tight.peek(1, "u0") is None
    assert tight.peek(1, "u9999") == (9_999, NOW + 9_999)
    assert roomy.peek(1, "nobody") is None


def test_rows_imported_past_memory_make_it_incomplete(
    small: Callable[[int], SqliteAssignments], run: Run
) -> None:
    store = small(1_000)
    run(store.fill())
    assert store.complete
    store.import_records([[(1, Record(1, "u", 10, 0, NOW))]], lambda _: None)
    assert not store.complete
    assert run(store.find(1, "u")) == Record(1, "u", 10, 0, NOW)


def test_a_row_imported_again_at_another_time_is_known(
    small: Callable[[int], SqliteAssignments], run: Run
) -> None:
    store = small(0)
    conflicts: list[object] = []
    store.import_records([[(1, Record(1, "u", 10, 0, NOW))]], conflicts.append)
    again = store.import_records([[(1, Record(1, "u", 10, 1, NOW + 5))]], conflicts.append)
    assert (again.inserted, again.known, again.conflicts, conflicts) == (0, 1, 0, [])
    assert run(store.find(1, "u")) == Record(1, "u", 10, 0, NOW)


def test_a_record_erased_before_its_caller_was_told__is_not_remembered(
    small: Callable[[int], SqliteAssignments], run: Run
) -> None:
    store = small(100)

    async def erase_meanwhile() -> None:
        future = store.put(Record(1, "u", 10, 0, NOW))
        # The loop is held up here, so that the record is stored and erased before it hears of either: the
        # first removal may come before the commit, the last comes after it.
        removed = [store.erase("u") for _ in range(3)]
        assert sum(removed) == 1
        await future
        await asyncio.sleep(0)

    run(erase_meanwhile())
    assert run(store.find(1, "u")) is None
    assert store.peek(1, "u") is None
