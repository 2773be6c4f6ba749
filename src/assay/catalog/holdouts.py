"""Holdouts: a share of the units kept out of new experiments, and of what is rolled out after them.

A holdout is an experiment with the variants `held_out`, its control, and `in`. So it has metrics, a plan, and
a report that says what everything that was tried and rolled out has brought.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Self, TypedDict

from pydantic import Field, model_validator
from sqlalchemy import func, select

from assay.bucketing.ruleset import Status
from assay.catalog import documents, experiments, layers, lifecycle
from assay.catalog.checks import Input, KeyText, Name, OuterId, Prose, Reference, Time, parse, refuse, shown
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import changing, expect_version, find, state_forbids, whole
from assay.catalog.inputs import ExperimentCreate, StatusText
from assay.catalog.prerequisites import HELD_OUT, IN
from assay.catalog.tables import Experiment, Prerequisite
from assay.errors import Invalid, NotFound

#: A larger share would cost every experiment half of its units.
MAX_SHARE = 0.5


Share = Annotated[float, Field(gt=0, le=MAX_SHARE)]


class HoldoutInput(Input):
    """A new holdout: of everything that starts while it runs, or of one layer, or of certain experiments."""

    key: KeyText | None = Field(default=None, description="By default made from the name.")
    name: Name
    description: Prose = ""
    hypothesis: Prose = ""
    owner: Name | None = None
    share: Share = Field(description="Share of the units that is kept out.")
    unit: OuterId = "user_id"
    layer: Reference | None = Field(default=None, description="Keep out of this layer's experiments alone.")
    experiments: Annotated[list[Reference], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Keep out of these alone; none of them may have started."
    )
    metrics: list[Any] = Field(default_factory=list, description="As those of an experiment.")
    primary_metric: Name | None = None
    status: StatusText | None = None
    start_at: Time | None = None
    end_at: Time | None = None

    @model_validator(mode="after")
    def _one_scope(self) -> Self:
        if self.layer is not None and self.experiments is not None:
            raise refuse("and layer both say what units are kept out of; give one of them", "experiments")
        return self


class HoldoutEdit(Input):
    """A change of a holdout: only what is given changes; once it has started, only words do."""

    name: Name = ""
    description: Prose = ""
    hypothesis: Prose = ""
    owner: Name | None = None
    share: Share = MAX_SHARE
    layer: Reference | None = None
    experiments: Annotated[list[Reference], Field(min_length=1, max_length=1000)] | None = None
    status: StatusText | None = None
    version: int | None = None


class Covered(TypedDict):
    """An experiment that a holdout keeps units out of."""

    id: int
    key: str
    name: str
    status: str


class HoldoutDocument(TypedDict):
    """A holdout; `layer` and `experiments` are null where it means everything; `covered` is what there is."""

    id: int
    key: str
    name: str
    description: str
    status: str
    unit: str
    share: float
    layer: str | None
    experiments: list[int] | None
    covered: list[Covered]
    created_at: str
    started_at: str | None
    ended_at: str | None
    version: int


def find_holdout(tx: ReadTx, reference: int | str) -> Experiment:
    """The holdout with this id or key. Raises `NotFound`, also for an experiment that is none."""
    try:
        found = find(tx, reference)
    except NotFound:
        found = None
    if found is None or found.holdout is None:
        raise NotFound(f"There is no holdout {shown(reference)}.", code="unknown_holdout")
    return found


def page(tx: ReadTx, *, skip: int = 0, limit: int = 100) -> tuple[list[Experiment], int]:
    """The newest holdouts, archived ones left out, and how many there are."""
    mine = (Experiment.holdout.is_not(None), Experiment.status != Status.ARCHIVED)
    total = tx.scalar(select(func.count()).select_from(Experiment).where(*mine)) or 0
    rows = select(Experiment).where(*mine).order_by(Experiment.id.desc()).offset(skip).limit(limit)
    return list(tx.scalars(rows.options(*whole()))), total


def create(tx: WriteTx, given: HoldoutInput) -> Experiment:
    """A new holdout; a draft unless its status says running."""
    body = given.model_dump(exclude={"share", "layer", "experiments"}, exclude_unset=True)
    arms = [
        {"key": HELD_OUT, "name": HELD_OUT, "allocation": given.share, "is_control": True},
        {"key": IN, "name": IN, "allocation": 1 - given.share},
    ]
    return experiments.create(
        tx,
        parse(ExperimentCreate, {**body, "variants": arms}),
        holdout=_scope(tx, given.layer, given.experiments, given.unit),
    )


def edit(
    tx: WriteTx, holdout: Experiment, given: HoldoutEdit, *, expected: frozenset[int] | None = None
) -> None:
    """Change a holdout. Raises `Conflict` for another share or scope of one that has started."""
    expect_version(holdout.version, expected)
    if given.version is not None:
        expect_version(holdout.version, frozenset({given.version}))
    decides = given.given("share") or given.given("layer") or given.given("experiments")
    if decides and holdout.status != Status.DRAFT:
        raise state_forbids(holdout, "its share and what it covers can no longer change")
    with changing(tx, holdout, "experiment.edit"):
        for name in ("name", "description", "hypothesis", "owner"):
            if given.given(name):
                setattr(holdout, name, getattr(given, name))
        if given.given("share"):
            for each in holdout.variants:
                each.allocation = given.share if each.key == HELD_OUT else 1 - given.share
        if given.given("layer") or given.given("experiments"):
            if given.layer is not None and given.experiments is not None:
                raise Invalid.field("experiments", "and layer both say what units are kept out of")
            holdout.holdout = _scope(tx, given.layer, given.experiments, holdout.unit)
    if given.status is not None:
        lifecycle.bring_to(tx, holdout, given.status)


def listed(tx: ReadTx, holdouts: Sequence[Experiment]) -> list[HoldoutDocument]:
    """Holdouts as the API answers them, with what they cover."""
    covered: dict[int, list[Covered]] = {each.id: [] for each in holdouts}
    rows = tx.execute(
        select(Prerequisite.parent_id, Experiment.id, Experiment.key, Experiment.name, Experiment.status)
        .join(Experiment, Experiment.id == Prerequisite.experiment_id)
        .where(Prerequisite.parent_id.in_(covered), Prerequisite.holdout.is_(True))
        .order_by(Experiment.id)
    )
    for parent, number, key, name, status in rows:
        covered[parent].append({"id": number, "key": key, "name": name, "status": str(status)})
    return [_document(each, covered[each.id]) for each in holdouts]


def _document(row: Experiment, covered: list[Covered]) -> HoldoutDocument:
    scope = row.holdout or {}
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "description": row.description,
        "status": str(row.status),
        "unit": row.unit,
        "share": next((each.allocation for each in row.variants if each.key == HELD_OUT), 0.0),
        "layer": scope.get("layer"),
        "experiments": scope.get("experiments"),
        "covered": covered,
        "created_at": documents.iso(row.created_at),
        "started_at": documents.iso_or_none(row.started_at),
        "ended_at": documents.iso_or_none(row.ended_at),
        "version": row.version,
    }


def _scope(
    tx: ReadTx, layer: int | str | None, chosen: Sequence[int | str] | None, unit: str
) -> dict[str, Any]:
    """What a holdout covers, as it is stored: nothing said is everything."""
    if layer is not None:
        try:
            found = layers.find(tx, layer)
        except NotFound as error:
            raise Invalid.field("layer", error.detail, code="unknown_layer") from error
        if found.unit != unit:
            raise Invalid.field("layer", f"must have the unit {shown(unit)}; it has {shown(found.unit)}")
        return {"layer_id": found.id, "layer": found.key}
    if chosen is None:
        return {}
    numbers = []
    for at, each in enumerate(chosen):
        try:
            experiment = find(tx, each)
        except NotFound as error:
            raise Invalid.field(f"experiments[{at}]", error.detail, code="unknown_experiment") from error
        if experiment.holdout is not None or experiment.status != Status.DRAFT or experiment.unit != unit:
            raise Invalid.field(
                f"experiments[{at}]",
                f"must be a draft on the unit {shown(unit)} and no holdout; {experiment.key} is "
                f"{experiment.status}, on {shown(experiment.unit)}",
            )
        numbers.append(experiment.id)
    return {"experiments": sorted(set(numbers))}
