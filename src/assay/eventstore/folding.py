"""How rollups are made and carried along, by whoever may write them.

Everything here runs in a transaction of the one who may. On DuckDB that is the one that moves events, so that
a rollup is always true for what else the same transaction shows. On PostgreSQL it follows behind the events
(`assay.eventstore.postgres_rollups`), and `stored` names those that it has come to. What cannot be carried
along exactly drops the rollup, which is made anew when the store has time: nothing is ever taken off a sum of
floating-point numbers; a unit's events are summed again.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from assay.eventstore import plan, scan
from assay.eventstore.base import Rebuilt, Scope
from assay.eventstore.dialects import Bound, Engine
from assay.eventstore.listing import canonical
from assay.eventstore.plan import Done
from assay.eventstore.rollups import Totals, folded_rows, rows_of, totals_of
from assay.eventstore.scan import STORED, Rows
from assay.eventstore.statements import filled

#: The version of this code: rollups of another one are made anew.
FORM: Final = 1
#: Totals are kept from the second question for them on.
ASKED: Final = 2
#: So many rollups at most: those whose last question is the longest ago go.
MOST: Final = 200
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

Wish = tuple[int, str]
"""An experiment and the text of totals."""


class Kept(NamedTuple):
    """A rollup as those who work on it see it."""

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
class Wished:
    """How often a question would have been answered from totals, and where these would have ended."""

    times: int
    ended_at: int | None


@dataclass
class Rollups:
    """The rollups of one store: what is wished for, and the work on them."""

    wished: dict[Wish, Wished] = field(default_factory=dict)
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

    def maintain(self, engine: Engine) -> None:
        """Merge additions where they are many, and make what was wished for often enough."""
        due, self._grown = self._due(), False
        for rollup in everything(engine):
            if rollup.fresh > max(_LEAST, rollup.units // _SHARE):
                self._merge(engine, rollup)
        if not due:
            return
        with self._guard:  # if it fails, it must be asked for again
            for wish in due:
                self.wished.pop(wish, None)
        self.make(engine, due)
        kept = sorted(everything(engine), key=lambda one: self.used_at.get(one.number, 0), reverse=True)
        for rollup in kept[MOST:]:
            self.drop(engine, rollup)

    def make(self, engine: Engine, due: Mapping[Wish, Wished], stored: Rows = STORED) -> None:
        """Make what is wished for, in place of what there is of it."""
        for rollup in everything(engine):
            if (rollup.experiment_id, rollup.text) in due:
                self.drop(engine, rollup)
        by_scope: dict[Scope, list[Totals]] = {}
        for (experiment_id, text), wished in due.items():
            totals = totals_of(text)
            by_scope.setdefault(_scope(experiment_id, totals.unit, wished.ended_at), []).append(totals)
        for scope, wanted in by_scope.items():
            self._make(engine, scope, wanted, stored)

    def assigned(self, engine: Engine, after: int, stored: Rows = STORED) -> None:
        """Fold those events that the units assigned after this number had before; they are stored already."""
        kept = everything(engine)
        if not kept:
            return
        which = {"experiments": _experiments(kept), "after": after}
        table(engine, "newcomers", filled(_text(engine, "newcomers"), assignments=stored.assignments), which)
        since = dict(do(engine, "newcomers_since"))
        if not since:
            return
        pairs = _reversing(engine, "unit_id", "newcomers")
        concerned = [rollup for rollup in kept if rollup.experiment_id in since]
        for looking_back in (False, True):  # apart, since what came just before costs hardly anything
            some = [one for one in concerned if (one.totals.source.opens < 0) == looking_back]
            for scope, group in _grouped(some).items():
                first = since[scope.experiment_id] + min(0, *(one.totals.source.opens for one in group))
                events = filled(_text(engine, "of_newcomers"), since=str(first), events=stored.events)
                if looking_back and _more_than(engine, events, _MOST_BEFORE):
                    for rollup in group:
                        self.drop(engine, rollup)
                    continue
                back = _numbers(_taken_back(engine, pairs, stored.events)) if scope.unit == _USER else None
                self._fold(engine, scope, group, Rows(events, "newcomers", back))

    def arrived(self, engine: Engine, *, reversing: bool, stored: Rows = STORED) -> None:
        """Fold the events of the temporary table `incoming`, all of which are stored now.

        `reversing`: some of them may take others back.
        """
        kept = everything(engine)
        if not kept:
            return
        types = {row[0] for row in do(engine, "incoming_types")}
        again = self._taken_back(engine, kept, stored) if reversing else set()
        kept = everything(engine) if reversing else kept  # those that could not be carried along are gone
        events = "incoming"
        if again:  # their units are folded as a whole
            text = filled(_text(engine, "again"), assignments=stored.assignments)
            table(engine, "again", text, {"experiments": _experiments(kept), "users": sorted(again)})
            events = _text(engine, "not_again")
        concerned = [one for one in kept if one.totals.source.event_type in {"", *types}]
        if concerned:
            assignments = stored.assignments
            if len(_experiments(concerned)) > 1:  # one pass for all; for one it is as cheap without
                _touch(engine, concerned, stored)
                assignments = "touched"
            back = _numbers(_taken_back(engine, _reversing(engine, _USER, "incoming"), "incoming"))
            for scope, group in _grouped(concerned).items():
                users = scope.unit == _USER
                rows = Rows(
                    events if users else "incoming", assignments if users else stored.assignments, back
                )
                self._fold(engine, scope, group, rows)
        if again:
            self._fold_again(engine, [one for one in kept if one.totals.unit == _USER], stored)

    def erased(self, engine: Engine, user_id: str) -> None:
        """Forget a user whose events and assignments are about to go."""
        kept = everything(engine)
        if not kept:
            return
        units: dict[int, list[int]] = {}
        for experiment_id, unit in do(engine, "units_of", {"user_id": user_id}):
            units.setdefault(experiment_id, []).append(unit)
        for rollup in kept:
            if rollup.totals.unit != _USER:
                self.drop(engine, rollup, again=True)
            elif rollup.experiment_id in units:
                _forget_units(engine, rollup, ", ".join(map(str, units[rollup.experiment_id])))

    def purged(self, engine: Engine, experiment_id: int, *, reversals: bool) -> None:
        """An experiment is gone, and perhaps events that took others back."""
        for rollup in everything(engine):
            gone = rollup.experiment_id == experiment_id
            if gone or reversals:
                self.drop(engine, rollup, again=not gone)

    def expiring(self, engine: Engine, older: str, parameters: Mapping[str, Any]) -> None:
        """Drop what events that are about to go may be part of; `older`: the condition on these."""
        kept = everything(engine)
        if not kept:
            return
        text = filled(_text(engine, "newest_older"), older=older)
        [(newest,)] = engine.ask(text, Bound(engine.dialect, dict(parameters)).used_in(text))
        if newest is None:
            return
        first = dict(do(engine, "first_assigned"))
        for rollup in kept:
            begin = first.get(rollup.experiment_id)
            if begin is not None and begin + min(0, rollup.totals.source.opens) <= newest:
                self.drop(engine, rollup, again=True)

    def drop_all(self, engine: Engine) -> None:
        """Drop all rollups."""
        for rollup in everything(engine):
            self.drop(engine, rollup, again=True)

    def drop_of_other_form(self, engine: Engine) -> None:
        """Drop those that another version of this code made."""
        for rollup in everything(engine):
            if rollup.form != FORM:
                self.drop(engine, rollup, again=True)

    def _wish(self, wish: Wish, ended_at: int | None) -> None:
        known = self.wished.pop(wish, None)
        self.wished[wish] = Wished(1 + (known.times if known else 0), ended_at)
        while len(self.wished) > _MOST_WISHES:
            del self.wished[next(iter(self.wished))]

    def _due(self) -> dict[Wish, Wished]:
        with self._guard:
            return {wish: wished for wish, wished in self.wished.items() if wished.times >= ASKED}

    def drop(self, engine: Engine, rollup: Kept, *, again: bool = False) -> None:
        """Drop a rollup. `again`: the next question for it is enough for it to be made anew."""
        do(engine, "drop", number=str(rollup.number))
        if again:
            with self._guard:
                self._wish((rollup.experiment_id, rollup.text), rollup.ended_at)

    def _make(self, engine: Engine, scope: Scope, wanted: Sequence[Totals], stored: Rows) -> None:
        """Make rollups of one experiment, by one scan of the events."""
        folded = _folded(engine, scope, wanted, stored)
        for totals in wanted:
            self._keep(engine, scope, totals, folded)

    def rebuild(self, engine: Engine, stored: Rows = STORED) -> list[Rebuilt]:
        """Compare each rollup with the events, and put another in the place of those that differ."""
        found = []
        for scope, group in _grouped(everything(engine)).items():
            folded = _folded(engine, scope, [rollup.totals for rollup in group], stored)
            for rollup in group:
                anew = folded.rows(rollup.totals)
                rows = rows_of(engine, rollup.number, rollup.fresh)
                [(units, differing)] = do(engine, "differing", rows=rows, anew=anew)
                if differing:
                    self.drop(engine, rollup)
                    self._keep(engine, scope, rollup.totals, folded)
                found.append(Rebuilt(rollup.experiment_id, rollup.text, units, differing))
        return found

    def _keep(self, engine: Engine, scope: Scope, totals: Totals, folded: "_Folded") -> None:
        number = _next(engine)
        do(engine, "make", number=str(number), rows=folded.rows(totals))
        bounds = folded.bounds(totals) or (None, None)
        parameters = {
            "number": number,
            "experiment_id": scope.experiment_id,
            "totals": totals.text(),
            "ended_at": scope.ended_at,
            "first_at": bounds[0],
            "last_at": bounds[1],
            "units": _length(engine, number),
            "form": FORM,
        }
        do(engine, "note_made", parameters)
        self.used(number)

    def _merge(self, engine: Engine, rollup: Kept) -> None:
        """A new rollup takes the place of an old one, whose rows a question may be reading."""
        number = _next(engine)
        rows = f"SELECT * FROM {filled(_text(engine, 'rows'), number=str(rollup.number))} AS merged"
        do(engine, "make", number=str(number), rows=rows)
        parameters = {"number": number, "old": rollup.number, "units": _length(engine, number)}
        do(engine, "note_merged", parameters)
        self.drop(engine, rollup)
        self.used(number)

    def _fold(self, engine: Engine, scope: Scope, group: Sequence[Kept], rows: Rows) -> None:
        folded = _folded(engine, scope, [rollup.totals for rollup in group], rows)
        for rollup in group:
            bounds = folded.bounds(rollup.totals)
            if bounds is None:
                continue
            rows_text = folded.rows(rollup.totals)
            [(added,)] = do(engine, "add", number=str(rollup.number), rows=rows_text)
            first, last = bounds
            parameters = {"number": rollup.number, "fresh": added, "first_at": first, "last_at": last}
            do(engine, "note_added", parameters)
            self._grown = self._grown or added + rollup.fresh > max(_LEAST, rollup.units // _SHARE)

    def _taken_back(self, engine: Engine, kept: Sequence[Kept], stored: Rows) -> set[str]:
        """Users of whom the new events take older ones back, unless these are too many.

        Rollups of other units than users are dropped: whose the events are is not looked for.
        """
        pairs = do(engine, "reversals_new")
        back = _taken_back(engine, pairs, filled(_text(engine, "older"), events=stored.events))
        users = {user for _, user in back}
        for rollup in kept if users else ():
            if rollup.totals.unit != _USER or len(users) > _MOST_AGAIN:
                self.drop(engine, rollup, again=True)
        return users if len(users) <= _MOST_AGAIN else set()

    def _fold_again(self, engine: Engine, kept: Sequence[Kept], stored: Rows) -> None:
        """Fold all events of the units in the temporary table `again` anew."""
        pairs = _reversing(engine, "unit_id", "again")
        back = _taken_back(engine, pairs, stored.events)
        for scope, group in _grouped(kept).items():
            for rollup in group:
                _forget_units(engine, rollup, "SELECT seq FROM again")
            self._fold(engine, scope, group, Rows(stored.events, "again", _numbers(back)))


class _Folded(NamedTuple):
    """What the temporary table `folded` holds."""

    texts: Mapping[str, str]
    done: Done
    by_kind: Mapping[int, tuple[int, int]]
    """The times between which the events of each kind happened."""

    def rows(self, totals: Totals) -> str:
        """The selection of a rollup's rows."""
        return folded_rows(self.texts, self.done, totals, "variant_id, phase")

    def bounds(self, totals: Totals) -> tuple[int, int] | None:
        """The times between which a rollup's events happened; None: there are none."""
        kinds = self.done.slots.kinds[totals.features()["n0"]]
        found = [self.by_kind[kind] for kind in kinds if kind in self.by_kind]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None


