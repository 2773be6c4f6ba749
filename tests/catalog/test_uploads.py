"""Long lists: put in force as a whole, in small steps, and left as they were where something fails."""

from datetime import timedelta

import pytest

from assay.bucketing.ruleset import Members
from assay.catalog import segments, uploads, users
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.memberlists import MemberReader
from assay.errors import Conflict, Invalid, NotFound, TooLarge, UnsupportedType
from catalog.conftest import HALVES, Catalog

MANY = [f"user-{number}" for number in range(12_000)]
ADA = Actor("ada")


@pytest.fixture
def segment(catalog: Catalog) -> int:
    """A segment that lists two users, attached to a running experiment."""
    with catalog.write() as tx:
        row = segments.create(tx, parse(segments.SegmentInput, {"name": "s"}))
        segments.add_members(tx, row, ["ann", "bob"])
    catalog.running(variants=HALVES, segments=[row.id])
    return row.id


def uploaded(catalog: Catalog, segment: int, ids: list[str], *, keep: bool = False) -> tuple[int, int]:
    upload = uploads.Upload(catalog.database, segment, ADA, catalog.now, keep=keep)
    upload.add(ids, catalog.now)
    return upload.finish(catalog.now)


def published(catalog: Catalog) -> Members:
    found = catalog.compiled(1).segments[0].members
    assert found is not None
    return found


def test_a_list_replaces_the_one_before_at_its_end_and_not_before(catalog: Catalog, segment: int) -> None:
    upload = uploads.Upload(catalog.database, segment, ADA, catalog.now, keep=False)
    upload.add([*MANY, *MANY[:50]], catalog.now)
    with catalog.read() as tx:
        assert segments.members(tx, segments.find(tx, segment)) == ["ann", "bob"]
    assert "user-7" not in published(catalog)
    assert upload.finish(catalog.now) == (12_000, 12_000)
    members = published(catalog)
    assert (len(members), "user-7" in members, "ann" in members, members.listed) == (
        12_000,
        True,
        False,
        None,
    )
    with catalog.read() as tx:
        row = segments.find(tx, segment)
        assert (row.member_count, len(segments.members(tx, row, limit=20_000))) == (12_000, 12_000)


def test_ids_can_be_added_to_a_long_list_and_taken_off_it(catalog: Catalog, segment: int) -> None:
    assert uploaded(catalog, segment, MANY, keep=True) == (12_000, 12_002)
    assert {"ann", "user-7"} <= {each for each in ("ann", "user-7", "eve") if each in published(catalog)}
    with catalog.write() as tx:
        row = segments.find(tx, segment)
        assert segments.add_members(tx, row, ["eve", "ann"]) == 1
        segments.remove_member(tx, row, "user-7")
    members = published(catalog)
    assert (len(members), "eve" in members, "user-7" in members) == (12_002, True, False)
    with catalog.write() as tx:
        assert users.erase(tx, "eve")["segment_members"] == 1
    assert "eve" not in published(catalog)
    assert catalog.rows("SELECT member_count FROM segments") == [(12_001,)]
    assert uploaded(catalog, segment, ["zoe"]) == (1, 1)
    assert published(catalog).listed == {"zoe"}
    assert catalog.rows("SELECT count(*) FROM list_digests") == [(0,)]


def test_digests_that_are_kept_say_what_the_rows_say(catalog: Catalog, segment: int) -> None:
    uploaded(catalog, segment, MANY)
    with catalog.write() as tx:
        segments.add_members(tx, segments.find(tx, segment), ["eve", "user-1"])
    with catalog.read() as tx:
        kept = segments.digests_of(tx, segments.find(tx, segment))
    catalog.rows("DELETE FROM list_digests")
    with catalog.write() as tx:
        segments.add_members(tx, segments.find(tx, segment), ["fay"])
        segments.remove_member(tx, segments.find(tx, segment), "fay")
        assert segments.digests_of(tx, segments.find(tx, segment)) == kept


