"""The contestants, each a real process on loopback, kept on one core."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.wire import Target

KEY = "benchmark-key"
_ROOT = Path(__file__).parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A process that answers HTTP, from `start` to `stop`."""

    def __init__(self, command: list[str], port: int, *, core: int | None, **environment: str) -> None:
        self.port = port
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed in `stop`
        self._process = subprocess.Popen(
            [*pinned, *command],
            cwd=_ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def pid(self) -> int:
        """Of the server process."""
        return self._process.pid

    def wait(self, path: str = "/health", patience: float = 60) -> Self:
        """Until it answers at all."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.call("GET", path)
                return self
            time.sleep(0.002)
        said = self.said()
        self.stop()
        raise RuntimeError(f"The server did not start: {said[-2000:]}")

    def said(self) -> str:
        """What it has written so far."""
        self._log.seek(0)
        return self._log.read()

    def call(self, method: str, path: str, body: Any = None, *, patience: float = 600) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        return Target(f"http://127.0.0.1:{self.port}", KEY).call(method, path, body, patience=patience)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer of a request that must succeed."""
        status, answer = self.call(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return json.loads(answer)

    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def settle(self) -> None:
        """Wait until it has finished what it does in the background."""

    def calm(self) -> None:
        """Wait until it does nothing: what is loaded or read after the start is no part of a path's cost."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            busy = self.cpu()
            time.sleep(0.5)
            if self.cpu() - busy < 0.05:
                return

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Raw(Server):
    """The ceiling; see `benchmarks.raw`."""

    def __init__(self, *, core: int | None, get: int = 300, post: int = 300) -> None:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.raw", f"--port={port}", f"--get={get}", f"--post={post}"]
        super().__init__(command, port, core=core)


class Typical(Server):
    """The service most teams would write; see `benchmarks.typical`."""

    def __init__(self, directory: Path, *, core: int | None, database: str = "") -> None:
        port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.typical.app", f"--port={port}", f"--key={KEY}"]
        url = database or f"sqlite:///{directory / 'typical.db'}"
        super().__init__([*command, f"--database={url}"], port, core=core)


class Assay(Server):
    """Ours, as `assay serve` starts it."""

    def __init__(self, directory: Path, *, core: int | None, **environment: str) -> None:
        port = free_port()
        command = [*assay(), "serve", "--host=127.0.0.1", f"--port={port}", f"--data={directory}"]
        super().__init__(command, port, core=core, API_TOKEN=KEY, **environment)

    def series(self) -> dict[str, float]:
        """Its Prometheus series without labels, by name."""
        page = self.call("GET", "/metrics")[1].decode()
        return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", page, re.MULTILINE)}

    def answers(self) -> dict[int, int]:
        """How many answers of each status the hot routes have given."""
        found: dict[int, int] = {}
        page = self.call("GET", "/metrics")[1].decode()
        for status, number in re.findall(
            r'^assay_hot_requests_total\{.*status="(\d+)"\} (\S+)$', page, re.MULTILINE
        ):
            found[int(status)] = found.get(int(status), 0) + int(float(number))
        return found

    def settle(self) -> None:
        """Wait until the drain has caught up."""
        until = time.monotonic() + 120
        while self.series().get("assay_drain_lag_rows", 0) > 0:
            if time.monotonic() > until:
                raise RuntimeError("The drain does not catch up.")
            time.sleep(0.02)


def assay() -> list[str]:
    """The command, from the environment that runs the benchmarks."""
    return [sys.executable, "-m", "assay"]


def run_assay(*arguments: str) -> str:
    """Run one command to its end and give back what it said."""
    done = subprocess.run(
        [*assay(), *arguments],
        cwd=_ROOT,
        env={**os.environ, "API_TOKEN": KEY},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"assay {' '.join(arguments)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


class Syncs:
    """How many times a process has asked the disk to confirm, while this is counting."""

    def __init__(self) -> None:
        self.count = 0
        self.known = shutil.which("strace") is not None


@contextlib.contextmanager
def counting_syncs(pid: int) -> Iterator[Syncs]:
    """Count fsync and fdatasync of a process by strace; `known` is false where that cannot be done.

    It slows the process down, so nothing is timed meanwhile.
    """
    syncs = Syncs()
    if not syncs.known:
        yield syncs
        return
    with tempfile.NamedTemporaryFile(mode="r") as summary:
        command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-p", str(pid), "-o", summary.name]
        tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        try:
            yield syncs
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
            text = summary.read()
    rows = re.findall(
        r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(?:fsync|fdatasync)$", text, re.MULTILINE
    )
    syncs.count = sum(map(int, rows))
    syncs.known = tracer.returncode == 0 or bool(rows)
