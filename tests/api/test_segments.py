"""Segments over HTTP: rules, lists, attaching."""

from typing import Any

import pytest

from api.conftest import House
from assay.catalog import preview

HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


def made(house: House, **fields: Any) -> dict[str, Any]:
    response = house.ask("POST", "/segments", {"name": "s", **fields})
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


def test_create_read_edit_delete(house: House) -> None:
    segment = made(house, name="US", description="d", rules={"country_code": "US"})
    assert segment == {
        "id": 1,
        "key": "us",
        "name": "US",
        "description": "d",
        "rules": {"country_code": "US"},
        "private": False,
        "member_count": 0,
        "experiments": [],
        "created_at": segment["created_at"],
        "updated_at": segment["created_at"],
        "version": 1,
    }
    assert house.ask("GET", "/api/segments/1").json() == segment
    edited = house.ask("PUT", "/segments/1", {"rules": {"age": {"$gte": 18}}}, headers={"If-Match": '"1"'})
    assert (edited.status_code, edited.json()["rules"], edited.headers["etag"]) == (
        200,
        {"age": {"$gte": 18}},
        '"2"',
    )
    assert house.ask("PATCH", "/segments/1", {"name": "x"}, headers={"If-Match": '"1"'}).status_code == 412
    assert house.ask("PATCH", "/segments/1", {"name": "x", "version": 1}).status_code == 412
    assert house.ask("GET", "/segments/1").json()["name"] == "US"
    assert house.ask("DELETE", "/segments/1").status_code == 204
    assert house.ask("GET", "/segments/1").status_code == 404
    assert made(house)["id"] == 2


def test_lists(house: House) -> None:
    for name in ("alpha", "beta", "alphabet"):
        made(house, name=name)
    listed = house.ask("GET", "/api/v1/segments?limit=2").json()
    assert [each["name"] for each in listed["segments"]] == ["alphabet", "beta"]
    assert (listed["total"], listed["skip"], listed["limit"]) == (3, 0, 2)
    assert [each["name"] for each in house.ask("GET", "/segments?q=ALPHA").json()["segments"]] == [
        "alphabet",
        "alpha",
    ]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "name"),
        ({"name": "s", "rules": []}, "rules"),
        ({"name": "s", "rules": {"age": {"$gtt": 1}}}, "rules.age.$gtt"),
        ({"name": "s", "rules": {"a": "x" * 70_000}}, "rules"),
        ({"name": "s", "rule": {}}, "rule"),
    ],
)
def test_segments_that_are_refused(house: House, body: dict[str, Any], path: str) -> None:
    before = house.counts()
    response = house.ask("POST", "/segments", body)
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, path)
    assert house.counts() == before


def test_members_one_by_one_and_in_bulk(house: House) -> None:
    segment = made(house)["id"]
    assert house.ask("POST", "/segments/assign-user", {"user_id": "a", "segment_id": segment}).json() == {
        "segment_id": segment,
        "user_id": "a",
        "added": True,
    }
    again = house.ask("POST", "/api/segments/assign-user", {"user_id": "a", "segment_id": segment})
    assert (again.status_code, again.json()["added"]) == (200, False)
    assert house.ask("PUT", f"/segments/{segment}/users/b%2Fc").json()["user_id"] == "b/c"
    bulk = house.ask("POST", f"/segments/{segment}/users", {"user_ids": ["a", "d", "d", "é"]})
    assert bulk.json() == {"segment_id": segment, "added": 2, "member_count": 4}
    page = house.ask("GET", f"/segments/{segment}/users?limit=3").json()
    assert page == {"user_ids": ["a", "b/c", "d"], "total": 4, "skip": 0, "limit": 3}
    assert house.ask("DELETE", f"/segments/{segment}/users/d").status_code == 204
    assert house.ask("DELETE", f"/segments/{segment}/users/d").status_code == 404
    replaced = house.ask("POST", f"/segments/{segment}/users", {"user_ids": ["z"], "replace": True}).json()
    assert replaced["member_count"] == 1
    assert house.ask("GET", f"/segments/{segment}").json()["member_count"] == 1
    assert house.ask("POST", "/segments/assign-user", {"user_id": "a", "segment_id": 99}).status_code == 404
    before = house.counts()
    for body in (
        {"user_ids": ["ok", ""]},
        {"user_ids": ["ok", "\x00"]},
        {"user_ids": [1]},
        {"user_ids": "a"},
        {},
    ):
        assert house.ask("POST", f"/segments/{segment}/users", body).status_code == 422
    assert house.counts() == before


