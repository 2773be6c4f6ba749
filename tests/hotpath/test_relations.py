"""Experiments that know of each other: layers, holdouts and prerequisites, on every way to an assignment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from assay.bucketing.hashing import hash_unit
from inprocess import running, told

Play = Callable[..., Any]


def test_a_unit_is_assigned_in_one_experiment_of_a_layer_on_every_way(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> None:
        await told(client, "POST", "/api/v1/layers", json={"name": "Page", "key": "page"})
        for key, share in (("first", 0.3), ("second", 0.5)):
            await running(client, key=key, layer={"key": "page", "share": share})
        users = [f"user-{number}" for number in range(60)]
        bulk = await told(client, "POST", "/api/v1/assignments", json={"user_ids": users})
        inside: dict[str, list[str]] = {user: [] for user in users}
        for each in bulk["assignments"]:
            if each["assigned"]:
                inside[each["user_id"]].append(each["experiment_key"])
            else:
                assert each["reason"] == "layer_excluded"
        assert {len(each) for each in inside.values()} == {0, 1}
        assert {key for each in inside.values() for key in each} == {"first", "second"}
        for user, keys in inside.items():
            for key in ("first", "second"):
                one = await told(client, "GET", f"/experiments/{key}/assignment/{user}")
                assert one["assigned"] is (key in keys)
                why = await told(client, "GET", f"/experiments/{key}/explain/{user}")
                assert why["layer"]["inside"] is (key in keys)
                assert why["layer"]["slot"] == round((hash_unit("layer:page", user) or 0) * 10_000)
            if keys == ["first"]:
                report = {"user_id": user, "experiment": "second", "variant": "blue"}
                refused = await client.post("/api/v1/exposures", json=report)
                assert (refused.status_code, refused.json()["code"]) == (422, "layer_excluded")

    play(journey)


def test_every_way_asks_holdouts_and_prerequisites_and_assigns_the_unit_in_them(
    play: Play, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(40)]
    keys = ["h", "parent", "child", "won"]

    async def values(client: httpx2.AsyncClient, secret: str, user: str) -> list[dict[str, str | None]]:
        """What four ways say this user has of each experiment."""
        flags = await told(
            client, "POST", "/ofrep/v1/evaluate/flags", json={"context": {"targetingKey": user}}
        )
        remote = await told(client, "POST", f"/api/eval/{secret}", json={"attributes": {"id": user}})
        checked = await told(
            client, "POST", "/experiments/check-eligibility", json={"user_id": user, "experiment_ids": keys}
        )
        bulk = await told(
            client, "POST", "/api/v1/assignments", json={"user_ids": [user], "experiments": keys}
        )
        eligible = checked["eligible_experiment_ids"]
        return [
            {each["key"]: each["variant"] or None for each in flags["flags"]},
            {key: remote["features"][key]["defaultValue"] and named(remote["features"][key]) for key in keys},
            {key: eligible[key]["variant_key"] if key in eligible else None for key in keys},
            {each["experiment_key"]: each["variant_key"] for each in bulk["assignments"]},
        ]

    def named(feature: Any) -> str:
        found = feature["defaultValue"]
        return "blue" if found == {"colour": "blue"} else str(found)

    async def journey(client: httpx2.AsyncClient) -> None:
        holdout = {"name": "H", "key": "h", "share": 0.25, "status": "running"}
        await told(client, "POST", "/api/v1/holdouts", json=holdout)
        await running(client, key="parent")
        await running(client, key="child", prerequisites=[{"experiment": "parent", "variants": ["blue"]}])
        await running(client, key="won")
        await told(client, "POST", "/api/v1/experiments/won/stop", json={"winner": "blue"})
        secret = (await told(client, "POST", "/auth/keys", json={"name": "app", "role": "client"}))["key"]
        for at, user in enumerate(users):
            # A different way comes first for each user.
            if at % 2:
                single = await told(client, "GET", f"/experiments/child/assignment/{user}")
            ways = await values(client, secret, user)
            assert ways.count(ways[0]) == 4, ways
            found = ways[0]
            in_holdout = (hash_unit("h", user) or 0) < 0.25
            blue = (hash_unit("parent", user) or 0) >= 0.5
            assert found["h"] == ("held_out" if in_holdout else "in")
            assert found["parent"] == (None if in_holdout else "blue" if blue else "control")
            assert (found["child"] is None) is (in_holdout or not blue)
            assert found["won"] == (None if in_holdout else "blue")
            why = await told(client, "GET", f"/experiments/child/explain/{user}")
            reason = "holdout" if in_holdout else "assigned" if blue else "prerequisite"
            assert why["reason"] == reason
            if at % 2:
                assert (single["reason"], single["variant_key"]) == (reason, found["child"])
            assert [each["met"] for each in why["holdouts"]] == [not in_holdout]
            (required,) = why["prerequisites"]
            assert (required["experiment_key"], required["variants"]) == ("parent", ["blue"])
            assert required["met"] is (blue and not in_holdout)
            report = {"user_id": user, "experiment": "child", "variant": "blue"}
            exposed = await client.post("/api/v1/exposures", json=report)
            assert exposed.status_code == (422 if in_holdout else 202), exposed.text
            if in_holdout:
                assert exposed.json()["code"] == "holdout"
        kept = next(
            each
            for each in users
            if (hash_unit("h", each) or 0) >= 0.25 and (hash_unit("parent", each) or 0) >= 0.5
        )
        path = f"/experiments/child/assignment/{kept}"
        before = await told(client, "GET", path)
        await told(client, "POST", "/api/v1/experiments/parent/stop", json={})
        # What is on record stays when what it rested on is gone; nobody new gets in.
        assert await told(client, "GET", path) == before
        bulk = await told(
            client,
            "POST",
            "/api/v1/assignments",
            json={"user_ids": [f"new-{each}" for each in range(40)], "experiments": ["child"]},
        )
        assert {each["reason"] for each in bulk["assignments"]} <= {
            "prerequisite",
            "holdout",
            "not_in_traffic",
        }
        # Each is counted once, however often it was asked for, by itself or for another experiment.
        series = 'experimentation_variant_assignments_total{experiment_id="1"'
        lines = (await client.get("/metrics")).text.splitlines()
        assert sum(float(each.split()[-1]) for each in lines if each.startswith(series)) == 80

    play(journey)


def test_a_unit_that_would_get_in_is_recorded_in_the_holdout_by_the_same_call(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> None:
        holdout = {"name": "H", "key": "h", "share": 0.25, "status": "running"}
        await told(client, "POST", "/api/v1/holdouts", json=holdout)
        await running(client, key="child", condition={"country": "US"})
        for number in range(20):
            body = {"user_id": f"user-{number}", "context": {"country": "US" if number < 12 else "DE"}}
            await told(client, "POST", "/experiments/child/assign", json=body)
        listed = await told(client, "GET", "/experiments/h/assignments")
        # Who was asked for and could not have come in says nothing of the holdout's effect.
        assert {each["user_id"] for each in listed["assignments"]} == {f"user-{each}" for each in range(12)}
        assert {each["variant_key"] for each in listed["assignments"]} == {"held_out", "in"}

    play(journey)
