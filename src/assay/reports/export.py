"""The numbers behind a report, to be recomputed elsewhere.

The sufficient statistics are one row for each metric, variant and phase: with them every mean, rate, test and
interval of the report can be made again. A metric that looks back has those of the time before, too; a
quantile has its sample, on the row of the first phase of each split. The rows behind them can be had one by
one: each unit with its numbers, and each event.
"""

import csv
import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import duckdb
import msgspec

from assay.events.timestamps import iso
from assay.eventstore.base import Cursor, EventFilter, EventStore
from assay.eventstore.columns import UnitList
from assay.reports.arms import BEFORE_AMOUNT, BEFORE_RATIO, BEFORE_SHARE, COLUMNS, Sample, Tally
from assay.reports.report import MetricReport, Report
from assay.reports.units import UnitTable

Format = Literal["csv", "parquet", "json"]
Kind = Literal["statistics", "dimensions", "users", "events"]
MEDIA: Mapping[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}
Row = dict[str, Any]
#: Rows read from a store at once.
_PAGE = 10_000

_TYPES = {int: "BIGINT", float: "DOUBLE", str: "VARCHAR", bool: "BOOLEAN"}
#: Columns that a metric's units may have, each kind of metric those of one line.
_SETS = (COLUMNS, (*COLUMNS, *BEFORE_SHARE), (*COLUMNS, *BEFORE_AMOUNT), (*COLUMNS, *BEFORE_RATIO))
_PAIRS = tuple(dict.fromkeys((x, y) for names in _SETS for i, x in enumerate(names) for y in names[i:]))
_SAMPLE: Mapping[str, type] = {
    "quantile": float,
    "observations": int,
    "observing_units": int,
    "quantile_value": float,
    "lower_neighbour": float,
    "upper_neighbour": float,
    "mean_below": float,
    "mean_observations": float,
    "cov_below_below": float,
    "cov_below_observations": float,
    "cov_observations_observations": float,
}
#: The columns of the sufficient statistics.
STATISTICS: Mapping[str, type] = {
    "metric": str,
    "type": str,
    "event_type": str,
    "property": str,
    "variant_id": int,
    "variant": str,
    "phase": int,
    "units": int,
    "converters": int,
    "events": int,
    "total": float,
    "unreadable": int,
    "cap_low": float,
    "cap_high": float,
    **{f"mean_{column}": float for column in dict.fromkeys(name for names in _SETS for name in names)},
    **{f"cov_{x}_{y}": float for x, y in _PAIRS},
    **_SAMPLE,
}
_USERS: Mapping[str, type] = {
    "unit_id": str,
    "variant_id": int,
    "variant": str,
    "phase": int,
    "assigned_at": str,
}
#: The columns of effects by attribute.
DIMENSIONS: Mapping[str, type] = {
    "attribute": str,
    "metric": str,
    "treatment": str,
    "kind": str,
    "value": str,
    "units_control": int,
    "units_treatment": int,
    "control": float,
    "treatment_value": float,
    "difference": float,
    "standard_error": float,
    "low": float,
    "high": float,
    "lift": float,
    "p_value": float,
    "adjusted_p_value": float,
    "significant": bool,
    "too_few_units": bool,
    "shrunken": float,
    "shrunken_error": float,
    "gate_p_value": float,
    "gate_adjusted_p_value": float,
    "gate_differs": bool,
}
#: The columns of events.
EVENTS: Mapping[str, type] = {
    "event_id": str,
    "user_id": str,
    "type": str,
    "timestamp": str,
    "received_at": str,
    "value": float,
    "amount": float,
    "properties": str,
    "experiment_id": int,
    "variant_id": int,
}


def sufficient_statistics(report: Report) -> Iterator[Row]:
    """One row for each metric, variant and phase; covariances are those of a sample.

    Columns that a metric does not have are None.
    """
    for each in report.metrics:
        metric = each.metric
        for variant in report.variants:
            for phase, tally in sorted(each.tallies.get(variant.id, {}).items()):
                yield {
                    "metric": metric.key,
                    "type": str(metric.type),
                    "event_type": metric.event_type,
                    "property": metric.prop,
                    "variant_id": variant.id,
                    "variant": variant.key,
                    "phase": phase,
                    "units": tally.units,
                    "converters": tally.converters,
                    "events": tally.events,
                    "total": tally.total,
                    "unreadable": tally.unreadable,
                    "cap_low": None if tally.cap is None else tally.cap.low,
                    "cap_high": None if tally.cap is None else tally.cap.high,
                    **_moments(tally),
                    **_sample(_sample_of(each, variant.id, phase)),
                }


def by_dimension(report: Report) -> Iterator[Row]:
    """One row for each attribute, metric, treatment and group; values are JSON."""
    control = report.spec.control
    for by in report.dimensions:
        for of in by.metrics:
            for gate in of.gates:
                for each in gate.effects:
                    numbers, pulled = each.numbers, each.shrunken
                    low, high = numbers.interval or (None, None)
                    yield {
                        "attribute": by.attribute,
                        "metric": of.metric.key,
                        "treatment": gate.treatment.key,
                        "kind": each.group.kind,
                        "value": None
                        if each.group.kind != "value"
                        else msgspec.json.encode(each.group.value).decode(),
                        "units_control": 0 if control is None else each.group.units.get(control.id, 0),
                        "units_treatment": each.group.units.get(gate.treatment.id, 0),
                        "control": numbers.control,
                        "treatment_value": numbers.treatment,
                        "difference": numbers.difference,
                        "standard_error": numbers.standard_error,
                        "low": low,
                        "high": high,
                        "lift": numbers.lift,
                        "p_value": numbers.p_value,
                        "adjusted_p_value": each.adjusted_p_value,
                        "significant": each.significant,
                        "too_few_units": each.too_few,
                        "shrunken": None if pulled is None else pulled.estimate,
                        "shrunken_error": None if pulled is None else pulled.standard_error,
                        "gate_p_value": gate.found.p_value,
                        "gate_adjusted_p_value": gate.adjusted_p_value,
                        "gate_differs": gate.differs,
                    }


