"""Looks: the moments at which a sequential verdict may change, each with what it said."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import select

from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.documents import iso
from assay.catalog.tables import Experiment, Look


class LookVerdictDocument(TypedDict):
    """What a comparison showed at a look: `crossed` says whether `z` was beyond `limit`."""

    metric: str
    treatment_id: int
    z: float | None
    limit: float | None
    crossed: bool | None
    estimate: float | None
    interval: dict[str, float | None] | None
    p_value: float | None


class LookDocument(TypedDict):
    """One look: at how many units, and what share of the planned information."""

    number: int
    at: str
    made_by: str
    units: int
    information_fraction: float
    verdicts: list[LookVerdictDocument]


def document(row: Look) -> dict[str, Any]:
    """A look as callers see it."""
    return {
        "number": row.number,
        "at": iso(row.at),
        "made_by": row.made_by,
        "units": row.units,
        "information_fraction": row.fraction,
        "verdicts": [
            {**each, "interval": dict(zip(("low", "high"), each["interval"], strict=True))}
            if each["interval"]
            else each
            for each in row.verdicts
        ],
    }


def listed(tx: ReadTx, experiment_id: int) -> Sequence[Look]:
    """All looks of an experiment, first to last."""
    return tx.scalars(select(Look).where(Look.experiment_id == experiment_id).order_by(Look.number)).all()


def find(tx: ReadTx, experiment_id: int, number: int) -> Look | None:
    """The look with this number, if it has been made."""
    return tx.get(Look, (experiment_id, number))


def add(
    tx: WriteTx,
    experiment: Experiment,
    number: int,
    *,
    at: datetime,
    units: int,
    fraction: float,
    verdicts: list[dict[str, Any]],
) -> tuple[Look, bool]:
    """Keep a look, and True; if somebody has made the one of this number already, that one, and False."""
    made = find(tx, experiment.id, number)
    if made is not None:
        return made, False
    row = Look(
        experiment_id=experiment.id,
        number=number,
        at=at,
        units=units,
        fraction=fraction,
        verdicts=verdicts,
        made_by=tx.actor.name,
    )
    tx.add(row)
    crossed = [
        {"metric": each["metric"], "treatment_id": each["treatment_id"]}
        for each in verdicts
        if each["crossed"]
    ]
    tx.record(
        "look.make",
        "look",
        number,
        experiment_id=experiment.id,
        changes={"units": units, "information_fraction": fraction, "crossed": crossed},
    )
    return row, True
