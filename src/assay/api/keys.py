"""Routes of API keys and of the audit log."""

from typing import Annotated, TypedDict

from fastapi import APIRouter, Query, Response

from assay.api.bodies import Document
from assay.api.calls import Administering, Limit, Reading, Skip, answer, listing, nothing
from assay.api.experiments import AuditPage
from assay.api.operations import operation
from assay.catalog import audit, documents, keys
from assay.catalog.checks import parse, shown
from assay.catalog.database import RECORDED
from assay.catalog.editing import as_id
from assay.errors import NotFound

router = APIRouter()


class NewKey(documents.KeyDocument):
    """A new key with its secret, which is shown only here."""

    key: str


class KeyPage(TypedDict):
    """A stretch of the list of keys."""

    keys: list[documents.KeyDocument]
    total: int
    skip: int
    limit: int


@router.post("/auth/keys", status_code=201, tags=["keys"])
@operation(takes=keys.KeyInput, answers=NewKey)
def create_key(call: Administering, body: Document) -> Response:
    """Make an API key; its secret is shown once."""
    given = parse(keys.KeyInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row, secret = keys.create(tx, given)
    return answer({**documents.key(row, call.now), "key": secret}, 201)


@router.get("/auth/keys", tags=["keys"])
@operation(answers=KeyPage)
def list_keys(call: Administering, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List API keys, revoked ones too; never their secrets."""
    with call.parts.database.reading() as tx:
        rows, total = keys.page(tx, skip=skip, limit=limit)
    return listing("keys", [documents.key(row, call.now) for row in rows], total, skip, limit)


@router.delete("/auth/keys/{key}", status_code=204, tags=["keys"])
@operation()
def revoke_key(call: Administering, key: str) -> Response:
    """Revoke an API key, at once and for good."""
    number = as_id(key)
    if number is None:
        raise NotFound(f"There is no key {shown(key)}.", code="unknown_key")
    with call.parts.database.writing(call.actor, call.now) as tx:
        keys.revoke(tx, number)
    return nothing()


@router.get("/audit", tags=["audit"])
@operation(answers=AuditPage)
def list_audit(
    call: Reading,
    noun: Annotated[
        str | None, Query(max_length=32, description=f"What was changed: {', '.join(RECORDED)}.")
    ] = None,
    actor: Annotated[str | None, Query(max_length=200)] = None,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Response:
    """Who changed what, from what to what, the newest first."""
    with call.parts.database.reading() as tx:
        entries, total = audit.page(tx, noun=noun, actor=actor, skip=skip, limit=limit)
    return listing("entries", [documents.audit_entry(each) for each in entries], total, skip, limit)