def test_attached_in_every_spelling(house: House) -> None:
    experiment = house.made({"name": "x", "variants": HALVES, "status": "running"})["id"]
    one, two = made(house, rules={"plan": "pro"})["id"], made(house)["id"]
    body = {"experiment_id": experiment, "segment_id": one}
    assert house.ask("POST", "/segments/assign-experiment", body).json() == {**body, "attached": True}
    attached = house.ask("PUT", f"/experiments/{experiment}/segments/{two}").json()
    assert attached["segments"] == [{"id": one, "name": "s"}, {"id": two, "name": "s"}]
    assert house.ask("GET", f"/segments/{one}").json()["experiments"] == [experiment]
    compiled = house.parts.published.ruleset.find(experiment)
    assert compiled is not None
    assert [each.id for each in compiled.segments] == [one, two]
    house.ask("POST", f"/segments/{two}/users", {"user_ids": ["u1"]})
    compiled = house.parts.published.ruleset.find(experiment)
    assert compiled is not None
    assert [each.matches("u1", {}) for each in compiled.segments] == [False, True]
    assert [each.matches("u2", {"plan": "pro"}) for each in compiled.segments] == [True, False]
    assert house.ask("DELETE", f"/segments/{one}").json()["code"] == "segment_in_use"
    assert house.ask("DELETE", "/segments/unassign-experiment", body).json() == {**body, "attached": False}
    assert house.ask("DELETE", "/segments/unassign-experiment", body).json()["code"] == "not_attached"
    query = f"experiment_id={experiment}&segment_id={two}"
    assert house.ask("DELETE", f"/segments/unassign-experiment?{query}").status_code == 200
    assert house.ask("PUT", f"/experiments/{experiment}/segments/{one}").status_code == 200
    assert house.ask("DELETE", f"/experiments/{experiment}/segments/{one}").json()["segments"] == []
    assert house.ask("DELETE", f"/segments/{one}").status_code == 204
    by_key = {"experiment_id": "x", "segment_id": two}
    assert house.ask("POST", "/segments/assign-experiment", by_key).status_code == 200


def test_segments_given_with_the_experiment(house: House) -> None:
    segment = made(house)
    experiment = house.made({"name": "x", "segments": [segment["id"]]})
    assert experiment["segments"] == [{"id": segment["id"], "name": "s"}]
    assert (
        house.ask("PATCH", f"/api/v1/experiments/{experiment['id']}", {"segments": []}).json()["segments"]
        == []
    )


def test_what_changed_is_audited_without_naming_people_in_it(house: House) -> None:
    segment = made(house)["id"]
    house.ask("POST", "/segments/assign-user", {"user_id": "ada", "segment_id": segment})
    house.ask("POST", f"/segments/{segment}/users", {"user_ids": ["b", "c"]})
    house.ask("DELETE", f"/segments/{segment}/users/ada")
    entries = house.ask("GET", "/api/v1/audit?noun=segment").json()["entries"]
    assert [(each["action"], each["user_id"], each["changes"]) for each in entries[:3]] == [
        ("segment.remove_member", "ada", {}),
        ("segment.add_members", None, {"members": {"added": 2, "replaced": False}}),
        ("segment.add_member", "ada", {}),
    ]


def described(house: House) -> None:
    """Ten users: u0 to u9, by turns of two countries, each with an age."""
    for number in range(10):
        user = {"id": f"u{number}", "country": ["DE", "US"][number % 2], "age": 20 + number}
        assert house.ask("POST", "/users", user).status_code == 201


def test_a_rule_is_tried_on_the_users_that_are_known(house: House) -> None:
    described(house)
    condition = {"country": "DE", "age": {"$gte": 24}}
    expected = {"matched": 3, "of": 10, "known": 10, "complete": True, "sample": ["u4", "u6"]}
    for name in ("condition", "rules"):
        response = house.ask("POST", "/api/v1/segments/preview", {name: condition, "sample": 2})
        assert (response.status_code, response.json()) == (200, expected)
    everybody = house.ask("POST", "/segments/preview", {"sample": 0}).json()
    assert everybody == {"matched": 10, "of": 10, "known": 10, "complete": True, "sample": []}
    assert house.counts()["segments"] == 0


