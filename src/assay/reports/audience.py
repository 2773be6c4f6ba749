"""What is known of an experiment's units: which a segment holds, and who has which value of an attribute.

Attributes and segments are of users, as they are stored now, not as they were when a unit was assigned. They
are read in one pass over the units of the experiment, whatever else is known.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Text, cast, func, select

from assay.bucketing import ruleset
from assay.catalog import segments
from assay.catalog.database import ReadTx
from assay.catalog.editing import as_id
from assay.catalog.tables import Assignment, AuditEntry, Segment, User
from assay.errors import Invalid
from assay.events.timestamps import micros
from assay.eventstore.columns import UnitList
from assay.reports.question import Question
from assay.reports.report import Kind
from assay.reports.spec import ExperimentSpec

#: Values that are told apart, the most frequent ones; all others are one group.
MOST_VALUES: Final = 10
#: Different values that are counted; units with further ones are with the others.
MOST_DISTINCT: Final = 10_000
#: Units and attributes that are looked at for where a mismatch of the split comes from.
MOST_LOCALISED: Final = 200_000
_MOST_ATTRIBUTES: Final = 50
#: The group of all other values.
OTHER: Final = "other"
#: Characters of a value that are shown.
_LONGEST: Final = 200
_decode = msgspec.json.Decoder().decode
#: Units that are read at a time.
_PAGE: Final = 5_000
#: Users that are asked for the attributes they have, and names that are shown, where one was misspelt.
_ASKED: Final = 1_000
_NAMED: Final = 30


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an attribute; `value` is a text, a number or a boolean, whatever is stored."""

    label: str
    value: Any
    units: UnitList


@dataclass(frozen=True, slots=True)
class Dimension:
    """The most frequent values of an attribute, and the units with any other one.

    `distinct` is how many different values there are among the units, counted up to `MOST_DISTINCT`.
    """

    attribute: str
    values: tuple[Value, ...]
    other: UnitList
    distinct: int

    @property
    def groups(self) -> Mapping[str, UnitList]:
        """The units of each group by its name; units without the attribute are in none."""
        return {**{each.label: each.units for each in self.values}, OTHER: self.other}


#: Units of one variant in one phase: variant, phase, count.
Counted = tuple[int, int, int]


class Attributed(NamedTuple):
    """How many units have one value of an attribute, any other one, or none."""

    attribute: str
    kind: Kind
    value: Any
    counted: tuple[Counted, ...]


class ByAttribute(NamedTuple):
    """Units by every attribute of users, and how many units were looked at."""

    units: int
    groups: tuple[Attributed, ...]


def nothing_known() -> ByAttribute:
    """Of units that are no users, or where nobody can tell."""
    return ByAttribute(0, ())


class Audience(NamedTuple):
    """What a question must know of users; nothing where it asks for neither.

    `attributes` reads the units by every attribute, for whoever needs to know where something is wrong.
    """

    members: UnitList | None = None
    dimensions: tuple[Dimension, ...] = ()
    attributes: Callable[[], ByAttribute] = nothing_known


def changed(tx: ReadTx) -> int:
    """Another number after every change of users and segments."""
    return tx.scalar(select(func.max(AuditEntry.id))) or 0


def read_audience(tx: ReadTx, spec: ExperimentSpec, question: Question) -> Audience:
    """Who the question is about. Raises `Invalid` for an unknown segment or attribute."""
    if not question.looks_at_users:
        return Audience()
    of_users = spec.unit == "user_id"
    segment = None
    if question.segment is not None:
        segment = segments.compiled(tx, _segment(tx, question.segment))
        if not of_users:
            raise Invalid.field(
                "segment",
                f"the units of this experiment are {spec.unit}, and segments are of users: ask for the whole",
            )
    members: list[str] = []
    gathered = [_Gathered(name) for name in question.dimensions]
    for unit_id, attributes, *_ in _units(tx, spec.id) if of_users else ():
        if segment is not None:
            if not _holds(segment, unit_id, attributes):
                continue
            members.append(unit_id)
        for each in gathered:
            each.take(unit_id, attributes)
    dimensions = tuple(each.dimension() for each in gathered)
    _expect_attributes(
        (each.attribute for each in dimensions if not each.distinct),
        _known_attributes(tx) if dimensions else (),
    )
    return Audience(None if segment is None else UnitList.of(members), dimensions)


