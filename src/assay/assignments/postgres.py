"""Assignments in PostgreSQL, written by any number of processes.

Many requests share one statement, which reads the records that exist and inserts the others. A record that
exists costs no write and no number of the sequence, so `put` may be called without asking first.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from assay.assignments.base import Conflict, Imported, Record
from assay.assignments.memory import Held, RecentAssignments
from assay.durable.postgres import PostgresWriter
from assay.durable.session import Session
from assay.errors import Unavailable

# The parameter is one JSON array for the whole group: made in C here, taken apart in C there. LATERAL with
# OFFSET 0 keeps to one step down the key for each row, whatever the planner believes of the table's size.
_STORED: Final = """
SELECT stored.experiment_id, stored.unit_id, stored.variant_id, stored.phase, stored.assigned_at
FROM json_to_recordset($1::json) AS wanted (e bigint, u text)
CROSS JOIN LATERAL (
  SELECT experiment_id, unit_id, variant_id, phase, assigned_at FROM assignments
  WHERE experiment_id = wanted.e AND unit_id = wanted.u OFFSET 0
) AS stored
"""
# Always at least one row: how many were inserted, and beside it those that existed. Numbers are given in the
# order of the requests, and rows inserted in the order of the key: in one order everywhere, so that two
# processes can wait for each other only in one direction.
_PUT: Final = """
WITH known AS MATERIALIZED (
  SELECT wanted.*, stored.*
  FROM json_to_recordset($1::json) AS wanted (e bigint, u text, v bigint, p int, t bigint)
  LEFT JOIN LATERAL (
    SELECT experiment_id, unit_id, variant_id, phase, assigned_at FROM assignments
    WHERE experiment_id = wanted.e AND unit_id = wanted.u OFFSET 0
  ) AS stored ON true
), made AS (
  INSERT INTO assignments (seq, experiment_id, unit_id, variant_id, phase, assigned_at)
  SELECT seq, e, u, v, p, t FROM (
    SELECT nextval((SELECT pg_get_serial_sequence('assignments', 'seq')::regclass)) AS seq, e, u, v, p, t
    FROM known WHERE experiment_id IS NULL
  ) AS numbered
  ORDER BY e, u COLLATE "C"
  ON CONFLICT (experiment_id, unit_id) DO NOTHING
  RETURNING 1
)
SELECT made.count, known.experiment_id, known.unit_id, known.variant_id, known.phase, known.assigned_at
FROM (SELECT count(*) AS count FROM made) AS made LEFT JOIN known ON known.experiment_id IS NOT NULL
"""
_PAGE: Final = """
SELECT seq, experiment_id, unit_id, variant_id, phase, assigned_at FROM assignments
WHERE experiment_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""
_LATEST: Final = """
SELECT seq, experiment_id, unit_id, variant_id, assigned_at FROM assignments
WHERE seq < $1 ORDER BY seq DESC LIMIT $2
"""
_PURGE: Final = """
DELETE FROM assignments
WHERE ctid = ANY (ARRAY(SELECT ctid FROM assignments WHERE experiment_id = $1 LIMIT $2))
"""
# The experiments there are, each found by one step down the key, not by a walk along it.
_ERASE: Final = """
DELETE FROM assignments WHERE unit_id = $1 AND experiment_id = ANY (ARRAY(
  WITH RECURSIVE present (experiment_id) AS (
    SELECT min(experiment_id) FROM assignments
    UNION ALL
    SELECT (SELECT min(experiment_id) FROM assignments WHERE experiment_id > present.experiment_id)
    FROM present WHERE present.experiment_id IS NOT NULL
  )
  SELECT experiment_id FROM present WHERE experiment_id IS NOT NULL
))
"""
_LARGEST: Final = 2**63 - 1
#: Rows taken into memory at a time when it is filled, a few milliseconds of the event loop.
_FILLING: Final = 2_000
#: Rows in one transaction of work that nobody waits for.
_SLICE: Final = 2_000
#: A row that is removed by others between two statements is tried again this often.
_TRIES: Final = 5
#: Seconds for which an answer may be under way that was read before a removal.
_UNDER_WAY: Final = 60.0

_Key = tuple[int, str]
_encode = msgspec.json.Encoder().encode


class _Wanted(msgspec.Struct, gc=False):
    e: int
    u: str


