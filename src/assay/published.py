"""What the hot path reads: the ruleset and the keys in force, each swapped as one reference."""

import hashlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from assay.bucketing.ruleset import Ruleset
from assay.errors import Forbidden, Unauthorized


class Right(StrEnum):
    """One kind of thing a call may do; each route asks for one."""

    ASSIGN = "assign"  # assign, evaluate, record events
    READ = "read"  # read everything but keys
    EDIT = "edit"  # experiments, segments, metrics, layers
    ADMIN = "admin"  # keys and users


class Role(StrEnum):
    """What a key may do."""

    ADMIN = "admin"
    EDITOR = "editor"
    VIEWER = "viewer"
    CLIENT = "client"


#: Which rights each role has.
RIGHTS: dict[Role, frozenset[Right]] = {
    Role.ADMIN: frozenset(Right),
    Role.EDITOR: frozenset({Right.ASSIGN, Right.READ, Right.EDIT}),
    Role.VIEWER: frozenset({Right.READ}),
    Role.CLIENT: frozenset({Right.ASSIGN}),
}


def anonymous_rights(role: str) -> frozenset[Right]:
    """What a call without a key may do under `ANONYMOUS_ROLE`.

    Clients that send no key assign and record in any case; as `viewer` they read results, too.
    """
    if role == Role.VIEWER:
        return RIGHTS[Role.VIEWER] | RIGHTS[Role.CLIENT]
    return RIGHTS[Role.CLIENT] if role == Role.CLIENT else frozenset()


class Key(NamedTuple):
    """One API key as the server remembers it: never the secret, only its SHA-256 digest.

    `id` is 0 for a key that comes from the environment; `expires_at` is in microseconds UTC. `scope` are the
    ids of the experiments the key may know of, None for all.
    """

    id: int
    name: str
    role: Role
    digest: bytes
    expires_at: int | None = None
    scope: frozenset[int] | None = None


def covers(key: Key | None, experiment_id: int) -> bool:
    """Whether a call with this key may know of the experiment; one without a key may know of all."""
    return key is None or key.scope is None or experiment_id in key.scope


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

    def authorise(
        self, header: bytes | None, right: Right, now: int, anonymous: frozenset[Right] = frozenset()
    ) -> Key | None:
        """Who sent this `Authorization` header, if they may do `right`; None for an allowed anonymous call.

        Raises `Unauthorized` for no key or a wrong one, `Forbidden` for a role without the right.
        """
        if header is None:
            if right in anonymous:
                return None
            raise Unauthorized("Send an API key: Authorization: Bearer <key>.", code="missing_key")
        scheme, _, secret = header.partition(b" ")
        if scheme.lower() != b"bearer" or not secret:
            raise Unauthorized("Authorization must be: Bearer <key>.", code="bad_authorization")
        key = self.find(secret.strip(), now)
        if key is None:
            raise Unauthorized("This API key is unknown, revoked or expired.", code="bad_key")
        if right not in RIGHTS[key.role]:
            raise Forbidden(f"A key with the role {key.role} may not {right} here.", code="role_forbids")
        return key

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_digest.values())


class Published:
    """The holder that readers look into and the catalog swaps; never locked."""

    __slots__ = ("keys", "ruleset")

    def __init__(self, ruleset: Ruleset, keys: KeyRing) -> None:
        self.ruleset = ruleset
        self.keys = keys
