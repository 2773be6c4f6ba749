"""The questions that tell whether numbers can be trusted: who came when, and what became of events."""

from collections.abc import Sequence
from dataclasses import replace

from assay.eventstore import compose, questions, reversals
from assay.eventstore.base import Arrivals, Bucket, Fate, LedgerReason, Overlap, Repetitions, Scope
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.statements import filled


def arrivals(engine: Engine, scope: Scope, by: Bucket) -> list[Arrivals]:
    """See `EventStore.arrivals`."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id, "by": by.value})
    text = filled(
        engine.statement("trust", "arrivals"),
        assignments=questions.assignments(engine, scope, bound),
        stretch=engine.dialect.stretch("$by", "a.assigned_at"),
        narrowing=compose.units_narrowed(scope, bound),
    )
    rows = engine.ask(text, bound.parameters)
    return [Arrivals(questions.bucket_micros(row[0]), row[1], row[2], int(row[3])) for row in rows]


def fates(engine: Engine, scope: Scope, latest: int) -> list[Fate]:
    """See `EventStore.fates`."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id, "latest": latest})
    never = 2**62  # beyond all times of either engine, and cut to the last of them
    text = filled(
        engine.statement("trust", "fates"),
        latest=engine.statement("trust", "latest"),
        first=engine.dialect.micros("min(first)"),
        last=engine.dialect.micros("max(last)"),
        ended_at=bound.time(never if scope.ended_at is None else scope.ended_at),
        narrowing=compose.units_narrowed(
            replace(scope, excluded_units=frozenset(), only=None, observed_for=None), bound
        ),
        reversed=reversals.among(reversals.reversed_events(engine), bound),
        unit_id=compose.unit_id(scope.unit, bound),
        event_narrowing=compose.events_narrowed(scope, bound),
    )
    rows = engine.ask(text, bound.parameters)
    return [Fate(row[0], LedgerReason(row[1]), *map(int, row[2:])) for row in rows]


def repetitions(engine: Engine, scope: Scope) -> Repetitions:
    """See `EventStore.repetitions`."""
    rows = engine.ask(engine.statement("trust", "repetitions"), {"experiment_id": scope.experiment_id})
    return Repetitions(*rows[0])


def conflicts(engine: Engine, scope: Scope) -> int:
    """See `EventStore.conflicts`."""
    rows = engine.ask(engine.statement("trust", "conflicts"), {"experiment_id": scope.experiment_id})
    return int(rows[0][0])


def overlaps(engine: Engine, scope: Scope, others: Sequence[int]) -> list[Overlap]:
    """See `EventStore.overlaps`."""
    if not others:
        return []
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    text = filled(
        engine.statement("trust", "overlaps"),
        others=bound.bind(list(others)),
        narrowing=compose.units_narrowed(scope, bound),
    )
    return [Overlap(*row) for row in engine.ask(text, bound.parameters)]
