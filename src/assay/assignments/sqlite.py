"""Assignments in SQLite.

Many requests share one transaction, and one statement does the work of a whole group.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from assay.assignments.base import Conflict, Imported, Record
from assay.assignments.memory import Held, RecentAssignments
from assay.durable.writer import SqliteWriter, open_reader, unavailable

# The parameter is one JSON array for the whole group: a statement for each row would take the interpreter
# lock back for each row, and fight for it with the event loop.
_INSERT: Final = """
INSERT INTO assignments (experiment_id, unit_id, variant_id, phase, assigned_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true
ON CONFLICT (experiment_id, unit_id) DO NOTHING
"""
_STORED: Final = """
SELECT stored.experiment_id, stored.unit_id, stored.variant_id, stored.phase, stored.assigned_at
FROM json_each(?) AS wanted
CROSS JOIN assignments AS stored
  ON stored.experiment_id = wanted.value ->> 0 AND stored.unit_id = wanted.value ->> 1
"""
_FIND: Final = """
SELECT experiment_id, unit_id, variant_id, phase, assigned_at FROM assignments
WHERE experiment_id = ? AND unit_id = ?
"""
# The plus keeps SQLite off the key of (experiment, unit), which would sort the experiment for each page.
_PAGE: Final = """
SELECT seq, experiment_id, unit_id, variant_id, phase, assigned_at FROM assignments
WHERE +experiment_id = ? AND seq > ? ORDER BY seq LIMIT ?
"""
_LATEST: Final = """
SELECT experiment_id, unit_id, variant_id, assigned_at FROM assignments ORDER BY seq DESC
"""
_PURGE: Final = """
DELETE FROM assignments WHERE seq IN (SELECT seq FROM assignments WHERE experiment_id = ? LIMIT ?)
"""
# The experiments there are, each found by one step down the key, not by a walk along it.
_ERASE: Final = """
DELETE FROM assignments WHERE unit_id = ? AND experiment_id IN (
  WITH RECURSIVE present (experiment_id) AS (
    SELECT min(experiment_id) FROM assignments
    UNION ALL
    SELECT (SELECT min(experiment_id) FROM assignments WHERE experiment_id > present.experiment_id)
    FROM present WHERE present.experiment_id IS NOT NULL
  )
  SELECT experiment_id FROM present WHERE experiment_id IS NOT NULL
)
"""
#: Rows taken into memory at a time when it is filled, a few milliseconds of the event loop.
_FILLING: Final = 4_000
#: Rows in one transaction of work that nobody waits for, so that those who do wait at most some milliseconds.
_SLICE: Final = 2_000

_encode = msgspec.json.Encoder().encode


class SqliteAssignments:
    """An `AssignmentStore` in one database file, which this process alone writes."""

    put_finds = False

    def __init__(self, writer: SqliteWriter, path: str | Path, cache_size: int) -> None:
        self._writer = writer
        self._recent = RecentAssignments(cache_size)
        self._path = path
        self._bypassed = False
        #: What was removed since a filling began, which reads the table as it was then.
        self._removed_units: set[str] = set()
        self._removed_experiments: set[int] = set()
        self._lane = writer.lane("assignments", _store, _size, self._settled)
        self._reader = open_reader(path)
        self._slow_reader = open_reader(path)
        self._slow_guard = threading.Lock()
        #: (experiment_id, unit_id) to (variant_id, assigned_at), from memory only; None when not remembered.
        self.peek: Callable[[int, str], tuple[int, int] | None] = self._recent.get

    def close(self) -> None:
        """Close the connections for reading; the writer is somebody else's."""
        self._reader.close()
        self._slow_reader.close()

    def held(self) -> Held:
        """See `AssignmentStore`."""
        return self._recent.held()

    @property
    def complete(self) -> bool:
        """See `AssignmentStore`."""
        return self._recent.complete

    async def fill(self) -> int:
        """See `AssignmentStore`.

        When all records fit, memory is `complete`: this process alone writes the file, and what it stores
        meanwhile is remembered by itself.
        """
        reader = open_reader(self._path)
        filled = 0
        room = True
        self._removed_units.clear()
        self._removed_experiments.clear()
        try:
            cursor = reader.execute(_LATEST)
            while room and (rows := await asyncio.to_thread(cursor.fetchmany, _FILLING)):
                for experiment_id, unit_id, variant_id, assigned_at in rows:
                    if unit_id in self._removed_units or experiment_id in self._removed_experiments:
                        continue
                    room = self._recent.put_older(experiment_id, unit_id, (variant_id, assigned_at))
                    filled += room
        except sqlite3.Error as error:
            raise unavailable(error) from error
        finally:
            reader.close()
        if room and not self._bypassed:
            self._recent.declare_complete()
        return filled

    async def find(self, experiment_id: int, unit_id: str) -> Record | None:
        """See `AssignmentStore`: one indexed read of a mapped file, too short to leave the loop for."""
        try:
            row = self._reader.execute(_FIND, (experiment_id, unit_id)).fetchone()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        if row is None:
            return None
        record = Record._make(row)
        self._remember(record)
        return record

    async def find_many(self, pairs: Iterable[tuple[int, str]]) -> dict[tuple[int, str], Record]:
        """See `AssignmentStore`."""
        try:
            rows = self._reader.execute(_STORED, (_encode(list(pairs)).decode(),)).fetchall()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        found = {}
        for row in rows:
            record = Record._make(row)
            found[record.experiment_id, record.unit_id] = record
            self._remember(record)
        return found

    def put(self, record: Record) -> asyncio.Future[Record]:
        """See `AssignmentStore`."""
        return self._lane.put(record)

    async def put_many(self, records: Sequence[Record]) -> list[Record]:
        """See `AssignmentStore`."""
        if not records:
            return []
        stored: list[Record] = await self._lane.put(list(records))
        return stored

    def page(self, experiment_id: int, after: int, limit: int) -> list[tuple[int, Record]]:
        """See `AssignmentStore`."""
        rows = self._slowly(_PAGE, (experiment_id, after, limit))
        return [(row[0], Record._make(row[1:])) for row in rows]

    def purge(self, experiment_id: int) -> int:
        """See `AssignmentStore`."""
        self._removed_experiments.add(experiment_id)
        removed = 0
        while True:
            step = self._writer.run(
                lambda connection: connection.execute(_PURGE, (experiment_id, _SLICE)).rowcount
            )
            removed += step
            if step < _SLICE:
                self._recent.forget_experiment(experiment_id)
                # Again, when those have been told whose rows were stored before and are removed now.
                self._writer.afterwards(lambda: self._recent.forget_experiment(experiment_id))
                return removed

    def erase(self, unit_id: str) -> int:
        """See `AssignmentStore`."""
        self._removed_units.add(unit_id)
        removed = self._writer.run(lambda connection: connection.execute(_ERASE, (unit_id,)).rowcount)
        self._recent.forget_unit(unit_id)
        self._writer.afterwards(lambda: self._recent.forget_unit(unit_id))
        return removed

    def import_records(
        self, chunks: Iterable[Sequence[tuple[int, Record]]], conflict: Callable[[Conflict], None]
    ) -> Imported:
        """See `AssignmentStore`."""
        self._bypassed = True  # these rows do not pass through memory
        self._recent.complete = False
        inserted = known = conflicts = 0
        for rows in _slices(chunks):
            proposed = [record for _, record in rows]
            fresh, stored = self._writer.run(partial(_insert, proposed=proposed))
            inserted += fresh
            if stored is None:
                continue
            differing = 0
            for row, record in rows:
                there = stored[record.experiment_id, record.unit_id]
                if there.variant_id != record.variant_id:
                    differing += 1
                    conflict(Conflict(row, record, there))
            conflicts += differing
            known += len(rows) - fresh - differing
        return Imported(inserted, known, conflicts)

    def _remember(self, record: Record) -> None:
        self._recent.put(record.experiment_id, record.unit_id, (record.variant_id, record.assigned_at))

    def _settled(self, _: list[Record | list[Record]], stored: Sequence[Record | list[Record]]) -> None:
        """A group is on disk: remember it, whether or not those who asked still wait."""
        for each in stored:
            if isinstance(each, Record):
                self._remember(each)
            else:
                self._recent.put_all(each)

    def _slowly(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._slow_guard:
            try:
                return self._slow_reader.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise unavailable(error) from error


def _size(item: Record | list[Record]) -> tuple[int, int]:
    rows = 1 if type(item) is Record else len(item)
    return rows, 100 * rows


def _store(connection: sqlite3.Connection, items: list[Record | list[Record]]) -> list[Record | list[Record]]:
    """Write a group inside the writer's transaction; each item's answer is what is then on record."""
    proposed: list[Record] = []
    for item in items:
        if isinstance(item, Record):
            proposed.append(item)
        else:
            proposed.extend(item)
    _, stored = _insert(connection, proposed)
    if stored is None:
        return items
    return [
        stored[item.experiment_id, item.unit_id]
        if isinstance(item, Record)
        else [stored[record.experiment_id, record.unit_id] for record in item]
        for item in items
    ]


def _insert(
    connection: sqlite3.Connection, proposed: list[Record]
) -> tuple[int, dict[tuple[int, str], Record] | None]:
    """Insert what is not there: how many those were, and what is stored, or None if that is `proposed`."""
    text = _encode(proposed).decode()
    inserted = connection.execute(_INSERT, (text,)).rowcount
    if inserted == len(proposed):
        return inserted, None
    rows = connection.execute(_STORED, (text,)).fetchall()
    return inserted, {(row[0], row[1]): Record._make(row) for row in rows}


def _slices(chunks: Iterable[Sequence[tuple[int, Record]]]) -> Iterator[Sequence[tuple[int, Record]]]:
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE):
            yield chunk[start : start + _SLICE]
