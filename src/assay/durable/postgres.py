"""Group commit on PostgreSQL: concurrent requests share one statement, one commit and one sync.

Some connections belong to one event loop. Requests put rows into a *lane*; a free connection takes whatever
has gathered there and writes it with one statement, while the next group fills. Nobody waits for a timer, and
an idle server commits a single row at once.

Every statement is a transaction of its own and nothing is kept in a session, so that PgBouncer may give each
one another connection to the database.

A connection that breaks, or hangs for longer than `Patience` allows, is dropped and opened again. What had
been sent by then is *in doubt*: it may be stored. Lanes only take rows that can be repeated (insert or get),
so a group in doubt is repeated until it is answered or its time is over. Only then do the requests in it hear
that their rows may be stored. While the database cannot be reached, new rows are refused at once.

A server may give fewer connections than there is room for here. Those that are open then do all the work,
lane after lane, and what has waited for its turn too long is refused.

Lanes, connections and recovery share their state, and are only right together.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import asyncpg
import structlog

from assay.durable.lanes import Apply, Entry, Group, Job, Lane, Patience, fail, settle
from assay.durable.session import LOST, Session, is_lost
from assay.durable.unavailable import (
    AGAIN,
    BAD_ROW,
    FULL_DISK,
    in_doubt,
    no_connections,
    refused,
    shutting_down,
    unknown,
    unreachable,
)
from assay.durable.writer import Limits
from assay.errors import AssayError, Invalid, Unavailable

T = TypeVar("T")

_log = structlog.get_logger("assay.durable")

#: A statement that changes nothing, and yet is refused where nothing can be written.
PROBE: Final = "SELECT pg_current_xact_id()::text"
_KNOCK: Final = "SELECT 1"
#: A megabyte of a table that nobody else sees, gone at the end of the statement: a disk must have room for it
#: after it was full. Only trying tells: most of what is small still finds room in a file that is there.
_ROOM: Final = """
DO $$ BEGIN
  CREATE TEMPORARY TABLE assay_room ON COMMIT DROP AS SELECT generate_series(1, 30000) AS filler;
