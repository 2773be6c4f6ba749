"""From columns to the parts of one statement: what is read of each event, and what is kept of each unit."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from assay.eventstore import compose, reversals
from assay.eventstore.base import Scope
from assay.eventstore.columns import Beside, Column, Filter, Fold, Operator, Scalar, Source, UnitList
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.statements import filled

_ORDERS = {Operator.LT: "<", Operator.LE: "<=", Operator.GT: ">", Operator.GE: ">="}


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
        raw = f"CASE WHEN {raw} >= {_float(column.at_least, bound)} THEN 1 ELSE 0 END"
    elif column.fold is Fold.ANY:
        raw = f"CASE WHEN {raw} > 0 THEN 1 ELSE 0 END"
    raw = f"CAST({raw} AS FLOAT8)"
    if column.low is not None:
        raw = f"greatest({raw}, {_float(column.low, bound)})"
    return raw if column.high is None else f"least({raw}, {_float(column.high, bound)})"


def _float(number: float, bound: Bound) -> str:
    return f"CAST({bound.bind(float(number))} AS FLOAT8)"


@dataclass(frozen=True)
class Rows:
    """Where events and assignments are read from: all that are stored, unless a part of them is named."""

    events: str = "events"
    assignments: str = "assignments"
    taken_back: Sequence[int] | None = None
    """The numbers of those events that others take back; None: they are looked for among all."""


STORED = Rows()


class Units(NamedTuple):
    """The units a question is about."""

    text: str
    key: tuple[str, ...]
    """By what they are told apart: variant, phase, and perhaps the group's number."""
    whole: bool
    """Whether they are all units of the experiment, told apart by nothing but what they were assigned."""

    def keyed(self, alias: str = "") -> str:
        """The columns of the key."""
        return ", ".join(f"{alias}{name}" for name in self.key)


def units(
    engine: Engine,
    scope: Scope,
    bound: Bound,
    groups: Sequence[UnitList] | Beside | None = None,
    strata: Mapping[int, int] | None = None,
    rows: Rows = STORED,
) -> Units:
    """`groups`: each one's units, known by its place, or who says it; `strata`: what stands for phases."""
    grouping = ""
    if isinstance(groups, Beside):
        other = bound.bind(groups.experiment_id)
        grouping = filled(engine.statement("columns", "beside"), other=other)
    elif groups is not None:
        grouping = filled(engine.statement("columns", "groups"), groups=_groups(groups, bound))
    since = "a.assigned_at" if scope.activation is None else "a.since"
    narrowing = compose.units_narrowed(scope, bound, since)
    text = filled(
        engine.statement("columns", "units"),
        assignments=assignments(engine, scope, bound, rows),
        since=since,
        phase=_stratum(strata or {}),
        label="" if groups is None else ", g.label",
        groups=grouping,
        narrowing=narrowing,
    )
    key = ("variant_id", "phase") if groups is None else ("variant_id", "phase", "label")
    return Units(text, key, not (narrowing or strata or groups is not None or scope.activation))


def _groups(groups: Sequence[UnitList], bound: Bound) -> str:
    rows = [
        f"SELECT {compose.listed(units, bound)} AS unit_id, {place} AS label"
        for place, units in enumerate(groups)
        if units.units
    ]
    return "\nUNION ALL\n".join(rows) or "SELECT NULL AS unit_id, 0 AS label WHERE false"


def _stratum(strata: Mapping[int, int]) -> str:
    moved = " ".join(f"WHEN {phase:d} THEN {stratum:d}" for phase, stratum in sorted(strata.items()))
    return f"CASE a.phase {moved} ELSE a.phase END" if moved else "a.phase"


def assignments(engine: Engine, scope: Scope, bound: Bound, rows: Rows = STORED) -> str:
    """The table of assignments, or those with the event from which on others count (`since`)."""
    if scope.activation is None:
        return rows.assignments
    before = replace(scope, activation=None, observed_for=None, event_type=None, events_from=None)
    reading = Reading(engine, before, units(engine, before, bound), bound, [scope.activation])
    condition = reading.condition(scope.activation)
    return filled(engine.statement("columns", "activated"), condition=condition, valued=reading.text())


