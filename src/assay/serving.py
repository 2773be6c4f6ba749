"""Run the application on uvicorn."""

import os
import socket
import sys

import uvicorn

from assay import __version__
from assay.errors import Unavailable
from assay.settings import Settings
from assay.wiring import Application


class _Server(uvicorn.Server):
    """A uvicorn server that says in one line where it listens, with the port it really got."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"Assay {__version__} listens on http://{shown}:{port}\n")
            sys.stdout.flush()


def _expect_free(host: str, port: int) -> None:
    """Say that the port is taken before anything is made; one taken a moment later is uvicorn's to tell."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port} ({error.strerror}): choose another with --host and --port.",
            code="port",
        ) from error


def serve(settings: Settings) -> int:
    """Serve until told to stop; gives back the exit code.

    Raises the errors of `Application.open` before anything listens, so that they are one sentence.
    """
    _expect_free(settings.host, settings.port)
    os.umask(0o077)  # what the data directory holds is the owner's business
    application = Application(settings)
    application.open()
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Nothing here looks at the caller's address; the middleware would cost every request a microsecond.
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=30,
    )
    server = _Server(config)
    server.run()
    return 0 if server.started else 1
