"""Segments: listed, made, changed, and who is on their lists."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from starlette.responses import Response

from assay.catalog import segments
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx
from assay.catalog.tables import Experiment, ExperimentSegment, Segment
from assay.dashboard.experiments import number
from assay.dashboard.pages import Problems, Visit, go, link, render
from assay.errors import AssayError, FieldError, Invalid

_PAGE = 50
_MEMBERS = 100


def listed(visit: Visit) -> Response:
    """All segments that match."""
    q, skip = visit.query.get("q")[:200], number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        rows, total = segments.page(tx, q=q or None, skip=skip, limit=_PAGE)
    return render(
        visit,
        "segments.html",
        segments=rows,
        total=total,
        skip=skip,
        limit=_PAGE,
        q=q,
        address=lambda **query: link("segments", q=q, **query),
    )


def shown(visit: Visit, problem: AssayError | None = None) -> Response:
    """One segment: its rule, its list, and where it is used."""
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        row = segments.find(tx, visit.place["segment"])
        users = _users(tx, row)
        listed_users = segments.members(tx, row, skip=skip, limit=_MEMBERS)
    return render(
        visit,
        "segment.html",
        status=problem.status if problem else 200,
        segment=row,
        experiments=users,
        members=listed_users,
        skip=skip,
        limit=_MEMBERS,
        problem=problem.detail if problem else "",
        given=visit.form,
        address=lambda **query: link("segments", row.id, **query),
    )


def create(visit: Visit) -> Response:
    """A new segment."""
    if visit.method == "GET":
        return _form(visit, None, {"name": "", "description": "", "rules": ""})
    try:
        given = parse(segments.SegmentInput, _document(visit))
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            row = segments.create(tx, given)
    except Invalid as error:
        return _form(visit, None, _typed(visit), error)
    return go(visit, link("segments", row.id))


def edit(visit: Visit) -> Response:
    """A change of a segment."""
    with visit.parts.database.reading() as tx:
        row = segments.find(tx, visit.place["segment"])
    if visit.method == "GET":
        rules = json.dumps(row.rules, ensure_ascii=False, indent=2) if row.rules else ""
        return _form(visit, row, {"name": row.name, "description": row.description, "rules": rules})
    version = visit.form.get("version")
    try:
        given = parse(segments.SegmentEdit, _document(visit))
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            expected = frozenset({int(version)}) if version.isdigit() else None
            segments.edit(write, segments.find(write, str(row.id)), given, expected=expected)
    except AssayError as error:
        return _form(visit, row, _typed(visit), error)
    return go(visit, link("segments", row.id))


def delete(visit: Visit) -> Response:
    """Remove a segment that nothing depends on, after a question."""
    with visit.parts.database.reading() as tx:
        row = segments.find(tx, visit.place["segment"])
        users = _users(tx, row)
    if visit.method == "GET":
        return render(visit, "segment_delete.html", segment=row, experiments=users, problem="")
    try:
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            segments.remove(write, segments.find(write, str(row.id)))
    except AssayError as error:
        return render(
            visit,
            "segment_delete.html",
            status=error.status,
            segment=row,
            experiments=users,
            problem=error.detail,
        )
    return go(visit, link("segments"))


def members(visit: Visit) -> Response:
    """Put users on the list, or take one off."""
    ids = [line.strip() for line in visit.form.get("user_ids").splitlines() if line.strip()]
    leaving = visit.form.get("remove")
    try:
        if not ids and not leaving:
            raise Invalid.field("user_ids", "enter at least one user id, one a line")
        given = parse(segments.MembersInput, {"user_ids": ids})
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            row = segments.find(tx, visit.place["segment"])
            if leaving:
                segments.remove_member(tx, row, leaving)
            else:
                segments.add_members(tx, row, given.user_ids)
    except Invalid as error:
        return shown(visit, error)
    return go(visit, link("segments", row.id))


def _users(tx: ReadTx, row: Segment) -> list[Experiment]:
    links = select(ExperimentSegment.experiment_id).where(ExperimentSegment.segment_id == row.id)
    return list(tx.scalars(select(Experiment).where(Experiment.id.in_(links)).order_by(Experiment.id.desc())))


def _typed(visit: Visit) -> dict[str, str]:
    return {name: visit.form.get(name) for name in ("name", "description", "rules")}


def _document(visit: Visit) -> Mapping[str, Any]:
    typed = _typed(visit)
    return {
        "name": typed["name"],
        "description": typed["description"],
        "rules": rule_of(typed["rules"], "rules"),
    }


def rule_of(text: str, path: str) -> Any:
    """A rule as it was typed; nothing typed is no rule. Raises `Invalid` for what is not JSON."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        place = (
            f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        )
        raise Invalid.field(path, f'is not JSON ({place}); write it like {{"country": "DE"}}') from error


def _form(
    visit: Visit, row: Segment | None, typed: Mapping[str, str], problem: AssayError | None = None
) -> Response:
    problems = Problems()
    for each in problem.errors if problem else ():
        inner = each.path.partition("rules.")[2]
        problems.setdefault(_field(each), f"{inner} {each.message}".strip())
    general = problem.detail if problem and not set(problems) & set(typed) else ""
    return render(
        visit,
        "segment_form.html",
        status=problem.status if problem else 200,
        segment=row,
        typed=typed,
        problems=problems,
        problem=general,
    )


def _field(error: FieldError) -> str:
    return error.path.partition(".")[0].partition("[")[0]
