"""Routes of past reports, and of looks at sequential experiments."""

from typing import Any, TypedDict

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from assay.api.bodies import OptionalDocument
from assay.api.calls import Call, Editing, Limit, Reading, Skip, answer, listing
from assay.api.experiments import Nothing
from assay.api.operations import operation
from assay.catalog import looks as kept_looks
from assay.catalog import snapshots
from assay.catalog.checks import parse
from assay.catalog.documents import iso_or_none
from assay.catalog.editing import find
from assay.reports import history
from assay.reports.judging import next_look
from assay.reports.question import Question

router = APIRouter(tags=["results"])


class SnapshotPage(TypedDict):
    """A stretch of the list of past reports."""

    snapshots: list[snapshots.SnapshotDocument]
    total: int
    skip: int
    limit: int


class NextLook(TypedDict):
    """The look to come: at a time, or at so many units; neither where looks are made daily."""

    number: int
    at: str | None
    units: int | None


class LookList(TypedDict):
    """The looks of an experiment, and the one to come, if there is one."""

    method: str
    looks: list[kept_looks.LookDocument]
    next: NextLook | None


@router.post("/experiments/{experiment}/report/refresh")
@operation(takes=Nothing, answers=dict[str, Any], body_required=False)
async def refresh_report(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """Compute the complete report anew and keep it in the history."""
    parse(Nothing, body)
    return await run_in_threadpool(_refreshed, call, experiment)


@router.get("/experiments/{experiment}/report/history")
@operation(answers=SnapshotPage)
def list_snapshots(call: Reading, experiment: str, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List past reports, the newest first: when, on what, and what they said."""
    with call.parts.database.reading() as tx:
        rows, total = snapshots.page(tx, find(tx, experiment).id, skip=skip, limit=limit)
        items = [snapshots.document(row) for row in rows]
    return listing("snapshots", items, total, skip, limit)


@router.get("/experiments/{experiment}/report/history/{snapshot}")
@operation(answers=dict[str, Any])
def get_snapshot(call: Reading, experiment: str, snapshot: int) -> Response:
    """Get a past report as it was answered then, letter for letter."""
    with call.parts.database.reading() as tx:
        row = snapshots.find(tx, find(tx, experiment).id, snapshot)
        return Response(row.document, media_type="application/json")


@router.post("/experiments/{experiment}/looks", status_code=201)
@operation(takes=Nothing, answers=kept_looks.LookDocument, body_required=False)
async def make_look(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """Look now, in place of the next planned look; 200 and the last one, if nothing new has come since.

    Verdicts of the methods group_sequential and always_valid change at looks alone.
    """
    parse(Nothing, body)
    return await run_in_threadpool(_looked, call, experiment)


@router.get("/experiments/{experiment}/looks")
@operation(answers=LookList)
def list_looks(call: Reading, experiment: str) -> Response:
    """List the looks made so far, first to last, each with what it said, and when the next is due."""
    spec = call.parts.snapshots.spec(experiment)
    with call.parts.database.reading() as tx:
        rows = kept_looks.listed(tx, spec.id)
    coming = next_look(spec)
    return answer(
        {
            "method": spec.analysis.method,
            "looks": [kept_looks.document(row) for row in rows],
            "next": None
            if coming is None
            else {"number": coming.number, "at": iso_or_none(coming.at), "units": coming.units},
        }
    )


def _refreshed(call: Call, experiment: str) -> Response:
    parts = call.parts
    snapshot = parts.snapshots.anew(experiment, Question(), call.now)
    history.keep(parts.database, snapshot, "refresh", call.now, parts.history_days)
    return Response(snapshot.document, headers={"Age": "0"}, media_type="application/json")


def _looked(call: Call, experiment: str) -> Response:
    parts = call.parts
    made = history.look(parts.snapshots, parts.database, experiment, call.actor, call.now, parts.history_days)
    return answer(kept_looks.document(made.look), 201 if made.new else 200)
