"""The numbers behind a report, to be recomputed elsewhere.

The sufficient statistics are one row for each metric, variant and phase: with them every mean, rate, test and
interval of the report can be made again. The rows behind them can be had one by one.
"""

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import duckdb
import msgspec

from assay.assignments.base import Record
from assay.events.timestamps import iso
from assay.eventstore.base import Cursor, EventFilter, EventStore
from assay.reports.arms import COLUMNS
from assay.reports.report import Report
from assay.reports.spec import ExperimentSpec

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
_ROWS: Mapping[str, type] = {
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
    **{f"mean_{column}": float for column in COLUMNS},
    **{f"cov_{x}_{y}": float for i, x in enumerate(COLUMNS) for y in COLUMNS[i:]},
}
_USERS: Mapping[str, type] = {
    "unit_id": str,
    "variant_id": int,
    "variant": str,
    "phase": int,
    "assigned_at": str,
}
_DIMENSIONS: Mapping[str, type] = {
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
_EVENTS: Mapping[str, type] = {
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

#: A page of assignments: (experiment id, after this number, so many) -> numbered records.
Assignments = Callable[[int, int, int], Sequence[tuple[int, Record]]]


def sufficient_statistics(report: Report) -> Iterator[Row]:
    """One row for each metric, variant and phase; covariances are those of a sample."""
    for each in report.metrics:
        metric = each.metric
        for variant in report.variants:
            for phase, tally in sorted(each.tallies.get(variant.id, {}).items()):
                moments = tally.moments
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
                    **{f"mean_{column}": moments.mean(column) for column in COLUMNS},
                    **{
                        f"cov_{x}_{y}": moments.covariance(x, y)
                        for i, x in enumerate(COLUMNS)
                        for y in COLUMNS[i:]
                    },
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


def users(spec: ExperimentSpec, page: Assignments) -> Iterator[Row]:
    """Everybody who is in the experiment, in the order in which they came; overridden units are left out."""
    keys = {variant.id: variant.key for variant in spec.variants}
    after = 0
    while rows := page(spec.id, after, _PAGE):
        for seq, record in rows:
            after = seq
            if record.unit_id not in spec.excluded_units:
                yield {
                    "unit_id": record.unit_id,
                    "variant_id": record.variant_id,
                    "variant": keys.get(record.variant_id),
                    "phase": record.phase,
                    "assigned_at": iso(record.assigned_at),
                }


def events(store: EventStore, which: EventFilter) -> Iterator[Row]:
    """Events as they were sent, newest first."""
    after: Cursor | None = None
    while True:
        found, after = store.events(which, _PAGE, after)
        for event in found:
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


def written(kind: Kind, rows: Iterator[Row], form: Format) -> Iterator[bytes]:
    """The rows in a file format, piece by piece."""
    columns = {"statistics": _ROWS, "dimensions": _DIMENSIONS, "users": _USERS, "events": _EVENTS}[kind]
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
        types = ", ".join(f"'{name}': '{_TYPES[kind]}'" for name, kind in columns.items())
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT * FROM read_ndjson($1, columns = {{{types}}})) TO '{target}' (FORMAT parquet)",
                [str(lines)],
            )
        with target.open("rb") as file:
            while piece := file.read(1 << 18):
                yield piece
