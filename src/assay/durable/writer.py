"""Group commit on SQLite: concurrent requests share one transaction and one fsync.

One thread owns one connection and is the only writer of the database file. Requests put rows into a
*lane*; as soon as the previous commit is done, the thread takes whatever has gathered in all lanes,
writes it in one transaction and answers everybody in it. Group k+1 fills while group k commits, so
nobody waits for a timer, and an idle server commits a single row at once.

Other code that must write (the catalog's transactions, purges, imports) takes its place in the same
queue by `run` or `turn`, so that two writers never meet and SQLite never answers "database is locked".
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from assay.errors import Unavailable

T = TypeVar("T")

_log = structlog.get_logger("assay.durable")

#: Codes after which nothing of the group was stored and the same request may simply be repeated.
_SENTENCES = {
    "SQLITE_FULL": "The disk is full: nothing was stored. Free some space and repeat the request.",
    "SQLITE_READONLY": "The data directory is read-only: nothing was stored.",
    "SQLITE_IOERR": "The disk reported an error: the write may be stored; repeat it with the same ids.",
    "SQLITE_CANTOPEN": "The database file cannot be opened: nothing was stored.",
    "SQLITE_BUSY": "Another process is writing to the database: nothing was stored.",
}


class Limits(NamedTuple):
    """Bounds of the queue and of one group.

    `rows` and `bytes` bound one transaction; `waiting_rows` and `waiting_bytes` bound what may wait,
    beyond which `Lane.put` refuses with `Unavailable` instead of letting memory grow.
    """

    rows: int = 20_000
    bytes: int = 16 * 1024 * 1024
    waiting_rows: int = 200_000
    waiting_bytes: int = 64 * 1024 * 1024


def open_connection(path: str | Path) -> sqlite3.Connection:
    """Open the database for writing: WAL, and a full sync before a commit returns."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -65536")
    return connection


def open_reader(path: str | Path) -> sqlite3.Connection:
    """Open the database for reading only; safe beside the writer thanks to WAL."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    connection.execute("PRAGMA query_only = ON")
    # No `mmap_size`: after each commit of the writer the whole file would be unmapped, of which every core
    # has to hear; a look-up beside a busy writer took four times as long. And no large cache: each commit
    # empties it, and without commits the system's own serves as fast.
    return connection


def unavailable(error: sqlite3.Error) -> Unavailable:
    """Say in one sentence why the store could not take a write."""
    name = getattr(error, "sqlite_errorname", "") or ""
    for prefix, sentence in _SENTENCES.items():
        if name.startswith(prefix):
            return Unavailable(
                sentence, code=f"store_{prefix.removeprefix('SQLITE_').lower()}", retry_after=2
            )
    return Unavailable(
        f"The database refused the write ({name or type(error).__name__}): repeat it with the same ids.",
        code="store_failed",
        retry_after=2,
    )


class Lane:
    """One kind of row on its way to the disk; made by `SqliteWriter.lane`."""

    __slots__ = ("_apply", "_items", "_settled", "_size", "_waiting", "_writer", "name")

    def __init__(
        self,
        writer: "SqliteWriter",
        name: str,
        apply: Callable[[sqlite3.Connection, list[Any]], Sequence[Any]],
        size: Callable[[Any], tuple[int, int]],
        settled: Callable[[list[Any], Sequence[Any]], None] | None,
    ) -> None:
        self.name = name
        self._writer = writer
        self._apply = apply
        self._size = size
        self._settled = settled
        self._items: list[Any] = []
        self._waiting: list[asyncio.Future[Any]] = []

    def put(self, item: Any) -> asyncio.Future[Any]:
        """Queue `item` (event-loop thread only); the future gets its result once it is on disk.

        Raises `Unavailable` when the queue is full or the writer is closing. A caller that goes
        away does not take its row, or its neighbours', with it.
        """
        return self._writer._put(self, item)  # noqa: SLF001 - Lane and writer are one piece


class _Turn(NamedTuple):
    """A place in the queue for somebody who writes with a connection of their own."""

    granted: threading.Event
    released: threading.Event


class _Job(NamedTuple):
    """A function to run in a transaction of its own on the writer's connection."""

    work: Callable[[sqlite3.Connection], Any]
    done: threading.Event
    outcome: list[Any]  # [result] or [None, error]


