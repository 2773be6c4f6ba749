"""Where accepted events are put on disk before anybody is told so; what every log promises.

An event is acknowledged when the future of `append` has resolved, and is then there for good, once: a
repetition with the same user and the same caller's id is dropped, at once where the log can tell, otherwise
by whoever carries the log on to the event store.

Everything but `relearn` and `notes` belongs to the event loop. Errors: `Unavailable` where the events cannot
be put on disk now; nothing of that call was stored then, or, where the sentence says so, it may be.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from assay.events.event import Event
from assay.events.notes import Notes


class EventLog(Protocol):
    """See the head of this file for what all of this promises."""

    accepted: int
    """Events that were put on disk."""
    doubles: int
    """Events that were named as repetitions."""
    notes: Notes
    """Refusals and repetitions that the ledger has yet to learn of."""

    def split(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Those that are new as far as memory goes, and those known already or sent twice in this request."""

    def append(self, events: list[Event]) -> asyncio.Future[Sequence[Event]]:
        """Put events on disk together; resolves, when they are there, with those that were there before.

        There must be at least one, and at most 65,535.
        """

    def forget(self, user_id: str) -> None:
        """Forget a user's keys, after their events were erased; from any thread."""

    def relearn(self) -> None:
        """Forget all keys but those of stored events, after some came or went behind the log's back."""
