"""What is read of the events: those of the sources asked for, each with its unit, in one pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from assay.eventstore import compose, reversals
from assay.eventstore.base import Scope
from assay.eventstore.columns import Beside, Filter, Operator, Scalar, Source, UnitList
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.statements import filled

_ORDERS = {Operator.LT: "<", Operator.LE: "<=", Operator.GT: ">", Operator.GE: ">="}


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
        return (
            f"coalesce({self.engine.dialect.number_of(member)} = {compose.number(wanted, self.bound)}, false)"
        )

    def _ordered(self, member: str, sign: str, wanted: object) -> str:
        dialect = self.engine.dialect
        if isinstance(wanted, str):
            return f"coalesce({dialect.text_of(member)} {sign} {self.bound.bind(wanted)}, false)"
        assert isinstance(wanted, int | float)  # noqa: S101 - a filter of this kind holds nothing else
        return f"coalesce({dialect.number_of(member)} {sign} {compose.number(wanted, self.bound)}, false)"


def _given(member: str) -> str:
    return f"(coalesce({member}, 'null') <> 'null')"


def _closing(source: Source) -> float:
    return math.inf if source.closes is None else source.closes