def _holds(segment: ruleset.Segment, unit_id: str, attributes: Mapping[str, Any]) -> bool:
    """As targeting decides it when a call brings no attributes of its own."""
    return segment.matches(unit_id, {"id": unit_id, "user_id": unit_id, **attributes})


def read_attributes(tx: ReadTx, spec: ExperimentSpec, until: datetime | None) -> ByAttribute:
    """The units that were assigned up to a time, by every attribute of users.

    Of more than `MOST_LOCALISED` units those with the lowest ids are looked at, which is as good as a draw:
    no variant is dealt by the order of ids.
    """
    if spec.unit != "user_id":
        return nothing_known()
    last = None if until is None else micros(until)
    whole: Counter[tuple[int, int]] = Counter()
    found: dict[str, _Told] = {}
    for unit in islice(_units(tx, spec.id), MOST_LOCALISED):
        if unit.unit_id in spec.excluded_units or (last is not None and unit.assigned_at > last):
            continue
        cell = unit.variant_id, unit.phase
        whole[cell] += 1
        for name, value in unit.attributes.items():
            if value is not None and (name in found or len(found) < _MOST_ATTRIBUTES):
                found.setdefault(name, _Told()).take(value, cell)
    groups = (group for name, told in sorted(found.items()) for group in told.groups(name, whole))
    return ByAttribute(whole.total(), tuple(groups))


class _Told:
    """Units by the values of one attribute, as they come in."""

    def __init__(self) -> None:
        self._cells: dict[str, Counter[tuple[int, int]]] = {}
        self._values: dict[str, Any] = {}
        self._rest: Counter[tuple[int, int]] = Counter()

    def take(self, value: Any, cell: tuple[int, int]) -> None:
        """One unit of a variant and phase."""
        label = _label(value)
        if label not in self._cells and len(self._cells) >= MOST_DISTINCT:
            self._rest[cell] += 1
            return
        self._cells.setdefault(label, Counter())[cell] += 1
        self._values.setdefault(label, value)

    def groups(self, name: str, whole: Counter[tuple[int, int]]) -> Iterator[Attributed]:
        """The most frequent values, all others, and the units that have none."""
        ranked = sorted(self._cells, key=lambda label: (-self._cells[label].total(), label))
        rest, none = Counter(self._rest), Counter(whole) - self._rest
        for place, label in enumerate(ranked):
            none -= self._cells[label]
            if place < MOST_VALUES:
                value = _shown(label, self._values[label])
                yield Attributed(name, "value", value, _counted(self._cells[label]))
            else:
                rest += self._cells[label]
        if rest:
            yield Attributed(name, "other", None, _counted(rest))
        if none:
            yield Attributed(name, "none", None, _counted(none))


def _counted(cells: Counter[tuple[int, int]]) -> tuple[Counted, ...]:
    return tuple((variant, phase, units) for (variant, phase), units in sorted(cells.items()))


class _Unit(NamedTuple):
    """A unit of the catalog's record, with its attributes, if they are known."""

    unit_id: str
    attributes: Mapping[str, Any]
    variant_id: int
    phase: int
    assigned_at: int


def _units(tx: ReadTx, experiment_id: int) -> Iterator[_Unit]:
    """The units of an experiment by id, read in stretches."""
    # As text: what the tables' own JSON takes to be read would be most of the time that all of this takes.
    rows = (
        select(
            Assignment.unit_id,
            cast(User.attributes, Text),
            Assignment.variant_id,
            Assignment.phase,
            Assignment.assigned_at,
        )
        .outerjoin(User, User.id == Assignment.unit_id)
        .where(Assignment.experiment_id == experiment_id)
        .order_by(Assignment.unit_id)
        .limit(_PAGE)
    )
    last = ""
    while True:
        page = tx.execute(rows.where(Assignment.unit_id > last)).all()
        for unit_id, attributes, *record in page:
            yield _Unit(unit_id, _decode(attributes) if attributes else {}, *record)
        if len(page) < _PAGE:
            return
        last = page[-1][0]


