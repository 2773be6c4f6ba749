"""Ramps: traffic that grows by a schedule, one phase for each step, as long as the experiment is healthy.

A step opens when its time has come and nothing speaks against it. Otherwise the ramp halts where it is, says
why, and waits for a person. Coverage only ever grows, so that nobody who is in falls out.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import select

from assay.bucketing.ruleset import Status
from assay.catalog import documents
from assay.catalog.database import Actor, Database, WriteTx
from assay.catalog.durations import minutes
from assay.catalog.editing import LIVE, changing, find, state_forbids
from assay.catalog.tables import Experiment
from assay.errors import Conflict, Invalid, NotFound

_log = structlog.get_logger("assay.catalog")

#: Health is asked for this long before a step is due, so that the answer is there in time.
LEAD: Final = timedelta(seconds=10)
_BEGUN: Final[Mapping[str, Any]] = {
    "opened": 0,
    "left": None,
    "halted_at": None,
    "reason": None,
    "ignore_health": False,
}


class Health(NamedTuple):
    """What was found of an experiment: `problem` is a sentence, None where nothing speaks against it."""

    problem: str | None


#: Asked for the health of an experiment before its step that is due then; None: it is not known yet.
Ask = Callable[[int, datetime], Health | None]


def begin(experiment: Experiment, now: datetime) -> None:
    """Count from now: the experiment starts, or has got another ramp."""
    if experiment.ramp is None:
        experiment.ramp_state, experiment.ramp_due_at = None, None
        return
    experiment.ramp_state = dict(_BEGUN)
    experiment.ramp_due_at = _due(experiment.ramp[0], now)


def hold(experiment: Experiment, now: datetime) -> None:
    """The experiment pauses: what is left of a step's time is kept for later."""
    if experiment.ramp is None or experiment.ramp_due_at is None:
        return
    step, state = _next(experiment)
    left = None if step.get("at") else max(0.0, (experiment.ramp_due_at - now).total_seconds())
    experiment.ramp_state = {**state, "left": left}
    experiment.ramp_due_at = None


def go_on(experiment: Experiment, now: datetime) -> None:
    """The experiment resumes after a pause."""
    if experiment.ramp is None or not _waits(experiment):
        return
    step, state = _next(experiment)
    left = state["left"]
    experiment.ramp_due_at = _due(step, now) if left is None else now + timedelta(seconds=left)
    experiment.ramp_state = {**state, "left": None}


def end(experiment: Experiment) -> None:
    """The experiment is over, and so is its ramp."""
    experiment.ramp_due_at = None


def halt(tx: WriteTx, experiment: Experiment, reason: str) -> None:
    """Open no more steps until somebody resumes the ramp. Raises `Conflict` where none is under way."""
    if experiment.status not in LIVE or not _waits(experiment):
        raise _no_ramp(experiment, "is under way")
    with changing(tx, experiment, "experiment.ramp_halt", reason):
        _, state = _next(experiment)
        experiment.ramp_state = {**state, "halted_at": documents.iso(tx.now), "reason": reason}
        experiment.ramp_due_at = None


def resume(tx: WriteTx, experiment: Experiment, *, ignore_health: bool = False) -> None:
    """Go on with a halted ramp: the step that did not open is due now.

    Health is looked at again before it opens, unless `ignore_health`. Raises `Conflict` for a ramp that has
    not halted.
    """
    if not (experiment.ramp_state and experiment.ramp_state["halted_at"]):
        raise _no_ramp(experiment, "has halted")
    if experiment.status != Status.RUNNING:
        raise state_forbids(experiment, "its ramp goes on only while it is running")
    with changing(tx, experiment, "experiment.ramp_resume"):
        _, state = _next(experiment)
        cleared = {"halted_at": None, "reason": None, "left": None, "ignore_health": ignore_health}
        experiment.ramp_state = {**state, **cleared}
        experiment.ramp_due_at = tx.now


def tick(database: Database, now: datetime, ask: Ask) -> int:
    """Open the steps that are due, or halt their ramps; returns how many did either.

    `ask` must answer at once; a step whose experiment's health is not known yet waits for the next tick.
    """
    soon = select(Experiment.id, Experiment.ramp_due_at, Experiment.ramp_state).where(
        Experiment.status == Status.RUNNING, Experiment.ramp_due_at <= now + LEAD
    )
    with database.reading() as tx:
        waiting = list(tx.execute(soon.order_by(Experiment.id)))
    done = 0
    for experiment_id, due_at, state in waiting:
        health = Health(None) if state["ignore_health"] else ask(experiment_id, due_at)
        if health is None or due_at > now:
            continue
        problem = health.problem
        if problem is None:
            try:
                with database.writing(_SCHEDULE, now) as write:
                    _open(write, experiment_id, due_at)
            except (Invalid, Conflict) as error:
                problem = error.detail
        if problem is not None:
            _log.warning("experiment.ramp_halted", experiment_id=experiment_id, reason=problem)
            with database.writing(_SCHEDULE, now) as write:
                experiment = _still_due(write, experiment_id, due_at)
                if experiment is not None:
                    halt(write, experiment, problem)
        done += 1
    return done


_SCHEDULE = Actor("schedule")


def _open(tx: WriteTx, experiment_id: int, due_at: datetime) -> None:
    experiment = _still_due(tx, experiment_id, due_at)
    if experiment is None or experiment.ramp is None:
        return
    step, state = _next(experiment)
    opened: int = state["opened"] + 1
    with changing(tx, experiment, "experiment.ramp_step"):
        # Somebody may have opened more by hand in the meantime.
        experiment.coverage = max(experiment.coverage, step["traffic_allocation"])
        experiment.ramp_state = {**_BEGUN, "opened": opened}
        later = experiment.ramp[opened:]
        experiment.ramp_due_at = _due(later[0], tx.now) if later else None


def _still_due(tx: WriteTx, experiment_id: int, due_at: datetime) -> Experiment | None:
    """The experiment, unless somebody was quicker."""
    try:
        experiment = find(tx, experiment_id)
    except NotFound:
        return None
    due = experiment.status == Status.RUNNING and experiment.ramp_due_at == due_at
    return experiment if due else None


def _waits(experiment: Experiment) -> bool:
    """Whether a step is still to come, and the ramp has begun and not halted."""
    state = experiment.ramp_state
    if experiment.ramp is None or state is None or state["halted_at"]:
        return False
    return bool(state["opened"] < len(experiment.ramp))


def _next(experiment: Experiment) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The step to come, of a ramp that has one, and the state."""
    state = experiment.ramp_state or _BEGUN
    return (experiment.ramp or [])[state["opened"]], state


def _due(step: Mapping[str, Any], now: datetime) -> datetime:
    """When a step opens that is counted from now."""
    if step.get("at"):
        return datetime.fromisoformat(step["at"])
    return now + timedelta(minutes=minutes(step["after"]))


def _no_ramp(experiment: Experiment, what: str) -> Conflict:
    return Conflict(f"Experiment {experiment.key} has no ramp that {what}.", code="no_ramp")
