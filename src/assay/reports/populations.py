"""The units of a stored experiment as one number each, for whoever wants to deal them to arms anew.

The number is what the report averages: a unit's share in a ratio (its linearisation, as in the delta method),
and where a metric looks back, also its value less what least squares on the time before foretells.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from assay.eventstore.base import EventStore
from assay.reports.arms import value_of
from assay.reports.report import MetricReport, Report
from assay.reports.spec import MetricType
from assay.reports.units import UnitTable
from assay.stats.contrast import Ratio

Array = npt.NDArray[np.float64]


class Units(NamedTuple):
    """The values of one metric, or why there are none to deal."""

    name: str
    values: Array
    sentence: str | None = None


def populations(report: Report, store: EventStore) -> Iterator[Units]:
    """By metric, those that look back twice: as they are, and adjusted for the time before.

    Raises `Unavailable`.
    """
    for of in report.metrics:
        if of.metric.type is MetricType.QUANTILE:
            yield _none(of, "is a quantile; only what is averaged over units can be simulated.")
            continue
        columns = _columns(UnitTable.of(report, [of]), of, store)
        value = value_of(of.metric)
        name = "/".join(value) if isinstance(value, Ratio) else value.column
        values = _linear(columns, name)
        if values is None or values.min() == values.max():
            yield _none(of, "is the same for all units; there is nothing to simulate.")
            continue
        yield Units(of.metric.key, values)
        adjusted = _adjusted(columns, values, _covariates(of))
        if adjusted is not None:
            yield Units(f"{of.metric.key}, adjusted", adjusted)


def _none(of: MetricReport, why: str) -> Units:
    return Units(of.metric.key, np.empty(0), f"{of.metric.key} {why}")


def _columns(table: UnitTable, of: MetricReport, store: EventStore) -> Mapping[str, Array]:
    rows = [row.numbers[of.metric] for row in table.rows(store) if of.metric in row.numbers]
    names = table.columns[of.metric]
    return dict(zip(names, np.array(rows, dtype=np.float64).reshape(-1, len(names)).T, strict=True))


def _covariates(of: MetricReport) -> tuple[str, ...]:
    """What the report adjusts by in any of its comparisons."""
    return next(
        (each.judged.covariates for each in of.comparisons if each.judged and each.judged.covariates), ()
    )


def _linear(columns: Mapping[str, Array], name: str) -> Array | None:
    """A column; or a ratio's units, whose mean is the ratio. None where nothing can be divided."""
    if "/" not in name:
        return columns[name] if len(columns[name]) else None
    above, below = (columns[each] for each in name.split("/"))
    if not below.any() or below.mean() == 0.0:
        return None
    ratio = above.mean() / below.mean()
    found: Array = ratio + (above - ratio * below) / below.mean()
    return found


def _adjusted(columns: Mapping[str, Array], values: Array, covariates: tuple[str, ...]) -> Array | None:
    past = [found for name in covariates if (found := _linear(columns, name)) is not None]
    centred = [each - each.mean() for each in past if each.min() < each.max()]
    if not centred:
        return None
    design = np.column_stack(centred)
    scale = np.sqrt((design**2).sum(axis=0))
    slopes = np.linalg.lstsq(design / scale, values - values.mean(), rcond=1e-5)[0]
    adjusted: Array = values - design @ (slopes / scale)
    return adjusted
