"""Routes that list events and say what became of them. Recording is not here: see the hot path."""

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, TypedDict

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from assay.api.bodies import OptionalDocument
from assay.api.calls import Call, Limit, Reading, answer
from assay.api.operations import operation
from assay.api.parts import moment
from assay.catalog import overrides
from assay.catalog.checks import Input, Name, OuterId, parse, shown
from assay.catalog.documents import iso
from assay.catalog.editing import find
from assay.catalog.keys import microseconds
from assay.catalog.tables import Experiment
from assay.errors import Invalid, NotFound
from assay.eventstore.base import Cursor, EventFilter, LedgerEntry, LedgerReason, Scope, StoredEvent

router = APIRouter(tags=["events"])

Words = Annotated[list[Name], Field(max_length=1000)]
Kinds = Annotated[list[str] | None, Query(alias="type", description="May be given several times.")]
AlsoKinds = Annotated[list[str] | None, Query(description="The same as `type`.")]
Ids = Annotated[list[OuterId], Field(max_length=10_000)]


class EventQuery(Input):
    """Which events to list; what is left out does not narrow."""

    start_time: Name | None = Field(default=None, description="A date or time, inclusive.")
    end_time: Name | None = Field(default=None, description="A date (to its end) or time, inclusive.")
    variant_id: int | None = None
    event_types: Words = Field(default_factory=list)
    user_ids: Ids = Field(default_factory=list)
    cursor: Name | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class EventDocument(TypedDict):
    """An event as it was sent, with the variant on record and, claimed, the one its sender believed in."""

    event_id: str
    user_id: str
    type: str
    timestamp: str
    received_at: str
    value: float | None
    properties: dict[str, Any]
    units: dict[str, str]
    experiment_id: int | None
    variant_id: int | None
    claimed_variant_id: int | None


class EventPage(TypedDict):
    """A stretch of the events, the newest first."""

    events: list[EventDocument]
    next_cursor: str | None


class TypeLedger(TypedDict):
    """What became of the events of one type."""

    type: str | None
    counts: dict[str, int]
    samples: dict[str, list[Any]]


class Ledger(TypedDict):
    """What became of the events that concern an experiment."""

    experiment_id: int
    totals: dict[str, int]
    types: list[TypeLedger]


