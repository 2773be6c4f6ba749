"""Totals of each unit that are kept up to date as events come in, and questions answered from them.

A rollup holds, for each unit of one experiment with events of one source, how many there are, how many of
them have a number, how many have the property but not as a number, and the sum: what `plan.done` would find.
So a question that only asks for these reads them instead, at the cost of the number of units. It is answered
from rollups only where that changes nothing:

* the source, property and unit are the rollup's. Filters and windows relative to the assignment are part of a
  source; steps, activation and the values of single events are never kept;
* no event in the rollup lies before `events_from`, or after `until` or the experiment's end.

Whatever else is asked in the same question is read from the events, beside it.

Where nobody carries rollups along with the events (PostgreSQL), they hold what happened up to two numbers, of
an event and of an assignment. What lies behind these is read from the events by the same question and added,
unless it takes back an event that is in the rollups: then everything is read from the events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec

from assay.eventstore import plan, reversals, scan
from assay.eventstore.base import Measure, Scope
from assay.eventstore.columns import Source
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.listing import canonical
from assay.eventstore.plan import Done, Feature, Take
from assay.eventstore.scan import Rows, Units
from assay.eventstore.statements import filled

#: Kinds of `done` from here on are rollups, so that they never are those of types of events.
_FIRST_KIND: Final = 1_000
#: Where a rollup keeps a feature, and how many slots it has of either letter.
_PLACES: Final = {Take.COUNT: "n0", Take.VALUED: "n1", Take.UNREADABLE: "n2", Take.SUM: "t0"}
_WIDTHS: Final = {"n": 3, "t": 1}
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Totals:
    """What a rollup keeps for each unit."""

    unit: str
    source: Source
    property: str | None = None
    """The number that is summed; None: the event's amount."""

    def features(self) -> dict[str, Feature]:
        """By the column of the rollup."""
        takes = [Take.COUNT, Take.VALUED, Take.SUM, *([Take.UNREADABLE] if self.property is not None else ())]
        return {
            _PLACES[take]: Feature(take, self.source, None if take is Take.COUNT else self.property)
            for take in takes
        }

    def text(self) -> str:
        """As JSON; the same for the same totals."""
        return _encode(self).decode()


_decoder = msgspec.json.Decoder(Totals)


def totals_of(text: str) -> Totals:
    """The totals that have this text."""
    return _decoder.decode(text)


class Rollup(NamedTuple):
    """A rollup as the transaction that asks sees it; times in µs."""

    number: int
    totals: str
    ended_at: int | None
    first_at: int | None
    last_at: int | None
    fresh: int

    def holds(self, scope: Scope) -> bool:
        """Whether the events in it are those that the scope takes."""
        if not self.ends_as(scope.ended_at):
            return False
        if self.first_at is None or self.last_at is None:  # no event is in it
            return True
        return (scope.events_from is None or self.first_at >= scope.events_from) and (
            scope.until is None or self.last_at <= scope.until
        )

    def ends_as(self, ended_at: int | None) -> bool:
        """Whether it has all events up to an end, and no later ones."""
        if self.ended_at == ended_at:
            return True
        if ended_at is None or (self.ended_at is not None and self.ended_at < ended_at):
            return False
        return self.last_at is None or self.last_at <= ended_at


def done(engine: Engine, scope: Scope, of: Units, bound: Bound, features: Sequence[Feature]) -> Done:
    """`plan.done`, from rollups as far as there are such."""
    kept, behind = _kept(engine, scope, features)
    if not kept:
        return plan.done(engine, scope, of, bound, features)
    rest = plan.done(engine, scope, of, bound, [one for one in features if one not in kept])
    widths = {letter: max(width, rest.slots.width(letter)) for letter, width in _WIDTHS.items()}
    parts = []
    if rest.text:
        own = rest.slots.padded(widths)
        parts.append(f"SELECT {of.keyed()}, unit, kind, {own} FROM ({rest.text}) AS rest")
    kinds: dict[int, int] = {}
    for one, rollup in kept.items():
        kind = kinds.setdefault(rollup.number, _FIRST_KIND + len(kinds))
        rest.slots.keep(one, _PLACES[one.take], kind)
    rollups = {rollup.number: rollup for rollup in kept.values()}
    late = _late(engine, scope, of, bound, behind, rollups.values())
    parts += [_read(engine, of, rollups[number], kind, widths, late) for number, kind in kinds.items()]
    return Done(_with(engine, late, parts), rest.slots)


