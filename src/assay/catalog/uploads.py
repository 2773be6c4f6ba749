"""Long lists of a segment's members: stored in small steps beside the list in force, which one step replaces.

A million rows in one transaction would keep every other writer waiting for seconds. So they go into a list of
their own, which nobody reads, a few thousand at a time; then the segment is made to point to it. Until then,
and after a failure, the segment has the list that it had.
"""

from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from assay.bucketing.bulk import in_order
from assay.bucketing.ruleset import Members, digests
from assay.catalog import segments
from assay.catalog.database import Actor, Database
from assay.errors import Conflict, TooLarge

#: Ids that are written in one transaction.
CHUNK: Final = 5_000
#: Ids that one list may have.
MOST_MEMBERS: Final = 1_000_000


class Upload:
    """A list on its way: `add` its parts, then `finish`; `discard` it where that is not to be.

    With `keep`, what the segment lists now is part of it. Not for several threads at a time.
    """

    def __init__(
        self, database: Database, reference: int | str, actor: Actor, now: datetime, *, keep: bool
    ) -> None:
        self._database, self._actor = database, actor
        self._digests = array("Q")
        self._keep = keep
        self.count = 0
        with database.noting() as tx:
            row = segments.find(tx, reference)
            self.segment_id = row.id
            self._was = (row.list, row.members_version, row.member_count)
            self._list = segments.spare_list(tx, row, now)
        if keep:
            for page in self._current():
                self.add(page, now)

    def add(self, user_ids: Sequence[str], now: datetime) -> None:
        """Put some more on the list. Raises `TooLarge` for more than a list may have."""
        for start in range(0, len(user_ids), CHUNK):
            part = user_ids[start : start + CHUNK]
            with self._database.noting() as tx:
                self.count += segments.insert(tx, self.segment_id, self._list, part)
                segments.touch_spare(tx, self.segment_id, self._list, now)
            self._digests.frombytes(digests(part))
            if self.count > MOST_MEMBERS:
                raise TooLarge(
                    f"The list would have more than {MOST_MEMBERS:,} members; describe so many by a rule.",
                    code="too_many_members",
                )

    def finish(self, now: datetime) -> tuple[int, int]:
        """Put the list in force: how many ids were put on it, and how many it has.

        Raises `Conflict` where the list changed while this one was on its way, `NotFound` where the segment
        is gone.
        """
        packed = in_order(self._digests) if self.count > Members.SMALL else None
        before_list, version, before = self._was
        with self._database.writing(self._actor, now) as tx:
            row = segments.find(tx, self.segment_id)
            if (row.list, row.members_version) != (before_list, version):
                raise Conflict(
                    f"The list of segment {row.id} was changed during the upload: repeat it.",
                    code="list_changed",
                )
            segments.replace_list(tx, row, self._list, self.count, packed)
        return self.count - before if self._keep else self.count, self.count

    def discard(self) -> None:
        """Leave the segment as it is; what was stored is removed by and by."""
        with self._database.noting() as tx:
            segments.give_up_spare(tx, self.segment_id, self._list)

    def _current(self) -> Iterator[list[str]]:
        """What the segment lists now, in stretches."""
        last = ""
        while True:
            with self._database.reading() as tx:
                page = segments.listed_after(tx, self.segment_id, self._was[0], last, CHUNK)
            if not page:
                return
            yield page
            last = page[-1]
