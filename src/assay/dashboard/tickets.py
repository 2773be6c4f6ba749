"""A form that was sent twice makes one thing: what came of each form's ticket is remembered for a while."""

import threading
from collections import OrderedDict

_MOST = 1000


class Tickets:
    """What the latest forms of this process have made, by their tickets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[str, str] = OrderedDict()

    def get(self, ticket: str) -> str | None:
        """What the form with this ticket has made, if it was sent before."""
        with self._lock:
            return self._made.get(ticket) if ticket else None

    def put(self, ticket: str, made: str) -> None:
        """The form with this ticket has made this."""
        if not ticket:
            return
        with self._lock:
            self._made[ticket] = made
            while len(self._made) > _MOST:
                self._made.popitem(last=False)
