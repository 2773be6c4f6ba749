"""Layers: experiments of which a unit can be in one at most."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import Field
from sqlalchemy import func, select

from assay.bucketing.hashing import SLOTS
from assay.bucketing.ruleset import Status
from assay.catalog import documents, keying, slots
from assay.catalog.checks import Input, KeyText, Name, OuterId, Prose, expect_storable, shown, storable
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.durations import Duration
from assay.catalog.editing import LIVE, as_id, expect_version, state_forbids
from assay.catalog.inputs import LayerShare
from assay.catalog.tables import Experiment, Layer
from assay.errors import Conflict, FieldError, Invalid, NotFound

#: A week: two experiments one after the other then meet on different days of the same weekdays.
WASH_OUT = "7d"


#: `from` is a word of Python, so that a class cannot have it.
StretchDocument = TypedDict(
    "StretchDocument",
    {
        "from": int,
        "to": int,
        "state": Literal["held", "washing_out", "free"],
        "experiment_id": int | None,
        "experiment_key": str | None,
        "since": str | None,
        "until": str | None,
    },
)


class LayerExperiment(TypedDict):
    """An experiment of a layer that is a draft or under way."""

    id: int
    key: str
    name: str
    status: str
    traffic_allocation: float
    share: float | None
    slots: list[list[int]]


class LayerDocument(TypedDict):
    """A layer: `slots` counts them all, and `stretches` say of each whose it is, [from, to) by [from, to).

    A stretch is held since a moment by an experiment, is washing out until a moment after one, or is free;
    the experiment is null where it was purged.
    """

    id: int
    key: str
    name: str
    description: str
    unit: str
    wash_out: str
    slots: int
    held: int
    washing_out: int
    free: int
    stretches: list[StretchDocument]
    experiments: list[LayerExperiment]
    created_at: str
    updated_at: str
    version: int


class LayerInput(Input):
    """A new layer."""

    key: KeyText | None = Field(default=None, description="By default made from the name; never changes.")
    name: Name
    description: Prose = ""
    unit: OuterId = Field(default="user_id", description="That of all its experiments; never changes.")
    wash_out: Duration = Field(
        default=WASH_OUT, description="How long a slot rests after an experiment; `0m` for no time."
    )


class LayerEdit(Input):
    """A change of a layer: only what is given changes. What an answer contains may be sent back."""

    name: Name = ""
    description: Prose = ""
    wash_out: Duration = WASH_OUT
    version: int | None = None
    key: Any = None
    unit: Any = None
    id: Any = None
    slots: Any = None
    held: Any = None
    washing_out: Any = None
    free: Any = None
    stretches: Any = None
    experiments: Any = None
    created_at: Any = None
    updated_at: Any = None


def find(tx: ReadTx, reference: int | str) -> Layer:
    """The layer with this id or key; all digits are an id. Raises `NotFound`."""
    number = as_id(reference)
    row = None
    if number is not None:
        row = tx.get(Layer, number)
    elif storable(str(reference)):
        row = tx.scalar(select(Layer).where(Layer.key == str(reference)))
    if row is None:
        raise NotFound(f"There is no layer {shown(reference)}.", code="unknown_layer")
    return row


def page(tx: ReadTx, *, q: str | None = None, skip: int = 0, limit: int = 100) -> tuple[list[Layer], int]:
    """The newest layers whose name or key contains `q`, and how many there are."""
    expect_storable("q", q)
    rows = select(Layer)
    if q:
        rows = rows.where(Layer.name.icontains(q, autoescape=True) | Layer.key.icontains(q, autoescape=True))
    total = tx.scalar(select(func.count()).select_from(rows.subquery())) or 0
    return list(tx.scalars(rows.order_by(Layer.id.desc()).offset(skip).limit(limit))), total


def create(tx: WriteTx, given: LayerInput) -> Layer:
    """A new layer, with all of its slots free."""
    row = Layer(
        key=keying.settled(tx, Layer.key, "layer", given.key, given.name),
        name=given.name,
        description=given.description,
        unit=given.unit,
        wash_out=given.wash_out,
        version=1,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.add(row)
    tx.flush()
    tx.record("layer.create", "layer", row.id, changes=documents.difference({}, _editable(row)))
    return row


def edit(tx: WriteTx, layer: Layer, given: LayerEdit, *, expected: frozenset[int] | None = None) -> None:
    """Change a layer; another wash-out holds at once, also for slots that are resting."""
    expect_version(layer.version, expected)
    if given.version is not None:
        expect_version(layer.version, frozenset({given.version}))
    for name in ("key", "unit"):
        if given.given(name) and getattr(given, name) != getattr(layer, name):
            raise Invalid.field(
                name,
                f"decides who is in which slot and cannot be changed; it is {shown(getattr(layer, name))}, "
                f"got {shown(getattr(given, name))}",
            )
    before = _editable(layer)
    for name in ("name", "description", "wash_out"):
        if given.given(name):
            setattr(layer, name, getattr(given, name))
    changes = documents.difference(before, _editable(layer))
    if changes:
        layer.version += 1
        layer.updated_at = tx.now
        tx.record("layer.edit", "layer", layer.id, changes=changes)


def remove(tx: WriteTx, layer: Layer) -> None:
    """Delete a layer in which nothing is under way, planned or resting. Raises `Conflict`."""
    users = tx.scalars(
        select(Experiment.key)
        .where(Experiment.layer_id == layer.id, Experiment.status.in_([Status.DRAFT, *LIVE]))
        .order_by(Experiment.id)
        .limit(5)
    )
    names = ", ".join(users)
    if names:
        raise Conflict(
            f"Layer {layer.key} has the experiments {names}: stop or delete them, or take drafts out of it.",
            code="layer_in_use",
        )
    resting = [each.until for each in slots.by_layer(tx, [layer], tx.now)[layer.id] if each.until is not None]
    if resting:
        raise Conflict(
            f"Slots of layer {layer.key} rest until {documents.iso(max(resting))}: "
            "delete it after that, or set wash_out to 0m before.",
            code="layer_in_use",
        )
    tx.record("layer.delete", "layer", layer.id, changes=documents.difference(_editable(layer), {}))
    tx.delete(layer)


def place(tx: ReadTx, experiment: Experiment, given: LayerShare | None) -> None:
    """Put an experiment into a layer with some share of it, or with None take it out.

    Raises `Conflict` where it has started and the layer would be another one, or the share a smaller one: the
    units it has would then be in slots that somebody else may get.
    """
    layer = _meant(tx, given) if given is not None else None
    before = experiment.layer
    if experiment.status != Status.DRAFT and (layer.id if layer else None) != experiment.layer_id:
        raise state_forbids(experiment, "its layer decides who gets what and can no longer change")
    if given is None or layer is None:
        experiment.layer, experiment.layer_id = None, None
        return
    has = before["slots"] if before else []
    if given.slots is not None and given.slots != has:
        raise Invalid.field(
            "layer.slots", "cannot be chosen: they are taken from free ones when the experiment starts"
        )
    same = before is not None and before["id"] == layer.id
    share = before["share"] if before and same and not given.given("share") else given.share
    if share is not None and experiment.status in LIVE and slots.number(share) < slots.held(before):
        raise Conflict(
            f"Experiment {experiment.key} is {experiment.status} and holds {slots.held(before) / SLOTS:g} of "
            f"layer {layer.key}: units in it stay, so its share can only grow; got {share:g}. To let fewer "
            "new ones in, lower traffic_allocation.",
            code="layer_share_shrinks",
            errors=[FieldError("layer.share", "can only grow while the experiment is under way")],
        )
    experiment.layer = {"id": layer.id, "key": layer.key, "share": share, "slots": has if same else []}
    experiment.layer_id = layer.id
    expect_unit(tx, experiment)


def expect_unit(tx: ReadTx, experiment: Experiment) -> None:
    """Refuse an experiment on another unit than its layer. Raises `Invalid`."""
    layer = tx.get(Layer, experiment.layer_id) if experiment.layer_id is not None else None
    if layer is not None and layer.unit != experiment.unit:
        raise Invalid.field(
            "unit",
            f"must be that of layer {layer.key}, {shown(layer.unit)}; got {shown(experiment.unit)}",
            code="layer_unit",
        )


def _meant(tx: ReadTx, given: LayerShare) -> Layer:
    named = [(name, each) for name, each in (("id", given.id), ("key", given.key)) if each is not None]
    try:
        found = [find(tx, each) for _, each in named]
    except NotFound as error:
        raise Invalid.field("layer", error.detail, code="unknown_layer") from error
    if found[0] is not found[-1]:
        raise Invalid.field("layer.key", f"is not that of layer {found[0].id}, which is {found[0].key}")
    return found[0]


def listed(tx: ReadTx, layers: Sequence[Layer], now: datetime) -> list[LayerDocument]:
    """Layers as the API answers them: who holds which slots, which rest until when, which are free."""
    stretches = slots.by_layer(tx, layers, now)
    joined = select(Experiment).where(Experiment.layer_id.in_([each.id for each in layers]))
    present = list(
        tx.scalars(joined.where(Experiment.status.in_([Status.DRAFT, *LIVE])).order_by(Experiment.id))
    )
    owners = {
        each.row.experiment_id for found in stretches.values() for each in found if each.row is not None
    }
    named = select(Experiment.id, Experiment.key).where(Experiment.id.in_(owners))
    keys = {each.id: each.key for each in tx.execute(named)}
    return [
        document(
            each,
            [_stretch(found, keys) for found in stretches[each.id]],
            [experiment for experiment in present if experiment.layer_id == each.id],
        )
        for each in layers
    ]


def document(
    row: Layer, stretches: list[StretchDocument], experiments: Sequence[Experiment]
) -> LayerDocument:
    """A layer with its slots, and its experiments that are drafts or under way."""
    sizes = dict.fromkeys(("held", "washing_out", "free"), 0)
    for each in stretches:
        sizes[each["state"]] += each["to"] - each["from"]
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "description": row.description,
        "unit": row.unit,
        "wash_out": row.wash_out,
        "slots": SLOTS,
        "held": sizes["held"],
        "washing_out": sizes["washing_out"],
        "free": sizes["free"],
        "stretches": stretches,
        "experiments": [
            {
                "id": each.id,
                "key": each.key,
                "name": each.name,
                "status": str(each.status),
                "traffic_allocation": each.coverage,
                "share": (each.layer or {})["share"],
                "slots": (each.layer or {})["slots"],
            }
            for each in experiments
        ],
        "created_at": documents.iso(row.created_at),
        "updated_at": documents.iso(row.updated_at),
        "version": row.version,
    }


def _stretch(found: slots.Stretch, keys: dict[int, str]) -> StretchDocument:
    row = found.row
    owner = None if row is None else row.experiment_id
    return {
        "from": found.low,
        "to": found.high,
        "state": "free" if row is None else "held" if found.until is None else "washing_out",
        "experiment_id": owner,
        "experiment_key": None if owner is None else keys.get(owner),
        "since": None if row is None else documents.iso(row.taken_at),
        "until": documents.iso_or_none(found.until),
    }


def _editable(layer: Layer) -> dict[str, object]:
    return {name: getattr(layer, name) for name in ("key", "name", "description", "unit", "wash_out")}
