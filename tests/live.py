"""A real server process for tests: started, asked over loopback, stopped or killed, started again."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import httpx2

T = TypeVar("T")
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")
#: Settings of the machine that runs the tests must not reach the servers under test.
_KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT"),
    *("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)
_pause = threading.Event().wait


def until(look: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """What `look` finds, asked again until it finds something; fails naming `what` when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        _pause(0.02)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: what a process needs to run, and what the test sets."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


def run(
    *arguments: str | Path, cwd: Path, extra: Mapping[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run one `assay` command to its end and give back what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "assay", *map(str, arguments)],
        cwd=cwd,
        env=environment(extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Server:
    """`assay serve` on a data directory that outlives the process.

    `before` is put in front of the command line (a tracer, say) and `settings` into the environment.
    """

    def __init__(
        self, data: Path, settings: Mapping[str, str] | None = None, *, before: Sequence[str] = ()
    ) -> None:
        self.data = data
        self.settings = dict(settings or {})
        self.before = tuple(before)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.url = ""

    @property
    def pid(self) -> int:
        """The process, as it runs now."""
        assert self.process is not None
        return self.process.pid

    @property
    def key(self) -> str:
        """The admin key: from the settings, or what the first start wrote."""
        given = self.settings.get("ADMIN_TOKEN") or self.settings.get("API_TOKEN", "").partition(",")[0]
        return given or (self.data / "admin.key").read_text().strip()

    @property
    def log(self) -> Path:
        """What the running process prints, both streams."""
        return self.data.with_name(f"{self.data.name}.{self.starts}.log")

    def output(self) -> str:
        """What the running process has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def launch(self) -> Self:
        """Start the process without waiting for it."""
        assert self.process is None
        self.starts += 1
        self.data.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *self.before,
            sys.executable,
            "-m",
            "assay",
            "serve",
            "--port",
            "0",
            "--data",
            str(self.data),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.data.parent,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # With a tracer there are two processes, which end together as a group.
                start_new_session=bool(self.before),
            )
        return self

    def start(self) -> Self:
        """Start the process and wait until it is ready to serve."""
        self.launch()

        def address() -> str | None:
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"the server ended before it was ready:\n{self.output()}")
            found = _URL.search(self.output())
            return found and found[0]

        self.url = until(address, f"the server says where it listens, it said: {self.output()}", 300)

        def ready() -> bool:
            try:
                return httpx2.get(f"{self.url}/ready", timeout=30).status_code == 200
            except httpx2.TransportError:
                return False

        until(ready, "the server is ready", 300)
        return self

    def stop(self, seconds: float = 60) -> int:
        """Ask the process to end and give back its exit code, 0 where it is the signal's own."""
        assert self.process is not None
        self.process.terminate()
        code = self._ended(seconds)
        return 0 if code == -signal.SIGTERM else code

    def kill(self) -> None:
        """Take the process away at once, as a power cut takes it."""
        self._strike()
        self._ended(60)

    def _strike(self) -> None:
        assert self.process is not None
        if self.before:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def _ended(self, seconds: float) -> int:
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._strike()
            self.process.wait(60)
            raise AssertionError(f"the server did not end within {seconds:g} s:\n{self.output()}") from None
        finally:
            self.process = None

    def restart(self) -> Self:
        """Stop it properly and start it on the same directory."""
        assert self.stop() == 0, self.output()
        return self.start()

    @contextmanager
    def client(self, key: str | None = None) -> Iterator[httpx2.Client]:
        """A client that sends the admin key, another one, or with "" none."""
        secret = self.key if key is None else key
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        with httpx2.Client(base_url=self.url, headers=headers, timeout=60) as client:
            yield client

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.kill()
