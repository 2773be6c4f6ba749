"""What the catalog knows of a user, for conditions."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
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


class Lookups(Protocol):
    """What `PostgresAttributes` needs of the connections to the database."""

    def lane(
        self,
        name: str,
        apply: Callable[[Any, list[Any], bool], Awaitable[Sequence[Any]]],
        size: Callable[[Any], tuple[int, int]],
        *,
        flights: int = 2,
        writes: bool = True,
    ) -> Any:
        """A kind of question that is gathered into groups."""


class PostgresAttributes:
    """`Attributes` in PostgreSQL: questions that come together are one statement."""

    def __init__(self, connections: Lookups) -> None:
        self._lane = connections.lane(
            "attributes", _look_up, lambda user_ids: (len(user_ids), 100 * len(user_ids)), writes=False
        )

    def at_hand(self, user_id: str) -> Known | None:  # noqa: ARG002 - nothing is known without asking
        """See `Attributes`: a round trip is needed."""
        return None

    async def fetch(self, user_ids: Iterable[str]) -> dict[str, Known]:
        """See `Attributes`."""
        found: dict[str, Known] = await self._lane.put(tuple(user_ids))
        return found

    def close(self) -> None:
        """See `Attributes`: the connections are somebody else's."""


async def _look_up(session: Any, asked: list[tuple[str, ...]], _doubt: bool) -> list[dict[str, Known]]:
    wanted = list({user_id for user_ids in asked for user_id in user_ids})
    rows = await session.fetch("SELECT id, attributes::text FROM users WHERE id = ANY ($1::text[])", wanted)
    known = {user_id: msgspec.json.decode(attributes) for user_id, attributes in rows}
    return [{user_id: known[user_id] for user_id in user_ids if user_id in known} for user_ids in asked]


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
