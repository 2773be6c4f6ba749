"""What the control plane is made of; `assay.wiring` puts it together."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from assay.assignments.base import AssignmentStore
from assay.catalog.database import Database
from assay.catalog.keys import KeyUse
from assay.eventstore.base import EventStore
from assay.published import Published, Right
from assay.reports.snapshots import Snapshots

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Parts:
    """The rooms the control plane speaks to, and its limits.

    `flush` returns once everything acknowledged before the call can be read from `store`; while `paused` is
    held nothing is on its way there, so that what is removed stays removed. `forget` makes every process
    forget what it remembers of a user whose traces were removed. `clock` gives microseconds UTC.
    `history_days` is how long past reports are kept. `anonymous`
    is what calls without a key may do. `extra_paths` and `extra_schemas` are the hot routes' part of the API
    page; `docs` says whether there is one.
    """

    database: Database
    published: Published
    store: EventStore
    snapshots: Snapshots
    assignments: AssignmentStore
    flush: Callable[[], Awaitable[None]]
    paused: Callable[[], AbstractContextManager[None]]
    forget: Callable[[str], None]
    clock: Callable[[], int]
    key_use: KeyUse
    history_days: int = 90
    anonymous: frozenset[Right] = frozenset()
    max_body: int = 8 * 1024 * 1024
    docs: bool = True
    extra_paths: Mapping[str, Any] = field(default_factory=dict)
    extra_schemas: Mapping[str, Any] = field(default_factory=dict)


def moment(microseconds: int) -> datetime:
    """Microseconds since the epoch as a time."""
    return _EPOCH + timedelta(microseconds=microseconds)
