"""What an address narrows the result to: everything until one moment, the members of one segment, or both."""

from collections import Counter
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
    """A segment that the result may be narrowed to: how our addresses name it, its name, key and id."""

    value: str
    name: str
    key: str
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
    """The segments that the result can be narrowed to: by name, or by key where a name might be mistaken.

    The answer says which segment it is about by what it was asked for.
    """
    if experiment.unit != "user_id":
        return []
    rows = tx.execute(
        select(Segment.id, Segment.key, Segment.name).order_by(Segment.name, Segment.id).limit(_OFFERED + 1)
    ).all()
    uses = Counter(each for _, key, name in rows for each in {key, name})

    def clear(name: str) -> bool:
        return len(rows) <= _OFFERED and uses[name] == 1 and not name.strip().isdigit()

    return [
        Choice(name if clear(name) else key, name, key, str(number)) for number, key, name in rows[:_OFFERED]
    ]


def chosen(visit: Visit, offered: Sequence[Choice]) -> Choice | None:
    """The segment that the address names, by id, key or name as links from elsewhere do; None: another."""
    given = kept(visit).get("segment")
    named = ((each, by) for by in ("number", "key", "name") for each in offered)
    return next((each for each, by in named if given == getattr(each, by)), None)
