"""HTTP/1.1 over asyncio for one address: requests on kept connections, and streams of server-sent events.

The standard library has no client for asyncio; httptools, which the server needs anyway, reads the answers.
Sockets are made here, so that a forked process can let go of those it inherited.
"""

import asyncio
import contextlib
import socket
import ssl
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

import httptools

#: Bytes of an answer, unpacked.
MOST_BYTES: Final = 64 << 20
#: Bytes of one line of a stream.
_MOST_LINE: Final = 1 << 20
_CHUNK: Final = 1 << 16
#: Connections at a time; further requests wait for one.
_MOST_CONNECTIONS: Final = 16


class WireError(Exception):
    """No answer: the server is away, did not answer in time, or not in HTTP."""


class Address(NamedTuple):
    """Where the server is; `base` is a path in front of all of its own, without a slash at its end."""

    secure: bool
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `https://host[:port][/base]`. Raises `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"the server's address must be like https://assay.example, got {url!r}")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return cls(secure, parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%"))

    @property
    def authority(self) -> str:
        """Host and port as a `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


class Answer(NamedTuple):
    """An answer; header names in small letters. `seconds` is how long it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class _Reading:
    """What httptools calls while it reads one answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.begun = False  # a byte of an answer was there
        self.open = False  # the headers are complete
        self.done = False
        self.pieces: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        # Answers like 103 come before the one that is meant.
        if self.parser.get_status_code() >= 200:
            self.open = True
        else:
            self.headers.clear()

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.done = self.open

    def feed(self, data: bytes) -> None:
        """Read on; empty bytes are the end of the connection."""
        if data:
            self.begun = True
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise WireError(f"the answer is not HTTP: {error}") from error
        elif self.open and not self.headers.keys() & {"content-length", "transfer-encoding"}:
            self.done = True
        else:
            raise WireError("the connection ended before the answer did")


class _Connection(NamedTuple):
    sock: socket.socket
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def close(self) -> None:
        self.writer.close()


