"""What the catalog knows of a user, for conditions."""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from assay.durable.writer import open_reader, unavailable

Known = Mapping[str, Any]
#: Of a user whom the catalog does not know.
NONE_KNOWN: Final[Known] = {}


class Attributes(Protocol):
    """Stored attributes by user id, as they are now. Raises `Unavailable` where they cannot be read."""

    def at_hand(self, user_id: str) -> Known | None:
        """What is known of the user, where asking costs next to nothing; None: `fetch` it."""

    async def fetch(self, user_ids: Iterable[str]) -> dict[str, Known]:
        """What is known of these users; those not in the answer are not known."""

    def close(self) -> None:
        """Let go of the connections."""


class SqliteAttributes:
    """`Attributes` read by key from the database file."""

    def __init__(self, path: str | Path) -> None:
        self._connection = open_reader(path)

    def at_hand(self, user_id: str) -> Known:
        """See `Attributes`; one indexed read of a mapped file."""
        try:
            row = self._connection.execute("SELECT attributes FROM users WHERE id = ?", (user_id,)).fetchone()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        if row is None:
            return NONE_KNOWN
        attributes: Known = msgspec.json.decode(row[0])
        return attributes

    async def fetch(self, user_ids: Iterable[str]) -> dict[str, Known]:
        """See `Attributes`."""
        return {user_id: known for user_id in user_ids if (known := self.at_hand(user_id))}

    def close(self) -> None:
        """See `Attributes`."""
        self._connection.close()
