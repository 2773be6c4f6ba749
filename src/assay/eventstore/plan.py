"""From columns to the parts of one statement: what is kept of each unit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from assay.eventstore import compose
from assay.eventstore.base import Scope
from assay.eventstore.columns import Column, Fold, Source
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.scan import STORED, Reading, Rows, Units
from assay.eventstore.statements import filled


class Take(StrEnum):
    """What is kept of a unit's events."""

    COUNT = "count"
    SUM = "sum"
    VALUED = "valued"
    UNREADABLE = "unreadable"
    """Events that have the property, though not as a number."""
    STEPS = "steps"


@dataclass(frozen=True)
class Feature:
    """A number of a unit, before it is pulled in or compared: several columns may share one."""

    take: Take
    source: Source
    property: str | None = None
    steps: tuple[Source, ...] = ()


_TAKES = {Fold.ANY: Take.COUNT, Fold.COUNT: Take.COUNT, Fold.SUM: Take.SUM, Fold.VALUED: Take.VALUED}


def feature(column: Column) -> Feature:
    """What a column is made of."""
    if column.fold is Fold.STEPS:
        return Feature(Take.STEPS, column.source, None, column.steps)
    take = _TAKES[column.fold]
    return Feature(take, column.source, None if take is Take.COUNT else column.property)


def unreadable(column: Column) -> Feature | None:
    """What counts the events that a column has to do without."""
    made = feature(column)
    if made.property is None:
        return None
    return Feature(Take.UNREADABLE, made.source, made.property)


def pulled(column: Column, raw: float) -> float:
    """A unit's value in a column, from its feature; the same as `pulled_text` says."""
    if column.at_least is not None:
        raw = float(raw >= column.at_least)
    elif column.fold is Fold.ANY:
        raw = float(raw > 0)
    if column.low is not None:
        raw = max(raw, column.low)
    return raw if column.high is None else min(raw, column.high)


def pulled_text(column: Column, raw: str, bound: Bound) -> str:
    """A unit's value in a column as an expression."""
    if column.at_least is not None:
        raw = f"CASE WHEN {raw} >= {compose.number(column.at_least, bound)} THEN 1 ELSE 0 END"
    elif column.fold is Fold.ANY:
        raw = f"CASE WHEN {raw} > 0 THEN 1 ELSE 0 END"
    raw = f"CAST({raw} AS FLOAT8)"
    if column.low is not None:
        raw = f"greatest({raw}, {compose.number(column.low, bound)})"
    return raw if column.high is None else f"least({raw}, {compose.number(column.high, bound)})"


class Slots:
    """Where features are kept in a unit's rows, one for each kind of event: several kinds share a slot."""

    def __init__(self, reading: Reading | None, features: Iterable[Feature]) -> None:
        self.of: dict[Feature, str] = {}
        self.kinds: dict[Feature, tuple[int, ...]] = {}
        self._texts: dict[str, list[dict[int, str]]] = {"n": [], "t": []}
        self._reading = reading
        if reading is not None:
            for one in features:
                kinds = reading.kinds_of(one.source)
                if kinds:
                    self._place(one, kinds, *_taken(one, reading))

    def _place(self, one: Feature, kinds: tuple[int, ...], letter: str, text: str) -> None:
        slots = self._texts[letter]
        place = next(
            (at for at, taken in enumerate(slots) if not any(kind in taken for kind in kinds)), len(slots)
        )
        if place == len(slots):
            slots.append({})
        slots[place].update(dict.fromkeys(kinds, text))
        self.of[one] = f"{letter}{place}"
        self.kinds[one] = kinds

    def width(self, letter: str) -> int:
        """How many slots there are of a letter: n for numbers, t for sums."""
        return len(self._texts[letter])

    def padded(self, widths: Mapping[str, int]) -> str:
        """The slots, by letter as many as are said, those that there are not as zeros."""
        return ", ".join(
            f"{letter}{at}" if at < self.width(letter) else f"0 AS {letter}{at}"
            for letter, width in widths.items()
            for at in range(width)
        )

    def keep(self, one: Feature, slot: str, kind: int) -> None:
        """Note that a feature is in a slot of rows that come from elsewhere, under a kind of their own."""
        self.of[one] = slot
        self.kinds[one] = (kind,)

    def funnel(self, one: Feature, kind: int) -> None:
        """Keep whether all steps were done in the first slot, under a kind of its own."""
        if not self._texts["n"]:
            self._texts["n"].append({})
        self.of[one] = "n0"
        self.kinds[one] = (kind,)

    def selected(self) -> str:
        """What `done` keeps of a unit's events."""
        parts = [
            f"count(*) {_when(_cases(texts))} AS n{at}" if texts else f"0 AS n{at}"  # a funnel's only
            for at, texts in enumerate(self._texts["n"])
        ]
        parts += [f"coalesce(sum({_cases(texts)}), 0) AS t{at}" for at, texts in enumerate(self._texts["t"])]
        return ", ".join(parts)

    def reached(self) -> str:
        """The same of a unit that has done all steps of a funnel."""
        numbers = [f"{0 if at else 1} AS n{at}" for at in range(len(self._texts["n"]))]
        return ", ".join([*numbers, *(f"0 AS t{at}" for at in range(len(self._texts["t"])))])