class Wire:
    """Requests to one server; for one event loop."""

    def __init__(self, address: Address, agent: str, connect_seconds: float) -> None:
        self.address = address
        self._agent = agent
        self._connect_seconds = connect_seconds
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._secure: ssl.SSLContext | None = None

    def forked(self) -> None:
        """Close this process's copies of the sockets; the parent goes on with its own."""
        for sock in list(self._sockets):
            sock.close()

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> Answer:
        """Send one request and read its answer. Raises `WireError`, at the latest after `seconds`.

        A connection that the server closed while it was idle is replaced by a new one; apart from that,
        nothing is sent twice.
        """
        try:
            async with asyncio.timeout(seconds), self._room:
                while self._idle:
                    with contextlib.suppress(_ClosedError):
                        return await self._exchange(self._idle.pop(), method, path, headers, body)
                with _as_wire_errors():
                    connection = await self._connect()
                return await self._exchange(connection, method, path, headers, body)
        except TimeoutError:
            raise WireError(f"no answer within {seconds:g} s") from None

    async def events(self, path: str, headers: Mapping[str, str], silence: float) -> AsyncIterator[str]:
        """The names of server-sent events as they come; first, when the stream is open, an empty one.

        Raises `WireError` where there is no such stream, and when it ends or says nothing for `silence`
        seconds.
        """
        with _as_wire_errors():
            connection = await self._connect()
        reading = _Reading()
        names = EventNames()
        told = False
        try:
            with _as_wire_errors():
                wanted = {**headers, "Accept": "text/event-stream"}
                connection.writer.write(self._head("GET", path, wanted, b""))
                while not reading.done:
                    async with asyncio.timeout(silence):
                        reading.feed(await connection.reader.read(_CHUNK))
                    if reading.open and not told:
                        told = True
                        status = reading.parser.get_status_code()
                        if status != 200:
                            raise RefusedError(status)
                        yield ""
                    pieces, reading.pieces = reading.pieces, []
                    for name in names.feed(b"".join(pieces)):
                        yield name
            raise WireError("the stream ended")
        except TimeoutError:
            raise WireError(f"the stream said nothing for {silence:g} s") from None
        finally:
            connection.close()

    async def _connect(self) -> _Connection:
        address = self.address
        if address.secure and self._secure is None:
            self._secure = ssl.create_default_context()
        # This blocks, but only the loop of the client's own thread; one that asks in a pool of threads
        # could not be used while the interpreter ends, when the last events are sent.
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        failed: Exception = OSError("the name has no address")
        for family, kind, protocol, _, target in found:
            sock = socket.socket(family, kind, protocol)
            self._sockets.add(sock)
            try:
                async with asyncio.timeout(self._connect_seconds):
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await asyncio.get_running_loop().sock_connect(sock, target)
                    reader, writer = await asyncio.open_connection(
                        sock=sock,
                        ssl=self._secure,
                        server_hostname=address.host if address.secure else None,
                        limit=_CHUNK,
                    )
                    return _Connection(sock, reader, writer)
            except (OSError, TimeoutError) as error:
                sock.close()
                failed = error
            except asyncio.CancelledError:
                sock.close()
                raise
        raise WireError(f"cannot connect to {address.authority}: {failed or 'no answer in time'}")

    def _head(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        given = {"Host": self.address.authority, "User-Agent": self._agent, **headers}
        if body:
            given["Content-Length"] = str(len(body))
        lines = [f"{method} {self.address.base}{path} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    async def _exchange(
        self, connection: _Connection, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        reading = _Reading()
        began = time.monotonic()
        keep = False
        try:
            with _as_wire_errors():
                connection.writer.write(self._head(method, path, headers, body))
                size = 0
                while not reading.done:
                    data = await connection.reader.read(_CHUNK)
                    if not data and not reading.begun:
                        raise _ClosedError("the connection was closed")
                    reading.feed(data)
                    size += len(data)
                    if size > MOST_BYTES:
                        raise WireError(f"the answer is longer than {MOST_BYTES} bytes")
            answer = Answer(
                reading.parser.get_status_code(),
                reading.headers,
                _unpacked(reading.headers, reading.pieces),
                time.monotonic() - began,
            )
            keep = reading.parser.should_keep_alive()
            return answer
        finally:
            if keep:
                self._idle.append(connection)
            else:
                connection.close()


class RefusedError(WireError):
    """A stream was answered with another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers {status}")
        self.status = status


class _ClosedError(WireError):
    """Nothing of an answer came."""


@contextlib.contextmanager
def _as_wire_errors() -> Iterator[None]:
    """What sockets raise, as the one error that callers of this module know."""
    try:
        yield
    except TimeoutError:
        raise
    except (ConnectionResetError, BrokenPipeError) as error:
        raise _ClosedError(str(error)) from error
    except OSError as error:
        raise WireError(str(error)) from error


def _unpacked(headers: Mapping[str, str], pieces: list[bytes]) -> bytes:
    body = b"".join(pieces)
    if headers.get("content-encoding", "").lower() != "gzip" or not body:
        return body
    unpacker = zlib.decompressobj(31)
    try:
        found = unpacker.decompress(body, MOST_BYTES)
    except zlib.error as error:
        raise WireError(f"the answer is not gzip: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise WireError(f"the answer is cut off, or longer than {MOST_BYTES} bytes")
    return found


class EventNames:
    """Reads a stream of server-sent events, of which only the names matter here."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data = False

    def feed(self, data: bytes) -> list[str]:
        """The names of the events that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_LINE:
            raise WireError("a line of the stream is too long")
        found = []
        for line in map(bytes.strip, lines):
            if line.startswith(b"event:"):
                self._name = line[6:].strip().decode("utf-8", "replace")
            elif line.startswith(b"data:"):
                self._data = True
            elif not line:
                if self._data:
                    found.append(self._name or "message")
                self._name, self._data = "", False
        return found
