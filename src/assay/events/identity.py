"""Event ids: a caller's id in canonical form, and ids of our own.

Only the canonical 36-character form is taken as a UUID; every other string becomes the UUIDv5 of itself in a
fixed namespace: any string is an id, and the stores keep sixteen bytes. The original is kept beside it.
"""

import hashlib
import os
import random
import re
import uuid

#: Fixed for ever: changing it would let every event sent before count a second time.
NAMESPACE = uuid.UUID("6c9f4b0e-7a52-5d0b-9a58-1f2b0c6f6a3d")

_CANONICAL = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
).fullmatch
_LOW = (1 << 47) - 1
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

# Ids must be unique, not secret; the operating system's generator costs a system call for each.
_random = random.Random(os.urandom(32))  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def canonical(event_id: str) -> str:
    """The UUID text, in lower case, that stands for a caller's event id; equal ids give equal texts."""
    if len(event_id) == 36 and _CANONICAL(event_id):
        return event_id.lower()
    text = hashlib.sha1(NAMESPACE.bytes + event_id.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


class Fresh:
    """New UUIDv7s for the events of one request received at `now` (µs).

    They hold its time in ms and 73 random bits, and count up from event to event.
    """

    __slots__ = ("_beginning", "_low")

    def __init__(self, now: int) -> None:
        noise = _random.getrandbits(73)
        time = f"{now // 1_000 & 0xFFFF_FFFF_FFFF:012x}"
        middle = f"{noise >> 47 & 0x3FFF | 0x8000:04x}"
        self._beginning = f"{time[:8]}-{time[8:]}-7{noise >> 61:03x}-{middle}-"
        # The first of these 48 bits is left free: the counting may run into it.
        self._low = noise & _LOW

    def next(self) -> str:
        """One that no other event has."""
        self._low += 1
        return f"{self._beginning}{self._low:012x}"
