"""The checklist of an experiment, with what the event store has seen lately."""

import json

from assay.api.calls import Call
from assay.catalog import checklist
from assay.catalog.editing import find
from assay.events.timestamps import micros
from assay.eventstore.base import EventFilter

#: Events of each type that are looked at; the store finds the latest without reading the rest.
_LATEST = 20


def examined(call: Call, reference: int | str) -> list[checklist.Item]:
    """Every item of the checklist of this experiment. Raises `NotFound`."""
    since = micros(call.now - checklist.LATELY)

    def arrived(event_type: str) -> checklist.Arrived:
        latest, _ = call.parts.store.events(EventFilter(types=(event_type,), start=since), _LATEST)
        properties = [json.loads(each.properties) for each in latest if each.properties]
        return checklist.Arrived(
            len(latest),
            frozenset(name for each in properties for name, value in each.items() if value is not None),
            sum(each.amount is not None for each in latest),
        )

    with call.parts.database.reading() as tx:
        return checklist.examine(tx, find(tx, reference), arrived)
