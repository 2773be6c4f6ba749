"""Values as people type them: a number, true or false, and anything else as text.

What would read as something else is text when it stands in double quotes: `"18"`.
"""

import json
import math
import re
from collections.abc import Sequence

from assay.errors import Invalid

Literal = str | int | float | bool

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,]*?)\s*(,|$)')
_WORDS = {"true": True, "false": False}


def read(text: str, path: str) -> Literal:
    """One value. Raises `Invalid` for a quotation that does not end."""
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith('"'):
        try:
            quoted = json.loads(text)
        except ValueError as error:
            raise Invalid.field(
                path, 'begins with " and must end with one; \\" is one in the text'
            ) from error
        return str(quoted)
    if _NUMBER.fullmatch(text):
        number: int | float = json.loads(text)
        if math.isfinite(number):
            return number
    return text


def read_list(text: str, path: str) -> list[Literal]:
    """Several values with commas between them. Raises `Invalid`."""
    found: list[Literal] = []
    at = 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            raise Invalid.field(path, 'must be values with commas between them, such as DE, AT or "a, b"')
        if item[1]:
            found.append(read(item[1], path))
        at = item.end()
    return found


def written(value: Literal, *, listed: bool = False) -> str:
    """The value as `read` takes it; `listed` as `read_list` does."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = value == value.strip() and value.isprintable() and not value.startswith('"') and value
    if plain and not (listed and "," in value) and value not in _WORDS and not _NUMBER.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def written_list(values: Sequence[Literal]) -> str:
    """The values as `read_list` takes them."""
    return ", ".join(written(each, listed=True) for each in values)
