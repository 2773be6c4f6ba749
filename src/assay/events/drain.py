"""The way from the log to the event store, in log order, each event once whatever happens.

What is taken from the log goes to the store together with the position in the log, in one transaction of the
store. After a crash at any moment the store knows where to go on; rows of the log are removed only when the
store has them for good.

A portion that the store cannot read is halved until the one event at fault is alone; that one is set aside in
the ledger, never lost silently, and the others go on. A store that fails (a full disk) is tried again, with
pauses, until it takes the portion.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from assay.durable.writer import SqliteWriter, open_reader, unavailable
from assay.errors import AssayError, Invalid, Unavailable
from assay.events.notes import Notes, Rejections

#: A portion is taken in at once by the store, in memory: so many events, so many bytes.
EVENTS: Final = 100_000
BYTES: Final = 32 * 1024 * 1024
#: Rows looked at first; doubled while portions are small, halved when they are too large.
_FIRST_ROWS: Final = 256
_MOST_ROWS: Final = 100_000
#: Seconds between looks at an idle log, and between portions as long as events come in: even a portion of one
#: event costs the store 10 ms. A slow store gets no less than nine times what a portion took it.
_IDLE: Final = 0.2
_BUSY: Final = 1.0
_REST: Final = 9
#: While events come in a quarter as fast as they are moved, or faster, requests need the cores more than the
#: drain: it rests so many times as long as a portion took, looking now and then (seconds) whether that is
#: over, and no longer once so many portions wait.
_YIELD: Final = 3
_LOOK: Final = 0.1
_MOST_PORTIONS: Final = 5
#: At most so many seconds between portions, and between attempts to reach a failing store.
_LONGEST_PAUSE: Final = 5.0
#: What the removal of rows may take of one transaction of the writer, whom requests wait for.
_SWEEP_ROWS: Final = 5_000
_SWEEP_BYTES: Final = 1024 * 1024

_SIZE: Final = """
SELECT count(*), coalesce(sum(count), 0), coalesce(sum(length(CAST(body AS BLOB))), 0), coalesce(max(seq), 0)
FROM (SELECT seq, count, body FROM inbox WHERE seq >= ? ORDER BY seq LIMIT ?)
"""
# The portion is put together inside SQLite: taking rows one by one would ask for the interpreter's lock for
# each, in the midst of requests.
_BODIES: Final = """
SELECT coalesce(group_concat('{"q":' || seq || ',"i":0,"b":[' || body || ']}'), '')
FROM (SELECT seq, body FROM inbox WHERE seq BETWEEN ? AND ? ORDER BY seq)
"""
_ASSIGNMENTS: Final = """
SELECT coalesce(max(seq), ?1), count(*),
  json_group_array(json_array(seq, experiment_id, unit_id, variant_id, phase, assigned_at))
