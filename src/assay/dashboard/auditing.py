"""Who changed what, when, and from what to what."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from starlette.responses import Response

from assay.catalog import audit
from assay.catalog.editing import find
from assay.catalog.tables import AuditEntry, Experiment
from assay.dashboard import wording
from assay.dashboard.experiments import number
from assay.dashboard.pages import Visit, link, render

_PAGE = 50
NOUNS = ("experiment", "segment", "key", "user", "metric")


class Change(NamedTuple):
    """One field: what it was and what it is."""

    field: str
    before: str
    after: str


class Entry(NamedTuple):
    """One entry, ready to be read; `address` leads to what it is about, where that has a page."""

    row: AuditEntry
    what: str
    changes: Sequence[Change]
    address: str


def log(visit: Visit) -> Response:
    """Everything that was changed in this installation."""
    noun, actor, skip = visit.query.get("noun"), visit.query.get("actor"), number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        rows, total = audit.page(tx, noun=noun or None, actor=actor or None, skip=skip, limit=_PAGE)
        names = {
            row.experiment_id: found
            for row in rows
            if row.experiment_id is not None and (found := tx.get(Experiment, row.experiment_id)) is not None
        }
        shown = {number: (each.name, each.key) for number, each in names.items()}
    return render(
        visit,
        "audit.html",
        entries=[_entry(row, shown.get(row.experiment_id or 0)) for row in rows],
        total=total,
        skip=skip,
        limit=_PAGE,
        noun=noun,
        actor=actor,
        nouns=NOUNS,
        experiment=None,
        address=partial(link, "audit", noun=noun, actor=actor),
    )


def history(visit: Visit) -> Response:
    """What happened to one experiment."""
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
        rows, total = audit.page(tx, experiment_id=experiment.id, skip=skip, limit=_PAGE)
    return render(
        visit,
        "audit.html",
        entries=[_entry(row, None) for row in rows],
        total=total,
        skip=skip,
        limit=_PAGE,
        noun="",
        actor="",
        nouns=(),
        experiment=experiment,
        address=partial(link, "experiments", experiment.key, "history"),
    )


def _entry(row: AuditEntry, named: tuple[str, str] | None) -> Entry:
    changes = [
        Change(wording.words(field), said(change.get("from")), said(change.get("to")))
        if isinstance(change, Mapping) and {"from", "to"} <= set(change)
        else Change(wording.words(field), "", said(change))
        for field, change in (row.changes or {}).items()
    ]
    address, what = "", ""
    if named is not None:
        what, address = named[0], link("experiments", named[1])
    elif row.noun == "segment" and row.noun_id is not None and row.action != "segment.delete":
        what, address = f"segment {row.noun_id}", link("segments", row.noun_id)
    elif row.noun_id is not None and row.experiment_id is None:
        what = f"{row.noun} {row.noun_id}"
    if row.user_id is not None:
        what = f"{what}: {row.user_id}".lstrip(": ")
    return Entry(row, what, changes, address)


def said(value: Any) -> str:
    """A value of the audit log as text."""
    if value is None or value in ("", [], {}):
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return f"{value:,.10g}"
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, indent=2)
