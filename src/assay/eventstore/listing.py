"""Single events: lists of them, newest first, and one by its id."""

from typing import Any, Final

import msgspec

from assay.eventstore import compose
from assay.eventstore.base import Cursor, EventFilter, StoredEvent
from assay.eventstore.compose import Bound
from assay.eventstore.questions import Ask
from assay.eventstore.statements import filled, statements

_SQL = statements("listing")
#: Candidates looked at when only its user tells whether an event belongs; if too few, 16 times as many.
_CANDIDATES: Final = 4_096
_MORE: Final = 16

_units = msgspec.json.Decoder(dict[str, str])


def events(
    ask: Ask, which: EventFilter, limit: int, after: Cursor | None
) -> tuple[list[StoredEvent], Cursor | None]:
    """See `EventStore.events`."""
    by_user = which.experiment_id is not None or which.variant_id is not None
    candidates = max(_CANDIDATES, limit + 1) if by_user else limit + 1
    while True:
        bound = Bound({"experiment_id": which.experiment_id, "candidates": candidates, "limit": limit + 1})
        conditions = _conditions(which, after, bound)
        text = filled(
            _SQL["events"],
            conditions=conditions,
            unit_id=compose.unit_id(which.unit, bound),
            matches=_matches(which, bound),
        )
        rows = ask(text, bound.used_in(text))
        if len(rows) > limit or not by_user:
            break
        counting = filled(_SQL["candidates"], conditions=conditions)
        if ask(counting, bound.used_in(counting))[0][0] < candidates:
            break
        candidates *= _MORE
    found = [_event(row) for row in rows[:limit]]
    return found, Cursor(found[-1].occurred_at, found[-1].seq) if len(rows) > limit and found else None


def event(ask: Ask, event_id: str, user_id: str | None) -> StoredEvent | None:
    """See `EventStore.event`."""
    rows = ask(_SQL["event"], {"event_id": event_id, "user_id": user_id})
    return _event(rows[0]) if rows else None


def _conditions(which: EventFilter, after: Cursor | None, bound: Bound) -> str:
    """What an event shows by itself."""
    parts = []
    if which.experiment_id is not None:
        parts.append("(e.experiment_id IS NULL OR e.experiment_id = $experiment_id)")
    if which.types:
        parts.append(f"e.type IN (SELECT unnest({bound.bind(list(which.types))}))")
    if which.user_ids:
        parts.append(f"e.user_id IN (SELECT unnest({bound.bind(list(which.user_ids))}))")
    if which.start is not None:
        parts.append(f"e.occurred_at >= {bound.bind(compose.timestamp(which.start))}")
    if which.end is not None:
        parts.append(f"e.occurred_at <= {bound.bind(compose.timestamp(which.end))}")
    if after is not None:
        at, seq = bound.bind(compose.timestamp(after.occurred_at)), bound.bind(after.seq)
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