class _Proposed(msgspec.Struct, gc=False):
    e: int
    u: str
    v: int
    p: int
    t: int


class PostgresAssignments:
    """An `AssignmentStore` in the table `assignments`, which others may write beside this process.

    What others remove stays in this process's memory until `forget_unit` or `forget_experiment` is called.
    """

    put_finds = True
    #: Others may have stored what is not in memory.
    complete = False

    def __init__(self, writer: PostgresWriter, cache_size: int) -> None:
        self._writer = writer
        self._recent = RecentAssignments(cache_size)
        self._removed: dict[str | int, float] = {}
        self._writing = writer.lane("assignments", _store, _size)
        self._reading = writer.lane("assignments read", _find, _size_of_pairs, writes=False)
        #: (experiment_id, unit_id) to (variant_id, assigned_at), from memory only; None when not remembered.
        self.peek: Callable[[int, str], tuple[int, int] | None] = self._recent.get

    def close(self) -> None:
        """Nothing to let go of: the connections are the writer's."""

    def held(self) -> Held:
        """See `AssignmentStore`."""
        return self._recent.held()

    async def fill(self) -> int:
        """See `AssignmentStore`."""
        filled, before = 0, _LARGEST
        while True:
            rows = await self._writer.run(_latest(before))
            for _, experiment_id, unit_id, variant_id, assigned_at in rows:
                if self._removed and (unit_id in self._removed or experiment_id in self._removed):
                    continue
                if not self._recent.put_older(experiment_id, unit_id, (variant_id, assigned_at)):
                    return filled
                filled += 1
            if len(rows) < _FILLING:
                return filled
            before = rows[-1][0]

    async def find(self, experiment_id: int, unit_id: str) -> Record | None:
        """See `AssignmentStore`; questions that come together share one statement."""
        return (await self.find_many([(experiment_id, unit_id)])).get((experiment_id, unit_id))

    async def find_many(self, pairs: Iterable[_Key]) -> dict[_Key, Record]:
        """See `AssignmentStore`."""
        wanted = list(pairs)
        if not wanted:
            return {}
        found: dict[_Key, Record] = await self._reading.put(wanted)
        for record in found.values():
            self._remember(record)
        return found

    def put(self, record: Record) -> asyncio.Future[Record]:
        """See `AssignmentStore`."""
        future = self._writing.put(record)
        future.add_done_callback(self._settled)
        return future

    async def put_many(self, records: Sequence[Record]) -> list[Record]:
        """See `AssignmentStore`."""
        if not records:
            return []
        stored: list[Record] = await self._writing.put(list(records))
        for record in stored:
            self._remember(record)
        return stored

    def page(self, experiment_id: int, after: int, limit: int) -> list[tuple[int, Record]]:
        """See `AssignmentStore`."""

        async def page(session: Session) -> list[Any]:
            return await session.fetch(_PAGE, experiment_id, after, limit)

        return [(row[0], Record._make(row[1:])) for row in self._writer.call(page)]

    def purge(self, experiment_id: int) -> int:
        """See `AssignmentStore`."""

        async def step(session: Session) -> int:
            return await session.execute(_PURGE, experiment_id, _SLICE)

        removed = 0
        while count := self._writer.call(step):
            removed += count
        self.forget_experiment(experiment_id)
        return removed

    def erase(self, unit_id: str) -> int:
        """See `AssignmentStore`."""

        async def erase(session: Session) -> int:
            return await session.execute(_ERASE, unit_id)

        removed = self._writer.call(erase)
        self.forget_unit(unit_id)
        return removed

    def forget_unit(self, unit_id: str) -> None:
        """Take a unit out of memory that somebody else has erased; from any thread."""
        self._note_removal(unit_id)
        self._recent.forget_unit(unit_id)

    def forget_experiment(self, experiment_id: int) -> None:
        """Take an experiment out of memory that somebody else has purged; from any thread."""
        self._note_removal(experiment_id)
        self._recent.forget_experiment(experiment_id)

    def import_records(
        self, chunks: Iterable[Sequence[tuple[int, Record]]], conflict: Callable[[Conflict], None]
    ) -> Imported:
        """See `AssignmentStore`."""
        inserted = known = conflicts = 0
        for rows in _slices(chunks):
            proposed = [record for _, record in rows]
            fresh, stored = self._writer.call(partial(_put, proposed=proposed))
            inserted += fresh
            differing = 0
            for row, record in rows:
                there = stored.get((record.experiment_id, record.unit_id))
                if there is not None and there.variant_id != record.variant_id:
                    differing += 1
                    conflict(Conflict(row, record, there))
            conflicts += differing
            known += len(rows) - fresh - differing
        return Imported(inserted, known, conflicts)

    def _settled(self, future: asyncio.Future[Record]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._remember(future.result())

    def _remember(self, record: Record) -> None:
        # An answer read before a removal must not bring back what was removed.
        if self._removed and (record.unit_id in self._removed or record.experiment_id in self._removed):
            return
        self._recent.put(record.experiment_id, record.unit_id, (record.variant_id, record.assigned_at))

    def _note_removal(self, what: str | int) -> None:
        now = time.monotonic()
        kept = {other: since for other, since in tuple(self._removed.items()) if now - since < _UNDER_WAY}
        kept[what] = now
        self._removed = kept


def _latest(before: int) -> Callable[[Session], Any]:
    async def latest(session: Session) -> list[Any]:
        return await session.fetch(_LATEST, before, _FILLING)

    return latest


def _size(item: Record | list[Record]) -> tuple[int, int]:
    rows = 1 if type(item) is Record else len(item)
    return rows, 100 * rows


def _size_of_pairs(pairs: list[_Key]) -> tuple[int, int]:
    return len(pairs), 100 * len(pairs)


async def _store(
    session: Session, items: list[Record | list[Record]], _doubt: bool
) -> Sequence[Record | list[Record]]:
    """Write a group; each item's answer is what is then on record, whoever wrote it."""
    proposed: list[Record] = []
    for item in items:
        if isinstance(item, Record):
            proposed.append(item)
        else:
            proposed.extend(item)
    fresh, stored = await _put(session, proposed)
    if fresh == len(proposed):
        return items
    return [
        stored[item.experiment_id, item.unit_id]
        if isinstance(item, Record)
        else [stored[record.experiment_id, record.unit_id] for record in item]
        for item in items
    ]


async def _put(session: Session, proposed: list[Record]) -> tuple[int, dict[_Key, Record]]:
    """Insert what is not there: how many those were, and what is on record, for each pair."""
    inserted = 0
    stored: dict[_Key, Record] = {}
    for record in proposed:
        stored.setdefault((record.experiment_id, record.unit_id), record)
    missing = list(stored.values())
    for _ in range(_TRIES):
        rows = await session.fetch(_PUT, _encode([_Proposed(*record) for record in missing]).decode())
        inserted += rows[0][0]
        existing = [Record._make(row[1:]) for row in rows] if rows[0][1] is not None else []
        for record in existing:
            stored[record.experiment_id, record.unit_id] = record
        if rows[0][0] + len(existing) == len(missing):
            return inserted, stored
        # Somebody else inserted one of them at this very moment, so theirs is on record.
        answered = {(record.experiment_id, record.unit_id) for record in existing}
        asked = [record for record in missing if (record.experiment_id, record.unit_id) not in answered]
        found = await _look_up(session, [(record.experiment_id, record.unit_id) for record in asked])
        stored.update(found)
        missing = [record for record in asked if (record.experiment_id, record.unit_id) not in found]
        if not missing:
            return inserted, stored
    raise Unavailable(
        "The assignments are being removed while they are made: repeat the request.", code="store_busy"
    )


async def _find(session: Session, items: list[list[_Key]], _doubt: bool) -> list[dict[_Key, Record]]:
    found = await _look_up(session, {pair for pairs in items for pair in pairs})
    return [{pair: found[pair] for pair in pairs if pair in found} for pairs in items]


async def _look_up(session: Session, pairs: Iterable[_Key]) -> dict[_Key, Record]:
    rows = await session.fetch(_STORED, _encode([_Wanted(*pair) for pair in pairs]).decode())
    return {(row[0], row[1]): Record._make(row) for row in rows}


def _slices(chunks: Iterable[Sequence[tuple[int, Record]]]) -> Iterator[Sequence[tuple[int, Record]]]:
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE):
            yield chunk[start : start + _SLICE]
