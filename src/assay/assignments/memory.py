"""Recent assignments in memory, bounded, with no bookkeeping on a hit."""

from typing import NamedTuple


class Held(NamedTuple):
    """What memory says of its own use."""

    entries: int
    hits: int
    misses: int


class RecentAssignments:
    """(experiment, unit) to (variant, time), roughly the most recently used `size` of them.

    Two generations of dictionaries: new entries and old ones that are asked for again go into the young; when
    it holds half the size, it becomes the old one and the former old one is forgotten. A hit in the young
    generation is two dictionary look-ups, without the relinking that an exact order of use would cost.
    """

    __slots__ = ("_count", "_half", "_old", "_old_count", "_young", "hits", "misses")

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 0)
        self._young: dict[int, dict[str, tuple[int, int]]] = {}
        self._old: dict[int, dict[str, tuple[int, int]]] = {}
        self._count = 0
        self._old_count = 0
        self.hits = 0
        self.misses = 0

    def get(self, experiment_id: int, unit_id: str) -> tuple[int, int] | None:
        """The variant id and the time of assignment (µs), if they are remembered."""
        units = self._young.get(experiment_id)
        if units is not None:
            found = units.get(unit_id)
            if found is not None:
                self.hits += 1
                return found
        units = self._old.get(experiment_id)
        if units is not None:
            found = units.get(unit_id)
            if found is not None:
                self.hits += 1
                self.put(experiment_id, unit_id, found)
                return found
        self.misses += 1
        return None

    def put(self, experiment_id: int, unit_id: str, found: tuple[int, int]) -> None:
        """Remember an assignment; perhaps forget a generation."""
        if self._count >= self._half:
            if not self._half:
                return
            self._old, self._old_count = self._young, self._count
            self._young, self._count = {}, 0
        units = self._young.get(experiment_id)
        if units is None:
            units = self._young[experiment_id] = {}
        before = len(units)
        units[unit_id] = found
        self._count += len(units) - before

    def forget_experiment(self, experiment_id: int) -> None:
        """Drop all units of one experiment."""
        self._count -= len(self._young.pop(experiment_id, ()))
        self._old_count -= len(self._old.pop(experiment_id, ()))

    def forget_unit(self, unit_id: str) -> None:
        """Drop one unit from all experiments."""
        for units in tuple(self._young.values()):
            self._count -= units.pop(unit_id, None) is not None
        for units in tuple(self._old.values()):
            self._old_count -= units.pop(unit_id, None) is not None

    def held(self) -> Held:
        """How many entries there are (those in both generations count twice), and how often they helped."""
        return Held(self._count + self._old_count, self.hits, self.misses)
