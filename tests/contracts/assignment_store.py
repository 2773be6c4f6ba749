"""What every store of assignments promises, as tests that each one inherits."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.assignments.base import Conflict, Imported, Record

NOW = 1_790_000_000_000_000
UNIT_IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class AssignmentStoreContract:
    """Inherit and give the fixtures `store`, `small`, `reopened` (the same data, opened again) and `run`."""

    def put(self, run: Run, store: Any, *records: Record) -> list[Record]:
        async def all_at_once() -> list[Record]:
            return list(await asyncio.gather(*(store.put(record) for record in records)))

        return run(all_at_once())

    def test_the_first_record_of_a_unit_stays(self, store: Any, run: Run) -> None:
        first, second = Record(1, "u", 10, 0, NOW), Record(1, "u", 11, 1, NOW + 5)
        assert self.put(run, store, first) == [first]
        assert self.put(run, store, second) == [first]
        assert run(store.find(1, "u")) == first
        assert store.peek(1, "u") == (10, NOW)

    def test_concurrent_first_calls_get_the_same_record(self, store: Any, run: Run) -> None:
        proposed = [Record(1, "u", variant, 0, NOW + variant) for variant in range(50)]
        assert self.put(run, store, *proposed) == [proposed[0]] * 50

    def test_units_of_different_experiments_are_independent(self, store: Any, run: Run) -> None:
        records = [Record(1, "u", 10, 0, NOW), Record(2, "u", 20, 0, NOW), Record(1, "v", 11, 0, NOW)]
        assert self.put(run, store, *records) == records
        assert run(store.find_many([(1, "u"), (2, "u"), (2, "v")])) == {
            (1, "u"): records[0],
            (2, "u"): records[1],
        }

    def test_an_unknown_unit_is_nothing(self, store: Any, run: Run) -> None:
        assert run(store.find(1, "u")) is None
        assert store.peek(1, "u") is None
        assert run(store.find_many([(1, "u")])) == {}
        assert store.page(1, 0, 10) == []
        assert store.purge(1) == 0
        assert store.erase("u") == 0

    @given(unit_id=UNIT_IDS)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_any_unit_id_comes_back_as_it_was(self, store: Any, run: Run, unit_id: str) -> None:
        record = Record(7, unit_id, 3, 0, NOW)
        assert self.put(run, store, record) == [record]
        assert run(store.find(7, unit_id)) == record

    def test_many_are_stored_in_order_with_those_already_there(self, store: Any, run: Run) -> None:
        earlier = Record(1, "b", 99, 0, NOW - 1)
        self.put(run, store, earlier)
        proposed = [Record(1, unit, 10, 0, NOW) for unit in "abca"]
        stored = run(store.put_many(proposed))
        assert stored == [proposed[0], earlier, proposed[2], proposed[0]]
        assert run(store.put_many([])) == []

    def test_records_outlive_the_store(self, store: Any, run: Run, reopened: Callable[[], Any]) -> None:
        record = Record(1, "u", 10, 2, NOW)
        self.put(run, store, record)
        again = reopened()
        assert again.peek(1, "u") is None
        assert run(again.find(1, "u")) == record
        assert again.peek(1, "u") == (10, NOW)

    def test_pages_follow_the_order_of_making(self, store: Any, run: Run) -> None:
        records = [Record(1 + index % 2, f"u{index}", 10, 0, NOW + index) for index in range(10)]
        run(store.put_many(records))
        first = store.page(1, 0, 3)
        assert [record for _, record in first] == records[0:6:2]
        assert [record for _, record in store.page(1, first[-1][0], 3)] == records[6:10:2]

    def test_purging_an_experiment_leaves_the_others(self, store: Any, run: Run) -> None:
        run(store.put_many([Record(index % 2, f"u{index}", 10, 0, NOW) for index in range(5_000)]))
        assert store.purge(1) == 2_500
        assert store.peek(1, "u1") is None
        assert run(store.find(1, "u1")) is None
        assert run(store.find(0, "u0")) == Record(0, "u0", 10, 0, NOW)

    def test_erasing_a_unit_leaves_the_others(self, store: Any, run: Run) -> None:
        run(
            store.put_many(
                [Record(experiment, unit, 10, 0, NOW) for experiment in (1, 5, 9) for unit in "uv"]
            )
        )
        assert store.erase("u") == 3
        assert store.peek(5, "u") is None
        assert run(store.find(5, "u")) is None
        assert run(store.find(5, "v")) == Record(5, "v", 10, 0, NOW)

    def test_an_import_reports_contradictions_and_changes_nothing(self, store: Any, run: Run) -> None:
        earlier = Record(1, "b", 99, 0, NOW - 1)
        self.put(run, store, earlier)
        rows = [(row, Record(1, unit, 10, 0, NOW)) for row, unit in enumerate("abca", start=1)]
        conflicts: list[Conflict] = []
        assert store.import_records([rows[:2], rows[2:]], conflicts.append) == Imported(2, 1, 1)
        assert conflicts == [Conflict(2, rows[1][1], earlier)]
        assert store.import_records([rows], conflicts.append) == Imported(0, 3, 1)

    def test_a_large_import_goes_in_steps(self, store: Any) -> None:
        rows = [(row, Record(1, f"u{row}", row % 2, 0, NOW)) for row in range(5_001)]
        unexpected: list[Conflict] = []
        assert store.import_records([rows], unexpected.append) == Imported(5_001, 0, 0)
        assert unexpected == []
        assert [record for _, record in store.page(1, 0, 6_000)] == [record for _, record in rows]

    @pytest.mark.parametrize("size", [0, 1, 2, 7])
    def test_a_small_memory_answers_the_same_from_disk(
        self, small: Callable[[int], Any], run: Run, size: int
    ) -> None:
        store = small(size)
        records = [Record(1, f"u{index}", index, 0, NOW) for index in range(20)]
        run(store.put_many(records))
        assert [run(store.find(1, record.unit_id)) for record in records] == records
        assert store.held().entries <= max(size, 0)
