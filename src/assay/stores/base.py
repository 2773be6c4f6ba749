"""What a server, or a command without one, works on: the same whatever lies beneath."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from assay.assignments.base import AssignmentStore
from assay.catalog.database import Database
from assay.errors import AssayError
from assay.events.log import EventLog
from assay.eventstore.base import EventStore
from assay.hotpath.attributes import Attributes
from assay.published import Published
from assay.settings import Settings


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Written(NamedTuple):
    """What group commits have done so far."""

    commits: int
    rows: int
    waiting: int
    """Rows that wait for one now."""


class Lag(NamedTuple):
    """How far the event store is behind the log."""

    rows: int
    seconds: float
    """How long the oldest of them has been waiting."""


class Stores(Protocol):
    """The stores of one installation, in the order of their life: open, start, stop.

    `open` may be called from any thread, `start` and `stop` from the event loop that will use them. The
    other methods are for any thread but an event loop's, except where they are coroutines.
    """

    settings: Settings
    published: Published
    database: Database
    assignments: AssignmentStore
    log: EventLog
    store: EventStore
    attributes: Attributes

    def open(self) -> None:
        """Open everything that needs no event loop; nothing stays open on failure.

        Raises `Conflict` when somebody else owns what has one owner, `Unavailable` when it cannot be opened.
        """

    async def start(self) -> None:
        """Open the rest."""

    async def stop(self) -> None:
        """Finish what was accepted and close everything; also after an `open` without a `start`."""

    def close(self) -> None:
        """Close what `open` has opened, where nothing was started."""

    def flush(self) -> None:
        """Return once everything acknowledged before the call can be read from `store`."""

    async def wait_past(self) -> None:
        """`flush`, for the event loop."""

    def paused(self) -> AbstractContextManager[None]:
        """While this is held nothing is on its way to `store`, so that what is removed stays removed."""

    def tend(self, now: datetime) -> None:
        """See what others have changed, every half second or so; nothing here waits for anything slow."""

    def pass_on(self, now: datetime) -> None:
        """Upkeep that may take its time: pass on what waits, remove what is over."""

    def leads(self) -> bool:
        """Whether scheduled work is this process's to do, now."""

    def failures(self) -> dict[str, AssayError | None]:
        """What readiness depends on, by name, each with why it fails, if it does."""

    def forget(self, unit_id: str) -> None:
        """Let every process forget what it remembers of a unit, before and after its traces are removed."""

    def written(self) -> Written:
        """The totals of group commits."""

    def lag(self) -> Lag:
        """How far the event store is behind."""

    def first_key(self) -> str | None:
        """On a catalog that never had a key, and with none in the environment: make one and write it down."""

    def listen(self, answer: "Answer") -> None:
        """Let commands of other processes be answered here, where stores have one owner."""

    def stop_listening(self) -> None:
        """Take no more commands."""


Say = Callable[[dict[str, object]], None]
Answer = Callable[[dict[str, object], Say], None]
