"""What is copied: each table's columns, and one text of a row that both sides can make, for checksums."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from functools import cache
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Integer, String
from sqlalchemy import Table as SqlTable

from assay.catalog.tables import Erasure, Inbox, Lease, ListDigest, Moment, Table

Row = Sequence[Any]

#: What each installation makes anew from the rest.
DERIVED: Final = ListDigest.__tablename__
#: What the event store there keeps of the events, and makes again when it is asked for.
ROLLUPS: Final = ("rollups", "rollup_rows", "rollups_gone", "rollup_wishes")
#: What has no place in another installation: what is drained first, and what only running processes say.
_LEFT: Final = frozenset({Inbox.__tablename__, Lease.__tablename__, Erasure.__tablename__, DERIVED})
#: Hexadecimal digits of a row's MD5 that count: the sum of so many bits is exact in every engine.
_DIGITS: Final = 15
#: Between the values of a row, and in the place of none.
_BETWEEN, _NONE = "\x1f", "\x1e"


class Kind(Enum):
    """How a column is written and compared."""

    NUMBER = auto()
    FLAG = auto()
    FLOAT = auto()
    TEXT = auto()
    JSON = auto()
    MOMENT = auto()
    LIST = auto()


@dataclass(frozen=True)
class Field:
    """A column; `longest` in characters, `indexed` where PostgreSQL keeps it in an index."""

    name: str
    kind: Kind
    longest: int | None = None
    indexed: bool = False


@dataclass(frozen=True)
class Copied:
    """One table; `key` orders its rows and names them, empty for tables that are short and copied whole."""

    name: str
    fields: tuple[Field, ...]
    key: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        """The columns, for a statement."""
        return ", ".join(f'"{each.name}"' for each in self.fields)


def _fields(numbers: str = "", texts: str = "", flags: str = "", floats: str = "") -> dict[str, Kind]:
    said = ((numbers, Kind.NUMBER), (texts, Kind.TEXT), (flags, Kind.FLAG), (floats, Kind.FLOAT))
    return {name: kind for names, kind in said for name in names.split()}


def _event_table(name: str, order: str, kinds: dict[str, Kind], *, key: tuple[str, ...] = ()) -> Copied:
    return Copied(name, tuple(Field(each, kinds[each]) for each in order.split()), key)


EVENTS: Final = _event_table(
    "events",
    "seq event_id original_id keyed user_id units type occurred_at counts_until received_at value amount "
    "properties experiment_id variant_id",
    _fields(
        numbers="seq occurred_at counts_until received_at experiment_id variant_id",
        texts="event_id original_id user_id units type properties",
        flags="keyed",
        floats="value amount",
    ),
    key=("seq",),
)
LEDGER: Final = _event_table(
    "ledger",
    "experiment_id type reason detail count samples",
    _fields(numbers="experiment_id count", texts="type reason detail") | {"samples": Kind.LIST},
)
IMPORTS: Final = _event_table(
    "imports",
    "digest rows_done events duplicates bad finished",
    _fields(numbers="rows_done events duplicates bad", texts="digest", flags="finished"),
)


@cache
def catalog() -> tuple[Copied, ...]:
    """The tables that lie in the SQLite file, assignments among them, in the order of their references."""
    return tuple(_copied(each) for each in Table.metadata.sorted_tables if each.name not in _LEFT)


def copied() -> tuple[Copied, ...]:
    """All that is copied, in the order in which it is."""
    return (*catalog(), LEDGER, IMPORTS, EVENTS)


def counted() -> dict[str, str]:
    """Every table of the database that numbers its rows, those left behind included, and the column."""
    return {
        str(each.name): str(column.name)
        for each in Table.metadata.sorted_tables
        for column in each.columns
        if column.identity is not None
    }


def _copied(table: SqlTable) -> Copied:
    indexed = {column.name for index in table.indexes for column in index.columns}
    indexed |= {column.name for column in table.columns if column.unique}
    indexed |= {
        column.name for constraint in table.constraints for column in getattr(constraint, "columns", ())
    }
    fields = tuple(_field(column, indexed=column.name in indexed) for column in table.columns)
    return Copied(str(table.name), fields, tuple(str(column.name) for column in table.primary_key.columns))


def _field(column: Column[Any], *, indexed: bool) -> Field:
    kind, name = column.type, str(column.name)
    if isinstance(kind, Moment):
        return Field(name, Kind.MOMENT)
    if isinstance(kind, JSON):
        return Field(name, Kind.JSON)
    if isinstance(kind, Boolean):
        return Field(name, Kind.FLAG)
    if isinstance(kind, Float):
        return Field(name, Kind.FLOAT)
    if isinstance(kind, String):
        return Field(name, Kind.TEXT, kind.length, indexed)
    if isinstance(kind, BigInteger | Integer):
        return Field(name, Kind.NUMBER)
    raise TypeError(f"{column} has a type that transfer does not know: {kind!r}")


# The text of a row, in Python, in PostgreSQL and in DuckDB.


def bits(value: float) -> int:
    """A float as the whole number with the same bits: equal only where the floats are the same."""
    number: int = struct.unpack(">q", struct.pack(">d", value))[0]
    return number


def _moment(text: str) -> str:
    """Both databases to the microsecond; SQLite may leave out a fraction that is zero."""
    return text if len(text) == 26 else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S.%f}"


_TEXTS: Final[dict[Kind, Callable[[Any], str]]] = {
    Kind.NUMBER: str,
    Kind.FLAG: lambda value: str(int(value)),
    Kind.FLOAT: lambda value: str(bits(value)),
    Kind.TEXT: str,
    Kind.JSON: str,
    Kind.MOMENT: _moment,
    Kind.LIST: _BETWEEN.join,
}
_POSTGRES: Final = {
    Kind.NUMBER: "CAST({} AS TEXT)",
    Kind.FLAG: "CAST(CAST({} AS INTEGER) AS TEXT)",
    Kind.FLOAT: "CAST(CAST(CAST('x' || encode(float8send({}), 'hex') AS BIT(64)) AS BIGINT) AS TEXT)",
    Kind.TEXT: "CAST({} AS TEXT)",
    Kind.JSON: "CAST({} AS TEXT)",
    Kind.MOMENT: "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    Kind.LIST: "array_to_string({}, chr(31))",
}
_DUCKDB: Final = {
    Kind.NUMBER: "CAST({} AS VARCHAR)",
    Kind.FLAG: "CAST(CAST({} AS INTEGER) AS VARCHAR)",
    Kind.FLOAT: "CAST(CAST(CAST({} AS BIT) AS BIGINT) AS VARCHAR)",
    Kind.TEXT: "CAST({} AS VARCHAR)",
}


class Sum:
    """Rows, and the sum of a hash of each: the same for the same rows in any order."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.rows = 0
        self.total = 0
        self._texts = [_TEXTS[each.kind] for each in fields]

    def add(self, rows: Iterable[Row]) -> None:
        """Count these rows in."""
        texts = self._texts
        for row in rows:
            line = _BETWEEN.join(
                [_NONE if value is None else text(value) for text, value in zip(texts, row, strict=True)]
            )
            digest = hashlib.md5(line.encode(), usedforsecurity=False).hexdigest()
            self.total += int(digest[:_DIGITS], 16)
            self.rows += 1


