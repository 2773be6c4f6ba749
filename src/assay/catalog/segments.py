"""Segments: named parts of the population, by rule and by list."""

import json
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field
from sqlalchemy import (
    ColumnElement,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from assay.bucketing import ruleset
from assay.bucketing.conditions import Condition, compile_condition
from assay.bucketing.ruleset import Status
from assay.catalog import documents, keying
from assay.catalog.checks import (
    Input,
    KeyText,
    Name,
    OuterId,
    Prose,
    Reference,
    Rule,
    expect_storable,
    shown,
    storable,
)
from assay.catalog.database import Database, ReadTx, WriteTx
from assay.catalog.editing import (
    LIVE,
    as_id,
    expect_version,
    targeting_changed,
    whole,
)
from assay.catalog.groups import Rules, checked_rule, expect_unnamed, listed
from assay.catalog.tables import (
    Experiment,
    ExperimentSegment,
    ListDigest,
    Segment,
    SegmentMember,
    SpareList,
)
from assay.errors import Conflict, Invalid, NotFound

#: A spare list that has not grown for so long was abandoned; rows of it that go in one transaction.
_ABANDONED: Final = timedelta(minutes=10)
_REMOVED_AT_ONCE: Final = 5_000
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


class SegmentInput(Input):
    """A new segment."""

    name: Name
    key: KeyText | None = Field(
        default=None,
        description="What conditions call its list ($inGroup); by default made from the name; never changes.",
    )
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
    key: Any = None
    description: Prose = ""
    rules: Rule | None = None
    private: bool = False
    version: int | None = None


class MemberInput(Input):
    """One user to put into a segment."""

    user_id: OuterId
    segment_id: Reference


class MembersInput(Input):
    """Many users to put into a segment."""

    user_ids: Annotated[list[OuterId], Field(max_length=1_000_000)]
    replace: bool = Field(default=False, description="Make these the only members.")


class AttachmentInput(Input):
    """A segment and the experiment it is attached to or taken off."""

    experiment_id: Reference
    segment_id: Reference


def find(tx: Session, reference: int | str) -> Segment:
    """The segment with this id or key; all digits are an id. Raises `NotFound`."""
    number = as_id(reference)
    row = None
    if number is not None:
        row = tx.get(Segment, number)
    elif storable(str(reference)):
        row = tx.scalar(select(Segment).where(Segment.key == str(reference)))
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
    """The newest segments whose name or key contains `q`, and how many there are."""
    expect_storable("q", q)
    rows = select(Segment)
    if q:
        rows = rows.where(
            Segment.name.icontains(q, autoescape=True) | Segment.key.icontains(q, autoescape=True)
        )
    total = tx.scalar(select(func.count()).select_from(rows.subquery())) or 0
    return list(tx.scalars(rows.order_by(Segment.id.desc()).offset(skip).limit(limit))), total


def create(tx: WriteTx, given: SegmentInput) -> Segment:
    """A new segment, attached to nothing. Raises `Conflict` for a key that is taken."""
    row = Segment(
        key=keying.settled(tx, Segment.key, "segment", given.key, given.name),
        name=given.name,
        description=given.description,
        rules=checked_rule(tx, given.rules, "rules"),
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
    if given.given("key") and given.key != segment.key:
        raise Invalid.field(
            "key",
            f"is what conditions call its list and cannot be changed; it is {shown(segment.key)}, "
            f"got {shown(given.key)}",
        )
    before = _editable(segment)
    if given.given("name"):
        segment.name = given.name
    if given.given("description"):
        segment.description = given.description
    if given.given("rules"):
        segment.rules = checked_rule(tx, given.rules, "rules")
        if segment.rules:
            expect_unnamed(tx, segment, "a list that is named can have no rule; make another segment for it.")
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
    expect_free(tx, segment)
    tx.record("segment.delete", "segment", segment.id, changes=documents.difference(_editable(segment), {}))
    tx.execute(delete(Segment).where(Segment.id == segment.id))


def expect_free(tx: ReadTx, segment: Segment) -> None:
    """Raises `Conflict` where an experiment or another segment depends on the segment."""
    expect_unnamed(tx, segment, "change that first, or nobody would be on it.")
    users = [each for each in _users(tx, segment) if each.status in LIVE or each.status == Status.DRAFT]
    if users:
        names = ", ".join(each.key for each in users[:5])
        raise Conflict(
            f"Segment {segment.name} is attached to {names}: take it off first, "
            "or those experiments would open to everybody.",
            code="segment_in_use",
        )


def add_members(tx: WriteTx, segment: Segment, user_ids: Sequence[str], *, replace: bool = False) -> int:
    """Put users into the segment, or with `replace` make them its only members; returns how many are new."""
    if replace:
        tx.execute(delete(SegmentMember).where(*in_force(segment)))
        segment.member_count = 0
    added = insert(tx, segment.id, segment.list, user_ids) if user_ids else 0
    if not added and not replace:
        return 0
    _grown(tx, segment, added, [] if replace else user_ids)
    if len(user_ids) == 1 and not replace:
        tx.record("segment.add_member", "segment", segment.id, user_id=user_ids[0])
    else:
        changes = {"members": {"added": added, "replaced": replace}}
        tx.record("segment.add_members", "segment", segment.id, changes=changes)
    return added


def remove_member(tx: WriteTx, segment: Segment, user_id: str) -> None:
    """Take a user off the list; a rule may still let them in. Raises `NotFound`."""
    row = tx.get(SegmentMember, (segment.id, segment.list, user_id)) if storable(user_id) else None
    if row is None:
        raise NotFound(f"Segment {segment.id} does not list user {shown(user_id)}.", code="not_a_member")
    tx.delete(row)
    tx.flush()
    _grown(tx, segment, -1, [], gone=user_id)
    tx.record("segment.remove_member", "segment", segment.id, user_id=user_id)


def members(tx: ReadTx, segment: Segment, *, skip: int = 0, limit: int = 100) -> list[str]:
    """The ids on the list, in order."""
    rows = select(SegmentMember.user_id).where(*in_force(segment))
    return list(tx.scalars(rows.order_by(SegmentMember.user_id).offset(skip).limit(limit)))


def in_force(segment: Segment) -> tuple[ColumnElement[bool], ...]:
    """What is true of the rows that make the segment's list."""
    return SegmentMember.segment_id == segment.id, SegmentMember.list == segment.list


def listed_after(tx: ReadTx, segment_id: int, number: int, last: str, limit: int) -> list[str]:
    """The next ids of one list, in order; `last` is where the stretch before ended, empty at first."""
    rows = select(SegmentMember.user_id).where(
        SegmentMember.segment_id == segment_id, SegmentMember.list == number, SegmentMember.user_id > last
    )
    return list(tx.scalars(rows.order_by(SegmentMember.user_id).limit(limit)))


def forget(tx: WriteTx, user_id: str) -> int:
    """Take a user off every list, for good; how many there were."""
    removed = 0
    lists = [
        *tx.execute(select(Segment.id, Segment.list)),
        *tx.execute(select(SpareList.segment_id, SpareList.list)),
    ]
    for segment_id, number in lists:
        row = tx.get(SegmentMember, (segment_id, number, user_id))
        if row is None:
            continue
        tx.delete(row)
        tx.flush()
        removed += 1
        segment = tx.get_one(Segment, segment_id)
        if segment.list == number:
            _grown(tx, segment, -1, [], gone=user_id)
    return removed


def insert(tx: Session, segment_id: int, number: int, user_ids: Sequence[str]) -> int:
    """Put ids on a list, leaving those that are there: how many are new. one statement for all."""
    if tx.get_bind().dialect.name == "postgresql":
        done = tx.connection().execute(
            text(
                "INSERT INTO segment_members (segment_id, list, user_id) "
                "SELECT :segment_id, :list, unnest(CAST(:user_ids AS text[])) ON CONFLICT DO NOTHING"
            ),
            {"segment_id": segment_id, "list": number, "user_ids": list(user_ids)},
        )
        return int(done.rowcount)
    # One statement, in which the interpreter is free for others: a row each would take it back each time.
    done = tx.connection().exec_driver_sql(
        "INSERT INTO segment_members (segment_id, list, user_id) "
        "SELECT ?, ?, value FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
        (segment_id, number, json.dumps(sorted(user_ids))),
    )
    return int(done.rowcount)


# Lists that are not in force: see `assay.catalog.uploads`.


def spare_list(tx: Session, segment: Segment, now: datetime) -> int:
    """A new, empty list of the segment, on its way; its number."""
    tx.execute(select(Segment.id).where(Segment.id == segment.id).with_for_update())  # one number to each
    spare = tx.scalar(select(func.max(SpareList.list)).where(SpareList.segment_id == segment.id)) or 0
    number = max(spare, segment.list) + 1
    tx.add(SpareList(segment_id=segment.id, list=number, touched_at=now))
    return number


def touch_spare(tx: Session, segment_id: int, number: int, now: datetime) -> None:
    """Say that the list is still growing."""
    spare = (SpareList.segment_id == segment_id, SpareList.list == number)
    tx.execute(update(SpareList).where(*spare).values(touched_at=now))


def give_up_spare(tx: Session, segment_id: int, number: int) -> None:
    """Let the list be removed by and by."""
    touch_spare(tx, segment_id, number, _LONG_AGO)


def replace_list(tx: WriteTx, segment: Segment, number: int, count: int, packed: bytes | None) -> None:
    """Put another list of the segment in force; `packed` are its sorted digests where it is long."""
    spare = (SpareList.segment_id == segment.id, SpareList.list == number)
    if tx.scalar(delete(SpareList).where(*spare).returning(SpareList.list)) is None:
        raise Conflict("The upload took so long that it was given up: repeat it.", code="upload_abandoned")
    tx.add(SpareList(segment_id=segment.id, list=segment.list, touched_at=_LONG_AGO))
    before = segment.member_count
    segment.list, segment.member_count = number, count
    segment.members_version += 1
    _keep_digests(tx, segment, packed)
    _touch(tx, segment)
    changes = {"member_count": {"from": before, "to": count}}
    tx.record("segment.replace_list", "segment", segment.id, changes=changes)


def tidy(database: Database, now: datetime) -> int:
    """Remove a step's worth of lists that nobody needs; 0 where there is nothing to do."""
    return _remove_some(database, SpareList.touched_at < now - _ABANDONED)


def empty(database: Database, segment_id: int) -> None:
    """Remove all lists of a segment that are not in force, step by step."""
    while _remove_some(database, SpareList.segment_id == segment_id):
        pass


def _remove_some(database: Database, which: ColumnElement[bool]) -> int:
    with database.reading() as read:
        lists = select(SpareList).where(which).order_by(SpareList.segment_id, SpareList.list)
        spare = read.scalar(lists.limit(1))
    if spare is None:
        return 0
    rows = (SegmentMember.segment_id == spare.segment_id, SegmentMember.list == spare.list)
    nth = select(SegmentMember.user_id).where(*rows).order_by(SegmentMember.user_id)
    with database.noting() as tx:
        # A stretch of the key, which every planner reads as one; a list of ids it may look up one by one.
        last = tx.scalar(nth.offset(_REMOVED_AT_ONCE - 1).limit(1))
        stretch = rows if last is None else (*rows, SegmentMember.user_id <= last)
        count = int(tx.connection().execute(delete(SegmentMember).where(*stretch)).rowcount)
        if last is None:
            its = (SpareList.segment_id == spare.segment_id, SpareList.list == spare.list)
            tx.execute(delete(SpareList).where(*its))
    return count or 1


def digests_of(tx: ReadTx, segment: Segment) -> bytes | None:
    """The sorted digests of a long list, where they are kept."""
    if segment.member_count <= ruleset.Members.SMALL:
        return None
    kept = select(ListDigest.digests).where(
        ListDigest.segment_id == segment.id, ListDigest.members_version == segment.members_version
    )
    return tx.scalar(kept)


def members_of(tx: ReadTx, segment: Segment) -> ruleset.Members | None:
    """The list as evaluation reads it; None for an empty one."""
    if not segment.member_count:
        return None
    packed = digests_of(tx, segment)
    if packed is not None:
        return ruleset.Members.of_digests(packed)
    listed = select(SegmentMember.user_id).where(*in_force(segment))
    return ruleset.Members(tx.scalars(listed.execution_options(yield_per=10_000)))


def compiled(tx: ReadTx, segment: Segment) -> ruleset.Segment:
    """The segment as evaluation reads it, but for what it was made from."""
    condition = condition_of(tx, segment.rules, "rules")
    return ruleset.Segment(segment.id, segment.name, condition, members_of(tx, segment))


def condition_of(tx: ReadTx, rule: Rules, path: str) -> Condition | None:
    """A rule that was accepted, compiled with the lists that it names; None where there is none."""
    if not rule:
        return None
    groups = {each.key: members_of(tx, each) or () for each in listed(tx, [rule])}
    return compile_condition(rule, path, groups)


def _grown(
    tx: WriteTx, segment: Segment, added: int, user_ids: Sequence[str], *, gone: str | None = None
) -> None:
    """The list has `added` more ids, some of `user_ids`, or less for the one that is `gone`."""
    kept = digests_of(tx, segment)
    segment.member_count += added
    segment.members_version += 1
    packed = None
    if segment.member_count > ruleset.Members.SMALL:
        known, fresh = array("Q"), array("Q")
        if kept is None:
            rows = tx.scalars(select(SegmentMember.user_id).where(*in_force(segment)))
            fresh.frombytes(ruleset.digests(rows))
        else:
            known.frombytes(kept)
            fresh.frombytes(ruleset.digests(user_ids))
        if gone is not None and kept is not None:
            known.remove(array("Q", ruleset.digests([gone]))[0])
        known.extend(sorted(each for each in set(fresh) if not _holds(known, each)))
        # Two stretches in order are put together in a fraction of the time that sorting takes.
        packed = array("Q", sorted(known)).tobytes()
    _keep_digests(tx, segment, packed)
    _touch(tx, segment)


def _holds(known: "array[int]", digest: int) -> bool:
    place = bisect_left(known, digest)
    return place < len(known) and known[place] == digest


def _keep_digests(tx: WriteTx, segment: Segment, packed: bytes | None) -> None:
    tx.execute(delete(ListDigest).where(ListDigest.segment_id == segment.id))
    if packed is not None:
        version = segment.members_version
        tx.add(ListDigest(segment_id=segment.id, members_version=version, digests=packed))


def _users(tx: ReadTx, segment: Segment) -> list[Experiment]:
    links = select(ExperimentSegment.experiment_id).where(ExperimentSegment.segment_id == segment.id)
    return list(tx.scalars(select(Experiment).where(Experiment.id.in_(links)).options(*whole())))


def _editable(segment: Segment) -> dict[str, object]:
    return {
        "key": segment.key,
        "name": segment.name,
        "description": segment.description,
        "rules": segment.rules,
        "private": segment.private,
    }


def _touch(tx: WriteTx, segment: Segment) -> None:
    segment.version += 1
    segment.updated_at = tx.now