def test_segments_and_a_condition_are_tried_together(house: House) -> None:
    described(house)
    listed, ruled = made(house)["id"], made(house, rules={"age": {"$lt": 22}})["id"]
    house.ask("POST", f"/segments/{listed}/users", {"user_ids": ["u5", "u6", "stranger"]})
    asked = {"segments": [listed, ruled], "condition": {"country": "US"}}
    assert house.ask("POST", "/segments/preview", asked).json()["sample"] == ["u1", "u5"]
    experiment = house.made({"name": "T", **asked})
    found = house.ask("GET", f"/api/v1/experiments/{experiment['id']}/audience", role="viewer").json()
    assert (found["matched"], found["sample"]) == (2, ["u1", "u5"])


def test_a_look_ends_when_its_time_is_over(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    described(house)
    monkeypatch.setattr(preview, "PATIENCE", 0.0)
    monkeypatch.setattr(preview, "_PAGE", 4)
    found = house.ask("POST", "/segments/preview", {"condition": {"country": "DE"}}).json()
    assert found == {"matched": 2, "of": 4, "known": 10, "complete": False, "sample": ["u0", "u2"]}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"condition": {"age": {"$gtt": 1}}}, "condition.age.$gtt"),
        ({"rules": {"age": {"$gtt": 1}}}, "rules.age.$gtt"),
        ({"segments": [77]}, "segments[0]"),
        ({"condition": {}, "rules": {}}, "rules"),
        ({"sample": 1000}, "sample"),
    ],
)
def test_a_preview_that_cannot_be_is_refused(house: House, body: dict[str, Any], path: str) -> None:
    response = house.ask("POST", "/segments/preview", body)
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, path)


def upload(house: House, method: str, segment: int, body: bytes, kind: str = "text/plain") -> Any:
    path = f"/api/v1/segments/{segment}/members"
    return house.ask(method, path, content=body, headers={"Content-Type": kind})


def test_a_list_is_uploaded_replaced_and_deleted(house: House) -> None:
    segment = made(house)["id"]
    path = f"/segments/{segment}/users"
    many = "\n".join(f"u{number:05}" for number in range(12_000)).encode()
    added = {"segment_id": segment, "added": 12_000, "member_count": 12_000}
    assert upload(house, "POST", segment, many).json() == added
    again = {"segment_id": segment, "added": 1, "member_count": 12_001}
    assert upload(house, "POST", segment, b"user_id\nu00001\nzoe", "text/csv").json() == again
    assert house.ask("GET", f"{path}?skip=11999&limit=3").json()["user_ids"] == ["u11999", "zoe"]
    broken = upload(house, "PUT", segment, b'"ann"\n{}\n', "application/x-ndjson")
    assert (broken.status_code, broken.json()["errors"][0]["path"]) == (422, "line 2")
    assert upload(house, "PUT", segment, b"{}", "application/json").status_code == 415
    assert house.ask("GET", f"/segments/{segment}").json()["member_count"] == 12_001
    replaced = {"segment_id": segment, "added": 1, "member_count": 1}
    assert upload(house, "PUT", segment, b"ann\nann\n").json() == replaced
    assert house.ask("DELETE", f"/api/v1/segments/{segment}/members").status_code == 204
    assert house.ask("GET", path).json()["user_ids"] == []
    assert upload(house, "PUT", 77, b"ann").status_code == 404


def test_a_long_list_in_json_goes_the_same_way(house: House) -> None:
    segment = made(house)["id"]
    ids = [f"u{number}" for number in range(11_000)]
    found = house.ask("POST", f"/segments/{segment}/users", {"user_ids": ids}).json()
    assert found == {"segment_id": segment, "added": 11_000, "member_count": 11_000}
    assert house.ask("DELETE", f"/segments/{segment}").status_code == 204
    counts = house.counts()
    assert (counts["segment_members"], counts["spare_lists"], counts["list_digests"]) == (0, 0, 0)


VIP = {"id": {"$inGroup": "vip"}}


def test_a_segment_has_a_key_that_stays(house: House) -> None:
    assert [made(house, name=each)["key"] for each in ("Our VIPs", "Our VIPs", "7")] == [
        "our-vips",
        "our-vips-2",
        "segment-7",
    ]
    assert made(house, name="x", key="vip")["key"] == "vip"
    assert house.ask("GET", "/segments/vip").json()["id"] == 4
    taken = house.ask("POST", "/segments", {"name": "y", "key": "vip"})
    assert (taken.status_code, taken.json()["code"], taken.json()["errors"][0]["path"]) == (
        409,
        "key_taken",
        "key",
    )
    bad = house.ask("POST", "/segments", {"name": "y", "key": "a b"})
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (422, "key")
    assert house.ask("PATCH", "/segments/vip", {"key": "vip", "name": "z"}).json()["name"] == "z"
    other = house.ask("PATCH", "/segments/vip", {"key": "w"})
    assert (other.status_code, other.json()["errors"][0]["path"]) == (422, "key")
    assert house.ask("GET", "/segments?q=our-vips-2").json()["total"] == 1


