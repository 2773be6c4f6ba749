"""What every event store promises, whatever engine is beneath.

A store keeps events and assignments for analysis. It is fed by the drain (in log order, with the position in
the log in the same transaction) and by bulk imports, and it answers the questions that reports are made of.

* **Once.** A portion at or before the store's position changes nothing, so the drain may repeat itself after
  any interruption. Of events that carry a caller's id, the first in log order with the same user and the same
  id stays; later ones are counted in the ledger and dropped, for as long as it is there, on every path. An id
  is kept as a UUID: itself where it is one, else the UUIDv5 of its text. Two events of one user with the same
  id of our making are one event that came twice; a store may drop the second.
* **Whole.** A portion is stored completely, with its position, or not at all; the same holds for every chunk
  of an import with its progress.
* **Visible.** A question sees every portion whose `append` has returned.
* **Total.** An unknown experiment, variant, user or event type is an empty answer, never an error. No number
  in an answer is NaN or infinite.
* **Threads.** Every method may be called from any thread but an event loop's (they wait for the disk).
  Questions run beside each other and beside a write; writes wait for one another.
* **Errors.** `Unavailable`: the store cannot do it now (disk full, file held by another process); nothing of
  the call was stored and it may be repeated. `Invalid`: the input itself can never be stored.

An event counts for experiment E and a unit assigned in E when it names E or no experiment, its unit id is the
assignment's, its time (read as generously as it was written) is not before the assignment, and not after the
end of the experiment.

An event whose properties have a text under `reverses` takes back the event of the same user whose id, as the
caller sent it, is that text, whichever came first: it counts for nothing. The name must be written without
escapes. The event that takes back counts like any other of its type.

Times are µs since the epoch everywhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from assay.eventstore.columns import (
    Beside,
    Block,
    Cell,
    Column,
    Quantile,
    QuantileArm,
    Scalar,
    Source,
    UnitList,
    UnitValues,
)

#: Numbers beyond this are no values: their squares would overflow the sums every report is made of.
LARGEST_VALUE = 1e100
#: The namespace of the UUIDs for callers' ids that are none. Fixed for ever, as the log's own.
EVENT_IDS = UUID("6c9f4b0e-7a52-5d0b-9a58-1f2b0c6f6a3d")


class Bucket(StrEnum):
    """The steps of a series; weeks begin on Monday; all in UTC."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class Measure:
    """What is counted and summed: events of one type, perhaps only those with certain properties."""

    key: str
    event_type: str
    """Empty, which no event's is: events of every type."""
    property: str | None = None
    """The property that is summed; None: the event's amount (its value, or the usual property names)."""
    equals: tuple[tuple[str, Scalar], ...] = ()
    """Properties and the values they must have; None: absent or null."""


@dataclass(frozen=True)
class Scope:
    """Which units and which events a question is about."""

    experiment_id: int
    unit: str = "user_id"
    """`user_id`, or the name under which an event carries the unit's id in `units`."""
    ended_at: int | None = None
    """When the experiment ended; later events do not count."""
    events_from: int | None = None
    """Narrows events only."""
    until: int | None = None
    """Narrows events and assignments; inclusive."""
    assigned_from: int | None = None
    """Narrows units to those assigned then or later."""
    excluded_units: frozenset[str] = frozenset()
    """Units left out, as those with a forced variant."""
    only: UnitList | None = None
    """Narrows units to these. The ledger knows nothing of it."""
    event_type: str | None = None
    """Narrows events to one type."""
    activation: Source | None = None
    """Narrows units to those with such an event; with the first of them begins what counts for a unit, and
    what is said of its assignment holds of that. Windows before the assignment stay before that. The ledger
    knows nothing of it."""
    observed_for: int | None = None
    """Narrows units to those assigned so long before `until`, or before the end if that was earlier."""

    def __post_init__(self) -> None:
        if self.observed_for is not None and self.until is None and self.ended_at is None:
            raise ValueError("observed_for needs until or ended_at: the time up to which units were observed")


@dataclass(frozen=True, slots=True)
class UnitMoments:
    """The distribution over an arm's units of three columns: converted (0 or 1), events, total.

    Units without an event are zeros and are included. `covariance` is that of a sample (divided by n − 1),
    zero where there are fewer than two units.
    """

    count: int
    means: tuple[float, float, float]
    covariance: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    converters: int
    """Units with at least one event: an exact count."""
    events: int
    total: float
    """Sum of the measure's value over all events that have one."""


