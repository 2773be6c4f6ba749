"""Events that a later one has taken back, by naming the caller's id under `reverses` in its properties."""

from collections.abc import Sequence

from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.listing import canonical


def reversed_events(engine: Engine) -> list[int]:
    """The numbers of all events that are taken back; costs next to nothing where none is."""
    named = engine.ask(engine.statement("reversals", "reversals"), {})
    if not named:
        return []
    users = [user_id for user_id, _ in named]
    ids = [canonical(text) for _, text in named]
    rows = engine.ask(engine.statement("reversals", "reversed_events"), {"users": users, "ids": ids})
    return sorted(seq for (seq,) in rows)


def among(seqs: list[int], bound: Bound) -> str:
    """Whether an event is one of these."""
    if not seqs:
        return "false"
    return f"e.seq IN (SELECT unnest(CAST({bound.bind(seqs)} AS BIGINT[])))"


def left_out(engine: Engine, bound: Bound, taken_back: Sequence[int] | None = None) -> str:
    """The condition that an event is not taken back; `taken_back`: those that are, where that is known."""
    seqs = reversed_events(engine) if taken_back is None else list(taken_back)
    return f" AND NOT {among(seqs, bound)}" if seqs else ""