def test_what_was_given_up_changes_nothing_and_is_removed(catalog: Catalog, segment: int) -> None:
    upload = uploads.Upload(catalog.database, segment, ADA, catalog.now, keep=False)
    upload.add(MANY, catalog.now)
    assert segments.tidy(catalog.database, catalog.now) == 0
    upload.discard()
    while segments.tidy(catalog.database, catalog.now):
        pass
    assert catalog.rows("SELECT user_id FROM segment_members ORDER BY user_id") == [("ann",), ("bob",)]
    assert catalog.rows("SELECT count(*) FROM spare_lists") == [(0,)]
    with pytest.raises(Conflict) as caught:
        upload.finish(catalog.now)
    assert caught.value.code == "upload_abandoned"


def test_an_upload_that_died_is_removed_later(catalog: Catalog, segment: int) -> None:
    uploads.Upload(catalog.database, segment, ADA, catalog.now, keep=False).add(["eve"], catalog.now)
    assert segments.tidy(catalog.database, catalog.now + timedelta(minutes=9)) == 0
    assert segments.tidy(catalog.database, catalog.now + timedelta(minutes=11)) == 1
    assert catalog.rows("SELECT user_id FROM segment_members ORDER BY user_id") == [("ann",), ("bob",)]


def test_two_uploads_at_once__the_second_is_told(catalog: Catalog, segment: int) -> None:
    first, second = (uploads.Upload(catalog.database, segment, ADA, catalog.now, keep=True) for _ in range(2))
    first.add(["eve"], catalog.now)
    second.add(["fay"], catalog.now)
    assert first.finish(catalog.now) == (1, 3)
    with pytest.raises(Conflict) as caught:
        second.finish(catalog.now)
    assert caught.value.code == "list_changed"
    assert published(catalog).listed == {"ann", "bob", "eve"}


def test_a_segment_that_is_gone_takes_its_lists_along(catalog: Catalog, segment: int) -> None:
    upload = uploads.Upload(catalog.database, segment, ADA, catalog.now, keep=False)
    upload.add(["eve"], catalog.now)
    catalog.edit(1, segments=[])
    with catalog.write() as tx:
        segments.remove(tx, segments.find(tx, segment))
    with pytest.raises(NotFound):
        upload.finish(catalog.now)
    assert catalog.rows("SELECT count(*) FROM segment_members") == [(0,)]


def test_more_than_a_list_may_have_is_refused(
    catalog: Catalog, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_MEMBERS", 5_000)
    with pytest.raises(TooLarge) as caught:
        uploaded(catalog, segment, MANY)
    assert caught.value.code == "too_many_members"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain; charset=utf-8", "ann\r\n\n  bob \nzoë"),
        ("", "ann\nbob\nzoë\n"),
        ("text/csv", "ann,1\nbob,2\nzoë,3\n"),
        ("text/csv", '\ufeffname,"user_id"\n"A, B",ann\nB,"bob"\nZ,zoë'),
        ("application/x-ndjson", '"ann"\n{"user_id": "bob", "age": 3}\n{"id": "zo\\u00eb"}\n'),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lists_are_read_however_they_arrive(kind: str, body: str, size: int) -> None:
    reader, data = MemberReader(kind), body.encode()
    found = [each for start in range(0, len(data), size) for each in reader.feed(data[start : start + size])]
    assert [*found, *reader.end()] == ["ann", "bob", "zoë"]


@pytest.mark.parametrize(
    ("kind", "body", "line"),
    [
        ("text/plain", b"ann\n" + b"x" * 201, "line 2"),
        ("text/plain", b"ann\n\xff", "line 2"),
        ("text/plain", b"a\0b\n", "line 1"),
        ("text/plain", b"x" * 70_000, "line 1"),
        ("text/csv", b"name,user_id\nonly-one\n", "line 2"),
        ("text/csv", b'"open\n', "line 1"),
        ("application/x-ndjson", b'"ann"\n{"name": "bob"}\n', "line 2"),
        ("application/x-ndjson", b"ann\n", "line 1"),
        ("application/x-ndjson", b"17\n", "line 1"),
        ("application/x-ndjson", b"[" * 5_000 + b"\n", "line 1"),
    ],
)
def test_a_line_that_is_no_id_is_named(kind: str, body: bytes, line: str) -> None:
    reader = MemberReader(kind)
    with pytest.raises(Invalid) as caught:
        [reader.feed(body), reader.end()]
    assert caught.value.errors[0].path == line


def test_another_kind_of_body_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="send text/plain"):
        MemberReader("application/json")
