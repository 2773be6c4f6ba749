"""Phases: stretches of a started experiment in which the split did not change.

The sample-ratio test and post-stratification need to know which split was in force when somebody came
in, so each change of it ends one phase and begins the next.
"""

from typing import Any

from sqlalchemy import select, update

from assay.catalog import documents
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.tables import Experiment, Phase


def split(experiment: Experiment) -> tuple[Any, ...]:
    """Everything that decides who gets what; two phases differ in it."""
    return (
        experiment.coverage,
        [(each.id, each.allocation, each.enabled) for each in experiment.variants if not each.removed],
        experiment.condition,
        experiment.layer,
        sorted(each.id for each in experiment.segments),
        [(each.parent_id, each.variants) for each in experiment.prerequisites],
    )


def open_next(tx: WriteTx, experiment: Experiment) -> None:
    """End the current phase, if there is one, and begin the next with the split now in force."""
    close(tx, experiment)
    experiment.phase += 1
    tx.add(
        Phase(
            experiment_id=experiment.id,
            number=experiment.phase,
            started_at=tx.now,
            ended_at=None,
            coverage=experiment.coverage,
            allocations=[
                {
                    "id": each.id,
                    "key": each.key,
                    "name": each.name,
                    "allocation": each.allocation,
                    "enabled": each.enabled,
                    "is_control": each.is_control,
                }
                for each in experiment.variants
                if not each.removed
            ],
            condition=experiment.condition,
            layer=experiment.layer,
            segments=sorted(each.id for each in experiment.segments),
            prerequisites=documents.prerequisites(experiment, of_holdouts=None) or None,
        )
    )


def close(tx: WriteTx, experiment: Experiment) -> None:
    """End the current phase."""
    tx.execute(
        update(Phase)
        .where(Phase.experiment_id == experiment.id, Phase.ended_at.is_(None))
        .values(ended_at=tx.now)
        .execution_options(synchronize_session=False)
    )


def listed(tx: ReadTx, experiment_id: int) -> list[Phase]:
    """All phases of an experiment, first to last."""
    return list(tx.scalars(select(Phase).where(Phase.experiment_id == experiment_id).order_by(Phase.number)))
