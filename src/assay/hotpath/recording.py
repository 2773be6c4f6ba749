"""Handlers that record events: one, many, newline-delimited, or by the experiment's `track`."""

from typing import Any

import msgspec

from assay.assignments.base import AssignmentStore
from assay.errors import Invalid, NotFound, UnsupportedType
from assay.events.accept import accept_batch
from assay.events.event import Batch, Event, Limits, Rejected
from assay.events.log import EventLog
from assay.hotpath.assigner import iso
from assay.hotpath.http import JSON, NDJSON, Request, Response, refuse_doubled, shown
from assay.published import Published
from assay.telemetry import Telemetry

_encode = msgspec.json.Encoder().encode
_EMPTY = msgspec.Raw(b"{}")
_NAMES = (
    b'"user_id"',
    b'"type"',
    b'"event_id"',
    b'"value"',
    b'"timestamp"',
    b'"experiment_id"',
    b'"properties"',
)


class EventIn(msgspec.Struct, forbid_unknown_fields=True):
    """One event as a caller writes it; this type documents what `events.accept` reads."""

    user_id: str
    type: str | None = None
    event_name: str | None = None
    event_id: str | None = None
    timestamp: str | int | float | None = None
    value: float | None = None
    properties: dict[str, Any] | None = None
    experiment_id: int | str | None = None
    variant_id: int | str | None = None
    units: dict[str, str] | None = None


class EventsIn(msgspec.Struct, forbid_unknown_fields=True):
    """Many events; `sent_at` is the sender's clock and corrects their times."""

    events: list[EventIn]
    sent_at: str | int | float | None = None


class RecordingRoutes:
    """The handlers, over the event log."""

    def __init__(
        self,
        published: Published,
        assignments: AssignmentStore,
        log: EventLog,
        telemetry: Telemetry,
        limits: Limits,
    ) -> None:
        self.published = published
        self.assignments = assignments
        self.log = log
        self.telemetry = telemetry
        self.limits = limits

    def _resolve(self, reference: int | str) -> int | None:
        found = self.published.ruleset.find(reference)
        return None if found is None else found.id

    async def events(self, request: Request) -> Response:
        """`POST /events`: one object, an array, `{"events": […]}` or one object to a line."""
        kind = request.content_type()
        lines = kind in {NDJSON, b"application/jsonl", b"application/x-jsonlines"}
        if not lines and kind not in {JSON, b""} and not kind.endswith(b"+json"):
            raise UnsupportedType(
                f"Content-Type {shown(kind)} is not understood; "
                "send application/json or application/x-ndjson."
            )
        body = await request.body()
        if not lines:
            refuse_doubled(body, _NAMES)
        batch = accept_batch(body, request.now, resolve=self._resolve, limits=self.limits, lines=lines)
        return await (self._one(batch) if batch.single else self._many(batch))

    async def track(self, request: Request) -> Response:
        """`POST /experiments/{experiment}/track`: one event that counts for this experiment alone."""
        experiment_id = self._resolve(request.params[0])
        if experiment_id is None:
            raise NotFound(f"There is no experiment {shown(request.params[0])}.", code="unknown_experiment")
        kind = request.content_type()
        if kind not in {JSON, b""} and not kind.endswith(b"+json"):
            raise UnsupportedType(f"Content-Type {shown(kind)} is not understood; send application/json.")
        body = await request.body()
        refuse_doubled(body, _NAMES)
        batch = accept_batch(
            body, request.now, resolve=self._resolve, limits=self.limits, experiment_id=experiment_id
        )
        if not batch.single:
            raise Invalid("track takes one event; send several to POST /events.", code="one_event_expected")
        return await self._one(batch)

    async def _one(self, batch: Batch) -> Response:
        if batch.rejected:
            self._note(batch.rejected)
            raise batch.rejected[0].error()
        event = batch.events[0]
        variant_id = None if event.x is None else await self._variant(event, event.x)
        _, doubles = self.log.split(batch.events)
        if doubles or await self.log.append(batch.events):
            self._note_doubles(batch.events)
            # What is stored is the first of them, which may have said something else.
            known = {
                "event_id": event.o or event.e,
                "user_id": event.u,
                "experiment_id": event.x,
                "variant_id": variant_id,
                "status": "duplicate",
            }
            return Response(200, _encode(known))
        self.telemetry.events.add((event.x, variant_id, event.t))
        return Response(201, _shown(event, variant_id))

    async def _many(self, batch: Batch) -> Response:
        self._note(batch.rejected)
        fresh, doubles = self.log.split(batch.events)
        if fresh:
            stored_before = await self.log.append(fresh)
            if stored_before:
                doubles = [*doubles, *stored_before]
                known = set(map(id, stored_before))
                fresh = [event for event in fresh if id(event) not in known]
            add = self.telemetry.events.add
            for event in fresh:
                add((event.x, None, event.t))
        self._note_doubles(doubles)
        document = {
            "accepted": len(fresh),
            "duplicates": len(doubles),
            "rejected": [
                {"index": each.index, "code": each.code, "message": each.message, "path": each.path}
                for each in batch.rejected
            ],
            "event_ids": [event.o or event.e for event in batch.events],
            "duplicate_ids": [event.o or event.e for event in doubles],
        }
        return Response(202, _encode(document))

    def _note(self, rejected: list[Rejected]) -> None:
        for each in rejected:
            self.telemetry.rejected_events.add(each.code)
            self.log.notes.rejected(each.experiment_id, each.type, each.code, each.sample)

    def _note_doubles(self, doubles: list[Event]) -> None:
        """Enter repetitions into the ledger of the experiment they name, or of those their user is in."""
        for event in doubles:
            if event.x is not None:
                self.log.notes.double(event.x, event)
                continue
            for experiment in self.published.ruleset.by_id.values():
                unit_id = event.u if experiment.unit == "user_id" else (event.m or {}).get(experiment.unit)
                if unit_id is not None and self.assignments.peek(experiment.id, unit_id) is not None:
                    self.log.notes.double(experiment.id, event)

    async def _variant(self, event: Event, experiment_id: int) -> int | None:
        """The variant on record for the event's user in the experiment it names."""
        experiment = self.published.ruleset.find(experiment_id)
        if experiment is None:
            return None
        unit_id = event.u if experiment.unit == "user_id" else (event.m or {}).get(experiment.unit)
        if unit_id is None:
            return None
        hit = self.assignments.peek(experiment_id, unit_id)
        if hit is not None:
            return hit[0]
        record = None if self.assignments.complete else await self.assignments.find(experiment_id, unit_id)
        return None if record is None else record.variant_id


def _shown(event: Event, variant_id: int | None) -> bytes:
    return _encode(
        {
            "event_id": event.o or event.e,
            "user_id": event.u,
            "type": event.t,
            "timestamp": iso(event.s),
            "value": event.v,
            "properties": _EMPTY if event.p is None else msgspec.Raw(event.p.encode()),
            "experiment_id": event.x,
            "variant_id": variant_id,
            "status": "accepted",
        }
    )
