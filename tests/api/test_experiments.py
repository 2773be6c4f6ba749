"""Experiments over HTTP: every prefix, every spelling, versions, life, history."""

import sqlite3
from typing import Any

import pytest

from api.conftest import House

HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]
WORDS = """
id key name description hypothesis owner tags status created_at start_at end_at schedule_error
started_at ended_at traffic_allocation variants segments condition layer unit metrics primary_metric
guardrail_metrics target_sample_size significance_level power minimum_detectable_effect analysis winner
decision phase version activation_event preregistration_hash
private prerequisites holdout holdouts ramp ramp_state circuit_breaker circuit_breaker_state bandit_state
"""
CANONICAL = set(WORDS.split())
VARIANT = {
    "id",
    "key",
    "name",
    "description",
    "allocation",
    "allocation_percent",
    "enabled",
    "is_control",
    "config",
}
#: What the hot path writes, seen from the file.
INSERT = (
    "INSERT INTO assignments (experiment_id, unit_id, variant_id, phase, assigned_at) VALUES (?, ?, ?, 1, ?)"
)


def test_a_new_experiment_is_a_draft_in_full_and_runs_in_short(house: House) -> None:
    assert house.made({"name": "x"}, "/api/v1")["status"] == "draft"
    assert house.made({"name": "x"}, "/api")["status"] == "running"
    assert house.made({"name": "x"}, "")["status"] == "running"
    assert house.made({"name": "x", "status": "Draft"}, "")["status"] == "draft"
    assert house.made({"name": "x", "status": "ACTIVE"}, "/api/v1")["status"] == "running"
    assert house.ask("GET", "/api/v1/experiments").json()["total"] == 5


def test_answers_have_the_canonical_fields_and_in_short_the_older_ones_too(house: House) -> None:
    body = {"name": "x", "variants": HALVES, "metrics": ["buy"]}
    full = house.made(body, "/api/v1")
    assert set(full) == CANONICAL
    assert all(set(each) == VARIANT for each in full["variants"])
    for prefix in ("/api", ""):
        short = house.made(body, prefix)
        assert set(short) == CANONICAL | {"experiment_id", "start_time", "end_time", "primary_metric_name"}
        assert short["experiment_id"] == short["id"]
        assert short["start_time"] == short["started_at"] is not None
        assert short["end_time"] is None
        assert short["primary_metric_name"] == "buy"
        arm = short["variants"][1]
        assert arm == {
            "id": arm["id"],
            "key": "b",
            "name": "b",
            "description": "",
            "allocation": 0.5,
            "allocation_percent": 50.0,
            "enabled": True,
            "is_control": False,
            "config": {},
            "variant_id": arm["id"],
            "variant_name": "b",
            "traffic_allocation_percent": 50.0,
            "traffic_percentage": 50.0,
            "configuration_json": {},
        }


def test_a_trailing_slash_changes_nothing(house: House) -> None:
    for path in ("/api/v1/experiments/", "/api/experiments/", "/experiments/", "/experiments//"):
        assert house.ask("POST", path, {"name": "x"}).status_code == 201
    assert house.ask("GET", "/experiments/1/").json()["id"] == 1
    assert house.ask("POST", "/api/v1/experiments/1/start/").json()["status"] == "running"


def test_what_a_client_reads_it_may_send_back(house: House) -> None:
    for prefix in ("/api/v1", "/api", ""):
        made = house.made({"name": "x", "variants": HALVES, "metrics": ["buy"], "tags": ["t"]}, prefix)
        path = f"{prefix}/experiments/{made['id']}"
        read = house.ask("GET", path).json()
        assert house.ask("PUT", path, read).json() == read
        changed = house.ask("PUT", path, {**read, "description": "new"}).json()
        assert changed == {**read, "description": "new", "version": read["version"] + 1}


def test_versions_guard_against_lost_updates(house: House) -> None:
    made = house.ask("POST", "/api/v1/experiments", {"name": "x", "variants": HALVES})
    path = f"/api/v1/experiments/{made.json()['id']}"
    assert made.headers["etag"] == '"1"'
    assert house.ask("GET", path).headers["etag"] == '"1"'
    first = house.ask("PATCH", path, {"owner": "ada"}, headers={"If-Match": '"1"'})
    assert (first.status_code, first.headers["etag"]) == (200, '"2"')
    before = house.counts()
    for stale in ('"1"', 'W/"1"', '"7", "9"', '"abc"', "", '"2x"'):
        for method, where, body in [
            ("PUT", path, {"owner": "bob"}),
            ("PATCH", path, {"owner": "bob"}),
            ("DELETE", path, None),
            ("POST", f"{path}/start", None),
            ("POST", f"{path}/variants", {"name": "c"}),
            ("PUT", f"{path}/variants/b", {"allocation": 0.1}),
            ("DELETE", f"{path}/variants/b", None),
        ]:
            response = house.ask(method, where, body, headers={"If-Match": stale})
            assert (response.status_code, response.json()["code"]) == (412, "stale_version"), (method, stale)
            assert "The current version is 2" in response.json()["detail"]
    assert house.counts() == before
    for good in ('"2"', 'W/"2"', "2", '"1", "2"', "*"):
        assert house.ask("PATCH", path, {"owner": "ada"}, headers={"If-Match": good}).status_code == 200
    stale_body = house.ask("PATCH", path, {"owner": "bob", "version": 1})
    assert stale_body.status_code == 412