FROM (SELECT * FROM assignments WHERE seq > ?1 ORDER BY seq LIMIT ?2)
"""
_TAILS: Final = "SELECT (SELECT max(seq) FROM inbox), (SELECT max(seq) FROM assignments)"
_SWEEP: Final = "DELETE FROM inbox WHERE seq < ?"

Tail = tuple[int, int]


class Sink(Protocol):
    """What the drain needs of an event store."""

    def position(self) -> tuple[int, int]:
        """Numbers of the last event (log row × 65,536 + place) and assignment it has; (-1, 0) at first."""

    def append(
        self,
        position: tuple[int, int],
        events: str = "[]",
        assignments: str = "[]",
        rejections: Sequence[Rejections] = (),
    ) -> tuple[int, int, int]:
        """Take in a portion and its position, or nothing of it.

        `Invalid`: it never can be taken; `Unavailable`: not now.
        """

    def maintain(self) -> None:
        """Make later questions cheap; for when nothing waits to be moved. `Unavailable`: not now."""


class Drained(NamedTuple):
    """What the drain has done so far, for telemetry."""

    events: int
    duplicates: int
    assignments: int
    set_aside: int


class _Turn(Enum):
    """What one turn of the drain came to."""

    IDLE = auto()
    CAUGHT_UP = auto()
    MORE = auto()


@dataclass
class _Waiter:
    target: Tail
    done: threading.Event
    error: AssayError | None = None


class _Portion(NamedTuple):
    """A stretch of the log as it was read."""

    first: int
    last: int
    rows: int
    bytes: int
    events: str
    assigned: int
    assignments: str
    full: bool
    """Whether it ends at a bound: there may be more behind it."""


def _remove(connection: sqlite3.Connection, before: int) -> None:
    connection.execute(_SWEEP, (before,))


class Drain:
    """Moves what the log at `path` holds into `store`, in a thread of its own.

    Attributes:
        drained: totals since the start.
        last_error: why the store took nothing the last time; None when it did.
    """

    def __init__(self, writer: SqliteWriter, path: str | Path, notes: Notes, store: Sink) -> None:
        self.drained = Drained(0, 0, 0, 0)
        self.last_error: AssayError | None = None
        self._writer = writer
        self._notes = notes
        self._store = store
        self._reader = open_reader(path)
        self._tail_reader = open_reader(path)
        self._tail_guard = threading.Lock()
        self._turn = threading.Lock()
        self._kick = threading.Event()
        self._closing = False
        self._waiters: list[_Waiter] = []
        self._waiters_guard = threading.Lock()
        self._rows = _FIRST_ROWS
        #: Whether the last portion was of a size that suits the store: then its time was well spent.
        self._filled = False
        self._position: Tail = (-1, 0)
        self._caught_up_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="assay-drain", daemon=True)

    def start(self) -> None:
        """Begin. Raises what the store raises when it cannot say where to go on."""
        events, assignments = self._store.position()
        self._position = events, assignments
        self._thread.start()

    def close(self) -> None:
        """Move what is left, if the store takes it, and stop."""
        self._closing = True
        self._kick.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()
        self._tail_reader.close()

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until all that was acknowledged before this call is in the store; for any thread but a loop's.

        Raises `Unavailable` when the store takes nothing at present, or not all of it in `timeout` seconds.
        """
        if not self._thread.is_alive():
            raise Unavailable("The server is shutting down.", code="shutting_down")
        waiter = _Waiter(self._tail(), threading.Event())
        with self._waiters_guard:
            self._waiters.append(waiter)
        self._kick.set()
        if not waiter.done.wait(timeout):
            message = "The event store has not caught up with the events accepted so far."
            raise Unavailable(message, code="store_behind", retry_after=2)
        if waiter.error is not None:
            raise waiter.error

    async def wait_past(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - the same promise as flush
        """`flush`, for the event loop."""
        await asyncio.to_thread(self.flush, timeout)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is moved while this is held: for removals, which a portion on its way would undo."""
        with self._turn:
            yield

    def lag(self) -> tuple[int, float]:
        """Rows and assignments that are waiting, about, and for how many seconds the oldest has been."""
        events, assignments = self._tail()
        first = max(1, self._position[0] + 1 >> 16)
        waiting = max(0, events - first + 1) + max(0, assignments - self._position[1])
        return waiting, time.monotonic() - self._caught_up_at if waiting else 0.0

    def _tail(self) -> Tail:
        with self._tail_guard:
            try:
                events, assignments = self._tail_reader.execute(_TAILS).fetchone()
            except sqlite3.Error as error:
                raise unavailable(error) from error
        return events or 0, assignments or 0

    # The thread.

    def _run(self) -> None:
        pause = _IDLE
        while True:
            self._kick.wait(pause)
            self._kick.clear()
            closing = self._closing
            began = time.monotonic()
            turn = self._attempt()
            if self.last_error is not None:
                if closing:
                    return
                pause = min(_LONGEST_PAUSE, max(_IDLE, 2 * pause))
            elif turn is _Turn.MORE:
                pause = 0.0
                self._give_way(time.monotonic() - began)
            elif closing:
                return
            elif turn is _Turn.IDLE:
                pause = _IDLE
            else:
                # Whoever needs what comes in meanwhile calls `flush`, which ends the pause.
                rest = _YIELD if self._filled else _REST
                pause = min(_LONGEST_PAUSE, max(_BUSY, rest * (time.monotonic() - began)))

    def _give_way(self, took: float) -> None:
        """Rest after a portion that took so many seconds, as long as many events come in and nobody waits."""
        rests = min(_LONGEST_PAUSE, _YIELD * took)
        with contextlib.suppress(Unavailable):  # the next portion will meet it, too
            tail = self._tail()[0]
            while rests > 0 and not self._closing and not self._waiters:
                if tail - (self._position[0] >> 16) > _MOST_PORTIONS * self._rows or self._kick.wait(_LOOK):
                    return
                rests -= _LOOK
                before, tail = tail, self._tail()[0]
                if (tail - before) * took * 4 < self._rows * _LOOK:
                    return

    def _attempt(self) -> _Turn:
        """Move one portion."""
        began = time.monotonic()
        with self._waiters_guard:
            waiting = list(self._waiters)
        try:
            with self._turn:
                turn = self._move()
                if turn is not _Turn.MORE and not (waiting or self._closing):
                    self._store.maintain()
        except AssayError as error:
            self.last_error = error
            self._release(waiting, error)
            return _Turn.IDLE
        except Exception as error:  # noqa: BLE001 - the thread must live, whatever it was
            self.last_error = Unavailable(f"The drain failed: {error!r}", code="drain_failed")
            self._release(waiting, self.last_error)
            return _Turn.IDLE
        self.last_error = None
        more = turn is _Turn.MORE
        if not more:
            self._caught_up_at = began
        row, assigned = self._position[0] + 1 >> 16, self._position[1]
        passed = [one for one in waiting if not more or (one.target[0] < row and one.target[1] <= assigned)]
        self._release(passed, None)
        return turn

    def _release(self, waiters: Sequence[_Waiter], error: AssayError | None) -> None:
        with self._waiters_guard:
            for waiter in waiters:
                self._waiters.remove(waiter)
        for waiter in waiters:
            waiter.error = error
            waiter.done.set()

    def _move(self) -> _Turn:
        portion = self._read()
        more = portion.full
        self._filled = 4 * portion.rows > self._rows
        rejections = self._notes.take()
        if not portion.rows and portion.assigned == self._position[1] and not rejections:
            return _Turn.IDLE
        position = (portion.last << 16 | 0xFFFF if portion.rows else self._position[0], portion.assigned)
        try:
            self._append(position, portion.events, portion.assignments, rejections)
        except Invalid:
            self._notes.give_back(rejections)
            self._append((self._position[0], portion.assigned), "[]", portion.assignments)
            self._isolate(portion.first, portion.last)
            more = True  # the refusals given back are still to come
        except BaseException:
            self._notes.give_back(rejections)
            raise
        if portion.rows:
            self._sweep(portion)
        return _Turn.MORE if more else _Turn.CAUGHT_UP

    def _read(self) -> _Portion:
        """The next stretch of the log, of a size that suits the store."""
        start, assigned = self._position[0] + 1 >> 16, self._position[1]
        reader = self._reader
        try:
            reader.execute("BEGIN")  # both tables as of the same moment
            try:
                while True:
                    rows, events, size, last = reader.execute(_SIZE, (start, self._rows)).fetchone()
                    over = max(events / EVENTS, size / BYTES)
                    if over <= 1 or rows <= 1:
                        break
                    self._rows = max(1, int(rows / over * 0.9))
                full = rows == self._rows
                if full and over < 0.5:
                    self._rows = min(_MOST_ROWS, 2 * self._rows)
                bodies = reader.execute(_BODIES, (start, last)).fetchone()[0] if rows else ""
                upto, count, assignments = reader.execute(_ASSIGNMENTS, (assigned, EVENTS)).fetchone()
            finally:
                reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise unavailable(error) from error
        return _Portion(start, last, rows, size, f"[{bodies}]", upto, assignments, full or count == EVENTS)

    def _append(
        self, position: Tail, events: str, assignments: str = "[]", rejections: Sequence[Rejections] = ()
    ) -> None:
        stored, doubles, assigned = self._store.append(position, events, assignments, rejections)
        self._position = (max(position[0], self._position[0]), max(position[1], self._position[1]))
        before = self.drained
        self.drained = Drained(
            before.events + stored,
            before.duplicates + doubles,
            before.assignments + assigned,
            before.set_aside,
        )

    def _sweep(self, portion: _Portion) -> None:
        """Remove rows that the store has, in steps that nobody notices; what stays now goes next time."""
        rows = min(_SWEEP_ROWS, max(1, _SWEEP_BYTES * portion.rows // max(portion.bytes, 1)))
        first, end = portion.first, self._position[0] + 1 >> 16
        with contextlib.suppress(Unavailable):
            while first < end:
                first = min(first + rows, end)
                self._writer.run(partial(_remove, before=first))

    # A portion that the store cannot read.

    def _isolate(self, first: int, last: int) -> None:
        """Move these rows of the log by halves; events that the store cannot read are set aside."""
        if first == last:
            self._isolate_within(first)
            return
        middle = (first + last) // 2
        for low, high in ((first, middle), (middle + 1, last)):
            bodies = self._reader.execute(_BODIES, (low, high)).fetchone()[0]
            try:
                self._append((high << 16 | 0xFFFF, self._position[1]), f"[{bodies}]")
            except Invalid:
                self._isolate(low, high)

    def _isolate_within(self, row: int) -> None:
        body = self._reader.execute("SELECT body FROM inbox WHERE seq = ?", (row,)).fetchone()[0]
        try:
            events = [bytes(raw).decode() for raw in msgspec.json.decode(f"[{body}]", type=list[msgspec.Raw])]
        except (ValueError, RecursionError):
            events = [body]  # no JSON at all: there is nothing to halve
        done = (self._position[0] & 0xFFFF) + 1 if self._position[0] >> 16 == row else 0
        if events[done:]:
            self._halve(row, done, events[done:])
        self._append((row << 16 | 0xFFFF, self._position[1]), "[]")

    def _halve(self, row: int, place: int, events: Sequence[str]) -> None:
        """Move events of one row, the first of them at `place`."""
        position = (row << 16 | place + len(events) - 1, self._position[1])
        try:
            self._append(position, f'[{{"q":{row},"i":{place},"b":[{",".join(events)}]}}]')
        except Invalid:
            if len(events) > 1:
                middle = len(events) // 2
                self._halve(row, place, events[:middle])
                self._halve(row, place + middle, events[middle:])
                return
            self._append(position, "[]", "[]", [(None, None, "unstorable", 1, (events[0][:300],))])
            self.drained = self.drained._replace(set_aside=self.drained.set_aside + 1)