@router.get("/events")
@operation(answers=EventPage)
async def list_events(
    call: Reading,
    *,
    experiment_id: Annotated[str | None, Query(description="Id or key.")] = None,
    variant_id: int | None = None,
    kind: Kinds = None,
    event_type: AlsoKinds = None,
    event_types: AlsoKinds = None,
    user_id: Annotated[list[str] | None, Query()] = None,
    start_time: Annotated[str | None, Query(description="A date or time, inclusive.")] = None,
    end_time: Annotated[str | None, Query(description="A date or time, inclusive.")] = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> Response:
    """List events, the newest first."""
    written = {
        "start_time": start_time,
        "end_time": end_time,
        "variant_id": variant_id,
        "event_types": [*(kind or ()), *(event_type or ()), *(event_types or ())],
        "user_ids": user_id or [],
        "cursor": cursor,
        "limit": limit,
    }
    return await _listed(call, experiment_id, parse(EventQuery, written))


@router.post("/events/{experiment_id}")
@operation(takes=EventQuery, answers=EventPage, body_required=False)
async def list_experiment_events(call: Reading, experiment_id: str, body: OptionalDocument) -> Response:
    """List an experiment's events, the newest first."""
    return await _listed(call, experiment_id, parse(EventQuery, body))


@router.get("/events/{event_id:path}")
@operation(answers=EventDocument)
async def get_event(
    call: Reading,
    event_id: str,
    user_id: Annotated[str | None, Query(description="Whose, where several users sent this id.")] = None,
) -> Response:
    """Get an event by its id."""
    await call.parts.flush()
    found = await run_in_threadpool(call.parts.store.event, event_id, user_id)
    if found is None:
        raise NotFound(f"There is no event {shown(event_id)}.", code="unknown_event")
    return answer(_document(found))


@router.get("/experiments/{experiment}/events/ledger")
@operation(answers=Ledger)
async def event_ledger(
    call: Reading,
    experiment: str,
    kind: Kinds = None,
    event_type: AlsoKinds = None,
    event_types: AlsoKinds = None,
) -> Response:
    """What became of events, type by type: counted, duplicate, late, refused … with samples."""
    types = (*(kind or ()), *(event_type or ()), *(event_types or ()))
    scope = await run_in_threadpool(_scope, call, experiment)
    await call.parts.flush()
    entries = await run_in_threadpool(call.parts.store.ledger, scope, types)
    return answer(_ledger(scope.experiment_id, entries))


async def _listed(call: Call, experiment: str | None, query: EventQuery) -> Response:
    row = None if experiment is None else await run_in_threadpool(_find, call, experiment)
    which = EventFilter(
        experiment_id=row.id if row else None,
        unit=row.unit if row else "user_id",
        variant_id=query.variant_id,
        types=tuple(query.event_types),
        user_ids=tuple(query.user_ids),
        start=_when(query.start_time, "start_time", end=False),
        end=_when(query.end_time, "end_time", end=True),
    )
    after = _cursor(query.cursor)
    await call.parts.flush()
    found, following = await run_in_threadpool(call.parts.store.events, which, query.limit, after)
    return answer(
        {
            "events": [_document(each) for each in found],
            "next_cursor": None if following is None else f"{following.occurred_at}_{following.seq}",
        }
    )


def _find(call: Call, experiment: str) -> Experiment:
    with call.parts.database.reading() as tx:
        return find(tx, experiment)


def _scope(call: Call, experiment: str) -> Scope:
    with call.parts.database.reading() as tx:
        row = find(tx, experiment)
        excluded = overrides.units(tx, row.id)
    return Scope(row.id, unit=row.unit, ended_at=microseconds(row.ended_at), excluded_units=excluded)


def _document(event: StoredEvent) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "type": event.type,
        "timestamp": iso(moment(event.occurred_at)),
        "received_at": iso(moment(event.received_at)),
        "value": event.value,
        "properties": msgspec.Raw(event.properties.encode()) if event.properties else {},
        "units": event.units,
        "experiment_id": event.experiment_id,
        "variant_id": event.variant_id,
        "claimed_variant_id": event.claimed_variant_id,
    }


def _ledger(experiment_id: int, entries: list[LedgerEntry]) -> dict[str, Any]:
    zeros = {reason.value: 0 for reason in LedgerReason}
    totals = dict(zeros)
    types: dict[str | None, dict[str, Any]] = {}
    for entry in entries:
        row = types.setdefault(entry.type, {"type": entry.type, "counts": dict(zeros), "samples": {}})
        row["counts"][entry.reason.value] += entry.count
        totals[entry.reason.value] += entry.count
        if entry.samples:
            name = f"{entry.reason.value}:{entry.detail}" if entry.detail else entry.reason.value
            row["samples"][name] = list(entry.samples)
    return {"experiment_id": experiment_id, "totals": totals, "types": list(types.values())}


def _cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    occurred_at, _, seq = text.partition("_")
    try:
        return Cursor(int(occurred_at), int(seq))
    except ValueError as error:
        raise Invalid.field(
            "cursor", f"must be the next_cursor of an earlier answer; got {shown(text)}"
        ) from error


def _when(text: str | None, path: str, *, end: bool) -> int | None:
    """A date or time as microseconds; a bare date means its beginning, or at an `end` its last moment."""
    if text is None:
        return None
    try:
        written = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid.field(
            path, f"must be a date or an ISO 8601 time such as 2026-11-21T09:00:00Z; got {shown(text)}"
        ) from error
    when = written.replace(tzinfo=UTC) if written.tzinfo is None else written
    if end and len(text) <= 10 and when.time() == time():
        when += timedelta(days=1, microseconds=-1)
    return microseconds(when)
