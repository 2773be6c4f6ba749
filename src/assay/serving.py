"""Run the application on uvicorn, in this process or in several."""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from assay import __version__
from assay.durable.siblings import Sibling, Siblings
from assay.errors import AssayError, Unavailable
from assay.hotpath.front import Front
from assay.hotpath.protocol import HotProtocol
from assay.settings import Settings
from assay.wiring import Application
from assay.workers import Workers, listening

#: Seconds in which answers still go out with `Connection: close` before idle connections are closed: who is
#: using a connection gets to hear of it in an answer, not by a reset.
_FAREWELL = 1.0
#: Connections accepted ten times a second, if so many knock. The event loop itself accepts one in a turn; in
#: the long turns of a busy server new clients would wait for minutes.
_LET_IN = 256
#: New objects after which a search for cycles among them begins; ten such searches make one among older ones.
_YOUNG_OBJECTS = 50_000
#: How long a thread may keep the interpreter while another waits for it.
_SWITCH_SECONDS = 0.001


class _Server(uvicorn.Server):
    """A uvicorn server that ends gently.

    On SIGTERM `/ready` turns red; after `shutdown_delay`, in which load balancers notice, it accepts nobody
    any more; answers ask for the connection to be closed; then what is left is finished. A second signal, or
    one from the keyboard, skips the waiting.
    """

    def __init__(self, config: uvicorn.Config, application: Application, sibling: Sibling | None) -> None:
        super().__init__(config)
        self._application = application
        self._sibling = sibling
        self._asked_at: float | None = None
        self._closed_at: float | None = None
        self._listener: socket.socket | None = None
        self._entering: set[asyncio.Task[Any]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self._application.draining = True  # whoever sent it: what lasts, such as a stream, ends by this
        if sig == signal.SIGTERM and self._asked_at is None and self.started:
            self._asked_at = time.monotonic()
            self._captured_signals.append(sig)
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say that this worker serves."""
        await super().startup(sockets)
        if self.started and sockets:
            self._listener = sockets[0]
        if self.started and self._sibling is not None:
            self._sibling.mark(serving=True)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to end."""
        if self._asked_at is not None:
            now = time.monotonic()
            if self._closed_at is None and now >= self._asked_at + self._application.settings.shutdown_delay:
                self._closed_at = now
                for server in self.servers:
                    server.close()
            if self._closed_at is not None and (
                not self.server_state.connections or now >= self._closed_at + _FAREWELL
            ):
                self.should_exit = True
        if self._listener is not None and self._closed_at is None and not self.should_exit:
            self._let_in(self._listener)
        return await super().on_tick(counter)

    def _let_in(self, listener: socket.socket) -> None:
        """Accept those who knock."""
        loop = asyncio.get_running_loop()
        make: Callable[..., Any] = self.config.http_protocol_class
        state, shared = self.server_state, self.lifespan.state
        for _ in range(_LET_IN):
            try:
                accepted, _address = listener.accept()
            except OSError:  # nobody is left; or no file descriptor is, with which the event loop deals
                break
            task = loop.create_task(
                loop.connect_accepted_socket(
                    lambda: make(config=self.config, server_state=state, app_state=shared), accepted
                )
            )
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)


def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> int:
    """Serve until told to stop; gives back the exit code. `reread` gives the settings as they are later.

    Raises what keeps the server from starting, before anything listens, so that it is one sentence.
    """
    os.umask(0o077)  # what the data directory holds is the owner's business
    try:
        listener = listening(settings.host, settings.port)
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another with "
            "--host and --port.",
            code="port",
        ) from error
    if settings.workers > 1 and settings.postgres is not None:
        workers = Workers(
            lambda siblings, place, parent: _work(
                reread or (lambda: settings), listener, siblings, place, parent
            ),
            settings.workers,
            grace=settings.shutdown_delay + settings.drain_timeout + 5,
            close=listener.close,
            delay=settings.shutdown_delay,
        )
        return workers.serve(lambda: _announce(listener))
    application = Application(settings)
    application.open()
    return _run(settings, application, listener, None)


def _work(
    reread: Callable[[], Settings], listener: socket.socket, siblings: Siblings, place: int, parent: int
) -> int:
    """One worker of several, with the settings as they are when it is made."""
    sibling = siblings.sit(place)
    try:
        settings = reread()
        application = Application(settings, sibling)
        application.open()
        return _run(settings, application, listener, sibling, parent)
    except AssayError as error:
        sys.stderr.write(f"assay: {error.detail}\n")
        return 1


def _run(
    settings: Settings,
    application: Application,
    listener: socket.socket,
    sibling: Sibling | None,
    parent: int | None = None,
) -> int:
    front = Front(lambda: application.hot, lambda: application.draining)
    config = uvicorn.Config(
        application,
        http=partial(HotProtocol, front=front),  # type: ignore[arg-type] # it is called, no more
        log_level="warning",
        access_log=False,
        server_header=False,
        # Nothing here looks at the caller's address; the middleware would cost every request a microsecond.
        proxy_headers=False,
        lifespan="on",
        # Longer than load balancers keep an idle connection (60 s is usual), so that they close it and not
        # we: a request that crosses our closing would be lost.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    server = _Server(config, application, sibling)
    if parent is not None:
        application.on_startup = lambda: _follow(parent, server)
    elif sibling is None:
        application.on_startup = lambda: _announce(listener)
    # What a request makes is freed by counting references. The search for cycles, which stops everybody, need
    # not look at what is loaded for good, nor begin so often: it took a third of a bulk call.
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
    # The event loop waits a millisecond for the writer, the drain and reports to let go, not five.
    sys.setswitchinterval(_SWITCH_SECONDS)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _follow(parent: int, server: _Server) -> None:
    """End when the parent is gone: its end of the pipe is closed then."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(parent)
        server.handle_exit(signal.SIGTERM, None)

    loop.add_reader(parent, gone)


def _announce(listener: socket.socket) -> None:
    name: Any = listener.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    sys.stdout.write(f"Assay {__version__} listens on http://{host}:{name[1]}\n")
    sys.stdout.flush()
