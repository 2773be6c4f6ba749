"""What waits to be sent: bounded, in the order it came, and counted where it is lost. No input or output."""

import threading
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What an item is; each kind has a call of its own."""

    EXPOSURE = "exposure"
    EVENT = "event"


class Item(NamedTuple):
    """One thing to send, encoded when it happened.

    `at` is when it happened by this machine's clock, in µs since 1970; None where the body says it.
    """

    kind: Kind
    body: bytes
    at: int | None = None


@dataclass(frozen=True)
class Delivery:
    """What became of what was recorded, counted since the client was made.

    `accepted` and `duplicates` are on the server's disk. `rejected` was refused by the server, `conflicts`
    are exposures of a unit that has another variant on record, `lost` found no room here. `pending` waits.
    """

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    conflicts: int = 0
    lost: int = 0
    pending: int = 0


class Outbox:
    """A queue for many threads and one sender. Without room, the oldest that is not on its way goes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Item] = deque()
        self._sending: list[Item] = []
        self._bytes = 0
        self._added = 0
        self._counts = Delivery()

    def forked(self) -> None:
        """Begin anew in a forked process: what waits is the parent's to send."""
        self._reset()

    @property
    def added(self) -> int:
        """How many items were ever added."""
        return self._added

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    def add(self, item: Item) -> tuple[int, int]:
        """Put an item at the end; gives how many wait now and how many were lost for it."""
        lost = 0
        with self._lock:
            self._waiting.append(item)
            self._added += 1
            self._bytes += len(item.body)
            while self._waiting and (len(self) > self._most or self._bytes > self._most_bytes):
                self._bytes -= len(self._waiting.popleft().body)
                lost += 1
            if lost:
                self._counts = replace(self._counts, lost=self._counts.lost + lost)
            return len(self._waiting), lost

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """The oldest items, which stay counted until they are settled; at least one if there is any."""
        with self._lock:
            size = 0
            # However small the queue, there is always room beside what is on its way.
            while self._waiting and len(self._sending) < max(1, min(most, self._most // 2)):
                size += len(self._waiting[0].body)
                if self._sending and size > most_bytes:
                    break
                self._sending.append(self._waiting.popleft())
            return list(self._sending)

    def settle(self) -> None:
        """What was taken is done with, one way or the other."""
        with self._lock:
            self._bytes -= sum(len(item.body) for item in self._sending)
            self._sending = []

    def note(
        self, *, accepted: int = 0, duplicates: int = 0, rejected: int = 0, conflicts: int = 0, lost: int = 0
    ) -> None:
        """Add to the counts."""
        with self._lock:
            known = self._counts
            self._counts = Delivery(
                known.accepted + accepted,
                known.duplicates + duplicates,
                known.rejected + rejected,
                known.conflicts + conflicts,
                known.lost + lost,
            )

    def through(self, number: int) -> bool:
        """Whether the first `number` items ever added are settled or lost."""
        with self._lock:
            return self._added - len(self) >= number

    def delivery(self) -> Delivery:
        """The counts as they are now."""
        with self._lock:
            return replace(self._counts, pending=len(self))
