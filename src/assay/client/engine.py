"""The client's own thread: rules come in, what was recorded goes out, and nobody in the application waits.

One event loop in one daemon thread serves synchronous and asynchronous applications alike. It is started by
the first call, not by the constructor, and started again by the first call in a forked process.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import json
import logging
import os
import random
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from assay import __version__
from assay.client.evaluation import PayloadError, Rules, changed, read_rules
from assay.client.options import Options
from assay.client.outbox import Item, Kind, Outbox
from assay.client.wire import Address, Answer, RefusedError, Wire, WireError

T = TypeVar("T")
logger = logging.getLogger("assay.client")

#: Seconds of silence after which a stream is taken for dead; the server says something every 15.
_SILENCE: Final = 45.0
#: Seconds to connect in.
_CONNECT: Final = 5.0
#: Bytes of one request's items.
_BATCH_BYTES: Final = 1 << 20
#: The longest pause, in seconds, while somebody waits for a flush.
_HURRIED: Final = 0.25
#: Seconds that the thread gets to end, after what it was given for sending.
_LEAVING: Final = 0.25
#: µs that this machine's clock may differ from the server's before its times are corrected: the header that
#: tells counts whole seconds, and clocks that are kept agree better than that.
_TOLERATED: Final = 2_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PATHS: Final = {Kind.EXPOSURE: "/api/v1/exposures", Kind.EVENT: "/api/v1/events"}


class Status(StrEnum):
    """How a client is. Stale rules are the last that were heard of, and still good to evaluate by."""

    NOT_READY = "not_ready"
    READY = "ready"
    STALE = "stale"
    ERROR = "error"  # no rules, and none to be had for now


class Change(NamedTuple):
    """What listeners are told: the status, the experiments that changed, by key, and a sentence.

    `refused` says that the server does not accept the key, which no retry mends.
    """

    status: Status
    changed: list[str]
    message: str = ""
    refused: bool = False


class _Verdict(NamedTuple):
    """What an answer means for the items that were sent: those to send again, and after how many seconds."""

    again: list[Item]
    pause: float | None = None


class Engine:
    """Everything behind a client's calls; `Client` and `AsyncClient` only ask and wait."""

    def __init__(self, url: str, key: str, options: Options) -> None:
        self.address = Address.parse(url)
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("the key must be the secret of an API key with the role client: assay_…")
        self.options = options
        self.outbox = Outbox(options.queue, options.queue_bytes)
        self.rules: Rules | None = None
        self.status = Status.NOT_READY
        self.listeners: list[Callable[[Change], None]] = []
        #: Done as soon as it is known whether there are rules.
        self.tried: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.closed = False
        self._shift = 0
        self._authorised = {"Authorization": f"Bearer {key}"}
        self._secret = quote(key, safe="")
        self._chance = random.Random()  # noqa: S311 - pauses, not secrets
        self._warned: set[str] = set()
        self._clear()
        _engines.add(self)

    def _clear(self) -> None:
        """What belongs to one process."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wire: Wire | None = None
        self._stirred = asyncio.Event()
        self._settled = asyncio.Event()
        self._ending = asyncio.Event()
        self._told = asyncio.Event()
        self._hurried = 0
        self._refused = False
        self._exit_wait = self.options.exit_wait
        self.started_at = 0.0
        self.full = False

    def forked(self) -> None:
        """Begin anew in a forked process, with the rules that are known."""
        if self._wire is not None:
            self._wire.forked()
        # The parent's loop is neither closed nor collected here: both would change what the parent waits for.
        _inherited.append(self._loop)
        self.outbox.forked()
        self._clear()
        if not self.tried.done():
            self.tried = concurrent.futures.Future()

    # Called from the application's threads.

    def start(self) -> asyncio.AbstractEventLoop | None:
        """The loop, started if it is not running; None after `close`."""
        loop = self._loop
        if loop is not None or self.closed:
            return loop
        with self._lock:
            if self._loop is None:
                self.started_at = time.monotonic()
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(loop,), name="assay", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:  # the interpreter ends, or has no room for another thread
                    loop.close()
                    self.closed = True
                    self.warn("thread", "The client cannot have its thread: %s", error)
                    return None
                self._loop = loop
            return self._loop

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> "concurrent.futures.Future[T] | None":
        """Let the loop do something; None where there is none any more."""
        loop = self.start()
        if loop is None:
            return None
        task = work()
        try:
            return asyncio.run_coroutine_threadsafe(task, loop)
        except RuntimeError:  # it ended just now
            task.close()
            return None

    def record(self, item: Item) -> bool:
        """Put an item into the outbox. Gives False where older ones were lost for it."""
        if self.closed:
            self.outbox.note(lost=1)
            self.warn("closed", "The client is closed: what is recorded now is lost.")
            return False
        number, lost = self.outbox.add(item)
        if lost and not self.full:
            self.full = True
            logger.warning(
                "The queue is full (%d items, %d bytes at most): the oldest are dropped until the server "
                "takes some. delivery().lost counts them.",
                self.options.queue,
                self.options.queue_bytes,
            )
        if number in {1, self.options.batch}:
            self._stir()
        return not lost

    def _stir(self) -> None:
        loop = self.start()
        if loop is not None:
            with _quietly():
                loop.call_soon_threadsafe(self._stirred.set)

    def warn(self, about: str, message: str, *arguments: object) -> None:
        """Say something once, until `about` is well again."""
        if about not in self._warned:
            self._warned.add(about)
            logger.warning(message, *arguments)

    def well(self, about: str) -> None:
        """What was warned of is well again."""
        self._warned.discard(about)

    def retire(self) -> None:
        """Send what waits and end, without anybody waiting; for a client that was forgotten."""
        loop = self._loop
        if loop is not None:
            # Nothing here takes a lock: garbage is collected in the middle of anything.
            with _quietly():
                loop.call_soon_threadsafe(self._ending.set)

    def close(self, seconds: float) -> bool:
        """Send what waits, for at most so long, and end. Whether everything was sent."""
        self.closed = True
        thread = self._thread
        if thread is None or not thread.is_alive():
            return len(self.outbox) == 0
        self._exit_wait = seconds
        self.retire()
        # The loop gives up first, and then has connections to close.
        thread.join(seconds + _LEAVING)
        left = len(self.outbox)
        if left:
            self.outbox.note(lost=left)
            self.warn("left", "%d recorded items could not be sent in %g s and are lost.", left, seconds)
        return left == 0

    # In the thread.

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
        except Exception:  # the application must not see it, but the log must
            logger.exception("The client's thread ended; a new client is needed.")
        finally:
            self.closed = True
            self._know()
            left = asyncio.all_tasks(loop)
            for task in left:  # whoever waits for an answer, waits no longer
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.close()

    async def _serve(self) -> None:
        """The life of the client: follow and deliver, until it ends; then send what is left."""
        wire = self._wire = Wire(self.address, f"assay-python/{__version__}", _CONNECT)
        self._read_file()
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._follow(wire)),
            asyncio.ensure_future(self._deliver(wire)),
            asyncio.ensure_future(self._ending.wait()),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            self.closed = True
            await self.flush(self._exit_wait)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            wire.close()

    def _pauses(self) -> Iterator[float]:
        """Pauses after failures: each drawn up to twice the one before ("full jitter"), to a limit."""
        longest = self.options.retry
        while True:
            yield self._chance.uniform(longest / 2, longest)
            longest = min(longest * 2, self.options.retry_most)

    # Rules.

    async def _follow(self, wire: Wire) -> None:
        """Keep the rules what they are on the server."""
        pauses = self._pauses()
        while True:
            if not await self._refresh(wire):
                await asyncio.sleep(next(pauses))
                continue
            began = time.monotonic()
            if self.options.stream:
                try:
                    await self._listen(wire)
                except RefusedError as error:
                    self.warn("stream", "No stream of changes (%s); rules are asked for instead.", error)
                except WireError as error:
                    logger.debug("The stream of changes broke off: %s", error)
                    if time.monotonic() - began > self.options.retry_most:
                        pauses = self._pauses()
                    await asyncio.sleep(next(pauses))
                    continue
            pauses = self._pauses()
            await asyncio.sleep(self.options.poll)

    async def _listen(self, wire: Wire) -> None:
        """Ask for the rules whenever the stream says so. Raises `WireError` when it ends."""
        known = "" if self.rules is None else self.rules.mark
        names = wire.events(f"/sub/{self._secret}", {"Last-Event-ID": known}, _SILENCE)
        async with contextlib.aclosing(names):  # type: ignore[type-var]
            async for name in names:
                if not name:
                    self.well("stream")
                elif name == "features-updated" and not await self._refresh(wire):
                    raise WireError("the change could not be fetched")

    async def _refresh(self, wire: Wire) -> bool:
        """Ask for the rules, once. Whether they are now known to be those in force."""
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        if self.rules is not None and self.rules.mark:
            headers["If-None-Match"] = f'"{self.rules.mark}"'
        try:
            answer = await wire.request(
                "GET", f"/api/features/{self._secret}", headers, b"", self.options.request_wait
            )
            self._note_clock(answer)
            if answer.status == 304:
                self._tell(Status.READY)
                return True
            if answer.status != 200:
                self._failed(_sentence(answer), refused=answer.status in {401, 403})
                return False
            mark = answer.headers.get("etag", "").removeprefix("W/").strip('"').removesuffix("-gzip")
            rules = read_rules(answer.body, mark)
        except (WireError, PayloadError) as error:
            self._failed(str(error))
            return False
        before, self.rules = self.rules, rules
        for key, problem in rules.features.problems.items():
            self.warn(f"problem {key} {problem}", "%s is evaluated as it can be: %s", key, problem)
        self._know()
        self._tell(Status.READY, changed(before, rules))
        self._write_file(answer.body, mark)
        return True

    def _failed(self, message: str, *, refused: bool = False) -> None:
        self.warn("server", "The rules cannot be fetched: %s", message)
        self._know()
        self._tell(Status.ERROR if self.rules is None else Status.STALE, message=message, refused=refused)

    def _know(self) -> None:
        if not self.tried.done():
            self.tried.set_result(None)

    def _tell(
        self, status: Status, keys: list[str] | None = None, message: str = "", *, refused: bool = False
    ) -> None:
        if status is Status.READY:
            self.well("server")
        if status is self.status and not keys:
            return
        self.status = status
        self._told.set()
        change = Change(status, keys or [], message, refused)
        for listener in tuple(self.listeners):
            try:
                listener(change)
            except Exception:  # the application's own code; the others must hear of it all the same
                logger.exception("A listener of the client failed")

    def _read_file(self) -> None:
        if self.options.file is None or self.rules is not None:
            return
        path = Path(self.options.file)
        try:
            document = msgspec.json.decode(path.read_bytes(), type=_Stored)
            self.rules = read_rules(document.payload, document.mark)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, PayloadError) as error:
            logger.warning("%s cannot be used as the last payload: %s", path, error)
            return
        self._know()
        self._tell(Status.STALE, sorted(self.rules.documents), f"read from {path}")

    def _write_file(self, payload: bytes, mark: str) -> None:
        """Replace the file as a whole: whoever reads it meanwhile finds the old one or the new one."""
        if self.options.file is None:
            return
        path = Path(self.options.file)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(msgspec.json.encode(_Stored(mark, payload)))
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            self.warn("file", "The payload cannot be kept in %s: %s", path, error)

    # Time. An exposure and what follows it go out in different requests, and must not change places: so one
    # correction is in force for all of them, rather than one for each request.

    def _note_clock(self, answer: Answer) -> None:
        """Correct this machine's clock where the answer's date says that it is far off."""
        if answer.seconds > 1.0:  # it may be from any moment of that time
            return
        try:
            said = parsedate_to_datetime(answer.headers.get("date", ""))
        except ValueError:
            return
        # The date was cut off to the second, half a second ago on average.
        shift = (said - _EPOCH) // timedelta(microseconds=1) + 500_000 - time.time_ns() // 1_000
        if abs(shift - self._shift) > _TOLERATED:
            self._shift = shift
            self.warn("clock", "This machine's clock is %.1f s off; times are corrected.", -shift / 1e6)

    def note_assigned(self, assigned_at: str) -> None:
        """What happens after an assignment is not before it, however little the clocks differ."""
        with contextlib.suppress(ValueError):
            ahead = (datetime.fromisoformat(assigned_at) - _EPOCH) // timedelta(microseconds=1)
            self._shift = max(self._shift, ahead - time.time_ns() // 1_000)

    # Recorded items.

    async def _deliver(self, wire: Wire) -> None:
        """Send what was recorded, batch after batch."""
        while True:
            await self._gathered()
            batch = self.outbox.take(self.options.batch, _BATCH_BYTES)
            for kind in Kind:  # exposures first: what a user does counts from there
                await self._send(wire, kind, [item for item in batch if item.kind is kind])
            self.outbox.settle()
            self._settled.set()

    async def _gathered(self) -> None:
        """Until there is something, and either enough of it, or it has waited long enough."""
        loop = asyncio.get_running_loop()
        due: float | None = None
        while True:
            number = len(self.outbox)
            if number and due is None:
                due = loop.time() + self.options.flush_interval
            if number >= self.options.batch or (number and (self._hurried or loop.time() >= (due or 0))):
                return
            self._stirred.clear()
            # Between the look above and this wait nothing is missed: stirring is done by this loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._stirred.wait()

    async def _send(self, wire: Wire, kind: Kind, items: list[Item]) -> None:
        """Send items of one kind until each is accepted, refused for good, or lost."""
        pauses = self._pauses()
        parts = [items] if items else []
        while parts:
            part = parts.pop()
            try:
                body = _body(kind, part, self._shift)
                headers = {**self._authorised, "Content-Type": "application/json"}
                answer = await wire.request("POST", _PATHS[kind], headers, body, self.options.request_wait)
            except WireError as error:
                verdict = _Verdict(part, next(pauses))
                self.warn("delivery", "%d items wait to be sent: %s", len(self.outbox), error)
            else:
                verdict = self._judge(kind, part, answer, pauses)
            if verdict.again and verdict.pause is None:
                half = (len(verdict.again) + 1) // 2
                whole = len(verdict.again) < len(part)
                parts += [verdict.again] if whole else [verdict.again[half:], verdict.again[:half]]
            elif verdict.again:
                parts.append(verdict.again)
                await self._pause(verdict.pause or 0.0)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; shorter while somebody waits for a flush, or begins to."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (min(seconds, _HURRIED) if self._hurried else seconds)
        while loop.time() < end:
            self._stirred.clear()
            before = self._hurried
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._stirred.wait()
            if self._hurried > before:
                return

    def _judge(self, kind: Kind, items: list[Item], answer: Answer, pauses: Iterator[float]) -> _Verdict:
        """What the server said of these items."""
        status = answer.status
        self._note_clock(answer)
        self._refused = status in {401, 403}
        if status in {200, 201, 202}:
            self.well("delivery")
            self.full = False
            self._count(kind, items, answer)
            return _Verdict([])
        if status in {400, 413, 415, 422}:
            wrong = items if len(items) == 1 else _named(kind, items, answer)
            if wrong:
                self.outbox.note(rejected=len(wrong))
                self.warn(f"{kind} refused", "%d refused for good: %s", len(wrong), _sentence(answer))
            # Where none is named it is one of them, or their number: halves will show.
            return _Verdict([item for item in items if item not in wrong])
        self.warn("delivery", "%d items wait to be sent: %s", len(self.outbox), _sentence(answer))
        asked = answer.headers.get("retry-after", "")
        seconds = min(float(asked), self.options.retry_most) if asked.isdigit() else 0.0
        return _Verdict(items, max(next(pauses), seconds))

    def _count(self, kind: Kind, items: list[Item], answer: Answer) -> None:
        try:
            said = msgspec.json.decode(answer.body, type=_Said)
        except msgspec.MsgspecError as error:
            self.warn("answer", "The server's answer to what was sent cannot be read: %s", error)
            said = _Said(accepted=len(items))
        self.outbox.note(
            accepted=said.accepted,
            duplicates=said.duplicates,
            rejected=len(said.rejected),
            conflicts=len(said.conflicts),
        )
        if said.rejected:
            first = said.rejected[0].get("message", "")
            self.warn(f"{kind} refused", "%d refused for good: %s", len(said.rejected), first)

    async def flush(self, seconds: float) -> bool:
        """Send now what was recorded until now. Whether all of it went, or was refused, in time."""
        target = self.outbox.added
        self._refused = False
        self._hurried += 1
        self._stirred.set()
        try:
            async with asyncio.timeout(seconds):
                # With a key that is refused there is nothing to wait for.
                while not self.outbox.through(target) and not self._refused:
                    self._settled.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_HURRIED):
                            await self._settled.wait()
        except TimeoutError:
            pass
        finally:
            self._hurried -= 1
        return self.outbox.through(target)

    # Questions from the application.

    async def until_ready(self, seconds: float) -> bool:
        """Wait until the rules are those in force; whether they are, in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.status is not Status.READY:
                    self._told.clear()
                    await self._told.wait()
        return self.status is Status.READY

    async def ask(self, path: str, document: Any, seconds: float) -> Answer:
        """Post a question. Raises `WireError`."""
        if self._wire is None:
            raise WireError("the client has ended")
        headers = {**self._authorised, "Content-Type": "application/json"}
        return await self._wire.request("POST", path, headers, msgspec.json.encode(document), seconds)