def _taken(one: Feature, reading: Reading) -> tuple[str, str]:
    """The letter of a feature's slot, and the condition that is counted or the number that is summed."""
    condition = reading.condition(one.source)
    if one.take is Take.COUNT:
        return "n", condition
    if one.take is Take.UNREADABLE:
        assert one.property is not None  # noqa: S101 - an amount is always readable
        return "n", _both(condition, reading.unreadable(one.source, one.property))
    number = reading.number(one.source, one.property)
    if one.take is Take.VALUED:
        return "n", _both(condition, f"{number} IS NOT NULL")
    return "t", number if condition == "true" else f"CASE WHEN {condition} THEN {number} END"


def _both(first: str, second: str) -> str:
    return second if first == "true" else f"{first} AND {second}"


def _when(condition: str) -> str:
    return "" if condition == "true" else f"FILTER (WHERE {condition})"


def _cases(texts: Mapping[int, str]) -> str:
    """The expression for a slot. Rows of kinds that have no use for the slot may hold anything."""
    by_text: dict[str, list[int]] = {}
    for kind, text in texts.items():
        by_text.setdefault(text, []).append(kind)
    if len(by_text) == 1:
        return next(iter(by_text))
    cases = (f"WHEN kind IN ({_listed(kinds)}) THEN {text}" for text, kinds in by_text.items())
    return f"CASE {' '.join(cases)} END"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(set(numbers)))


def funnel(engine: Engine, scope: Scope, of: Units, bound: Bound, one: Feature, kind: int, slots: str) -> str:
    """The selection of units that have done all steps, in the form of `done`."""
    sources = (one.source, *one.steps)
    reading = Reading(engine, scope, of, bound, sources)
    matches = [_of_kinds(reading, source) for source in sources]
    if "false" in matches:
        return ""
    step = " ".join(f"WHEN m{nth} THEN {nth}" for nth in range(len(sources), 0, -1))
    # A coarse time read generously is no earlier than the assignment; before that all keep their own.
    moment = "occurred_at" if one.source.opens < 0 else "greatest(occurred_at, since)"
    text = filled(
        engine.statement("columns", "funnel_events"),
        key=of.keyed(),
        moment=moment,
        step=f"CASE {step} ELSE 0 END",
        matches=", ".join(f"{match} AS m{nth}" for nth, match in enumerate(matches, 1)),
        valued=reading.text(),
    )
    for nth in range(1, len(sources) + 1):
        text = filled(
            engine.statement("columns", "funnel_step"),
            condition="m1" if nth == 1 else f"m{nth} AND place > p{nth - 1}",
            reached=f"p{nth}",
            before=text,
        )
    return filled(
        engine.statement("columns", "funnel"),
        key=of.keyed(),
        kind=str(kind),
        slots=slots,
        last=f"p{len(sources)}",
        steps=text,
    )


def _of_kinds(reading: Reading, source: Source) -> str:
    kinds = reading.kinds_of(source)
    return f"(kind IN ({_listed(kinds)}) AND {reading.condition(source)})" if kinds else "false"


@dataclass(frozen=True)
class Done:
    """The selection `done`, and where in it each feature is."""

    text: str
    """Empty: nothing that is asked for can have an event."""
    slots: Slots

    def raw(self, one: Feature) -> str:
        """A unit's feature, where its rows are grouped by unit."""
        kinds = _listed(self.slots.kinds[one])
        return f"coalesce(sum({self.slots.of[one]}) FILTER (WHERE kind IN ({kinds})), 0)"

    def listed(self, features: Iterable[Feature]) -> str:
        """All kinds of these features."""
        return _listed(kind for one in features for kind in self.slots.kinds[one])

    def among(self, kinds: Iterable[int]) -> str:
        """The condition that a row is of one of these kinds; nothing where there are no others."""
        chosen = set(kinds)
        others = {kind for of_one in self.slots.kinds.values() for kind in of_one} - chosen
        return f"WHERE kind IN ({_listed(chosen)})" if others else ""


def done(
    engine: Engine,
    scope: Scope,
    of: Units,
    bound: Bound,
    features: Sequence[Feature],
    rows: Rows = STORED,
    more: str = "",
) -> Done:
    """What each unit did, as far as these features need it; `more`: what else is kept of its events."""
    plain = [one for one in features if one.take is not Take.STEPS]
    reading = Reading(engine, scope, of, bound, [one.source for one in plain], rows)
    slots = Slots(reading if plain else None, plain)
    some = bool(slots.of)
    funnels = [one for one in features if one.take is Take.STEPS]
    first = len(reading.kinds) + 1
    for kind, one in enumerate(funnels, first):
        slots.funnel(one, kind)
    parts = []
    if some:
        parts.append(
            filled(
                engine.statement("columns", "done"),
                key=of.keyed(),
                slots=slots.selected() + more,
                valued=reading.text(),
            )
        )
    for kind, one in enumerate(funnels, first):
        text = funnel(engine, scope, of, bound, one, kind, slots.reached())
        if text:
            parts.append(text)
    return Done("\nUNION ALL\n".join(parts), slots)
