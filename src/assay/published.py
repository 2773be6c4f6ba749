"""What the hot path reads: the ruleset and the keys in force, each swapped as one reference."""

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from assay.bucketing.ruleset import Ruleset


class Role(StrEnum):
    """What a key may do: see the table in the API reference."""

    ADMIN = "admin"
    EDITOR = "editor"
    VIEWER = "viewer"
    CLIENT = "client"


class Key(NamedTuple):
    """One API key as the server remembers it: never the secret, only its SHA-256 digest.

    `id` is 0 for a key that comes from the environment; `expires_at` is in microseconds UTC.
    """

    id: int
    name: str
    role: Role
    digest: bytes
    expires_at: int | None = None


class KeyRing:
    """All keys in force, found by the digest of what the caller sent.

    A lookup by digest needs no comparison in constant time: an attacker cannot steer the bytes of a
    SHA-256 digest towards a stored one, so timing tells nothing about it.
    """

    __slots__ = ("_by_digest",)

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest = {key.digest: key for key in keys}

    def find(self, secret: bytes, now: int) -> Key | None:
        """The key whose secret this is, unless it has expired at `now` (microseconds)."""
        key = self._by_digest.get(hashlib.sha256(secret).digest())
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            return None
        return key

    def __len__(self) -> int:
        return len(self._by_digest)


class Published:
    """The holder that readers look into and the catalog swaps; never locked."""

    __slots__ = ("keys", "ruleset")

    def __init__(self, ruleset: Ruleset, keys: KeyRing) -> None:
        self.ruleset = ruleset
        self.keys = keys
