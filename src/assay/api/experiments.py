"""Routes of experiments and their life."""

from collections.abc import Callable
from typing import Annotated, TypedDict

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from assay.api import spellings
from assay.api.bodies import Document, OptionalDocument
from assay.api.calls import Call, Editing, Limit, Reading, Skip, answer, listing
from assay.api.operations import operation
from assay.bucketing.ruleset import Status
from assay.catalog import (
    audit,
    checklist,
    documents,
    experiments,
    lifecycle,
    phases,
    prerequisites,
    ramps,
    templates,
)
from assay.catalog.checks import Input, parse
from assay.catalog.database import WriteTx
from assay.catalog.editing import expect_version, find
from assay.catalog.inputs import (
    ExperimentCreate,
    ExperimentEdit,
    RampHaltInput,
    RampResumeInput,
    StatusText,
    StopInput,
)
from assay.catalog.tables import Experiment
from assay.catalog.templates import NewExperiment
from assay.reports import launch

router = APIRouter(tags=["experiments"])

_EXAMPLES = {
    "two variants, by conversion": {
        "name": "Checkout button",
        "variants": [{"name": "control", "allocation": 0.5}, {"name": "green", "allocation": 0.5}],
        "metrics": ["purchase"],
    },
    "a plan": {
        "name": "Checkout button",
        "hypothesis": "A green button makes more visitors buy.",
        "traffic_allocation": 0.2,
        "variants": [{"name": "control", "allocation": 0.5}, {"name": "green", "allocation": 0.5}],
        "metrics": [
            {"definition": "revenue-14d", "role": "primary"},
            {"definition": "crashes", "margin": {"relative": 0.02}},
            {"event_type": "purchase", "window": {"duration": "7d"}},
        ],
        "activation_event": "checkout_seen",
        "target_sample_size": 20000,
        "minimum_detectable_effect": 0.03,
        "analysis": {"method": "group_sequential", "looks": 4, "spending": "obrien_fleming"},
    },
    "from a template": {"template": "checkout", "name": "Checkout button, again"},
}


class ExperimentPage(TypedDict):
    """A stretch of the list of experiments."""

    experiments: list[documents.ExperimentDocument]
    total: int
    skip: int
    limit: int


class AuditPage(TypedDict):
    """A stretch of the audit log."""

    entries: list[documents.AuditDocument]
    total: int
    skip: int
    limit: int


class PhaseList(TypedDict):
    """The phases of an experiment."""

    phases: list[documents.PhaseDocument]


class Removed(TypedDict):
    """What became of an experiment: `deleted`, `archived` or `purged`."""

    id: int
    key: str
    result: str


class Started(documents.ExperimentDocument):
    """An experiment that has just started, and what of its checklist is worth a look."""

    warnings: list[checklist.Item]


class Nothing(Input):
    """No field at all."""


def shown(call: Call, row: Experiment, status: int = 200) -> Response:
    """An experiment as the caller knows it."""
    document = documents.experiment(row)
    return answer(spellings.experiment(document, short=call.short), status, version=row.version)


@router.post("/experiments", status_code=201)
@operation(takes=NewExperiment, answers=documents.ExperimentDocument, examples=_EXAMPLES)
def create_experiment(call: Editing, body: Document) -> Response:
    """Create an experiment, from a template if one is named."""
    if isinstance(body, dict) and "template" in body:
        with call.parts.database.reading() as read:
            body = templates.filled(read, body)
    given = parse(ExperimentCreate, body)
    status = Status.RUNNING if call.short else Status.DRAFT
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = experiments.create(tx, given, status=status)
    return shown(call, row, 201)


class _Filter(Input):
    status: StatusText | None = None


