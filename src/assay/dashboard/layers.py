"""Layers: who holds which slots, which are washing out, which are free; made, changed and let go."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup
from sqlalchemy import select
from starlette.responses import Response

from assay.catalog import layers
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx
from assay.catalog.layers import LayerDocument, LayerEdit, LayerInput
from assay.catalog.tables import Experiment, Layer
from assay.dashboard import charts, wording
from assay.dashboard.experiments import number
from assay.dashboard.metric_fields import beside
from assay.dashboard.pages import Visit, go, link, render
from assay.errors import AssayError

_PAGE = 50
_STATES = {"held": "Held", "washing_out": "Washing out", "free": "Free"}
_FIELDS = ("name", "key", "description", "unit", "wash_out")
_NEW = {"name": "", "key": "", "description": "", "unit": "user_id", "wash_out": layers.WASH_OUT}


class Holding(NamedTuple):
    """The slots of a layer that one experiment has in one state, or that nobody has."""

    state: str
    word: str
    who: str
    address: str
    mark: Markup
    share: str
    since: datetime | None
    until: datetime | None


class Shown(NamedTuple):
    """A layer, ready to be read."""

    document: LayerDocument
    strip: Markup
    holdings: Sequence[Holding]
    free: str


def listed(visit: Visit) -> Response:
    """All layers that match."""
    q, skip = visit.query.get("q")[:200], number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        rows, total = layers.page(tx, q=q or None, skip=skip, limit=_PAGE)
        found = [_shown(tx, each) for each in layers.listed(tx, rows, visit.now)]
    return render(
        visit,
        "layers.html",
        layers=found,
        total=total,
        skip=skip,
        limit=_PAGE,
        q=q,
        address=lambda **query: link("layers", q=q, **query),
    )


def shown(visit: Visit) -> Response:
    """One layer: its slots and its experiments."""
    with visit.parts.database.reading() as tx:
        (document,) = layers.listed(tx, [layers.find(tx, visit.place["layer"])], visit.now)
        found = _shown(tx, document)
    return render(visit, "layer.html", layer=found)


def create(visit: Visit) -> Response:
    """A new layer."""
    if visit.method == "GET":
        return _form(visit, None, _NEW)
    typed = {name: visit.form.get(name) for name in _FIELDS}
    try:
        given = parse(LayerInput, {name: text for name, text in typed.items() if text})
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            key = layers.create(tx, given).key
    except AssayError as error:
        return _form(visit, None, typed, error)
    return go(visit, link("layers", key))


def edit(visit: Visit) -> Response:
    """A change of a layer; its key and unit decide who is where, and stay."""
    with visit.parts.database.reading() as tx:
        row = layers.find(tx, visit.place["layer"])
    now = {name: str(getattr(row, name)) for name in _FIELDS}
    if visit.method == "GET":
        return _form(visit, row, now)
    typed = now | {name: visit.form.get(name) for name in ("name", "description", "wash_out")}
    version = visit.form.get("version")
    try:
        given = parse(LayerEdit, {name: typed[name] for name in ("name", "description", "wash_out")})
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            expected = frozenset({int(version)}) if version.isascii() and version.isdigit() else None
            layers.edit(write, layers.find(write, row.id), given, expected=expected)
    except AssayError as error:
        return _form(visit, row, typed, error)
    return go(visit, link("layers", row.key))


def delete(visit: Visit) -> Response:
    """Remove a layer that nothing needs any more, after a question."""
    with visit.parts.database.reading() as tx:
        row = layers.find(tx, visit.place["layer"])
    problem, status = "", 200
    if visit.method == "POST":
        try:
            with visit.parts.database.writing(visit.actor, visit.now) as write:
                layers.remove(write, layers.find(write, row.id))
        except AssayError as error:
            problem, status = error.detail, error.status
        else:
            return go(visit, link("layers"))
    return render(visit, "layer_delete.html", status=status, layer=row, problem=problem)


def _shown(tx: ReadTx, document: LayerDocument) -> Shown:
    slots = document["slots"]
    there = {each["experiment_id"] for each in document["stretches"]}
    named = select(Experiment.id, Experiment.name).where(Experiment.id.in_(there - {None}))
    names = {each.id: each.name for each in tx.execute(named)}
    owners: list[int | None] = []
    parts, sizes = [], dict[tuple[str, int | None, str | None], int]()
    for each in document["stretches"]:
        state, owner = each["state"], each["experiment_id"]
        if state != "free" and owner not in owners:
            owners.append(owner)
        who = _who(owner, names)
        size = each["to"] - each["from"]
        tip = f"{_STATES[state]}{f': {who}' if state != 'free' else ''}, {wording.share_text(size / slots)}"
        place = None if state == "free" else owners.index(owner)
        parts.append(
            charts.Part(each["from"] / slots, each["to"] / slots, place, state == "washing_out", tip)
        )
        name = (state, owner if state != "free" else None, each["until"])
        sizes[name] = sizes.get(name, 0) + size
    keys = {each["experiment_id"]: each["experiment_key"] for each in document["stretches"]}
    since = {each["experiment_id"]: each["since"] for each in document["stretches"]}
    order = {"held": 0, "washing_out": 1, "free": 2}
    holdings = [
        Holding(
            state,
            _STATES[state],
            "" if state == "free" else _who(owner, names),
            link("experiments", keys[owner]) if keys.get(owner) else "",
            Markup() if state == "free" else charts.key_mark(owners.index(owner)),
            wording.share_text(size / slots),
            _time(since.get(owner)) if state == "held" else None,
            _time(until),
        )
        for (state, owner, until), size in sorted(sizes.items(), key=lambda each: order[each[0][0]])
    ]
    label = ", ".join(f"{each.word} {each.who} {each.share}".replace("  ", " ") for each in holdings)
    return Shown(document, charts.slots(parts, label), holdings, wording.share_text(document["free"] / slots))


def _who(owner: int | None, names: Mapping[int, str]) -> str:
    gone = "an experiment that is gone"
    return gone if owner is None else names.get(owner, gone)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _form(
    visit: Visit, row: Layer | None, typed: Mapping[str, str], problem: AssayError | None = None
) -> Response:
    problems, lost = beside(problem, set(_FIELDS), lambda path: path.partition(".")[0])
    return render(
        visit,
        "layer_form.html",
        status=problem.status if problem else 200,
        layer=row,
        typed=typed,
        problems=problems,
        problem=lost,
    )
