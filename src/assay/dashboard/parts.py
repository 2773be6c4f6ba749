"""What the dashboard is made of; `assay.control` puts it together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from assay.assignments.base import AssignmentStore
from assay.catalog.database import Database
from assay.catalog.keys import KeyUse
from assay.eventstore.base import EventStore
from assay.published import Published, Right
from assay.reports.snapshots import Snapshots

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Standing(NamedTuple):
    """How one part of the installation is: `trouble` None is well."""

    name: str
    trouble: str | None


class Figure(NamedTuple):
    """One number of the installation, ready to be read, or a moment."""

    name: str
    value: str | datetime
    about: str


class Installation(NamedTuple):
    """What runs here and how it is: its parts, how it is set up, and what this process has done."""

    version: str
    standing: Sequence[Standing]
    setup: Sequence[Figure]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Parts:
    """The rooms the pages speak to, and their limits.

    `flush` returns, in a thread, once everything acknowledged before the call can be read from `store`.
    `clock` gives microseconds UTC. `anonymous` is what a visitor without a key may do. `installation` says
    how this process and its stores are; `closing` whether the server is about to end. `history_days` is how
    long past reports are kept.
    """

    database: Database
    published: Published
    store: EventStore
    snapshots: Snapshots
    assignments: AssignmentStore
    flush: Callable[[], None]
    clock: Callable[[], int]
    key_use: KeyUse
    installation: Callable[[], Installation]
    anonymous: frozenset[Right] = frozenset()
    max_body: int = 1024 * 1024
    history_days: int = 90
    closing: Callable[[], bool] = field(default=lambda: False)


def moment(microseconds: int) -> datetime:
    """Microseconds since the epoch as a time."""
    return _EPOCH + timedelta(microseconds=microseconds)