class _Stored(msgspec.Struct):
    """What the file holds."""

    mark: str
    payload: bytes


class _Said(msgspec.Struct):
    """What both calls answer, as far as it is counted."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = []
    conflicts: list[dict[str, Any]] = []


def _body(kind: Kind, items: list[Item], shift: int) -> bytes:
    """The body of one request; `shift` is what the server's clock is ahead of this one, in µs."""
    joined = b",".join(
        item.body if item.at is None else b'%s,"timestamp":"%s"}' % (item.body[:-1], _iso(item.at + shift))
        for item in items
    )
    return b"[%s]" % joined if kind is Kind.EXPOSURE else b'{"events":[%s]}' % joined


def _iso(at: int) -> bytes:
    """A time in µs since 1970 as ISO 8601 in UTC, to the microsecond."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds").encode()


def _named(kind: Kind, items: list[Item], answer: Answer) -> list[Item]:
    """The exposures that the server says are wrong: with one, all of an experiment that takes none."""
    if kind is not Kind.EXPOSURE:
        return []
    try:
        problem = json.loads(answer.body)
        path = problem["errors"][0]["path"]
        at = int(path[1 : path.index("]")])
    except (ValueError, KeyError, IndexError, TypeError):
        return []
    if not 0 <= at < len(items):
        return []
    if problem.get("code") in {"unknown_experiment", "not_running"}:
        return [item for item in items if item.experiment == items[at].experiment]
    return [items[at]]


def _sentence(answer: Answer) -> str:
    """What an answer says is wrong."""
    try:
        detail = json.loads(answer.body)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = ""
    return f"{answer.status} {detail}".strip()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Past the end of the loop, or of the interpreter, there is nothing to do and nobody to tell."""
    with contextlib.suppress(RuntimeError):
        yield


_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
_inherited: list[object] = []


def _leave() -> None:
    """At the end of the interpreter: all clients at once, so that the waits do not add up."""
    for engine in list(_engines):
        engine.retire()
    for engine in list(_engines):
        engine.close(engine.options.exit_wait)


def _forked() -> None:
    for engine in list(_engines):
        engine.forked()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
