"""Holdouts: a share of the units kept out of what is tried; made, changed, and what each keeps out of."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import holdouts, layers
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx
from assay.catalog.holdouts import HoldoutDocument, HoldoutEdit, HoldoutInput
from assay.catalog.tables import Experiment
from assay.dashboard import lifecycle, plan_fields
from assay.dashboard.experiments import number
from assay.dashboard.metric_fields import beside
from assay.dashboard.pages import Form, Visit, go, link, render
from assay.errors import AssayError, FieldError, Invalid

_PAGE = 50
_MOST_LISTED = 500
_TEXTS: Final = ("name", "key", "hypothesis", "description", "owner", "share", "unit", "metrics", "layer")
_NEW: Final[Mapping[str, str]] = {
    **dict.fromkeys(_TEXTS, ""),
    "share": "5",
    "unit": "user_id",
    "scope": "all",
}
_WORDS: Final = ("name", "hypothesis", "description", "owner")


def listed(visit: Visit) -> Response:
    """All holdouts that are not archived, newest first."""
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        rows, total = holdouts.page(tx, skip=skip, limit=_PAGE)
        found = holdouts.listed(tx, rows)
    return render(
        visit,
        "holdouts.html",
        holdouts=found,
        total=total,
        skip=skip,
        limit=_PAGE,
        address=lambda **query: link("holdouts", **query),
    )


def shown(visit: Visit) -> Response:
    """One holdout and what it keeps units out of."""
    with visit.parts.database.reading() as tx:
        row = holdouts.find_holdout(tx, visit.place["holdout"])
        (document,) = holdouts.listed(tx, [row])
        named = _named(tx, document)
    steps = [(name, lifecycle.STEPS[name].button) for name in lifecycle.possible(row)] if visit.edits else []
    return render(visit, "holdout.html", holdout=document, experiment=row, named=named, steps=steps)


def create(visit: Visit) -> Response:
    """A new holdout, as a draft."""
    if visit.method == "GET":
        return _page(visit, None, _NEW, frozenset())
    typed, chosen = _read(visit.form, _NEW)
    wrong: list[FieldError] = []
    document: dict[str, Any] = {name: typed[name] for name in ("name", "hypothesis", "description", "unit")}
    document |= {name: typed[name] for name in ("key", "owner") if typed[name]}
    document["metrics"] = plan_fields.split(typed["metrics"], "metrics", wrong)
    document |= _share(typed, wrong)
    document |= {name: value for name, value in _scope(typed, chosen).items() if value is not None}
    try:
        _expect(wrong)
        given = parse(HoldoutInput, document)
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            key = holdouts.create(tx, given).key
    except AssayError as error:
        return _page(visit, None, typed, chosen, error)
    return go(visit, link("holdouts", key))


def edit(visit: Visit) -> Response:
    """A change of a holdout; once it has started, of its words alone."""
    with visit.parts.database.reading() as tx:
        row = holdouts.find_holdout(tx, visit.place["holdout"])
        (document,) = holdouts.listed(tx, [row])
    stored = _written(row, document)
    members = frozenset(str(each) for each in document["experiments"] or ())
    if visit.method == "GET":
        return _page(visit, row, stored, members)
    typed, chosen = _read(visit.form, stored)
    chosen = chosen if visit.form.has("scope") else members
    wrong: list[FieldError] = []
    said: dict[str, Any] = {name: typed[name] for name in _WORDS if typed[name] != stored[name]}
    said |= {"owner": typed["owner"] or None} if "owner" in said else {}
    said |= _share(typed, wrong) if typed["share"] != stored["share"] else {}
    if _scope(typed, chosen) != _scope(stored, members):
        said |= _scope(typed, chosen)
    version = visit.form.get("version")
    try:
        _expect(wrong)
        given = parse(HoldoutEdit, said)
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            expected = frozenset({int(version)}) if version.isascii() and version.isdigit() else None
            holdouts.edit(write, holdouts.find_holdout(write, row.id), given, expected=expected)
    except AssayError as error:
        return _page(visit, row, typed, chosen, error)
    return go(visit, link("holdouts", row.key))


def _read(form: Form, otherwise: Mapping[str, str]) -> tuple[Mapping[str, str], frozenset[str]]:
    typed = {name: form.get(name, shown) for name, shown in otherwise.items()}
    return typed, frozenset(form.all("experiment")) - {""}


def _written(row: Experiment, document: HoldoutDocument) -> Mapping[str, str]:
    scope = "layer" if document["layer"] else "all" if document["experiments"] is None else "experiments"
    return {
        **_NEW,
        **{name: getattr(row, name) or "" for name in ("name", "key", "hypothesis", "description", "owner")},
        "unit": row.unit,
        "share": plan_fields.percent(document["share"]),
        "layer": document["layer"] or "",
        "scope": scope,
    }


def _share(typed: Mapping[str, str], wrong: list[FieldError]) -> dict[str, Any]:
    if not typed["share"]:
        wrong.append(FieldError("share", "is needed"))
    return {"share": plan_fields.number(typed["share"], "share", 100.0, wrong)}


def _scope(typed: Mapping[str, str], chosen: frozenset[str]) -> dict[str, Any]:
    """What it covers, in the catalog's words; both null is everything."""
    numbers = sorted(int(each) for each in chosen if each.isascii() and each.isdigit())
    return {
        "layer": typed["layer"] if typed["scope"] == "layer" else None,
        "experiments": numbers if typed["scope"] == "experiments" else None,
    }


def _expect(wrong: Sequence[FieldError]) -> None:
    if wrong:
        raise Invalid(f"{wrong[0].path}: {wrong[0].message}", errors=wrong)


def _named(tx: ReadTx, document: HoldoutDocument) -> list[Experiment]:
    """The experiments a holdout names, which it keeps units out of once they start."""
    numbers = document["experiments"] or ()
    return list(tx.scalars(select(Experiment).where(Experiment.id.in_(numbers)).order_by(Experiment.id)))


def _page(
    visit: Visit,
    row: Experiment | None,
    typed: Mapping[str, str],
    chosen: frozenset[str],
    problem: AssayError | None = None,
) -> Response:
    known = {*_NEW, "experiments"}
    problems, lost = beside(problem, known, lambda path: path.partition("[")[0].partition(".")[0])
    drafts = select(Experiment).where(Experiment.status == Status.DRAFT, Experiment.holdout.is_(None))
    with visit.parts.database.reading() as tx:
        exclusive = [(each.key, each.name) for each in layers.page(tx, limit=_MOST_LISTED)[0]]
        offered = list(tx.scalars(drafts.order_by(Experiment.id.desc()).limit(_MOST_LISTED)))
        shown = {str(each.id) for each in offered}
        kept = [int(each) for each in chosen - shown if each.isascii() and each.isdigit() and len(each) < 19]
        offered += tx.scalars(select(Experiment).where(Experiment.id.in_(kept)).order_by(Experiment.id))
    if typed["layer"] and typed["layer"] not in dict(exclusive):
        exclusive.append((typed["layer"], typed["layer"]))
    return render(
        visit,
        "holdout_form.html",
        status=problem.status if problem else 200,
        holdout=row,
        fixed=row is not None and row.status != Status.DRAFT,
        typed=typed,
        chosen=chosen,
        layers=exclusive,
        offered=offered,
        problems=problems,
        problem=lost,
    )
