"""The log of accepted events in PostgreSQL: the table `events` itself, written by any number of processes.

A unique key of event and user tells exactly which events were there before, so nothing need be carried on and
nothing is known only to one process.
"""

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from assay.durable.postgres import PostgresWriter
from assay.durable.session import Session
from assay.events.event import Event, encode
from assay.events.notes import Notes
from assay.events.recent import RecentKeys

# One JSON text for the whole group, made in C here and taken apart in C there: arrays for each column cost
# this process six times as much, and the server saves little by them.
_INSERT: Final = """
INSERT INTO events (
  event_id, original_id, keyed, user_id, units, type, occurred_at, counts_until, received_at, value, amount,
  properties, experiment_id, variant_id
)
SELECT e, o, coalesce(k, false), u, m::text, t, s, coalesce(c, s), r, v, a, p, x, y
FROM json_to_recordset($1::json) AS given (
  e uuid, u text, t text, s bigint, r bigint, c bigint, o text, k boolean, m json, v float8, a float8, p text,
  x bigint, y bigint
)
ON CONFLICT (event_id, user_id) DO NOTHING
RETURNING seq
"""
_STORED: Final = """
SELECT stored.event_id::text, stored.user_id, stored.seq, stored.received_at
FROM json_to_recordset($1::json) AS wanted (e uuid, u text)
CROSS JOIN LATERAL (
  SELECT event_id, user_id, seq, received_at FROM events
  WHERE event_id = wanted.e AND user_id = wanted.u OFFSET 0
) AS stored
"""
#: Bytes of an event in a group, without its properties.
_BARE: Final = 300

_encode = msgspec.json.Encoder().encode
_key = attrgetter("e", "u")


class _Wanted(msgspec.Struct, gc=False):
    e: str
    u: str


class PostgresEventLog:
    """An `EventLog` in the table `events`.

    Some keys are remembered all the same: most repetitions come soon, and then cost the database nothing.
    """

    def __init__(self, writer: PostgresWriter, *, memory: int = 20_000) -> None:
        self.accepted = 0
        self.doubles = 0
        self.notes = Notes()
        self._recent = RecentKeys(memory)
        self._lane = writer.lane("events", _store, _size)

    def split(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """See `EventLog`."""
        fresh, doubles = self._recent.split(events)
        self.doubles += len(doubles)
        return fresh, doubles

    def append(self, events: list[Event]) -> asyncio.Future[Sequence[Event]]:
        """See `EventLog`; which of them were there before is known exactly."""
        future = self._lane.put(events)

        def settled(done: asyncio.Future[Sequence[Event]]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            known = len(done.result())
            self.doubles += known
            self.accepted += len(events) - known
            for event in events:
                if event.k:
                    self._recent.remember(event.e + event.u)

        future.add_done_callback(settled)
        return future

    def forget(self, user_id: str) -> None:
        """See `EventLog`."""
        self._recent.forget_user(user_id)

    def relearn(self) -> None:
        """See `EventLog`; the table knows them all."""
        self._recent.clear()


def _size(events: list[Event]) -> tuple[int, int]:
    return len(events), _BARE * len(events) + sum([len(event.p) for event in events if event.p is not None])


async def _store(session: Session, requests: list[list[Event]], doubt: bool) -> list[Sequence[Event]]:
    """Write a group; for each request, those of its events that were stored before it came."""
    events = [event for request in requests for event in request]
    # In one order everywhere, so that two processes can wait for each other only in one direction. Equal keys
    # stay in the order in which they came.
    ordered = sorted(events, key=_key) if len(events) > 1 else events
    rows = await session.fetch(_INSERT, f"[{encode(ordered)}]")
    if len(rows) == len(events):
        return [()] * len(requests)
    stored = await _look_up(session, events)
    made = {row[0] for row in rows}
    seen: set[tuple[str, str]] = set()
    answers: list[Sequence[Event]] = []
    for request in requests:
        before: list[Event] = []
        for event in request:
            if not event.k:
                continue  # its id was made for it, so if it is there, it is by an earlier attempt of ours
            key = (event.e, event.u)
            seq, received_at = stored.get(key, (None, event.r))
            # In doubt, a row received at the same microsecond is what the earlier attempt stored.
            ours = seq is None or seq in made or (doubt and received_at == event.r)
            if key in seen or not ours:
                before.append(event)
            seen.add(key)
        answers.append(before)
    return answers


async def _look_up(session: Session, events: list[Event]) -> dict[tuple[str, str], tuple[Any, int]]:
    """Number and time of receipt of stored events that came with an id."""
    wanted = {(event.e, event.u) for event in events if event.k}
    rows = await session.fetch(_STORED, _encode([_Wanted(*key) for key in wanted]).decode())
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}
