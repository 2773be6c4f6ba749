"""Reading a file that is to be imported: which columns it has, and all of its rows under one name.

Rows keep the order of the file, so that a row's number names it and an interrupted import can go on.
CSV is read as text throughout; NDJSON as one text to a line, of which broken ones stay recognisable.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from assay.errors import Invalid
from assay.eventstore.base import BadRow, FileFormat
from assay.eventstore.dialects import pointer

LONGEST_SHOWN: Final = 100
_DELIMITERS: Final = ",;\t|"
_LONGEST_LINE: Final = 16_777_216
_TOLERANT: Final = f"max_line_size = {_LONGEST_LINE}, ignore_errors = true, store_rejects = true"


class Connection(Protocol):
    """The engine, as far as imports need it."""

    def execute(self, query: str, parameters: Any = None, /) -> Any:
        """Run a statement; the result has `fetchall` and `fetchmany`."""


class Source(NamedTuple):
    """A staged file: `staged` has its rows in order; `columns` says where each field is to be found."""

    rows: int
    place: str
    """The expression for a row's place in `staged`, from 0."""
    columns: Mapping[str, str]
    """From a field's name to the expression that gives it."""
    names: Mapping[str, str]
    """From a field's name to what the file calls it."""
    types: Mapping[str, str]
    """From a field's name to the engine's type of it."""
    extra: Mapping[str, str]
    """Columns that are no field, by name, as expressions."""
    broken: Sequence[BadRow]
    """Rows that could not be split into columns at all; they are not in `staged`."""

    def number(self, staged: int) -> int:
        """The number in the file, from 1, of the row at this place in `staged`, from 0."""
        number = staged + 1
        for row in self.broken:
            if row.row > number:
                break
            number += 1
        return number


