"""GrowthBook's SDKs: their payload, its stream, and evaluation by the server."""

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvloop

from assay.bucketing.conditions import compile_condition
from assay.bucketing.ruleset import Experiment, Ruleset, Status, Variant
from assay.hotpath.features import Features
from assay.hotpath.features_stream import Streams
from assay.published import Key, KeyRing, Published, Role
from hotpath.served import Serving, served
from inprocess import KEY, running, told

Play = Callable[..., Any]


async def sdk_key(client: httpx2.AsyncClient, role: str = "client") -> dict[str, Any]:
    found: dict[str, Any] = await told(client, "POST", "/auth/keys", json={"name": "app", "role": role})
    return found


def test_the_payload_has_running_experiments_and_nothing_of_drafts(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> Any:
        await running(client, name="Price for Bob", key="price")
        await running(client, key="hidden", status="draft")
        key = (await sdk_key(client))["key"]
        answer = await client.get(f"/api/features/{key}/", headers={"Authorization": ""})
        return answer.status_code, answer.headers, answer.json(), answer.text

    status, headers, payload, text = play(journey)
    assert status == 200
    assert list(payload["features"]) == ["price"]
    assert payload["features"]["price"]["rules"][0]["variations"] == ["control", {"colour": "blue"}]
    assert payload["savedGroups"] == {}
    assert "Bob" not in text
    assert headers["access-control-allow-origin"] == "*"
    assert headers["x-sse-support"] == "enabled"


def test_the_payload_is_sent_again_only_when_it_has_changed(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        await running(client, key="price")
        path = f"/api/features/{(await sdk_key(client))['key']}"
        first = await client.get(path, headers={"Accept-Encoding": "identity"})
        packed = await client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.8"})
        tags = [first.headers["etag"], packed.headers["etag"]]
        again = [await client.get(path, headers={"If-None-Match": f'"other", W/{tag}'}) for tag in tags]
        await running(client, key="hidden", status="draft")
        draft = await client.get(path, headers={"If-None-Match": tags[0]})
        await told(client, "POST", "/api/v1/experiments/price/pause")
        paused = await client.get(path, headers={"If-None-Match": tags[0]})
        return [first, packed, tags, again, draft, paused]

    first, packed, tags, again, draft, paused = play(journey)
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in first.headers
    assert packed.json() == first.json()
    assert tags[0] != tags[1]
    assert [each.status_code for each in again] == [304, 304]
    assert [each.content for each in again] == [b"", b""]
    assert draft.status_code == 304
    assert paused.status_code == 200
    assert paused.json()["features"] == {}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/features"), ("POST", "/api/eval"), ("GET", "/sub")]
)
def test_only_a_key_that_may_assign_opens_it(play: Play, method: str, path: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[tuple[int, str]]:
        revoked = await sdk_key(client)
        await told_nothing(client, "DELETE", f"/auth/keys/{revoked['id']}")
        viewer = await sdk_key(client, "viewer")
        answers = [
            await client.request(method, f"{path}/{key}")
            for key in ("nobody", "%00", "%C3%A9", revoked["key"], viewer["key"])
        ]
        assert {each.headers["access-control-allow-origin"] for each in answers} == {"*"}
        return [(each.status_code, each.json()["code"]) for each in answers]

    assert play(journey) == [(401, "bad_key")] * 4 + [(403, "role_forbids")]


async def told_nothing(client: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code in {200, 204}, answer.text


def test_a_page_of_another_origin_may_ask(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        paths = (
            "/api/eval/k",
            "/api/features/k",
            "/sub/k",
            "/ofrep/v1/evaluate/flags",
            "/api/v1/experiments",
        )
        return [await client.request("OPTIONS", path, headers=headers) for path in paths]

    *open_to_all, ours = play(journey)
    for answer in open_to_all:
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in ours.headers


def test_remote_evaluation_answers_with_what_is_on_record(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, Any, Any]:
        await running(client, key="price")
        await running(client, key="shape", traffic_allocation=0)
        await running(client, key="team", unit="account_id")
        path = f"/api/eval/{(await sdk_key(client))['key']}"
        body = {"attributes": {"id": "ada", "account_id": 7}, "url": "https://shop.example", "other": 1}
        first = (await client.post(path, json=body)).json()
        stored = await told(client, "GET", "/experiments/price/assignment/ada")
        flip = {"variants": [{"name": "control", "allocation": 0}, {"name": "blue", "allocation": 1}]}
        if stored["variant"] == "blue":
            flip["variants"][0]["allocation"], flip["variants"][1]["allocation"] = 1, 0
        await told(client, "PATCH", "/api/v1/experiments/price", json=flip)
        again = (await client.post(path, json=body)).json()
        account = await told(client, "GET", "/experiments/team/assignment/zoe?account_id=7")
        return first, again, stored, account

    first, again, stored, account = play(journey)
    value = stored["config"] or stored["variant"]
    assert first["features"]["price"]["defaultValue"] == value
    assert again["features"]["price"]["defaultValue"] == value
    assert first["features"]["shape"] == {"defaultValue": None}
    (rule,) = first["features"]["price"]["rules"]
    assert rule["force"] == value
    (track,) = rule["tracks"]
    assert track["experiment"]["key"] == "price"
    assert track["result"]["key"] == stored["variant_key"]
    assert track["result"]["hashValue"] == "ada"
    assert track["result"]["value"] == value
    assert track["experiment"]["variations"][1 - track["result"]["variationId"]] == {}
    assert first["features"]["team"]["rules"][0]["tracks"][0]["result"]["hashValue"] == "7"
    assert first["features"]["team"]["defaultValue"] == account["config"] or account["variant"]


def test_remote_evaluation_of_forced_variations_stores_nothing(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        await running(client, key="price")
        path = f"/api/eval/{(await sdk_key(client))['key']}"
        body = {
            "attributes": {"id": "ada"},
            "forcedVariations": {"price": 1},
            "forcedFeatures": [["other", [1, 2]]],
        }
        features = (await client.post(path, json=body)).json()["features"]
        return features, await told(client, "GET", "/experiments/price/assignments")

    features, stored = play(journey)
    assert features == {"price": {"defaultValue": {"colour": "blue"}}, "other": {"defaultValue": [1, 2]}}
    assert stored["assignments"] == []


def test_bad_evaluations_are_named(play: Play) -> None:
    bad = [
        b"",
        b"[1]",
        b"{",
        b'{"attributes": 3}',
        b'{"attributes": {"id": "a\\u0000"}}',
        b'{"forcedVariations": {"price": "x"}}',
        b'{"forcedFeatures": [["a"]]}',
        b'{"attributes": {"id": "' + b"x" * 3000 + b'"}}',
    ]

    async def journey(client: httpx2.AsyncClient) -> list[int]:
        await running(client, key="price")
        path = f"/api/eval/{(await sdk_key(client))['key']}"
        statuses = [(await client.post(path, content=each)).status_code for each in bad]
        for odd in ({}, {"attributes": {"id": True}}, {"attributes": {"id": [1]}}):
            answer = await client.post(path, json={**odd, "forcedVariations": {"price": -1, "no": 7}})
            assert answer.json()["features"] == {"price": {"defaultValue": None}}
        return statuses

    assert play(journey) == [400, 422, 400, 422, 422, 422, 422, 422]


# The stream. It needs a connection, so it is played on the protocol alone.


async def events(response: httpx2.Response) -> AsyncIterator[dict[str, str]]:
    """Each block of a stream by field; a comment is the field with no name."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif fields:
            yield fields
            fields = {}


def streamed(tmp_path: Path, journey: Callable[[Serving, httpx2.AsyncClient], Any], **settings: Any) -> Any:
    async def run() -> Any:
        async with (
            served(tmp_path, **settings) as server,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{server.port}",
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=30,
            ) as client,
        ):
            return await asyncio.wait_for(journey(server, client), 60)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def test_a_stream_tells_of_a_change_and_of_nothing_else(tmp_path: Path) -> None:
    async def journey(_server: Serving, client: httpx2.AsyncClient) -> tuple[Any, Any, str]:
        key = (await sdk_key(client))["key"]
        async with client.stream("GET", f"/sub/{key}") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            told_events = events(response)
            hello = await anext(told_events)
            await running(client, key="hidden", status="draft")
            await running(client, key="price")
            event = await anext(told_events)
        tag = (await client.get(f"/api/features/{key}")).headers["etag"]
        return hello, event, tag

    hello, event, tag = streamed(tmp_path, journey)
    assert hello["retry"] == "3000"
    assert "event" not in hello
    assert event["event"] == "features-updated"
    assert json.loads(event["data"]) == {}
    assert event["id"] in tag


def test_a_stream_that_missed_something_hears_of_it_at_once(tmp_path: Path) -> None:
    async def journey(_server: Serving, client: httpx2.AsyncClient) -> Any:
        key = (await sdk_key(client))["key"]
        async with client.stream("GET", f"/sub/{key}", headers={"Last-Event-ID": "before"}) as response:
            told_events = events(response)
            return [await anext(told_events), await anext(told_events)]

    hello, event = streamed(tmp_path, journey)
    assert event["event"] == "features-updated"
    assert event["id"] == hello["id"]


def test_a_stream_ends_when_its_key_is_revoked(tmp_path: Path) -> None:
    async def journey(_server: Serving, client: httpx2.AsyncClient) -> list[Any]:
        key = await sdk_key(client)
        async with client.stream("GET", f"/sub/{key['key']}") as response:
            told_events = events(response)
            await anext(told_events)
            await told_nothing(client, "DELETE", f"/auth/keys/{key['id']}")
            return [each async for each in told_events]

    assert streamed(tmp_path, journey) == []


def test_streams_end_when_the_server_drains(tmp_path: Path) -> None:
    async def journey(server: Serving, client: httpx2.AsyncClient) -> list[Any]:
        key = (await sdk_key(client))["key"]
        async with client.stream("GET", f"/sub/{key}") as response:
            told_events = events(response)
            await anext(told_events)
            server.config.app.draining = True  # type: ignore[union-attr]
            return [each async for each in told_events]

    assert streamed(tmp_path, journey) == []


def test_the_packed_payload_is_what_gzip_makes(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[bytes, bytes]:
        await running(client, key="price")
        path = f"/api/features/{(await sdk_key(client))['key']}"
        plain = await client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
        async with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as response:
            packed = b"".join([each async for each in response.aiter_raw()])
        return plain.content, packed

    plain, packed = play(journey)
    assert gzip.decompress(packed) == plain


def many(count: int) -> list[Experiment]:
    """Running experiments with a condition, three variants and a few overrides."""
    rule = {"country": {"$in": ["US", "DE"]}, "age": {"$gte": 18}}
    return [
        Experiment.compile(
            id=number,
            key=f"experiment-{number}",
            name="",
            status=Status.RUNNING,
            variants=[Variant(at, f"v{at}", f"V{at}", 1 / 3, config={"size": at}) for at in range(3)],
            rule=rule,
            condition=compile_condition(rule),
            overrides={f"qa-{each}": 0 for each in range(5)},
        )
        for number in range(1, count + 1)
    ]


def test_a_payload_of_500_experiments_is_made_in_20_ms_and_a_change_in_less() -> None:
    published = Published(Ruleset(many(500), 1), KeyRing([]))

    def seconds(features: Features, ruleset: Ruleset) -> float:
        published.ruleset = ruleset
        begun = time.thread_time()
        features.current()
        return time.thread_time() - begun

    features = Features(published, lambda _key, _now: None)
    whole, change = [], []
    for version in range(2, 8):
        compiled = many(500)
        whole.append(seconds(features, Ruleset(compiled, version)))
        changed = Ruleset([*compiled[1:], many(501)[-1]], version)
        change.append(seconds(features, changed))
    assert min(whole) < 0.020
    assert min(change) < min(whole) / 2
    made = features.current()
    assert len(json.loads(made.plain)["features"]) == 500
    assert features.current() is made


def test_the_payload_is_the_same_whatever_the_order_experiments_were_published_in() -> None:
    compiled = many(3)
    published = [Published(Ruleset(each, 1), KeyRing([])) for each in (compiled, compiled[::-1])]
    first, second = (Features(each, lambda _key, _now: None).current() for each in published)
    assert first == second
    assert list(json.loads(first.plain)["features"]) == ["experiment-1", "experiment-2", "experiment-3"]


def test_streams_are_bounded_and_silence_is_broken() -> None:
    ring = KeyRing([Key(1, "app", Role.CLIENT, hashlib.sha256(b"secret").digest())])
    features = Features(Published(Ruleset(many(1), 1), ring), lambda _key, _now: None)

    async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("the stream is served here")

    async def journey() -> tuple[list[Any], list[Any]]:
        streams = Streams(features, nothing, closing=lambda: False, clock=lambda: 0, most=1, heartbeat=0.01)
        scope = {"type": "http", "method": "GET", "path": "/sub/secret", "headers": []}
        first: list[Any] = []
        second: list[Any] = []
        beaten, gone = asyncio.Event(), asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def keep(message: Any) -> None:
            first.append(message)
            if b"still here" in message.get("body", b""):
                beaten.set()

        async def refuse(message: Any) -> None:
            second.append(message)

        stream = asyncio.create_task(streams(scope, receive, keep))
        await asyncio.wait_for(beaten.wait(), 60)
        await streams(scope, receive, refuse)
        gone.set()
        await asyncio.wait_for(stream, 60)
        assert streams.open == 0
        return first, second

    first, second = asyncio.run(journey())
    assert first[0]["status"] == 200
    assert first[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert second[0]["status"] == 503
    assert json.loads(second[1]["body"])["code"] == "too_many_streams"


async def scoped(client: httpx2.AsyncClient, **scope: Any) -> str:
    """A key that may know of some experiments only."""
    made = await told(client, "POST", "/auth/keys", json={"name": "app", "role": "client", **scope})
    return str(made["key"])


def test_a_key_with_a_scope_knows_of_nothing_else(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> dict[str, Any]:
        await running(client, key="price")
        await running(client, key="title", tags=["web"])
        await running(client, key="colour")
        secret = await scoped(client, experiments=["price"], tags=["web"])
        bearer = {"Authorization": f"Bearer {secret}"}
        context = {"context": {"targetingKey": "ann"}}

        async def status(method: str, path: str, body: Any = None) -> int:
            return (await client.request(method, path, json=body, headers=bearer)).status_code

        async def said(method: str, path: str, body: Any = None) -> Any:
            return (await client.request(method, path, json=body, headers=bearer)).json()

        exposures = [{"user_id": "ann", "experiment": "colour", "variant": "control"}]
        checked = {"user_id": "ann", "experiment_ids": ["price", "colour"]}
        return {
            "payload": list((await said("GET", f"/api/features/{secret}"))["features"]),
            "evaluated": list(
                (await said("POST", f"/api/eval/{secret}", {"attributes": {"id": "ann"}}))["features"]
            ),
            "flags": [
                each["key"] for each in (await said("POST", "/ofrep/v1/evaluate/flags", context))["flags"]
            ],
            "flag": (await said("POST", "/ofrep/v1/evaluate/flags/colour", context))["errorCode"],
            "inside": await status("GET", "/api/v1/experiments/price/assignment/ann"),
            "outside": await status("GET", "/api/v1/experiments/colour/assignment/ann"),
            "posted": await status("POST", "/api/v1/experiments/colour/assign", {"user_id": "ann"}),
            "bulk": [
                each["experiment_key"]
                for each in (await said("POST", "/api/v1/assignments", {"user_ids": ["ann"]}))["assignments"]
            ],
            "named": await status(
                "POST", "/api/v1/assignments", {"user_ids": ["ann"], "experiments": ["colour"]}
            ),
            "eligible": (await said("POST", "/api/v1/experiments/check-eligibility", checked))["ineligible"],
            "exposed": await said("POST", "/api/v1/exposures", exposures),
            "events": await said(
                "POST",
                "/events",
                [
                    {"user_id": "ann", "type": "buy", "experiment_id": key}
                    for key in ("colour", 3, "price", "title")
                ],
            ),
            "event": await status("POST", "/events", {"user_id": "ann", "type": "buy", "experiment_id": 3}),
            "tracked": await status(
                "POST", "/api/v1/experiments/colour/track", {"user_id": "ann", "event_name": "buy"}
            ),
            "on record": (await client.get("/api/v1/experiments/colour/assignments")).json()["assignments"],
        }

    found = play(journey)
    inside = ["price", "title"]
    assert (found["payload"], found["evaluated"], found["flags"], found["bulk"]) == (inside,) * 4
    assert found["flag"] == "FLAG_NOT_FOUND"
    assert (found["inside"], found["outside"], found["posted"], found["named"]) == (200, 404, 404, 404)
    assert found["eligible"] == {"colour": "unknown_experiment"}
    assert (found["tracked"], found["event"], found["on record"]) == (404, 422, [])
    assert [each["code"] for each in found["exposed"]["rejected"]] == ["unknown_experiment"]
    assert found["events"]["accepted"] == 2
    assert [(each["index"], each["code"]) for each in found["events"]["rejected"]] == [
        (0, "unknown_experiment"),
        (1, "unknown_experiment"),
    ]


def test_a_scope_by_tag_follows_the_tags(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[list[str]]:
        await running(client, key="title", tags=["web"])
        await running(client, key="price")
        secret = await scoped(client, tags=["web"])

        async def features() -> list[str]:
            return list((await client.get(f"/api/features/{secret}")).json()["features"])

        seen = [await features()]
        await told(client, "PATCH", "/api/v1/experiments/price", json={"tags": ["web"]})
        seen.append(await features())
        await told(client, "PATCH", "/api/v1/experiments/title", json={"tags": []})
        return [*seen, await features()]

    assert play(journey) == [["title"], ["title", "price"], ["price"]]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"role": "viewer", "tags": ["web"]}, "tags"),
        ({"experiments": ["no-such"]}, "experiments[0]"),
        ({"experiments": []}, "experiments"),
    ],
)
def test_a_scope_that_cannot_be_is_refused(play: Play, body: dict[str, Any], path: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, str]:
        answer = await client.post("/auth/keys", json={"name": "app", **body})
        return answer.status_code, answer.json()["errors"][0]["path"]

    assert play(journey) == (422, path)


def test_what_is_private_is_evaluated_by_the_server_alone(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        segment = await told(
            client, "POST", "/segments", json={"name": "s", "rules": {"plan": "gold-77"}, "private": True}
        )
        await running(client, key="rule", condition={"plan": "gold-77"}, private=True)
        await running(client, key="part", segments=[segment["id"]])
        await running(client, key="open")
        secret = await scoped(client)
        answer = await client.get(f"/api/features/{secret}")
        # Those who ask the server are to hear of changes of what they are not told.
        for path, change in (
            ("experiments/rule", {"condition": {"plan": "x"}}),
            ("segments/1", {"rules": {"a": 1}}),
        ):
            sent = {"If-None-Match": answer.headers["etag"]}
            assert (await client.get(f"/api/features/{secret}", headers=sent)).status_code == 304
            await told(client, "PATCH", f"/api/v1/{path}", json=change)
            changed = await client.get(f"/api/features/{secret}", headers=sent)
            assert (changed.status_code, changed.text) == (200, answer.text)
            answer = changed
        await told(client, "PATCH", "/api/v1/experiments/rule", json={"condition": {"plan": "gold-77"}})
        await told(client, "PATCH", "/api/v1/segments/1", json={"rules": {"plan": "gold-77"}})
        asked = {"attributes": {"id": "ann", "plan": "gold-77"}}
        evaluated = (await client.post(f"/api/eval/{secret}", json=asked)).json()["features"]
        return [answer.text, answer.json(), {key: each["defaultValue"] for key, each in evaluated.items()}]

    text, payload, evaluated = play(journey)
    assert "gold-77" not in text
    assert list(payload["features"]) == ["open"]
    assert payload["assay"]["remote_only"] == {"rule": "it is private", "part": "segment 1 is private"}
    assert set(evaluated) == {"rule", "part", "open"}
    assert None not in evaluated.values()


def test_a_list_that_a_condition_names_is_sent_and_followed(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        secret = await scoped(client)
        await told(client, "POST", "/segments", json={"name": "Big spenders"})
        await running(client, key="named", condition={"id": {"$inGroup": "big-spenders"}})
        seen: list[Any] = []
        marks: list[str] = []
        for members in (
            ["ann"],
            ["bob"],
            *([f"{each}{number}" for number in range(10_001)] for each in "uv"),
        ):
            path = "/segments/big-spenders/users"
            await told(client, "POST", path, json={"user_ids": members, "replace": True})
            answer = await client.get(f"/api/features/{secret}")
            payload = answer.json()
            marks.append(answer.headers["etag"])
            asked = [
                (await client.post(f"/api/eval/{secret}", json={"attributes": {"id": user}})).json()
                for user in (members[-1], "zoe")
            ]
            inside = [each["features"]["named"]["defaultValue"] is not None for each in asked]
            remote = payload["assay"]["remote_only"]
            seen.append((payload["savedGroups"], "named" in payload["features"], remote, inside))
        assert len(set(marks)) == len(marks)
        return seen

    first, second, long, others = play(journey)
    assert others == long
    assert first == ({"segment-1": ["ann"]}, True, {}, [True, False])
    assert second == ({"segment-1": ["bob"]}, True, {}, [True, False])
    assert long == (
        {},
        False,
        {"named": "segment 1 lists 10001 users; at most 10000 are sent"},
        [True, False],
    )
