"""How the worker processes of one machine tell each other that something has changed.

What changes is in the database, and every worker looks there twice a second anyway. But whoever has just
created an experiment through one worker may ask another one for an assignment a millisecond later; so the
worker that changed something asks its siblings to look now, and waits a moment until they have.

Made before the workers are forked, so that all have the same sockets and the same flags.
"""

import asyncio
import contextlib
import itertools
import mmap
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import structlog

_log = structlog.get_logger("assay.durable")

_MESSAGE: Final = struct.Struct("<BBQ")  # kind, sender's place, ticket
_ASK, _SEEN = 1, 2
#: Seconds that somebody who changed something waits for the others; they look by themselves soon after.
PATIENCE: Final = 1.0


#: Room for what one worker says of itself, of which only what is written takes memory.
_ROOM: Final = 4 * 1024 * 1024
_HEAD: Final = struct.Struct("<QQ")  # odd while it is being written; length


class _Place(NamedTuple):
    receiving: socket.socket
    sending: socket.socket


class Siblings:
    """Places for `count` workers; `serving` says which are taken by one that serves."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._flags = mmap.mmap(-1, count)
        self._said = mmap.mmap(-1, count * _ROOM)
        self._places = [_Place(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(count)]
        for place in self._places:
            for end in place:
                end.setblocking(False)

    def close(self) -> None:
        """Let go of all sockets."""
        for place in self._places:
            for end in place:
                end.close()
        self._flags.close()
        self._said.close()

    def serving(self, place: int) -> bool:
        """Whether the worker in this place serves."""
        return self._flags[place] == 1

    def mark(self, place: int, *, serving: bool) -> None:
        """Say whether the worker in this place serves; for itself, and for who finds it dead."""
        self._flags[place] = int(serving)

    def sit(self, place: int) -> "Sibling":
        """The worker's view, from this place; called in the worker."""
        return Sibling(self, place)

    def send(self, to: int, kind: int, sender: int, ticket: int) -> None:
        """Send one message; lost if the other does not read, which looks by itself before long."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._places[to].sending.send(_MESSAGE.pack(kind, sender, ticket))

    def say(self, place: int, what: bytes) -> None:
        """Leave a text about the worker here for its siblings; one that is too long leaves the old one."""
        if len(what) > _ROOM - _HEAD.size:
            return
        start = place * _ROOM
        turn = _HEAD.unpack_from(self._said, start)[0] | 1
        _HEAD.pack_into(self._said, start, turn, 0)
        begin = start + _HEAD.size
        self._said[begin : begin + len(what)] = what
        _HEAD.pack_into(self._said, start, turn + 1, len(what))

    def said(self, place: int) -> bytes:
        """What was left last in this place, also by a worker that is gone; empty if nothing, or just now."""
        start = place * _ROOM
        for _ in range(100):
            turn, length = _HEAD.unpack_from(self._said, start)
            what = self._said[start + _HEAD.size : start + _HEAD.size + length]
            if turn % 2 == 0 and _HEAD.unpack_from(self._said, start)[0] == turn:
                return what
        return b""

    def receiver(self, place: int) -> socket.socket:
        """Where messages to this place arrive."""
        return self._places[place].receiving


class Sibling:
    """One worker among its siblings."""

    def __init__(self, siblings: Siblings, place: int) -> None:
        self._siblings = siblings
        self._place = place
        self._tickets = itertools.count(1)
        self._waiting: dict[int, tuple[set[int], threading.Event]] = {}
        self._guard = threading.Lock()
        self._asked: list[tuple[int, int]] = []
        self._looking: asyncio.Task[None] | None = None
        self._look: Callable[[], None] | None = None
        # A thread of its own: whoever waits for something slow must not keep a revoked key alive.
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="assay-look")

    def listen(self, look: Callable[[], None]) -> None:
        """From now on `look` is called, in a thread, when a sibling has changed something. On the loop."""
        self._look = look
        receiver = self._siblings.receiver(self._place)
        while True:  # what was meant for who sat here before
            try:
                receiver.recv(_MESSAGE.size)
            except BlockingIOError:
                break
        asyncio.get_running_loop().add_reader(receiver, self._receive)

    def mark(self, *, serving: bool) -> None:
        """Say whether this worker serves, and so must be asked."""
        self._siblings.mark(self._place, serving=serving)

    def say(self, what: bytes) -> None:
        """Leave a text about this worker."""
        self._siblings.say(self._place, what)

    def inherited(self) -> bytes:
        """What the last worker in this place left."""
        return self._siblings.said(self._place)

    def others(self) -> list[tuple[bytes, bool]]:
        """What the others left, each with whether it serves."""
        places = (place for place in range(self._siblings.count) if place != self._place)
        return [
            (said, self._siblings.serving(place)) for place in places if (said := self._siblings.said(place))
        ]

    def leave(self) -> None:
        """Listen no more. On the loop."""
        self.mark(serving=False)
        asyncio.get_running_loop().remove_reader(self._siblings.receiver(self._place))
        self._looker.shutdown(wait=False)

    def tell(self) -> bool:
        """Ask all that serve to look, and wait until they have; False if one has not in time.

        For any thread but the loop's.
        """
        others = [
            place
            for place in range(self._siblings.count)
            if place != self._place and self._siblings.serving(place)
        ]
        if not others:
            return True
        ticket, done = next(self._tickets), threading.Event()
        with self._guard:
            self._waiting[ticket] = (set(others), done)
        for place in others:
            self._siblings.send(place, _ASK, self._place, ticket)
        seen = done.wait(PATIENCE)
        with self._guard:
            del self._waiting[ticket]
        return seen

    def _receive(self) -> None:
        receiver = self._siblings.receiver(self._place)
        while True:
            try:
                message = receiver.recv(_MESSAGE.size)
            except BlockingIOError:
                break
            kind, sender, ticket = _MESSAGE.unpack(message)
            if kind == _ASK:
                self._asked.append((sender, ticket))
            else:
                self._note(sender, ticket)
        if self._asked and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._answer())

    def _note(self, sender: int, ticket: int) -> None:
        with self._guard:
            waiting = self._waiting.get(ticket)
            if waiting is None:
                return
            waiting[0].discard(sender)
            if not waiting[0]:
                waiting[1].set()

    async def _answer(self) -> None:
        """Look once for all who have asked by now, again for those who asked meanwhile."""
        while self._asked and self._look is not None:
            asked, self._asked = self._asked, []
            try:
                await asyncio.get_running_loop().run_in_executor(self._looker, self._look)
            except Exception:  # noqa: BLE001 - whoever asked waits out its patience; the next round tries again
                _log.warning("siblings.look_failed", exc_info=True)
                continue
            for sender, ticket in asked:
                self._siblings.send(sender, _SEEN, self._place, ticket)
