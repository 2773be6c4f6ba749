"""A TCP connection that can be cut where it hurts: between a client and a server, in a thread of its own."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
_CHUNK = 65536


class _Pair:
    """One connection from a client, and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.marked = False

    def reset(self) -> None:
        """End both at once; the client hears a reset, not an end of file."""
        for writer in (self.client, self.server):
            found = writer.get_extra_info("socket")
            if found is not None:
                # A socket that lingers for no time is reset when it is closed.
                with contextlib.suppress(OSError):  # it is closed already
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()


class Proxy:
    """Passes on what comes, on a free port of loopback, to a port on loopback.

    `requests` and `answers` count the chunks from clients and from the server, over all connections. A
    chunk is what one read gave: for a client that waits for each answer, one request.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.requests = 0
        self.answers = 0
        self.accepted = 0
        self._pairs: set[_Pair] = set()
        self._cut_at_request: int | None = None
        self._cut_at_answer: int | None = None
        self._mark: bytes | None = None
        self._marked = 0
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self._call(self._listen)
        return self

    def close(self) -> None:
        """Reset all connections and listen no more."""
        if self._thread.is_alive():
            self._call(self._end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)
        self._loop.close()

    def drop(self, *, refuse: bool = False) -> int:
        """Reset all connections now; `refuse`: and every new one, until `accept`. How many there were."""

        async def do() -> int:
            self._refusing = refuse
            return self._reset_all()

        return self._call(do)

    def accept(self) -> None:
        """Take connections again."""

        async def do() -> None:
            self._refusing = False

        self._call(do)

    def stall(self) -> None:
        """Keep connections open and pass nothing on, either way, until `resume`."""

        async def do() -> None:
            self._flowing.clear()

        self._call(do)

    def resume(self) -> None:
        """Pass on what has gathered and what comes."""

        async def do() -> None:
            self._flowing.set()

        self._call(do)

    def cut_before_request(self, number: int = 1) -> None:
        """Reset all connections when the `number`-th chunk from now comes from a client; it is lost."""

        async def do() -> None:
            self._cut_at_request = self.requests + number

        self._call(do)

    def cut_before_answer(self, number: int = 1) -> None:
        """Reset all connections when the `number`-th chunk from now comes from the server; it is lost.

        The server has then done what was asked, and the client does not hear of it.
        """

        async def do() -> None:
            self._cut_at_answer = self.answers + number

        self._call(do)

    def cut_answer_to(self, mark: bytes) -> None:
        """Reset all connections when the next chunk from a client that has `mark` in it is answered.

        The server has then done what was asked, and the client does not hear of it.
        """

        async def do() -> None:
            self._mark = mark

        self._call(do)

    @property
    def armed(self) -> bool:
        """Whether a cut that was ordered has yet to happen."""
        waiting = self._cut_at_request is not None or self._cut_at_answer is not None
        return waiting or self._mark is not None or self._marked > 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, do: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(60)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        self._flowing.set()
        # One that was accepted a moment ago may have yet to become a pair: until nothing but this runs.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            self._reset_all()
            await asyncio.wait(others, timeout=0.05)
        # What is aborted is closed in the loop's next round.
        await asyncio.sleep(0)

    def _reset_all(self) -> int:
        pairs, self._pairs = self._pairs, set()
        self._marked = 0
        for pair in pairs:
            pair.reset()
        return len(pairs)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        # Until there is a connection to the server, what ends the client's ends the pair.
        pair = _Pair(writer, writer)
        self._pairs.add(pair)
        try:
            if self._refusing:
                pair.reset()
                return
            answers, pair.server = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(
                self._pass(pair, reader, pair.server, self._asked),
                self._pass(pair, answers, writer, self._told),
            )
        except OSError:
            pair.reset()
        finally:
            self._pairs.discard(pair)

    def _asked(self, pair: _Pair, chunk: bytes) -> bool:
        self.requests += 1
        if self._mark is not None and self._mark in chunk:
            self._mark, pair.marked = None, True
            self._marked += 1
        if self.requests != self._cut_at_request:
            return False
        self._cut_at_request = None
        return True

    def _told(self, pair: _Pair, _chunk: bytes) -> bool:
        self.answers += 1
        if pair.marked:
            return True
        if self.answers != self._cut_at_answer:
            return False
        self._cut_at_answer = None
        return True

    async def _pass(
        self,
        pair: _Pair,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        cut: Callable[[_Pair, bytes], bool],
    ) -> None:
        """Carry one direction until it ends; its end is passed on, too."""
        try:
            while chunk := await source.read(_CHUNK):
                if cut(pair, chunk):
                    self._reset_all()
                    return
                await self._flowing.wait()
                sink.write(chunk)
                await sink.drain()
            await self._flowing.wait()
            sink.close()
        except OSError:
            pair.reset()
