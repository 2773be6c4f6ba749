"""Recording through the whole application: what is acknowledged counts once, what is refused says why."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from inprocess import running, told

Play = Callable[..., Any]


async def counted(client: httpx2.AsyncClient) -> int:
    """Events that the event store holds."""
    found: list[Any] = (await told(client, "GET", "/api/v1/events?limit=1000"))["events"]
    return len(found)


def test_a_single_event_comes_back_with_its_variant(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, Any]:
        await running(client)
        assigned = await told(client, "GET", "/experiments/1/assignment/ada")
        body = {
            "user_id": "ada",
            "type": "purchase",
            "properties": {"price": 1000.00, "currency": "USD"},
            "experiment_id": "test",
            "event_id": "order 17",
        }
        answer = await client.post("/events", json=body)
        assert answer.status_code == 201
        stored = await told(client, "GET", "/api/v1/events/order 17?user_id=ada")
        return assigned, answer.json(), stored

    assigned, event, stored = play(journey)
    assert event["event_id"] == "order 17"
    assert event["experiment_id"] == 1
    assert event["variant_id"] == assigned["variant_id"]
    assert event["properties"] == {"price": 1000.0, "currency": "USD"}
    assert event["status"] == "accepted"
    assert stored["timestamp"] == event["timestamp"]
    assert stored["properties"] == event["properties"]


def test_the_same_event_counts_once_also_across_a_restart(play: Play) -> None:
    body = {"user_id": "ada", "type": "x", "event_id": "one"}

    async def first(client: httpx2.AsyncClient) -> list[int]:
        return [(await client.post("/events", json=body)).status_code for _ in range(3)]

    async def later(client: httpx2.AsyncClient) -> tuple[int, str, int]:
        answer = await client.post("/events", json=body)
        return answer.status_code, answer.json()["status"], await counted(client)

    assert play(first) == [201, 200, 200]
    assert play(later) == (200, "duplicate", 1)


def test_the_same_id_of_two_users_is_two_events(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> int:
        for user in ("ada", "bob"):
            await told(client, "POST", "/events", json={"user_id": user, "type": "x", "event_id": "1"})
        return await counted(client)

    assert play(journey) == 2


def test_a_batch_keeps_the_good_and_names_the_bad(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, int]:
        batch = [
            {"user_id": "ada", "type": "x", "event_id": "a"},
            {"user_id": "", "type": "x"},
            {"user_id": "ada", "type": "x", "event_id": "a"},
            {"user_id": "ada", "type": "x", "value": "seven"},
            {"user_id": "ada", "event_name": "y"},
        ]
        answer = await client.post("/api/events", json=batch)
        assert answer.status_code == 202
        return answer.json(), await counted(client)

    found, stored = play(journey)
    assert (found["accepted"], found["duplicates"], stored) == (2, 1, 2)
    assert found["duplicate_ids"] == ["a"]
    assert [(each["index"], each["path"]) for each in found["rejected"]] == [(1, "user_id"), (3, "value")]


@pytest.mark.parametrize("kind", ["object", "lines", "gzip", "gzip in two members"])
def test_every_way_to_send_many(play: Play, kind: str) -> None:
    events = [{"user_id": f"user-{number}", "type": "x"} for number in range(10)]
    lines = "\n".join(json.dumps(event) for event in events)
    whole = json.dumps({"events": events}).encode()
    given: dict[str, Any] = {
        "object": {"content": whole, "headers": {"Content-Type": "application/json; charset=utf-8"}},
        "lines": {"content": lines.encode() + b"\n\n", "headers": {"Content-Type": "application/x-ndjson"}},
        "gzip": {
            "content": gzip.compress(whole),
            "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        },
        "gzip in two members": {
            "content": gzip.compress(whole[:40]) + gzip.compress(whole[40:]),
            "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        },
    }[kind]

    async def journey(client: httpx2.AsyncClient) -> tuple[int, int]:
        answer = await client.post("/events", **given)
        assert answer.status_code == 202, answer.text
        return answer.json()["accepted"], await counted(client)

    assert play(journey) == (10, 10)


def test_a_clock_that_is_wrong_is_corrected_by_sent_at(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> str:
        batch = {
            "events": [{"user_id": "ada", "type": "x", "timestamp": "2031-01-01T00:00:00.000000Z"}],
            "sent_at": "2031-01-01T00:00:10.000000Z",
        }
        await told(client, "POST", "/events", json=batch)
        found: str = (await told(client, "GET", "/api/v1/events"))["events"][0]["timestamp"]
        return found

    assert not play(journey).startswith("2031")


def test_track_counts_for_its_experiment_alone(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, list[int]]:
        await running(client)
        await running(client, name="Second")
        for number in (1, 2):
            await told(client, "GET", f"/experiments/{number}/assignment/ada")
        event = await told(
            client, "POST", "/experiments/1/track", json={"user_id": "ada", "event_name": "signup"}
        )
        found = [
            (await told(client, "GET", f"/api/v1/experiments/{number}/report?metrics=signup"))["metrics"][0]
            for number in (1, 2)
        ]
        return event, [sum(arm["converters"] for arm in metric["variants"]) for metric in found]

    event, converters = play(journey)
    assert (event["type"], event["value"], event["experiment_id"]) == ("signup", None, 1)
    assert converters == [1, 0]


def test_only_events_at_or_after_the_assignment_count(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, dict[str, int]]:
        await running(client)
        await told(
            client,
            "POST",
            "/events",
            json={"user_id": "ada", "type": "buy", "timestamp": "2024-01-15T10:35:00"},
        )
        await told(client, "GET", "/experiments/1/assignment/ada")
        await told(client, "POST", "/events", json={"user_id": "ada", "type": "buy", "value": 5})
        report = await told(client, "GET", "/api/v1/experiments/1/report?metrics=buy")
        ledger = await told(client, "GET", "/api/v1/experiments/1/events/ledger")
        events = sum(arm["events"] for arm in report["metrics"][0]["variants"])
        totals: dict[str, int] = ledger["totals"]
        return events, totals

    events, totals = play(journey)
    assert events == 1
    assert (totals["counted"], totals["before_assignment"]) == (1, 1)


def test_many_at_once_are_all_there(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, int]:
        calls = (client.post("/events", json={"user_id": f"user-{n}", "type": "x"}) for n in range(300))
        answers = await asyncio.gather(*calls)
        return sum(answer.status_code == 201 for answer in answers), await counted(client)

    assert play(journey) == (300, 300)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "JSON"),
        (b'{"user_id":"a","type":"x","value":NaN}', 422, "value"),
        (b'{"user_id":"a","type":"x","value":1e999}', 422, "value"),
        (b'{"user_id":"a\\u0000","type":"x"}', 422, "user_id"),
        (b'{"user_id":"a","type":"x","zap":1}', 422, "zap"),
        (b'{"user_id":7,"type":"x"}', 422, "user_id"),
        (b'{"user_id":"a"}', 422, "type"),
        (b'{"user_id":"a","type":"x","timestamp":"soon"}', 422, "soon"),
        (b'{"user_id":"a","type":"x","timestamp":"9999-01-01"}', 422, "9999"),
        (b'{"user_id":"a","type":"x","experiment_id":99}', 422, "99"),
        (b'{"user_id":"a","type":"x","properties":' + b"[" * 100_000 + b"}", 400, "JSON"),
        (b'{"user_id":"\xff","type":"x"}', 400, "UTF-8"),
    ],
)
def test_what_is_refused_is_named_and_not_stored(play: Play, body: bytes, status: int, word: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[httpx2.Response, int]:
        answer = await client.post("/events", content=body, headers={"Content-Type": "application/json"})
        return answer, await counted(client)

    answer, stored = play(journey)
    assert answer.status_code in {status, 422 if status == 400 else status}
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"] or "deep" in answer.json()["detail"]
    assert stored == 0


def test_an_erased_user_leaves_nothing_and_may_come_back(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, int, int, str]:
        await running(client)
        first = await told(client, "GET", "/experiments/1/assignment/ada")
        body = {"user_id": "ada", "type": "x", "event_id": "one"}
        await told(client, "POST", "/events", json=body)
        erased = await told(client, "DELETE", "/api/v1/users/ada?erase=true")
        left = await counted(client)
        again = await client.post("/events", json=body)
        second = await told(client, "GET", "/experiments/1/assignment/ada")
        assert second["assigned_at"] > first["assigned_at"]
        return erased["removed"], left, await counted(client), again.json()["status"]

    removed, left, after, status = play(journey)
    assert (removed["assignments"], removed["events"], left) == (1, 1, 0)
    assert (status, after) == ("accepted", 1)


def test_a_purged_experiment_takes_its_rows_along(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, int]:
        await running(client)
        await told(client, "GET", "/experiments/1/assignment/ada")
        await told(client, "POST", "/experiments/1/track", json={"user_id": "ada", "event_name": "signup"})
        await told(client, "POST", "/events", json={"user_id": "ada", "type": "elsewhere"})
        await told(client, "DELETE", "/api/v1/experiments/1?purge=true")
        gone = await client.get("/experiments/1/assignment/ada")
        return gone.status_code, await counted(client)

    assert play(journey) == (404, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/events", b'{"user_id":"u","user_id":"v","type":"x"}'),
        ("/experiments/1/track", b'{"user_id":"u","event_name":"x","value":1,"value":2}'),
        ("/experiments/1/assign", b'{"user_id":"u","context":{},"user_id":"v"}'),
        ("/events", b'{"user_id":"u","type":"x","properties":{"a":{"value":1,"value":2}}}'),
    ],
)
def test_an_object_that_says_one_thing_twice_is_refused(play: Play, path: str, body: bytes) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[httpx2.Response, int]:
        await running(client)
        answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        return answer, await counted(client)

    answer, stored = play(journey)
    assert (answer.status_code, answer.json()["code"], stored) == (422, "duplicate_key", 0)


def test_head_is_get_without_the_body(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[tuple[int, bytes]]:
        await running(client)
        answers = [await client.head(path) for path in ("/health", "/api/v1/experiments/1", "/docs")]
        return [(answer.status_code, answer.content) for answer in answers]

    assert play(journey) == [(200, b"")] * 3


def test_the_ledger_has_the_repetitions_that_were_named_at_once(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[int]:
        await running(client)
        await running(client, name="Second")
        await told(client, "GET", "/experiments/1/assignment/ada")
        one = {"user_id": "ada", "type": "buy", "event_id": "1"}
        for _ in range(3):
            await client.post("/events", json=one)
        await client.post("/events", json=[one, one, {**one, "event_id": "2", "experiment_id": 2}])
        await client.post("/events", json=[{**one, "event_id": "2", "experiment_id": 2}])
        return [
            (await told(client, "GET", f"/api/v1/experiments/{number}/events/ledger"))["totals"]["duplicate"]
            for number in (1, 2)
        ]

    assert play(journey) == [4, 1]


def test_events_of_a_purged_experiment_may_be_sent_again(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, int]:
        await running(client)
        event = {"user_id": "ada", "type": "buy", "event_id": "1", "experiment_id": "test"}
        await told(client, "POST", "/events", json=event)
        await told(client, "DELETE", "/api/v1/experiments/test?purge=true")
        await running(client)
        again = await client.post("/events", json=event)
        return again.status_code, await counted(client)

    assert play(journey) == (201, 1)
