"""Connections on which anything can be said to a server in this process."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import uvloop

from assay.hotpath.protocol import HotProtocol
from hotpath.served import Serving, served
from inprocess import KEY

Journey = Callable[[Serving], Awaitable[Any]]
AUTH = f"Authorization: Bearer {KEY}\r\n"


def run(tmp_path: Path, journey: Journey, **settings: Any) -> Any:
    async def whole() -> Any:
        async with served(tmp_path, **settings) as server:
            try:
                return await asyncio.wait_for(journey(server), 60)
            finally:
                while Wire.open:
                    Wire.open.pop().writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


class Wire:
    """A connection on which anything can be said."""

    open: ClassVar[list["Wire"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: Serving) -> "Wire":
        cls.open.append(cls(*await asyncio.open_connection("127.0.0.1", server.port)))
        return cls.open[-1]

    def say(self, text: str | bytes) -> None:
        self.writer.write(text if isinstance(text, bytes) else text.encode())

    async def hear(self, *, body: bool = True) -> tuple[int, bytes, bytes]:
        """One answer: status, head, body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"\r\ncontent-length: (\d+)", head)
        size = int(found[1]) if found and body else 0
        return int(head[9:12]), head, await self.reader.readexactly(size)

    async def ask(self, text: str | bytes) -> tuple[int, bytes, bytes]:
        self.say(text)
        return await self.hear()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self.reader.read()


def get(path: str, more: str = "") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{AUTH}{more}\r\n"


def post(path: str, document: Any, more: str = "") -> str:
    body = document if isinstance(document, str) else json.dumps(document)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{more}\r\n{body}"


async def prepared(server: Serving) -> Wire:
    """A connection to a server that has one running experiment."""
    wire = await Wire.to(server)
    variants = [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}]
    status, _, body = await wire.ask(
        post("/api/v1/experiments", {"name": "Test", "status": "running", "variants": variants})
    )
    assert status == 201, body
    return wire


def connection(server: Serving) -> HotProtocol:
    """The server's side of the only connection there is."""
    (only,) = server.server_state.connections
    return cast("HotProtocol", only)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop go round until something holds."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never held")
