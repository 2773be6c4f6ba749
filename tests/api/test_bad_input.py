"""Whatever is wrong is refused by name, and nothing of it is stored."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog.testing

from api.conftest import House

GOOD = {"name": "x", "variants": [{"name": "a", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]}


def deep(levels: int) -> str:
    return '{"name":"x","condition":' + '{"a":' * levels + "1" + "}" * levels + "}"


RAW = [
    ("empty", b"", 400, "empty_body"),
    ("blank", b" \n", 400, "empty_body"),
    ("cut off", b'{"name": "x"', 400, "malformed"),
    ("two documents", b'{"name": "x"} {}', 400, "malformed"),
    ("a comma too many", b'{"name": "x",}', 400, "malformed"),
    ("single quotes", b"{'name': 'x'}", 400, "malformed"),
    ("broken UTF-8", b'{"name": "\xff"}', 400, "malformed"),
    ("UTF-16", '{"name": "x"}'.encode("utf-16"), 400, "malformed"),
    ("half a surrogate pair", b'{"name": "\\ud800"}', 400, "malformed"),
    ("a bare control character", b'{"name": "a\x01"}', 400, "malformed"),
    ("NaN", b'{"name": "x", "power": NaN}', 400, "not_finite"),
    ("infinity", b'{"name": "x", "power": Infinity}', 400, "not_finite"),
    ("minus infinity", b'{"name": "x", "power": -Infinity}', 400, "not_finite"),
    ("overflow", b'{"name": "x", "power": 1e999}', 400, "not_finite"),
    ("a huge integer", b'{"name": "x", "n": 1' + b"0" * 5000 + b"}", 400, "number_too_large"),
    ("an integer beyond 64 bits", b'{"name": "x", "n": 9223372036854775808}', 400, "number_too_large"),
    ("a doubled key", b'{"name": "x", "name": "y"}', 400, "duplicate_key"),
    ("a doubled key below", b'{"name": "x", "condition": {"a": 1, "a": 2}}', 400, "duplicate_key"),
    ("nested 100 deep", deep(100).encode(), 400, "too_deep"),
    ("nested 100,000 deep", b"[" * 100_000, 400, "too_deep"),
    ("10 MB", b'{"name": "' + b"x" * 10_000_000 + b'"}', 413, "body_too_large"),
    ("a list", b"[]", 422, "invalid"),
    ("a string", b'"x"', 422, "invalid"),
    ("null", b"null", 422, "invalid"),
    ("100,000 elements", json.dumps({"name": "x", "tags": ["t"] * 100_000}).encode(), 422, "invalid"),
    ("100,000 variants", json.dumps({"name": "x", "variants": [{}] * 100_000}).encode(), 422, "invalid"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "status", "code"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
def test_bodies_that_cannot_be_read(house: House, content: bytes, status: int, code: str) -> None:
    before = house.counts()
    for path in ("/api/v1/experiments", "/experiments", "/segments", "/users"):
        if path == "/users" and status == 422 and content[:1] == b"{":
            continue  # a user may have any attribute
        response = house.ask("POST", path, content=content, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (status, code) or (
            path == "/segments" and response.status_code == 422
        ), response.text[:300]
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.content) < 5000
    assert house.counts() == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json"]
)
def test_other_content_types(house: House, kind: str) -> None:
    before = house.counts()
    content = json.dumps(GOOD).encode()
    response = house.ask("POST", "/api/v1/experiments", content=content, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert kind in response.json()["detail"]
    response = house.ask("POST", "/api/v1/experiments", content=content, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert house.counts() == before


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.a+json", ""],
)
def test_content_types_that_are_json(house: House, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    content = json.dumps(GOOD).encode()
    assert house.ask("POST", "/api/v1/experiments", content=content, headers=headers).status_code == 201


def test_a_body_is_refused_while_it_is_read(house_with: Callable[..., House]) -> None:
    house = house_with(max_body=1024)
    ok = json.dumps({"name": "x", "description": "d" * 900}).encode()
    assert house.ask("POST", "/api/v1/experiments", content=ok).status_code == 201
    for extra in ({}, {"Content-Length": "10"}):
        response = house.ask("POST", "/api/v1/experiments", content=b'{"name":"' + b"x" * 2000, headers=extra)
        assert response.status_code == 413
        assert "1024 bytes (MAX_BODY_BYTES)" in response.json()["detail"]


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"),
    ({"name": 5}, "name"),
    ({"name": ""}, "name"),
    ({"name": "   "}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"name": "x" * 1_000_000}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"key": "has space"}, "key"),
    ({"key": "123"}, "key"),
    ({"key": "-a"}, "key"),
    ({"key": "ключ"}, "key"),
    ({"description": "x" * 10_001}, "description"),
    ({"description": 1}, "description"),
    ({"hypothesis": ["x"]}, "hypothesis"),
    ({"owner": ""}, "owner"),
    ({"tags": "a"}, "tags"),
    ({"tags": ["a", ""]}, "tags[1]"),
    ({"tags": ["x" * 101]}, "tags[0]"),
    ({"status": "done"}, "status"),
    ({"status": True}, "status"),
    ({"traffic_allocation": -0.1}, "traffic_allocation"),
    ({"traffic_allocation": 1.1}, "traffic_allocation"),
    ({"traffic_allocation": "1"}, "traffic_allocation"),
    ({"traffic_allocation": True}, "traffic_allocation"),
    ({"traffic_allocation": None}, "traffic_allocation"),
    ({"variants": [{"name": "a", "traffic_percentage": -1}]}, "variants[0].traffic_percentage"),
    ({"variants": [{"name": "a", "traffic_percentage": 101}]}, "variants[0].traffic_percentage"),
    ({"variants": [{"name": "a", "allocation": 0.9}]}, "variants"),
    ({"variants": [{"name": "a", "colour": "red"}]}, "variants[0].colour"),
    ({"variants": [{"name": "\x00"}]}, "variants[0].name"),
    ({"segments": [1]}, "segments[0]"),
    ({"segments": ["1"]}, "segments[0]"),
    ({"segments": [True]}, "segments[0]"),
    ({"condition": []}, "condition"),
    ({"condition": {"age": {"$gtt": 1}}}, "condition.age.$gtt"),
    ({"condition": {"$or": {"a": 1}}}, "condition.$or"),
    ({"condition": {"a": {"$regex": "("}}}, "condition.a.$regex"),
    ({"condition": {"a": {"$notInGroup": "vip"}}}, "condition.a.$notInGroup"),
    ({"condition": {"a": "x" * 70_000}}, "condition"),
    ({"layer": "checkout"}, "layer"),
    ({"layer": 7}, "layer"),
    ({"layer": {}}, "layer.key"),
    ({"layer": {"key": "l", "share": 0}}, "layer.share"),
    ({"layer": {"key": "l", "share": 2}}, "layer.share"),
    ({"unit": ""}, "unit"),
    ({"metrics": [5]}, "metrics[0]"),
    ({"metrics": [""]}, "metrics[0].event_type"),
    ({"metrics": [{}]}, "metrics[0].event_type"),
    ({"metrics": [{"event_type": "buy", "event": "pay"}]}, "metrics[0].event"),
    ({"metrics": [{"event_type": "buy", "type": "median"}]}, "metrics[0].type"),
    ({"metrics": [{"event_type": "buy", "direction": "up"}]}, "metrics[0].direction"),
    ({"metrics": [{"event_type": "buy", "role": "main"}]}, "metrics[0].role"),
    ({"metrics": [{"event_type": "buy", "property": "eur"}]}, "metrics[0].property"),
    ({"metrics": [{"event_type": "buy", "key": "k"}, {"event_type": "pay", "key": "k"}]}, "metrics[1].key"),
    ({"metrics": [{"event": "a", "role": "primary"}, {"event": "b", "role": "primary"}]}, "metrics"),
    ({"primary_metric": "a", "primary_metric_name": "b"}, "primary_metric_name"),
    ({"primary_metric": "a", "guardrail_metrics": ["b", "a"]}, "guardrail_metrics[1]"),
    ({"target_sample_size": 0}, "target_sample_size"),
    ({"target_sample_size": 10.5}, "target_sample_size"),
    ({"target_sample_size": 10**18}, "target_sample_size"),
    ({"significance_level": 0}, "significance_level"),
    ({"significance_level": 0.51}, "significance_level"),
    ({"power": 1}, "power"),
    ({"power": 0}, "power"),
    ({"minimum_detectable_effect": 0}, "minimum_detectable_effect"),
    ({"minimum_detectable_effect": "5%"}, "minimum_detectable_effect"),
    ({"analysis": {"method": "guess"}}, "analysis.method"),
    ({"analysis": {"metod": "fixed"}}, "analysis.metod"),
    ({"analysis": {"looks": 3}}, "analysis.looks"),
    ({"analysis": {"method": "always_valid", "planned_units": -1}}, "analysis.planned_units"),
    ({"metrics": [{"event": "a", "type": "ratio"}]}, "metrics[0].denominator"),
    ({"metrics": ["a", {"event": "a", "where": [{"property": "p", "op": "~"}]}]}, "metrics[1].where[0].op"),
    ({"metrics": [{"event": "a", "window": {"duration": "1w"}}]}, "metrics[0].window.duration"),
    ({"metrics": [{"definition": "nope"}]}, "metrics[0].definition"),
    ({"activation_event": ""}, "activation_event.event_type"),
    ({"activation_event": 5}, "activation_event"),
    ({"activation_event": {"event_type": "a", "where": [{}]}}, "activation_event.where[0].property"),
    ({"template": "nope"}, "template"),
    ({"start_at": "2026-12-02", "end_at": "2026-12-01"}, "end_at"),
    ({"start_at": "next week"}, "start_at"),
    ({"end_at": 1795262400}, "end_at"),
    ({"end_at": "9999-12-31T23:59:59-23:59"}, "end_at"),
    ({"id": 7}, "id"),
    ({"created_at": "2026-01-01"}, "created_at"),
    ({"nmae": "x"}, "nmae"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "path"), FIELDS, ids=[str(row[0])[:60] for row in FIELDS])
def test_fields_that_are_refused(house: House, change: dict[str, Any], path: str) -> None:
    before = house.counts()
    for prefix in ("/api/v1", "/api", ""):
        content = json.dumps({**GOOD, **change}).encode()
        response = house.ask("POST", f"{prefix}/experiments", content=content)
        problem = response.json()
        assert response.status_code == 422, problem
        assert problem["errors"][0]["path"] == path
        assert problem["detail"].startswith(f"{path}: ")
        assert set(problem) == {"type", "title", "status", "detail", "code", "errors"}
        assert len(response.content) < 3000
    assert house.counts() == before


def test_messages_name_the_value_and_what_would_be_right(house: House) -> None:
    body = {"name": "x", "varaints": [], "power": 2, "owner": 5, "tags": {"a": 1}}
    problem = house.ask("POST", "/api/v1/experiments", body).json()
    messages = {each["path"]: each["message"] for each in problem["errors"]}
    assert messages == {
        "owner": "must be a string; got 5",
        "tags": "must be a list; got an object with 1 fields",
        "power": "must be less than 1; got 2",
        "varaints": "is not a known field; did you mean variants?",
    }
    assert "(and 3 more)" in problem["detail"]


def test_ids_with_emoji_are_fine_and_with_nul_are_not(house: House) -> None:
    assert house.ask("PUT", "/users/%F0%9F%98%80%20a%2Fb", {"x": 1}).json()["id"] == "😀 a/b"
    assert house.ask("GET", "/users/%F0%9F%98%80%20a%2Fb").json()["x"] == 1
    before = house.counts()
    experiment = house.made(GOOD)["id"]
    before = house.counts()
    for method, path, body in [
        ("PUT", "/users/a%00b", {}),
        ("POST", "/users", {"id": "a\x00b"}),
        ("POST", "/users", {"id": ""}),
        ("POST", "/users", {"id": 5}),
        ("POST", "/users", {"id": "x" * 201}),
        ("PUT", f"/users/{'x' * 201}", {}),
        ("PUT", f"/api/v1/experiments/{experiment}/overrides/a%00b", {"variant": "a"}),
        ("PUT", f"/api/v1/experiments/{experiment}/overrides/u", {"variant": "nobody"}),
        ("PUT", f"/api/v1/experiments/{experiment}/overrides/u", {}),
        ("PUT", f"/api/v1/experiments/{experiment}/overrides/u", {"variant": True}),
        ("PUT", "/segments/1/users/a%00b", None),
        ("POST", "/segments/assign-user", {"user_id": "\x00", "segment_id": 1}),
    ]:
        response = house.ask(method, path, body)
        assert response.status_code == 422, (method, path, response.text)
    assert house.counts() == before


@pytest.mark.parametrize(
    "query",
    [
        "skip=-1",
        "limit=0",
        "limit=1001",
        "limit=ten",
        "skip=1e3",
        "status=odd",
        "q=" + "x" * 201,
        "skip=9" + "9" * 30,
    ],
)
def test_queries_that_are_refused(house: House, query: str) -> None:
    response = house.ask("GET", f"/api/v1/experiments?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"] == query.partition("=")[0]


def test_parameters_that_would_be_ignored_are_refused(house: House) -> None:
    house.made({"name": "x", "status": "running"})
    for method, path in [
        ("GET", "/api/v1/experiments"),
        ("GET", "/experiments/x"),
        ("GET", "/api/v1/experiments/x/assignments"),
        ("GET", "/api/v1/experiments/x/history"),
        ("GET", "/api/v1/experiments/x/phases"),
        ("GET", "/api/v1/experiments/x/overrides"),
        ("GET", "/api/v1/experiments/x/variants"),
        ("GET", "/api/v1/experiments/x/events/ledger"),
        ("GET", "/api/v1/experiments/x/results"),
        ("GET", "/api/v1/audit"),
        ("GET", "/segments"),
        ("GET", "/users"),
        ("GET", "/events"),
        ("GET", "/auth/keys"),
        ("DELETE", "/experiments/x"),
        ("DELETE", "/users/u"),
    ]:
        response = house.ask(method, f"{path}?foo=1")
        assert (response.status_code, response.json()["code"]) == (422, "unknown_parameter"), path
        assert response.json()["errors"][0]["path"] == "foo"
        assert house.ask(method, f"{path}?foo=1", role=None).status_code == 401
    assert house.ask("GET", "/experiments?foo=1").json()["detail"] == (
        "foo: no such parameter; there are: limit, q, skip, status, tag"
    )
    assert house.ask("GET", "/experiments/x?foo=1").json()["errors"][0]["message"] == (
        "no such parameter; there is none here"
    )
    assert house.ask("GET", "/experiments/x").json()["status"] == "running"


def test_what_is_not_there(house: House) -> None:
    for method, path in [
        ("GET", "/api/v1/experiments/999"),
        ("GET", "/api/v1/experiments/unknown"),
        ("GET", "/api/v1/experiments/%00"),
        ("GET", "/api/v1/experiments/" + "9" * 100),
        ("POST", "/experiments/999/start"),
        ("GET", "/segments/999"),
        ("GET", "/segments/abc"),
        ("GET", "/users/nobody"),
        ("GET", "/api/v1/nothing"),
        ("GET", "/api/audit"),
        ("GET", "/audit"),
        ("GET", "/api/v2/experiments"),
    ]:
        response = house.ask(method, path)
        assert response.status_code == 404, path
        assert response.headers["content-type"] == "application/problem+json"


def test_methods_that_are_not_there(house: House) -> None:
    response = house.ask("PATCH", "/experiments")
    assert response.status_code == 405
    assert response.json()["detail"] == 'PATCH is not possible at "/experiments".'
    assert response.headers["allow"]


def test_a_fault_of_ours_tells_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail: SELECT * FROM api_keys")

    monkeypatch.setattr("assay.catalog.experiments.page", broken)
    with structlog.testing.capture_logs() as logged:
        response = house.ask("GET", "/experiments")
    assert [(each["event"], each["path"]) for each in logged] == [("request.failed", "/experiments")]
    assert response.status_code == 500
    assert response.json() == {
        "type": "about:blank",
        "title": "Internal error",
        "status": 500,
        "detail": "Something went wrong on our side; the log has the details.",
        "code": "internal_error",
        "errors": [],
    }
