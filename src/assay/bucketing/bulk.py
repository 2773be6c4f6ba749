"""Hashing of many units at once, with numpy; apart from `hashing`, which must be quick to import."""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from assay.bucketing.hashing import OFFSET, PRIME, fnv1a32, hash_unit

# Rows hashed at once: enough for numpy to pay, few enough that one long id does not make a huge table.
_CHUNK = 16_384


def hash_many(seed: str, values: Sequence[str]) -> NDArray[np.float64]:
    """`hash_unit(seed, each)` for each value, several times faster; for simulations and bulk work."""
    places = np.empty(len(values), np.float64)
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        places[start : start + len(chunk)] = _hash_chunk(seed, chunk)
    return places


def in_order(digests: "array[int]") -> bytes:
    """Digests sorted, each once."""
    return np.unique(np.frombuffer(digests, np.uint64)).tobytes()


def _hash_chunk(seed: str, values: Sequence[str]) -> NDArray[np.float64]:
    prime = np.uint32(PRIME)
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    width = max(int(lengths.max()), 1)
    # One row of code points for each value, filled up with zeros.
    points = np.array(values, f"U{width}").view(np.uint32).reshape(len(values), width)
    first = np.full(len(values), fnv1a32(seed), np.uint32)
    for column in range(width):
        first = np.where(lengths > column, (first ^ points[:, column]) * prime, first)
    second = np.full(len(values), OFFSET, np.uint32)
    for exponent in range(9, -1, -1):
        power = np.uint32(10**exponent)
        digit = first // power % np.uint32(10) + np.uint32(ord("0"))
        written = (first >= power) | (exponent == 0)
        second = np.where(written, (second ^ digit) * prime, second)
    places: NDArray[np.float64] = second % np.uint32(10_000) / 10_000
    # A character beyond 16 bits is two UTF-16 units; such ids are rare enough for the slow way.
    for row in np.flatnonzero(points.max(axis=1) > 0xFFFF).tolist():
        places[row] = hash_unit(seed, values[row])
    return places