class _Gathered:
    """The units of each value of one attribute, as they come in."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute
        self._units: dict[str, list[str]] = {}
        self._values: dict[str, Any] = {}
        self._rest: list[str] = []

    def take(self, unit_id: str, attributes: Mapping[str, Any]) -> None:
        """One unit; without the attribute, or with null, it is left out."""
        value = attributes.get(self._attribute)
        if value is None:
            return
        label = _label(value)
        units = self._units.get(label)
        if units is not None:
            units.append(unit_id)
        elif len(self._units) < MOST_DISTINCT:
            self._units[label] = [unit_id]
            self._values[label] = value
        else:
            self._rest.append(unit_id)

    def dimension(self) -> Dimension:
        """The most frequent values, and the rest as one."""
        ranked = sorted(self._units, key=lambda label: (-len(self._units[label]), label))
        # One value alone is no rest: it is shown as what it is.
        most = MOST_VALUES + (len(ranked) == MOST_VALUES + 1 and not self._rest)
        for label in ranked[most:]:
            self._rest += self._units[label]
        values = tuple(
            Value(f"value {place}", _shown(label, self._values[label]), UnitList.of(self._units[label]))
            for place, label in enumerate(ranked[:most], 1)
        )
        return Dimension(self._attribute, values, UnitList.of(self._rest), len(ranked))


def _label(value: Any) -> str:
    """The same for values that JSON calls equal, and for no others: 1 is 1.0, and neither is "1" or true."""
    if isinstance(value, str):
        return f'"{value}'  # nothing else begins with a quotation mark
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _shown(label: str, value: Any) -> Any:
    """The value; a text where it is a list, an object or beyond 64 bits, and cut where it is long."""
    text = value if isinstance(value, str) else label
    if len(text) > _LONGEST:
        return text[:_LONGEST] + "…"
    plain = isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) < 2**63)
    return value if plain else text


def _segment(tx: ReadTx, reference: str) -> Segment:
    """The segment with this id, key or name, in this order. Raises `Invalid` naming those there are."""
    number = as_id(reference)
    row = tx.get(Segment, number) if number is not None else None
    if row is None:
        row = tx.scalar(select(Segment).where(Segment.key == reference))
    if row is not None:
        return row
    named = list(tx.scalars(select(Segment).where(Segment.name == reference).order_by(Segment.id).limit(2)))
    if len(named) == 1:
        return named[0]
    if named:
        raise Invalid.field(
            "segment",
            f"several are called {reference!r}, as {named[0].key} and {named[1].key}: give the key of one",
        )
    known = tx.execute(select(Segment.key, Segment.name).order_by(Segment.id).limit(_NAMED + 1)).all()
    there = ", ".join(f"{key} ({name})" for key, name in known[:_NAMED])
    more = " and others" if len(known) > _NAMED else ""
    said = f"there are: {there}{more}" if known else "there is none yet"
    raise Invalid.field(
        "segment", f"no segment has the id, key or name {reference!r}; {said}", code="unknown_segment"
    )


def _known_attributes(tx: ReadTx) -> list[str]:
    latest = select(User.attributes).order_by(User.created_at.desc()).limit(_ASKED)
    return sorted({name for attributes in tx.scalars(latest) for name in attributes})


def _expect_attributes(names: Iterable[str], known: Sequence[str]) -> None:
    """Raises `Invalid` for an attribute that is not among those known, naming these."""
    for name in names:
        if name not in known:
            more = " and others" if len(known) > _NAMED else ""
            there = f"there are: {', '.join(known[:_NAMED])}{more}" if known else "no user has any yet"
            raise Invalid.field(
                "dimension", f"none of the units, and none of the latest users, has {name!r}; {there}"
            )