def test_of_many_editors_at_once_one_wins(house: House) -> None:
    made = house.made({"name": "x"})
    path = f"/api/v1/experiments/{made['id']}"
    statuses = house.at_once(20, "PATCH", path, {"description": "mine"}, {"If-Match": '"1"'})
    assert sorted(statuses) == [200] + [412] * 19
    assert house.ask("GET", path).json()["version"] == 2


def test_many_creators_at_once_get_keys_of_their_own(house: House) -> None:
    assert house.at_once(20, "POST", "/experiments", {"name": "same"}) == [201] * 20
    listed = house.ask("GET", "/experiments").json()["experiments"]
    assert len({each["key"] for each in listed}) == 20


def test_a_whole_life(house: House) -> None:
    made = house.made({"name": "x", "variants": HALVES})
    path = f"/api/v1/experiments/{made['key']}"
    states = []
    for step in ("start", "pause", "resume", "stop", "archive"):
        body = {"winner": "b", "reason": "better"} if step == "stop" else None
        states.append(house.ask("POST", f"{path}/{step}", body).json()["status"])
    assert states == ["running", "paused", "running", "stopped", "archived"]
    final = house.ask("GET", path).json()
    assert (final["winner"], final["decision"]["reason"], final["version"]) == ("b", "better", 6)
    again = house.ask("POST", f"{path}/start")
    assert (again.status_code, again.json()["code"]) == (409, "experiment_archived")
    assert again.json()["detail"] == "Experiment x is archived: only a draft can be started."
    history = house.ask("GET", f"{path}/history").json()
    assert history["total"] == 6
    assert [each["action"] for each in history["entries"]] == [
        f"experiment.{step}" for step in ("archive", "stop", "resume", "pause", "start", "create")
    ]
    assert history["entries"][3]["changes"] == {"status": {"from": "running", "to": "paused"}}
    assert [each["actor"] for each in history["entries"]] == ["admin key"] * 6
    (phase,) = house.ask("GET", f"{path}/phases").json()["phases"]
    assert (phase["number"], phase["ended_at"]) == (1, final["ended_at"])


def test_steps_take_no_fields(house: House) -> None:
    made = house.made({"name": "x"})
    for step, body in [("start", {"at": "now"}), ("stop", {"winer": "b"}), ("stop", [])]:
        response = house.ask("POST", f"/api/v1/experiments/{made['id']}/{step}", body)
        assert response.status_code == 422
    assert house.ask("POST", f"/api/v1/experiments/{made['id']}/start", {}).status_code == 200


def test_variants_one_by_one(house: House) -> None:
    made = house.made({"name": "x"}, "/api")
    path = f"/api/experiments/{made['id']}/variants"
    control = made["variants"][0]["variant_id"]
    edited = house.ask("PUT", f"{path}/{control}", {"traffic_percentage": 70})
    assert (edited.status_code, edited.json()["allocation"], edited.headers["etag"]) == (200, 0.7, '"3"')
    added = house.ask(
        "POST", path, {"variant_name": "b", "percent_allocated": 30, "configuration_json": {"a": 1}}
    )
    assert (added.status_code, added.json()["configuration_json"]) == (201, {"a": 1})
    listed = house.ask("GET", path).json()["variants"]
    assert [(each["name"], each["traffic_percentage"]) for each in listed] == [("control", 70.0), ("b", 30.0)]
    assert house.ask("GET", f"{path}/b").json() == listed[1]
    over = house.ask("PATCH", f"{path}/b", {"allocation_percent": 31})
    assert over.status_code == 422
    assert over.json()["errors"] == [
        {
            "path": "allocation_percent",
            "message": "allocation_percent of all variants must not sum to more than 100; it sums to 101",
        }
    ]
    assert house.ask("PATCH", f"{path}/b", {"enabled": False}).json()["enabled"] is False
    assert house.ask("DELETE", f"{path}/b").status_code == 204
    assert [each["name"] for each in house.ask("GET", path).json()["variants"]] == ["control"]
    assert house.ask("DELETE", f"{path}/control").status_code == 409
    assert house.ask("GET", f"{path}/b").status_code == 404