def _folded(engine: Engine, scope: Scope, wanted: Sequence[Totals], rows: Rows) -> _Folded:
    """Make the temporary table `folded`: what each unit did, by one scan."""
    bound = Bound(engine.dialect, {"experiment_id": scope.experiment_id})
    of = scan.units(engine, scope, bound, rows=rows)
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
    text = filled(_text(engine, "folded"), done=done.text)
    table(engine, "folded", text, bound.used_in(text))
    kinds = do(engine, "folded_kinds")
    texts = engine.dialect.statements("rollups")
    return _Folded(texts, done, {kind: (first, last) for kind, first, last in kinds})


def _text(engine: Engine, name: str) -> str:
    return engine.statement("rollups", name)


def do(
    engine: Engine, name: str, parameters: Mapping[str, Any] | None = None, **parts: str
) -> list[tuple[Any, ...]]:
    """Run one of the statements on rollups; its rows."""
    return engine.ask(filled(_text(engine, name), **parts), parameters or {})


def table(engine: Engine, name: str, text: str, parameters: Mapping[str, Any]) -> None:
    """Make a temporary table anew."""
    engine.ask(f"DROP TABLE IF EXISTS {name}", {})
    engine.ask(text, parameters)


def everything(engine: Engine) -> list[Kept]:
    """All rollups there are."""
    return [Kept(*row) for row in do(engine, "all")]


