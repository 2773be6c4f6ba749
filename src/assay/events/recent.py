"""The ids that callers gave lately, so that most repetitions are named before anything is written."""

from collections.abc import Sequence

from assay.events.event import Event


class RecentKeys:
    """Between `size` / 2 and `size` keys of user and canonical event id; for the event loop."""

    def __init__(self, size: int) -> None:
        self._half = size // 2
        self._young: set[str] = set()
        self._old: set[str] = set()

    def remember(self, key: str) -> None:
        """Remember a key: the canonical event id followed by the user id."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.add(key)

    def known(self, key: str) -> bool:
        """Whether the key is remembered; one that is asked for stays a little longer."""
        if key in self._young:
            return True
        if key in self._old:
            self.remember(key)
            return True
        return False

    def split(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Those that are new, and those known already or standing twice in this very request."""
        fresh: list[Event] = []
        doubles: list[Event] = []
        here: set[str] = set()
        for event in events:
            if event.k:
                key = event.e + event.u
                if key in here or self.known(key):
                    doubles.append(event)
                    continue
                here.add(key)
            fresh.append(event)
        return fresh, doubles

    def forget_user(self, user_id: str) -> None:
        """Forget the keys of one user; from any thread."""
        for generation in (self._young, self._old):
            generation.difference_update([key for key in tuple(generation) if key[36:] == user_id])

    def clear(self) -> None:
        """Forget all keys."""
        self._young, self._old = set(), set()
