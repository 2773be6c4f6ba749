"""The questions reports ask: moments, counts, series, ledger; each a statement or two and some arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from assay.eventstore import compose, reversals, rollups, scan
from assay.eventstore.base import (
    Arm,
    Bucket,
    EventCount,
    LedgerEntry,
    LedgerReason,
    Measure,
    Scope,
    SeriesPoint,
)
from assay.eventstore.dialects import Bound, Engine, timestamp
from assay.eventstore.statements import filled, statements

_COUNTED = statements("questions")["counted"]
_NOTHING = (0, 0, 0.0, 0.0, 0.0, 0.0)


def moments(engine: Engine, scope: Scope, measures: Sequence[Measure]) -> list[Arm]:
    """See `EventStore.moments`."""
    arms = _arms(engine, scope)
    wanted = [
        measure
        for measure in measures
        if scope.event_type is None or measure.event_type in {"", scope.event_type}
    ]
    kept, found = rollups.moments(engine, scope, wanted) if arms else (set(), {})
    rest = [measure for measure in wanted if measure.key not in kept]
    for sharing in (
        [measure for measure in rest if measure.event_type],
        [measure for measure in rest if not measure.event_type],
    ):
        if arms and sharing:
            found.update(_distributions(engine, scope, sharing))
    return [
        Arm(
            variant_id,
            phase,
            units,
            {
                measure.key: compose.unit_moments(
                    units, found.get((variant_id, phase, measure.key), _NOTHING)
                )
                for measure in measures
            },
        )
        for variant_id, phase, units in arms
    ]


def _distributions(
    engine: Engine, scope: Scope, measures: Sequence[Measure]
) -> dict[tuple[int, int, str], tuple[Any, ...]]:
    """Six numbers by variant, phase and the measure's key. Either all measures name a type, or none does."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    chosen = compose.slots(measures, bound)
    types = [measure.event_type for measure in measures if measure.event_type]
    counted = _counted(engine, scope, bound, types)
    text = filled(
        engine.statement("questions", "moments"),
        values=chosen.values,
        kinds=chosen.joined,
        slots=chosen.columns,
        distributions=chosen.distributions,
        once=engine.dialect.once if chosen.read else "",
        counted=counted if types else filled(engine.statement("questions", "of_every_type"), counted=counted),
    )
    of_kind: dict[int, list[Measure]] = {}
    for measure in measures:
        of_kind.setdefault(chosen.kinds[measure.event_type], []).append(measure)
    found = {}
    for variant_id, phase, kind, *numbers in engine.ask(text, bound.parameters):
        for measure in of_kind[kind]:
            start = 6 * chosen.of[measure.key]
            found[variant_id, phase, measure.key] = tuple(numbers[start : start + 6])
    return found


def event_counts(engine: Engine, scope: Scope) -> list[EventCount]:
    """See `EventStore.event_counts`."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    text = filled(engine.statement("questions", "event_counts"), counted=_counted(engine, scope, bound))
    return [EventCount(*row) for row in engine.ask(text, bound.parameters)]


def series(engine: Engine, scope: Scope, measure: Measure, by: Bucket) -> list[SeriesPoint]:
    """See `EventStore.series`."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id, "by": by.value})
    text = filled(
        engine.statement("questions", "series_assignments"),
        assignments=assignments(engine, scope, bound),
        stretch=engine.dialect.stretch("$by", "a.assigned_at"),
        narrowing=compose.units_narrowed(scope, bound),
    )
    assigned = {(row[0], row[1]): int(row[2]) for row in engine.ask(text, bound.parameters)}
    if not assigned:
        return []
    events: dict[tuple[datetime, int], tuple[Any, ...]] = {}
    if scope.event_type is None or measure.event_type in {"", scope.event_type}:
        bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id, "by": by.value})
        text = filled(
            engine.statement("questions", "series_events"),
            stretch=engine.dialect.stretch("$by", "greatest(occurred_at, assigned_at)"),
            once=engine.dialect.once,
            value=compose.value(measure, bound),
            bounded=compose.bounded("number"),
            condition=compose.condition(measure, bound),
            counted=_counted(engine, scope, bound, [measure.event_type] if measure.event_type else ()),
        )
        events = {(row[0], row[1]): row[2:] for row in engine.ask(text, bound.parameters)}
    points = []
    so_far = dict.fromkeys(sorted({variant_id for _, variant_id in assigned}), 0)
    for bucket in sorted({bucket for bucket, _ in (*assigned, *events)}):
        for variant_id in so_far:
            fresh = assigned.get((bucket, variant_id), 0)
            so_far[variant_id] += fresh
            count, converters, firsts, total = events.get((bucket, variant_id), (0, 0, 0, 0.0))
            points.append(
                SeriesPoint(
                    bucket_micros(bucket),
                    variant_id,
                    so_far[variant_id],
                    fresh,
                    count,
                    converters,
                    firsts,
                    total,
                )
            )
    return points