class _Group(NamedTuple):
    lane: Lane
    items: list[Any]
    futures: list[asyncio.Future[Any]]


class SqliteWriter:
    """The only writer of one SQLite file. Start it, make lanes, and close it to drain.

    Attributes:
        commits: transactions committed for lanes so far.
        rows: rows those transactions held.
        last_error: why the last transaction failed; None when it did not.
    """

    def __init__(self, path: str | Path, limits: Limits = Limits()) -> None:  # noqa: B008 - immutable
        self.path = Path(path)
        self.limits = limits
        self.commits = 0
        self.rows = 0
        self.last_error: Unavailable | None = None
        self._lanes: list[Lane] = []
        self._exclusive: deque[_Turn | _Job] = deque()
        #: Free when there may be something to do. A bare lock: an event costs a request more than its answer.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._guard = threading.Lock()
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        """Open the file and start the thread. Raises `Unavailable` when the file cannot be opened."""
        try:
            self._connection = open_connection(self.path)
        except sqlite3.Error as error:
            raise unavailable(error) from error
        self._thread = threading.Thread(target=self._run, name="assay-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse new work, write what is queued, and close the file."""
        self._closing = True
        self._rouse()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def waiting(self) -> tuple[int, int]:
        """Rows and bytes queued and not yet committed."""
        return self._waiting_rows, self._waiting_bytes

    def lane(
        self,
        name: str,
        apply: Callable[[sqlite3.Connection, list[Any]], Sequence[Any]],
        size: Callable[[Any], tuple[int, int]],
        settled: Callable[[list[Any], Sequence[Any]], None] | None = None,
    ) -> Lane:
        """Register a kind of row.

        `apply(connection, items)` writes a group inside the open transaction and returns one result
        per item, in order. It should be one SQL statement per group: sqlite3 releases the
        interpreter lock per statement, and taking it back for each row would convoy with the event
        loop. `size(item)` is its number of rows and bytes. `settled(items, results)` is called on the
        event loop once a group is on disk, before anybody in it is answered: cheaper than a callback each.
        """
        lane = Lane(self, name, apply, size, settled)
        self._lanes.append(lane)
        return lane

    def _put(self, lane: Lane, item: Any) -> asyncio.Future[Any]:
        rows, size = lane._size(item)  # noqa: SLF001
        if self._closing:
            raise Unavailable("The server is shutting down.", code="shutting_down", retry_after=1)
        limits = self.limits
        if (
            self._waiting_rows + rows > limits.waiting_rows
            or self._waiting_bytes + size > limits.waiting_bytes
        ):
            raise Unavailable(
                "More is being written than the disk takes; repeat the request a little later.",
                code="queue_full",
                retry_after=1,
            )
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._guard:
            lane._items.append(item)  # noqa: SLF001
            lane._waiting.append(future)  # noqa: SLF001
            self._waiting_rows += rows
            self._waiting_bytes += size
            if self._wake.locked():
                self._wake.release()
        return future

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` in a transaction of its own and return its result.

        For any thread but the event loop's: it waits. What `work` raises rolls back and is raised
        here; an error of SQLite becomes `Unavailable`.
        """
        job = _Job(work, threading.Event(), [])
        self._enqueue(job)
        job.done.wait()
        if len(job.outcome) == 2:
            raise job.outcome[1]
        result: T = job.outcome[0]
        return result

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else writes the file while this is held; for transactions on another connection."""
        turn = _Turn(threading.Event(), threading.Event())
        self._enqueue(turn)
        turn.granted.wait()
        try:
            yield
        finally:
            turn.released.set()

    def afterwards(self, work: Callable[[], None]) -> None:
        """Have `work` done on the event loop, after everybody whose rows are on disk by now has been told."""
        loop = self._loop
        if loop is None or loop.is_closed():
            work()
        else:
            loop.call_soon_threadsafe(work)

    def _enqueue(self, place: _Turn | _Job) -> None:
        with self._guard:
            if self._closing or self._thread is None:
                raise Unavailable("The server is shutting down.", code="shutting_down", retry_after=1)
            self._exclusive.append(place)
        self._rouse()

    def _rouse(self) -> None:
        """Let the thread look whether there is something to do."""
        with self._guard:
            if self._wake.locked():
                self._wake.release()

    def _take(self) -> list[_Group]:
        """Everything that has gathered, up to the limits of one transaction."""
        groups = []
        rows_left, bytes_left = self.limits.rows, self.limits.bytes
        with self._guard:
            for lane in self._lanes:
                items, futures = lane._items, lane._waiting  # noqa: SLF001
                if not items or rows_left <= 0 or bytes_left <= 0:
                    continue
                taken = 0
                for item in items:
                    rows, size = lane._size(item)  # noqa: SLF001
                    if taken and (rows > rows_left or size > bytes_left):
                        break
                    rows_left -= rows
                    bytes_left -= size
                    self._waiting_rows -= rows
                    self._waiting_bytes -= size
                    taken += 1
                lane._items, lane._waiting = items[taken:], futures[taken:]  # noqa: SLF001
                groups.append(_Group(lane, items[:taken], futures[:taken]))
        self.rows += self.limits.rows - rows_left
        return groups

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            while True:
                self._serve_exclusive()
                groups = self._take()
                if groups:
                    self._commit(groups)
                elif not self._exclusive:
                    break
            if self._closing:
                with self._guard:
                    if not self._exclusive and not any(lane._items for lane in self._lanes):  # noqa: SLF001
                        return
                self._rouse()

    def _serve_exclusive(self) -> None:
        """One turn or job between two groups, so that neither kind of writer starves the other."""
        with self._guard:
            place = self._exclusive.popleft() if self._exclusive else None
        if place is None:
            return
        if isinstance(place, _Turn):
            place.granted.set()
            place.released.wait()
            return
        try:
            place.outcome.append(self._transaction(place.work))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            place.outcome[:] = [None, error]
        finally:
            place.done.set()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise Unavailable("The server is shutting down.", code="shutting_down", retry_after=1)
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(connection)
            failure = unavailable(error)
            if self.last_error is None:  # once, not for every request that meets it
                _log.error("store.failed", code=failure.code, reason=failure.detail)
            self.last_error = failure
            raise failure from error
        except BaseException:
            self._roll_back(connection)
            raise
        if self.last_error is not None:
            _log.info("store.recovered", code=self.last_error.code)
            self.last_error = None
        return result

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself
                connection.execute("ROLLBACK")

    def _commit(self, groups: list[_Group]) -> None:
        def write(connection: sqlite3.Connection) -> list[Sequence[Any]]:
            return [group.lane._apply(connection, group.items) for group in groups]  # noqa: SLF001

        outcome: list[Sequence[Any]] | Exception
        try:
            outcome = self._transaction(write)
            self.commits += 1
        except Exception as error:  # noqa: BLE001 - every waiting request is told, the thread lives on
            outcome = error
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # nobody is left to hear it
        loop.call_soon_threadsafe(_answer, groups, outcome)


def _answer(groups: list[_Group], outcome: list[Sequence[Any]] | Exception) -> None:
    for position, group in enumerate(groups):
        if isinstance(outcome, Exception):
            for future in group.futures:
                if not future.done():
                    future.set_exception(outcome)
            continue
        results = outcome[position]
        settled = group.lane._settled  # noqa: SLF001 - Lane and writer are one piece
        if settled is not None:
            settled(group.items, results)
        for future, result in zip(group.futures, results, strict=True):
            if not future.done():
                future.set_result(result)