END $$
"""
#: Seconds between two such attempts.
_ROOM_EVERY: Final = 1.0

#: For connections that keep their statements: those are planned once, perhaps when a table was still small,
#: and must go by its key then already.
_PLANNING: Final = {"jit": "off", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}

#: What a server says to one connection too many; PgBouncer says the other to one client too many, among much
#: else that says as little about the connections there are.
_FULL: Final = (asyncpg.TooManyConnectionsError, asyncpg.ProtocolViolationError)
_TRIES: Final = 5


class _Slot:
    """Room for one connection, and what sits there."""

    __slots__ = ("sent", "session", "waiting")

    def __init__(self) -> None:
        self.session: Session | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.sent = False

    @property
    def open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.session is not None and self.session.open


class _NoRoom(Exception):  # noqa: N818 - caught in this module
    """The server gives no more connections, but some are open."""


class PostgresWriter:
    """Connections of one event loop. Make lanes, start it there, and close it there to drain.

    Args:
        connect: keyword arguments of `asyncpg.connect`.
        prepared: whether a connection may keep statements and settings; False behind PgBouncer in
            transaction mode.
        connections: how many may be open; they are opened as they are needed.
        probe: the statement that tells whether the database takes writes again after it did not.

    Attributes:
        commits: groups committed for writing lanes so far.
        rows: rows those groups held.
        last_error: why the last attempt failed; None when it did not. While it is set the database is asked
            several times a second whether it is well again. A server that gives no more connections is no
            failure while one is open.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        *,
        prepared: bool = True,
        connections: int = 6,
        limits: Limits = Limits(rows=5_000, bytes=8 * 1024 * 1024),  # noqa: B008 - immutable
        patience: Patience = Patience(),  # noqa: B008 - immutable
        probe: str = PROBE,
    ) -> None:
        self.limits = limits
        self.patience = patience
        self.commits = 0
        self.rows = 0
        self.last_error: Unavailable | None = None
        self._connect: dict[str, Any] = {**connect, "statement_cache_size": 100 if prepared else 0}
        self._connect["max_cached_statement_lifetime"] = 0
        if prepared:
            self._connect["server_settings"] = {**_PLANNING, **(connect.get("server_settings") or {})}
        self._probe = probe
        self._slots = [_Slot() for _ in range(connections)]
        self._idle: list[_Slot] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes: list[Lane] = []
        self._jobs: deque[Job] = deque()
        self._job_running = False
        self._left: deque[Group] = deque()
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._away = False
        self._closing = False
        self._heard = 0.0
        self._failed_at = 0.0
        self._crowded_until = 0.0
        self._crowded = False
        self._next_lane = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Open the first connection. Raises `Unavailable` when the database cannot be reached."""
        self._loop = asyncio.get_running_loop()
        await self._session(self._slots[0], self.patience.connect)
        self._heard = self._loop.time()
        self._tasks = [asyncio.create_task(self._serve(slot)) for slot in reversed(self._slots)]
        self._tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_time())]

    async def close(self) -> None:
        """Refuse new work, write what is queued as long as patience lasts, and close the connections."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience.group):
                while self._busy():
                    self._wake()
                    await asyncio.sleep(0.005)
        self._refuse_queued(shutting_down())
        for group in self._left:
            fail(group.entries, unknown())
        self._left.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        sessions = [slot.session for slot in self._slots if slot.session is not None]
        await asyncio.gather(*(session.close() for session in sessions))
        for slot in self._slots:
            slot.session = None

    def _busy(self) -> bool:
        if self._jobs or self._job_running or self._left:
            return True
        return any(lane.entries or lane.flying for lane in self._lanes)

    @property
    def waiting(self) -> tuple[int, int]:
        """Rows and bytes queued and not yet taken into a group."""
        return self._waiting_rows, self._waiting_bytes

    def lane(
        self,
        name: str,
        apply: Apply,
        size: Callable[[Any], tuple[int, int]],
        *,
        flights: int = 2,
        writes: bool = True,
    ) -> Lane:
        """Register a kind of row.

        `apply(session, items, doubt)` writes a group, best by one statement, and returns one result per item,
        in order. It must be repeatable: `doubt` says that an earlier attempt at these very items may be
        stored. `size(item)` is its number of rows and bytes. `flights` groups may be under way at once. With
        `writes=False` the lane only reads, and is never in doubt.
        """
        lane = Lane(self._put, name, apply, size, flights, writes)
        self._lanes.append(lane)
        return lane

    def call(self, work: Callable[[Session], Awaitable[T]], seconds: float = 60.0) -> T:
        """Run `work(session)` on the loop and wait for its result; for any thread but the loop's.

        One statement of it may take `seconds`. Raises what `work` raises, and `Unavailable` where the
        database does.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise shutting_down()
        return asyncio.run_coroutine_threadsafe(self.run(work, seconds), loop).result()

    async def run(self, work: Callable[[Session], Awaitable[T]], seconds: float = 60.0) -> T:
        """What `call` does, for the loop's own thread. One such work runs at a time."""
        return await self._queue_job(work, seconds, probe=False)

    async def _queue_job(self, work: Callable[[Session], Awaitable[T]], seconds: float, *, probe: bool) -> T:
        if self._closing or not self._tasks:
            raise shutting_down()
        if self._away and not probe:
            raise self._still_away()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.append(Job(work, future, seconds, probe, loop.time() + self.patience.group))
        self._wake()
        return await future

    def _put(self, lane: Lane, item: Any) -> asyncio.Future[Any]:
        rows, size = lane.size(item)
        if self._closing or self._loop is None:
            raise shutting_down()
        if self._away:
            raise self._still_away()
        limits = self.limits
        if (
            self._waiting_rows + rows > limits.waiting_rows
            or self._waiting_bytes + size > limits.waiting_bytes
        ):
            raise Unavailable(
                "More is being written than the database takes; repeat the request a little later.",
                code="queue_full",
                retry_after=1,
            )
        future: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + self.patience.group
        lane.entries.append(Entry(item, future, rows, size, deadline))
        self._waiting_rows += rows
        self._waiting_bytes += size
        if len(lane.entries) == 1 and lane.flying < lane.flights:
            self._wake()
        return future

    def _still_away(self) -> Unavailable:
        error = self.last_error
        if error is None:
            return unreachable(None)
        return Unavailable(error.detail, code=error.code, retry_after=error.retry_after)

    def _wake(self, *, opened: bool = False) -> None:
        """Let the connection that was used last look for work: the fewer are used, the warmer they are.

        Room without a connection comes last, and not at all with `opened` or while the server gives no more.
        """
        slot = next((slot for slot in reversed(self._idle) if slot.open), None)
        if slot is None and self._idle and not opened and not (self._is_crowded() and self._any_open()):
            slot = self._idle[-1]
        if slot is not None:
            self._idle.remove(slot)
            if slot.waiting is not None and not slot.waiting.done():
                slot.waiting.set_result(None)

    def _any_open(self) -> bool:
        return any(slot.open for slot in self._slots)

    def _is_crowded(self) -> bool:
        """Whether the server refused one connection more a moment ago."""
        return self._loop is not None and self._loop.time() < self._crowded_until

    def _has_work(self) -> bool:
        return bool(self._left) or self._job_is_due() or self._due_lane() is not None

    def _job_is_due(self) -> bool:
        return bool(self._jobs) and (self._jobs[0].probe or not self._job_running)

    def _due_lane(self) -> int | None:
        """The lanes have their turns."""
        for offset in range(len(self._lanes)):
            at = (self._next_lane + offset) % len(self._lanes)
            lane = self._lanes[at]
            if lane.entries and lane.flying < lane.flights:
                return at
        return None

    def _take(self) -> Group | Job | None:
        """What to do next: what another connection had to leave, one job at a time, else a lane's group."""
        if self._left:
            group = self._left.popleft()
            group.lane.flying += 1
            return group
        if self._job_is_due():
            return self._jobs.popleft()
        at = self._due_lane()
        if at is None:
            return None
        self._next_lane = at + 1
        return self._take_group(self._lanes[at])

    def _take_group(self, lane: Lane) -> Group:
        entries: list[Entry] = []
        queue = lane.entries
        rows, size = 0, 0
        while queue:
            entry = queue[0]
            if entries and (rows + entry.rows > self.limits.rows or size + entry.bytes > self.limits.bytes):
                break
            rows += entry.rows
            size += entry.bytes
            entries.append(queue.popleft())
        self._waiting_rows -= rows
        self._waiting_bytes -= size
        lane.flying += 1
        if queue and lane.flying < lane.flights:
            self._wake()
        soonest = asyncio.get_running_loop().time() + self.patience.statement
        return Group(lane, entries, max(entries[0].deadline, soonest), doubt=False)

    async def _serve(self, slot: _Slot) -> None:
        """Do what there is to do, on one connection, for ever."""
        if not slot.open:
            await self._rest(slot)
        while True:
            if not slot.open and self._any_open() and self._has_work():
                # Nothing is taken by who may get no connection: those that are open can do it meanwhile.
                if not self._is_crowded():
                    with contextlib.suppress(_NoRoom, Unavailable):
                        await self._session(slot, self.patience.connect)
                        continue
                self._wake(opened=True)
                await self._rest(slot)
                continue
            work = self._take()
            if work is None:
                await self._rest(slot)
            elif isinstance(work, Job):
                await self._perform(slot, work)
            else:
                try:
                    await self._carry(slot, work)
                except asyncio.CancelledError:
                    fail(work.entries, unknown())
                    raise
                except Exception as error:  # noqa: BLE001 - everybody in the group is told
                    fail(work.entries, error)
                finally:
                    work.lane.flying -= 1

    async def _rest(self, slot: _Slot) -> None:
        """Wait to be woken."""
        slot.waiting = asyncio.get_running_loop().create_future()
        self._idle.append(slot)
        await slot.waiting
        slot.waiting = None

    async def _perform(self, slot: _Slot, job: Job) -> None:
        self._job_running = self._job_running or not job.probe
        try:
            session = await self._session(slot, self.patience.connect)
            session.timeout = job.timeout
            result = await job.work(session)
        except asyncio.CancelledError:
            settle(job.future, shutting_down())
            raise
        except _NoRoom:
            self._jobs.appendleft(job)
        except (*LOST, asyncpg.PostgresError) as error:
            failure = self._note(slot, error)
            settle(job.future, in_doubt(error) if failure is None else failure)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            settle(job.future, error)
        else:
            self._well(wrote=False)
            if not job.future.done():
                job.future.set_result(result)
        self._job_running = self._job_running and job.probe
        if self._jobs:
            self._wake()

    async def _carry(self, slot: _Slot, group: Group) -> None:
        """Write a group, as often as it takes, and answer everybody in it; or raise what to answer."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            left = group.deadline - loop.time()
            if left <= 0:
                raise self._too_late(doubt=group.doubt)
            try:
                results = await self._attempt(slot, group, left)
            except (*LOST, asyncpg.PostgresError) as error:
                tries += 1
                failure = self._note(slot, error)
                group = group._replace(doubt=group.doubt or (group.lane.writes and slot.sent))
                if failure is None:
                    if tries > 1:
                        self._lost(error)
                        await asyncio.sleep(0.1)
                    continue
                code: str = getattr(error, "sqlstate", None) or ""
                if code in AGAIN and tries < _TRIES:
                    continue
                if code[:2] not in BAD_ROW:
                    raise (unknown() if group.doubt else failure) from error
                if len(group.entries) == 1:
                    raise Invalid(f"The database refuses it: {error}.", code="store_refused") from error
                return await self._carry_halves(slot, group)
            except _NoRoom:
                self._left.append(group)  # for a connection that is open
                return None
            except Unavailable:
                if not group.doubt:
                    raise
                await asyncio.sleep(0.1)
            else:
                return self._committed(group.lane, group.entries, results)

    async def _attempt(self, slot: _Slot, group: Group, seconds: float) -> Sequence[Any]:
        slot.sent = False
        session = await self._session(slot, min(seconds, self.patience.connect))
        session.timeout = min(seconds, self.patience.statement)
        session.sent = False
        try:
            return await group.lane.apply(session, [entry.item for entry in group.entries], group.doubt)
        finally:
            slot.sent = session.sent

    async def _carry_halves(self, slot: _Slot, group: Group) -> None:
        """One row of several is bad: its neighbours are not to suffer."""
        middle = len(group.entries) // 2
        for half in (group.entries[:middle], group.entries[middle:]):
            try:
                await self._carry(slot, group._replace(entries=half))
            except Exception as error:  # noqa: BLE001 - everybody in the half is told
                fail(half, error)

    def _committed(self, lane: Lane, entries: list[Entry], results: Sequence[Any]) -> None:
        self._well(wrote=lane.writes)
        if lane.writes:
            self.commits += 1
            self.rows += sum(entry.rows for entry in entries)
        for entry, result in zip(entries, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)

    async def _session(self, slot: _Slot, seconds: float) -> Session:
        """The slot's connection, opened if need be. Raises `Unavailable`, or `_NoRoom`."""
        if slot.session is not None and slot.session.open:
            return slot.session
        slot.session = None
        try:
            connection = await asyncpg.connect(**{**self._connect, "timeout": seconds})
        except _FULL as error:
            if not self._any_open():
                raise self._lost(error) from error
            self._refused_room(error)
            raise _NoRoom from error
        except (*LOST, asyncpg.PostgresError) as error:
            raise self._lost(error) from error
        slot.session = Session(connection, self.patience.statement)
        self._crowded, self._crowded_until = False, 0.0
        return slot.session

    def _refused_room(self, error: Exception) -> None:
        if not self._crowded:  # once, until there is room again
            used = sum(slot.open for slot in self._slots)
            _log.warning("store.crowded", open=used, wanted=len(self._slots), reason=str(error))
        self._crowded = True
        self._crowded_until = asyncio.get_running_loop().time() + self.patience.connect

    def _too_late(self, *, doubt: bool) -> Unavailable:
        """Why something had to wait longer than anybody is to wait."""
        if doubt:
            return unknown()
        if self._away:
            return self._still_away()
        if self._crowded:
            return no_connections("those that are open are busy")
        return refused("57014", TimeoutError())

    def _note(self, slot: _Slot, error: Exception) -> Unavailable | None:
        """Draw the consequences of an error; None when nobody knows what became of the statement."""
        code = getattr(error, "sqlstate", None) or ""
        session = slot.session
        if not is_lost(error):
            failure = refused(code, error)
            if code in {"0A000", "26000"} and session is not None:
                session.drop()  # what it had prepared is no good any more
            elif code not in AGAIN and code[:2] not in BAD_ROW:
                self._failed(failure)
            return failure
        if session is not None:
            session.drop()
        if isinstance(error, TimeoutError):
            self._lost(error)
            for other in self._slots:  # they hang as well
                if other.waiting is not None and other.session is not None:
                    other.session.drop()
        return None

    def _lost(self, error: Exception) -> Unavailable:
        """The database cannot be reached: nobody who has not been sent yet need wait for it."""
        failure = (
            no_connections(str(error)) if getattr(error, "sqlstate", None) == "53300" else unreachable(error)
        )
        self._failed(failure)
        self._away = True
        self._refuse_queued(failure)
        return failure

    def _failed(self, failure: Unavailable) -> None:
        if self.last_error is None:  # once, not for every request that meets it
            _log.error("store.failed", code=failure.code, reason=failure.detail)
        self.last_error = failure
        self._failed_at = asyncio.get_running_loop().time()

    def _well(self, *, wrote: bool) -> None:
        """The database has answered: that is enough where it was away, but a full disk can still be read."""
        now = self._heard = asyncio.get_running_loop().time()
        if self.last_error is None:
            return
        full = self.last_error.code == FULL_DISK
        if self._away or wrote or (not full and now - self._failed_at > self.patience.silence):
            _log.info("store.recovered", code=self.last_error.code)
            self.last_error = None
            self._away = False

    def _refuse_queued(self, failure: Unavailable) -> None:
        for lane in self._lanes:
            entries = list(lane.entries)
            lane.entries.clear()
            fail(entries, failure)
        self._waiting_rows = self._waiting_bytes = 0
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            settle(job.future, failure)

    async def _keep_time(self) -> None:
        """Refuse what has waited too long, and let somebody look where something waits."""
        while True:
            await asyncio.sleep(0.2)
            now = asyncio.get_running_loop().time()
            for lane in self._lanes:
                queue = lane.entries
                while queue and queue[0].deadline <= now:
                    entry = queue.popleft()
                    self._waiting_rows -= entry.rows
                    self._waiting_bytes -= entry.bytes
                    settle(entry.future, self._too_late(doubt=False))
            while self._left and self._left[0].deadline <= now:
                group = self._left.popleft()
                fail(group.entries, self._too_late(doubt=group.doubt))
            while self._job_is_due() and self._jobs[0].deadline <= now:
                settle(self._jobs.popleft().future, self._too_late(doubt=False))
            if self._has_work():
                self._wake()

    async def _watch(self) -> None:
        """Ask after a database that failed, or that was not heard of for some time."""
        loop = asyncio.get_running_loop()
        tried = loop.time()

        async def ask(session: Session) -> None:
            await session.fetch(_KNOCK if self.last_error is None else self._probe)

        async def ask_for_room(session: Session) -> None:
            try:
                await session.fetch(_ROOM)
            except asyncpg.InsufficientPrivilegeError:  # it may not try: time has to tell
                if loop.time() - self._failed_at <= self.patience.silence:
                    return
            self._well(wrote=True)

        while True:
            await asyncio.sleep(0.2)
            failure, silent = self.last_error, loop.time() - self._heard
            if failure is None and silent < self.patience.silence:
                continue
            full = failure is not None and failure.code == FULL_DISK
            if full and loop.time() - tried < _ROOM_EVERY:
                continue
            tried = loop.time()
            with contextlib.suppress(AssayError):
                await self._queue_job(ask_for_room if full else ask, self.patience.statement, probe=True)