def ledger(engine: Engine, scope: Scope, types: Sequence[str]) -> list[LedgerEntry]:
    """See `EventStore.ledger`."""
    entries = _fates(engine, scope, types)
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    wanted = sorted({*types, *([scope.event_type] if scope.event_type else ())})
    of_types = f"AND type IN (SELECT unnest(CAST({bound.bind(wanted)} AS VARCHAR[])))" if wanted else ""
    for kind, reason, detail, count, samples in engine.ask(
        filled(engine.statement("questions", "ledger_notes"), types=of_types), bound.parameters
    ):
        entries.append(LedgerEntry(kind, LedgerReason(reason), detail, count, tuple(samples or ())))
    order = {reason: place for place, reason in enumerate(LedgerReason)}
    return sorted(entries, key=lambda entry: (entry.type or "", order[entry.reason], entry.detail))


def _fates(engine: Engine, scope: Scope, types: Sequence[str]) -> list[LedgerEntry]:
    """What became of the events that the store has."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    bound.parameters["ended_at"] = None if scope.ended_at is None else engine.dialect.time(scope.ended_at)
    text = filled(
        engine.statement("questions", "ledger_fates"),
        narrowing=compose.units_narrowed(
            replace(scope, excluded_units=frozenset(), only=None, observed_for=None), bound
        ),
        reversed=reversals.among(reversals.reversed_events(engine), bound),
        unit_id=compose.unit_id(scope.unit, bound),
        event_narrowing=compose.events_narrowed(scope, bound, types),
    )
    rows = engine.ask(text, bound.parameters)
    seqs = sorted({seq for row in rows for seq in (*(row[3] or ()), *(row[5] or ()))})
    samples = _samples(engine, seqs) if seqs else {}

    def shown(found: Sequence[int] | None) -> tuple[str, ...]:
        return tuple(samples[seq] for seq in found or () if seq in samples)

    entries = []
    totals: dict[str, list[Any]] = {}
    for kind, fate, count, latest, mismatched, latest_mismatched in rows:
        entries.append(LedgerEntry(kind, LedgerReason(fate), "", count, shown(latest)))
        total = totals.setdefault(kind, [0, [], 0, []])
        total[0] += count
        total[1] += latest
        total[2] += mismatched
        total[3] += latest_mismatched or ()
    for kind, (count, latest, mismatched, latest_mismatched) in totals.items():
        newest = sorted(latest, reverse=True)[:5]
        entries.append(LedgerEntry(kind, LedgerReason.ACCEPTED, "", count, shown(newest)))
        if mismatched:
            newest = sorted(latest_mismatched, reverse=True)[:5]
            entries.append(LedgerEntry(kind, LedgerReason.VARIANT_MISMATCH, "", mismatched, shown(newest)))
    return entries


def _samples(engine: Engine, seqs: Sequence[int]) -> dict[int, str]:
    """From the numbers of events to what the ledger shows of them."""
    text = filled(
        engine.statement("questions", "ledger_samples"), occurred_at=engine.dialect.micros("occurred_at")
    )
    shown = {}
    for seq, event_id, user_id, kind, at, variant_id in engine.ask(text, {"seqs": list(seqs)}):
        sample = {
            "event_id": event_id,
            "user_id": user_id,
            "type": kind,
            "timestamp": timestamp(at).isoformat(timespec="microseconds") + "Z",
            "variant_id": variant_id,
        }
        shown[seq] = msgspec.json.encode(sample).decode()
    return shown


def _arms(engine: Engine, scope: Scope) -> list[tuple[Any, ...]]:
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    text = filled(
        engine.statement("questions", "arms"),
        assignments=assignments(engine, scope, bound),
        narrowing=compose.units_narrowed(scope, bound),
    )
    return engine.ask(text, bound.parameters)


def assignments(engine: Engine, scope: Scope, bound: Bound) -> str:
    """The table of assignments, or what stands for it where units need an event to be looked at."""
    found = scan.assignments(engine, scope, bound)
    if scope.activation is None:
        return found
    return filled(engine.statement("columns", "activated_assignments"), activated=found)


def _counted(engine: Engine, scope: Scope, bound: Bound, types: Sequence[str] = ()) -> str:
    return filled(
        _COUNTED,
        assignments=assignments(engine, scope, bound),
        unit_id=compose.unit_id(scope.unit, bound),
        narrowing=compose.ended(scope, bound)
        + compose.units_narrowed(scope, bound)
        + compose.events_narrowed(scope, bound, types)
        + reversals.left_out(engine, bound),
    )


def bucket_micros(moment: datetime) -> int:
    """A naive UTC datetime (or a date) from the engine as µs since the epoch."""
    gap = datetime(moment.year, moment.month, moment.day, getattr(moment, "hour", 0), tzinfo=UTC) - datetime(
        1970, 1, 1, tzinfo=UTC
    )
    return math.floor(gap.total_seconds()) * 1_000_000
