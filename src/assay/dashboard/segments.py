"""Segments: listed, made, changed, and who is on their lists."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from starlette.responses import Response

from assay.bucketing.conditions import compile_condition
from assay.catalog import groups, segments
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx
from assay.catalog.tables import Experiment, ExperimentSegment, Segment, Template
from assay.catalog.uploads import Upload
from assay.dashboard import targeting
from assay.dashboard.experiments import number
from assay.dashboard.pages import Problems, Visit, go, link, render
from assay.dashboard.targeting import Targeting
from assay.errors import AssayError, FieldError, Invalid

_PAGE = 50
_MEMBERS = 100


class Typed(NamedTuple):
    """A segment as it stands in the form."""

    name: str
    key: str
    description: str
    rule: Targeting


class Use(NamedTuple):
    """An experiment, in its status, or a segment that a segment decides for; `how`, where not attached."""

    name: str
    address: str
    how: str
    status: str | None


class Uses(NamedTuple):
    """Whatever depends on a segment, and the templates that experiments with it begin with."""

    by: Sequence[Use]
    templates: Sequence[Template]


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
        uses = _uses(tx, row)
        listed_users = segments.members(tx, row, skip=skip, limit=_MEMBERS)
    return render(
        visit,
        "segment.html",
        status=problem.status if problem else 200,
        segment=row,
        refused=_refused(row),
        uses=uses,
        members=listed_users,
        skip=skip,
        limit=_MEMBERS,
        problem=problem.detail if problem else "",
        given=visit.form,
        address=lambda **query: link("segments", row.id, **query),
    )


def create(visit: Visit) -> Response:
    """A new segment."""
    typed = _typed(visit)
    if visit.method == "GET":
        return _form(visit, None, typed._replace(rule=targeting.written(None)))
    changed = targeting.changed(visit.form, typed.rule, "rules")
    if changed is not None:
        return _form(visit, None, typed._replace(rule=changed))
    try:
        given = parse(segments.SegmentInput, {**_document(typed, None), "key": typed.key or None})
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            row = segments.create(tx, given)
    except AssayError as error:
        return _form(visit, None, typed, error)
    return go(visit, link("segments", row.id))


def edit(visit: Visit) -> Response:
    """A change of a segment."""
    with visit.parts.database.reading() as tx:
        row = segments.find(tx, visit.place["segment"])
    if visit.method == "GET":
        return _form(visit, row, Typed(row.name, row.key, row.description, targeting.written(row.rules)))
    typed = _typed(visit)
    changed = targeting.changed(visit.form, typed.rule, "rules")
    if changed is not None:
        return _form(visit, row, typed._replace(rule=changed))
    version = visit.form.get("version")
    try:
        given = parse(segments.SegmentEdit, _document(typed, row.rules))
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            expected = frozenset({int(version)}) if version.isdigit() else None
            segments.edit(write, segments.find(write, str(row.id)), given, expected=expected)
    except AssayError as error:
        return _form(visit, row, typed, error)
    return go(visit, link("segments", row.id))


def delete(visit: Visit) -> Response:
    """Remove a segment that nothing depends on, after a question."""
    with visit.parts.database.reading() as tx:
        row = segments.find(tx, visit.place["segment"])
        uses = _uses(tx, row)
    if visit.method == "GET":
        return render(visit, "segment_delete.html", segment=row, uses=uses, problem="")
    try:
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            segments.remove(write, segments.find(write, str(row.id)))
    except AssayError as error:
        return render(
            visit,
            "segment_delete.html",
            status=error.status,
            segment=row,
            uses=uses,
            problem=error.detail,
        )
    return go(visit, link("segments"))


def members(visit: Visit) -> Response:
    """Put users on the list, make them the only ones on it, or take one off."""
    ids = [line.strip() for line in visit.form.get("user_ids").splitlines() if line.strip()]
    leaving = visit.form.get("remove")
    replace = visit.form.has("replace")
    try:
        if leaving:
            with visit.parts.database.writing(visit.actor, visit.now) as tx:
                segments.remove_member(tx, segments.find(tx, visit.place["segment"]), leaving)
        elif ids:
            given = parse(segments.MembersInput, {"user_ids": ids})
            _put(visit, given.user_ids, keep=not replace)
        else:
            raise Invalid.field("user_ids", "enter at least one user id, one a line")
    except Invalid as error:
        return shown(visit, error)
    return go(visit, link("segments", visit.place["segment"]))


def _put(visit: Visit, user_ids: Sequence[str], *, keep: bool) -> None:
    """Put a list in force in one step; with `keep`, beside those that are on it."""
    database, now = visit.parts.database, visit.now
    upload = Upload(database, visit.place["segment"], visit.actor, now, keep=keep)
    try:
        upload.add(user_ids, now)
        upload.finish(now)
    except AssayError:
        upload.discard()
        raise


def _refused(row: Segment) -> str:
    """Why the stored rule is not accepted any more; empty where it is."""
    try:
        compile_condition(row.rules or {}, "rules")
    except Invalid as error:
        return error.detail
    return ""


def _uses(tx: ReadTx, row: Segment) -> Uses:
    links = select(ExperimentSegment.experiment_id).where(ExperimentSegment.segment_id == row.id)
    attached = select(Experiment).where(Experiment.id.in_(links)).order_by(Experiment.id.desc())
    return Uses(
        [
            *(
                Use(each.name, link("experiments", each.key), "", each.status)
                for each in tx.scalars(attached)
            ),
            *(
                Use(each.name, link(f"{each.noun}s", each.reference), "names its list", each.status)
                for each in groups.namers(tx, row.key)
            ),
        ],
        [
            each
            for each in tx.scalars(select(Template).order_by(Template.name))
            if {row.id, str(row.id), row.key}.intersection(each.body.get("segments") or ())
            or groups.names(each.body.get("condition"), row.key)
        ],
    )


def _typed(visit: Visit) -> Typed:
    form = visit.form
    rule = targeting.read(form, "rules")
    return Typed(form.get("name"), form.get("key").strip(), form.get("description"), rule)


def _document(typed: Typed, stored: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {
        "name": typed.name,
        "description": typed.description,
        "rules": targeting.document_of(typed.rule, "rules", stored),
    }


def _form(visit: Visit, row: Segment | None, typed: Typed, problem: AssayError | None = None) -> Response:
    known = {"name", "key", "description", *targeting.names(typed.rule, "rules")}
    problems = Problems()
    for each in problem.errors if problem else ():
        name = each.path if each.path in known else _field(each)
        inner = each.path.partition("rules.")[2]
        problems.setdefault(name, f"{inner} {each.message}".strip())
    counted: dict[str, Any] = {"found": None, "preview_problem": ""}
    if visit.form.get("count-users"):
        counted = targeting.count(visit, typed.rule, "rules")
    return render(
        visit,
        "segment_form.html",
        status=problem.status if problem else 200,
        segment=row,
        typed=typed,
        problems=problems,
        problem=problem.detail if problem and not set(problems) & known else "",
        rule_operators=targeting.OPERATORS,
        turn_failed=visit.form.get("turn") == "rules" and visit.form.get("rules-side") == typed.rule.side,
        action=link("segments", row.id, "edit") if row else link("segments", "new"),
        **counted,
    )


def _field(error: FieldError) -> str:
    return error.path.partition(".")[0].partition("[")[0]
