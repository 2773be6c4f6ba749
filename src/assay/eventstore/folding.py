"""How rollups are made and carried along in the DuckDB file, in the transactions that move events.

Everything here runs in a transaction of the store's one writer, so that a rollup is always true for what else
the same transaction shows. What cannot be carried along exactly drops the rollup, which is made anew when the
store has time: nothing is ever taken off a sum of floating-point numbers; a unit's events are summed again.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import duckdb

from assay.eventstore import plan
from assay.eventstore.base import Scope
from assay.eventstore.dialects import Bound, Duckdb, Engine
from assay.eventstore.listing import canonical
from assay.eventstore.plan import Done, Rows
from assay.eventstore.rollups import ROLLUPS, Totals, totals_of
from assay.eventstore.statements import filled

#: The version of this code: rollups of another one are made anew.
_FORM: Final = 1
#: Totals are kept from the second question for them on.
_ASKED: Final = 2
#: So many rollups at most: those whose last question is the longest ago go.
_MOST: Final = 200
#: So many totals that were missed are remembered.
_MOST_WISHES: Final = 1_000
#: Additions are merged when they are a share of the rows, and so many.
_SHARE: Final = 8
_LEAST: Final = 20_000
#: When more users at once have older events taken back, the rollups are made anew.
_MOST_AGAIN: Final = 2_000
#: When newcomers' past is to be sought among more events, totals of the time before the assignment go: the
#: drain must not look through all of these whenever units come. They are made anew when they are asked for.
_MOST_BEFORE: Final = 1_000_000
_USER: Final = "user_id"

Connection = duckdb.DuckDBPyConnection
Wish = tuple[int, str]
"""An experiment and the text of totals."""


class _Kept(NamedTuple):
    number: int
    experiment_id: int
    text: str
    ended_at: int | None
    units: int
    fresh: int
    form: int

    @property
    def totals(self) -> Totals:
        """What is kept."""
        return totals_of(self.text)


@dataclass
class _Wished:
    times: int
    ended_at: int | None


@dataclass
class Rollups:
    """The rollups of one DuckDB file: what is wished for, and the work on them."""

    wished: dict[Wish, _Wished] = field(default_factory=dict)
    used_at: dict[int, int] = field(default_factory=dict)
    """By a rollup's number when it was last of use, in questions."""
    _questions: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _grown: bool = True
    """Whether there may be additions that should be merged."""

    def missed(self, experiment_id: int, totals: str, ended_at: int | None) -> None:
        """See `dialects.Wishes`."""
        with self._guard:
            self._wish((experiment_id, totals), ended_at)

    def used(self, number: int) -> None:
        """See `dialects.Wishes`."""
        with self._guard:
            self._questions += 1
            self.used_at[number] = self._questions

    def is_due(self) -> bool:
        """Whether `maintain` has anything to do."""
        return self._grown or bool(self._due())

    def maintain(self, connection: Connection) -> None:
        """Merge additions where they are many, and make what was wished for often enough."""
        due, self._grown = self._due(), False
        kept = _all(connection)
        for rollup in kept:
            if rollup.fresh > max(_LEAST, rollup.units // _SHARE):
                self._merge(connection, rollup)
        if not due:
            return
        with self._guard:  # if it fails, it must be asked for again
            for wish in due:
                self.wished.pop(wish, None)
        for rollup in kept:
            if (rollup.experiment_id, rollup.text) in due:
                self._drop(connection, rollup)
        by_scope: dict[Scope, list[Totals]] = {}
        for (experiment_id, text), wished in due.items():
            totals = totals_of(text)
            by_scope.setdefault(_scope(experiment_id, totals.unit, wished.ended_at), []).append(totals)
        for scope, wanted in by_scope.items():
            self._make(connection, scope, wanted)
        self._shrink(connection)

    def assigned(self, connection: Connection, after: int) -> None:
        """Fold those events that the units assigned after this number had before; they are stored already."""
        kept = _all(connection)
        if not kept:
            return
        connection.execute(ROLLUPS["newcomers"], {"experiments": _experiments(kept), "after": after})
        since = dict(connection.execute(ROLLUPS["newcomers_since"]).fetchall())
        if not since:
            return
        pairs = _reversing(connection, "unit_id", "newcomers")
        concerned = [rollup for rollup in kept if rollup.experiment_id in since]
        for looking_back in (False, True):  # apart, since what came just before costs hardly anything
            some = [one for one in concerned if (one.totals.source.opens < 0) == looking_back]
            for scope, group in _grouped(some).items():
                first = since[scope.experiment_id] + min(0, *(one.totals.source.opens for one in group))
                events = filled(ROLLUPS["of_newcomers"], since=f"TIMESTAMP '{Duckdb.time(first)}'")
                if looking_back and _count(connection, events) > _MOST_BEFORE:
                    for rollup in group:
                        self._drop(connection, rollup)
                    continue
                back = _numbers(_taken_back(connection, pairs, "events")) if scope.unit == _USER else None
                self._fold(connection, scope, group, Rows(events, "newcomers", back))

    def arrived(self, connection: Connection, *, reversing: bool) -> None:
        """Fold the events of the temporary table `incoming`, all of which are stored now.

        `reversing`: some of them may take others back.
        """
        kept = _all(connection)
        if not kept:
            return
        types = {row[0] for row in connection.execute(ROLLUPS["incoming_types"]).fetchall()}
        again = self._taken_back(connection, kept) if reversing else set()
        kept = _all(connection) if reversing else kept  # those that could not be carried along are gone
        events = "incoming"
        if again:  # their units are folded as a whole
            connection.execute(ROLLUPS["again"], {"experiments": _experiments(kept), "users": sorted(again)})
            events = ROLLUPS["not_again"]
        concerned = [one for one in kept if one.totals.source.event_type in {"", *types}]
        if concerned:
            assignments = "assignments"
            if len(_experiments(concerned)) > 1:  # one pass for all; for one it is as cheap without
                _touch(connection, concerned)
                assignments = "touched"
            back = _numbers(_taken_back(connection, _reversing(connection, _USER, "incoming"), "incoming"))
            for scope, group in _grouped(concerned).items():
                users = scope.unit == _USER
                rows = Rows(events if users else "incoming", assignments if users else "assignments", back)
                self._fold(connection, scope, group, rows)
        if again:
            self._fold_again(connection, [one for one in kept if one.totals.unit == _USER])

    def erased(self, connection: Connection, user_id: str) -> None:
        """Forget a user whose events and assignments are about to go."""
        kept = _all(connection)
        if not kept:
            return
        units: dict[int, list[int]] = {}
        for experiment_id, unit in connection.execute(ROLLUPS["units_of"], {"user_id": user_id}).fetchall():
            units.setdefault(experiment_id, []).append(unit)
        for rollup in kept:
            if rollup.totals.unit != _USER:
                self._drop(connection, rollup, again=True)
            elif rollup.experiment_id in units:
                _forget_units(connection, rollup, ", ".join(map(str, units[rollup.experiment_id])))

    def purged(self, connection: Connection, experiment_id: int, *, reversals: bool) -> None:
        """An experiment is gone, and perhaps events that took others back."""
        for rollup in _all(connection):
            gone = rollup.experiment_id == experiment_id
            if gone or reversals:
                self._drop(connection, rollup, again=not gone)

    def expiring(self, connection: Connection, older: str, parameters: Mapping[str, Any]) -> None:
        """Drop what events that are about to go may be part of; `older`: the condition on these."""
        kept = _all(connection)
        if not kept:
            return
        text = filled(ROLLUPS["newest_older"], older=older)
        [(newest,)] = connection.execute(text, Bound(Duckdb(), dict(parameters)).used_in(text)).fetchall()
        if newest is None:
            return
        first = dict(connection.execute(ROLLUPS["first_assigned"]).fetchall())
        for rollup in kept:
            begin = first.get(rollup.experiment_id)
            if begin is not None and begin + min(0, rollup.totals.source.opens) <= newest:
                self._drop(connection, rollup, again=True)

    def drop_all(self, connection: Connection) -> None:
        """Drop all rollups."""
        for rollup in _all(connection):
            self._drop(connection, rollup, again=True)

    def drop_of_other_form(self, connection: Connection) -> None:
        """Drop those that another version of this code made."""
        for rollup in _all(connection):
            if rollup.form != _FORM:
                self._drop(connection, rollup, again=True)

    def _wish(self, wish: Wish, ended_at: int | None) -> None:
        known = self.wished.pop(wish, None)
        self.wished[wish] = _Wished(1 + (known.times if known else 0), ended_at)
        while len(self.wished) > _MOST_WISHES:
            del self.wished[next(iter(self.wished))]

    def _due(self) -> dict[Wish, _Wished]:
        with self._guard:
            return {wish: wished for wish, wished in self.wished.items() if wished.times >= _ASKED}

    def _drop(self, connection: Connection, rollup: _Kept, *, again: bool = False) -> None:
        """`again`: the next question for it is enough for it to be made anew."""
        connection.execute(filled(ROLLUPS["drop"], number=str(rollup.number)))
        if again:
            with self._guard:
                self._wish((rollup.experiment_id, rollup.text), rollup.ended_at)

    def _make(self, connection: Connection, scope: Scope, wanted: Sequence[Totals]) -> None:
        """Make rollups of one experiment, by one scan of the events."""
        folded = _folded(connection, scope, wanted, plan.STORED)
        for totals in wanted:
            number = _next(connection)
            _create(connection, number, folded.rows(totals))
            bounds = folded.bounds(totals) or (None, None)
            parameters = {
                "number": number,
                "experiment_id": scope.experiment_id,
                "totals": totals.text(),
                "ended_at": scope.ended_at,
                "first_at": bounds[0],
                "last_at": bounds[1],
                "units": _length(connection, number),
                "form": _FORM,
            }
            connection.execute(ROLLUPS["note_made"], parameters)
            self.used(number)

    def _merge(self, connection: Connection, rollup: _Kept) -> None:
        """A new rollup takes the place of an old one, whose rows a question may be reading."""
        number = _next(connection)
        rows = f"SELECT * FROM {filled(ROLLUPS['rows'], number=str(rollup.number))} AS merged"
        _create(connection, number, rows)
        parameters = {"number": number, "old": rollup.number, "units": _length(connection, number)}
        connection.execute(ROLLUPS["note_merged"], parameters)
        self._drop(connection, rollup)
        self.used(number)

    def _shrink(self, connection: Connection) -> None:
        kept = sorted(_all(connection), key=lambda one: self.used_at.get(one.number, 0), reverse=True)
        for rollup in kept[_MOST:]:
            self._drop(connection, rollup)

    def _fold(self, connection: Connection, scope: Scope, group: Sequence[_Kept], rows: Rows) -> None:
        folded = _folded(connection, scope, [rollup.totals for rollup in group], rows)
        for rollup in group:
            bounds = folded.bounds(rollup.totals)
            if bounds is None:
                continue
            text = filled(ROLLUPS["add"], number=str(rollup.number), rows=folded.rows(rollup.totals))
            added = connection.execute(text).fetchall()[0][0]
            first, last = bounds
            parameters = {"number": rollup.number, "fresh": added, "first_at": first, "last_at": last}
            connection.execute(ROLLUPS["note_added"], parameters)
            self._grown = self._grown or added + rollup.fresh > max(_LEAST, rollup.units // _SHARE)

    def _taken_back(self, connection: Connection, kept: Sequence[_Kept]) -> set[str]:
        """Users of whom the new events take older ones back, unless these are too many.

        Rollups of other units than users are dropped: whose the events are is not looked for.
        """
        pairs = connection.execute(ROLLUPS["reversals_new"]).fetchall()
        back = _taken_back(
            connection, pairs, "(SELECT * FROM events WHERE seq NOT IN (SELECT seq FROM incoming))"
        )
        users = {user for _, user in back}
        for rollup in kept if users else ():
            if rollup.totals.unit != _USER or len(users) > _MOST_AGAIN:
                self._drop(connection, rollup, again=True)
        return users if len(users) <= _MOST_AGAIN else set()

    def _fold_again(self, connection: Connection, kept: Sequence[_Kept]) -> None:
        """Fold all events of the units in the temporary table `again` anew."""
        pairs = _reversing(connection, "unit_id", "again")
        back = _taken_back(connection, pairs, "events")
        for scope, group in _grouped(kept).items():
            for rollup in group:
                _forget_units(connection, rollup, "SELECT seq FROM again")
            self._fold(connection, scope, group, Rows("events", "again", _numbers(back)))


class _Folded(NamedTuple):
    """What the temporary table `folded` holds."""

    done: Done
    by_kind: Mapping[int, tuple[int, int]]
    """The times between which the events of each kind happened."""

    def rows(self, totals: Totals) -> str:
        """The selection of a rollup's rows."""
        features, slots = totals.features(), self.done.slots
        kinds = slots.kinds[features["n0"]]
        one_kind = len(kinds) == 1
        columns = {
            column: "0" if one is None else slots.of[one] if one_kind else self.done.raw(one)
            for column in ("n0", "n1", "n2", "t0")
            for one in [features.get(column)]
        }
        text = ROLLUPS["folded_rows_of_kind" if one_kind else "folded_rows"]
        return filled(text, kinds=self.done.listed([features["n0"]]), **columns)

    def bounds(self, totals: Totals) -> tuple[int, int] | None:
        """The times between which a rollup's events happened; None: there are none."""
        kinds = self.done.slots.kinds[totals.features()["n0"]]
        found = [self.by_kind[kind] for kind in kinds if kind in self.by_kind]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None


def _folded(connection: Connection, scope: Scope, wanted: Sequence[Totals], rows: Rows) -> _Folded:
    """Make the temporary table `folded`: what each unit did, by one scan."""
    engine = _engine(connection)
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = plan.units(engine, scope, bound, rows=rows)
    features = list(dict.fromkeys(one for totals in wanted for one in totals.features().values()))
    done = plan.done(
        engine,
        scope,
        of,
        bound,
        features,
        rows,
        ", min(occurred_at) AS first_at, max(occurred_at) AS last_at",
    )
    text = filled(ROLLUPS["folded"], done=done.text)
    connection.execute(text, bound.used_in(text))
    kinds = connection.execute(ROLLUPS["folded_kinds"]).fetchall()
    return _Folded(done, {kind: (first, last) for kind, first, last in kinds})


def _engine(connection: Connection) -> Engine:
    return Engine(
        Duckdb(), lambda statement, parameters: connection.execute(statement, parameters or None).fetchall()
    )


def _all(connection: Connection) -> list[_Kept]:
    return [_Kept(*row) for row in connection.execute(ROLLUPS["all"]).fetchall()]


def _scope(experiment_id: int, unit: str, ended_at: int | None) -> Scope:
    return Scope(experiment_id, unit=unit, ended_at=ended_at)


def _grouped(kept: Sequence[_Kept]) -> dict[Scope, list[_Kept]]:
    groups: dict[Scope, list[_Kept]] = {}
    for rollup in kept:
        scope = _scope(rollup.experiment_id, rollup.totals.unit, rollup.ended_at)
        groups.setdefault(scope, []).append(rollup)
    return groups


def _experiments(kept: Sequence[_Kept]) -> list[int]:
    return sorted({rollup.experiment_id for rollup in kept})


def _next(connection: Connection) -> int:
    number: int = connection.execute(ROLLUPS["next_number"]).fetchall()[0][0]
    return number


def _length(connection: Connection, number: int) -> int:
    return _count(connection, f"rollup_{number}")


def _count(connection: Connection, rows: str) -> int:
    count: int = connection.execute(filled(ROLLUPS["count"], rows=rows)).fetchall()[0][0]
    return count


def _create(connection: Connection, number: int, rows: str) -> None:
    connection.execute(filled(ROLLUPS["make"], number=str(number), rows=rows))


def _touch(connection: Connection, concerned: Sequence[_Kept]) -> None:
    """Make the temporary table `touched`: the assignments of users with new events."""
    wanted = {one.totals.source.event_type for one in concerned}
    which = {"experiments": _experiments(concerned), "every": "" in wanted, "types": sorted(wanted)}
    connection.execute(ROLLUPS["touched"], which)


def _forget_units(connection: Connection, rollup: _Kept, units: str) -> None:
    connection.execute(filled(ROLLUPS["forget_units"], number=str(rollup.number), units=units))


def _reversing(connection: Connection, user: str, users: str) -> list[tuple[str, str]]:
    """Which events of these users take back another: user, and the caller's id of that."""
    if not connection.execute(ROLLUPS["reversal_count"]).fetchall()[0][0]:
        return []
    return connection.execute(filled(ROLLUPS["reversals_of"], user=user, users=users)).fetchall()


def _taken_back(
    connection: Connection, pairs: Sequence[tuple[str, str]], events: str
) -> list[tuple[int, str]]:
    """The events among these that are named so: number and user."""
    if not pairs:
        return []
    parameters = {"users": [user for user, _ in pairs], "ids": [canonical(text) for _, text in pairs]}
    return connection.execute(filled(ROLLUPS["taken_back"], events=events), parameters).fetchall()


def _numbers(taken_back: Sequence[tuple[int, str]]) -> list[int]:
    return sorted(number for number, _ in taken_back)
