"""What connections share: known heads, beginnings of answers, and the clock of their sweep."""

import asyncio
import contextlib
import resource
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from assay.hotpath.app import HotPath
from assay.hotpath.http import Head

#: Heads remembered, and how long one may be; a client sends the same one again and again.
_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 2048
#: Refusals a second that a process gives at most, each costing a sixth of an answer: a connection that was
#: refused something is read on so late that all of them together ask no more often.
MOST_REFUSALS: Final = 20_000
#: File descriptors that are not for connections: databases, segments, pipes.
_RESERVED: Final = 256
_MOST_CONNECTIONS: Final = 50_000


def _most_files() -> int:
    """How many files this process may have open; asks for as many as its connections can need."""
    wanted = _MOST_CONNECTIONS + _RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        more = wanted if hard == unlimited else min(hard, wanted)
        with contextlib.suppress(ValueError, OSError):  # the system has its reasons; then it is fewer
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, more), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == unlimited else soft


class Known(NamedTuple):
    """A head that was judged before: an HTTP/1.1 GET or POST that keeps its connection."""

    head: Head
    length: int


class Connection(ABC):
    """A connection as those see it who look after all of them."""

    loop: asyncio.AbstractEventLoop
    connections: set[Any]

    @abstractmethod
    def look_after(self, tick: int) -> None:
        """Once a second: end what takes too long."""

    @abstractmethod
    def go_on(self) -> None:
        """Take up what has come meanwhile: others had their turn."""


class Front:
    """What the connections of one process share.

    `hot` gives the hot path, None before the application has started. While `draining` is true every answer
    asks the client to go elsewhere, and its connection is closed.
    """

    def __init__(self, hot: Callable[[], HotPath | None], draining: Callable[[], bool]) -> None:
        self.hot = hot
        self.draining = draining
        #: Whole seconds since the first connection: what waiting is measured by.
        self.tick = 0
        #: By everything between the request line and the blank line.
        self.known: dict[bytes, Known] = {}
        allowed = _most_files() - _RESERVED
        self.most_connections = max(min(allowed, _MOST_CONNECTIONS), 16)
        self._beginnings: dict[tuple[int, bytes], bytes] = {}
        self._defaults: object = None
        self._sweeping = False
        #: Connections that were refused something, and when they are read on.
        self._resting: deque[tuple[float, Connection]] = deque()

    def learn(self, block: bytes, head: Head, length: int) -> None:
        """Remember a head, unless it is of a kind that no request has again."""
        if len(block) <= _LONGEST_KNOWN and head.identity is None:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[block] = Known(head, length)

    def beginning(self, status: int, kind: bytes, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """An answer up to its length; `defaults` are uvicorn's headers, a new list each second."""
        if defaults is not self._defaults:
            self._beginnings.clear()
            self._defaults = defaults
        found = self._beginnings.get((status, kind))
        if found is None:
            lines = b"".join([b"%s: %s\r\n" % each for each in defaults])
            found = b"%s%scontent-type: %s\r\ncontent-length: " % (STATUS_LINE[status], lines, kind)
            self._beginnings[status, kind] = found
        return found

    def rest(self, connection: Connection) -> None:
        """Read on from this connection a little later.

        A client that repeats at once what was refused would have the server do nothing but refuse.
        """
        loop, seconds = connection.loop, len(connection.connections) / MOST_REFUSALS
        self._resting.append((loop.time() + seconds, connection))
        if len(self._resting) == 1:
            loop.call_later(seconds, self._rested, loop)

    def _rested(self, loop: asyncio.AbstractEventLoop) -> None:
        now, resting = loop.time() + 0.001, self._resting
        while resting and resting[0][0] <= now:
            resting.popleft()[1].go_on()
        if resting:
            loop.call_later(resting[0][0] - now, self._rested, loop)

    def watch(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        """Look after these connections once a second, as long as there are any."""
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(1, self._sweep, loop, connections)

    def _sweep(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        self.tick += 1
        for connection in tuple(connections):
            if isinstance(connection, Connection):
                connection.look_after(self.tick)
        self._sweeping = bool(connections)
        if self._sweeping:
            loop.call_later(1, self._sweep, loop, connections)
