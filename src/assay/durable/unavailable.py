"""Why PostgreSQL did not take a row: what its codes mean to us, and one sentence for each."""

from typing import Final

from assay.errors import Unavailable

#: Rolled back by the server, and worth trying again: deadlock, serialisation, a plan that became outdated.
AGAIN: Final = ("40P01", "40001", "0A000", "26000")
#: Classes of errors for which one row is to blame: bad data, broken constraint, too large for an index.
BAD_ROW: Final = ("22", "23", "54")
#: The code of a full disk, which can still be read and sometimes written a little.
FULL_DISK: Final = "store_full"

_REFUSALS: Final = {
    "53100": (FULL_DISK, "The database's disk is full"),
    "25006": ("store_readonly", "The database takes no writes"),
    "57014": ("store_busy", "The database took too long"),
    "55P03": ("store_busy", "The database is locked by somebody else"),
    "26000": ("store_pooled", "A pooler mixes connections, so prepared statements must be switched off"),
    "42501": ("store_forbidden", "The database does not allow its user to write here"),
}


def shutting_down() -> Unavailable:
    """The server ends; nothing was stored."""
    return Unavailable("The server is shutting down.", code="shutting_down", retry_after=1)


def unreachable(error: Exception | None) -> Unavailable:
    """Nobody answers; nothing was stored."""
    why = "" if error is None else f" ({str(error) or 'no answer in time'})"
    return Unavailable(
        f"The database cannot be reached{why}: nothing was stored. Repeat the request a little later.",
        code="store_unreachable",
        retry_after=2,
    )


def no_connections(why: str) -> Unavailable:
    """The server lets nobody else in; nothing was stored."""
    return Unavailable(
        f"The database takes no more connections ({why}): nothing was stored. Repeat the request a little "
        "later; the server needs a higher max_connections, or fewer workers or connections of each.",
        code="database_connections",
        retry_after=2,
    )


def unknown() -> Unavailable:
    """The write was sent, and nobody knows what became of it."""
    return Unavailable(
        "The database went away during the write: it may be stored. Repeat it with the same ids.",
        code="store_in_doubt",
        retry_after=2,
    )


def in_doubt(error: Exception) -> Unavailable:
    """The same of work in several statements."""
    return Unavailable(
        f"The database went away during the work ({str(error) or 'no answer in time'}): "
        "some of it may be done. It can be repeated.",
        code="store_in_doubt",
        retry_after=2,
    )


def refused(sqlstate: str, error: Exception) -> Unavailable:
    """The server said no; nothing was stored."""
    code, sentence = _REFUSALS.get(sqlstate, ("store_failed", f"The database refused it ({error})"))
    return Unavailable(f"{sentence}: nothing was stored.", code=code, retry_after=2)
