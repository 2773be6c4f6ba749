"""Totals of each unit that are kept up to date as events come in, and questions answered from them.

A rollup holds, for each unit of one experiment with events of one source, how many there are, how many of
them have a number, how many have the property but not as a number, and the sum: what `plan.done` would find.
So a question that only asks for these reads them instead, at the cost of the number of units. It is answered
from rollups only where that changes nothing:

* the source, property and unit are the rollup's. Filters and windows relative to the assignment are part of a
  source; steps, activation and the values of single events are never kept;
* no event in the rollup lies before `events_from`, or after `until` or the experiment's end.

Whatever else is asked in the same question is read from the events, beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec

from assay.eventstore import plan
from assay.eventstore.base import Measure, Scope
from assay.eventstore.columns import Source
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.plan import Done, Feature, Take, Units
from assay.eventstore.statements import filled, statements

ROLLUPS = statements("rollups")

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
    kept = _kept(engine, scope, features)
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
    parts += [_read(of, rollups[number], kind, widths) for number, kind in kinds.items()]
    return Done("\nUNION ALL\n".join(parts), rest.slots)


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
    kept = _kept(engine, scope, dict.fromkeys(one for pair in wanted.values() for one in pair))
    found = {key: kept[total] for key, (_, total) in wanted.items() if total in kept}
    if not found:
        return set(), {}
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = plan.units(engine, scope, bound)
    rollups = {rollup.number: rollup for rollup in found.values()}
    parts = [_read(of, rollup, number, _WIDTHS) for number, rollup in rollups.items()]
    text = filled(ROLLUPS["moments"], done="\nUNION ALL\n".join(parts))
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


def _read(of: Units, rollup: Rollup, kind: int, widths: Mapping[str, int]) -> str:
    """A rollup's rows in the form of `done`, with so many slots of each letter."""
    rows = f"rollup_{rollup.number}"
    if rollup.fresh:
        rows = filled(ROLLUPS["rows"], number=str(rollup.number))
    slots = ", ".join(
        f"{letter}{at}" if at < _WIDTHS[letter] else f"0 AS {letter}{at}"
        for letter, width in widths.items()
        for at in range(width)
    )
    if of.whole:
        return filled(ROLLUPS["read"], key=of.keyed(), kind=str(kind), slots=slots, rows=rows)
    return filled(
        ROLLUPS["read_narrowed"],
        key=of.keyed("u."),
        kind=str(kind),
        slots=slots,
        rows=rows,
        units=of.text,
    )


def _kept(engine: Engine, scope: Scope, features: Iterable[Feature]) -> dict[Feature, Rollup]:
    """Which rollup answers a feature, of those that one does; what is missing is wished for."""
    if engine.wishes is None or scope.activation is not None:
        return {}
    wanted = {one: _totals(scope, one) for one in features if one.take is not Take.STEPS}
    if not any(wanted.values()):
        return {}
    rows = engine.ask(ROLLUPS["of_experiment"], {"experiment_id": scope.experiment_id})
    known = {row[1]: Rollup(*row) for row in rows}
    # A source's events are counted along with its sums, so that one rollup may do for both.
    sums = {totals.source: totals for one, totals in wanted.items() if totals and one.take is not Take.COUNT}
    kept = {}
    for one, totals in wanted.items():
        if totals is None:
            continue
        chosen = sums.get(totals.source, totals) if one.take is Take.COUNT else totals
        rollup = known.get(chosen.text())
        if rollup is not None and rollup.holds(scope):
            kept[one] = rollup
            engine.wishes.used(rollup.number)
        elif rollup is None or not rollup.ends_as(scope.ended_at):
            engine.wishes.missed(scope.experiment_id, chosen.text(), scope.ended_at)
    return kept


def _totals(scope: Scope, one: Feature) -> Totals | None:
    """The totals that a feature is part of; None where the scope takes none of its events."""
    source = one.source
    if scope.event_type is not None and source.event_type != scope.event_type:
        if source.event_type:
            return None
        source = replace(source, event_type=scope.event_type)
    return Totals(scope.unit, source, one.property)
