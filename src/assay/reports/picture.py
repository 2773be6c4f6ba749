"""The catalog's rows of one experiment as the frozen picture that reports read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from assay.catalog import editing, phases
from assay.catalog.database import ReadTx
from assay.catalog.tables import Experiment, Override, Phase
from assay.reports.spec import Direction, ExperimentSpec, MetricSpec, MetricType, PhaseSpec, Role, VariantSpec


def read_spec(tx: ReadTx, reference: int | str) -> ExperimentSpec:
    """The picture of the experiment with this id or key. Raises `NotFound`."""
    experiment = editing.find(tx, reference)
    overridden = tx.scalars(select(Override.unit_id).where(Override.experiment_id == experiment.id))
    return spec_of(experiment, phases.listed(tx, experiment.id), overridden)


def spec_of(experiment: Experiment, history: Sequence[Phase], overridden: Iterable[str]) -> ExperimentSpec:
    """The picture that these rows make."""
    return ExperimentSpec(
        id=experiment.id,
        key=experiment.key,
        name=experiment.name,
        status=experiment.status,
        created_at=experiment.created_at,
        variants=tuple(
            VariantSpec(row.id, row.key, row.name, row.allocation, row.is_control, row.enabled, row.removed)
            for row in experiment.variants
        ),
        description=experiment.description,
        unit=experiment.unit,
        phases=tuple(_phase(row) for row in history),
        started_at=experiment.started_at,
        ended_at=experiment.ended_at,
        metrics=tuple(_metric(metric) for metric in experiment.metrics),
        target_sample_size=experiment.target_sample_size,
        significance_level=experiment.significance_level,
        power=experiment.power,
        minimum_detectable_effect=experiment.minimum_detectable_effect,
        method=experiment.analysis.get("method", "fixed"),
        winner_id=experiment.winner_id,
        excluded_units=frozenset(overridden),
    )


def _phase(row: Phase) -> PhaseSpec:
    dealt = ((each["id"], each["allocation"] if each["enabled"] else 0.0) for each in row.allocations)
    return PhaseSpec(row.number, row.started_at, row.ended_at, tuple(dealt))


def _metric(stored: Mapping[str, Any]) -> MetricSpec:
    return MetricSpec(
        key=stored["key"],
        name=stored["name"],
        type=MetricType(stored["type"]),
        event_type=stored["event_type"],
        prop=stored["property"],
        direction=Direction(stored["direction"]),
        role=Role(stored["role"]),
    )