def moments(
    engine: Engine, scope: Scope, measures: Sequence[Measure]
) -> tuple[set[str], dict[tuple[int, int, str], tuple[Any, ...]]]:
    """Which measures are kept, and of these what `questions.moments` finds, by variant, phase and key."""
    wanted = {
        measure.key: (
            Feature(Take.COUNT, Source(measure.event_type)),
            Feature(Take.SUM, Source(measure.event_type), measure.property),
        )
        for measure in measures
        if not measure.equals
    }
    kept, behind = _kept(engine, scope, dict.fromkeys(one for pair in wanted.values() for one in pair))
    found = {key: kept[total] for key, (_, total) in wanted.items() if total in kept}
    if not found:
        return set(), {}
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = scan.units(engine, scope, bound)
    rollups = {rollup.number: rollup for rollup in found.values()}
    late = _late(engine, scope, of, bound, behind, rollups.values())
    parts = [_read(engine, of, rollup, number, _WIDTHS, late) for number, rollup in rollups.items()]
    text = filled(engine.statement("rollups", "moments"), done=_with(engine, late, parts))
    rows = {
        (variant_id, phase, number): tuple(numbers)
        for variant_id, phase, number, *numbers in engine.ask(text, bound.used_in(text))
    }
    return set(found), {
        (variant_id, phase, key): numbers
        for (variant_id, phase, number), numbers in rows.items()
        for key, rollup in found.items()
        if rollup.number == number
    }


def rows_of(engine: Engine, number: int, fresh: int) -> str:
    """The selection of a rollup's rows, one a unit; `fresh`: how many rows were added to it."""
    return filled(engine.statement("rollups", "rows" if fresh else "rows_alone"), number=str(number))


def folded_rows(texts: Mapping[str, str], done: Done, totals: Totals, key: str) -> str:
    """The selection of a rollup's rows from `folded`, which holds what is `done`."""
    features = totals.features()
    kinds = done.slots.kinds[features["n0"]]
    one_kind = len(kinds) == 1
    columns = {
        column: "0" if one is None else done.slots.of[one] if one_kind else done.raw(one)
        for column in ("n0", "n1", "n2", "t0")
        for one in [features.get(column)]
    }
    text = texts["folded_rows_of_kind" if one_kind else "folded_rows"]
    return filled(text, key=key, kinds=done.listed([features["n0"]]), **columns)


class _Behind(NamedTuple):
    """How far rollups are behind the moment of a question."""

    events: int
    """The number of the last event that may be in them."""
    assignments: int
    newer: bool
    """Whether there are later events."""
    since: int | None
    """When the first of the later units was assigned; None: there is none."""


def _behind(engine: Engine, scope: Scope) -> _Behind | None:
    """None: events that are in the rollups have been taken back since."""
    [(events, assignments, newer)] = engine.ask(engine.statement("rollups", "behind"), {})
    [(since,)] = engine.ask(
        engine.statement("rollups", "newcomers_first"),
        {"experiment_id": scope.experiment_id, "after": assignments},
    )
    if newer:
        named = engine.ask(engine.statement("rollups", "reversals_after"), {"after": events})
        if named:
            ids = {"users": [user for user, _ in named], "ids": [canonical(text) for _, text in named]}
            older = f"(SELECT * FROM events WHERE seq <= {events})"
            if engine.ask(filled(engine.statement("rollups", "taken_back"), events=older), ids):
                return None
    return _Behind(events, assignments, newer, since)


