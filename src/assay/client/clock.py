"""What the server's clock is ahead of this machine's, and what was already said about anything."""

import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from assay.client.wire import Answer

logger = logging.getLogger("assay.client")

#: µs that this machine's clock may differ from the server's before its times are corrected: the header that
#: tells counts whole seconds, and clocks that are kept agree better than that.
_TOLERATED: Final = 2_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Notices:
    """Warnings for the application's log, each once until it is well again."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def warn(self, about: str, message: str, *arguments: object) -> None:
        """Say something once, until `about` is well again."""
        if about not in self._warned:
            self._warned.add(about)
            logger.warning(message, *arguments)

    def well(self, about: str) -> None:
        """What was warned of is well again."""
        self._warned.discard(about)


class Clock:
    """One correction for all times that are sent.

    An exposure and what follows it go out in different requests, and must not change places: so the
    correction is not made for each request, by when it is sent. `shift` is in µs.
    """

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self.shift = 0

    def iso(self, at: int) -> str:
        """A time of this machine, in µs since 1970, as the server's clock had it: ISO 8601 in UTC."""
        return (_EPOCH + timedelta(microseconds=at + self.shift)).isoformat(timespec="microseconds")

    def note(self, answer: Answer) -> None:
        """Correct this machine's clock where the answer's date says that it is far off."""
        if answer.seconds > 1.0:  # it may be from any moment of that time
            return
        try:
            said = parsedate_to_datetime(answer.headers.get("date", ""))
        except ValueError:
            return
        # The date was cut off to the second, half a second ago on average.
        shift = (said - _EPOCH) // timedelta(microseconds=1) + 500_000 - time.time_ns() // 1_000
        if abs(shift - self.shift) > _TOLERATED:
            self.shift = shift
            self._notices.warn(
                "clock", "This machine's clock is %.1f s off; times are corrected.", -shift / 1e6
            )

    def note_assigned(self, assigned_at: str) -> None:
        """What happens after an assignment is not before it, however little the clocks differ."""
        with contextlib.suppress(ValueError):
            ahead = (datetime.fromisoformat(assigned_at) - _EPOCH) // timedelta(microseconds=1)
            self.shift = max(self.shift, ahead - time.time_ns() // 1_000)
