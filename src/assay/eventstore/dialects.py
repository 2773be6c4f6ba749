"""What the engines say differently: times, and values in JSON texts. Everything else is one text for all.

A statement is put together for one engine. Texts come from here, values are bound: a property, a filter's
value or a unit may be called anything.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, Protocol

from assay.eventstore.columns import Scalar
from assay.eventstore.statements import statements

#: Files of which PostgreSQL has some statements of its own.
_OWN = {"questions", "reversals", "rollups", "trust"}
_LONGEST = 50_000_000_000_000_000
_PLACEHOLDER = re.compile(r"\$(\w+)")


class Dialect(Protocol):
    """One engine's spelling."""

    follows: bool
    """Whether rollups follow behind the events, and are not carried along with them."""
    once: str
    """Ends a selection whose expressions are costly and must be evaluated once only."""

    def statements(self, file: str) -> Mapping[str, str]:
        """The statements of a file by name, those of the engine's own in place of the common ones."""

    def time(self, at: int) -> Any:
        """µs since the epoch as the value that a column of times is compared with."""

    def micros(self, column: str) -> str:
        """A column of times as µs since the epoch."""

    def stretch(self, step: str, at: str) -> str:
        """The beginning, as a timestamp, of the hour, day, week or month that a time is in."""

    def number(self, document: str, name: str, bound: "Bound") -> str:
        """The number that a JSON object has under a name; NULL where that is no number."""

    def text(self, document: str, name: str, bound: "Bound") -> str:
        """The text that a JSON object of texts has under a name, or NULL."""

    def equal(self, document: str, name: str, wanted: Scalar, bound: "Bound") -> str:
        """Whether a JSON object has this value under a name, of this type; None: absent or null."""

    def shifted(self, column: str, span: int, bound: "Bound") -> str:
        """A column of times, so many µs later (or earlier, below zero)."""

    def member(self, document: str, name: str, bound: "Bound") -> str:
        """The JSON text that a JSON object has under a name; NULL where it has none."""

    def number_of(self, member: str) -> str:
        """The number that such a JSON text is, or NULL."""

    def text_of(self, member: str) -> str:
        """The text that such a JSON text is, or NULL."""

    def spelt(self, wanted: str, bound: "Bound") -> str:
        """A text as `member` spells it."""

    def among(self, column: str, array: str) -> str:
        """Whether a text is in an array of perhaps a million, which is not walked for each."""


@dataclass
class Bound:
    """Parameters gathered while a statement is put together."""

    dialect: Dialect
    parameters: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: Any) -> str:
        """The placeholder of a new parameter."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def bind_once(self, value: str) -> str:
        """The placeholder of a text that may be long: the one it has already, if it has one."""
        known = (f"${name}" for name, other in self.parameters.items() if other is value)
        return next(known, None) or self.bind(value)

    def time(self, at: int) -> str:
        """The placeholder of a time, given as µs since the epoch."""
        return self.bind(self.dialect.time(at))

    def used_in(self, statement: str) -> dict[str, Any]:
        """The parameters that a statement names; the engine refuses others."""
        names = set(_PLACEHOLDER.findall(statement))
        return {name: value for name, value in self.parameters.items() if name in names}


class Wishes(Protocol):
    """Who is told which totals would have been of use, and which were."""

    def missed(self, experiment_id: int, totals: str, ended_at: int | None) -> None:
        """A question would have been answered from totals that are not there, or that end elsewhere."""

    def used(self, number: int) -> None:
        """The rollup of this number answered a question."""


class Engine(NamedTuple):
    """Who is asked, and in which dialect."""

    dialect: Dialect
    ask: Callable[[str, Mapping[str, Any]], list[tuple[Any, ...]]]
    """Runs a statement with its parameters and gives all rows."""
    wishes: Wishes | None = None
    """None: the store has no rollups."""

    def statement(self, file: str, name: str) -> str:
        """A statement as this engine understands it."""
        return self.dialect.statements(file)[name]


def timestamp(at: int) -> datetime:
    """µs since the epoch as the naive UTC datetime that a TIMESTAMP binds to, cut to its range."""
    bounded = min(max(at, -62_135_596_800_000_000), 253_402_300_799_999_999)
    seconds, fraction = divmod(bounded, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=fraction, tzinfo=None)


def pointer(name: str) -> str:
    """The JSON Pointer (RFC 6901) to a property: the one spelling of a path that any name survives."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


