"""The log of accepted events in SQLite, in the order in which they came.

One row of the table `inbox` is one acknowledged request. The drain carries rows on to the event store and
removes them. Beside the disk, the log remembers the ids that callers gave lately; the event store has the
last word on the others.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from assay.durable.writer import SqliteWriter, open_reader, unavailable
from assay.events.event import Event, encode
from assay.events.notes import Notes
from assay.events.recent import RecentKeys

_Row = tuple[int, str, list[str]]
"""How many events, their text, and the keys to remember once they are on disk."""

#: A statement for each power of two, so that few serve groups of any size. Values in one statement take a
#: quarter of the time of a statement for each row, and leave the interpreter to others meanwhile.
_INSERTS: Final = tuple(
    "INSERT INTO inbox (count, body) VALUES " + ", ".join(["(?, ?)"] * 2**power) for power in range(9)
)
_WAITING: Final = "SELECT body FROM inbox ORDER BY seq DESC"


class _Keyed(msgspec.Struct):
    e: str
    u: str
    k: bool = False


_keyed = msgspec.json.Decoder(list[_Keyed])


class SqliteEventLog:
    """An `EventLog` in the table `inbox` of the file at `path`, which `writer` writes.

    `memory` keys are remembered; `stored(n)` gives the latest n of the event store as (user id, canonical
    event id), oldest first.
    """

    def __init__(
        self,
        writer: SqliteWriter,
        path: str | Path,
        stored: Callable[[int], Iterable[tuple[str, str]]],
        *,
        memory: int = 200_000,
    ) -> None:
        self.accepted = 0
        self.doubles = 0
        self.notes = Notes()
        self._path = path
        self._stored = stored
        self._lane = writer.lane("inbox", _store, _size, self._settled)
        self._memory = memory
        self._recent = RecentKeys(memory)

    def relearn(self) -> None:
        """See `EventLog`. A key that comes in meanwhile may be missed: the drain finds its repetition."""
        self._recent.clear()
        for user_id, event_id in self._stored(self._memory // 2):
            self._recent.remember(event_id + user_id)
        keys: list[str] = []
        try:
            with contextlib.closing(open_reader(self._path)) as connection:
                for (body,) in connection.execute(_WAITING):
                    keys.extend(_keys_of(body))
                    if len(keys) >= self._memory:
                        break
        except sqlite3.Error as error:
            raise unavailable(error) from error
        for key in reversed(keys):
            self._recent.remember(key)

    def split(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """See `EventLog`."""
        fresh, doubles = self._recent.split(events)
        self.doubles += len(doubles)
        return fresh, doubles

    def append(self, events: list[Event]) -> asyncio.Future[Sequence[Event]]:
        """See `EventLog`; one row, of which nobody can tell yet whether it is a repetition."""
        keys = [event.e + event.u for event in events if event.k]
        return self._lane.put((len(events), encode(events), keys))

    def _settled(self, rows: list[_Row], _: Sequence[Sequence[Event]]) -> None:
        # Only what is on disk is known: a repetition of what may yet fail must not be waved through.
        remember = self._recent.remember
        for count, _text, keys in rows:
            self.accepted += count
            for key in keys:
                remember(key)

    def forget(self, user_id: str) -> None:
        """See `EventLog`."""
        self._recent.forget_user(user_id)


def _keys_of(body: str) -> list[str]:
    """The keys in a row of the log, latest first; none where it cannot be read (the drain will say so)."""
    try:
        events = _keyed.decode(f"[{body}]")
    except msgspec.MsgspecError:
        return []
    return [event.e + event.u for event in reversed(events) if event.k]


def _size(row: _Row) -> tuple[int, int]:
    return 1, len(row[1])


def _store(connection: sqlite3.Connection, rows: list[_Row]) -> list[Sequence[Event]]:
    """Write a group of rows, in order, inside the writer's transaction."""
    start = 0
    while start < len(rows):
        power = min((len(rows) - start).bit_length() - 1, len(_INSERTS) - 1)
        end = start + 2**power
        connection.execute(_INSERTS[power], [value for row in rows[start:end] for value in row[:2]])
        start = end
    return [()] * len(rows)
