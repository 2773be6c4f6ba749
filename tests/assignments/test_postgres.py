"""The PostgreSQL store keeps the contract, beside other processes that write the same table."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from assay.assignments.base import Record
from assay.assignments.postgres import PostgresAssignments
from assay.catalog.schema import migrate
from assay.durable.postgres import PostgresWriter
from assay.errors import Unavailable
from contracts.assignment_store import NOW, UNIT_IDS, AssignmentStoreContract, Run
from postgresql import Postgres

Open = Callable[[int], PostgresAssignments]


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate(postgres_url)
    return postgres_url


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs on a loop in a thread of its own, so that the waiting methods can be called from the test's."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        def run(work: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(60)

        yield run
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)


@pytest.fixture
def small(url: str, run: Run) -> Iterator[Open]:
    """Opens a store with a memory of some size, with connections of its own: as another process would."""
    writers: list[PostgresWriter] = []

    def small(size: int) -> PostgresAssignments:
        writer = PostgresWriter({"dsn": url})
        store = PostgresAssignments(writer, size)
        run(writer.start())
        writers.append(writer)
        return store

    yield small
    for writer in writers:
        run(writer.close())


@pytest.fixture
def store(small: Open) -> PostgresAssignments:
    return small(100_000)


@pytest.fixture
def reopened(small: Open) -> Callable[[], PostgresAssignments]:
    return lambda: small(100)


class TestPostgresAssignments(AssignmentStoreContract):
    """All of the contract."""

    # Hypothesis wants a function of its own for each class that is run in one process.
    @given(unit_id=UNIT_IDS)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_any_unit_id_comes_back_as_it_was(self, store: Any, run: Run, unit_id: str) -> None:
        AssignmentStoreContract.test_any_unit_id_comes_back_as_it_was.hypothesis.inner_test(  # type: ignore[attr-defined]
            self, store, run, unit_id
        )


async def put_all(store: PostgresAssignments, records: list[Record]) -> list[Record]:
    return list(await asyncio.gather(*(store.put(record) for record in records)))


def test_processes_that_write_the_same_units_agree_on_every_one(small: Open, run: Run) -> None:
    stores = [small(0) for _ in range(4)]
    units = [f"u{number}" for number in range(300)]

    async def race() -> list[list[Record]]:
        proposals = [
            [Record(1, unit, variant, 0, NOW + variant) for unit in units[:: 1 if variant % 2 else -1]]
            for variant in range(4)
        ]
        pairs = zip(stores, proposals, strict=True)
        return list(await asyncio.gather(*(put_all(store, proposed) for store, proposed in pairs)))

    answers = run(race())
    agreed = {(record.unit_id, record) for answer in answers for record in answer}
    assert len(agreed) == len(units)
    assert {record for _, record in stores[0].page(1, 0, 1_000)} == {record for _, record in agreed}


def test_records_that_exist_use_no_number_of_the_sequence(store: PostgresAssignments, run: Run) -> None:
    for _ in range(5):
        run(put_all(store, [Record(1, f"u{number}", 10, 0, NOW) for number in range(100)]))
    run(put_all(store, [Record(2, "next", 10, 0, NOW)]))
    assert [seq for seq, _ in store.page(2, 0, 10)] == [101]


def test_a_request_that_is_cancelled_keeps_its_row_and_its_neighbours(
    store: PostgresAssignments, run: Run
) -> None:
    async def journey() -> Record:
        leaving, staying = store.put(Record(1, "a", 1, 0, NOW)), store.put(Record(1, "b", 2, 0, NOW))
        leaving.cancel()
        return await staying

    assert run(journey()) == Record(1, "b", 2, 0, NOW)
    assert run(store.find(1, "a")) == Record(1, "a", 1, 0, NOW)


def test_filling_takes_the_latest_records_that_there_is_room_for(small: Open, run: Run) -> None:
    run(small(0).put_many([Record(1, f"u{number}", number, 0, NOW + number) for number in range(4_500)]))
    roomy, tight = small(10_000), small(2_500)
    assert (run(roomy.fill()), run(tight.fill())) == (4_500, 2_500)
    assert (roomy.peek(1, "u0"), tight.peek(1, "u0")) == ((0, NOW), None)
    assert tight.peek(1, "u4499") == (4_499, NOW + 4_499)
    assert (roomy.complete, tight.complete) == (False, False)


def test_what_another_process_removed_is_forgotten_when_told(small: Open, run: Run) -> None:
    here, there = small(100), small(100)
    run(here.put_many([Record(experiment, unit, 1, 0, NOW) for experiment in (1, 2) for unit in "uv"]))
    assert there.erase("u") == 2
    assert there.purge(2) == 1
    assert here.peek(1, "u") == (1, NOW)
    here.forget_unit("u")
    here.forget_experiment(2)
    assert [here.peek(1, "u"), here.peek(2, "v"), here.peek(1, "v")] == [None, None, (1, NOW)]
    anew = Record(1, "u", 5, 1, NOW + 9)
    assert run(put_all(here, [anew])) == [anew]


def test_erased_while_memory_is_filled_stays_erased(small: Open, run: Run) -> None:
    run(small(0).put_many([Record(1, f"u{number}", 1, 0, NOW) for number in range(20_000)]))
    store = small(100_000)

    async def fill_and_erase() -> int:
        filling = asyncio.create_task(store.fill())
        removed = await asyncio.gather(*(asyncio.to_thread(store.erase, f"u{n}") for n in (0, 9_999, 19_999)))
        await filling
        return sum(removed)

    assert run(fill_and_erase()) == 3
    assert [store.peek(1, f"u{number}") for number in (0, 9_999, 19_999)] == [None] * 3
    assert store.peek(1, "u5000") == (1, NOW)


def test_a_table_planned_when_it_was_empty_is_read_by_its_key(
    store: PostgresAssignments, postgres: Postgres, url: str, run: Run
) -> None:
    database = url.rpartition("/")[2]
    for number in range(10):  # more often than PostgreSQL plans a statement anew
        run(put_all(store, [Record(1, f"first{number}", 1, 0, NOW)]))
    run(store.put_many([Record(1, f"u{number}", 1, 0, NOW) for number in range(5_000)]))
    run(put_all(store, [Record(1, f"u{number}", 2, 0, NOW) for number in range(1_000)]))
    run(store.find_many([(1, f"u{number}") for number in range(1_000)]))
    postgres.execute("SELECT pg_stat_force_next_flush()", database)
    scans = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'assignments'"
    assert postgres.execute(scans, database) == [(0,)]


def test_a_table_that_is_missing_is_named(store: PostgresAssignments, postgres: Postgres, url: str) -> None:
    postgres.execute("DROP TABLE assignments", url.rpartition("/")[2])
    with pytest.raises(Unavailable, match='relation "assignments" does not exist'):
        store.page(1, 0, 1)