class Duckdb:
    """Times are TIMESTAMP; JSON is read by the engine's own functions, under JSON Pointers."""

    follows = False
    once = ""

    @staticmethod
    def statements(file: str) -> Mapping[str, str]:
        """See `Dialect`."""
        return statements(file)

    @staticmethod
    def time(at: int) -> Any:
        """See `Dialect`."""
        return timestamp(at)

    @staticmethod
    def micros(column: str) -> str:
        """See `Dialect`."""
        return f"epoch_us({column})"

    @staticmethod
    def stretch(step: str, at: str) -> str:
        """See `Dialect`."""
        return f"date_trunc({step}, {at})"

    @staticmethod
    def number(document: str, name: str, bound: Bound) -> str:
        """See `Dialect`."""
        # The text of a JSON string keeps its quotation marks, so that it becomes no number.
        place = bound.bind(pointer(name))
        return f"TRY_CAST(CAST(json_extract({document}, {place}) AS VARCHAR) AS DOUBLE)"

    @staticmethod
    def text(document: str, name: str, bound: Bound) -> str:
        """See `Dialect`."""
        return f"json_extract_string({document}, {bound.bind(pointer(name))})"

    @staticmethod
    def equal(document: str, name: str, wanted: Scalar, bound: Bound) -> str:
        """See `Dialect`."""
        place = bound.bind(pointer(name))
        kind = f"coalesce(json_type({document}, {place}), 'NULL')"
        text = f"json_extract_string({document}, {place})"
        if wanted is None:
            return f"{kind} = 'NULL'"
        if isinstance(wanted, bool):
            return f"({kind} = 'BOOLEAN' AND {text} = {bound.bind('true' if wanted else 'false')})"
        if isinstance(wanted, str):
            return f"({kind} = 'VARCHAR' AND {text} = {bound.bind(wanted)})"
        # A CASE, since AND may be evaluated in any order and 'abc' is no number.
        number = f"TRY_CAST(CASE WHEN {kind} <> 'VARCHAR' THEN {text} END AS DOUBLE)"
        return f"coalesce({number} = {bound.bind(float(wanted))}, false)"

    @staticmethod
    def shifted(column: str, span: int, bound: Bound) -> str:
        """See `Dialect`."""
        return f"({column} + to_microseconds(CAST({bound.bind(_span(span))} AS BIGINT)))"

    @staticmethod
    def member(document: str, name: str, bound: Bound) -> str:
        """See `Dialect`."""
        return f"CAST(json_extract({document}, {bound.bind(pointer(name))}) AS VARCHAR)"

    @staticmethod
    def number_of(member: str) -> str:
        """See `Dialect`."""
        # A text keeps its quotation marks, so that it becomes no number; what is too large becomes infinite.
        number = f"TRY_CAST({member} AS DOUBLE)"
        return f"nullif(nullif({number}, CAST('inf' AS DOUBLE)), CAST('-inf' AS DOUBLE))"

    @staticmethod
    def text_of(member: str) -> str:
        """See `Dialect`."""
        return f"CASE WHEN starts_with({member}, '\"') THEN json_extract_string({member}, '$') END"

    @staticmethod
    def spelt(wanted: str, bound: Bound) -> str:
        """See `Dialect`."""
        return f"CAST(to_json(CAST({bound.bind(wanted)} AS VARCHAR)) AS VARCHAR)"

    @staticmethod
    def among(column: str, array: str) -> str:
        """See `Dialect`."""
        return f"{column} IN (SELECT unnest({array}))"


class Postgres:
    """Times are BIGINT, µs since the epoch; JSON is read by functions of our own, which never fail."""

    follows = True
    # A subquery with an offset is not merged into the one around it, which would repeat its expressions.
    once = "OFFSET 0"

    @staticmethod
    def statements(file: str) -> Mapping[str, str]:
        """See `Dialect`."""
        return _with_own(file)

    @staticmethod
    def time(at: int) -> Any:
        """See `Dialect`."""
        return min(max(at, -(2**63)), 2**63 - 1)

    @staticmethod
    def micros(column: str) -> str:
        """See `Dialect`."""
        return column

    @staticmethod
    def stretch(step: str, at: str) -> str:
        """See `Dialect`."""
        return f"date_trunc({step}, TIMESTAMP 'epoch' + {at} * INTERVAL '1 microsecond')"

    @staticmethod
    def number(document: str, name: str, bound: Bound) -> str:
        """See `Dialect`."""
        return f"assay_number({_member(document, name, bound)})"

    @staticmethod
    def text(document: str, name: str, bound: Bound) -> str:
        """See `Dialect`."""
        return f"assay_text({_member(document, name, bound)})"

    @staticmethod
    def equal(document: str, name: str, wanted: Scalar, bound: Bound) -> str:
        """See `Dialect`."""
        member = _member(document, name, bound)
        if wanted is None:
            return f"coalesce({member}, 'null') = 'null'"
        if isinstance(wanted, bool):
            return f"coalesce({member} = '{'true' if wanted else 'false'}', false)"
        if isinstance(wanted, str):
            return f"coalesce({member} = {Postgres.spelt(wanted, bound)}, false)"
        return f"coalesce(assay_number({member}) = {bound.bind(float(wanted))}, false)"

    @staticmethod
    def shifted(column: str, span: int, bound: Bound) -> str:
        """See `Dialect`."""
        return f"({column} + CAST({bound.bind(_span(span))} AS BIGINT))"

    @staticmethod
    def member(document: str, name: str, bound: Bound) -> str:
        """See `Dialect`."""
        return _member(document, name, bound)

    @staticmethod
    def number_of(member: str) -> str:
        """See `Dialect`."""
        return f"assay_number({member})"

    @staticmethod
    def text_of(member: str) -> str:
        """See `Dialect`."""
        return f"assay_text({member})"

    @staticmethod
    def spelt(wanted: str, bound: Bound) -> str:
        """See `Dialect`."""
        # As a subquery it is found once, not for each event.
        return f"(SELECT CAST(to_json(CAST({bound.bind(wanted)} AS TEXT)) AS TEXT))"

    @staticmethod
    def among(column: str, array: str) -> str:
        """See `Dialect`."""
        # Of a subquery it would expect 200 rows, and look each of a million up in an index.
        return f"{column} = ANY({array})"


def _span(span: int) -> int:
    """Spans beyond some thousand years are cut, so that no time leaves its column's range."""
    return min(max(span, -_LONGEST), _LONGEST)


def _member(document: str, name: str, bound: Bound) -> str:
    return f"assay_member({document}, CAST({bound.bind(name)} AS TEXT))"


@cache
def _with_own(file: str) -> Mapping[str, str]:
    own = statements(f"postgres/{file}") if file in _OWN else {}
    return {**statements(file), **own}