class Arm(NamedTuple):
    """One variant in one phase."""

    variant_id: int
    phase: int
    units: int
    measures: dict[str, UnitMoments]
    """By the measure's key; every measure that was asked for is there."""


class Statement(NamedTuple):
    """What was asked of the engine: the text, and the values of its parameters."""

    text: str
    parameters: Mapping[str, Any]


class EventCount(NamedTuple):
    """Events that count, of one type, in one variant."""

    variant_id: int
    type: str
    events: int
    users: int
    amount: float
    """Sum of the amounts, of those events that have one."""


class SeriesPoint(NamedTuple):
    """One variant in one stretch of time. An event dated coarsely falls no earlier than its assignment."""

    bucket: int
    """When the stretch begins."""
    variant_id: int
    assigned: int
    """Units assigned up to the end of the stretch."""
    newly_assigned: int
    events: int
    converters: int
    """Units with an event in this stretch."""
    first_converters: int
    """Units whose first event is in this stretch."""
    total: float


class Arrivals(NamedTuple):
    """Units that one variant got in one stretch of time under one split."""

    bucket: int
    """When the stretch begins."""
    variant_id: int
    phase: int
    units: int


class LedgerReason(StrEnum):
    """What became of events, in the ledger."""

    ACCEPTED = "accepted"
    """All that was acknowledged and concerns the experiment: the sum of the six below."""
    COUNTED = "counted"
    REVERSED = "reversed"
    """Would count, had not another event of the user taken it back."""
    BEFORE_ASSIGNMENT = "before_assignment"
    LATE = "late"
    """After the experiment's end."""
    UNASSIGNED = "unassigned"
    """Of a user who is not in the experiment (only events that name it)."""
    DUPLICATE = "duplicate"
    VARIANT_MISMATCH = "variant_mismatch"
    """The variant the caller named is not the unit's; such an event is also one of those above,
    an exposure is not."""
    REJECTED = "rejected"
    """Refused at the door; never part of `accepted`."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """How many events of one type had one fate; `detail` is the code of a refusal, else empty."""

    type: str | None
    reason: LedgerReason
    detail: str
    count: int
    samples: tuple[str, ...]
    """Up to five, as JSON texts or as the beginning of what was sent."""


class Fate(NamedTuple):
    """What became of some events: those of one variant's units, or of units without one, with one fate."""

    variant_id: int | None
    reason: LedgerReason
    """Counted, reversed, before assignment, late or unassigned."""
    events: int
    units: int
    """Whose events they are."""
    named: int
    """Events that name the experiment."""
    claims: int
    """Events that say which variant the caller believed the unit to have."""
    mismatched: int
    """Events in which that is another than the one on record."""
    mismatched_units: int
    first: int
    """When the earliest of them happened."""
    last: int


class Repetitions(NamedTuple):
    """Events that were dropped because they had come before, and how many there are beside them."""

    dropped: int
    stored: int
    """Events that name the experiment or none; on a large PostgreSQL about as many as there are at all."""


class Overlap(NamedTuple):
    """Another experiment some of whose units are in this one, too."""

    experiment_id: int
    units: int
    """Units that both have."""


class Cursor(NamedTuple):
    """Where a listing goes on: after the event with this time and number."""

    occurred_at: int
    seq: int


@dataclass(frozen=True)
class EventFilter:
    """Which events to list; None or empty: all. Times are inclusive."""

    experiment_id: int | None = None
    """Events that name the experiment, and those that name none of users who are in it."""
    unit: str = "user_id"
    """The experiment's unit."""
    variant_id: int | None = None
    """Of units with this variant in the experiment."""
    types: tuple[str, ...] = ()
    user_ids: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None


class StoredEvent(NamedTuple):
    """One event as it was sent."""

    seq: int
    event_id: str
    """The caller's own text, or the id we made."""
    user_id: str
    type: str
    occurred_at: int
    received_at: int
    value: float | None
    amount: float | None
    properties: str | None
    """JSON text, letter for letter as sent."""
    units: dict[str, str]
    experiment_id: int | None
    variant_id: int | None
    """The variant on record for the experiment it names (or that the listing is of); None: not in it."""
    claimed_variant_id: int | None
    """What the caller believed."""


class Position(NamedTuple):
    """How far the store has taken the log: the numbers of the last event and of the last assignment in it.

    An event's number is its log row's × 65,536 plus its place in the row.
    """

    events: int
    assignments: int


