"""The client's own thread: rules come in, what was recorded goes out, and nobody in the application waits.

One event loop in one daemon thread serves synchronous and asynchronous applications alike. It is started by
the first call, not by the constructor, and started again by the first call in a forked process.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import random
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from assay import __version__
from assay.client.clock import Clock, Notices
from assay.client.delivery import Courier, pauses, sentence
from assay.client.evaluation import PayloadError, Rules, changed, read_rules
from assay.client.options import Options
from assay.client.outbox import Item, Outbox
from assay.client.wire import Address, Answer, RefusedError, Wire, WireError

T = TypeVar("T")
logger = logging.getLogger("assay.client")

#: Seconds of silence after which a stream is taken for dead; the server says something every 15.
_SILENCE: Final = 45.0
#: Seconds to connect in.
_CONNECT: Final = 5.0
#: Seconds that the thread gets to end, after what it was given for sending.
_LEAVING: Final = 0.25


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
        self.notices = Notices()
        self.clock = Clock(self.notices)
        self._authorised = {"Authorization": f"Bearer {key}"}
        self._secret = quote(key, safe="")
        self._chance = random.Random()  # noqa: S311 - pauses, not secrets
        self._clear()
        _engines.add(self)

    def _clear(self) -> None:
        """What belongs to one process."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wire: Wire | None = None
        self._ending = asyncio.Event()
        self._told = asyncio.Event()
        self._exit_wait = self.options.exit_wait
        self.started_at = 0.0
        self.courier = Courier(self.outbox, self.options, self._authorised, self.clock, self.notices)

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
                    self.notices.warn("thread", "The client cannot have its thread: %s", error)
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
            self.notices.warn("closed", "The client is closed: what is recorded now is lost.")
            return False
        number, lost = self.outbox.add(item)
        if lost and not self.courier.full:
            self.courier.full = True
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
                loop.call_soon_threadsafe(self.courier.stirred.set)

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
            self.notices.warn(
                "left", "%d recorded items could not be sent in %g s and are lost.", left, seconds
            )
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
            asyncio.ensure_future(self.courier.run(wire)),
            asyncio.ensure_future(self._ending.wait()),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            self.closed = True
            await self.courier.flush(self._exit_wait)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            wire.close()

    # Rules.

    async def _follow(self, wire: Wire) -> None:
        """Keep the rules what they are on the server."""
        times = pauses(self.options, self._chance)
        while True:
            if not await self._refresh(wire):
                await asyncio.sleep(next(times))
                continue
            began = time.monotonic()
            if self.options.stream:
                try:
                    await self._listen(wire)
                except RefusedError as error:
                    self.notices.warn(
                        "stream", "No stream of changes (%s); rules are asked for instead.", error
                    )
                except WireError as error:
                    logger.debug("The stream of changes broke off: %s", error)
                    if time.monotonic() - began > self.options.retry_most:
                        times = pauses(self.options, self._chance)
                    await asyncio.sleep(next(times))
                    continue
            times = pauses(self.options, self._chance)
            await asyncio.sleep(self.options.poll)

    async def _listen(self, wire: Wire) -> None:
        """Ask for the rules whenever the stream says so. Raises `WireError` when it ends."""
        known = "" if self.rules is None else self.rules.mark
        names = wire.events(f"/sub/{self._secret}", {"Last-Event-ID": known}, _SILENCE)
        async with contextlib.aclosing(names):  # type: ignore[type-var]
            async for name in names:
                if not name:
                    self.notices.well("stream")
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
            self.clock.note(answer)
            if answer.status == 304:
                self._tell(Status.READY)
                return True
            if answer.status != 200:
                self._failed(sentence(answer), refused=answer.status in {401, 403})
                return False
            mark = answer.headers.get("etag", "").removeprefix("W/").strip('"').removesuffix("-gzip")
            rules = read_rules(answer.body, mark)
        except (WireError, PayloadError) as error:
            self._failed(str(error))
            return False
        before, self.rules = self.rules, rules
        for key, problem in rules.features.problems.items():
            self.notices.warn(f"problem {key} {problem}", "%s is evaluated as it can be: %s", key, problem)
        self._know()
        self._tell(Status.READY, changed(before, rules))
        self._write_file(answer.body, mark)
        return True

    def _failed(self, message: str, *, refused: bool = False) -> None:
        self.notices.warn("server", "The rules cannot be fetched: %s", message)
        self._know()
        self._tell(Status.ERROR if self.rules is None else Status.STALE, message=message, refused=refused)

    def _know(self) -> None:
        if not self.tried.done():
            self.tried.set_result(None)

    def _tell(
        self, status: Status, keys: list[str] | None = None, message: str = "", *, refused: bool = False
    ) -> None:
        if status is Status.READY:
            self.notices.well("server")
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
            self.notices.warn("file", "The payload cannot be kept in %s: %s", path, error)

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