def _scope(experiment_id: int, unit: str, ended_at: int | None) -> Scope:
    return Scope(experiment_id, unit=unit, ended_at=ended_at)


def _grouped(kept: Sequence[Kept]) -> dict[Scope, list[Kept]]:
    groups: dict[Scope, list[Kept]] = {}
    for rollup in kept:
        scope = _scope(rollup.experiment_id, rollup.totals.unit, rollup.ended_at)
        groups.setdefault(scope, []).append(rollup)
    return groups


def _experiments(kept: Sequence[Kept]) -> list[int]:
    return sorted({rollup.experiment_id for rollup in kept})


def _next(engine: Engine) -> int:
    number: int = do(engine, "next_number")[0][0]
    return number


def _length(engine: Engine, number: int) -> int:
    count: int = do(engine, "length", number=str(number))[0][0]
    return count


def _more_than(engine: Engine, rows: str, most: int) -> bool:
    return bool(do(engine, "count", rows=rows, limit=str(most + 1))[0][0] > most)


def _touch(engine: Engine, concerned: Sequence[Kept], stored: Rows) -> None:
    """Make the temporary table `touched`: the assignments of users with new events."""
    wanted = {one.totals.source.event_type for one in concerned}
    which = {"experiments": _experiments(concerned), "every": "" in wanted, "types": sorted(wanted)}
    table(engine, "touched", filled(_text(engine, "touched"), assignments=stored.assignments), which)


def _forget_units(engine: Engine, rollup: Kept, units: str) -> None:
    do(engine, "forget_units", number=str(rollup.number), units=units)


def _reversing(engine: Engine, user: str, users: str) -> list[tuple[str, str]]:
    """Which events of these users take back another: user, and the caller's id of that."""
    if not do(engine, "reversal_count")[0][0]:
        return []
    return do(engine, "reversals_of", user=user, users=users)


def _taken_back(engine: Engine, pairs: Sequence[tuple[str, str]], events: str) -> list[tuple[int, str]]:
    """The events among these that are named so: number and user."""
    if not pairs:
        return []
    parameters = {"users": [user for user, _ in pairs], "ids": [canonical(text) for _, text in pairs]}
    return do(engine, "taken_back", parameters, events=events)


def _numbers(taken_back: Sequence[tuple[int, str]]) -> list[int]:
    return sorted(number for number, _ in taken_back)
