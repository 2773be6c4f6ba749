"""Taking in files in bulk, inside the engine: read, judged, and stored in chunks with the progress made."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from assay.eventstore import compose
from assay.eventstore.base import (
    EVENT_IDS,
    LARGEST_VALUE,
    AssignmentImport,
    AssignmentRow,
    BadRow,
    EventImport,
    Imported,
    Progress,
)
from assay.eventstore.dialects import pointer, timestamp
from assay.eventstore.reading import Connection, Source, cut, literal, stage
from assay.eventstore.statements import filled, statements

_SQL = statements("import")

#: Rows stored at once: the progress that a crash can cost, and what is held in memory.
CHUNK: Final = 250_000
#: Where the amount of an event is looked for, in this order, when it has no value.
AMOUNTS: Final = ("value", "amount", "price", "order_value", "revenue", "total")
_FUTURE: Final = 300_000_000

#: Names of columns in files of events, and the field each means.
EVENT_FIELDS: Final = {
    "event_id": "event_id",
    "user_id": "user_id",
    "type": "type",
    "event_name": "type",
    "timestamp": "timestamp",
    "value": "value",
    "properties": "properties",
    "experiment_id": "experiment",
    "experiment": "experiment",
    "variant_id": "variant_id",
    "units": "units",
}
#: The same for files of assignments.
ASSIGNMENT_FIELDS: Final = {
    "unit_id": "unit_id",
    "user_id": "unit_id",
    "variant": "variant",
    "variant_name": "variant",
    "variant_id": "variant",
    "assigned_at": "timestamp",
    "timestamp": "timestamp",
    "experiment": "experiment",
    "experiment_id": "experiment",
}
# A judged field: the name the file may call it by, and the column of its text in the table `chunk`.
_JUDGED: Final = {
    "line": "line",
    "unknown": "unknown_value",
    "user_id": "user_id",
    "type": "type",
    "event_id": "event_id",
    "timestamp": "timestamp_text",
    "value": "value_text",
    "properties": "properties",
    "units": "units",
    "experiment": "experiment",
    "variant_id": "variant_text",
}

_ASSIGNED: Final = ("line", "unknown", "unit_id", "variant", "timestamp")
_TEXTS: Final = ("line", "unknown", "unknown_value", "user_id", "type", "event_id", "experiment", "units")


class Target(Protocol):
    """The store that a file's events go to, beside the engine that reads the file."""

    def transaction(self) -> AbstractContextManager[Any]:
        """What is done while it is held is kept whole, or nothing of it."""

    def ask(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement on the store, within a transaction or as one; its rows."""

    def take(self, *, again: bool) -> tuple[int, int]:
        """Store what is in the reader's temporary table `incoming`: how many were new, how many repetitions.

        `again`: what the store has already was stored by an earlier run, and is not noted in the ledger.
        """


def events(
    connection: Connection,
    target: Target,
    what: EventImport,
    bad_row: Callable[[BadRow], None],
    progress: Callable[[Progress], None],
) -> Imported:
    """See `EventStore.import_events`; `connection` reads the file, `target` keeps what is in it."""
    digest = _digest(what)
    source = stage(
        connection, what.path, what.format, EVENT_FIELDS, what.rename, extra_allowed=what.extra_as_properties
    )
    with target.transaction():
        found = target.ask(_SQL["begun"], {"digest": digest})
        if not found:
            target.ask(_SQL["begin"], {"digest": digest})
    done, _, _, bad_before, again = found[0] if found else (0, 0, 0, 0, False)
    chunk, good = _statements(source)
    common = _common(what, digest)
    naming = _Naming(source, bad_row)

    def judge(first: int, end: int) -> int:
        connection.execute(chunk, {**common["chunk"], "first": first, "end": end})
        return naming.chunk(connection, end)

    start_over = bool(found) and done >= source.rows
    if not start_over:  # what an earlier run found bad is named again; perhaps it can be taken now
        bad_now = sum(judge(first, min(first + CHUNK, done)) for first in range(0, done, CHUNK))
        start_over = bad_now != bad_before
    if start_over:  # leaving out what is there already
        with target.transaction():
            target.ask(_SQL["restart"], {"digest": digest})
        done, again = 0, True
    resumed = done
    progress(Progress(done, source.rows))
    while done < source.rows:
        end = min(done + CHUNK, source.rows)
        bad = judge(done, end)
        with target.transaction():
            lowest = target.ask(_SQL["base"], {})[0][0]
            # Ascending within the chunk, so that of two rows with one id the first in the file stays.
            connection.execute(good, {**common["good"], "base": lowest - end})
            stored, duplicates = target.take(again=again)
            step = {
                "digest": digest,
                "rows_done": end,
                "events": stored,
                "duplicates": duplicates,
                "bad": bad,
            }
            target.ask(_SQL["step"], step)
        done = end
        progress(Progress(done, source.rows))
    naming.rest()
    totals = target.ask(_SQL["begun"], {"digest": digest})[0]
    broken = len(source.broken)
    return Imported(totals[0] + broken, totals[1], totals[2], totals[3] + broken, resumed)


def assignments(
    connection: Connection, what: AssignmentImport, bad_row: Callable[[BadRow], None]
) -> Iterator[list[AssignmentRow]]:
    """See `EventStore.read_assignments`."""
    source = stage(connection, what.path, what.format, ASSIGNMENT_FIELDS, what.rename, extra_allowed=False)
    broken = deque(source.broken)
    fields = ", ".join(
        (
            *(_field(source, field, field) for field in ("line", "unknown", "unknown_value")),
            *(_field(source, field, field) for field in ("unit_id", "variant", "experiment")),
            _raw(source, "timestamp"),
        )
    )
    start, _ = _time(source.types.get("timestamp"))
    statement = filled(_SQL["assignment_rows"], place=source.place, fields=fields, start=start)
    latest = timestamp(what.now + _FUTURE)
    unnamed = "" if "experiment" in source.columns else None
    for first in range(0, source.rows, CHUNK):
        parameters = {
            "now": what.now,
            "longest": what.name_length,
            "latest": latest,
            "first": first,
            "end": first + CHUNK,
        }
        chunk = []
        for row in connection.execute(statement, parameters).fetchall():
            place, experiment, unit_id, variant, at, *reasons, text, line, unknown, unknown_value = row
            number = source.number(place)
            while broken and broken[0].row < number:
                bad_row(broken.popleft())
            if not any(reasons):
                chunk.append(AssignmentRow(number, experiment or unnamed, unit_id, variant, at))
                continue
            named = zip(_ASSIGNED, (line, unknown_value, unit_id, variant, text), reasons, strict=True)
            for field, value, reason in named:
                if reason:
                    column = unknown if field == "unknown" else source.names.get(field, field)
                    bad_row(BadRow(number, column, cut(value), reason))
        yield chunk
    for rest in broken:
        bad_row(rest)


def _digest(what: EventImport) -> str:
    """What makes two imports the same: the bytes, and how they are to be understood."""
    digest = hashlib.sha256(repr((sorted(what.rename.items()), what.experiment_id)).encode())
    with what.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _common(what: EventImport, digest: str) -> dict[str, dict[str, Any]]:
    """The parameters that are the same for all chunks."""
    return {
        "chunk": {
            "longest": what.name_length,
            "latest": timestamp(what.now + _FUTURE),
            "names": list(what.experiments) or [""],
            "ids": list(what.experiments.values()) or [0],
        },
        "good": {"digest": digest, "now": timestamp(what.now), "experiment_id": what.experiment_id},
    }


def _statements(source: Source) -> tuple[str, str]:
    """The statements that read a chunk and that make events of its good rows."""
    start, span = _time(source.types.get("timestamp"))
    fields = (
        *(_field(source, field, field) for field in _TEXTS),
        _field(source, "variant_id", "variant_text"),
        f"{_properties(source)} AS properties",
        _raw(source, "timestamp"),
        _raw(source, "value"),
    )
    chunk = filled(
        _SQL["chunk"],
        place=source.place,
        fields=", ".join(fields),
        start=start,
        span=span,
        largest=f"{LARGEST_VALUE:g}",
    )
    found = (f"TRY_CAST(CAST(found[{place}] AS VARCHAR) AS DOUBLE)" for place in range(1, len(AMOUNTS) + 1))
    good = filled(
        _SQL["good"],
        amount=f"coalesce({', '.join(map(compose.bounded, found))})",
        amounts="[" + ", ".join(literal(pointer(name)) for name in AMOUNTS) + "]",
        namespace=literal(EVENT_IDS.hex),
        good=" AND ".join(f"wrong_{field} IS NULL" for field in _JUDGED),
    )
    return chunk, good


def _field(source: Source, field: str, name: str) -> str:
    """A text; empty is absent."""
    found = source.columns.get(field)
    return (
        f"CAST(NULL AS VARCHAR) AS {name}"
        if found is None
        else f"nullif(CAST({found} AS VARCHAR), '') AS {name}"
    )


def _raw(source: Source, field: str) -> str:
    """A value in the type that the file has it in; empty texts are absent."""
    found = source.columns.get(field)
    if found is None:
        return f"CAST(NULL AS VARCHAR) AS {field}_raw"
    return (
        f"nullif(trim({found}), '') AS {field}_raw"
        if source.types[field] == "VARCHAR"
        else f"{found} AS {field}_raw"
    )


def _properties(source: Source) -> str:
    """The properties as JSON text, with the columns that became properties."""
    found = source.columns.get("properties")
    own = "CAST(NULL AS VARCHAR)"
    if found is not None:
        text = source.types["properties"] in {"VARCHAR", "JSON"}
        own = f"nullif(CAST({found} AS VARCHAR), '')" if text else f"CAST(to_json({found}) AS VARCHAR)"
    if not source.extra:
        return own
    members = ", ".join(f"{literal(name)}, {_json(column)}" for name, column in source.extra.items())
    both = f"json_merge_patch(CAST(coalesce({own}, '{{}}') AS JSON), json_object({members}))"
    # What is no object stays as it is, to be refused under its own name.
    return f"CASE WHEN {own} IS NULL OR json_valid({own}) THEN CAST({both} AS VARCHAR) ELSE {own} END"


def _json(column: str) -> str:
    """A column as JSON; texts that are numbers become numbers, since in CSV everything is a text."""
    if column.startswith("json_extract("):
        return column
    text = f"CAST({column} AS VARCHAR)"
    number = f"regexp_full_match({text}, '-?(0|[1-9][0-9]*)([.][0-9]+)?')"
    return f"CASE WHEN {number} THEN CAST({text} AS JSON) ELSE to_json({column}) END"


def _time(type_: str | None) -> tuple[str, str]:
    """Expressions for a time in a column of this type, and for the µs beyond it that it may mean."""
    if type_ is None:
        return "CAST(NULL AS TIMESTAMP)", "0"
    if type_ == "VARCHAR":
        number, span = _SQL["number_start"], _SQL["number_span"]
        return filled(_SQL["iso_start"], number=number), filled(_SQL["iso_span"], number=span)
    exact = {"DATE": 86_399_999_999, "TIMESTAMP_S": 999_999, "TIMESTAMP_MS": 999}
    if type_.startswith("TIMESTAMP") or type_ == "DATE":
        return "TRY_CAST(timestamp_raw AS TIMESTAMP)", str(exact.get(type_, 0))
    return _SQL["number_start"], _SQL["number_span"]


class _Naming:
    """Names what is wrong, once and in the order of the file, lines that could not be split among it."""

    def __init__(self, source: Source, bad_row: Callable[[BadRow], None]) -> None:
        self._source = source
        self._bad_row = bad_row
        self._broken = deque(source.broken)
        self._named = 0

    def chunk(self, connection: Connection, end: int) -> int:
        """Name what is wrong in the table `chunk`, which ends there, unless it has been; how many rows."""
        parts = [
            f"SELECT place, {nth} AS nth, {self._column(field)} AS field, CAST({text} AS VARCHAR) AS text, "
            f"wrong_{field} AS reason FROM chunk WHERE wrong_{field} IS NOT NULL"
            for nth, (field, text) in enumerate(_JUDGED.items())
        ]
        result = connection.execute(f"{' UNION ALL '.join(parts)} ORDER BY place, nth")
        rows = 0
        last = None
        while batch := result.fetchmany(1_000):
            for place, _, field, text, reason in batch:
                rows += place != last
                last = place
                if place >= self._named:
                    self._name(BadRow(self._source.number(place), field, cut(text), reason))
        self._named = max(self._named, end)
        return rows

    def rest(self) -> None:
        """Name the lines that could not be split after the last row."""
        while self._broken:
            self._bad_row(self._broken.popleft())

    def _column(self, field: str) -> str:
        """The expression for what the file calls this field."""
        return "unknown" if field == "unknown" else literal(self._source.names.get(field, field))

    def _name(self, row: BadRow) -> None:
        while self._broken and self._broken[0].row < row.row:
            self._bad_row(self._broken.popleft())
        self._bad_row(row)
