"""Rollups in PostgreSQL, which follow behind events that any number of processes acknowledge.

Rows of `events` and `assignments` are numbered. All rollups hold what happened up to two of these numbers,
which are moved in the transaction that adds what lies between, by whoever has the row that keeps them. A
number is only gone past when nobody can commit a row with a lower one any more. Questions add what lies
behind (`assay.eventstore.rollups`), so that nothing depends on how often anybody comes here.

Removals, imports and portions of a log elsewhere wait for the same row, and drop what they make untrue.
"""

from typing import Any, Final

from assay.eventstore.dialects import Engine
from assay.eventstore.folding import ASKED, MOST, Rollups, Wish, Wished, do, everything, table
from assay.eventstore.scan import Rows

#: When they are further behind than so many events, rollups are made anew instead.
_MOST_BEHIND: Final = 2_000_000
#: So many notes of wishes are kept.
_MOST_NOTES: Final = 5_000

Numbers = tuple[int, int]
"""Of an event and of an assignment."""


class PostgresRollups(Rollups):
    """What one process wishes for, and its work on the rollups of all."""

    def has_wishes(self) -> bool:
        """Whether there is anything to tell the others."""
        return bool(self.wished or self.used_at)

    def note(self, engine: Engine) -> None:
        """Tell all processes what this one wishes for."""
        with self._guard:
            wished, used = dict(self.wished), list(self.used_at)
            self.wished.clear()
            self.used_at.clear()
        for (experiment_id, totals), one in wished.items():
            wish = {"experiment_id": experiment_id, "totals": totals}
            do(engine, "wish", {**wish, "ended_at": one.ended_at, "times": one.times})
        if used:
            do(engine, "used", {"numbers": used})

    def follow(self, engine: Engine, until: Numbers) -> dict[Wish, Wished]:
        """Add what happened up to these numbers, unless somebody else is at it; what is to be made next."""
        turn = do(engine, "turn")
        if not turn:
            return {}
        [(event, assignment)] = turn
        last, unit = max(event, until[0]), max(assignment, until[1])
        if last - event > _MOST_BEHIND:
            self.drop_all(engine)
        else:
            self.drop_of_other_form(engine)
            self._follow(engine, (event, assignment), (last, unit))
        do(engine, "moved", {"events": last, "assignments": unit})
        do(engine, "sweep")
        for rollup in everything(engine)[MOST:]:
            self.drop(engine, rollup)
        due = {
            (experiment_id, totals): Wished(times, ended_at)
            for experiment_id, totals, ended_at, times in do(engine, "wished", {"asked": ASKED})
        }
        for experiment_id, totals in due:  # if it fails, it must be asked for again
            do(engine, "granted", {"experiment_id": experiment_id, "totals": totals})
        do(engine, "forget_wishes", {"most": _MOST_NOTES})
        return due

    def grant(self, engine: Engine, due: dict[Wish, Wished]) -> None:
        """Make what was wished for, as far as all other rollups go."""
        turn = do(engine, "turn")
        if turn:
            self.make(engine, due, up_to(*turn[0]))

    def wait(self, engine: Engine) -> Numbers:
        """Wait for the turn, which must be had before anything moves below the numbers; what these are.

        It comes before every other lock: others must not wait while somebody waits for it.
        """
        [(event, assignment)] = do(engine, "wait_turn")
        return event, assignment

    def _follow(self, engine: Engine, after: Numbers, until: Numbers) -> None:
        stored = up_to(*until)
        if until[1] > after[1]:
            self.assigned(engine, after[1], up_to(after[0], until[1]))
        if until[0] > after[0] and everything(engine):
            parameters: dict[str, Any] = {"after": after[0], "until": until[0]}
            table(engine, "incoming", engine.statement("rollups", "incoming"), parameters)
            [(reversing,)] = do(engine, "incoming_reversals")
            self.arrived(engine, reversing=bool(reversing), stored=stored)


def up_to(event: int, assignment: int) -> Rows:
    """The events and assignments up to these numbers."""
    return Rows(
        f"(SELECT * FROM events WHERE seq <= {event})",
        f"(SELECT * FROM assignments WHERE seq <= {assignment})",
    )
