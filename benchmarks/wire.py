"""As little HTTP/1.1 as it takes, fast: one request at a time on a kept-alive connection."""

import asyncio
import http.client
import json
import time
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit


class Target:
    """Where requests go, and with which key.

    `url` may change while a load runs: a server that comes back may listen elsewhere.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    @property
    def url(self) -> str:
        """The base URL, without a path."""
        return self._url

    @url.setter
    def url(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is not http://host:port")
        self._url = url
        self.host, self.port = parts.hostname, parts.port or 80

    def call(self, method: str, path: str, body: Any = None, *, patience: float = 120) -> tuple[int, bytes]:
        """One request on a connection of its own, which waits: status and body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        try:
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def read(self, method: str, path: str, body: Any = None, *, insist: float = 300) -> tuple[int, bytes]:
        """As `call`, asked again for up to `insist` seconds while what was stored has yet to be readable."""
        until = time.monotonic() + insist
        while True:
            status, answer = self.call(method, path, body)
            if status != 503 or time.monotonic() > until:
                return status, answer
            time.sleep(0.2)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer of a request that must succeed."""
        status, answer = self.read(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return json.loads(answer)


class Answer(NamedTuple):
    """What came back. `head` is the status line and the headers, in lower case."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value of a header (lower-case name) in lower case, None where it is not there."""
        start = self.head.find(b"\r\n" + name + b": ")
        if start < 0:
            return None
        start += len(name) + 4
        end = self.head.find(b"\r\n", start)
        return self.head[start:] if end < 0 else self.head[start:end]


class Lost(Exception):  # noqa: N818 - it is a fact, not an error
    """A request that got no answer, or half of one.

    `sent` is the time (monotonic) at which it went out, None where no connection could be made; `partly`
    whether an answer had begun.
    """

    def __init__(self, reason: str, sent: float | None, *, partly: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.partly = partly


class Connection(asyncio.Protocol):
    """A kept-alive connection with at most one request on its way. Made by `connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._data = b""
        self._sent = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(repr(error) if error else "closed by the server")

    def ask(self, data: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future gets its answer or `Lost`."""
        assert self._waiting is None
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        self._sent = time.monotonic()
        if self._transport is None or self._transport.is_closing():
            waiting.set_exception(Lost("closed before the request was sent", None))
            return waiting
        self._waiting = waiting
        self._transport.write(data)
        return waiting

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._data = data
            return
        head = data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self._fail(f"an answer without Content-Length: {head[:200]!r}")
            return
        stop = head.find(b"\r\n", at + 17)
        size = int(head[at + 17 :] if stop < 0 else head[at + 17 : stop])
        if len(data) < end + 4 + size:
            self._data = data
            return
        self._data = data[end + 4 + size :]
        waiting, self._waiting = self._waiting, None
        if waiting is None or self._data:
            raise AssertionError(f"an answer that nobody asked for: {data[:300]!r}")
        if not waiting.done():
            waiting.set_result(Answer(int(head[9:12]), head, data[end + 4 :]))
        if b"\r\nconnection: close" in head:
            self.close()

    def _fail(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(Lost(reason, self._sent, partly=bool(self._data)))
        self.close()

    def close(self) -> None:
        """Close it; a request on its way is lost."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


async def connect(target: Target, *, patience: float = 10) -> Connection:
    """A new connection; raises `Lost` where none can be made within `patience` seconds."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience):
            _, connection = await loop.create_connection(Connection, target.host, target.port)
    except (OSError, TimeoutError) as error:
        raise Lost(f"no connection: {error!r}", None) from error
    return connection