def literal(text: str) -> str:
    """A text as an SQL literal; for places where the engine takes no parameter."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def stage(
    connection: Connection,
    path: Path,
    form: FileFormat,
    fields: Mapping[str, str],
    rename: Mapping[str, str],
    *,
    extra_allowed: bool,
) -> Source:
    """Make the file's rows the temporary table, or view, `staged`.

    `fields` maps every column name that may occur to the field it means, `rename` names of this file to such.
    Raises `Invalid` when the file has other columns, or two for one field.
    """
    if form is FileFormat.NDJSON:
        return _stage_lines(connection, path, fields, rename, extra_allowed=extra_allowed)
    if form is FileFormat.CSV:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE staged AS SELECT * FROM {_csv(path)}")
        place = "rowid"
    else:  # a stretch of rows can be read from the file itself
        reader = f"read_parquet({literal(str(path))}, file_row_number = true, hive_partitioning = false)"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW staged AS SELECT * FROM {reader}")
        place = "file_row_number"
    described = [row for row in connection.execute("DESCRIBE staged").fetchall() if row[0] != place]
    names, extra = _resolved([row[0] for row in described], fields, rename)
    if extra and not extra_allowed:
        known = ", ".join(dict.fromkeys(fields))
        message = f"The column {extra[0]!r} is not known; known are {known}. {_advice(extra[0], fields)}"
        raise Invalid(message, code="unknown_column")
    types = {row[0]: row[1] for row in described}
    return Source(
        connection.execute("SELECT count(*) FROM staged").fetchall()[0][0],
        place,
        {field: identifier(name) for field, name in names.items()},
        names,
        {field: types[name] for field, name in names.items()},
        {name: identifier(name) for name in extra},
        _broken(connection, 1) if form is FileFormat.CSV else (),
    )


def _csv(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(_LONGEST_LINE)
    try:
        first = re.split("[\r\n]", line.decode("utf-8-sig"), maxsplit=1)[0]
    except UnicodeDecodeError as error:
        raise Invalid(f"The first line of {path.name} is not UTF-8.", code="invalid_utf8") from error
    delimiter = max(_DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    if not names:
        raise Invalid(f"{path.name} is empty: a first line with the names of the columns is expected.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise Invalid(f"The column {repeated[0]!r} occurs twice in {path.name}.", code="repeated_column")
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({literal(str(path))}, auto_detect = false, header = true, columns = {{{columns}}}, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', {_TOLERANT})"
    )


def _stage_lines(
    connection: Connection,
    path: Path,
    fields: Mapping[str, str],
    rename: Mapping[str, str],
    *,
    extra_allowed: bool,
) -> Source:
    # A delimiter that JSON text cannot contain, and no quotes: every line is one value, whatever is in it.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE staged AS "
        "SELECT CASE WHEN readable THEN line END AS line, CASE WHEN NOT readable THEN line END AS unreadable "
        "FROM (SELECT line, coalesce(json_type(CASE WHEN json_valid(line) THEN line END), '') = 'OBJECT' "
        "AS readable "
        f"FROM read_csv({literal(str(path))}, auto_detect = false, header = false, "
        f"columns = {{'line': 'VARCHAR'}}, delim = '\x01', quote = '', escape = '', {_TOLERANT}) "
        "WHERE trim(line) <> '') AS lines"
    )
    found = connection.execute("SELECT DISTINCT unnest(json_keys(line)) FROM staged").fetchall()
    names, extra = _resolved(sorted(row[0] for row in found), fields, rename)
    columns = {field: _member(name, field) for field, name in names.items()} | {"line": "unreadable"}
    if extra and not extra_allowed:  # the rows that have them are bad
        columns |= _unknown(list(names.values()))
        extra = []
    return Source(
        connection.execute("SELECT count(*) FROM staged").fetchall()[0][0],
        "rowid",
        columns,
        names,
        dict.fromkeys(names, "VARCHAR"),
        {name: f"json_extract(line, {literal(pointer(name))})" for name in extra},
        _broken(connection, 0),
    )


def _unknown(known: Sequence[str]) -> dict[str, str]:
    """The first member of a line that is no field, and its value."""
    names = f"CAST([{', '.join(map(literal, known))}] AS VARCHAR[])"
    first = f"list_filter(json_keys(line), lambda name: NOT list_contains({names}, name))[1]"
    path = f"'/' || replace(replace({first}, '~', '~0'), '/', '~1')"
    return {
        "unknown": first,
        "unknown_value": f"coalesce(json_extract_string(line, {path}), 'null')",
    }


def _advice(name: str, fields: Mapping[str, str]) -> str:
    said = f"Say which field it is with --rename {name}=FIELD"
    if "properties" in fields:
        return f"{said}, or keep it as a property with --extra-as-properties."
    return f"{said}."


def _member(name: str, field: str) -> str:
    how = "json_extract" if field in {"properties", "units"} else "json_extract_string"
    found = f"{how}(line, {literal(pointer(name))})"
    return f"nullif(CAST({found} AS VARCHAR), 'null')" if how == "json_extract" else found


def _resolved(
    names: Sequence[str], fields: Mapping[str, str], rename: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """From fields to column names, and the columns that are none."""
    resolved: dict[str, str] = {}
    extra = []
    for name in names:
        field = fields.get(rename.get(name, name))
        if field is None:
            extra.append(name)
        elif field in resolved:
            both = f"{resolved[field]!r} and {name!r}"
            raise Invalid(f"The columns {both} both mean {field}.", code="repeated_column")
        else:
            resolved[field] = name
    return resolved, extra


def _broken(connection: Connection, header: int) -> list[BadRow]:
    """Lines that the reader of texts left out, under a header of so many lines."""
    rows = connection.execute(
        "SELECT line, first(csv_line), first(error_message) FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    return [
        BadRow(int(line) - header, "", cut(text), re.sub(r"\s+", " ", str(reason))[:200])
        for line, text, reason in rows
    ]


def cut(text: Any) -> str:
    """A value as text that fits a message."""
    shown = "" if text is None else str(text)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[: LONGEST_SHOWN - 1]}…"
