"""The checklist of an experiment, with what the event store has seen lately."""

import json
from datetime import datetime

from assay.catalog import checklist
from assay.catalog.database import Database
from assay.catalog.editing import find
from assay.errors import Unavailable
from assay.events.timestamps import micros
from assay.eventstore.base import EventFilter, EventStore

#: Events of each type that are looked at; the store finds the latest without reading the rest.
_LATEST = 20


def examined(
    database: Database, store: EventStore, reference: int | str, now: datetime
) -> list[checklist.Item]:
    """Every item of the checklist of this experiment. Raises `NotFound`."""
    with database.reading() as tx:
        types = checklist.event_types(find(tx, reference))
    seen: dict[str, checklist.Arrived | Unavailable] = {}
    # No transaction of the catalog waits for the event store, nor the rest of the types for one that failed.
    for event_type in types:
        try:
            seen[event_type] = _arrived(store, event_type, now)
        except Unavailable as error:
            seen = dict.fromkeys(types, error)
            break

    def arrivals(event_type: str) -> checklist.Arrived:
        found = seen[event_type]
        if isinstance(found, Unavailable):
            raise found
        return found

    with database.reading() as tx:
        return checklist.examine(tx, find(tx, reference), arrivals, now)


def warnings(
    database: Database, store: EventStore, reference: int | str, now: datetime
) -> list[checklist.Item]:
    """What is worth a look, for an experiment that has started: that stands, whatever happens here."""
    try:
        return checklist.warnings(examined(database, store, reference, now))
    except Unavailable as error:
        return [checklist.unknown("checklist", "The checklist could not be made.", error, {})]


def _arrived(store: EventStore, event_type: str, now: datetime) -> checklist.Arrived:
    since = micros(now - checklist.LATELY)
    latest, _ = store.events(EventFilter(types=(event_type,), start=since), _LATEST)
    properties = [json.loads(each.properties) for each in latest if each.properties]
    return checklist.Arrived(
        len(latest),
        frozenset(name for each in properties for name, value in each.items() if value is not None),
        sum(each.amount is not None for each in latest),
    )