class Watermark(NamedTuple):
    """Where a store stands, for whoever keeps its answers.

    An answer that was asked for after a settled watermark was taken holds until a later one has another
    `mark`.
    """

    mark: tuple[int | None, ...]
    """Another after every change that could change an answer: the numbers of the last event and of the last
    assignment, and how many changes there were that have no number."""
    epoch: int
    """Grows when rows are removed or imported: no answer of an earlier epoch may be shown again."""
    settled: bool
    """Whether all that the mark stands for is there to be read; if not, answers asked for now may lack some
    of it, and the same mark later says nothing of them."""


Rejections = tuple[int | None, str | None, str, int, tuple[str, ...]]
"""Refusals of one kind, for the ledger: experiment id, event type, code, how many, and up to five samples."""


class Appended(NamedTuple):
    """What became of a portion."""

    events: int
    duplicates: int
    assignments: int


class Erased(NamedTuple):
    """What was removed."""

    events: int
    assignments: int
    ledger: int


class BadRow(NamedTuple):
    """One value of an imported file that cannot be taken; its row is left out."""

    row: int
    """Counted from 1, without the header line."""
    column: str
    value: str
    """As text, cut to a length that fits a message."""
    reason: str


class Progress(NamedTuple):
    """How far an import is."""

    rows_done: int
    rows_total: int | None
    """None: not known for this kind of file."""


class Rebuilt(NamedTuple):
    """How kept totals compare with the events."""

    experiment_id: int
    totals: str
    """What is kept, as JSON; see `assay.eventstore.rollups.Totals`."""
    units: int
    differing: int
    """Units of which the events said something else."""


class Imported(NamedTuple):
    """What became of a file, earlier runs of the same import included."""

    rows: int
    events: int
    duplicates: int
    bad: int
    resumed_from: int
    """Rows that an earlier run had already dealt with."""


class FileFormat(StrEnum):
    """Files that can be imported."""

    CSV = "csv"
    PARQUET = "parquet"
    NDJSON = "ndjson"


@dataclass(frozen=True)
class EventImport:
    """A file of events and how to read it."""

    path: Path
    format: FileFormat
    now: int
    """When the import is made: the time of reception, and what the future is measured against."""
    experiments: Mapping[str, int] = field(default_factory=dict)
    """What may stand in the column `experiment_id` or `experiment` (id or key), and the id it means."""
    experiment_id: int | None = None
    """The experiment of all rows that name none."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Column of the file to field of an event."""
    extra_as_properties: bool = False
    """Columns that are no field of an event become properties; otherwise they are refused."""
    name_length: int = 200
    """Characters in an id or a type."""


@dataclass(frozen=True)
class AssignmentImport:
    """A file of assignments and how to read it."""

    path: Path
    format: FileFormat
    now: int
    rename: Mapping[str, str] = field(default_factory=dict)
    name_length: int = 200


class AssignmentRow(NamedTuple):
    """One row of such a file, checked in form; the caller resolves the names of experiment and variant."""

    row: int
    experiment: str | None
    unit_id: str
    variant: str
    assigned_at: int
    """The time of import where the file has none."""


