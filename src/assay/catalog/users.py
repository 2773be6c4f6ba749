"""Users: flat documents of attributes that targeting rules may look at. Nobody has to be known."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError
from sqlalchemy import delete, func, select, update
from sqlalchemy.sql.dml import Delete, Update

from assay.catalog import segments, snapshots
from assay.catalog.checks import (
    OuterId,
    Time,
    expect_storable,
    json_object,
    refusal,
    refuse,
    shown,
    storable,
)
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.documents import difference, iso
from assay.catalog.tables import AuditEntry, Experiment, Override, User
from assay.errors import Conflict, Invalid, NotFound

_MAX_ATTRIBUTES = 200


def _attributes(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > _MAX_ATTRIBUTES:
        raise refuse(f"at most {_MAX_ATTRIBUTES} attributes; got {len(value)}")
    for name in value:
        if not name or len(name) > 200 or "\x00" in name:
            raise refuse(f"attribute names are 1 to 200 characters without NUL; got {shown(name)}")
    return value


_Attributes: TypeAdapter[dict[str, Any]] = TypeAdapter(
    Annotated[dict[str, Any], AfterValidator(_attributes), json_object(64 * 1024)]
)


class UserInput(BaseModel):
    """A user: whatever is written beside `id` and `created_at` is an attribute."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    id: OuterId | None = None
    created_at: Time | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """All but the two fields with a meaning of their own."""
        return dict(self.model_extra or {})


def parse_user(document: object) -> UserInput:
    """Check a user's document; raises `Invalid`."""
    if not isinstance(document, Mapping):
        raise Invalid.field("body", f"must be a JSON object; got {shown(document)}")
    try:
        given = UserInput.model_validate(document)
        _Attributes.validate_python(given.attributes)
    except ValidationError as error:
        raise refusal(error) from error
    return given


def find(tx: ReadTx, user_id: str) -> User:
    """The user with this id. Raises `NotFound`."""
    row = tx.get(User, user_id) if storable(user_id) else None
    if row is None:
        raise NotFound(f"There is no user {shown(user_id)}.", code="unknown_user")
    return row


def page(tx: ReadTx, *, skip: int = 0, limit: int = 100) -> tuple[list[User], int]:
    """The newest users and how many there are."""
    total = tx.scalar(select(func.count()).select_from(User)) or 0
    rows = select(User).order_by(User.created_at.desc(), User.id).offset(skip).limit(limit)
    return list(tx.scalars(rows)), total


def create(tx: WriteTx, given: UserInput) -> tuple[User, bool]:
    """A new user, and True; or the user who is described just so already, and False. Raises `Conflict`."""
    known = tx.get(User, given.id) if given.id is not None else None
    if known is not None:
        if known.attributes == given.attributes and given.created_at in {None, known.created_at}:
            return known, False
        raise Conflict(
            f"User {shown(given.id)} exists already with other attributes: use PUT.", code="user_exists"
        )
    return _made(tx, given.id or str(uuid.uuid4()), given), True


def put(tx: WriteTx, user_id: str, given: UserInput) -> tuple[User, bool]:
    """Make the user's document the one given; True if the user is new."""
    if given.id is not None and given.id != user_id:
        raise Invalid.field("id", f"is {shown(user_id)} in the path; got {shown(given.id)}")
    row = tx.get(User, user_id)
    if row is None:
        return _made(tx, user_id, given), True
    created_at = given.created_at or row.created_at
    changes = difference(
        {"created_at": iso(row.created_at), **row.attributes},
        {"created_at": iso(created_at), **given.attributes},
    )
    if changes:
        row.attributes = given.attributes
        row.created_at = created_at
        row.updated_at = tx.now
        tx.record("user.edit", "user", user_id=user_id, changes=changes)
    return row, False


def remove(tx: WriteTx, user_id: str) -> None:
    """Forget a user's attributes; assignments and events stay. Raises `NotFound`."""
    row = find(tx, user_id)
    tx.delete(row)
    tx.record("user.delete", "user", user_id=user_id)


def erase(tx: WriteTx, user_id: str) -> dict[str, int]:
    """Remove every row of the catalog that names the user; says how many of each.

    The audit log keeps what was done and when; the user's id in it becomes a digest, and what it says
    about them goes.
    """
    expect_storable("user_id", user_id)
    forced = select(Override.experiment_id).where(Override.unit_id == user_id)
    experiments = list(tx.scalars(select(Experiment).where(Experiment.id.in_(forced))))
    removed = {
        "users": _rows(tx, delete(User).where(User.id == user_id)),
        "segment_members": segments.forget(tx, user_id),
        "overrides": _rows(tx, delete(Override).where(Override.unit_id == user_id)),
    }
    removed["report_snapshots"] = snapshots.forget(tx, user_id)
    for experiment in experiments:
        experiment.version += 1
    tx.publishes = bool(removed["segment_members"] or experiments)
    digest = f"sha256:{hashlib.sha256(user_id.encode()).hexdigest()}"
    entries = update(AuditEntry).where(AuditEntry.user_id == user_id).values(user_id=digest, changes={})
    removed["audit_entries_anonymised"] = _rows(tx, entries)
    tx.record("user.erase", "user", user_id=digest, changes=removed)
    return removed


def _made(tx: WriteTx, user_id: str, given: UserInput) -> User:
    created_at = given.created_at or tx.now
    row = User(id=user_id, attributes=given.attributes, created_at=created_at, updated_at=tx.now)
    tx.add(row)
    changes = difference({}, given.attributes)
    tx.record("user.create", "user", user_id=user_id, changes=changes)
    return row


def _rows(tx: WriteTx, statement: Delete | Update) -> int:
    return int(tx.connection().execute(statement).rowcount)
