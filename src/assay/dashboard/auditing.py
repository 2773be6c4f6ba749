"""Who changed what, when, and from what to what."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from starlette.responses import Response

from assay.catalog import audit
from assay.catalog.audit import Known, Subject
from assay.catalog.database import RECORDED, ReadTx
from assay.catalog.editing import find
from assay.catalog.tables import AuditEntry
from assay.dashboard.differences import Change, changes, ids_in
from assay.dashboard.experiments import number
from assay.dashboard.pages import Visit, link, render

_PAGE = 50
#: Where the page of something is; what has none of its own stands on the list of all.
_PLACES = {
    "experiment": "experiments",
    "segment": "segments",
    "layer": "layers",
    "metric": "metrics",
    "template": "templates",
    "key": "keys",
}
_LISTS = {"template", "key"}


class Thing(NamedTuple):
    """Something that an entry is about; `address` leads to it, where it has a page."""

    name: str
    address: str = ""
    gone: bool = False


class Entry(NamedTuple):
    """One entry, ready to be read."""

    row: AuditEntry
    things: Sequence[Thing]
    changes: Sequence[Change]


def log(visit: Visit) -> Response:
    """Everything that was changed in this installation."""
    noun, actor, skip = visit.query.get("noun"), visit.query.get("actor"), number(visit.query, "skip")
    noun = noun if noun in RECORDED else ""
    with visit.parts.database.reading() as tx:
        rows, total = audit.page(tx, noun=noun or None, actor=actor or None, skip=skip, limit=_PAGE)
        entries = _entries(visit, tx, rows)
    return render(
        visit,
        "audit.html",
        entries=entries,
        total=total,
        skip=skip,
        limit=_PAGE,
        noun=noun,
        actor=actor,
        nouns=RECORDED,
        experiment=None,
        address=partial(link, "audit", noun=noun, actor=actor),
    )


def history(visit: Visit) -> Response:
    """What happened to one experiment."""
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
        rows, total = audit.page(tx, experiment_id=experiment.id, skip=skip, limit=_PAGE)
        entries = _entries(visit, tx, rows, within=("experiment", experiment.id))
    return render(
        visit,
        "audit.html",
        entries=entries,
        total=total,
        skip=skip,
        limit=_PAGE,
        noun="",
        actor="",
        nouns=(),
        experiment=experiment,
        address=partial(link, "experiments", experiment.key, "history"),
    )


def _entries(
    visit: Visit, tx: ReadTx, rows: Sequence[AuditEntry], within: Known | None = None
) -> list[Entry]:
    """The entries with names for ids; what the whole page is `within` is not named again."""
    about = {row.id: [each for each in _about(row) if each != within] for row in rows}
    inside = [each for row in rows if not _is_of_attributes(row) for each in ids_in(row.changes or {})]
    names = audit.subjects(tx, [*inside, *(each for known in about.values() for each in known)])
    return [
        Entry(
            row,
            [
                *_things(visit, about[row.id], names),
                *([Thing(row.user_id)] if row.user_id is not None else []),
            ],
            _changes(row, names),
        )
        for row in rows
    ]


def _changes(row: AuditEntry, names: Mapping[Known, Subject]) -> list[Change]:
    """What an entry changed; what came or went as a whole has one side."""
    found = changes(row.changes or {}, names, attributes=_is_of_attributes(row))
    if row.action.endswith(".create"):
        return [each._replace(before="") for each in found]
    if row.action.endswith((".delete", ".purge")):
        return [each._replace(after="") for each in found]
    return found


def _is_of_attributes(row: AuditEntry) -> bool:
    """Whether the names and values of an entry are the application's own."""
    return row.noun == "user" and row.action != "user.erase"


def _about(row: AuditEntry) -> Iterable[Known]:
    """What an entry is about; the id of a look is its number within the experiment."""
    if row.noun_id is not None and row.noun != "look":
        yield row.noun, row.noun_id
    if row.experiment_id is not None and (row.noun, row.noun_id) != ("experiment", row.experiment_id):
        yield "experiment", row.experiment_id


def _things(visit: Visit, about: Iterable[Known], names: Mapping[Known, Subject]) -> Iterable[Thing]:
    for noun, number_ in about:
        subject = names.get((noun, number_))
        if subject is None:
            yield Thing(f"{noun} no. {number_}", gone=True)
        elif subject.reference is None:
            yield Thing(subject.name, gone=True)
        elif noun == "key" and not visit.administers:
            yield Thing(subject.name)
        elif noun in _LISTS:
            yield Thing(subject.name, link(_PLACES[noun]))
        else:
            yield Thing(subject.name, link(_PLACES[noun], subject.reference))