def _late(
    engine: Engine, scope: Scope, of: Units, bound: Bound, behind: _Behind | None, rollups: Iterable[Rollup]
) -> Done | None:
    """What is not in the rollups yet: later events of their units, and all events of later units."""
    if behind is None or not (behind.newer or behind.since is not None):
        return None
    wanted = [totals_of(rollup.totals) for rollup in rollups]
    features = list(dict.fromkeys(one for totals in wanted for one in totals.features().values()))
    back = reversals.reversed_events(engine)
    parts = []
    if behind.newer:
        units = f"SELECT * FROM ({of.text}) AS units WHERE unit <= {behind.assignments}"
        rows = Rows(f"(SELECT * FROM events WHERE seq > {behind.events})", taken_back=back)
        parts.append(plan.done(engine, scope, of._replace(text=units), bound, features, rows))
    if behind.since is not None:
        units = f"SELECT * FROM ({of.text}) AS units WHERE unit > {behind.assignments}"
        first = behind.since + min(0, *(totals.source.opens for totals in wanted))
        events = filled(engine.statement("rollups", "of_newcomers"), since=str(first), events="events")
        rows = Rows(events, taken_back=back)
        parts.append(plan.done(engine, scope, of._replace(text=units), bound, features, rows))
    return Done("\nUNION ALL\n".join(part.text for part in parts), parts[0].slots)


def _with(engine: Engine, late: Done | None, parts: Sequence[str]) -> str:
    text = "\nUNION ALL\n".join(parts)
    return (
        text if late is None else filled(engine.statement("rollups", "with_late"), done=late.text, text=text)
    )


def _read(
    engine: Engine, of: Units, rollup: Rollup, kind: int, widths: Mapping[str, int], late: Done | None
) -> str:
    """A rollup's rows in the form of `done`, with so many slots of each letter."""
    texts = engine.dialect.statements("rollups")
    rows = rows_of(engine, rollup.number, rollup.fresh)
    slots = ", ".join(
        f"{letter}{at}" if at < _WIDTHS[letter] else f"0 AS {letter}{at}"
        for letter, width in widths.items()
        for at in range(width)
    )
    if late is not None:
        if not of.whole:
            rows = filled(texts["rows_narrowed"], key=of.keyed("u."), rows=rows, units=of.text)
        rows = filled(
            texts["rows_and_late"],
            key=", ".join(f"coalesce(kept.{name}, late.{name}) AS {name}" for name in of.key),
            rows=rows,
            late=folded_rows(texts, late, totals_of(rollup.totals), of.keyed()),
        )
    if of.whole or late is not None:
        return filled(texts["read"], key=of.keyed(), kind=str(kind), slots=slots, rows=rows)
    return filled(
        texts["read_narrowed"], key=of.keyed("u."), kind=str(kind), slots=slots, rows=rows, units=of.text
    )


def _kept(
    engine: Engine, scope: Scope, features: Iterable[Feature]
) -> tuple[dict[Feature, Rollup], _Behind | None]:
    """Which rollup answers a feature, of those that one does; what is missing is wished for."""
    if engine.wishes is None or scope.activation is not None:
        return {}, None
    wanted = {one: _totals(scope, one) for one in features if one.take is not Take.STEPS}
    if not any(wanted.values()):
        return {}, None
    rows = engine.ask(engine.statement("rollups", "of_experiment"), {"experiment_id": scope.experiment_id})
    known = {row[1]: Rollup(*row) for row in rows}
    # A source's events are counted along with its sums, so that one rollup may do for both.
    sums = {totals.source: totals for one, totals in wanted.items() if totals and one.take is not Take.COUNT}
    kept, missed = {}, set()
    for one, totals in wanted.items():
        if totals is None:
            continue
        chosen = sums.get(totals.source, totals) if one.take is Take.COUNT else totals
        rollup = known.get(chosen.text())
        if rollup is not None and rollup.holds(scope):
            kept[one] = rollup
            engine.wishes.used(rollup.number)
        elif rollup is None or not rollup.ends_as(scope.ended_at):
            missed.add(chosen.text())
    for text in sorted(missed):  # once a question, however many of its features are in the same totals
        engine.wishes.missed(scope.experiment_id, text, scope.ended_at)
    if not kept or not engine.dialect.follows:
        return kept, None
    behind = _behind(engine, scope)
    return (kept, behind) if behind is not None else ({}, None)


def _totals(scope: Scope, one: Feature) -> Totals | None:
    """The totals that a feature is part of; None where the scope takes none of its events."""
    source = one.source
    if scope.event_type is not None and source.event_type != scope.event_type:
        if source.event_type:
            return None
        source = replace(source, event_type=scope.event_type)
    return Totals(scope.unit, source, one.property)
