"""Routes of metric definitions."""

from collections.abc import Callable
from typing import Annotated, TypedDict

from fastapi import APIRouter, Query, Response

from assay.api.bodies import Document, OptionalDocument
from assay.api.calls import Call, Editing, Limit, Reading, Skip, answer, listing
from assay.api.operations import operation
from assay.catalog import definitions, documents
from assay.catalog.checks import Input, parse
from assay.catalog.database import WriteTx
from assay.catalog.editing import expect_version
from assay.catalog.measuring import DefinitionEdit, DefinitionInput
from assay.catalog.tables import MetricDefinition

router = APIRouter(tags=["metric definitions"])

_REVENUE = {
    "key": "revenue-14d",
    "name": "Revenue in two weeks",
    "type": "revenue",
    "event_type": "purchase",
    "property": "eur",
    "where": [{"property": "country", "op": "in", "value": ["DE", "AT"]}],
    "window": {"duration": "14d"},
    "lookback": "28d",
    "cap": {"percentile": 99.5},
}
_EXAMPLES = {
    "revenue with a window, a covariate and a cap": _REVENUE,
    "guardrail": {
        "key": "crashes",
        "name": "Crashes",
        "type": "count",
        "event_type": "crash",
        "direction": "decrease",
        "role": "guardrail",
        "margin": {"relative": 0.05},
    },
    "ratio": {
        "name": "Orders per visit",
        "type": "ratio",
        "event_type": "order",
        "denominator": {"event_type": "visit"},
    },
    "quantile": {
        "name": "Slow pages",
        "type": "quantile",
        "event_type": "page",
        "property": "ms",
        "quantile": 0.9,
        "level": "event",
        "direction": "decrease",
    },
    "retention": {
        "name": "Back in the second week",
        "type": "retention",
        "event_type": "visit",
        "from": "7d",
        "to": "14d",
    },
    "funnel": {
        "name": "Checkout",
        "type": "funnel",
        "steps": ["cart", {"event_type": "pay", "where": [{"property": "ok", "value": True}]}],
        "window": {"duration": "24h"},
    },
    "threshold": {"name": "Three visits", "type": "threshold", "event_type": "visit", "at_least": 3},
}


class DefinitionPage(TypedDict):
    """A stretch of the list of metric definitions."""

    metric_definitions: list[documents.DefinitionDocument]
    total: int
    skip: int
    limit: int


class VersionList(TypedDict):
    """The versions of a metric definition, the newest first."""

    versions: list[documents.MetricVersionDocument]


class RemovedDefinition(TypedDict):
    """What became of a metric definition: `deleted`, or `archived` because something refers to it."""

    id: int
    key: str
    result: str


class _Nothing(Input):
    """No field at all."""


@router.post("/metric-definitions", status_code=201)
@operation(takes=DefinitionInput, answers=documents.DefinitionDocument, examples=_EXAMPLES)
def create_definition(call: Editing, body: Document) -> Response:
    """Define a metric for any number of experiments."""
    given = parse(DefinitionInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = definitions.create(tx, given)
        document = definitions.document(tx, row)
    return answer(document, 201, version=row.version)


@router.get("/metric-definitions")
@operation(answers=DefinitionPage)
def list_definitions(
    call: Reading,
    *,
    q: Annotated[str | None, Query(max_length=200, description="Text in key or name.")] = None,
    archived: Annotated[bool, Query(description="Show archived ones, and only those.")] = False,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Response:
    """List metric definitions by key."""
    with call.parts.database.reading() as tx:
        rows, total = definitions.page(tx, q=q, archived=archived, skip=skip, limit=limit)
        held = definitions.users(tx, rows)
    items = [documents.definition(row, held[row.id]) for row in rows]
    return listing("metric_definitions", items, total, skip, limit)


@router.get("/metric-definitions/{metric}")
@operation(answers=documents.DefinitionDocument)
def get_definition(
    call: Reading,
    metric: str,
    version: Annotated[int | None, Query(description="An earlier version, as it was.")] = None,
) -> Response:
    """Get a metric definition by its id or key, as it is or as it was in a version."""
    with call.parts.database.reading() as tx:
        row = definitions.find(tx, metric)
        if version is not None:
            return answer(documents.metric_version(row.key, definitions.version_of(tx, row, version)))
        return answer(definitions.document(tx, row), version=row.version)


@router.get("/metric-definitions/{metric}/versions")
@operation(answers=VersionList)
def list_versions(call: Reading, metric: str) -> Response:
    """All versions of a metric definition, the newest first."""
    with call.parts.database.reading() as tx:
        row = definitions.find(tx, metric)
        found = [documents.metric_version(row.key, each) for each in definitions.versions(tx, row)]
    return answer({"versions": found})


@router.put("/metric-definitions/{metric}")
@router.patch("/metric-definitions/{metric}")
@operation(
    takes=DefinitionEdit,
    answers=documents.DefinitionDocument,
    examples={"another window": {"window": {"duration": "7d"}}, "no cap any more": {"cap": None}},
)
def edit_definition(call: Editing, metric: str, body: Document) -> Response:
    """Change what is given, in a new version; experiments keep the version they have."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = definitions.find(tx, metric)
        definitions.edit(tx, row, body, expected=call.expected)
        document = definitions.document(tx, row)
    return answer(document, version=row.version)


@router.delete("/metric-definitions/{metric}")
@operation(answers=RemovedDefinition)
def delete_definition(call: Editing, metric: str) -> Response:
    """Delete a metric definition, or archive one that is referred to; 409 while an experiment runs on it."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = definitions.find(tx, metric)
        expect_version(row.version, call.expected)
        removed: RemovedDefinition = {"id": row.id, "key": row.key, "result": ""}
        removed["result"] = definitions.remove(tx, row)
    return answer(removed)


@router.post("/metric-definitions/{metric}/archive")
@operation(takes=_Nothing, answers=documents.DefinitionDocument, body_required=False)
def archive_definition(call: Editing, metric: str, body: OptionalDocument) -> Response:
    """Put a metric definition away: experiments that have it keep it, no other may take it."""
    return _moved(call, metric, body, definitions.put_away)


@router.post("/metric-definitions/{metric}/restore")
@operation(takes=_Nothing, answers=documents.DefinitionDocument, body_required=False)
def restore_definition(call: Editing, metric: str, body: OptionalDocument) -> Response:
    """Take an archived metric definition out again."""
    return _moved(call, metric, body, definitions.restore)


def _moved(
    call: Call, metric: str, body: object, step: Callable[[WriteTx, MetricDefinition], None]
) -> Response:
    parse(_Nothing, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = definitions.find(tx, metric)
        expect_version(row.version, call.expected)
        step(tx, row)
        document = definitions.document(tx, row)
    return answer(document, version=row.version)
