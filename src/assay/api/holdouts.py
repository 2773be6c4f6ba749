"""Routes of holdouts; as experiments they have all other routes, too."""

from typing import TypedDict

from fastapi import APIRouter, Response

from assay.api.bodies import Document
from assay.api.calls import Editing, Limit, Reading, Skip, answer, listing
from assay.api.operations import operation
from assay.catalog import holdouts
from assay.catalog.checks import parse

router = APIRouter(tags=["holdouts"])

_EXAMPLE = {
    "everything new, for half a year": {
        "key": "2027-first-half",
        "name": "First half of 2027",
        "share": 0.05,
        "metrics": ["purchase"],
        "status": "running",
    }
}


class HoldoutPage(TypedDict):
    """A stretch of the list of holdouts."""

    holdouts: list[holdouts.HoldoutDocument]
    total: int
    skip: int
    limit: int


@router.post("/holdouts", status_code=201)
@operation(takes=holdouts.HoldoutInput, answers=holdouts.HoldoutDocument, examples=_EXAMPLE)
def create_holdout(call: Editing, body: Document) -> Response:
    """Create a holdout: an experiment whose `held_out` units enter no experiment that it covers."""
    given = parse(holdouts.HoldoutInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = holdouts.create(tx, given)
        (document,) = holdouts.listed(tx, [row])
    return answer(document, 201, version=row.version)


@router.get("/holdouts")
@operation(answers=HoldoutPage)
def list_holdouts(call: Reading, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List holdouts, the newest first, with the experiments that they cover."""
    with call.parts.database.reading() as tx:
        rows, total = holdouts.page(tx, skip=skip, limit=limit)
        items = holdouts.listed(tx, rows)
    return listing("holdouts", items, total, skip, limit)


@router.get("/holdouts/{holdout}")
@operation(answers=holdouts.HoldoutDocument)
def get_holdout(call: Reading, holdout: str) -> Response:
    """Get a holdout by its id or key."""
    with call.parts.database.reading() as tx:
        row = holdouts.find_holdout(tx, holdout)
        (document,) = holdouts.listed(tx, [row])
    return answer(document, version=row.version)


@router.put("/holdouts/{holdout}")
@router.patch("/holdouts/{holdout}")
@operation(takes=holdouts.HoldoutEdit, answers=holdouts.HoldoutDocument)
def edit_holdout(call: Editing, holdout: str, body: Document) -> Response:
    """Change what is given; `status` starts it or, with `stopped`, lets its units in."""
    given = parse(holdouts.HoldoutEdit, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = holdouts.find_holdout(tx, holdout)
        holdouts.edit(tx, row, given, expected=call.expected)
        (document,) = holdouts.listed(tx, [row])
    return answer(document, version=row.version)
