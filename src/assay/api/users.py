"""Routes of users."""

from typing import Annotated, Any, TypedDict

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from assay.api.bodies import Document
from assay.api.calls import Administering, Call, Limit, Reading, Skip, answer, listing, nothing
from assay.api.operations import operation
from assay.catalog import documents, users
from assay.catalog.checks import Input, OuterId, parse

router = APIRouter(tags=["users"])


class UserDocument(TypedDict):
    """A user; every other field is an attribute."""

    id: str
    created_at: str


class UserPage(TypedDict):
    """A stretch of the list of users."""

    users: list[UserDocument]
    total: int
    skip: int
    limit: int


class Erasure(TypedDict):
    """How many rows of each kind were removed."""

    user_id: str
    removed: dict[str, int]


class _Named(Input):
    user_id: OuterId


@router.post("/users", status_code=201)
@operation(takes=users.UserInput, answers=UserDocument)
def create_user(call: Administering, body: Document) -> Response:
    """Describe a user; the same description again changes nothing."""
    given = users.parse_user(body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row, new = users.create(tx, given)
    return answer(documents.user(row), 201 if new else 200)


@router.get("/users")
@operation(answers=UserPage)
def list_users(call: Reading, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List the users that were described, the newest first."""
    with call.parts.database.reading() as tx:
        rows, total = users.page(tx, skip=skip, limit=limit)
    return listing("users", [documents.user(row) for row in rows], total, skip, limit)


@router.get("/users/{user_id:path}")
@operation(answers=UserDocument)
def get_user(call: Reading, user_id: str) -> Response:
    """Get a user's document."""
    with call.parts.database.reading() as tx:
        return answer(documents.user(users.find(tx, user_id)))


@router.put("/users/{user_id:path}")
@operation(takes=users.UserInput, answers=UserDocument)
def put_user(call: Administering, user_id: str, body: Document) -> Response:
    """Make this the user's document."""
    parse(_Named, {"user_id": user_id})
    given = users.parse_user(body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row, new = users.put(tx, user_id, given)
    return answer(documents.user(row), 201 if new else 200)


@router.delete("/users/{user_id:path}")
@operation(answers=Erasure)
async def delete_user(
    call: Administering,
    user_id: str,
    erase: Annotated[bool, Query(description="Remove everything about the user, in every store.")] = False,
) -> Response:
    """Forget a user's attributes, or with `erase` every identifiable row."""
    if not erase:
        await run_in_threadpool(_forget, call, user_id)
        return nothing()
    removed = await run_in_threadpool(_erase_described, call, user_id)
    await call.parts.flush()
    removed |= await run_in_threadpool(_erase_recorded, call, user_id)
    return answer({"user_id": user_id, "removed": removed})


def _forget(call: Call, user_id: str) -> None:
    with call.parts.database.writing(call.actor, call.now) as tx:
        users.remove(tx, user_id)


def _erase_described(call: Call, user_id: str) -> dict[str, int]:
    with call.parts.database.writing(call.actor, call.now) as tx:
        return users.erase(tx, user_id)


def _erase_recorded(call: Call, user_id: str) -> dict[str, Any]:
    with call.parts.paused():
        assignments = call.parts.assignments.erase(user_id)
        stored = call.parts.store.erase(user_id)
    call.parts.forget(user_id)
    return {"assignments": assignments, "events": stored.events, "ledger_samples": stored.ledger}
