"""The sticky record: which unit got which variant, and when; what every store of it promises.

A record is written once and never changed: `put` stores it, or answers with the one that was there first,
whoever writes beside it. What is answered is on disk. Repeat answers come from memory.

Threads: `peek`, `find`, `find_many`, `put`, `put_many` and `fill` belong to the event loop. Everything else
waits, for the writer or the disk, and belongs to any other thread.

Errors: `Unavailable` where the disk, the database or the queue cannot take a row. Nothing of that call was
stored then, or, where the sentence says so, it may be: the same call again gives the record either way.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from assay.assignments.memory import Held


class Record(NamedTuple):
    """One assignment; `assigned_at` is µs since the epoch."""

    experiment_id: int
    unit_id: str
    variant_id: int
    phase: int
    assigned_at: int


class Conflict(NamedTuple):
    """An imported row that contradicts what is on record; the record stays."""

    row: int
    proposed: Record
    stored: Record


class Imported(NamedTuple):
    """What became of imported rows."""

    inserted: int
    known: int
    """Rows whose very record was there already."""
    conflicts: int


class AssignmentStore(Protocol):
    """See the head of this file for what all of this promises."""

    peek: Callable[[int, str], tuple[int, int] | None]
    """(experiment_id, unit_id) to (variant_id, assigned_at), from memory only; None when not remembered."""
    put_finds: bool
    """Whether `put` costs no more than `find` where the record exists, so that asking first saves nothing."""

    @property
    def complete(self) -> bool:
        """Whether memory holds every record, so that what `peek` does not find is not stored either."""

    def close(self) -> None:
        """Let go of the connections for reading; the writer is somebody else's."""

    def held(self) -> Held:
        """Entries, hits and misses of the memory."""

    async def fill(self) -> int:
        """Remember what is stored, latest first, as far as there is room; how many records that were.

        Runs beside requests, a slice at a time.
        """

    async def find(self, experiment_id: int, unit_id: str) -> Record | None:
        """The stored record; remembered for `peek`."""

    async def find_many(self, pairs: Iterable[tuple[int, str]]) -> dict[tuple[int, str], Record]:
        """Records stored for pairs of experiment and unit, by one statement; absent ones are left out."""

    def put(self, record: Record) -> asyncio.Future[Record]:
        """Insert or get: resolves, once it is on disk, with what is on record: ours or the earlier one.

        A caller that goes away does not take its row, or its neighbours', with it.
        """

    async def put_many(self, records: Sequence[Record]) -> list[Record]:
        """Insert or get, all in one commit; the answers are in the order of `records`."""

    def page(self, experiment_id: int, after: int, limit: int) -> list[tuple[int, Record]]:
        """Records of an experiment in order of making, each with its number; `after` is the last one seen."""

    def purge(self, experiment_id: int) -> int:
        """Remove all records of an experiment; how many there were.

        Goes in steps, so that others may write between them; after a failure it can be called again.
        """

    def erase(self, unit_id: str) -> int:
        """Remove all records of a unit, in whatever experiment; how many there were."""

    def import_records(
        self, chunks: Iterable[Sequence[tuple[int, Record]]], conflict: Callable[[Conflict], None]
    ) -> Imported:
        """Insert or get rows from elsewhere, each with the row number it has there.

        A row with another variant than is on record changes nothing and is handed to `conflict`. Repeating an
        import is harmless: its rows are then known. Goes in steps, as `purge` does.
        """
