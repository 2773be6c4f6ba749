"""What an address narrows the result to: everything until one moment, the members of one segment, or both."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import select

from assay.catalog.database import ReadTx
from assay.catalog.tables import Experiment, Segment
from assay.dashboard.pages import Visit
from assay.reports.question import Question, ask
from assay.reports.snapshots import Snapshot

#: Segments that a page offers; any other can be named in the address.
_OFFERED = 200


class Choice(NamedTuple):
    """A segment that the result may be narrowed to: its key, its name and its id."""

    value: str
    name: str
    number: str


def kept(visit: Visit) -> dict[str, str]:
    """The part of the address that narrows the result, for the links to its other parts."""
    return {name: found for name in ("as_of", "segment") if (found := visit.query.get(name))}


def asked(visit: Visit, dimension: str = "") -> Question:
    """What the address asks. Raises `Invalid` naming what is wrong with it."""
    given = kept(visit)
    raw = {"end": given.get("as_of"), "segment": given.get("segment"), "dimension": dimension}
    return ask(raw, visit.now)


def snapshot(visit: Visit, *, sql: bool = False) -> Snapshot:
    """The report that the address asks for; with `sql`, knowing what the store was asked."""
    reports = visit.parts.snapshots
    return reports.get(visit.place["key"], replace(asked(visit), sql=sql), visit.now, max_age=reports.max_age)


def choices(tx: ReadTx, experiment: Experiment) -> list[Choice]:
    """The segments that the result can be narrowed to."""
    if experiment.unit != "user_id":
        return []
    rows = tx.execute(
        select(Segment.id, Segment.key, Segment.name).order_by(Segment.name, Segment.id).limit(_OFFERED)
    ).all()
    return [Choice(key, name, str(number)) for number, key, name in rows]


def chosen(visit: Visit, offered: Sequence[Choice]) -> Choice | None:
    """The segment that the address names, by id, key or name as links from elsewhere do; None: another."""
    given = kept(visit).get("segment")
    named = ((each, name) for name in ("number", "value", "name") for each in offered)
    return next((each for each, name in named if given == getattr(each, name)), None)