def test_an_override_names_the_unit_it_is_for(house: House) -> None:
    house.made({"name": "un", "unit": "account_id", "variants": HALVES, "status": "running"})
    put = house.ask("PUT", "/experiments/un/overrides/Q1", {"variant": "b"}).json()
    assert (put["unit"], put["unit_id"]) == ("account_id", "Q1")
    (listed,) = house.ask("GET", "/experiments/un/overrides").json()["overrides"]
    assert listed == put


def test_overrides(house: House) -> None:
    made = house.made({"name": "x", "variants": HALVES, "status": "running"})
    path = f"/api/v1/experiments/{made['id']}/overrides"
    put = house.ask("PUT", f"{path}/qa%2Fada", {"variant": "b"})
    assert put.json() == {
        "experiment_id": made["id"],
        "unit": "user_id",
        "unit_id": "qa/ada",
        "user_id": "qa/ada",
        "variant_id": made["variants"][1]["id"],
        "variant": "b",
        "created_at": put.json()["created_at"],
    }
    assert house.ask("PUT", f"{path}/qa%2Fada", {"variant": made["variants"][0]["id"]}).status_code == 200
    assert house.ask("PUT", f"{path}/bob", {"variant_id": made["variants"][1]["id"]}).status_code == 200
    listed = house.ask("GET", path).json()
    assert (listed["total"], [(each["user_id"], each["variant"]) for each in listed["overrides"]]) == (
        2,
        [("bob", "b"), ("qa/ada", "control")],
    )
    compiled = house.parts.published.ruleset.find(made["id"])
    assert compiled is not None
    assert dict(compiled.overrides) == {"bob": 1, "qa/ada": 0}
    assert house.ask("DELETE", f"{path}/bob").status_code == 204
    assert house.ask("DELETE", f"{path}/bob").status_code == 404


def test_assignments_are_paged(house: House) -> None:
    made = house.made({"name": "x", "variants": HALVES, "status": "running"})
    arm = made["variants"][1]
    with sqlite3.connect(house.path) as connection:
        connection.executemany(
            INSERT,
            [(made["id"] + at % 2, f"u{at}", arm["id"], 1_795_000_000_000_000 + at) for at in range(10)],
        )
    connection.close()
    path = f"/api/v1/experiments/{made['id']}/assignments"
    seen: list[dict[str, Any]] = []
    cursor, pages = "", 0
    while cursor is not None:
        page = house.ask("GET", f"{path}?limit=2" + (f"&cursor={cursor}" if cursor else "")).json()
        seen += page["assignments"]
        cursor, pages = page["next_cursor"], pages + 1
    assert [each["user_id"] for each in seen] == ["u0", "u2", "u4", "u6", "u8"]
    assert pages == 3
    assert seen[0] == {
        "experiment_id": made["id"],
        "experiment_key": "x",
        "user_id": "u0",
        "variant_id": arm["id"],
        "variant": "b",
        "variant_key": "b",
        "phase": 1,
        "assigned_at": "2026-11-18T11:06:40.000000Z",
    }
    assert house.ask("GET", f"{path}?cursor=x").status_code == 422


def test_delete_says_what_it_did(house: House) -> None:
    draft, started, purged = (
        house.made({"name": "x", "status": each}) for each in ("draft", "running", "running")
    )
    with sqlite3.connect(house.path) as connection:
        connection.executemany(INSERT, [(started["id"], "u", 1, 1), (purged["id"], "u", 1, 1)])
    connection.close()
    results = [
        house.ask("DELETE", f"/experiments/{each['id']}{query}").json()
        for each, query in ((draft, ""), (started, ""), (purged, "?purge=true"))
    ]
    assert [each["result"] for each in results] == ["deleted", "archived", "purged"]
    assert [
        house.ask("GET", f"/experiments/{each['id']}").status_code for each in (draft, started, purged)
    ] == [
        404,
        200,
        404,
    ]
    assert len(house.parts.assignments.page(started["id"], 0, 9)) == 1
    assert len(house.parts.assignments.page(purged["id"], 0, 9)) == 0
    assert len(house.flushes) == 1
    assert house.ask("GET", "/experiments").json()["total"] == 0
    assert house.ask("GET", "/experiments?status=archived").json()["total"] == 1


@pytest.mark.parametrize("metric", ["primary_metric", "primary_metric_name"])
def test_a_primary_metric_by_either_name(house: House, metric: str) -> None:
    made = house.made({"name": "x", metric: "purchase", "guardrail_metrics": ["crash"]})
    assert made["primary_metric"] == "purchase"
    assert made["guardrail_metrics"] == ["crash"]
    assert [(each["key"], each["role"]) for each in made["metrics"]] == [
        ("purchase", "primary"),
        ("crash", "guardrail"),
    ]
