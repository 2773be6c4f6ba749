"""Connections of psycopg with an end to their patience: a server that hangs breaks nothing off.

The driver waits for an answer as long as the connection lives, and it lives as long as the other machine's
kernel does. So whoever knows whether anybody there answers is asked while it waits.
"""

from collections.abc import Callable, Generator
from functools import cache
from typing import Any

Away = Callable[[], bool]
"""Whether the server is known not to answer; asked from any thread, ten times a second by each that waits."""


def never() -> bool:
    """Nobody knows of a server that it does not answer, so it is waited for."""
    return False


@cache
def watched() -> Any:
    """A class like `psycopg.Connection` whose objects have `away`, to be set once they are connected.

    While `away()` is true they raise `psycopg.OperationalError` instead of waiting, and are closed. The
    driver is loaded by the first call.
    """
    import psycopg  # noqa: PLC0415 - not needed where SQLite is the database

    class Watched(psycopg.Connection[Any]):
        away: Away = staticmethod(never)

        @staticmethod
        def silent() -> Exception:
            return psycopg.OperationalError("the server does not answer")

        def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
            return super().wait(self._looking(gen), *args, **options)

        def _looking(self, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            """The driver's own steps: each yields what to wait for and gets it, or 0 when nothing came."""
            try:
                wanted = next(steps)
                while True:
                    ready = yield wanted
                    if not ready and self.away():
                        self.close()  # whatever comes later belongs to a statement that was given up
                        raise self.silent()
                    wanted = steps.send(ready)
            except StopIteration as done:
                return done.value

    return Watched
