"""Routes of segments."""

import time
from dataclasses import replace
from typing import Annotated, TypedDict

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from assay.api.bodies import Document, OptionalDocument
from assay.api.calls import Call, Editing, Limit, Reading, Skip, answer, listing, nothing
from assay.api.operations import operation
from assay.api.parts import moment
from assay.catalog import documents, experiments, segments
from assay.catalog.checks import Input, OuterId, parse, shown
from assay.catalog.editing import expect_version, find
from assay.catalog.memberlists import MemberReader
from assay.catalog.preview import Preview, PreviewInput, audience, preview
from assay.catalog.uploads import CHUNK, Upload
from assay.durable.priority import give_way
from assay.errors import UnsupportedType

router = APIRouter(tags=["segments"])


class SegmentPage(TypedDict):
    """A stretch of the list of segments."""

    segments: list[documents.SegmentDocument]
    total: int
    skip: int
    limit: int


class MemberPage(TypedDict):
    """A stretch of a segment's list of users."""

    user_ids: list[str]
    total: int
    skip: int
    limit: int


class Membership(TypedDict):
    """A user on a segment's list; `added` is false for one who was there already."""

    segment_id: int
    user_id: str
    added: bool


class Added(TypedDict):
    """What became of a list of users."""

    segment_id: int
    added: int
    member_count: int


class Attachment(TypedDict):
    """A segment and the experiment it is, or is no longer, attached to."""

    experiment_id: int
    segment_id: int
    attached: bool


#: What the API page says of a list's body, which is read as it arrives.
_MEMBERS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "text/plain": {"schema": {"type": "string", "description": "One id to a line."}},
            "text/csv": {
                "schema": {
                    "type": "string",
                    "description": "Ids in the column user_id or id, else the first.",
                }
            },
            "application/x-ndjson": {
                "schema": {"type": "string", "description": 'Each line an id in quotes or {"user_id": …}.'}
            },
        },
    }
}


class _Member(Input):
    user_id: OuterId


