"""Whether one request more may wait for a commit, so that waiting is short and memory bounded.

Two bounds. The number of requests that wait is limited, whatever the reason. And a server that cannot keep up
takes no more work into a turn of its event loop than it can do in `TURN_SECONDS`; who is read later in that
turn is refused, which costs a sixth of an answer. Without that second bound everything is taken that lies in
the sockets, a turn takes as long as there are connections, and everybody's answer comes too late.

A server *cannot keep up* once requests have not been answered within `SOON` for as long as `PATIENCE`: a
search for cycles, a report beside it or a neighbour on the machine make a queue that is gone by then, and
refuse nobody. A disk that is slow but idle in between makes none of its turns long, and refuses nobody
either: who waits for it waits for the same two commits, however many they are.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

_log = structlog.get_logger("assay.hotpath")

#: Requests of one process that may wait at a time. A commit takes whatever has gathered, so more waiting
#: means longer waiting: at 10,000 answers a second this many wait 0.4 s, and clients begin to give up.
MOST_WAITING: Final = 4096
#: As many may always wait: they are answered in a turn or two.
FEW_WAITING: Final = 256
#: Seconds of work in one turn of the event loop while there is more than can be done. Longer turns make
#: longer waits, shorter ones smaller commits.
TURN_SECONDS: Final = 0.025
#: Seconds in which whoever waits is answered by a server that keeps up, and for how many it must not have
#: been so before anybody is refused.
SOON: Final = 0.1
PATIENCE: Final = 1.0
#: Seconds of one wait that count for that: a process that was stopped for long is behind, not overloaded.
LONGEST: Final = 0.25
#: Seconds without a refusal after which the server is taken to keep up again.
RECOVERY: Final = 1.0

_NEVER: Final = -1


class Admission:
    """Counts the requests of one event loop that wait, and says when there is no room for another.

    `clock` gives seconds that never go back; `most` and `few` are bounds of those who wait.

    Attributes:
        waiting: requests that wait now.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        most: int = MOST_WAITING,
        few: int = FEW_WAITING,
    ) -> None:
        self.waiting = 0
        self._clock = clock
        self._most = most
        self._few = few
        self._left = 0
        #: The queue is measured by how long it takes until all are answered who wait at some moment: when
        #: that moment was, and how many answers it is until then.
        self._measured_at = 0.0
        self._due = _NEVER
        #: Seconds for which nobody was answered soon.
        self._late = 0.0
        self._overloaded = False
        self._refused_at = 0.0
        #: When this turn of the event loop began, where that is looked at.
        self._turned_at = 0.0
        self._watching = False

    @property
    def overloaded(self) -> bool:
        """Whether more is asked for than can be done."""
        return self._overloaded and self._clock() - self._refused_at < RECOVERY

    def enter(self) -> None:
        """One more waits."""
        self.waiting += 1
        if self.waiting >= self._few and self._due < 0:
            self._measure(self._clock())

    def leave(self) -> None:
        """One of those who waited is answered."""
        self.waiting -= 1
        self._left += 1
        if self._left == self._due:
            self._measured()

    def full(self) -> bool:
        """Whether the next one has to be refused rather than wait."""
        if self.waiting < self._few:
            return False
        if self.waiting >= self._most:
            return True
        if not self._overloaded:
            return False
        now = self._clock()
        if now - self._refused_at >= RECOVERY:
            self._overloaded = False
            return False
        if not self._watching:
            self._watching, self._turned_at = True, now
            asyncio.get_running_loop().call_soon(self._turn)
        if now - self._turned_at < TURN_SECONDS:
            return False
        self._refused_at = now
        return True

    def _turn(self) -> None:
        """The event loop begins another turn."""
        self._watching = self._overloaded and self.waiting > 0
        if self._watching:
            self._turned_at = self._clock()
            asyncio.get_running_loop().call_soon(self._turn)

    def _measure(self, now: float) -> None:
        self._measured_at = now
        self._due = self._left + self.waiting

    def _measured(self) -> None:
        now = self._clock()
        took = now - self._measured_at
        if self.waiting < self._few or took < SOON:
            self._due, self._late = _NEVER, 0.0
            return
        self._late += min(took, LONGEST)
        if self._late >= PATIENCE and not self._overloaded:
            self._overloaded, self._refused_at = True, now
            _log.warning("server.overloaded", waiting=self.waiting)  # once, not for every refusal
        self._measure(now)
