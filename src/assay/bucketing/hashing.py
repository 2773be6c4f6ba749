"""From a seed and a unit's id to a number in [0, 1), as GrowthBook's SDKs compute it.

Source: the hashing section of GrowthBook's "build your own SDK" specification, version 0.8. The reference is
the JavaScript SDK, which folds UTF-16 code units, not UTF-8 bytes, into FNV-1a.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import chain

from fnv_hash_fast import fnv1a_32

#: The constants of FNV-1a with 32 bits.
OFFSET = 0x811C9DC5
PRIME = 0x01000193
_MASK = 0xFFFFFFFF

_fnv_of_bytes: Callable[[bytes], int] = fnv1a_32

#: The resolution of version 2 of the hash, and with it the number of slots of a layer.
SLOTS = 10_000

#: One stretch [from, to) of the unit interval for each variant.
Ranges = tuple[tuple[float, float], ...]


def fnv1a32(text: str) -> int:
    """FNV-1a with 32 bits over the UTF-16 code units of `text`.

    Where every unit is below 256 the units are the Latin-1 bytes and C does the work.
    """
    try:
        return _fnv_of_bytes(text.encode("latin-1"))
    except UnicodeEncodeError:
        # In the machine's own byte order, after the mark that says which one it is.
        units = memoryview(text.encode("utf-16", "surrogatepass")).cast("H")[1:]
        value = OFFSET
        for unit in units:
            value = ((value ^ unit) * PRIME) & _MASK
        return value


def place(seed: str, value: str) -> float:
    """This unit's place in [0, 1) under this seed, with a resolution of 1/10,000: version 2 of the hash."""
    text = seed + value
    first = _fnv_of_bytes(text.encode()) if text.isascii() else fnv1a32(text)
    return _fnv_of_bytes(b"%d" % first) % SLOTS / SLOTS


def hash_unit(seed: str, value: str, version: int = 2) -> float | None:
    """A number in [0, 1) for this unit under this seed; None for a version that does not exist.

    Version 2 hashes twice; version 1 is GrowthBook's older one, with a resolution of 1/1,000.
    """
    if version == 2:
        return place(seed, value)
    if version == 1:
        return fnv1a32(value + seed) % 1000 / 1000
    return None


def equal_weights(count: int) -> list[float]:
    """`count` equal shares; none for a count below one."""
    return [1 / count] * count if count > 0 else []


def bucket_ranges(count: int, coverage: float, weights: Sequence[float] | None) -> Ranges:
    """The stretch of [0, 1) that each of `count` variants takes.

    Coverage is clamped to [0, 1]; weights of another number, or that do not add up to about 1, give way to
    equal ones. Each range keeps its start when coverage grows, so that nobody inside moves.
    """
    if weights is None or len(weights) != count or not 0.99 <= sum(weights) <= 1.01:
        weights = equal_weights(count)
    return cumulated(weights, coverage)


def cumulated(weights: Sequence[float], coverage: float) -> Ranges:
    """Ranges that start where the weights before them end and cover `coverage` of their own weight.

    Coverage is clamped to [0, 1]; what is not a number covers nothing.
    """
    coverage = min(max(0.0, coverage), 1.0)
    start = 0.0
    ranges = []
    for weight in weights:
        ranges.append((start, start + coverage * weight))
        start += weight
    return tuple(ranges)


def edges(ranges: Ranges) -> tuple[float, ...]:
    """Where each range starts and ends, one after the other, as `choose` wants it."""
    return tuple(chain.from_iterable(ranges))


def choose(position: float, edges: Sequence[float]) -> int:
    """The index of the range that holds `position`, -1 for none; the ranges ascend and do not overlap."""
    passed = bisect_right(edges, position)
    return passed >> 1 if passed & 1 else -1


def in_namespace(unit_id: str, namespace: tuple[str, float, float]) -> bool:
    """Whether the unit's slot in a namespace lies in [low, high)."""
    key, low, high = namespace
    return low <= namespace_slot(unit_id, key) < high


def namespace_slot(unit_id: str, key: str) -> float:
    """The unit's place in a namespace, in [0, 1) with a resolution of 1/1,000."""
    return fnv1a32(f"{unit_id}__{key}") % 1000 / 1000