@dataclass
class Reading:
    """One pass over the events of some sources: conditions and values are asked for, then the text."""

    engine: Engine
    scope: Scope
    units: Units
    bound: Bound
    sources: Sequence[Source]
    rows: Rows = STORED
    kinds: Mapping[str, int] = field(init=False)
    """From an event type to its kind; the number after the last is every other type's."""
    _every: bool = field(init=False)
    _members: dict[str, tuple[str, set[int]]] = field(init=False, default_factory=dict)
    _numbers: dict[str, str] = field(init=False, default_factory=dict)
    _bounds: dict[tuple[str, int], str] = field(init=False, default_factory=dict)
    _known: dict[object, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        types = {self._type(source) for source in self.sources}
        self._every = "" in types
        self.kinds = {kind: place for place, kind in enumerate(sorted(types - {"", None}, key=str)) if kind}

    def _type(self, source: Source) -> str | None:
        """The type a source takes, within the scope: empty for all, None for none."""
        wanted = self.scope.event_type
        if wanted is None or source.event_type == wanted:
            return source.event_type
        return None if source.event_type else wanted

    def kinds_of(self, source: Source) -> tuple[int, ...]:
        """The kinds of a source's events; none: it has no events."""
        kind = self._type(source)
        if kind is None:
            return ()
        return (self.kinds[kind],) if kind else (*self.kinds.values(), len(self.kinds))

    def condition(self, source: Source) -> str:
        """Whether an event of its kinds is one of the source's."""
        key = (source.where, source.opens, source.closes)
        if key not in self._known:
            parts = [] if self._one_window() else [self._window(source, "")]
            parts += [self._filter(one, self._member(one.property, source)) for one in source.where]
            self._known[key] = " AND ".join(parts) or "true"
        else:  # its properties are read of these kinds as well
            for one in source.where:
                self._member(one.property, source)
        return self._known[key]

    def number(self, source: Source, name: str | None) -> str:
        """The number an event adds to a sum; NULL where it has none."""
        if name is None:
            return "amount"
        member = self._member(name, source)
        self._numbers[member] = f"{self.engine.dialect.number_of(member)} AS x{member}"
        return compose.bounded(f"x{member}")

    def unreadable(self, source: Source, name: str) -> str:
        """Whether an event has the property, though not as a number that counts."""
        return f"{_given(self._member(name, source))} AND {self.number(source, name)} IS NULL"

    def text(self) -> str:
        """The selection of these events, with everything that was asked for."""
        members, bound = [], self.bound
        for name, (alias, kinds) in self._members.items():
            found = bound.dialect.member("e.properties", name, bound)
            if len(kinds) <= len(self.kinds) - (not self._every):  # not of every event that is read
                types = ", ".join(self._bound(kind) for kind, place in self.kinds.items() if place in kinds)
                found = f"CASE WHEN e.type IN ({types}) THEN {found} END"
            members.append(f", {found} AS {alias}")
        once = bound.dialect.once if members else ""
        narrowing = self._narrowing()
        read = filled(
            self.engine.statement("columns", "read"),
            key=self.units.keyed("u."),
            kind=self._kind(),
            kinds=self._kinds(),
            bounds="".join(f", u.{name}" for name in self._bounds.values()),
            members=" ".join(members),
            events=self.rows.events,
            units=self._bounded_units(),
            unit_id=compose.unit_id(self.scope.unit, bound),
            narrowing=narrowing,
            once=once,
        )
        if not self._numbers:
            return read
        return filled(
            self.engine.statement("columns", "valued"),
            numbers="".join(f", {number}" for number in self._numbers.values()),
            read=read,
            once=once,
        )

    def _bound(self, value: str | float) -> str:
        key = ("bound", type(value), value)
        if key not in self._known:
            self._known[key] = self.bound.bind(value)
        return self._known[key]

    def _kind(self) -> str:
        if len(self.kinds) + self._every == 1:
            return "0"
        return f"coalesce(k.kind, {len(self.kinds)})" if self._every else "k.kind"

    def _kinds(self) -> str:
        """The table of kinds beside the events, where there are several."""
        if len(self.kinds) + self._every == 1:
            return ""
        named = compose.kinds({self._bound(kind): place for kind, place in self.kinds.items()})
        return f"{'LEFT ' if self._every else ''}JOIN {named} ON k.type = e.type"

    def _bounded_units(self) -> str:
        """The units, each with where its windows open and close."""
        if not self._bounds:
            return self.units.text
        ends = ", ".join(
            f"{self.engine.dialect.shifted(anchor, span, self.bound)} AS {name}"
            for (anchor, span), name in self._bounds.items()
        )
        return f"SELECT *, {ends} FROM ({self.units.text}) AS units"

    def _narrowing(self) -> str:
        types = () if self._every else tuple(self.kinds)
        looking_back = self._looking_back()
        text = compose.ended(self.scope, self.bound)
        if self.scope.assigned_from is not None:
            # The windows say it, too; said of an event alone, it lets blocks of old events be passed over.
            opens = min(source.opens for source in self.sources)
            text += f" AND e.counts_until >= {self.bound.time(self.scope.assigned_from + min(opens, 0))}"
        text += compose.events_narrowed(self.scope, self.bound, types, looking_back=looking_back)
        text += reversals.left_out(self.engine, self.bound, self.rows.taken_back)
        if self._one_window():
            return f"{text} AND {self._window(self.sources[0], 'e.', 'u.')}"
        opens = min(source.opens for source in self.sources) if looking_back else 0
        anchor = "assigned_at" if looking_back else "since"
        text += f" AND e.counts_until >= u.{self._shifted(anchor, opens)}"
        windows = self._gapped_windows()
        if windows:
            # What is in none of the windows need not be grouped, which costs more than to ask.
            inside = " OR ".join(f"({self._window(source, 'e.', 'u.')})" for source in windows)
            text += f" AND ({inside})"
        return text

    def _gapped_windows(self) -> list[Source]:
        """A source of each window that lies in no other; none where together they leave out nothing."""
        spans: dict[tuple[int, float], Source] = {}
        for source in self.sources:
            spans.setdefault((source.opens, _closing(source)), source)
        covered: float = min(opens for opens, _ in spans)
        for opens, closes in sorted(spans):
            if opens > covered:
                break
            covered = max(covered, closes)
        if covered == math.inf:
            return []
        return [
            source
            for (opens, closes), source in spans.items()
            if not any(
                # Windows on different sides of the assignment ask for different times of an event.
                (a, b) != (opens, closes)
                and a <= opens
                and closes <= b
                and (a < 0) == (opens < 0)
                and (b <= 0) == (closes <= 0)
                for a, b in spans
            )
        ]

    def _looking_back(self) -> bool:
        return any(source.opens < 0 for source in self.sources)

    def _one_window(self) -> bool:
        return len({(source.opens, source.closes) for source in self.sources}) == 1

    def _window(self, source: Source, event: str, unit: str = "") -> str:
        """Whether an event is in a source's window."""
        anchor = "since" if source.opens >= 0 else "assigned_at"
        parts = [f"{event}counts_until >= {unit}{self._shifted(anchor, source.opens)}"]
        if source.closes is not None:
            last = "counts_until" if source.closes <= 0 else "occurred_at"
            parts.append(f"{event}{last} < {unit}{self._shifted(anchor, source.closes)}")
        if self.scope.events_from is not None and source.opens >= 0 and self._looking_back():
            parts.append(f"{event}occurred_at >= {self.bound.time(self.scope.events_from)}")
        return " AND ".join(parts)

    def _shifted(self, anchor: str, span: int) -> str:
        """The unit's column with a time so far from another: reckoned once a unit, not for each event."""
        return self._bounds.setdefault((anchor, span), f"w{len(self._bounds)}") if span else anchor

    def _member(self, name: str, source: Source) -> str:
        alias, kinds = self._members.setdefault(name, (f"j{len(self._members)}", set()))
        kinds.update(self.kinds_of(source))
        return alias

    def _filter(self, one: Filter, member: str) -> str:
        if one.op in {Operator.EXISTS, Operator.NOT_EXISTS}:
            return _given(member) if one.op is Operator.EXISTS else f"NOT {_given(member)}"
        if one.op in _ORDERS:
            return self._ordered(member, _ORDERS[one.op], one.value)
        wanted = one.value if isinstance(one.value, tuple) else (one.value,)
        equal = f"({' OR '.join(self._equal(member, value) for value in wanted) or 'false'})"
        return equal if one.op in {Operator.EQ, Operator.IN} else f"NOT {equal}"

    def _equal(self, member: str, wanted: Scalar) -> str:
        if wanted is None:
            return f"NOT {_given(member)}"
        if isinstance(wanted, bool):
            return f"coalesce({member} = '{'true' if wanted else 'false'}', false)"
        if isinstance(wanted, str):
            return f"coalesce({member} = {self.engine.dialect.spelt(wanted, self.bound)}, false)"
        return f"coalesce({self.engine.dialect.number_of(member)} = {_float(wanted, self.bound)}, false)"

    def _ordered(self, member: str, sign: str, wanted: object) -> str:
        dialect = self.engine.dialect
        if isinstance(wanted, str):
            return f"coalesce({dialect.text_of(member)} {sign} {self.bound.bind(wanted)}, false)"
        assert isinstance(wanted, int | float)  # noqa: S101 - a filter of this kind holds nothing else
        return f"coalesce({dialect.number_of(member)} {sign} {_float(wanted, self.bound)}, false)"


def _given(member: str) -> str:
    return f"(coalesce({member}, 'null') <> 'null')"


def _closing(source: Source) -> float:
    return math.inf if source.closes is None else source.closes


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
