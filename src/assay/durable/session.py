"""One connection to PostgreSQL, on which each statement is a transaction of its own."""

from typing import Any, Final

import asyncpg

# An internal error is what the driver raises for a connection whose server has said why it ends it, and has
# not ended it yet.
LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)
ENDED: Final = ("57P01", "57P02", "57P03", "57P05")


def is_lost(error: Exception) -> bool:
    """Whether nobody knows what became of the statement."""
    return isinstance(error, LOST) or getattr(error, "sqlstate", None) in ENDED


class Session:
    """One connection, as those see it who work on it: each statement is a transaction of its own.

    Attributes:
        sent: whether a statement was sent, and not rolled back, since this was last set to False.
        timeout: seconds that one statement may take.
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        self.sent = False
        self.timeout = timeout
        self._connection = connection
        self._statements: dict[str, Any] = {}

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement; its rows."""
        return (await self._run(statement, values))[0]

    async def execute(self, statement: str, *values: Any) -> int:
        """Run one statement; how many rows it touched."""
        prepared = (await self._run(statement, values))[1]
        return int(prepared.get_statusmsg().rpartition(" ")[2])

    async def _run(self, statement: str, values: tuple[Any, ...]) -> tuple[list[Any], Any]:
        # Without a cache of statements asyncpg gives this one no name, and sends its text again together with
        # the values: PgBouncer cannot come between the two. The types are remembered here.
        prepared = self._statements.get(statement)
        if prepared is None:
            prepared = await self._connection.prepare(statement, timeout=self.timeout)
            self._statements[statement] = prepared
        before, self.sent = self.sent, True
        try:
            return await prepared.fetch(*values, timeout=self.timeout), prepared
        except asyncpg.PostgresError as error:
            if not is_lost(error):
                self.sent = before  # it was rolled back
            raise

    @property
    def open(self) -> bool:
        """Whether the connection is still there, as far as is known."""
        return not self._connection.is_closed()

    def drop(self) -> None:
        """Cut the connection without a word."""
        self._connection.terminate()

    async def close(self) -> None:
        """Take leave of the server, or cut the connection when that takes long."""
        try:
            await self._connection.close(timeout=1.0)
        except (*LOST, asyncpg.PostgresError):
            self._connection.terminate()
