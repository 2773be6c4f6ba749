"""Removing events whose time is over, some at a time, so that nobody notices."""

import time
from datetime import datetime
from typing import Final

from assay.events.timestamps import micros
from assay.eventstore.base import EventStore
from assay.settings import Settings

#: Seconds between two rounds, and events removed in one step; while there are more, steps follow at once.
_PAUSE: Final = 60.0
_ROWS: Final = 50_000


class Retention:
    """What the setting `RETENTION` asks for, done by one process."""

    def __init__(self, settings: Settings) -> None:
        self._kept = settings.retained
        self._next = 0.0

    def apply(self, store: EventStore, now: datetime) -> int:
        """Remove a step's worth if it is time; how many events went."""
        if not self._kept or time.monotonic() < self._next:
            return 0
        before = {kind: micros(now - span) for kind, span in self._kept.items() if kind != "*"}
        otherwise = micros(now - self._kept["*"]) if "*" in self._kept else None
        removed = store.expire(before, otherwise, _ROWS)
        if removed < _ROWS:
            self._next = time.monotonic() + _PAUSE
        return removed
