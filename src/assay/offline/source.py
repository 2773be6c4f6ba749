"""A file in an engine of its own: in memory, bounded, and unable to touch anything but that file."""

import contextlib
import csv
import glob
import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import duckdb
import sqlglot
from sqlglot import exp

from assay.errors import Invalid
from assay.offline.request import Format

_SUFFIXES: Final[Mapping[str, Format]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}
_PACKED: Final = (".gz", ".zst")
_DELIMITERS: Final = ",;\t|"
_WHOLE: Final = frozenset(
    {
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    }
)
# What other programs write where there is no number.
_NO_NUMBER: Final = "('', 'na', 'nan', 'null', 'none', 'n/a')"


class Source:
    """The rows of a file: `columns` from name to the engine's type, `reader` what to select from."""

    def __init__(self, engine: duckdb.DuckDBPyConnection, name: str, reader: str) -> None:
        self._engine = engine
        self.name = name
        self.reader = reader
        described = self.ask(f"DESCRIBE SELECT * FROM {reader}")
        self.columns: Mapping[str, str] = {row[0]: row[1] for row in described}

    def ask(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; what the engine says against it becomes one sentence that names the file."""
        try:
            return self._engine.execute(statement, list(parameters)).fetchall()
        except duckdb.Error as error:
            raise _said(self.name, error) from error

    def numbers(self, statement: str) -> dict[str, Any]:
        """Run a statement; its columns as arrays of doubles, by name."""
        try:
            return dict(self._engine.execute(statement).fetchnumpy())
        except duckdb.Error as error:
            raise _said(self.name, error) from error

    def need(self, option: str, column: str) -> str:
        """The column as an SQL identifier; raises `Invalid` when the file has none of that name."""
        if column in self.columns:
            return identifier(column)
        near = get_close_matches(column, self.columns, 1, 0.6)
        advice = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(list(self.columns)[:30])
        raise Invalid.field(option, f"{self.name} has no column {column!r}.{advice} It has {shown}.")

    def text(self, option: str, column: str) -> str:
        """The column as text, for names of units, variants and segments; empty text is no name."""
        found = self.need(option, column)
        kind = self.columns[column]
        if kind == "JSON":
            found = f"({found} ->> '$')"
        if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
            raise Invalid.field(option, f"{column!r} of {self.name} holds {kind}; a name is needed.")
        return f"nullif(trim(CAST({found} AS VARCHAR)), '')"

    def number(self, option: str, column: str) -> tuple[str, str]:
        """The column as a double, null where there is none, and the condition that a value is no number."""
        found = self.need(option, column)
        kind = self.columns[column]
        if kind == "BOOLEAN":
            return f"CAST({found} AS DOUBLE)", "false"
        if kind in _WHOLE or kind.startswith("DECIMAL"):
            return f"CAST({found} AS DOUBLE)", "false"
        if kind in {"FLOAT", "DOUBLE"}:
            value = f"CAST({found} AS DOUBLE)"
            return f"CASE WHEN NOT isnan({value}) THEN {value} END", f"coalesce(isinf({value}), false)"
        if kind == "JSON":
            found, kind = f"({found} ->> '$')", "VARCHAR"
        if kind == "VARCHAR":
            text = f"CASE WHEN lower(trim({found})) NOT IN {_NO_NUMBER} THEN trim({found}) END"
            value = f"coalesce(TRY_CAST({text} AS DOUBLE), CAST(TRY_CAST({text} AS BOOLEAN) AS DOUBLE))"
            return value, f"({text} IS NOT NULL AND coalesce(NOT isfinite({value}), true))"
        raise Invalid.field(option, f"{column!r} of {self.name} holds {kind}; numbers are needed.")

    def condition(self, option: str, text: str) -> str:
        """A predicate on the rows, read and written again, so that it cannot be anything else."""
        try:
            read = sqlglot.parse_one(text, into=exp.Condition, dialect="duckdb")
        except sqlglot.errors.SqlglotError as error:
            raise Invalid.field(
                option, f"{text!r} is not a condition on the columns, as in country = 'DE' AND age >= 18."
            ) from error
        if read.find(exp.Query, exp.Command, exp.Placeholder, exp.Parameter) is not None:
            raise Invalid.field(option, f"{text!r} may use columns, values and functions, but no subquery.")
        condition = f"({read.sql(dialect='duckdb', comments=False)})"
        try:
            self._engine.execute(f"SELECT 1 FROM {self.reader} WHERE {condition} LIMIT 0")
        except duckdb.Error as error:
            raise Invalid.field(option, f"{text!r}: {_first(error)}") from error
        return condition


def identifier(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def opened(path: str, form: Format | None, memory: str) -> Iterator[Source]:
    """The file, or all files that a pattern matches; raises `Invalid` when it cannot be read."""
    files = _files(path)
    name = files[0].name if len(files) == 1 else path
    how = form or _format(files[0])
    with tempfile.TemporaryDirectory(prefix="assay-offline-") as spill:
        try:
            engine = duckdb.connect(
                ":memory:",
                config={
                    "memory_limit": memory,
                    "temp_directory": spill,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
        except duckdb.Error as error:
            raise Invalid.field("--memory", f"{memory!r} is not a size such as 512MB or 4GiB.") from error
        with contextlib.closing(engine):
            allowed = ", ".join(literal(str(file)) for file in files)
            engine.execute(f"SET allowed_paths = [{allowed}]")
            engine.execute("SET enable_progress_bar = false")
            engine.execute("SET enable_external_access = false")
            engine.execute("SET lock_configuration = true")
            yield Source(engine, name, _reader(files, how))


def _files(path: str) -> list[Path]:
    if "://" in path:
        raise Invalid(f"{path}: only local files are read; fetch it first.")
    direct = Path(path)
    found = [direct] if direct.exists() else _matching(path)
    files = [each.absolute() for each in found if each.is_file()]
    if not found:
        raise Invalid(f"{path}: there is no such file.")
    if not files:
        raise Invalid(f"{path} is a directory; name a file in it, or a pattern such as {path}/*.parquet.")
    for file in files:
        try:
            with file.open("rb") as readable:
                empty = not readable.read(1)
        except OSError as error:
            raise Invalid(f"{file.name} cannot be read: {error.strerror}.") from error
        if empty:
            raise Invalid(f"{file.name} is empty.")
    return files


def _matching(pattern: str) -> list[Path]:
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - `Path.glob` takes no absolute pattern
    return [Path(each) for each in found]


def _format(file: Path) -> Format:
    name = file.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    found = _SUFFIXES.get(Path(name).suffix)
    if found is None:
        raise Invalid(
            f"{file.name}: the suffix tells no format; name it with --format (csv, parquet, ndjson)."
        )
    return found


def _reader(files: Sequence[Path], form: Format) -> str:
    listed = f"[{', '.join(literal(str(file)) for file in files)}]"
    if form == "parquet":
        return f"read_parquet({listed}, union_by_name = true, hive_partitioning = false)"
    if form == "ndjson":
        return (
            f"read_json({listed}, format = 'newline_delimited', records = true, union_by_name = true, "
            "sample_size = -1, convert_strings_to_integers = false, hive_partitioning = false)"
        )
    return _csv(files, listed)


def _csv(files: Sequence[Path], listed: str) -> str:
    """Columns come from the first line: an engine left to guess skips lines that it does not like."""
    common = "header = true, quote = '\"', escape = '\"', hive_partitioning = false"
    if any(file.suffix == ".zst" for file in files):
        return f"read_csv({listed}, all_varchar = true, union_by_name = true, {common})"
    headers = {_header(file) for file in files}
    if len(headers) > 1:
        raise Invalid(f"{files[0].parent}: the files do not all have the same first line, with the columns.")
    delimiter, names = headers.pop()
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({listed}, auto_detect = false, columns = {{{columns}}}, delim = {literal(delimiter)}, "
        f"{common})"
    )


def _header(file: Path) -> tuple[str, tuple[str, ...]]:
    """The delimiter of a file, and the names of its columns."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as readable:
            line = readable.readline(1_000_000)
        first = re.split("[\r\n]", line.decode("utf-8-sig"), maxsplit=1)[0]
    except UnicodeDecodeError as error:
        raise Invalid(f"The first line of {file.name} is not UTF-8 text, so it is no CSV file.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Invalid(f"{file.name} cannot be unpacked: it is no whole gzip file.") from error
    delimiter = max(_DELIMITERS, key=first.count)
    names = tuple(next(csv.reader([first], delimiter=delimiter), []))
    if not names:
        raise Invalid(f"{file.name}: the first line is empty; the names of the columns are expected there.")
    lowered = [name.lower() for name in names]
    repeated = next((name for name in names if lowered.count(name.lower()) > 1), None)
    if repeated is not None:
        raise Invalid(f"{file.name}: the column {repeated!r} occurs twice; each needs a name of its own.")
    return delimiter, names


def _said(name: str, error: duckdb.Error) -> Invalid:
    if isinstance(error, duckdb.OutOfMemoryException):
        return Invalid(f"{name}: more memory is needed than --memory allows; give it more.")
    if isinstance(error, duckdb.OutOfRangeException):
        return Invalid(f"{name}: a column has numbers too large to be squared; divide by a power of ten.")
    line = re.search(r"CSV Error on Line: (\d+)", str(error))
    if line:
        said = r"^(Expected Number of Columns.*|Value with unterminated quote.*|Invalid unicode.*)$"
        why = re.search(said, str(error), re.MULTILINE)
        what = f": {why[0].rstrip('.')}" if why else " cannot be split into the columns of the first line"
        return Invalid(f"{name}: line {line[1]}{what}.")
    return Invalid(f"{name} cannot be read: {_first(error)}")


def _first(error: duckdb.Error) -> str:
    text = re.sub(r"^[A-Za-z ]+Error: ", "", str(error).strip().splitlines()[0]).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
