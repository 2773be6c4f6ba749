"""Single events: lists of them, newest first, and one by its id."""

import hashlib
import re
import uuid
from typing import Any, Final

import msgspec

from assay.eventstore import compose
from assay.eventstore.base import EVENT_IDS, Cursor, EventFilter, StoredEvent
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.statements import filled

#: Candidates looked at when only its user tells whether an event belongs; if too few, 16 times as many.
_CANDIDATES: Final = 4_096
_MORE: Final = 16

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_units = msgspec.json.Decoder(dict[str, str])


def events(
    engine: Engine, which: EventFilter, limit: int, after: Cursor | None
) -> tuple[list[StoredEvent], Cursor | None]:
    """See `EventStore.events`."""
    by_user = which.experiment_id is not None or which.variant_id is not None
    candidates = max(_CANDIDATES, limit + 1) if by_user else limit + 1
    while True:
        known = {"experiment_id": which.experiment_id, "candidates": candidates, "limit": limit + 1}
        bound = Bound(engine.dialect, known)
        conditions = _conditions(which, after, bound)
        text = filled(
            engine.statement("listing", "events"),
            **_times(engine),
            conditions=conditions,
            unit_id=compose.unit_id(which.unit, bound),
            matches=_matches(which, bound),
        )
        rows = engine.ask(text, bound.used_in(text))
        if len(rows) > limit or not by_user:
            break
        counting = filled(engine.statement("listing", "candidates"), conditions=conditions)
        if engine.ask(counting, bound.used_in(counting))[0][0] < candidates:
            break
        candidates *= _MORE
    found = [_event(row) for row in rows[:limit]]
    return found, Cursor(found[-1].occurred_at, found[-1].seq) if len(rows) > limit and found else None


def event(engine: Engine, event_id: str, user_id: str | None) -> StoredEvent | None:
    """See `EventStore.event`."""
    text = filled(engine.statement("listing", "event"), **_times(engine))
    rows = engine.ask(text, {"canonical": canonical(event_id), "user_id": user_id})
    return _event(rows[0]) if rows else None


def canonical(event_id: str) -> str:
    """The id under which a store keeps an event with this id of a caller's."""
    if _UUID.fullmatch(event_id):
        return event_id.lower()
    digest = hashlib.sha1(EVENT_IDS.bytes + event_id.encode(errors="replace"), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def _times(engine: Engine) -> dict[str, str]:
    return {name: engine.dialect.micros(f"e.{name}") for name in ("occurred_at", "received_at")}


def _conditions(which: EventFilter, after: Cursor | None, bound: Bound) -> str:
    """What an event shows by itself."""
    parts = []
    if which.experiment_id is not None:
        parts.append("(e.experiment_id IS NULL OR e.experiment_id = $experiment_id)")
    if which.types:
        parts.append(f"e.type = ANY (CAST({bound.bind(list(which.types))} AS VARCHAR[]))")
    if which.user_ids:
        parts.append(f"e.user_id = ANY (CAST({bound.bind(list(which.user_ids))} AS VARCHAR[]))")
    if which.start is not None:
        parts.append(f"e.occurred_at >= {bound.time(which.start)}")
    if which.end is not None:
        parts.append(f"e.occurred_at <= {bound.time(which.end)}")
    if after is not None:
        at, seq = bound.time(after.occurred_at), bound.bind(after.seq)
        # The first half lets whole blocks of the file be passed over.
        parts.append(f"e.occurred_at <= {at} AND (e.occurred_at < {at} OR e.seq < {seq})")
    return " AND ".join(parts) or "true"


def _matches(which: EventFilter, bound: Bound) -> str:
    """What only the assignment of its user shows."""
    parts = []
    if which.experiment_id is not None:
        parts.append("(e.experiment_id IS NOT NULL OR a.unit_id IS NOT NULL)")
    if which.variant_id is not None:
        parts.append(f"a.variant_id = {bound.bind(which.variant_id)}")
    return " AND ".join(parts) or "true"


def _event(row: tuple[Any, ...]) -> StoredEvent:
    event = StoredEvent._make(row)
    return event._replace(units=_units.decode(row[9]) if row[9] else {})
