"""Routes of an experiment's variants, segments, overrides and assignments."""

from typing import Annotated, Any, TypedDict

from fastapi import APIRouter, Query, Response

from assay.api import spellings
from assay.api.bodies import Document
from assay.api.calls import Call, Editing, Limit, Reading, Skip, answer, listing, nothing
from assay.api.operations import operation
from assay.api.parts import moment
from assay.catalog import documents, experiments, overrides, segments, variants
from assay.catalog.checks import Input, OuterId, parse
from assay.catalog.editing import expect_version, find, find_variant
from assay.catalog.inputs import VariantInput
from assay.catalog.tables import Variant
from assay.errors import Invalid

router = APIRouter(tags=["experiments"])


class VariantList(TypedDict):
    """The variants of an experiment."""

    variants: list[documents.VariantDocument]


class OverridePage(TypedDict):
    """A stretch of the list of overrides."""

    overrides: list[documents.OverrideDocument]
    total: int
    skip: int
    limit: int


class AssignmentDocument(TypedDict):
    """Which variant a unit has on record."""

    experiment_id: int
    experiment_key: str
    user_id: str
    variant_id: int
    variant: str | None
    variant_key: str | None
    phase: int
    assigned_at: str


class AssignmentPage(TypedDict):
    """A stretch of the assignments, in the order in which they were made."""

    assignments: list[AssignmentDocument]
    next_cursor: str | None


@router.get("/experiments/{experiment}/variants")
@operation(answers=VariantList)
def list_variants(call: Reading, experiment: str) -> Response:
    """List an experiment's variants."""
    with call.parts.database.reading() as tx:
        row = find(tx, experiment)
    return answer({"variants": [_document(call, each) for each in row.variants if not each.removed]})


@router.post("/experiments/{experiment}/variants", status_code=201)
@operation(takes=VariantInput, answers=documents.VariantDocument)
def add_variant(call: Editing, experiment: str, body: Document) -> Response:
    """Add a variant; its share must be free."""
    given = parse(VariantInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        variant = variants.add(tx, row, given)
    return answer(_document(call, variant), 201, version=row.version)


@router.get("/experiments/{experiment}/variants/{variant}")
@operation(answers=documents.VariantDocument)
def get_variant(call: Reading, experiment: str, variant: str) -> Response:
    """Get a variant by its id, key or name."""
    with call.parts.database.reading() as tx:
        row = find(tx, experiment)
    return answer(_document(call, find_variant(row, variant)), version=row.version)


@router.put("/experiments/{experiment}/variants/{variant}")
@router.patch("/experiments/{experiment}/variants/{variant}")
@operation(takes=VariantInput, answers=documents.VariantDocument)
def edit_variant(call: Editing, experiment: str, variant: str, body: Document) -> Response:
    """Change a variant; only what is given changes."""
    given = parse(VariantInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        arm = find_variant(row, variant)
        variants.edit(tx, row, arm, given)
    return answer(_document(call, arm), version=row.version)


@router.delete("/experiments/{experiment}/variants/{variant}", status_code=204)
@operation()
def remove_variant(call: Editing, experiment: str, variant: str) -> Response:
    """Take a variant out; its share becomes free."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        variants.remove(tx, row, find_variant(row, variant))
    return nothing()


@router.put("/experiments/{experiment}/segments/{segment}")
@operation(answers=documents.ExperimentDocument)
def attach_segment(call: Editing, experiment: str, segment: str) -> Response:
    """Attach a segment: its users become eligible."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        experiments.attach(tx, row, segments.find(tx, segment))
    return answer(spellings.experiment(documents.experiment(row), short=call.short), version=row.version)


@router.delete("/experiments/{experiment}/segments/{segment}")
@operation(answers=documents.ExperimentDocument)
def detach_segment(call: Editing, experiment: str, segment: str) -> Response:
    """Take a segment off."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = find(tx, experiment)
        expect_version(row.version, call.expected)
        experiments.detach(tx, row, segments.find(tx, segment))
    return answer(spellings.experiment(documents.experiment(row), short=call.short), version=row.version)


@router.get("/experiments/{experiment}/overrides")
@operation(answers=OverridePage)
def list_overrides(call: Reading, experiment: str, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List the forced variants."""
    with call.parts.database.reading() as tx:
        found = find(tx, experiment)
        rows, total = overrides.listed(tx, found, skip=skip, limit=limit)
    return listing(
        "overrides", [documents.override(row, arm, found.unit) for row, arm in rows], total, skip, limit
    )


class _Unit(Input):
    unit_id: OuterId


@router.put("/experiments/{experiment}/overrides/{unit_id:path}")
@operation(takes=overrides.OverrideInput, answers=documents.OverrideDocument)
def put_override(call: Editing, experiment: str, unit_id: str, body: Document) -> Response:
    """Serve one unit (by default a user) a variant, whatever the rules say; results leave it out."""
    parse(_Unit, {"unit_id": unit_id})
    given = parse(overrides.OverrideInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        found = find(tx, experiment)
        row, arm = overrides.put(tx, found, unit_id, given)
    return answer(documents.override(row, arm, found.unit))


@router.delete("/experiments/{experiment}/overrides/{unit_id:path}", status_code=204)
@operation()
def remove_override(call: Editing, experiment: str, unit_id: str) -> Response:
    """Let the rules decide again."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        overrides.remove(tx, find(tx, experiment), unit_id)
    return nothing()


@router.get("/experiments/{experiment}/assignments")
@operation(answers=AssignmentPage)
def list_assignments(
    call: Reading,
    experiment: str,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    limit: Limit = 100,
) -> Response:
    """List who is in the experiment, in the order in which they came."""
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise Invalid.field("cursor", f"must be the next_cursor of an earlier answer; got {cursor[:40]!r}")
    with call.parts.database.reading() as tx:
        row = find(tx, experiment)
    arms = {each.id: each for each in row.variants}
    found = call.parts.assignments.page(row.id, int(cursor or 0), limit)
    items = []
    for _, record in found:
        arm = arms.get(record.variant_id)
        items.append(
            {
                "experiment_id": row.id,
                "experiment_key": row.key,
                "user_id": record.unit_id,
                "variant_id": record.variant_id,
                "variant": arm.name if arm else None,
                "variant_key": arm.key if arm else None,
                "phase": record.phase,
                "assigned_at": documents.iso(moment(record.assigned_at)),
            }
        )
    following = str(found[-1][0]) if len(found) == limit else None
    return answer({"assignments": items, "next_cursor": following})


def _document(call: Call, row: Variant) -> Any:
    return spellings.variant(documents.variant(row), short=call.short)
