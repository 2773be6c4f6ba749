"""Overrides: units that are served a variant by decree. They are left out of results."""

from typing import Self

from pydantic import Field, model_validator
from sqlalchemy import func, select

from assay.catalog.checks import Input, Name, refuse, shown, storable
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import find_variant
from assay.catalog.tables import Experiment, Override, Variant
from assay.errors import Conflict, Invalid, NotFound

_MAX_OVERRIDES = 10_000


class OverrideInput(Input):
    """The variant to serve."""

    variant: Name | int | None = Field(default=None, description="Id, key or name of the variant.")
    variant_id: int | None = Field(default=None, description="The same as `variant`.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.variant is None) == (self.variant_id is None):
            raise refuse("is required: the id, key or name of the variant to serve", "variant")
        return self


def put(tx: WriteTx, experiment: Experiment, unit_id: str, given: OverrideInput) -> tuple[Override, Variant]:
    """Serve `unit_id` the given variant, whatever the rules say."""
    wanted = given.variant if given.variant is not None else given.variant_id
    try:
        variant = find_variant(experiment, wanted if wanted is not None else "")
    except NotFound as error:
        raise Invalid.field("variant", error.detail, code="unknown_variant") from error
    row = tx.get(Override, (experiment.id, unit_id))
    if row is None:
        count = select(func.count()).select_from(Override).where(Override.experiment_id == experiment.id)
        if (tx.scalar(count) or 0) >= _MAX_OVERRIDES:
            raise Conflict(
                f"An experiment has at most {_MAX_OVERRIDES} overrides; use a segment.",
                code="too_many_overrides",
            )
        row = Override(experiment_id=experiment.id, unit_id=unit_id, variant_id=variant.id, created_at=tx.now)
        tx.add(row)
        _record(tx, experiment, unit_id, None, variant.key)
    elif row.variant_id != variant.id:
        before = next((each.key for each in experiment.variants if each.id == row.variant_id), None)
        row.variant_id = variant.id
        row.created_at = tx.now
        _record(tx, experiment, unit_id, before, variant.key)
    return row, variant


def remove(tx: WriteTx, experiment: Experiment, unit_id: str) -> None:
    """Let the rules decide again. Raises `NotFound`."""
    row = tx.get(Override, (experiment.id, unit_id)) if storable(unit_id) else None
    if row is None:
        raise NotFound(
            f"Experiment {experiment.key} has no override for {shown(unit_id)}.", code="no_override"
        )
    before = next((each.key for each in experiment.variants if each.id == row.variant_id), None)
    tx.delete(row)
    _record(tx, experiment, unit_id, before, None)


def listed(
    tx: ReadTx, experiment: Experiment, *, skip: int = 0, limit: int = 100
) -> tuple[list[tuple[Override, Variant]], int]:
    """An experiment's overrides by unit, and how many there are."""
    mine = Override.experiment_id == experiment.id
    total = tx.scalar(select(func.count()).select_from(Override).where(mine)) or 0
    rows = tx.scalars(select(Override).where(mine).order_by(Override.unit_id).offset(skip).limit(limit))
    arms = {each.id: each for each in experiment.variants}
    return [(row, arms[row.variant_id]) for row in rows], total


def _record(tx: WriteTx, experiment: Experiment, unit_id: str, before: str | None, after: str | None) -> None:
    experiment.version += 1
    experiment.updated_at = tx.now
    changes = {"variant": {"from": before, "to": after}}
    action = "override.set" if after is not None else "override.remove"
    tx.record(
        action, "experiment", experiment.id, experiment_id=experiment.id, user_id=unit_id, changes=changes
    )


def units(tx: ReadTx, experiment_id: int) -> frozenset[str]:
    """Every unit with an override, which results leave out."""
    return frozenset(tx.scalars(select(Override.unit_id).where(Override.experiment_id == experiment_id)))
