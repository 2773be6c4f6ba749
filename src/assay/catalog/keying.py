"""Keys made from names."""

import re
import unicodedata
from collections.abc import Callable


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
