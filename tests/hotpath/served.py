"""A server in this process, on the protocol of the hot path."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from assay.hotpath.front import Front
from assay.hotpath.protocol import HotProtocol
from assay.settings import Settings
from assay.wiring import Application
from inprocess import KEY


class Serving(uvicorn.Server):
    """A server on a port of the system's choosing, which says when it listens."""

    def __init__(self, application: Application, front: Front) -> None:
        config = uvicorn.Config(
            application,
            http=partial(HotProtocol, front=front),  # type: ignore[arg-type] # it is called, no more
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self.front = front
        self.listening = asyncio.Event()
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.socket.getsockname()[1])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextlib.asynccontextmanager
async def served(directory: Path, **settings: Any) -> AsyncIterator[Serving]:
    """An application behind the protocol of the hot path, on a loopback port of this process."""
    given = {"data_dir": str(directory / "data"), "api_token": KEY, **settings}
    application = Application(Settings(**given))
    front = Front(lambda: application.hot, lambda: application.draining)
    server = Serving(application, front)
    running = asyncio.create_task(server.serve(sockets=[server.socket]))
    try:
        await asyncio.wait_for(server.listening.wait(), 30)
        yield server
    finally:
        server.should_exit = True
        await running