@router.get("/experiments")
@operation(answers=ExperimentPage)
def list_experiments(
    call: Reading,
    *,
    status: Annotated[str | None, Query(description="Only this state; archived ones show only so.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Text in name, key or description.")] = None,
    tag: Annotated[str | None, Query(max_length=100)] = None,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Response:
    """List experiments, the newest first."""
    wanted = parse(_Filter, {"status": status}).status if status else None
    with call.parts.database.reading() as tx:
        rows, total = experiments.page(tx, status=wanted, q=q, tag=tag, skip=skip, limit=limit)
    items = [spellings.experiment(documents.experiment(row), short=call.short) for row in rows]
    return listing("experiments", items, total, skip, limit)


@router.get("/experiments/{experiment}")
@operation(answers=documents.ExperimentDocument)
def get_experiment(call: Reading, experiment: str) -> Response:
    """Get an experiment by its id or key."""
    with call.parts.database.reading() as tx:
        return shown(call, find(tx, experiment))


@router.put("/experiments/{experiment}")
@router.patch("/experiments/{experiment}")
@operation(takes=ExperimentEdit, answers=documents.ExperimentDocument)
def edit_experiment(call: Editing, experiment: str, body: Document) -> Response:
    """Change what is given; with If-Match only if nobody else did first."""
    given = parse(ExperimentEdit, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        experiments.edit(tx, row, given, expected=call.expected)
    return shown(call, row)


@router.delete("/experiments/{experiment}")
@operation(answers=Removed)
async def delete_experiment(
    call: Editing,
    experiment: str,
    purge: Annotated[bool, Query(description="Remove assignments and events, too, for good.")] = False,
) -> Response:
    """Delete a draft, archive a started experiment, or purge either."""
    if purge:
        # The experiment itself goes last, so that a purge that failed half-way can be repeated.
        experiment_id = await run_in_threadpool(_retire, call, experiment)
        await call.parts.flush()
        await run_in_threadpool(_purge, call, experiment_id)
        return answer(await run_in_threadpool(_delete, call, str(experiment_id), purge=True))
    return answer(await run_in_threadpool(_delete, call, experiment, purge=False))


def _step(action: str, step: Callable[[WriteTx, Experiment], None], summary: str) -> None:
    """One route of the life of an experiment that takes nothing but the experiment."""

    def handler(call: Editing, experiment: str, body: OptionalDocument) -> Response:
        parse(Nothing, body)
        return _changed(call, experiment, step)

    handler.__doc__ = summary
    handler.__name__ = f"{action}_experiment"
    operation(takes=Nothing, answers=documents.ExperimentDocument, body_required=False)(handler)
    router.post(f"/experiments/{{experiment}}/{action}")(handler)


@router.post("/experiments/{experiment}/start")
@operation(takes=Nothing, answers=Started, body_required=False)
def start_experiment(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """Start a draft: its plan is frozen; `warnings` says what of the checklist is worth a look."""
    parse(Nothing, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        lifecycle.start(tx, row)
    shown_as = spellings.experiment(documents.experiment(row), short=call.short)
    return answer(
        {**shown_as, "warnings": launch.warnings(call.parts.database, call.parts.store, row.id, call.now)},
        version=row.version,
    )


_step("pause", lifecycle.pause, "Let nobody new in.")
_step("resume", lifecycle.resume, "Let units in again.")
_step("archive", lifecycle.archive, "Put a stopped experiment away.")


@router.post("/experiments/{experiment}/stop")
@operation(takes=StopInput, answers=documents.ExperimentDocument, body_required=False)
def stop_experiment(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """End an experiment; with a winner, everybody gets it from now on."""
    given = parse(StopInput, body)
    return _changed(
        call, experiment, lambda tx, row: lifecycle.stop(tx, row, winner=given.winner, reason=given.reason)
    )


@router.post("/experiments/{experiment}/ramp/halt")
@operation(takes=RampHaltInput, answers=documents.ExperimentDocument, body_required=False)
def halt_ramp(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """Open no more steps of a ramp until it is resumed."""
    reason = parse(RampHaltInput, body).reason or f"Halted by {call.actor.name}."
    return _changed(call, experiment, lambda tx, row: ramps.halt(tx, row, reason))


@router.post("/experiments/{experiment}/ramp/resume")
@operation(takes=RampResumeInput, answers=documents.ExperimentDocument, body_required=False)
def resume_ramp(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """Go on with a halted ramp: the step that did not open is due now."""
    given = parse(RampResumeInput, body)
    return _changed(
        call, experiment, lambda tx, row: ramps.resume(tx, row, ignore_health=given.ignore_health)
    )


@router.get("/experiments/{experiment}/history")
@operation(answers=AuditPage)
def experiment_history(call: Reading, experiment: str, skip: Skip = 0, limit: Limit = 100) -> Response:
    """Who changed what, from what to what, the newest first."""
    with call.parts.database.reading() as tx:
        row = find(tx, experiment)
        entries, total = audit.page(tx, experiment_id=row.id, skip=skip, limit=limit)
    return listing("entries", [documents.audit_entry(each) for each in entries], total, skip, limit)


@router.get("/experiments/{experiment}/phases")
@operation(answers=PhaseList)
def experiment_phases(call: Reading, experiment: str) -> Response:
    """The stretches of unchanged allocation, first to last."""
    with call.parts.database.reading() as tx:
        rows = phases.listed(tx, find(tx, experiment).id)
    return answer({"phases": [documents.phase(row) for row in rows]})


def _changed(call: Call, experiment: str, step: Callable[[WriteTx, Experiment], None]) -> Response:
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        step(tx, row)
    return shown(call, row)


def _retire(call: Call, experiment: str) -> int:
    """Let nobody in any more, whatever follows; the id."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        prerequisites.expect_unneeded(tx, row)
        lifecycle.put_away(tx, row)
        return row.id


def _delete(call: Call, experiment: str, *, purge: bool) -> Removed:
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        if not purge:  # else it has just been retired
            expect_version(row.version, call.expected)
        removed: Removed = {"id": row.id, "key": row.key, "result": ""}
        removed["result"] = experiments.remove(tx, row, purge=purge)
    return removed


def _purge(call: Call, experiment_id: int) -> None:
    """Nobody is assigned any more; what was is removed here, wherever the drain had taken it."""
    with call.parts.paused():
        call.parts.assignments.purge(experiment_id)
        call.parts.store.purge(experiment_id)
