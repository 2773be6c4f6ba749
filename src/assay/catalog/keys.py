"""API keys: made, listed, revoked; the secret is shown once and never stored."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from sqlalchemy import bindparam, func, or_, select, update

from assay.catalog.checks import Input, Name, Tag, Time, refuse, shown
from assay.catalog.database import Actor, Database, ReadTx, WriteTx
from assay.catalog.documents import difference, iso_or_none
from assay.catalog.editing import find
from assay.catalog.tables import ApiKey
from assay.catalog.tables import Tag as TagRow
from assay.errors import Invalid, NotFound
from assay.published import Key, Role

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SERVER = Actor("server")
#: Between two times that the same key's last use is stored.
_BETWEEN_USES = timedelta(minutes=1)
#: Experiments, or tags, that one key's scope may name.
_MOST_NAMED = 1_000


def _role(value: object) -> object:
    if isinstance(value, str) and value.lower() in set(Role):
        return Role(value.lower())
    raise refuse(f"must be one of {', '.join(Role)}; got {shown(value)}")


class KeyInput(Input):
    """A new API key."""

    name: Name
    role: Annotated[Role, BeforeValidator(_role)] = Role.CLIENT
    expires_at: Time | None = None
    experiments: Annotated[list[Name | int], Field(min_length=1, max_length=_MOST_NAMED)] | None = Field(
        default=None, description="For the role client: know of these experiments alone, by id or key."
    )
    tags: Annotated[list[Tag], Field(min_length=1, max_length=_MOST_NAMED)] | None = Field(
        default=None, description="For the role client: know of experiments with any of these tags alone."
    )


def create(tx: WriteTx, given: KeyInput) -> tuple[ApiKey, str]:
    """A new key and its secret, which is not known afterwards."""
    if given.expires_at is not None and given.expires_at <= tx.now:
        raise Invalid.field("expires_at", f"must lie in the future; got {iso_or_none(given.expires_at)}")
    secret = f"assay_{secrets.token_urlsafe(32)}"
    row = ApiKey(
        name=given.name,
        role=given.role.value,
        digest=hashlib.sha256(secret.encode()).hexdigest(),
        prefix=secret[:12],
        scope=_scope(tx, given),
        created_at=tx.now,
        expires_at=given.expires_at,
    )
    tx.add(row)
    tx.flush()
    changes = {
        "name": row.name,
        "role": row.role,
        "expires_at": iso_or_none(row.expires_at),
        "scope": row.scope,
    }
    tx.record("key.create", "key", row.id, changes=difference({}, changes))
    return row, secret


def _scope(tx: ReadTx, given: KeyInput) -> dict[str, Any] | None:
    """What a key is limited to. Raises `Invalid` for what is not there, and for other roles."""
    named = {"experiments": given.experiments, "tags": given.tags}
    for field, value in named.items():
        if value is not None and given.role is not Role.CLIENT:
            raise Invalid.field(field, f"limits keys with the role client; the role is {given.role}")
    found: set[int] = set()
    for at, reference in enumerate(given.experiments or ()):
        try:
            found.add(find(tx, reference).id)
        except NotFound as error:
            raise Invalid.field(f"experiments[{at}]", error.detail, code="unknown_experiment") from error
    if given.experiments is None and given.tags is None:
        return None
    return {"experiments": sorted(found), "tags": list(dict.fromkeys(given.tags or ()))}


def revoke(tx: WriteTx, key_id: int) -> None:
    """End a key for good. Raises `NotFound` for one that is unknown or revoked already."""
    row = tx.get(ApiKey, key_id)
    if row is None or row.revoked_at is not None:
        raise NotFound(f"There is no key {key_id}.", code="unknown_key")
    row.revoked_at = tx.now
    tx.record("key.revoke", "key", row.id, changes={"is_active": {"from": True, "to": False}})


def page(tx: ReadTx, *, skip: int = 0, limit: int = 100) -> tuple[list[ApiKey], int]:
    """All keys, revoked ones too, newest first, and how many there are."""
    total = tx.scalar(select(func.count()).select_from(ApiKey)) or 0
    rows = select(ApiKey).order_by(ApiKey.id.desc()).offset(skip).limit(limit)
    return list(tx.scalars(rows)), total


def in_force(tx: ReadTx) -> list[Key]:
    """What the key ring holds: tags of a scope have become the experiments that have them now."""
    rows = list(tx.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None))))
    wanted = {tag for row in rows if row.scope for tag in row.scope["tags"]}
    tagged: dict[str, set[int]] = {}
    if wanted:
        for tag, number in tx.execute(select(TagRow.tag, TagRow.experiment_id)):
            if tag in wanted:
                tagged.setdefault(tag, set()).add(number)
    return [
        Key(
            row.id,
            row.name,
            Role(row.role),
            bytes.fromhex(row.digest),
            microseconds(row.expires_at),
            None
            if row.scope is None
            else frozenset(row.scope["experiments"]).union(
                *(tagged.get(tag, set()) for tag in row.scope["tags"])
            ),
        )
        for row in rows
    ]


def environment_keys(admin_secrets: Sequence[str]) -> list[Key]:
    """Admin keys that exist only in the environment, and so have the id 0 and no row."""
    return [
        Key(0, f"environment key {number}", Role.ADMIN, hashlib.sha256(secret.encode()).digest())
        for number, secret in enumerate(admin_secrets, 1)
    ]


def ensure_admin_key(
    database: Database, now: datetime, keep: Callable[[str], None] = lambda _: None
) -> str | None:
    """On a catalog that never had an admin key, make one and return its secret.

    Keys with other roles do not count: nobody could administer with them. A revoked admin key does,
    because somebody meant to end it. `keep` puts the secret where it can be found again, before the key
    exists for good.
    """
    admin = select(ApiKey.id).where(ApiKey.role == Role.ADMIN.value).limit(1)
    with database.reading() as tx:
        if tx.scalar(admin) is not None:
            return None
    with database.writing(_SERVER, now) as write:
        if write.scalar(admin) is not None:
            return None
        secret = create(write, KeyInput(name="first admin key", role=Role.ADMIN))[1]
        keep(secret)
        return secret


class KeyUse:
    """Remembers when keys were last used, and writes it down at most once a minute for each.

    Noting and storing need no lock: each key's entry is replaced whole, and nothing is taken out.
    """

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._stored: dict[int, tuple[int, datetime]] = {}

    def note(self, key: Key | None, now: int) -> None:
        """This key was used at `now` (microseconds). Costs a dictionary entry."""
        if key is not None and key.id:
            self._seen[key.id] = now

    def flush(self, database: Database, now: datetime) -> int:
        """Store the uses that are due; returns the number of keys. What cannot be stored is due next time."""
        due: dict[int, int] = {}
        for key, at in sorted(
            self._seen.copy().items()
        ):  # in order, so that two processes never wait in a ring
            use, stored = self._stored.get(key, (None, None))
            if at != use and (stored is None or abs(now - stored) >= _BETWEEN_USES):
                due[key] = at
        if not due:
            return 0
        column = ApiKey.__table__.c
        used = (
            update(ApiKey)
            .where(
                column.id == bindparam("key_id"),
                or_(column.last_used_at.is_(None), column.last_used_at < bindparam("used_at")),
            )
            .values(last_used_at=bindparam("used_at"))
        )
        with database.noting() as tx:
            rows = [
                {"key_id": key, "used_at": _EPOCH + timedelta(microseconds=at)} for key, at in due.items()
            ]
            tx.connection().execute(used, rows)
        self._stored.update((key, (at, now)) for key, at in due.items())
        return len(due)


def microseconds(moment: datetime | None) -> int | None:
    """A moment in microseconds since the epoch, exactly."""
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
