"""Bounded memory that threads share and that a fork does not lock for ever."""

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping of at most `most` entries: a new one takes the place of the oldest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[K, V] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def forked(self) -> None:
        """Forget who held the lock in the parent."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> V | None:
        """The value, None for what is not known."""
        return self._known.get(key)

    def put(self, key: K, value: V) -> bool:
        """Remember a value; whether the key is new."""
        with self._lock:
            new = key not in self._known
            if new and len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[key] = value
            return new

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()


class MemoryStickyBuckets:
    """Sticky buckets of one process: variants outlive a change of the split, but not the process."""

    def __init__(self, most: int = 100_000) -> None:
        self._units: Recent[tuple[str, str], Mapping[str, str]] = Recent(most)

    def get(self, attribute: str, value: str) -> Mapping[str, str]:
        """Variants by experiment of this unit."""
        return self._units.get((attribute, value)) or {}

    def put(self, attribute: str, value: str, experiment: str, variant: str) -> None:
        """Keep one more."""
        self._units.put((attribute, value), {**self.get(attribute, value), experiment: variant})


_all: "weakref.WeakSet[Recent[Any, Any]]" = weakref.WeakSet()


def _forked() -> None:
    for each in list(_all):
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
