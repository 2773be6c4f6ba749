"""Rows on their way to PostgreSQL: who waits for what, until when."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from assay.durable.session import Session


class Patience(NamedTuple):
    """How long the database may take, in seconds."""

    connect: float = 5.0
    """To open a connection."""
    statement: float = 5.0
    """To answer one statement of a group; the connection is dropped then."""
    group: float = 10.0
    """From when a row is put to its answer, all attempts together; each row gets one whole statement."""
    silence: float = 5.0
    """Without any answer before it is asked whether it is still there."""


Apply = Callable[[Session, list[Any], bool], Awaitable[Sequence[Any]]]


class Entry(NamedTuple):
    """A row that waits, and its size; `deadline` is by the clock of the loop."""

    item: Any
    future: asyncio.Future[Any]
    rows: int
    bytes: int
    deadline: float


class Lane:
    """One kind of row on its way to the database, or of question; made by `PostgresWriter.lane`."""

    __slots__ = ("_put", "apply", "entries", "flights", "flying", "name", "size", "writes")

    def __init__(
        self,
        put: Callable[["Lane", Any], asyncio.Future[Any]],
        name: str,
        apply: Apply,
        size: Callable[[Any], tuple[int, int]],
        flights: int,
        writes: bool,
    ) -> None:
        self.name = name
        self._put = put
        self.apply = apply
        self.size = size
        self.flights = flights
        self.writes = writes
        self.flying = 0
        self.entries: deque[Entry] = deque()

    def put(self, item: Any) -> asyncio.Future[Any]:
        """Queue `item` (event-loop thread only); the future gets its result once it is on disk.

        Raises `Unavailable` when the queue is full, the database away or the writer closing; the future does
        when `Patience.group` is over. A caller that goes away does not take its row, or its neighbours', with
        it.
        """
        return self._put(self, item)


class Group(NamedTuple):
    """Rows that go together; `doubt` says that an earlier attempt at them may be stored."""

    lane: Lane
    entries: list[Entry]
    deadline: float
    doubt: bool


class Job(NamedTuple):
    """Work on a connection of its own."""

    work: Callable[[Session], Awaitable[Any]]
    future: asyncio.Future[Any]
    timeout: float
    probe: bool
    deadline: float


def settle(future: asyncio.Future[Any], error: Exception) -> None:
    """Tell who waits for it, unless it has been told."""
    if not future.done():
        future.set_exception(error)


def fail(entries: list[Entry], error: Exception) -> None:
    for entry in entries:
        settle(entry.future, error)
