"""Why a user gets what they get, now and at a past moment."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from inprocess import running, told

Play = Callable[..., Any]


async def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


async def explained(client: httpx2.AsyncClient, user: str, as_of: str | None = None) -> dict[str, Any]:
    asked = {} if as_of is None else {"as_of": as_of}
    found: dict[str, Any] = await told(
        client, "GET", f"/api/v1/experiments/price/explain/{user}", params=asked
    )
    return found


def test_it_says_what_was_looked_at_and_what_decided(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> dict[str, Any]:
        await told(client, "POST", "/users", json={"id": "ann", "age": 17, "shoe": 38})
        segment = await told(client, "POST", "/segments", json={"name": "s", "rules": {"country": "DE"}})
        condition = {"$or": [{"age": {"$gte": 18}}, {"plan": "gold"}]}
        await running(client, key="price", condition=condition, segments=[segment["id"]])
        return await explained(client, "ann")

    found = play(journey)
    assert found["attributes_used"] == {"age": 17, "plan": None, "country": None}
    assert found["condition_clause"] == {
        "path": "condition.$or",
        "wanted": [{"age": {"$gte": 18}}, {"plan": "gold"}],
        "found": None,
        "holds": False,
    }
    assert found["segments"][0]["clause"] == {
        "path": "rules.country",
        "wanted": "DE",
        "found": None,
        "holds": False,
    }
    assert (found["reason"], found["hash"]["input"]) == ("not_in_segment", "priceann")
    assert (found["as_of"], found["notes"]) == (None, [])


def test_a_past_moment_is_replayed_from_history(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> dict[str, Any]:
        before = await now()
        await told(client, "POST", "/users", json={"id": "ann", "country": "DE"})
        segment = (await told(client, "POST", "/segments", json={"name": "s", "rules": {"country": "DE"}}))[
            "id"
        ]
        await told(client, "POST", "/segments/assign-user", json={"segment_id": segment, "user_id": "bob"})
        await running(client, key="price", segments=[segment], traffic_allocation=0.5)
        asked: dict[str, Any] = {"before": before, "begin": await now()}
        now_version = (await explained(client, "ann"))["ruleset_version"]
        await told(client, "PUT", "/users/ann", json={"country": "US", "plan": "gold"})
        await client.delete(f"/segments/{segment}/users/bob")
        await told(client, "PUT", f"/segments/{segment}", json={"rules": {"plan": "free"}})
        asked["narrow"] = await now()
        await told(client, "PATCH", "/api/v1/experiments/price", json={"traffic_allocation": 1})
        await told(client, "PUT", "/api/v1/experiments/price/overrides/ann", json={"variant": "blue"})
        asked["forced"] = await now()
        await client.delete("/api/v1/experiments/price/overrides/ann")
        await told(client, "POST", "/api/v1/experiments/price/stop", json={"winner": "blue"})
        found: dict[str, Any] = {"version": now_version}
        for name in ("begin", "narrow", "forced"):
            found[name] = {user: await explained(client, user, asked[name]) for user in ("ann", "bob")}
        found["now"] = await explained(client, "ann")
        refused = await client.get("/api/v1/experiments/price/explain/ann", params={"as_of": before})
        found["before"] = (refused.status_code, refused.json()["code"])
        for name, moment in (("future", "2190-01-01"), ("nonsense", "yesterday")):
            answer = await client.get("/api/v1/experiments/price/explain/ann", params={"as_of": moment})
            found[name] = (answer.status_code, answer.json()["errors"][0]["path"])
        return found

    found = play(journey)
    begin, narrow, forced = found["begin"], found["narrow"], found["forced"]
    assert begin["ann"]["attributes_used"] == {"country": "DE"}
    assert (begin["ann"]["coverage"], begin["ann"]["phase"], begin["ann"]["status"]) == (0.5, 1, "running")
    assert begin["ann"]["ruleset_version"] == found["version"]
    assert [each["segments"][0]["matched"] for each in begin.values()] == [True, True]
    assert narrow["ann"]["attributes_used"] == {"plan": "gold"}
    assert [each["segments"][0]["matched"] for each in narrow.values()] == [False, False]
    assert narrow["ann"]["reason"] == "not_in_segment"
    assert (narrow["ann"]["phase"], forced["ann"]["phase"]) == (2, 3)
    assert (forced["ann"]["reason"], forced["ann"]["variant"]) == ("override", "blue")
    assert forced["bob"]["reason"] == "not_in_segment"
    assert forced["ann"]["coverage"] == 1.0
    assert found["now"]["reason"] == "rolled_out"
    assert found["before"] == (404, "unknown_experiment")
    assert found["future"] == found["nonsense"] == (422, "as_of")


def test_what_was_required_of_another_experiment_is_replayed_with_it(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        everybody = [{"name": "control", "allocation": 0}, {"name": "on", "allocation": 1}]
        await running(client, key="base", variants=everybody)
        await running(client, key="price", prerequisites=[{"experiment": "base", "variants": ["on"]}])
        moment = await now()
        await told(client, "POST", "/api/v1/experiments/base/pause")
        return [(await explained(client, "ann", each))["reason"] for each in (moment, None)]

    assert play(journey) == ["assigned", "prerequisite"]


def test_an_assignment_of_later_is_not_on_record_yet(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        await running(client, key="price")
        before = await now()
        await told(client, "GET", "/api/v1/experiments/price/assignment/ann")
        after = await now()
        return [(await explained(client, "ann", each))["assigned_variant_id"] for each in (before, after)]

    before, after = play(journey)
    assert before is None
    assert isinstance(after, int)


def test_what_is_not_known_any_more_is_said(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[str]:
        segment = (await told(client, "POST", "/segments", json={"name": "Staff"}))["id"]
        await running(client, key="price", segments=[segment])
        moment = await now()
        await told(client, "POST", f"/segments/{segment}/users", json={"user_ids": ["ann", "bob"]})
        notes: list[str] = (await explained(client, "ann", moment))["notes"]
        return notes

    (note,) = play(journey)
    assert note.startswith("The list of segment Staff was changed in bulk at 2")


def test_a_list_that_a_condition_names_is_explained_as_it_was(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
        await told(client, "POST", "/segments", json={"name": "vip"})
        for user in ("ann", "cyd"):
            await told(client, "POST", "/segments/assign-user", json={"segment_id": 1, "user_id": user})
        await running(client, key="price", condition={"id": {"$inGroup": "vip"}})
        moment = await now()
        await client.delete("/segments/1/users/ann")
        await told(client, "POST", "/segments/assign-user", json={"segment_id": 1, "user_id": "bob"})
        return [
            await explained(client, user, at)
            for user, at in (("ann", None), ("bob", None), ("ann", moment), ("bob", moment), ("cyd", moment))
        ]

    found = play(journey)
    assert [each["condition"] for each in found] == [False, True, True, False, True]
    assert [each["condition_clause"]["holds"] for each in found] == [False, True, True, False, True]
    assert found[0]["condition_clause"]["wanted"] == {"$inGroup": "vip"}
    assert found[0]["reason"] == "not_in_segment"
    assert not any(each["notes"] for each in found)


@pytest.mark.parametrize("name", ["since", "country"])
def test_another_parameter_is_refused(play: Play, name: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, str]:
        await running(client, key="price")
        answer = await client.get(f"/api/v1/experiments/price/explain/ann?{name}=1")
        return answer.status_code, answer.json()["code"]

    assert play(journey) == (422, "unknown_parameter")
