"""Events as they arrive, for whoever connects an application."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from assay.catalog.editing import find
from assay.dashboard import wording
from assay.dashboard.pages import HEADERS, Visit, link, render, templates
from assay.dashboard.parts import moment
from assay.eventstore.base import EventFilter, StoredEvent

_SHOWN: Final = 50
#: Seconds between two looks, and until the browser has to connect anew, so that no stream holds a server up.
_PAUSE, _LONGEST = 1.0, 300.0


class Seen(NamedTuple):
    """One event, ready to be read."""

    event: StoredEvent
    at: str
    received: str
    variant: str
    experiment: str
    properties: str


def shown(visit: Visit) -> Response:
    """The page, with the latest events; a stream brings the next ones."""
    which = _which(visit)
    found = _look(visit, which)
    return render(
        visit,
        "events.html",
        events=[_seen(visit, each) for each in found],
        newest=max((each.seq for each in found), default=-1),
        experiment=visit.query.get("experiment"),
        kind=visit.query.get("type"),
        user=visit.query.get("user"),
        experiments=sorted((each.key, each.name) for each in visit.parts.published.ruleset.by_id.values()),
        stream=link(
            "events",
            "stream",
            experiment=visit.query.get("experiment"),
            type=visit.query.get("type"),
            user=visit.query.get("user"),
        ),
    )


def stream(visit: Visit) -> Response:
    """Rows of the table as they come, as server-sent events; after a break it goes on where it was."""
    if visit.parts.closing():
        return Response(
            status_code=204, headers={"Connection": "close"}
        )  # a browser does not ask again at once
    which = _which(visit)
    last = visit.resumed_after
    if last.isascii() and last.isdigit():
        shown = int(last)
    else:
        shown = max((each.seq for each in _look(visit, which)), default=-1)
    return StreamingResponse(
        _arriving(visit, which, shown),
        media_type="text/event-stream",
        headers={**HEADERS, "X-Accel-Buffering": "no"},
    )


async def _arriving(visit: Visit, which: EventFilter, shown: int) -> AsyncIterator[bytes]:
    """New events as they came in; a comment in between finds out whether anybody listens."""
    yield b"retry: 500\n\n"
    for _ in range(int(_LONGEST / _PAUSE)):
        await asyncio.sleep(_PAUSE)
        if visit.parts.closing() or not visit.still_may():
            return
        found = await run_in_threadpool(_look, visit, which)
        for each in sorted((each for each in found if each.seq > shown), key=lambda each: each.seq):
            row = templates().get_template("_event.html").render(each=_seen(visit, each))
            shown = each.seq
            yield f"id: {each.seq}\nevent: seen\ndata: {json.dumps(row)}\n\n".encode()
        yield b":\n\n"


def _look(visit: Visit, which: EventFilter) -> list[StoredEvent]:
    visit.parts.flush()
    return visit.parts.store.events(which, _SHOWN)[0]


def _which(visit: Visit) -> EventFilter:
    key, kind, user = (visit.query.get(name) for name in ("experiment", "type", "user"))
    experiment_id, unit = None, "user_id"
    if key:
        with visit.parts.database.reading() as tx:
            experiment = find(tx, key)
        experiment_id, unit = experiment.id, experiment.unit
    return EventFilter(
        experiment_id=experiment_id,
        unit=unit,
        types=(kind,) if kind else (),
        user_ids=(user,) if user else (),
    )


def _seen(visit: Visit, event: StoredEvent) -> Seen:
    ruleset = visit.parts.published.ruleset
    experiment = None if event.experiment_id is None else ruleset.find(event.experiment_id)
    at = (
        None
        if experiment is None or event.variant_id is None
        else experiment.by_variant_id.get(event.variant_id)
    )
    name = experiment.variants[at].name if experiment is not None and at is not None else ""
    return Seen(
        event,
        wording.time_tag(moment(event.occurred_at), "second"),
        wording.time_tag(moment(event.received_at), "second"),
        name,
        experiment.name if experiment is not None else "",
        event.properties or "",
    )