def test_a_segment_is_meant_by_its_key_wherever_by_its_id(house: House) -> None:
    made(house, name="vip")
    assert house.ask("POST", "/segments/assign-user", {"user_id": "ann", "segment_id": "vip"}).json() == {
        "segment_id": 1,
        "user_id": "ann",
        "added": True,
    }
    created = house.ask("POST", "/experiments", {"name": "e", "segments": ["vip", 1, {"id": 1}]})
    assert [each["id"] for each in created.json()["segments"]] == [1]
    pair = {"experiment_id": "e", "segment_id": "vip"}
    assert house.ask("DELETE", "/segments/unassign-experiment", pair).json()["attached"] is False
    assert house.ask("POST", "/segments/assign-experiment", pair).json()["segment_id"] == 1
    for wrong in ("nobody", 7, True):
        refused = house.ask("PATCH", "/api/v1/experiments/e", {"segments": ["vip", wrong]})
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "segments[1]")


def test_a_condition_names_lists_that_are_there(house: House) -> None:
    unknown = house.ask("POST", "/experiments", {"name": "e", "condition": {"$or": [{"a": 1}, VIP]}})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_group")
    (error,) = unknown.json()["errors"]
    assert error["path"] == "condition.$or[1].id.$inGroup"
    assert error["message"].startswith('names "vip", and there is no segment with that key: make one')
    made(house, name="vip", rules={"plan": "gold"})
    ruled = house.ask("POST", "/segments", {"name": "other", "rules": VIP})
    assert (ruled.status_code, ruled.json()["code"]) == (422, "not_a_list")
    assert ruled.json()["errors"][0]["path"] == "rules.id.$inGroup"
    assert house.ask("PATCH", "/segments/vip", {"rules": None}).status_code == 200
    own = house.ask("PATCH", "/segments/vip", {"rules": VIP})
    assert (own.status_code, own.json()["code"]) == (409, "segment_in_use")
    made(house, name="other", rules=VIP)
    assert house.ask("POST", "/experiments", {"name": "e", "condition": VIP}).status_code == 201
    preview = house.ask("POST", "/segments/preview", {"condition": {"id": {"$inGroup": "nobody"}}})
    assert (preview.status_code, preview.json()["errors"][0]["path"]) == (422, "condition.id.$inGroup")


def test_a_list_that_is_named_stays_a_list(house: House) -> None:
    made(house, name="vip")
    made(house, name="other", rules=VIP)
    house.ask("POST", "/experiments", {"name": "e", "condition": VIP, "status": "draft"})
    deleted = house.ask("DELETE", "/segments/vip")
    assert (deleted.status_code, deleted.json()["code"]) == (409, "segment_in_use")
    assert (
        "as vip, by the condition of experiment e, segment other: change that first"
        in deleted.json()["detail"]
    )
    assert house.ask("PATCH", "/segments/vip", {"rules": {"a": 1}}).status_code == 409
    assert house.ask("GET", "/segments/vip").json()["rules"] is None
    assert house.ask("PATCH", "/api/v1/experiments/e", {"condition": None}).status_code == 200
    assert house.ask("DELETE", "/segments/other").status_code == 204
    assert house.ask("DELETE", "/segments/vip").status_code == 204


def test_a_preview_counts_with_the_lists_that_a_rule_names(house: House) -> None:
    segment = made(house, name="vip")["id"]
    for user in ("ann", "bob", "cyd"):
        house.ask("POST", "/users", {"id": user, "account": "acme" if user == "bob" else "other"})
    house.ask("POST", f"/segments/{segment}/users", {"user_ids": ["cyd", "acme"]})
    rule = {"$or": [VIP, {"account": {"$inGroup": "vip"}}]}
    found = house.ask("POST", "/segments/preview", {"condition": rule}).json()
    assert (found["matched"], found["sample"]) == (2, ["bob", "cyd"])
    ruled = made(house, name="others", rules={"$not": rule})["id"]
    assert house.ask("POST", "/segments/preview", {"segments": [ruled]}).json()["sample"] == ["ann"]
    house.ask("POST", "/experiments", {"name": "e", "condition": rule})
    assert house.ask("GET", "/api/v1/experiments/e/audience").json()["matched"] == 2
