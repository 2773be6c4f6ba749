"""One owner for each data directory, and the socket by which others speak to it."""

import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from assay.errors import AssayError, Conflict, Invalid, Unavailable

_SOCKET = "assay.sock"
_log = structlog.get_logger("assay.durable")


class DataDirectory:
    """The directory that holds a server's files, locked for as long as its owner lives.

    The lock is the kernel's: it goes with the process, so a killed server leaves nothing to clean up.
    """

    def __init__(self, path: Path, database: Path | None = None) -> None:
        self.path = path
        self._locked = [path / "assay.lock"]
        if database is not None and database.absolute().parent != path.absolute():
            self._locked.append(database.with_name(f"{database.name}.lock"))
        self._locks: list[int] = []
        self._listener: socket.socket | None = None

    @property
    def socket_path(self) -> Path:
        """Where the owner listens for `assay import` and its like."""
        return self.path / _SOCKET

    def acquire(self) -> None:
        """Make the directory if need be and become its owner, and that of a database kept elsewhere.

        Raises `Unavailable` when it cannot be written, `Conflict` when another process owns it.
        """
        try:
            for path in self._locked:
                self._locks.append(self._lock(path))
        except BaseException:
            self.release()
            raise

    def _lock(self, path: Path) -> int:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Unavailable(
                f"The data directory {path.parent} cannot be written: {error.strerror}.",
                code="data_directory",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise Conflict(
                f"The data directory {path.parent} is in use by process {owner}: "
                "stop it, or choose another directory with --data.",
                code="data_directory_in_use" if path == self._locked[0] else "database_in_use",
            ) from error
        with contextlib.suppress(OSError):  # on a full disk the lock still holds, it only has no name
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def release(self) -> None:
        """Stop being the owner."""
        while self._locks:
            os.close(self._locks.pop())

    def listen(self, serve: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]) -> None:
        """Answer other processes on the directory's socket, each in a thread of its own.

        `serve(request, say)` does what one request asks for and says each message as it comes.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            self.socket_path.unlink()
        with _address(self.path) as address:
            listener.bind(address)
        self.socket_path.chmod(0o600)
        listener.listen()
        self._listener = listener
        threading.Thread(target=_accept, args=(listener, serve), name="assay-socket", daemon=True).start()

    def stop_listening(self) -> None:
        """Accept nobody any more; requests under way are finished."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self.socket_path.unlink(missing_ok=True)


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The socket's address, by way of an open directory: an address has room for 107 bytes only."""
    full = str(directory / _SOCKET)
    if len(os.fsencode(full)) < 100 or not Path("/proc/self/fd").is_dir():
        yield full
        return
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{opened}/{_SOCKET}"
    finally:
        os.close(opened)


def _accept(
    listener: socket.socket, serve: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]
) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # closed
        threading.Thread(target=_serve, args=(connection, serve), name="assay-command", daemon=True).start()


def _serve(
    connection: socket.socket, serve: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]
) -> None:
    def say(message: dict[str, Any]) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    with connection, contextlib.suppress(ConnectionError):
        try:
            with connection.makefile("rb") as lines:
                serve(json.loads(lines.readline(1_000_000)), say)
            say({"end": True})
        except AssayError as error:
            say({"error": error.detail, "code": error.code})
        except json.JSONDecodeError:
            say({"error": "The request is not one JSON object on one line.", "code": "malformed"})
        except ConnectionError:
            raise  # the other side is gone
        except Exception:  # noqa: BLE001 - logged; the other side is told
            _log.exception("command.failed")
            say(
                {
                    "error": "Something went wrong in the server; its log has the details.",
                    "code": "internal_error",
                }
            )


def ask_owner(path: Path, request: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
    """Send one request to the process that owns the directory and hear its messages as they come.

    Raises `Unavailable` when nobody listens or the owner goes away, `Invalid` with its sentence when it
    refuses.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with _address(path) as address:
                connection.connect(address)
        except OSError as error:
            raise Unavailable(
                f"The process that owns {path} does not answer on its socket ({error.strerror}).",
                code="no_owner",
            ) from error
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as messages:
            for line in messages:
                message: dict[str, Any] = json.loads(line)
                if "error" in message:
                    raise Invalid(message["error"], code=message["code"])
                if "end" in message:
                    return
                hear(message)
    raise Unavailable(
        "The server went away before it had finished; run the command again.", code="owner_gone"
    )
