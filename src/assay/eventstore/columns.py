"""What a report asks of each unit: columns of numbers, and how they are distributed over the units together.

A column gives every unit one number: from its events of one type, with certain properties, in a window
of time relative to the unit's assignment. A block names columns whose joint moments are wanted.

Times and spans are in µs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import NamedTuple

Scalar = str | float | bool | None
"""A JSON value that is neither list nor object."""


class Operator(StrEnum):
    """How a property is compared. Values of different types are never equal, and none is above the other."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    IN = "in"
    NOT_IN = "not_in"
    EXISTS = "exists"
    NOT_EXISTS = "not_exists"


@dataclass(frozen=True)
class Filter:
    """A test on one property of an event. A property that is null counts as absent."""

    property: str
    op: Operator
    value: Scalar | tuple[Scalar, ...] = None
    """What it is compared with: a tuple for `in` and `not_in`, a number or a text for the orders, nothing for
    `exists` and `not_exists`. `ne` and `not_in` hold where the property is absent; the orders never do."""

    def __post_init__(self) -> None:
        several = self.op in {Operator.IN, Operator.NOT_IN}
        if several != isinstance(self.value, tuple):
            raise ValueError(f"{self.op} takes {'a tuple' if several else 'one value'}, not {self.value!r}")
        ordered = self.op in {Operator.LT, Operator.LE, Operator.GT, Operator.GE}
        if ordered and (isinstance(self.value, bool) or not isinstance(self.value, str | int | float)):
            raise ValueError(f"{self.op} takes a number or a text, not {self.value!r}")


@dataclass(frozen=True)
class Source:
    """Events of one type with certain properties, in a window relative to the unit's assignment.

    An event belongs to the window [assigned + opens, assigned + closes) when its time, read generously, may
    lie there; to one that closes at or before the assignment only when it certainly lay before that.
    """

    event_type: str
    """Empty, which no event's is: events of every type."""
    where: tuple[Filter, ...] = ()
    opens: int = 0
    """Below zero: before the assignment. Such a window is not narrowed by the scope's `events_from`."""
    closes: int | None = None
    """None: as long as events count."""


class Fold(StrEnum):
    """What becomes of a unit's events."""

    ANY = "any"
    """1 if there is one, else 0."""
    COUNT = "count"
    SUM = "sum"
    """Of the amounts, or of a property, of those events that have one."""
    VALUED = "valued"
    """How many events have an amount, or the property as a number."""
    STEPS = "steps"
    """1 if there is an event of the source and after it one of each step, in this order, else 0."""


@dataclass(frozen=True)
class Column:
    """A number for each unit; 0 for those without events."""

    key: str
    source: Source
    fold: Fold
    property: str | None = None
    """The number that is summed; None: the event's amount."""
    steps: tuple[Source, ...] = ()
    """What follows the source, for `STEPS`. Events at the same time are taken to be in order."""
    low: float | None = None
    """Lower values are pulled up to it, those of units without events too."""
    high: float | None = None
    """Higher values are pulled down to it."""
    at_least: float | None = None
    """Makes the column 1 where the value is as large as this, else 0; before any pulling."""


class Quantile(NamedTuple):
    """A quantile that is asked for: of a column over units, or of what its events have, over events."""

    key: str
    column: Column
    """Of units: their values. Of events: with `SUM`, the amount or the property."""
    q: float
    """Strictly between 0 and 1."""
    of_events: bool = False
    zeros: bool = False
    """Of units: those without events are there, too, as zeros."""
    alpha: float = 0.05
    """Says how far away the two neighbours are: the quantiles at q ∓ z·√(q(1 − q)/n)."""


@dataclass(frozen=True, slots=True)
class UnitList:
    """Ids of units, each once, as one text: engines take a million of them in a fraction of a list's time.

    The separator is in none of the ids.
    """

    text: str
    separator: str
    units: int

    @classmethod
    def of(cls, ids: Iterable[str]) -> "UnitList":
        """The list of these ids, in any order; what comes twice is there once."""
        known = dict.fromkeys(ids)
        # No beginning of these separators is an end of them, so none can arise where an id meets one.
        for number in count():
            separator = f"\x1f{number or ''}\x1e"
            text = separator.join(known)
            if text.count(separator) == max(len(known) - 1, 0):
                return cls(text, separator, len(known))
        raise AssertionError("an id is finite, so some separator is not in it")

    @property
    def ids(self) -> list[str]:
        """The ids in their order."""
        return self.text.split(self.separator) if self.units else []


class Beside(NamedTuple):
    """Groups units by their variant in another experiment: its id as text, None where they have none."""

    experiment_id: int


Block = tuple[str, ...]
"""The keys of columns whose joint moments are wanted."""


@dataclass(frozen=True, slots=True)
class BlockMoments:
    """How some columns are distributed over a cell's units, in the order of the block."""

    count: int
    """Units."""
    means: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    """That of a sample (divided by n − 1); zero where there are fewer than two units."""
    nonzero: tuple[int, ...]
    """Units whose value is not zero: exact."""
    totals: tuple[float, ...]
    """Sums over the units: exact for counts."""


class Cell(NamedTuple):
    """The units of one variant in one phase, perhaps of one group."""

    variant_id: int
    phase: int
    group: str | None
    units: int
    blocks: Mapping[Block, BlockMoments]
    """Every block that was asked for."""
    unreadable: Mapping[str, int]
    """By column that takes a property: events that have it, but not as a number that can be counted."""


class QuantileArm(NamedTuple):
    """One quantile in one variant and phase, with what its standard error is computed from."""

    variant_id: int
    phase: int
    key: str
    events: int
    """Observations: events or, of units, values."""
    units: int
    """Units with at least one observation."""
    value: float | None
    """The smallest observation at or below which at least a share of q lies; None without observations."""
    lower: float | None
    """The same at the lower neighbour; None where there are too few observations for one."""
    upper: float | None
    clusters: BlockMoments
    """Over these units: (observations at or below the quantile, observations)."""
    unreadable: int


class UnitValues(NamedTuple):
    """One unit, with its value in each column that was asked for."""

    unit: int
    """The number of its assignment, by which units are listed."""
    unit_id: str
    variant_id: int
    phase: int
    assigned_at: int
    values: tuple[float, ...]
