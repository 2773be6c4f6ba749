"""OFREP through the whole application; every answer is held against the protocol's own schemas."""

import json
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from assay.errors import Unavailable
from assay.hotpath.ofrep import refuse
from inprocess import running, told

Play = Callable[..., Any]
SPECIFICATION = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "ofrep-openapi.yaml"
FLAGS = "/ofrep/v1/evaluate/flags"
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


@cache
def specification() -> dict[str, Any]:
    if not SPECIFICATION.exists():
        pytest.skip(f"the protocol's specification is not at {SPECIFICATION}")
    found: dict[str, Any] = yaml.safe_load(SPECIFICATION.read_text(encoding="utf-8"))
    return found


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a JSON value is as a schema of the specification says.

    Its `oneOf` of flag types is read as any of them: an integer is a number as well, and the schema of a flag
    without a value holds for those with one.
    """
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return fits(value, specification()["components"]["schemas"][name])
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        return False
    if isinstance(value, dict):
        named = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        if any(name not in value for name in schema.get("required", [])):
            return False
        for name, each in value.items():
            if name in named:
                if not fits(each, named[name]):
                    return False
            elif isinstance(others, dict) and not fits(each, others):
                return False
    if isinstance(value, list) and not all(fits(each, schema.get("items", {})) for each in value):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if not all(fits(value, each) for each in schema.get("allOf", [])):
        return False
    ways = schema.get("oneOf", [])
    return not ways or any(fits(value, each) for each in ways)


async def asked(client: httpx2.AsyncClient, path: str, body: Any, **given: Any) -> httpx2.Response:
    """An answer of OFREP, which is one of those the specification knows for this call."""
    if not isinstance(body, bytes):
        given["json"] = body
    else:
        given["content"] = body
    answer = await client.post(path, **given)
    known = specification()["paths"][FLAGS if path == FLAGS else f"{FLAGS}/{{key}}"]["post"]["responses"]
    assert str(answer.status_code) in known, answer.text
    content = known[str(answer.status_code)].get("content")
    if content is not None:
        schema = content["application/json"]["schema"]
        assert answer.headers["content-type"] == "application/json"
        assert fits(answer.json(), schema), answer.text
    return answer


async def flag(client: httpx2.AsyncClient, key: str, user: str = "ada", **attributes: Any) -> dict[str, Any]:
    answer = await asked(client, f"{FLAGS}/{key}", {"context": {"targetingKey": user, **attributes}})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def one(config: Any = None) -> list[dict[str, Any]]:
    """A single variant that everybody gets."""
    return [{"name": "The only", "key": "only", "allocation": 1, **({"config": config} if config else {})}]


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({"value": True}, True),
        ({"value": False}, False),
        ({"value": "red"}, "red"),
        ({"value": 7}, 7),
        ({"value": 0.25}, 0.25),
        ({"value": [1, 2]}, {"value": [1, 2]}),
        ({"value": None}, {"value": None}),
        ({"value": 1, "unit": "kg"}, {"value": 1, "unit": "kg"}),
        ({"deep": {"er": [True, None]}}, {"deep": {"er": [True, None]}}),
        (None, "The only"),
    ],
)
def test_every_type_of_value(play: Play, config: Any, value: Any) -> None:
    async def journey(client: httpx2.AsyncClient) -> Any:
        await running(client, key="price", variants=one(config))
        return await flag(client, "price")

    found = play(journey)
    assert found["value"] == value
    assert type(found["value"]) is type(value)
    assert found["key"] == "price"
    assert found["variant"] == "only"
    assert found["reason"] == "SPLIT"
    assert found["metadata"] == {"experiment_id": 1, "variant_id": 1, "phase": 0, "reason": "assigned"} | {
        "phase": found["metadata"]["phase"]
    }


def test_the_answer_is_on_record_and_stays(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, Any]:
        await running(client, key="price")
        first = await flag(client, "price")
        stored = await told(client, "GET", "/experiments/price/assignment/ada")
        flip = {"variants": [{"name": "control", "allocation": 0}, {"name": "blue", "allocation": 1}]}
        await told(client, "PATCH", "/api/v1/experiments/price", json=flip)
        return first, stored, await flag(client, "price")

    first, stored, again = play(journey)
    assert first["variant"] == stored["variant_key"]
    assert again["variant"] == first["variant"]
    assert again["value"] == first["value"]


def test_every_reason_of_the_protocol(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> dict[str, Any]:
        found = {}
        await running(client, key="forced")
        await told(client, "PUT", "/api/v1/experiments/forced/overrides/ada", json={"variant": "blue"})
        found["override"] = await flag(client, "forced")
        await running(client, key="won")
        await told(client, "POST", "/api/v1/experiments/won/stop", json={"winner": "blue"})
        found["rolled_out"] = await flag(client, "won")
        await running(client, key="over")
        await told(client, "POST", "/api/v1/experiments/over/stop")
        found["not_running"] = await flag(client, "over")
        await running(client, key="small", traffic_allocation=0)
        found["not_in_traffic"] = await flag(client, "small")
        await running(client, key="german", condition={"country": "DE"})
        found["not_in_segment"] = await flag(client, "german", country="US")
        found["assigned"] = await flag(client, "german", country="DE")
        await running(client, key="team", unit="account_id")
        found["no_unit"] = await flag(client, "team")
        found["unit"] = await flag(client, "team", account_id=7)
        await told(
            client,
            "PATCH",
            "/api/v1/experiments/german/variants/" + found["assigned"]["variant"],
            json={"enabled": False},
        )
        found["variant_disabled"] = await flag(client, "german")
        return found

    found = play(journey)
    assert {name: each["metadata"]["reason"] for name, each in found.items() if name != "unit"} == {
        name: name for name in found if name != "unit"
    }
    assert {name: each["reason"] for name, each in found.items()} == {
        "override": "TARGETING_MATCH",
        "rolled_out": "STATIC",
        "not_running": "DISABLED",
        "not_in_traffic": "SPLIT",
        "not_in_segment": "UNKNOWN",
        "assigned": "SPLIT",
        "no_unit": "UNKNOWN",
        "unit": "SPLIT",
        "variant_disabled": "DISABLED",
    }
    served = {name for name, each in found.items() if "value" in each}
    assert served == {"override", "rolled_out", "assigned", "unit", "variant_disabled"}
    assert found["override"]["value"] == found["rolled_out"]["value"] == {"colour": "blue"}
    assert found["variant_disabled"]["variant"] == "control"
    assert found["not_in_traffic"]["variant"] == ""


BAD = [
    (b"", "PARSE_ERROR"),
    (b"{", "PARSE_ERROR"),
    (b"\xff", "PARSE_ERROR"),
    (b"[" * 5000, "PARSE_ERROR"),
    (b"[]", "PARSE_ERROR"),
    (b'{"context": {"targetingKey": "a"}, "context": {}}', "PARSE_ERROR"),
    (b"{}", "INVALID_CONTEXT"),
    (b'{"context": []}', "INVALID_CONTEXT"),
    (b'{"context": null}', "INVALID_CONTEXT"),
    (b'{"context": {}}', "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": null}}', "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": 7}}', "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": {"a": 1}}}', "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "a\\u0000"}}', "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "' + b"x" * 5000 + b'"}}', "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "a", "account_id": "b\\u0000"}}', "INVALID_CONTEXT"),
]


def test_bad_requests_are_named(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[list[Any], list[Any]]:
        await running(client, key="team", unit="account_id")
        headers = {"Content-Type": "application/json"}
        single = [await asked(client, f"{FLAGS}/team", body, headers=headers) for body, _ in BAD]
        bulk = [await asked(client, FLAGS, body, headers=headers) for body, _ in BAD]
        return single, bulk

    single, bulk = play(journey)
    for answers in (single, bulk):
        assert [(each.status_code, each.json()["errorCode"]) for each in answers] == [
            (400, code) for _, code in BAD
        ]
        assert all(each.json()["errorDetails"] for each in answers)
    assert {each.json()["key"] for each in single} == {"team"}


@pytest.mark.parametrize("key", ["nothing", "assign", "track", "events", "1", "%C3%A9%2F%00", "a%20b"])
def test_a_flag_that_is_not_there(play: Play, key: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> httpx2.Response:
        await running(client, key="price")
        return await asked(client, f"{FLAGS}/{key}", {"context": {"targetingKey": "ada"}})

    answer = play(journey)
    assert answer.status_code == 404
    assert answer.json()["errorCode"] == "FLAG_NOT_FOUND"


def test_a_flag_whose_name_cannot_be_read(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> httpx2.Response:
        return await asked(client, f"{FLAGS}/%ff", {"context": {"targetingKey": "ada"}})

    answer = play(journey)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "PARSE_ERROR")


def test_other_types_of_body_are_refused(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        body = b'{"context": {"targetingKey": "ada"}}'
        return [
            await asked(client, FLAGS, body, headers={"Content-Type": "text/plain"}),
            await asked(client, FLAGS, body, headers={"Content-Encoding": "br"}),
            await asked(client, FLAGS, body, headers={"Content-Encoding": "gzip"}),
        ]

    for answer in play(journey):
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "PARSE_ERROR")


def test_only_a_key_that_may_assign_evaluates(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[int]:
        key = await told(client, "POST", "/auth/keys", json={"name": "v", "role": "viewer"})
        body = {"context": {"targetingKey": "ada"}}
        return [
            (await asked(client, path, body, headers={"Authorization": header})).status_code
            for path in (FLAGS, f"{FLAGS}/price")
            for header in ("", "Bearer nobody", f"Bearer {key['key']}")
        ]

    assert play(journey) == [401, 401, 403] * 2


def test_too_many_requests_are_told_when_to_come_again() -> None:
    answer = refuse(Unavailable("Later.", code="overloaded", retry_after=3))
    assert answer.status == 429
    assert (b"retry-after", b"3") in answer.headers
    away = refuse(Unavailable("Later.", code="database_away", retry_after=3))
    assert away.status == 503
    assert json.loads(away.body) == {"errorCode": "GENERAL", "errorDetails": "Later.", "key": ""}


def test_all_flags_at_once(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        await running(client, key="price")
        await running(client, key="hidden", status="draft")
        await running(client, key="won")
        await told(client, "POST", "/api/v1/experiments/won/stop", json={"winner": "blue"})
        await running(client, key="over")
        await told(client, "POST", "/api/v1/experiments/over/stop")
        await running(client, key="small", traffic_allocation=0)
        answer = await asked(client, FLAGS, {"context": {"targetingKey": "ada"}})
        return answer.json(), [await flag(client, key) for key in ("price", "won", "small")]

    bulk, singly = play(journey)
    assert bulk["flags"] == singly
    assert bulk["metadata"]["version"] > 0


def test_all_flags_are_sent_again_only_when_something_has_changed(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[int]:
        await running(client, key="price")
        await running(client, key="german", condition={"country": "DE"})
        other = await told(client, "POST", "/auth/keys", json={"name": "app"})

        async def status(tag: str | None, context: Any, **headers: str) -> tuple[int, str]:
            sent = {**headers, **({"If-None-Match": tag} if tag else {})}
            answer = await asked(client, FLAGS, {"context": context}, headers=sent)
            if answer.status_code == 304:
                assert answer.content == b""
            return answer.status_code, answer.headers["etag"]

        ada = {"targetingKey": "ada", "plan": "free", "age": 7}
        _, tag = await status(None, ada)
        found = [
            await status(tag, ada),
            await status(f'W/"x", {tag}', {"age": 7, "plan": "free", "targetingKey": "ada"}),
            await status(tag, {**ada, "plan": "paid"}),
            await status(tag, {**ada, "targetingKey": "bob"}),
            await status(tag, ada, Authorization=f"Bearer {other['key']}"),
        ]
        await told(client, "POST", "/users", json={"id": "ada", "country": "DE"})
        found.append(await status(tag, ada))
        _, tag = await status(None, ada)
        found.append(await status(tag, ada))
        await told(client, "POST", "/api/v1/experiments/price/pause")
        found.append(await status(tag, ada))
        return [each for each, _ in found]

    assert play(journey) == [304, 304, 200, 200, 200, 200, 304, 200]


def test_a_tracking_event_is_an_event_like_any_other(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, Any]:
        await running(client, key="price", metrics=["purchase"])
        await flag(client, "price")
        event = {
            "name": "purchase",
            "context": {"targetingKey": "ada", "plan": "free"},
            "details": {"value": 9.5, "currency": "EUR"},
            "eventId": "order-1",
        }
        answers = [await client.post("/ofrep/v1/track/events", json=event) for _ in range(2)]
        many = [
            {"name": "visit", "targetingKey": "bob"},
            {"trackingEventName": "visit", "targetingKey": "eve"},
        ]
        batch = await client.post("/ofrep/v1/track/events", json=many)
        stored = await told(client, "GET", "/api/v1/events?limit=10")
        return answers, batch, stored

    answers, batch, stored = play(journey)
    assert [each.status_code for each in answers] == [201, 200]
    assert answers[0].headers["access-control-allow-origin"] == "*"
    assert batch.status_code == 202
    assert batch.json()["accepted"] == 2
    found = {each["user_id"]: each for each in stored["events"]}
    assert found["ada"]["type"] == "purchase"
    assert found["ada"]["event_id"] == "order-1"
    assert found["ada"]["value"] == 9.5
    assert found["ada"]["properties"] == {"currency": "EUR"}
    assert found["bob"]["type"] == found["eve"]["type"] == "visit"


def test_of_many_tracking_events_the_good_are_stored_and_the_clock_corrected(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, list[int]]:
        ada = {"name": "visit", "targetingKey": "ada", "timestamp": "2019-05-05T12:00:00Z"}
        soon = {"name": "visit", "targetingKey": "bob", "timestamp": "soon"}
        events = [{"name": ""}, ada, 7, soon, {"name": "visit"}, {"name": "visit", "targetingKey": "eve"}]
        sent = {"events": events, "sentAt": "2019-05-05T12:00:10Z"}
        answer = await told(client, "POST", "/ofrep/v1/track/events", json=sent)
        refused = [{"events": 7}, {"events": [ada], "sentAt": "noon"}, {"events": [ada], "zap": 1}]
        statuses = [(await client.post("/ofrep/v1/track/events", json=each)).status_code for each in refused]
        return answer, await told(client, "GET", "/api/v1/events?limit=10"), statuses

    answer, stored, statuses = play(journey)
    assert answer["accepted"] == 2
    assert [(each["index"], each["code"]) for each in answer["rejected"]] == [
        (0, "PARSE_ERROR"),
        (2, "PARSE_ERROR"),
        (3, "invalid_timestamp"),
        (4, "TARGETING_KEY_MISSING"),
    ]
    assert {each["user_id"] for each in stored["events"]} == {"ada", "eve"}
    assert not any(each["timestamp"].startswith("2019") for each in stored["events"])
    assert statuses == [400, 400, 400]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (7, "PARSE_ERROR"),
        ({}, "PARSE_ERROR"),
        ({"name": ""}, "PARSE_ERROR"),
        ({"name": "x" * 2000, "targetingKey": "ada"}, "PARSE_ERROR"),
        ({"name": "x"}, "TARGETING_KEY_MISSING"),
        ({"name": "x", "targetingKey": 7}, "INVALID_CONTEXT"),
        ({"name": "x", "context": 7}, "PARSE_ERROR"),
        ({"name": "x", "targetingKey": "a", "details": []}, "PARSE_ERROR"),
        ({"name": "x", "targetingKey": "a", "value": "much"}, "PARSE_ERROR"),
        ({"name": "x", "targetingKey": "a", "value": True}, "PARSE_ERROR"),
        ({"name": "x", "targetingKey": "a", "timestamp": {}}, "PARSE_ERROR"),
        ({"name": "x", "targetingKey": "a", "timestamp": "tomorrow"}, "PARSE_ERROR"),
        ({"name": "x", "targetingKey": "a", "eventId": 7}, "PARSE_ERROR"),
    ],
)
def test_bad_tracking_events_are_named(play: Play, event: Any, code: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/ofrep/v1/track/events", json=event)

    answer = play(journey)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)
    assert answer.json()["errorDetails"]


def test_the_api_page_has_every_call_of_sdks(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> Any:
        return (await told(client, "GET", "/openapi.json"))["paths"]

    paths = play(journey)
    ours = {path for path in paths if re.match("/ofrep|/sub|/api/(features|eval)", path)}
    assert ours == {
        "/ofrep/v1/evaluate/flags",
        "/ofrep/v1/evaluate/flags/{key}",
        "/ofrep/v1/track/events",
        "/sub/{sdk_key}",
        "/api/features/{sdk_key}",
        "/api/eval/{sdk_key}",
    }
    assert paths["/api/features/{sdk_key}"]["get"]["security"] == []


def junk(chance: random.Random, depth: int = 3) -> Any:
    """Any JSON, mostly with names that the calls know."""
    names = [
        "context",
        "targetingKey",
        "attributes",
        "id",
        "name",
        "value",
        "details",
        "timestamp",
        "eventId",
    ]
    names += ["forcedVariations", "forcedFeatures", "price", "account_id", "\ud83d\ude00", ""]
    leaves = [None, True, 0, -1, 1e308, 10**30, 1.5, "", "ada", "x" * 300, "\u0000", "2026-01-01", [], {}]
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(leaves)
    if chance.random() < 0.3:
        return [junk(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return {chance.choice(names): junk(chance, depth - 1) for _ in range(chance.randint(0, 5))}


def test_no_body_breaks_a_call(play: Play) -> None:
    chance = random.Random(7)

    async def journey(client: httpx2.AsyncClient) -> set[int]:
        await running(client, key="price", condition={"age": {"$gt": 1}})
        await running(client, key="team", unit="account_id")
        key = (await told(client, "POST", "/auth/keys", json={"name": "app"}))["key"]
        paths = [FLAGS, f"{FLAGS}/price", f"{FLAGS}/team", "/ofrep/v1/track/events", f"/api/eval/{key}"]
        found = set()
        for turn in range(600):
            body = junk(chance)
            if turn % 2:
                body = {"context": {"targetingKey": "ada", "x": body}, "attributes": body, "name": "x"}
            answer = await client.post(paths[turn % len(paths)], content=json.dumps(body).encode())
            answer.json()
            found.add(answer.status_code)
        return found

    assert play(journey) <= {200, 201, 202, 400, 413, 422}