def _moments(tally: Tally) -> Row:
    moments, names = tally.moments, set(tally.moments.columns)
    return {
        **{
            f"mean_{column}": moments.mean(column) if column in names else None
            for column in dict.fromkeys(name for names in _SETS for name in names)
        },
        **{f"cov_{x}_{y}": moments.covariance(x, y) if {x, y} <= names else None for x, y in _PAIRS},
    }


def _sample_of(of: MetricReport, variant_id: int, phase: int) -> Sample | None:
    """The sample of the split that begins with this phase."""
    found = of.quantiles
    return None if found is None else found.strata.get(variant_id, {}).get(phase)


def _sample(one: Sample | None) -> Row:
    if one is None:
        return dict.fromkeys(_SAMPLE)
    found, of = one.found, one.found.clusters
    values = (
        one.arm.q,
        found.events,
        found.units,
        found.value,
        found.lower,
        found.upper,
        *of.means,
        of.covariance[0][0],
        of.covariance[0][1],
        of.covariance[1][1],
    )
    return dict(zip(_SAMPLE, values, strict=True))


def user_columns(table: UnitTable) -> dict[str, type]:
    """What is known of a unit, and its numbers under `<metric>.<name>`."""
    numbers = (f"{metric.key}.{name}" for metric, names in table.columns.items() for name in names)
    return {**_USERS, **dict.fromkeys(numbers, float)}


def users(report: Report, table: UnitTable, store: EventStore) -> Iterator[Row]:
    """Every unit that is analysed, in the order in which they came; overridden ones are left out.

    The numbers of a metric are None for the units that it leaves out.
    """
    keys = {variant.id: variant.key for variant in report.spec.variants}
    columns = table.columns
    for row in table.rows(store):
        unit = row.unit
        yield {
            "unit_id": unit.unit_id,
            "variant_id": unit.variant_id,
            "variant": keys.get(unit.variant_id),
            "phase": unit.phase,
            "assigned_at": iso(unit.assigned_at),
            **{
                f"{metric.key}.{name}": value
                for metric, names in columns.items()
                for name, value in zip(names, row.numbers.get(metric, (None,) * len(names)), strict=True)
            },
        }


def events(store: EventStore, which: EventFilter, members: UnitList | None = None) -> Iterator[Row]:
    """Events as they were sent, newest first; those of `members` alone, where there are some."""
    among = None if members is None else frozenset(members.ids)
    after: Cursor | None = None
    while True:
        found, after = store.events(which, _PAGE, after)
        for event in found:
            if among is not None and event.user_id not in among:
                continue
            yield {
                "event_id": event.event_id,
                "user_id": event.user_id,
                "type": event.type,
                "timestamp": iso(event.occurred_at),
                "received_at": iso(event.received_at),
                "value": event.value,
                "amount": event.amount,
                "properties": event.properties,
                "experiment_id": event.experiment_id,
                "variant_id": event.variant_id,
            }
        if after is None:
            return


def written(columns: Mapping[str, type], rows: Iterator[Row], form: Format) -> Iterator[bytes]:
    """The rows in a file format, piece by piece."""
    if form == "csv":
        return _csv(columns, rows)
    return _json(rows) if form == "json" else _parquet(columns, rows)


def _csv(columns: Mapping[str, type], rows: Iterator[Row]) -> Iterator[bytes]:
    page = io.StringIO()
    writer = csv.DictWriter(page, list(columns))
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        if page.tell() > 1 << 16:
            yield page.getvalue().encode()
            page.seek(0)
            page.truncate()
    yield page.getvalue().encode()


def _json(rows: Iterator[Row]) -> Iterator[bytes]:
    encode = msgspec.json.Encoder().encode
    separator = b"["
    for row in rows:
        yield separator + encode(row)
        separator = b",\n"
    yield b"]" if separator != b"[" else b"[]"


def _parquet(columns: Mapping[str, type], rows: Iterator[Row]) -> Iterator[bytes]:
    """Through NDJSON and a file on disk, so that any number of rows takes the memory of a few."""
    encode = msgspec.json.Encoder().encode
    with tempfile.TemporaryDirectory() as folder:
        lines, target = Path(folder) / "rows.ndjson", Path(folder) / "rows.parquet"
        with lines.open("wb") as out:
            for row in rows:
                out.write(encode(row) + b"\n")
        names = (name.replace("'", "''") for name in columns)
        types = ", ".join(
            f"'{name}': '{_TYPES[kind]}'" for name, kind in zip(names, columns.values(), strict=True)
        )
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT * FROM read_ndjson($1, columns = {{{types}}})) TO '{target}' (FORMAT parquet)",
                [str(lines)],
            )
        with target.open("rb") as file:
            while piece := file.read(1 << 18):
                yield piece
