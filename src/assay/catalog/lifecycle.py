"""The states of an experiment: draft → running ⇄ paused → stopped → archived."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import and_, or_, select

from assay.bucketing.ruleset import Status
from assay.catalog import breakers, phases, preregistration, prerequisites, ramps, slots
from assay.catalog.database import Actor, Database, WriteTx
from assay.catalog.documents import iso
from assay.catalog.editing import LIVE, changing, complete_split, find, find_variant, state_forbids
from assay.catalog.tables import Experiment
from assay.errors import AssayError, Conflict, Invalid, NotFound

_log = structlog.get_logger("assay.catalog")

SCHEDULE = Actor("schedule")


def start(tx: WriteTx, experiment: Experiment) -> None:
    """Let units in, and freeze the plan. The variants must share out all of the traffic."""
    if experiment.status != Status.DRAFT:
        raise state_forbids(experiment, "only a draft can be started" + _hint(experiment))
    complete_split(experiment)
    with changing(tx, experiment, "experiment.start"):
        experiment.status = Status.RUNNING
        experiment.started_at = tx.now
        experiment.schedule_error = None
        if experiment.start_at is not None and experiment.start_at > tx.now:
            experiment.start_at = None  # somebody was quicker than the plan
        ramps.begin(experiment, tx.now)
        preregistration.freeze(tx, experiment)
        slots.settle(tx, experiment, live=True)
        prerequisites.begin(tx, experiment)
        phases.open_next(tx, experiment)


def pause(tx: WriteTx, experiment: Experiment) -> None:
    """Let nobody new in; who is in keeps what they have. A holdout has no pause: it keeps out, or it ends."""
    if experiment.holdout is not None:
        raise state_forbids(experiment, "a holdout cannot be paused; stop it to let its units in")
    _move(tx, experiment, "pause", Status.RUNNING, Status.PAUSED)


def resume(tx: WriteTx, experiment: Experiment) -> None:
    """Let units in again; one that its circuit breaker stopped, too.

    That is the answer to a breaker that has tripped: from then on it counts units alone that come after.
    """
    tripped = breakers.is_tripped(experiment)
    if not breakers.has_stopped(experiment):
        _expect(experiment, "resume", Status.PAUSED)
    with changing(tx, experiment, "experiment.resume"):
        experiment.status = Status.RUNNING
        experiment.ended_at = None
        ramps.go_on(experiment, tx.now)
        if tripped:
            slots.settle(tx, experiment, live=True)
            phases.open_next(tx, experiment)
            breakers.rearm(tx, experiment)


def trip(tx: WriteTx, experiment: Experiment, evidence: Mapping[str, Any], reason: str) -> None:
    """What a circuit breaker does, once harm is shown: pause or stop, with the evidence on record."""
    if experiment.status != Status.RUNNING or experiment.breaker is None:
        raise state_forbids(experiment, "its circuit breaker does not watch it")
    with changing(tx, experiment, "experiment.circuit_breaker", reason):
        breakers.tripped(tx, experiment, evidence, reason)
        if experiment.breaker["action"] == "stop":
            experiment.status = Status.STOPPED
            experiment.ended_at = tx.now
            ramps.hold(experiment, tx.now)
            phases.close(tx, experiment)
        else:
            experiment.status = Status.PAUSED
            ramps.hold(experiment, tx.now)


def stop(tx: WriteTx, experiment: Experiment, *, winner: int | str | None = None, reason: str = "") -> None:
    """End the experiment; with a winner, everybody gets that variant from now on."""
    if experiment.status not in LIVE:
        raise state_forbids(experiment, "only a running or paused experiment can be stopped")
    chosen = None
    if winner is not None:
        try:
            chosen = find_variant(experiment, winner)
        except NotFound as error:
            raise Invalid.field("winner", error.detail, code="unknown_variant") from error
    with changing(tx, experiment, "experiment.stop", reason or None):
        experiment.status = Status.STOPPED
        experiment.ended_at = tx.now
        if experiment.end_at is not None and experiment.end_at > tx.now:
            experiment.end_at = None  # somebody was quicker than the plan
        ramps.end(experiment)
        experiment.winner_id = chosen.id if chosen is not None else None
        if chosen is not None or reason:
            experiment.decision = {
                "winner": chosen.key if chosen is not None else None,
                "reason": reason or None,
                "decided_at": iso(tx.now),
                "decided_by": tx.actor.name,
            }
        phases.close(tx, experiment)
        if experiment.holdout is not None:
            prerequisites.end(tx, experiment)


def archive(tx: WriteTx, experiment: Experiment) -> None:
    """Put a stopped experiment away."""
    _move(tx, experiment, "archive", Status.STOPPED, Status.ARCHIVED)


def put_away(tx: WriteTx, experiment: Experiment) -> None:
    """Archive a started experiment in whichever state it is, ending it first."""
    if experiment.status in LIVE:
        stop(tx, experiment)
    if experiment.status == Status.STOPPED:
        archive(tx, experiment)


def bring_to(tx: WriteTx, experiment: Experiment, status: Status) -> None:
    """Make the one step that leads to `status`; none if the experiment is there already."""
    if experiment.status == status:
        return
    if status == Status.RUNNING:
        resumes = experiment.status == Status.PAUSED or breakers.has_stopped(experiment)
        step = resume if resumes else start
    elif status == Status.PAUSED:
        step = pause
    elif status == Status.STOPPED:
        stop(tx, experiment)
        return
    elif status == Status.ARCHIVED:
        step = archive
    else:
        raise state_forbids(experiment, "it cannot become a draft again")
    step(tx, experiment)


def tick(database: Database, now: datetime) -> int:
    """Make the starts and ends that are due; returns how many. Cheap when nothing is due.

    A start that the rules refuse is tried once: the reason stands in `schedule_error` and in the audit
    log, until somebody plans another start or starts the experiment.
    """
    due = and_(
        Experiment.status == Status.DRAFT, Experiment.start_at <= now, Experiment.schedule_error.is_(None)
    )
    over = and_(Experiment.status.in_(LIVE), Experiment.end_at <= now)
    with database.reading() as tx:
        ids = list(tx.scalars(select(Experiment.id).where(or_(due, over)).order_by(Experiment.id)))
    for experiment_id in ids:
        try:
            with database.writing(SCHEDULE, now) as write:
                _make_due(write, experiment_id, now)
        except (Invalid, Conflict) as error:
            _log.warning("experiment.schedule_refused", experiment_id=experiment_id, reason=error.detail)
            with database.writing(SCHEDULE, now) as write:
                _unschedule(write, experiment_id, error)
    return len(ids)


def _make_due(tx: WriteTx, experiment_id: int, now: datetime) -> None:
    """The step that is due; looked at again, because somebody may have been quicker."""
    try:
        experiment = find(tx, experiment_id)
    except NotFound:
        return
    if experiment.status == Status.DRAFT and experiment.start_at is not None and experiment.start_at <= now:
        start(tx, experiment)
    elif experiment.status in LIVE and experiment.end_at is not None and experiment.end_at <= now:
        stop(tx, experiment)


def _unschedule(tx: WriteTx, experiment_id: int, error: AssayError) -> None:
    experiment = find(tx, experiment_id)
    with changing(tx, experiment, "experiment.schedule_refused", error.detail):
        experiment.schedule_error = error.detail


def _move(tx: WriteTx, experiment: Experiment, verb: str, origin: Status, target: Status) -> None:
    _expect(experiment, verb, origin)
    with changing(tx, experiment, f"experiment.{verb}"):
        experiment.status = target
        if target == Status.PAUSED:
            ramps.hold(experiment, tx.now)


def _expect(experiment: Experiment, verb: str, origin: Status) -> None:
    if experiment.status != origin:
        raise state_forbids(
            experiment, f"only a {origin} experiment can {_PASSIVE[verb]}" + _hint(experiment)
        )


_PASSIVE = {"pause": "be paused", "resume": "be resumed", "archive": "be archived"}


def _hint(experiment: Experiment) -> str:
    return " (use resume)" if experiment.status == Status.PAUSED else ""
