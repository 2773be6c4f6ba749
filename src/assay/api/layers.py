"""Routes of layers."""

from typing import Annotated, TypedDict

from fastapi import APIRouter, Query, Response

from assay.api.bodies import Document
from assay.api.calls import Editing, Limit, Reading, Skip, answer, listing, nothing
from assay.api.operations import operation
from assay.catalog import layers
from assay.catalog.checks import parse
from assay.catalog.editing import expect_version

router = APIRouter(tags=["layers"])

_EXAMPLE = {"one page": {"key": "checkout", "name": "Checkout page", "wash_out": "7d"}}


class LayerPage(TypedDict):
    """A stretch of the list of layers."""

    layers: list[layers.LayerDocument]
    total: int
    skip: int
    limit: int


@router.post("/layers", status_code=201)
@operation(takes=layers.LayerInput, answers=layers.LayerDocument, examples=_EXAMPLE)
def create_layer(call: Editing, body: Document) -> Response:
    """Create a layer: a unit is in one of its experiments at most."""
    given = parse(layers.LayerInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = layers.create(tx, given)
        (document,) = layers.listed(tx, [row], call.now)
    return answer(document, 201, version=row.version)


@router.get("/layers")
@operation(answers=LayerPage)
def list_layers(
    call: Reading,
    q: Annotated[str | None, Query(max_length=200, description="Text in name or key.")] = None,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Response:
    """List layers, the newest first, with who holds which slots."""
    with call.parts.database.reading() as tx:
        rows, total = layers.page(tx, q=q, skip=skip, limit=limit)
        items = layers.listed(tx, rows, call.now)
    return listing("layers", items, total, skip, limit)


@router.get("/layers/{layer}")
@operation(answers=layers.LayerDocument)
def get_layer(call: Reading, layer: str) -> Response:
    """Get a layer by its id or key."""
    with call.parts.database.reading() as tx:
        row = layers.find(tx, layer)
        (document,) = layers.listed(tx, [row], call.now)
    return answer(document, version=row.version)


@router.put("/layers/{layer}")
@router.patch("/layers/{layer}")
@operation(takes=layers.LayerEdit, answers=layers.LayerDocument)
def edit_layer(call: Editing, layer: str, body: Document) -> Response:
    """Change what is given; with If-Match only if nobody else did first."""
    given = parse(layers.LayerEdit, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = layers.find(tx, layer)
        layers.edit(tx, row, given, expected=call.expected)
        (document,) = layers.listed(tx, [row], call.now)
    return answer(document, version=row.version)


@router.delete("/layers/{layer}", status_code=204)
@operation()
def delete_layer(call: Editing, layer: str) -> Response:
    """Delete a layer that no experiment needs any more and whose slots have rested."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = layers.find(tx, layer)
        expect_version(row.version, call.expected)
        layers.remove(tx, row)
    return nothing()