def _line(fields: Sequence[Field], texts: dict[Kind, str]) -> str:
    values = (f"coalesce({texts[each.kind].format(each.name)}, chr(30))" for each in fields)
    return f"concat_ws(chr(31), {', '.join(values)})"


def postgres_sum(table: Copied) -> str:
    """The question whose answer is `rows` and `total` of a `Sum`, for PostgreSQL."""
    quoted = [Field(f'"{each.name}"', each.kind) for each in table.fields]
    part = f"substr(md5({_line(quoted, _POSTGRES)}), 1, {_DIGITS})"
    hashed = f"CAST(CAST('x' || {part} AS BIT({4 * _DIGITS})) AS BIGINT)"
    return f"SELECT count(*), coalesce(sum({hashed}), 0) FROM {table.name}"


def duckdb_hash(table: Copied) -> str:
    """The hash of a row as an expression of DuckDB."""
    return f"CAST('0x' || substr(md5({_line(table.fields, _DUCKDB)}), 1, {_DIGITS}) AS BIGINT)"


def duckdb_copy_line(table: Copied) -> str:
    """A row as PostgreSQL's COPY reads it in its text form, as an expression of DuckDB."""
    values = []
    for each in table.fields:
        text = f"CAST({each.name} AS VARCHAR)"
        if each.kind is Kind.TEXT:
            for sign, letter in (("'\\'", "\\\\"), ("chr(9)", "\\t"), ("chr(10)", "\\n"), ("chr(13)", "\\r")):
                text = f"replace({text}, {sign}, '{letter}')"
        values.append(f"coalesce({text}, '\\N')")
    return f"concat_ws(chr(9), {', '.join(values)}) || chr(10)"
