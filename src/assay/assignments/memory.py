"""Assignments in memory, bounded, with no bookkeeping on a hit."""

from collections.abc import Iterable
from typing import NamedTuple

# An entry is one integer: a tuple of two would take 50 bytes more, for each of a million.
_BITS = 40
_ID = (1 << _BITS) - 1


class Held(NamedTuple):
    """What memory says of its own use."""

    entries: int
    hits: int
    misses: int


class RecentAssignments:
    """(experiment, unit) to (variant, time), roughly the most recently used `size` of them.

    Two generations of dictionaries: new entries, and old ones that are asked for again, go into the young.
    Once all room is taken the old gives way, entry by entry, and when the young has half the room it becomes
    the old. A hit in the young generation is two dictionary look-ups, without the relinking that an exact
    order of use would cost.

    Attributes:
        complete: whether every record there is stands here, so that a miss means that there is none; set by
            `declare_complete`, and never again true once one was forgotten for want of room.
    """

    __slots__ = (
        "_count",
        "_half",
        "_old",
        "_old_count",
        "_size",
        "_young",
        "complete",
        "forgot",
        "hits",
        "misses",
    )

    def __init__(self, size: int) -> None:
        self._size = max(size, 0)
        self._half = (self._size + 1) // 2
        self._young: dict[int, dict[str, int]] = {}
        self._old: dict[int, dict[str, int]] = {}
        self._count = 0
        self._old_count = 0
        self.complete = False
        self.forgot = False
        self.hits = 0
        self.misses = 0

    def get(self, experiment_id: int, unit_id: str) -> tuple[int, int] | None:
        """The variant id and the time of assignment (µs), if they are remembered."""
        units = self._young.get(experiment_id)
        if units is not None:
            found = units.get(unit_id)
            if found is not None:
                self.hits += 1
                return found & _ID, found >> _BITS
        units = self._old.get(experiment_id)
        if units is not None:
            found = units.pop(unit_id, None)
            if found is not None:
                self.hits += 1
                self._old_count -= 1
                self._add(experiment_id, unit_id, found)
                return found & _ID, found >> _BITS
        self.misses += 1
        return None

    def put(self, experiment_id: int, unit_id: str, found: tuple[int, int]) -> None:
        """Remember an assignment; perhaps forget another."""
        old = self._old.get(experiment_id)
        if old is not None and old.pop(unit_id, None) is not None:
            self._old_count -= 1
        self._add(experiment_id, unit_id, found[1] << _BITS | found[0])

    def put_all(self, records: Iterable[tuple[int, str, int, int, int]]) -> None:
        """Remember records, each (experiment, unit, variant, phase, time), faster than one by one."""
        young, old = self._young, self._old
        for experiment_id, unit_id, variant_id, _, assigned_at in records:
            if old:
                self.put(experiment_id, unit_id, (variant_id, assigned_at))
                young, old = self._young, self._old
                continue
            units = young.get(experiment_id)
            if units is None:
                units = young[experiment_id] = {}
            before = len(units)
            units[unit_id] = assigned_at << _BITS | variant_id
            self._count += len(units) - before
            if self._count + self._old_count > self._size:
                self._make_room()
                young, old = self._young, self._old

    def put_older(self, experiment_id: int, unit_id: str, found: tuple[int, int]) -> bool:
        """Remember an assignment earlier than those that are here; False when there is no room for it."""
        if self._count + self._old_count >= self._size:
            return False
        if unit_id not in self._young.get(experiment_id, ()) and unit_id not in self._old.get(
            experiment_id, ()
        ):
            self._add(experiment_id, unit_id, found[1] << _BITS | found[0])
        return True

    def declare_complete(self) -> None:
        """Every record there is was put here; believed only if none has been forgotten."""
        self.complete = not self.forgot

    def _add(self, experiment_id: int, unit_id: str, packed: int) -> None:
        units = self._young.get(experiment_id)
        if units is None:
            units = self._young[experiment_id] = {}
        before = len(units)
        units[unit_id] = packed
        self._count += len(units) - before
        if self._count + self._old_count > self._size:
            self._make_room()

    def _make_room(self) -> None:
        """Forget one old entry, or the whole of a young generation's predecessor."""
        self.complete, self.forgot = False, True
        if self._count > self._half:
            self._old, self._old_count = self._young, self._count
            self._young, self._count = {}, 0
        while self._count + self._old_count > self._size:
            experiment_id, units = next(iter(self._old.items()), (0, None))
            if units is None:  # the counts were wrong: somebody forgot while this was counting
                self._recount()
                break
            if units:
                units.popitem()
                self._old_count -= 1
            else:
                del self._old[experiment_id]

    def _recount(self) -> None:
        self._count = sum(map(len, tuple(self._young.values())))
        self._old_count = sum(map(len, tuple(self._old.values())))

    def forget_experiment(self, experiment_id: int) -> None:
        """Drop all units of one experiment; from any thread."""
        self._young.pop(experiment_id, None)
        self._old.pop(experiment_id, None)
        self._recount()

    def forget_unit(self, unit_id: str) -> None:
        """Drop one unit from all experiments; from any thread."""
        for generation in (self._young, self._old):
            for units in tuple(generation.values()):
                units.pop(unit_id, None)
        self._recount()

    def held(self) -> Held:
        """How many entries there are, and how often they helped."""
        return Held(self._count + self._old_count, self.hits, self.misses)
