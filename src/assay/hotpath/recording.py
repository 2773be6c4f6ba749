"""Handlers that record events: one, many, newline-delimited, or by the experiment's `track`."""

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from assay.assignments.base import AssignmentStore
from assay.errors import Invalid, NotFound, UnsupportedType
from assay.events.accept import Resolve, accept_batch
from assay.events.event import Batch, Event, Limits, Rejected
from assay.events.log import EventLog
from assay.hotpath.assigner import stamp
from assay.hotpath.http import (
    JSON,
    NDJSON,
    Outcome,
    Request,
    Response,
    Waiting,
    refuse_doubled,
    shown,
)
from assay.published import Key, Published, covers
from assay.telemetry import Telemetry

_encode = msgspec.json.Encoder().encode
_kind = attrgetter("x", "t")
_EMPTY = msgspec.Raw(b"{}")
_LINES = frozenset({NDJSON, b"application/jsonl", b"application/x-jsonlines"})
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

    def _scoped(self, key: Key) -> Resolve:
        """The same for a key to which experiments outside its scope do not exist."""

        def resolve(reference: int | str) -> int | None:
            found = self._resolve(reference)
            return found if found is not None and covers(key, found) else None

        return resolve

    def events(self, request: Request) -> Outcome:
        """`POST /events`: one object, an array, `{"events": […]}` or one object to a line."""
        kind = request.head.kind
        lines = kind in _LINES
        if not lines and kind != JSON and kind and not kind.endswith(b"+json"):
            raise UnsupportedType(
                f"Content-Type {shown(kind)} is not understood; "
                "send application/json or application/x-ndjson."
            )
        body = request.body()
        if not lines:
            refuse_doubled(body, _NAMES)
        resolve: Resolve = self._resolve
        if request.key is not None and request.key.scope is not None:
            resolve = self._scoped(request.key)
        batch = accept_batch(body, request.now, resolve=resolve, limits=self.limits, lines=lines)
        return self._one(batch) if batch.single else self._many(batch)

    def track(self, request: Request) -> Outcome:
        """`POST /experiments/{experiment}/track`: one event that counts for this experiment alone."""
        experiment_id = self._resolve(request.params[0])
        if experiment_id is None or not covers(request.key, experiment_id):
            raise NotFound(f"There is no experiment {shown(request.params[0])}.", code="unknown_experiment")
        kind = request.head.kind
        if kind not in {JSON, b""} and not kind.endswith(b"+json"):
            raise UnsupportedType(f"Content-Type {shown(kind)} is not understood; send application/json.")
        body = request.body()
        refuse_doubled(body, _NAMES)
        batch = accept_batch(
            body, request.now, resolve=self._resolve, limits=self.limits, experiment_id=experiment_id
        )
        if not batch.single:
            raise Invalid("track takes one event; send several to POST /events.", code="one_event_expected")
        return self._one(batch)

    def _one(self, batch: Batch) -> Outcome:
        if batch.rejected:
            self._note(batch.rejected)
            raise batch.rejected[0].error()
        event = batch.events[0]
        unit = None if event.x is None else self._unit(event, event.x)
        if unit is None:
            return self._put(event, None)
        hit = self.assignments.peek(*unit)
        if hit is not None:
            return self._put(event, hit[0])
        return self._put(event, None) if self.assignments.complete else self._found(event, unit)

    async def _found(self, event: Event, unit: tuple[int, str]) -> Response:
        record = await self.assignments.find(*unit)
        outcome = self._put(event, None if record is None else record.variant_id)
        return outcome.finish(await outcome.future) if type(outcome) is Waiting else outcome  # type: ignore[return-value]

    def _put(self, event: Event, variant_id: int | None) -> Response | Waiting:
        """Put one event on disk; `variant_id` is on record for its user in the experiment it names."""
        events = [event]
        _, doubles = self.log.split(events)
        if doubles:
            return self._repeated(event, variant_id)

        def stored(stored_before: Sequence[Event]) -> Response:
            if stored_before:
                return self._repeated(event, variant_id)
            self.telemetry.events.add((event.x, variant_id, event.t))
            return Response(201, _shown(event, variant_id))

        return Waiting(self.log.append(events), stored)

    def _repeated(self, event: Event, variant_id: int | None) -> Response:
        """What is stored is the first of them, which may have said something else."""
        self._note_doubles([event])
        known = {
            "event_id": event.o or event.e,
            "user_id": event.u,
            "experiment_id": event.x,
            "variant_id": variant_id,
            "status": "duplicate",
        }
        return Response(200, _encode(known))

    def _many(self, batch: Batch) -> Response | Waiting:
        self._note(batch.rejected)
        fresh, doubles = self.log.split(batch.events)
        if not fresh:
            return self._recorded(batch, fresh, doubles)

        def stored(stored_before: Sequence[Event]) -> Response:
            if not stored_before:
                return self._recorded(batch, fresh, doubles)
            known = set(map(id, stored_before))
            new = [event for event in fresh if id(event) not in known]
            return self._recorded(batch, new, [*doubles, *stored_before])

        return Waiting(self.log.append(fresh), stored)

    def _recorded(self, batch: Batch, fresh: list[Event], doubles: list[Event]) -> Response:
        add = self.telemetry.events.add
        for (experiment_id, kind), number in Counter(map(_kind, fresh)).items():
            add((experiment_id, None, kind), number)
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
        known: dict[str, list[int]] = {}
        for event in doubles:
            if event.x is not None:
                self.log.notes.double(event.x, event)
                continue
            concerned = known.get(event.u) if event.m is None else None
            if concerned is None:
                concerned = self._concerned(event)
                if event.m is None:
                    known[event.u] = concerned
            for experiment_id in concerned:
                self.log.notes.double(experiment_id, event)

    def _concerned(self, event: Event) -> list[int]:
        """The experiments that the event's unit is in, as far as memory knows."""
        found = []
        for experiment in self.published.ruleset.by_id.values():
            unit_id = event.u if experiment.unit == "user_id" else (event.m or {}).get(experiment.unit)
            if unit_id is not None and self.assignments.peek(experiment.id, unit_id) is not None:
                found.append(experiment.id)
        return found

    def _unit(self, event: Event, experiment_id: int) -> tuple[int, str] | None:
        """The unit of the experiment that the event is of, as the assignments know it."""
        experiment = self.published.ruleset.find(experiment_id)
        if experiment is None:
            return None
        unit_id = event.u if experiment.unit == "user_id" else (event.m or {}).get(experiment.unit)
        return None if unit_id is None else (experiment_id, unit_id)


class _Shown(msgspec.Struct, gc=False):
    """The answer to one accepted event; a struct is encoded in half the time of a dictionary."""

    event_id: str
    user_id: str
    type: str
    timestamp: str
    value: float | None
    properties: msgspec.Raw
    experiment_id: int | None
    variant_id: int | None
    status: str


def _shown(event: Event, variant_id: int | None) -> bytes:
    return _encode(
        _Shown(
            event.o or event.e,
            event.u,
            event.t,
            stamp(event.s).decode(),
            event.v,
            _EMPTY if event.p is None else msgspec.Raw(event.p.encode()),
            event.x,
            variant_id,
            "accepted",
        )
    )
