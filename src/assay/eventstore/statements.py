"""SQL as text in files: named, commented, and put together from parts of our own.

A file holds statements, each under a line `-- name --`. A statement may have places in braces, which `filled`
replaces by other texts of ours. What a caller said is never put into a text, only bound as a parameter.
"""

import re
from functools import cache
from importlib.resources import files

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, str]:
    """The statements of one file in the folder `sql`, by name, without their comments."""
    text = (files(__package__) / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    bodies = (_COMMENT.sub("", body).strip() for body in parts[1::2])
    return dict(zip(parts[::2], bodies, strict=True))


def filled(statement: str, **parts: str) -> str:
    """The statement with its places in braces filled in."""
    for name, part in parts.items():
        statement = statement.replace(f"{{{name}}}", part)
    return statement
