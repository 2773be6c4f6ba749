"""Server-sent events for SDKs: a line when the payload has changed, and calls from pages of other origins.

These answers last, or have a method that no hot route has, so they go the way of ASGI, before the control
plane. A stream says that something changed, not what: an SDK then asks for what it needs, with its ETag.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from assay.errors import AssayError, Unavailable
from assay.hotpath.app import split
from assay.hotpath.features import CROSS_ORIGIN, Features, refuse
from assay.hotpath.http import Application, Head, Receive, Response, Scope, Send, path_text

#: Streams of one process at a time; each costs a connection and some kilobytes.
MOST_STREAMS: Final = 1_000
#: Seconds of silence after which a comment is sent: proxies close what says nothing for a minute.
HEARTBEAT_SECONDS: Final = 15.0
#: Seconds between two looks at what is in force.
_LOOK_SECONDS: Final = 0.2
#: Milliseconds a client waits before it connects again.
_RETRY: Final = 3_000
#: Seconds a stream is held that begins while the server ends: some clients come back at once.
_HELD_SECONDS: Final = 1.0

_EVENT: Final = b"id: %s\nevent: features-updated\ndata: {}\n\n"
_PREFLIGHT: Final = (
    *CROSS_ORIGIN,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"Authorization, Cache-Control, Content-Type, If-None-Match, Last-Event-ID, X-Request-ID",
    ),
    (b"access-control-max-age", b"86400"),
)

#: What the API page says of the one path that is served here.
STREAM_PATHS: Final[Mapping[str, Any]] = {
    "/sub/{sdk_key}": {
        "get": {
            "summary": "Server-sent events: features-updated when the payload of GrowthBook's SDKs changes",
            "parameters": [{"name": "sdk_key", "in": "path", "required": True, "schema": {"type": "string"}}],
            "responses": {"200": {"description": "Success", "content": {"text/event-stream": {}}}},
            "security": [],
        }
    }
}


class Streams:
    """An ASGI application in front of `fallback`: `GET /sub/{sdk_key}`, and `OPTIONS` of what SDKs call.

    `closing` says that the server ends: streams end then. `clock` gives microseconds UTC.
    """

    def __init__(
        self,
        features: Features,
        fallback: Application,
        *,
        closing: Callable[[], bool],
        clock: Callable[[], int],
        most: int = MOST_STREAMS,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._features = features
        self._fallback = fallback
        self._closing = closing
        self._clock = clock
        self._most = most
        self._heartbeat = heartbeat
        #: One for each open stream, set when there is something to look at.
        self._awaited: set[asyncio.Event] = set()
        self._looking: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return len(self._awaited)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what belongs here, pass on the rest."""
        if scope["type"] == "http":
            parts = split(scope.get("raw_path") or scope["path"].encode())
            if scope["method"] == "OPTIONS" and _called_by_sdks(parts):
                await _answer(send, Response(204, b"", b"", _PREFLIGHT))
                return
            if scope["method"] == "GET" and len(parts) == 3 and parts[1] == b"sub":
                await self._subscribe(parts[2], Head(scope["headers"]), receive, send)
                return
        await self._fallback(scope, receive, send)

    async def _subscribe(self, secret: bytes, head: Head, receive: Receive, send: Send) -> None:
        try:
            key = path_text(secret)
            told = self._features.current(self._features.authorise(key, self._clock())).mark
            if len(self._awaited) >= self._most:
                raise Unavailable(
                    f"This process has {self._most} streams open; ask for the features now and then instead.",
                    code="too_many_streams",
                    retry_after=30,
                )
        except AssayError as error:
            await _answer(send, refuse(error))
            return
        awaited = asyncio.Event()
        self._awaited.add(awaited)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        leaving = asyncio.create_task(_gone(receive, awaited))
        try:
            await self._stream(key, told, head, send, awaited, leaving)
        finally:
            self._awaited.discard(awaited)
            leaving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaving

    async def _stream(
        self,
        key: str,
        told: bytes,
        head: Head,
        send: Send,
        awaited: asyncio.Event,
        leaving: "asyncio.Task[None]",
    ) -> None:
        """Write until somebody ends it; `told` is the mark of the payload in force."""
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),  # nginx would hold events back
            *CROSS_ORIGIN,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        seen = next((value for name, value in head.headers if name == b"last-event-id"), told)
        hello = b": connected\nretry: %d\nid: %s\n\n" % (_RETRY, told)
        await _write(send, hello + (_EVENT % told if seen != told else b""))
        if self._closing():
            await asyncio.sleep(_HELD_SECONDS)
        while not (self._closing() or leaving.done()):
            try:
                await asyncio.wait_for(awaited.wait(), self._heartbeat)
            except TimeoutError:
                await _write(send, b": still here\n\n")
            awaited.clear()
            try:
                mark = self._features.current(self._features.authorise(key, self._clock())).mark
            except AssayError:
                break
            if mark != told:
                told = mark
                await _write(send, _EVENT % mark)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _look(self) -> None:
        """Wake the streams when something else is in force; one look for all, as long as there are any."""
        published = self._features.published
        known: tuple[object, object, bool] = (published.ruleset, published.keys, False)
        while self._awaited:
            await asyncio.sleep(_LOOK_SECONDS)
            now = (published.ruleset, published.keys, self._closing())
            if now[0] is not known[0] or now[1] is not known[1] or now[2]:
                known = now
                for awaited in self._awaited:
                    awaited.set()
        self._looking = None


def _called_by_sdks(parts: list[bytes]) -> bool:
    return parts[1:2] in ([b"sub"], [b"ofrep"]) or parts[1:3] in ([b"api", b"features"], [b"api", b"eval"])


async def _gone(receive: Receive, awaited: asyncio.Event) -> None:
    """Until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    awaited.set()


async def _write(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def _answer(send: Send, response: Response) -> None:
    """A whole answer; the request id is added by who called."""
    status, body, kind, extra = response
    headers: list[Any] = [(b"content-length", b"%d" % len(body))] if body else []
    if kind:
        headers.append((b"content-type", kind))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
    await send({"type": "http.response.body", "body": body})
