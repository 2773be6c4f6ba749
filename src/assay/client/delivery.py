"""What was recorded goes to the server: in batches, again and again, until each item is settled."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from assay.client.clock import Clock, Notices
from assay.client.options import Options
from assay.client.outbox import Item, Kind, Outbox
from assay.client.wire import Answer, Wire, WireError

#: Bytes of one request's items.
_BATCH_BYTES: Final = 1 << 20
#: The longest pause, in seconds, while somebody waits for a flush.
_HURRIED: Final = 0.25
_PATHS: Final = {Kind.EXPOSURE: "/api/v1/exposures", Kind.EVENT: "/api/v1/events"}


class _Verdict(NamedTuple):
    """What an answer means for the items that were sent: those to send again, and after how many seconds."""

    again: list[Item]
    pause: float | None = None


class Courier:
    """Empties an outbox; for one event loop. `full` says that items were lost since the last that went."""

    def __init__(
        self, outbox: Outbox, options: Options, headers: Mapping[str, str], clock: Clock, notices: Notices
    ) -> None:
        self._outbox = outbox
        self._options = options
        self._headers = {**headers, "Content-Type": "application/json"}
        self._clock = clock
        self._notices = notices
        self._chance = random.Random()  # noqa: S311 - pauses, not secrets
        #: Set when there is something to look at.
        self.stirred = asyncio.Event()
        self._settled = asyncio.Event()
        self._hurried = 0
        self._refused = False
        self.full = False

    async def run(self, wire: Wire) -> None:
        """Send what was recorded, batch after batch."""
        while True:
            await self._gathered()
            batch = self._outbox.take(self._options.batch, _BATCH_BYTES)
            for kind in Kind:  # exposures first: what a user does counts from there
                await self._send(wire, kind, [item for item in batch if item.kind is kind])
            self._outbox.settle()
            self._settled.set()

    async def _gathered(self) -> None:
        """Until there is something, and either enough of it, or it has waited long enough."""
        loop = asyncio.get_running_loop()
        due: float | None = None
        while True:
            number = len(self._outbox)
            if number and due is None:
                due = loop.time() + self._options.flush_interval
            if number >= self._options.batch or (number and (self._hurried or loop.time() >= (due or 0))):
                return
            self.stirred.clear()
            # Between the look above and this wait nothing is missed: stirring is done by this loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self.stirred.wait()

    async def _send(self, wire: Wire, kind: Kind, items: list[Item]) -> None:
        """Send items of one kind until each is accepted, refused for good, or lost."""
        times = pauses(self._options, self._chance)
        parts = [items] if items else []
        while parts:
            part = parts.pop()
            try:
                body = _body(kind, part, self._clock)
                answer = await wire.request(
                    "POST", _PATHS[kind], self._headers, body, self._options.request_wait
                )
            except WireError as error:
                verdict = _Verdict(part, next(times))
                self._notices.warn("delivery", "%d items wait to be sent: %s", len(self._outbox), error)
            else:
                verdict = self._judge(kind, part, answer, times)
            if verdict.again and verdict.pause is None:
                half = (len(verdict.again) + 1) // 2
                parts += [verdict.again[half:], verdict.again[:half]]
            elif verdict.again:
                parts.append(verdict.again)
                await self._pause(verdict.pause or 0.0)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; shorter while somebody waits for a flush, or begins to."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (min(seconds, _HURRIED) if self._hurried else seconds)
        while loop.time() < end:
            self.stirred.clear()
            before = self._hurried
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self.stirred.wait()
            if self._hurried > before:
                return

    def _judge(self, kind: Kind, items: list[Item], answer: Answer, times: Iterator[float]) -> _Verdict:
        """What the server said of these items."""
        status = answer.status
        self._clock.note(answer)
        self._refused = status in {401, 403}
        if status in {200, 201, 202}:
            self._notices.well("delivery")
            self.full = False
            self._count(kind, items, answer)
            return _Verdict([])
        if status in {400, 413, 415, 422}:
            if len(items) == 1:
                self._outbox.note(rejected=1)
                self._notices.warn(f"{kind} refused", "1 refused for good: %s", sentence(answer))
                return _Verdict([])
            # Wrong items are named in an answer of 202, so it is their number or their bytes: halves will do.
            return _Verdict(items)
        self._notices.warn("delivery", "%d items wait to be sent: %s", len(self._outbox), sentence(answer))
        asked = answer.headers.get("retry-after", "")
        seconds = min(float(asked), self._options.retry_most) if asked.isdigit() else 0.0
        return _Verdict(items, max(next(times), seconds))

    def _count(self, kind: Kind, items: list[Item], answer: Answer) -> None:
        try:
            said = msgspec.json.decode(answer.body, type=_Said)
        except msgspec.MsgspecError as error:
            self._notices.warn("answer", "The server's answer to what was sent cannot be read: %s", error)
            said = _Said(accepted=len(items))
        self._outbox.note(
            accepted=said.accepted,
            duplicates=said.duplicates,
            rejected=len(said.rejected),
            conflicts=len(said.conflicts),
        )
        if said.rejected:
            first = said.rejected[0].get("message", "")
            self._notices.warn(f"{kind} refused", "%d refused for good: %s", len(said.rejected), first)

    async def flush(self, seconds: float) -> bool:
        """Send now what was recorded until now. Whether all of it went, or was refused, in time."""
        target = self._outbox.added
        self._refused = False
        self._hurried += 1
        self.stirred.set()
        try:
            async with asyncio.timeout(seconds):
                # With a key that is refused there is nothing to wait for.
                while not self._outbox.through(target) and not self._refused:
                    self._settled.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_HURRIED):
                            await self._settled.wait()
        except TimeoutError:
            pass
        finally:
            self._hurried -= 1
        return self._outbox.through(target)


class _Said(msgspec.Struct):
    """What both calls answer, as far as it is counted."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = []
    conflicts: list[dict[str, Any]] = []


def _body(kind: Kind, items: list[Item], clock: Clock) -> bytes:
    """The body of one request, with the times as the server's clock had them."""
    joined = b",".join(
        item.body
        if item.at is None
        else b'%s,"timestamp":"%s"}' % (item.body[:-1], clock.iso(item.at).encode())
        for item in items
    )
    return b"[%s]" % joined if kind is Kind.EXPOSURE else b'{"events":[%s]}' % joined


def pauses(options: Options, chance: random.Random) -> Iterator[float]:
    """Seconds between tries: each drawn up to twice the one before, to a limit: clients spread out."""
    longest = options.retry
    while True:
        yield chance.uniform(longest / 2, longest)
        longest = min(longest * 2, options.retry_most)


def sentence(answer: Answer) -> str:
    """What an answer says is wrong."""
    try:
        detail = json.loads(answer.body)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = ""
    return f"{answer.status} {detail}".strip()
