"""Ids made where an event happens, so that sending it twice counts once."""

import os
import time
import uuid


def uuid7() -> str:
    """A UUID of version 7: milliseconds since 1970, then 74 random bits.

    Source: RFC 9562, section 5.7. The random bits are the system's, which differ between forked processes.
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
