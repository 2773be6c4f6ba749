"""HTTP/1.1 for uvicorn without ASGI on the hot routes: what memory knows is answered while it is being read.

A scope, two queues, a task and two writes for each request cost more than finding and writing down what is
asked for. So the hot routes are served from here: one request of a connection at a time, one write for each
answer, a callback where an answer hangs on a commit. Everything else takes uvicorn's own way to the same ASGI
application; what is answered and counted is decided by `assay.hotpath.app` either way.

Nothing a client does may grow memory or take time from others without bound: a connection has one request at
work, a bounded stretch of unread input behind it, a number of answers before others have their turn, and a
time for each thing it is waited for.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from assay.errors import Unavailable
from assay.hotpath.app import HotPath, Target
from assay.hotpath.http import Head, Response, Waiting, new_request_id, problem
from assay.hotpath.reading import Reading, refused

#: Seconds a head may take to arrive: it is one packet, or two.
HEAD_SECONDS: Final = 10
#: Seconds a body may take to arrive, and bytes that buy it one more: the slowest that is waited for in a long
#: body. One that the control plane takes as it comes may take that long without a byte.
BODY_SECONDS: Final = 60
BODY_RATE: Final = 20_000
#: Seconds in which a client takes nothing of the answers that lie ready for it.
UNREAD_SECONDS: Final = 60
#: Seconds in which a client that was turned away can still read why before the connection goes.
FAREWELL_SECONDS: Final = 10

_TOO_SLOW = refused(408, "Request Timeout", "too_slow", "The request did not arrive in time; send it again.")
_BODY_TOO_SLOW = refused(
    408,
    "Request Timeout",
    "too_slow",
    f"The body came with less than {BODY_RATE} bytes a second for more than {BODY_SECONDS} seconds; "
    "send it in smaller parts.",
)
_CROWDED = problem(
    Unavailable("The server has no room for another connection.", code="too_many_connections", retry_after=1)
)
_ENDING = Unavailable("The server is shutting down.", code="shutting_down", retry_after=1)


class HotProtocol(Reading):
    """One connection; uvicorn makes it by `partial(HotProtocol, front=…)`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(cast("asyncio.Transport", transport))
        front = self._front
        self._since = front.tick
        front.watch(self.loop, self.connections)
        if len(self.connections) > front.most_connections:
            self._turn_away(_CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. What was accepted is stored all the same."""
        self._over = True
        self._held, self._at = b"", 0
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will not send any more; it may still want its answers."""
        if self._over or self._reading:
            return False
        self._ended = True
        if self.cycle is not None and self._final():
            self.cycle.keep_alive = False
        self._work()
        return not self._over

    def resume_writing(self) -> None:
        """The client has read its answers: go on."""
        super().resume_writing()
        self._since = self._taken = self._front.tick
        self._work()

    def shutdown(self) -> None:
        """The server ends: close, after the answer to what has begun to arrive."""
        self._last = True
        if self.cycle is not None:
            self.cycle.keep_alive = False
        if not (self._busy or self._reading or self._scheduled or self._held or self._over):
            self.transport.close()

    def look_after(self, tick: int) -> None:
        """Once a second: end what takes too long."""
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if unsent:
            if unsent < before or not before:
                self._since = self._taken = tick
            elif tick - self._taken >= UNREAD_SECONDS:
                self.transport.abort()
            return
        age = tick - self._since
        if self._over:
            if age >= FAREWELL_SECONDS:
                self.transport.abort()
        elif self._reading:
            self._look_after_body(tick, age)
        elif self._busy or self._scheduled:
            pass
        elif self._held:
            if age >= HEAD_SECONDS:
                self._refuse_next(_TOO_SLOW)
        elif age >= self.timeout_keep_alive:
            self.transport.close()

    def _look_after_body(self, tick: int, age: int) -> None:
        if self._target is not None:
            if age >= BODY_SECONDS + self._size // BODY_RATE:
                self._turn_away(_BODY_TOO_SLOW)
        elif self.flow.read_paused:  # it is the application that takes its time
            self._since = tick
        elif age >= BODY_SECONDS:
            self.transport.close()

    # From requests to answers.

    def _serve(
        self, hot: HotPath, target: Target, parts: list[bytes], query: bytes, head: Head, body: bytes
    ) -> None:
        outcome = hot.begin(target, parts, query, head, body)
        if type(outcome) is Response:
            self._answer(hot, target, head, outcome)
            if outcome is target.overloaded and not self._over:
                self._scheduled = True
                self._front.rest(self)
            return
        self._busy = True
        hot.admission.enter()
        if type(outcome) is Waiting:
            outcome.future.add_done_callback(partial(self._settled, hot, target, head, outcome.finish))
        else:
            task = self.loop.create_task(outcome)  # type: ignore[arg-type]
            self.tasks.add(task)  # type: ignore[arg-type]
            task.add_done_callback(self.tasks.discard)
            task.add_done_callback(partial(self._settled, hot, target, head, None))

    def _settled(
        self,
        hot: HotPath,
        target: Target,
        head: Head,
        finish: Callable[[Any], Response] | None,
        future: "asyncio.Future[Any]",
    ) -> None:
        hot.admission.leave()
        self._busy = False
        try:
            result = future.result()
            response: Response = result if finish is None else finish(result)
        except asyncio.CancelledError:
            response = problem(_ENDING)
        except Exception as error:  # noqa: BLE001 - becomes an answer
            response = hot.failed(error, target)
        self._answer(hot, target, head, response)
        if self._held or self._ended:
            self._work()
        elif self.flow.read_paused:
            self.flow.resume_reading()

    def _answer(self, hot: HotPath, target: Target, head: Head, response: Response) -> None:
        hot.count(target, response.status)
        self.server_state.total_requests += 1
        front = self._front
        self._since = front.tick
        if self._over or self.transport.is_closing():
            return
        if (
            response.headers
            or self._headless
            or self._last
            or self._ended
            or hot.age
            or not self._stays
            or front.draining()
        ):
            self._write_rarely(head, response)
            return
        status, body, kind, _ = response
        beginning = front.beginning(status, kind, self.server_state.default_headers)
        identity = head.identity or new_request_id()
        # One piece: a second write would cost as much as the answer itself.
        self.transport.write(b"%s%d\r\nx-request-id: %s\r\n\r\n%s" % (beginning, len(body), identity, body))

    def _write_rarely(self, head: Head, response: Response) -> None:
        """An answer with headers of its own, without its body, or the last one of the connection."""
        status, body, kind, extra = response
        age = self._hot.age if self._hot is not None else b""
        stays = self._stays and not self._final() and not self._front.draining()
        lines = [
            self._front.beginning(status, kind, self.server_state.default_headers),
            b"%d\r\nx-request-id: %s\r\n" % (len(body), head.identity or new_request_id()),
            *(b"%s: %s\r\n" % each for each in extra),
            b"x-assay-age: %s\r\n" % age if age else b"",
            b"\r\n" if stays else b"connection: close\r\n\r\n",
            b"" if self._headless else body,
        ]
        self.transport.write(b"".join(lines))
        if not stays:
            self._leave()

    def _turn_away(self, response: Response) -> None:
        """Say why this request is not served, and close."""
        if self.transport.is_closing():
            return
        head = self._head if self._target is not None else Head(())
        self._last = True
        self._write_rarely(head, response)

    def _leave(self) -> None:
        """Close, so that the client can read its answer: unread input would make the system reset it."""
        if not self._reading and self._at >= len(self._held) and not self.flow.read_paused:
            self._over = True
            self.transport.close()
            return
        self._over, self._since = True, self._front.tick
        self._held, self._at, self._body = b"", 0, []
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
