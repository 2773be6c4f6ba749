"""Routes of what comes before an experiment runs: its plan, the checklist, duplicates and templates."""

from typing import TypedDict

from fastapi import APIRouter, Response

from assay.api.bodies import Document, OptionalDocument
from assay.api.calls import Editing, Limit, Reading, Skip, answer, listing, nothing
from assay.api.experiments import shown
from assay.api.operations import operation
from assay.catalog import checklist, documents, preregistration, templates
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.reports import launch

router = APIRouter()


class Checklist(TypedDict):
    """What is worth a look before the start; `ready` says that nothing is."""

    experiment_id: int
    experiment_key: str
    ready: bool
    items: list[checklist.Item]


class TemplatePage(TypedDict):
    """A stretch of the list of templates."""

    templates: list[documents.TemplateDocument]
    total: int
    skip: int
    limit: int


@router.get("/experiments/{experiment}/preregistration", tags=["experiments"])
@operation(answers=preregistration.PreregistrationDocument)
def get_preregistration(call: Reading, experiment: str) -> Response:
    """The plan as it was frozen at the start, its hash, and everything that was done otherwise since."""
    with call.parts.database.reading() as tx:
        return answer(preregistration.document(tx, find(tx, experiment)))


@router.get("/experiments/{experiment}/checklist", tags=["experiments"])
@operation(answers=Checklist)
def get_checklist(call: Reading, experiment: str) -> Response:
    """What is worth a look before the start: plan, power, events, targeting, layer, the first share."""
    with call.parts.database.reading() as tx:
        row = find(tx, experiment)
    items = launch.examined(call.parts.database, call.parts.store, row.id, call.now)
    return answer(
        {
            "experiment_id": row.id,
            "experiment_key": row.key,
            "ready": not checklist.warnings(items),
            "items": items,
        }
    )


@router.post("/experiments/{experiment}/duplicate", status_code=201, tags=["experiments"])
@operation(
    takes=templates.DuplicateInput,
    answers=documents.ExperimentDocument,
    body_required=False,
    examples={"another name": {"name": "Checkout button, second try"}},
)
def duplicate_experiment(call: Editing, experiment: str, body: OptionalDocument) -> Response:
    """A draft with everything the experiment has but its history, schedule and forced variants."""
    given = parse(templates.DuplicateInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = templates.duplicate(tx, find(tx, experiment), given)
    return shown(call, row, 201)


@router.post("/templates", status_code=201, tags=["templates"])
@operation(
    takes=templates.TemplateInput,
    answers=documents.TemplateDocument,
    examples={
        "from an experiment": {"experiment": "checkout-button", "key": "checkout"},
        "from a body": {
            "name": "Checkout",
            "body": {"metrics": [{"definition": "revenue-14d"}], "traffic_allocation": 0.2, "power": 0.9},
        },
    },
)
def create_template(call: Editing, body: Document) -> Response:
    """Keep what experiments of a kind begin with."""
    given = parse(templates.TemplateInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = templates.create(tx, given)
    return answer(documents.template(row), 201)


@router.get("/templates", tags=["templates"])
@operation(answers=TemplatePage)
def list_templates(call: Reading, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List templates by key."""
    with call.parts.database.reading() as tx:
        rows, total = templates.page(tx, skip=skip, limit=limit)
    return listing("templates", [documents.template(row) for row in rows], total, skip, limit)


@router.get("/templates/{template}", tags=["templates"])
@operation(answers=documents.TemplateDocument)
def get_template(call: Reading, template: str) -> Response:
    """Get a template by its id or key."""
    with call.parts.database.reading() as tx:
        return answer(documents.template(templates.find_template(tx, template)))


@router.delete("/templates/{template}", status_code=204, tags=["templates"])
@operation()
def delete_template(call: Editing, template: str) -> Response:
    """Delete a template; experiments that began with it stay as they are."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        templates.remove(tx, templates.find_template(tx, template))
    return nothing()