class EventStore(Protocol):
    """See the head of this file for what all of this promises."""

    def close(self) -> None:
        """Make everything durable and let go of the files."""

    def position(self) -> Position:
        """How far the log has been taken; (-1, 0) for an empty store."""

    def watermark(self) -> Watermark:
        """Where the store stands. Everything acknowledged to it before the call is within the mark."""

    def append(
        self,
        position: tuple[int, int],
        events: str = "[]",
        assignments: str = "[]",
        rejections: Sequence[Rejections] = (),
    ) -> Appended:
        """Store a portion of the log with the position after it. `Invalid`: it can never be stored.

        `events` is a JSON array of `{"q": log row, "i": place of the first, "b": [events of the log]}`,
        `assignments` one of `[seq, experiment_id, unit_id, variant_id, phase, assigned_at]`.
        """

    def recent_keys(self, limit: int) -> list[tuple[str, str]]:
        """(user id, canonical event id) of the latest events with a caller's id, oldest first."""

    def one_moment(self) -> AbstractContextManager[None]:
        """What this thread asks while it is held is answered as of one moment, whatever comes meanwhile."""

    def recorded(self) -> AbstractContextManager[list[Statement]]:
        """A list that gets every statement by which this thread's questions are answered meanwhile."""

    def moments(self, scope: Scope, measures: Sequence[Measure]) -> list[Arm]:
        """What tests and intervals are computed from, all measures in one scan; by variant, then phase."""

    def columns(
        self,
        scope: Scope,
        columns: Sequence[Column],
        blocks: Sequence[Block],
        groups: Mapping[str, UnitList] | Beside | None = None,
    ) -> list[Cell]:
        """How the columns are distributed over units, in one scan; by variant, phase, then group.

        Units without events are there with what becomes of 0. `groups`: another experiment, or the units
        of each group, none of them in two; other units are of the group None. A block with a key that no
        column has is a `ValueError`.
        """

    def percentiles(
        self, scope: Scope, columns: Sequence[Column], levels: Sequence[float]
    ) -> dict[str, tuple[float | None, ...]]:
        """By the column's key, its quantiles at these levels over the units of all variants with events.

        The smallest value at or below which such a share lies; None: no unit has an event.
        """

    def quantiles(
        self, scope: Scope, asked: Sequence[Quantile], strata: Mapping[int, int] | None = None
    ) -> list[QuantileArm]:
        """Each quantile in each variant and phase; by variant, phase, then in the order asked.

        Quantiles of phases do not add up to that of their union: `strata` puts phases together, each under
        the number that stands for it in the answer; a phase that it lacks stands for itself.
        """

    def unit_values(
        self, scope: Scope, columns: Sequence[Column], limit: int, after: int = 0
    ) -> list[UnitValues]:
        """At most `limit` units with their values, in the order of their numbers, which are above `after`.

        Units without events are there with what becomes of 0; the moments of `columns` are those of all.
        """

    def event_counts(self, scope: Scope) -> list[EventCount]:
        """Events that count, by variant and type."""

    def series(self, scope: Scope, measure: Measure, by: Bucket) -> list[SeriesPoint]:
        """A point for every variant in every stretch in which anything happened, by time, then variant."""

    def arrivals(self, scope: Scope, by: Bucket) -> list[Arrivals]:
        """When units were assigned, by stretch of time, variant and phase, in this order."""

    def fates(self, scope: Scope, latest: int) -> list[Fate]:
        """What became of those of the `latest` events of the log that concern the experiment, by variant.

        The same as in the ledger, but for repetitions and refusals, which are no events of the log.
        """

    def repetitions(self, scope: Scope) -> Repetitions:
        """How many events of the experiment came twice, since it began."""

    def conflicts(self, scope: Scope) -> int:
        """How many exposures reported another variant than the unit had on record, since it began."""

    def overlaps(self, scope: Scope, others: Sequence[int]) -> list[Overlap]:
        """How many units each of these experiments has in common with this one, by id; zeros are left out."""

    def ledger(self, scope: Scope, types: Sequence[str] = ()) -> list[LedgerEntry]:
        """What became of events of these types (none: all), by type, then reason; zeros are left out."""

    def events(
        self, which: EventFilter, limit: int, after: Cursor | None = None
    ) -> tuple[list[StoredEvent], Cursor | None]:
        """Events, newest first, and where to go on; None: that was the last of them."""

    def event(self, event_id: str, user_id: str | None = None) -> StoredEvent | None:
        """The event with this id as it was sent; of several users' the newest, unless the user is named."""

    def purge(self, experiment_id: int) -> Erased:
        """Remove an experiment's assignments, its ledger, and the events that name it."""

    def erase(self, user_id: str) -> Erased:
        """Remove a user's events, assignments under that id, and samples that could hold it."""

    def expire(self, before: Mapping[str, int], otherwise: int | None, limit: int) -> int:
        """Remove events that happened before a time, by type; `otherwise`: of all other types (None: none).

        Takes at most `limit` (above 0) and says how many; call it again until it says 0. Each call is short,
        so that nothing waits for it long, and what is gone is no longer known as sent before.
        """

    def maintain(self) -> None:
        """Do what makes later questions cheap; changes no answer. For whoever has time, now and then.

        Totals of units that were asked for more than once are kept from here on (`assay.eventstore.rollups`).
        """

    def rebuild(self) -> list[Rebuilt]:
        """Compare all totals that are kept with the events; those that differ are made anew."""

    def import_events(
        self,
        what: EventImport,
        bad_row: Callable[[BadRow], None],
        progress: Callable[[Progress], None],
    ) -> Imported:
        """Take in a file, in chunks that each are stored with the progress made.

        Interrupted and called again for the same file, it goes on after the last whole chunk; called again
        after the end, it changes nothing. Raises `Invalid` where the file or its columns cannot be read.
        """

    def read_assignments(
        self, what: AssignmentImport, bad_row: Callable[[BadRow], None]
    ) -> Iterator[list[AssignmentRow]]:
        """The rows of a file of assignments in chunks, without storing anything; `Invalid` as above."""
