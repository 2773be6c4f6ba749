"""Whether two event stores answer reports alike: counts exactly, moments but for the last digits."""

import math
from collections.abc import Iterator

from sqlalchemy import select

from assay.catalog.database import Database
from assay.catalog.tables import Experiment
from assay.eventstore.base import Arm, EventStore, Measure, UnitMoments
from assay.reports.arms import measure_of
from assay.reports.build import ANY_EVENT, scope_of
from assay.reports.picture import read_spec
from assay.reports.question import Question
from assay.reports.spec import ExperimentSpec

#: How far two floating-point sums over the same rows in another order may be apart, in parts of their size.
_APART = 1e-9


def experiments(database: Database) -> list[ExperimentSpec]:
    """Every experiment as reports see it, by id."""
    with database.reading() as tx:
        return [read_spec(tx, number) for number in tx.scalars(select(Experiment.id).order_by(Experiment.id))]


def difference(spec: ExperimentSpec, one: EventStore, other: EventStore) -> str | None:
    """What the two stores say differently of an experiment; None when they agree."""
    measures = {each.key: each for each in map(measure_of, (ANY_EVENT, *spec.metrics))}
    scope = scope_of(spec, Question())
    answers = [_by_arm(store.moments(scope, list(measures.values()))) for store in (one, other)]
    return next(_differences(answers[0], answers[1], measures), None)


def _by_arm(arms: list[Arm]) -> dict[tuple[int, int], Arm]:
    return {(arm.variant_id, arm.phase): arm for arm in arms}


def _differences(
    one: dict[tuple[int, int], Arm], other: dict[tuple[int, int], Arm], measures: dict[str, Measure]
) -> Iterator[str]:
    if one.keys() != other.keys():
        yield f"variants and phases {sorted(one)} and {sorted(other)}"
        return
    for (variant, phase), arm in one.items():
        where = f"variant {variant}, phase {phase}"
        if arm.units != other[variant, phase].units:
            yield f"{where}: {arm.units:,} and {other[variant, phase].units:,} units"
        for key, measure in measures.items():
            found, there = arm.measures[key], other[variant, phase].measures[key]
            if not _alike(found, there):
                yield f"{where}, {measure.event_type or 'any event'}: {found} and {there}"


def _alike(one: UnitMoments, other: UnitMoments) -> bool:
    if (one.count, one.converters, one.events) != (other.count, other.converters, other.events):
        return False
    # A covariance is the difference of squares: it is as exact as they are.
    squares = [max(mean * mean + one.covariance[place][place], 0.0) for place, mean in enumerate(one.means)]
    sizes = [math.sqrt(each) for each in squares]
    means = all(
        math.isclose(mean, there, rel_tol=_APART, abs_tol=_APART * size)
        for mean, there, size in zip(one.means, other.means, sizes, strict=True)
    )
    covariances = all(
        math.isclose(
            one.covariance[row][column],
            other.covariance[row][column],
            rel_tol=_APART,
            abs_tol=_APART * sizes[row] * sizes[column],
        )
        for row in range(3)
        for column in range(3)
    )
    total = math.isclose(one.total, other.total, rel_tol=_APART, abs_tol=_APART * sizes[2] * one.count)
    return means and covariances and total
