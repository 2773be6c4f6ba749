"""Segments: named parts of the population, by rule and by list."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from sqlalchemy import BigInteger, Text, bindparam, delete, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from assay.bucketing.ruleset import Status
from assay.catalog import documents
from assay.catalog.checks import Input, Name, OuterId, Prose, Rule, expect_storable, shown, storable
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import (
    LIVE,
    as_id,
    checked_rule,
    expect_version,
    targeting_changed,
    whole,
)
from assay.catalog.tables import Experiment, ExperimentSegment, Segment, SegmentMember
from assay.errors import Conflict, NotFound


class SegmentInput(Input):
    """A new segment."""

    name: Name
    description: Prose = ""
    rules: Rule | None = Field(
        default=None,
        description="A flat object of equalities, or a condition with $and, $or, $in, $gt, $regex …",
    )
    private: bool = Field(
        default=False,
        description="Keep rules and list out of SDKs' payload: the server evaluates experiments that use it.",
    )


class SegmentEdit(Input):
    """A change of a segment: only what is given changes."""

    name: Name = ""
    description: Prose = ""
    rules: Rule | None = None
    private: bool = False
    version: int | None = None


class MemberInput(Input):
    """One user to put into a segment."""

    user_id: OuterId
    segment_id: int


class MembersInput(Input):
    """Many users to put into a segment."""

    user_ids: Annotated[list[OuterId], Field(max_length=1_000_000)]
    replace: bool = Field(default=False, description="Make these the only members.")


class AttachmentInput(Input):
    """A segment and the experiment it is attached to or taken off."""

    experiment_id: int | Name
    segment_id: int


def find(tx: ReadTx, reference: int | str) -> Segment:
    """The segment with this id. Raises `NotFound`."""
    number = as_id(reference)
    row = tx.get(Segment, number) if number is not None else None
    if row is None:
        raise NotFound(f"There is no segment {shown(reference)}.", code="unknown_segment")
    return row


def attached_to(tx: ReadTx, segments: Sequence[Segment]) -> dict[int, list[int]]:
    """The ids of the experiments that each segment is attached to."""
    links: dict[int, list[int]] = {each.id: [] for each in segments}
    rows = select(ExperimentSegment).where(ExperimentSegment.segment_id.in_(links))
    for link in tx.scalars(rows.order_by(ExperimentSegment.experiment_id)):
        links[link.segment_id].append(link.experiment_id)
    return links


def document(tx: ReadTx, segment: Segment) -> documents.SegmentDocument:
    """A segment as the API answers it."""
    return documents.segment(segment, attached_to(tx, [segment])[segment.id])


def page(tx: ReadTx, *, q: str | None = None, skip: int = 0, limit: int = 100) -> tuple[list[Segment], int]:
    """The newest segments whose name contains `q`, and how many there are."""
    expect_storable("q", q)
    rows = select(Segment)
    if q:
        rows = rows.where(Segment.name.icontains(q, autoescape=True))
    total = tx.scalar(select(func.count()).select_from(rows.subquery())) or 0
    return list(tx.scalars(rows.order_by(Segment.id.desc()).offset(skip).limit(limit))), total


def create(tx: WriteTx, given: SegmentInput) -> Segment:
    """A new segment, attached to nothing."""
    row = Segment(
        name=given.name,
        description=given.description,
        rules=checked_rule(given.rules, "rules"),
        private=given.private,
        member_count=0,
        members_version=1,
        version=1,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.add(row)
    tx.flush()
    tx.record("segment.create", "segment", row.id, changes=documents.difference({}, _editable(row)))
    return row


def edit(
    tx: WriteTx, segment: Segment, given: SegmentEdit, *, expected: frozenset[int] | None = None
) -> None:
    """Change a segment. A changed rule begins a new phase in each running experiment that uses it."""
    expect_version(segment.version, expected)
    if given.version is not None:
        expect_version(segment.version, frozenset({given.version}))
    before = _editable(segment)
    if given.given("name"):
        segment.name = given.name
    if given.given("description"):
        segment.description = given.description
    if given.given("rules"):
        segment.rules = checked_rule(given.rules, "rules")
    if given.given("private"):
        segment.private = given.private
    changes = documents.difference(before, _editable(segment))
    if not changes:
        return
    _touch(tx, segment)
    tx.record("segment.edit", "segment", segment.id, changes=changes)
    for experiment in _users(tx, segment):
        if "rules" in changes:
            targeting_changed(tx, experiment)
            tx.record(
                "segment.edit",
                "segment",
                segment.id,
                experiment_id=experiment.id,
                changes={"rules": changes["rules"]},
            )


def remove(tx: WriteTx, segment: Segment) -> None:
    """Delete a segment that no experiment still to come or under way depends on. Raises `Conflict`."""
    users = [each for each in _users(tx, segment) if each.status in LIVE or each.status == Status.DRAFT]
    if users:
        names = ", ".join(each.key for each in users[:5])
        raise Conflict(
            f"Segment {segment.id} is attached to {names}: take it off first, "
            "or those experiments would open to everybody.",
            code="segment_in_use",
        )
    tx.record("segment.delete", "segment", segment.id, changes=documents.difference(_editable(segment), {}))
    tx.execute(delete(Segment).where(Segment.id == segment.id))


def add_members(tx: WriteTx, segment: Segment, user_ids: Sequence[str], *, replace: bool = False) -> int:
    """Put users into the segment, or with `replace` make them its only members; returns how many are new."""
    if replace:
        tx.execute(delete(SegmentMember).where(SegmentMember.segment_id == segment.id))
    before = _count(tx, segment)
    if user_ids:
        _list(tx, segment, user_ids)
    added = _count(tx, segment) - before
    if not added and not replace:
        return 0
    _recount(tx, segment)
    if len(user_ids) == 1 and not replace:
        tx.record("segment.add_member", "segment", segment.id, user_id=user_ids[0])
    else:
        changes = {"members": {"added": added, "replaced": replace}}
        tx.record("segment.add_members", "segment", segment.id, changes=changes)
    return added


def remove_member(tx: WriteTx, segment: Segment, user_id: str) -> None:
    """Take a user off the list; a rule may still let them in. Raises `NotFound`."""
    row = tx.get(SegmentMember, (segment.id, user_id)) if storable(user_id) else None
    if row is None:
        raise NotFound(f"Segment {segment.id} does not list user {shown(user_id)}.", code="not_a_member")
    tx.delete(row)
    tx.flush()
    _recount(tx, segment)
    tx.record("segment.remove_member", "segment", segment.id, user_id=user_id)


def members(tx: ReadTx, segment: Segment, *, skip: int = 0, limit: int = 100) -> list[str]:
    """The ids on the list, in order."""
    rows = select(SegmentMember.user_id).where(SegmentMember.segment_id == segment.id)
    return list(tx.scalars(rows.order_by(SegmentMember.user_id).offset(skip).limit(limit)))


def _list(tx: WriteTx, segment: Segment, user_ids: Sequence[str]) -> None:
    """Put the ids on the list, leaving those that are there; PostgreSQL takes them in one statement."""
    if tx.get_bind().dialect.name == "postgresql":
        listed = func.unnest(bindparam("user_ids", list(user_ids), type_=postgresql.ARRAY(Text)))
        rows = postgresql.insert(SegmentMember).from_select(
            ["segment_id", "user_id"], select(literal(segment.id, BigInteger), listed)
        )
        tx.execute(rows.on_conflict_do_nothing())
    else:
        tx.connection().execute(
            sqlite.insert(SegmentMember).on_conflict_do_nothing(),
            [{"segment_id": segment.id, "user_id": each} for each in user_ids],
        )


def _users(tx: ReadTx, segment: Segment) -> list[Experiment]:
    links = select(ExperimentSegment.experiment_id).where(ExperimentSegment.segment_id == segment.id)
    return list(tx.scalars(select(Experiment).where(Experiment.id.in_(links)).options(*whole())))


def _editable(segment: Segment) -> dict[str, object]:
    return {
        "name": segment.name,
        "description": segment.description,
        "rules": segment.rules,
        "private": segment.private,
    }


def _count(tx: ReadTx, segment: Segment) -> int:
    rows = select(func.count()).select_from(SegmentMember).where(SegmentMember.segment_id == segment.id)
    return tx.scalar(rows) or 0


def _recount(tx: WriteTx, segment: Segment) -> None:
    segment.member_count = _count(tx, segment)
    segment.members_version += 1
    _touch(tx, segment)


def _touch(tx: WriteTx, segment: Segment) -> None:
    segment.version += 1
    segment.updated_at = tx.now
