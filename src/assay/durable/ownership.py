"""One owner for each data directory, and the socket by which others speak to it."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.errors import Conflict, Unavailable


class DataDirectory:
    """The directory that holds a server's files, locked for as long as its owner lives.

    The lock is the kernel's: it goes with the process, so a killed server leaves nothing to clean up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def socket_path(self) -> Path:
        """Where the owner listens for `assay import` and its like."""
        return self.path / "assay.sock"

    def acquire(self) -> None:
        """Make the directory if need be and become its owner.

        Raises `Unavailable` when it cannot be written, `Conflict` when another process owns it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "assay.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Unavailable(
                f"The data directory {self.path} cannot be written: {error.strerror}.", code="data_directory"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise Conflict(
                f"The data directory {self.path} is in use by process {owner}: "
                "stop it, or choose another directory with --data.",
                code="data_directory_in_use",
            ) from error
        with contextlib.suppress(OSError):  # on a full disk the lock still holds, it only has no name
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Stop being the owner."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def ask_owner(path: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Send one request to the process that owns the directory and yield its answers as they come."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            # A relative name from inside the directory: a socket's address has room for 107 bytes only.
            with contextlib.chdir(path):
                connection.connect("assay.sock")
        except OSError as error:
            raise Unavailable(
                f"The server that owns {path} does not answer on its socket: {error.strerror}.",
                code="no_owner",
            ) from error
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answers:
            for line in answers:
                yield json.loads(line)