@router.post("/segments", status_code=201)
@operation(takes=segments.SegmentInput, answers=documents.SegmentDocument)
def create_segment(call: Editing, body: Document) -> Response:
    """Create a segment, by rule or for a list of users."""
    given = parse(segments.SegmentInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = segments.create(tx, given)
        document = segments.document(tx, row)
    return answer(document, 201, version=row.version)


@router.get("/segments")
@operation(answers=SegmentPage)
def list_segments(
    call: Reading,
    q: Annotated[str | None, Query(max_length=200, description="Text in the name.")] = None,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Response:
    """List segments, the newest first."""
    with call.parts.database.reading() as tx:
        rows, total = segments.page(tx, q=q, skip=skip, limit=limit)
        attached = segments.attached_to(tx, rows)
    items = [documents.segment(row, attached[row.id]) for row in rows]
    return listing("segments", items, total, skip, limit)


@router.post("/segments/preview")
@operation(takes=PreviewInput, answers=Preview)
def preview_segment(call: Reading, body: Document) -> Response:
    """Count the known users that a rule or segments match, as they are now."""
    given = parse(PreviewInput, body)
    give_way()
    with call.parts.database.reading() as tx:
        return answer(dict(preview(tx, given, time.monotonic)))


@router.get("/experiments/{experiment}/audience")
@operation(answers=Preview)
def preview_experiment(
    call: Reading,
    experiment: str,
    sample: Annotated[int, Query(ge=0, le=100, description="How many users to show.")] = 10,
) -> Response:
    """Count the known users that an experiment's condition and segments let in."""
    give_way()
    with call.parts.database.reading() as tx:
        return answer(dict(audience(tx, find(tx, experiment), sample, time.monotonic)))


@router.post("/segments/assign-user")
@operation(takes=segments.MemberInput, answers=Membership)
def assign_user(call: Editing, body: Document) -> Response:
    """Put a user on a segment's list."""
    given = parse(segments.MemberInput, body)
    return _add(call, given.segment_id, given.user_id)


@router.post("/segments/assign-experiment")
@operation(takes=segments.AttachmentInput, answers=Attachment)
def assign_experiment(call: Editing, body: Document) -> Response:
    """Attach a segment to an experiment."""
    given = parse(segments.AttachmentInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        experiment = find(tx, given.experiment_id)
        segment = segments.find(tx, given.segment_id)
        experiments.attach(tx, experiment, segment)
    return answer({"experiment_id": experiment.id, "segment_id": segment.id, "attached": True})


@router.delete("/segments/unassign-experiment")
@operation(takes=segments.AttachmentInput, answers=Attachment, body_required=False)
def unassign_experiment(
    call: Editing,
    body: OptionalDocument,
    experiment_id: Annotated[str | None, Query(description="For clients that send no body.")] = None,
    segment_id: Annotated[str | None, Query(description="For clients that send no body.")] = None,
) -> Response:
    """Take a segment off an experiment."""
    if not body:
        named = {"experiment_id": experiment_id, "segment_id": segment_id}
        body = {name: value for name, value in named.items() if value is not None}
    given = parse(segments.AttachmentInput, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        experiment = find(tx, given.experiment_id)
        segment = segments.find(tx, given.segment_id)
        experiments.detach(tx, experiment, segment)
    return answer({"experiment_id": experiment.id, "segment_id": segment.id, "attached": False})


@router.get("/segments/{segment}")
@operation(answers=documents.SegmentDocument)
def get_segment(call: Reading, segment: str) -> Response:
    """Get a segment."""
    with call.parts.database.reading() as tx:
        row = segments.find(tx, segment)
        return answer(segments.document(tx, row), version=row.version)


@router.put("/segments/{segment}")
@router.patch("/segments/{segment}")
@operation(takes=segments.SegmentEdit, answers=documents.SegmentDocument)
def edit_segment(call: Editing, segment: str, body: Document) -> Response:
    """Change what is given; a changed rule begins a new phase in running experiments that use it."""
    given = parse(segments.SegmentEdit, body)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = segments.find(tx, segment)
        segments.edit(tx, row, given, expected=call.expected)
        document = segments.document(tx, row)
    return answer(document, version=row.version)


@router.delete("/segments/{segment}", status_code=204)
@operation()
def delete_segment(call: Editing, segment: str) -> Response:
    """Delete a segment that no experiment needs any more."""
    with call.parts.database.reading() as read:
        known = segments.find(read, segment)
        expect_version(known.version, call.expected)
        segments.expect_free(read, known)
    if known.member_count > CHUNK:  # so many rows are not to go in one step
        _finished(_begun(call, segment, keep=False), call)
        segments.empty(call.parts.database, known.id)
        call = replace(call, expected=None)
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = segments.find(tx, segment)
        expect_version(row.version, call.expected)
        segments.remove(tx, row)
    return nothing()


@router.get("/segments/{segment}/users")
@operation(answers=MemberPage)
def list_members(call: Reading, segment: str, skip: Skip = 0, limit: Limit = 100) -> Response:
    """List the users on a segment's list."""
    with call.parts.database.reading() as tx:
        row = segments.find(tx, segment)
        found = segments.members(tx, row, skip=skip, limit=limit)
    return listing("user_ids", found, row.member_count, skip, limit)


@router.post("/segments/{segment}/users")
@operation(takes=segments.MembersInput, answers=Added)
def add_members(call: Editing, segment: str, body: Document) -> Response:
    """Put many users on a segment's list, or make them the whole list."""
    given = parse(segments.MembersInput, body)
    if len(given.user_ids) > CHUNK:
        upload = _begun(call, segment, keep=not given.replace)
        try:
            upload.add(given.user_ids, call.now)
            return _finished(upload, call)
        except BaseException:
            upload.discard()
            raise
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = segments.find(tx, segment)
        added = segments.add_members(tx, row, given.user_ids, replace=given.replace)
    return answer({"segment_id": row.id, "added": added, "member_count": row.member_count})


@router.post("/segments/{segment}/members", openapi_extra=_MEMBERS_BODY)
@operation(answers=Added)
async def upload_more_members(call: Editing, segment: str, request: Request) -> Response:
    """Put a long list of users on a segment's list; the whole of it counts, or nothing."""
    return await _uploaded(call, segment, request, keep=True)


@router.put("/segments/{segment}/members", openapi_extra=_MEMBERS_BODY)
@operation(answers=Added)
async def upload_members(call: Editing, segment: str, request: Request) -> Response:
    """Make a long list of users the segment's list; the whole of it counts, or nothing."""
    return await _uploaded(call, segment, request, keep=False)


@router.delete("/segments/{segment}/members", status_code=204)
@operation()
def delete_members(call: Editing, segment: str) -> Response:
    """Take everybody off a segment's list."""
    _finished(_begun(call, segment, keep=False), call)
    return nothing()


@router.put("/segments/{segment}/users/{user_id:path}")
@operation(answers=Membership)
def put_member(call: Editing, segment: str, user_id: str) -> Response:
    """Put a user on a segment's list."""
    return _add(call, segment, parse(_Member, {"user_id": user_id}).user_id)


@router.delete("/segments/{segment}/users/{user_id:path}", status_code=204)
@operation()
def remove_member(call: Editing, segment: str, user_id: str) -> Response:
    """Take a user off a segment's list."""
    with call.parts.database.writing(call.actor, call.now) as tx:
        segments.remove_member(tx, segments.find(tx, segment), user_id)
    return nothing()


def _begun(call: Call, segment: str, *, keep: bool) -> Upload:
    return Upload(call.parts.database, segment, call.actor, call.now, keep=keep)


def _finished(upload: Upload, call: Call) -> Response:
    added, count = upload.finish(moment(call.parts.clock()))
    return answer({"segment_id": upload.segment_id, "added": added, "member_count": count})


async def _uploaded(call: Call, segment: str, request: Request, *, keep: bool) -> Response:
    """Store a body as it arrives: no more of it is in memory than a step's worth."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedType(
            f"Content-Encoding {shown(encoding)} is not understood here; send the list as it is."
        )
    reader = MemberReader(request.headers.get("content-type", ""))
    upload = await run_in_threadpool(_begun, call, segment, keep=keep)
    try:
        waiting: list[str] = []
        async for piece in request.stream():
            waiting += reader.feed(piece)
            if len(waiting) >= CHUNK:
                await run_in_threadpool(upload.add, waiting, moment(call.parts.clock()))
                waiting = []
        waiting += reader.end()
        await run_in_threadpool(upload.add, waiting, moment(call.parts.clock()))
        return await run_in_threadpool(_finished, upload, call)
    except BaseException:
        await run_in_threadpool(upload.discard)
        raise


def _add(call: Call, segment: int | str, user_id: str) -> Response:
    with call.parts.database.writing(call.actor, call.now) as tx:
        row = segments.find(tx, segment)
        added = segments.add_members(tx, row, [user_id])
    return answer({"segment_id": row.id, "user_id": user_id, "added": added > 0})
