"""The log of accepted events: on disk before anybody is told so, in the order in which they came.

One row of the table `inbox` is one acknowledged request. The drain carries rows on to the event store and
removes them. Beside the disk, the log remembers the ids that callers gave lately, so that most repetitions
are named at once; the event store has the last word on the others.

Everything here but `seed`, `relearn` and `take_rejections` belongs to the event loop.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from assay.durable.writer import SqliteWriter, open_reader, unavailable
from assay.events.event import Event, encode

Rejections = tuple[int | None, str | None, str, int, tuple[str, ...]]
"""Refusals of one kind: experiment id, event type, code, how many, and up to five samples."""

_Row = tuple[int, str]

#: A statement for each power of two, so that few serve groups of any size. Values in one statement take a
#: quarter of the time of a statement for each row, and leave the interpreter to others meanwhile.
_INSERTS: Final = tuple(
    "INSERT INTO inbox (count, body) VALUES " + ", ".join(["(?, ?)"] * 2**power) for power in range(9)
)
_WAITING: Final = "SELECT body FROM inbox ORDER BY seq DESC"
#: Kinds of refusal (experiment, type, code) told apart; callers could make up any number of types.
_KINDS: Final = 1_000
_SAMPLES: Final = 5


class _Keyed(msgspec.Struct):
    e: str
    u: str
    k: bool = False


_keyed = msgspec.json.Decoder(list[_Keyed])
_encode = msgspec.json.Encoder().encode


class EventLog:
    """The table `inbox` of the file at `path`, which `writer` writes; `memory` keys are remembered.

    Attributes:
        accepted: events that were put on disk.
        doubles: events that were named as repetitions at once.
    """

    def __init__(self, writer: SqliteWriter, path: str | Path, *, memory: int = 200_000) -> None:
        self.accepted = 0
        self.doubles = 0
        self._path = path
        self._lane = writer.lane("inbox", _store, _size)
        self._half = memory // 2
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._rejected: dict[tuple[int | None, str | None, str], tuple[int, list[str]]] = {}
        self._kinds: set[tuple[int | None, str | None, str]] = set()
        self._rejected_guard = threading.Lock()

    def seed(self, recent: Iterable[tuple[str, str]]) -> None:
        """Remember earlier keys: `recent` (user, canonical id; oldest first), then those of the rows here."""
        for user_id, event_id in recent:
            self._remember(event_id + user_id)
        keys: list[str] = []
        try:
            connection = open_reader(self._path)
            try:
                for (body,) in connection.execute(_WAITING):
                    keys.extend(_keys_of(body))
                    if len(keys) >= 2 * self._half:
                        break
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        for key in reversed(keys):
            self._remember(key)

    def relearn(self, recent: Iterable[tuple[str, str]]) -> None:
        """Forget all keys and `seed` anew, after events were removed; from any thread.

        A key that comes in meanwhile may be missed: its repetition is then found by the drain.
        """
        self._young, self._old = set(), set()
        self.seed(recent)

    def known(self, user_id: str, event_id: str) -> bool:
        """Whether an event with this user and canonical id is on disk, as far as memory goes."""
        key = event_id + user_id
        if key in self._young:
            return True
        if key in self._old:
            self._remember(key)
            return True
        return False

    def split(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Those that are new, and those known already or sent twice in this very request."""
        fresh: list[Event] = []
        doubles: list[Event] = []
        here: set[str] = set()
        for event in events:
            if event.k:
                key = event.e + event.u
                if key in here or self.known(event.u, event.e):
                    doubles.append(event)
                    continue
                here.add(key)
            fresh.append(event)
        self.doubles += len(doubles)
        return fresh, doubles

    def append(self, events: list[Event]) -> asyncio.Future[None]:
        """Put events on disk as one row; resolves when they are there, with `Unavailable` if they cannot be.

        There must be at least one, and at most 65,535.
        """
        future = self._lane.put((len(events), encode(events)))
        keys = [event.e + event.u for event in events if event.k]
        count = len(events)

        def settled(done: asyncio.Future[None]) -> None:
            # Only what is on disk is known: a repetition of what may yet fail must not be waved through.
            if done.cancelled() or done.exception() is not None:
                return
            self.accepted += count
            for key in keys:
                self._remember(key)

        future.add_done_callback(settled)
        return future

    def forget(self, user_id: str) -> None:
        """Forget a user's keys, after their events were erased."""
        for generation in (self._young, self._old):
            generation.difference_update([key for key in generation if key[36:] == user_id])

    def note_double(self, experiment_id: int | None, event: Event) -> None:
        """Count a repetition that was named at once, for the ledger of an experiment it concerns."""
        sample = _encode({"event_id": event.o or event.e, "user_id": event.u}).decode()
        self.note_rejected(experiment_id, event.t, "duplicate", sample)

    def note_rejected(
        self, experiment_id: int | None, event_type: str | None, code: str, sample: str
    ) -> None:
        """Count a refusal for the ledger. Nobody relies on it: a crash before the next drain may lose it."""
        kind = (experiment_id, event_type, code)
        with self._rejected_guard:
            if kind not in self._kinds:
                if len(self._kinds) >= _KINDS:
                    kind = (experiment_id, None, code)
                else:
                    self._kinds.add(kind)
            self._add(kind, 1, (sample,))

    def take_rejections(self) -> list[Rejections]:
        """The refusals since the last call; from any thread."""
        with self._rejected_guard:
            taken, self._rejected = self._rejected, {}
        return [(*kind, count, tuple(samples)) for kind, (count, samples) in taken.items()]

    def give_back(self, rejections: Iterable[Rejections]) -> None:
        """Refusals that were taken and could not be stored; from any thread."""
        with self._rejected_guard:
            for experiment_id, kind, code, count, samples in rejections:
                self._add((experiment_id, kind, code), count, samples)

    def _add(self, kind: tuple[int | None, str | None, str], count: int, samples: Sequence[str]) -> None:
        before, kept = self._rejected.get(kind, (0, []))
        kept.extend(samples[: _SAMPLES - len(kept)])
        self._rejected[kind] = (before + count, kept)

    def _remember(self, key: str) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.add(key)


def _keys_of(body: str) -> list[str]:
    """The keys in a row of the log, latest first; none where it cannot be read (the drain will say so)."""
    try:
        events = _keyed.decode(f"[{body}]")
    except msgspec.MsgspecError:
        return []
    return [event.e + event.u for event in reversed(events) if event.k]


def _size(row: _Row) -> tuple[int, int]:
    return 1, len(row[1])


def _store(connection: sqlite3.Connection, rows: list[_Row]) -> list[None]:
    """Write a group of rows, in order, inside the writer's transaction."""
    start = 0
    while start < len(rows):
        power = min((len(rows) - start).bit_length() - 1, len(_INSERTS) - 1)
        end = start + 2**power
        connection.execute(_INSERTS[power], [value for row in rows[start:end] for value in row])
        start = end
    return [None] * len(rows)
