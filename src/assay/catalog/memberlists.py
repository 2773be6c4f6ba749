"""Lists of user ids as people send them: one id to a line, CSV, or NDJSON; read as they arrive."""

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from assay.catalog.checks import Input, OuterId, parse, shown
from assay.errors import Invalid, TooLarge, UnsupportedType

#: Bytes of one line, and of all of them.
_LONGEST_LINE: Final = 64 * 1024
_LONGEST_BODY: Final = 256 * 1024 * 1024
_LONGEST_ID: Final = 200
#: What a column of ids, or the field of an object, may be called.
_NAMES: Final = ("user_id", "id")


class _Member(Input):
    user_id: OuterId


class MemberReader:
    """Reads a body piece by piece; `feed` and `end` give the ids that are complete.

    `kind` is the body's content type. Raises `UnsupportedType` for another, `Invalid` naming the line, and
    `TooLarge`.
    """

    def __init__(self, kind: str) -> None:
        readers: dict[str, Callable[[str], str | None]] = {
            "text/plain": str.strip,
            "text/csv": self._row,
            "application/csv": self._row,
            "application/x-ndjson": self._document,
            "application/jsonl": self._document,
        }
        name = kind.partition(";")[0].strip().lower() or "text/plain"
        if name not in readers:
            raise UnsupportedType(
                f"Content-Type {shown(name)} is not understood; send text/plain with one id to a line, "
                "text/csv or application/x-ndjson."
            )
        self._read = readers[name]
        self._rest = b""
        self._bytes = 0
        self._line = 0
        self._column = 0

    def feed(self, piece: bytes) -> list[str]:
        """The ids of the lines that end in this piece."""
        self._bytes += len(piece)
        if self._bytes > _LONGEST_BODY:
            raise TooLarge(
                f"The list takes more than {_LONGEST_BODY >> 20} MiB; send it in parts.",
                code="body_too_large",
            )
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE:
            raise Invalid.field(f"line {self._line + len(lines) + 1}", f"has more than {_LONGEST_LINE} bytes")
        return list(self._ids(lines))

    def end(self) -> list[str]:
        """The id of a last line that has no end."""
        return list(self._ids([self._rest]))

    def _ids(self, lines: list[bytes]) -> Iterator[str]:
        for raw in lines:
            self._line += 1
            try:
                text = raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise self._wrong("is not UTF-8") from error
            if not text.strip():
                continue
            user_id = self._read(text)
            if user_id is None:
                continue
            if not 0 < len(user_id) <= _LONGEST_ID or "\0" in user_id:
                raise self._wrong(
                    f"needs an id of 1 to {_LONGEST_ID} characters, none of them NUL; got {shown(user_id)}"
                )
            yield user_id

    def _row(self, text: str) -> str | None:
        """The id in a row of CSV: in the column that the first row names, or in the first one."""
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as error:
            raise self._wrong(f"is no row of CSV: {error}") from error
        if self._line == 1:
            names = [cell.strip().lower() for cell in cells]
            named = next((names.index(name) for name in _NAMES if name in names), None)
            if named is not None:
                self._column = named
                return None
        if len(cells) <= self._column:
            raise self._wrong(f"has {len(cells)} columns; the id is in column {self._column + 1}")
        return cells[self._column].strip()

    def _document(self, text: str) -> str:
        """The id in a line of JSON: a text, or an object with a field of that name."""
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"is not JSON: {error}") from error
        if isinstance(found, dict):
            found = next((found[name] for name in _NAMES if name in found), None)
        if not isinstance(found, str):
            raise self._wrong(f'must be an id in quotes, or {{"user_id": …}}; got {shown(text)}')
        try:
            return parse(_Member, {"user_id": found}).user_id
        except Invalid as error:
            raise self._wrong(error.errors[0].message) from error

    def _wrong(self, what: str) -> Invalid:
        return Invalid.field(f"line {self._line}", what, code="bad_member")
