"""Keys: chosen by people, or made from names."""

import re
import unicodedata
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from assay.catalog.database import ReadTx
from assay.errors import Conflict, FieldError


def slug(name: str, fallback: str) -> str:
    """A key in the spirit of `name`: `Button Color Test` is `button-color-test`.

    Accents are dropped; what has no Latin form is left out, and `fallback` stands in for a name of
    which nothing, or nothing but digits, is left.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:80].rstrip("-_")
    if not words:
        return fallback
    return f"{fallback}-{words}" if words.isdigit() else words


def free(base: str, taken: Callable[[str], bool]) -> str:
    """`base`, or `base-2`, `base-3`, … whichever is not `taken` first."""
    key, number = base, 1
    while taken(key):
        number += 1
        key = f"{base}-{number}"
    return key


def settled(tx: ReadTx, column: InstrumentedAttribute[str], noun: str, key: str | None, name: str) -> str:
    """The key that was given, or else a free one made from the name. Raises `Conflict` for one that is taken.

    `column` holds the keys of this kind, which is called `noun`.
    """
    if key is not None:
        refuse_taken(tx, column, noun, key)
        return key
    base = slug(name, noun)
    return free(
        base, set(tx.scalars(select(column).where(column.startswith(base, autoescape=True)))).__contains__
    )


def refuse_taken(tx: ReadTx, column: InstrumentedAttribute[str], noun: str, key: str) -> None:
    """Raises `Conflict` for a key that another one has."""
    if tx.scalar(select(column).where(column == key)) is not None:
        raise Conflict(
            f"The {noun} key {key} is taken.", code="key_taken", errors=[FieldError("key", "is taken")]
        )
