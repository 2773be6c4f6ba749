"""Get-or-create through the whole application: what is on record wins, and every answer says why."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.bucketing.hashing import hash_unit
from inprocess import running, told

Play = Callable[..., Any]


def rows(directory: Path) -> int:
    with sqlite3.connect(directory / "data" / "assay.db") as connection:
        number: int = connection.execute("SELECT count(*) FROM assignments").fetchone()[0]
    connection.close()
    return number


def test_the_first_answer_is_repeated_to_the_microsecond_also_after_a_restart(play: Play) -> None:
    async def first(client: httpx2.AsyncClient) -> list[Any]:
        await running(client)
        path = "/experiments/test/assignment/ada"
        return [
            await told(client, "GET", path),
            await told(client, "GET", "/api/v1/experiments/1/assignment/ada"),
        ]

    async def later(client: httpx2.AsyncClient) -> Any:
        return await told(client, "POST", "/api/experiments/1/assign/", json={"user_id": "ada"})

    one, two = play(first)
    assert one == two == play(later)
    assert one["assigned"] is True
    assert one["variant"] == one["variant_name"] in {"control", "blue"}
    assert one["assigned_at"] == one["assignment_timestamp"]
    assert one["assigned_variant_id"] == one["variant_id"]


def test_bucketing_is_growthbooks(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[str]:
        await running(client, key="my-test")
        return [
            (await told(client, "GET", f"/experiments/my-test/assignment/{user}"))["variant"]
            for user in "123456789"
        ]

    expected = ["control" if (hash_unit("my-test", user) or 0) < 0.5 else "blue" for user in "123456789"]
    assert play(journey) == expected
    assert set(expected) == {"control", "blue"}


def test_64_first_calls_at_once_make_one_record(play: Play, tmp_path: Path) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        await running(client)
        calls = (told(client, "GET", "/experiments/1/assignment/ada") for _ in range(64))
        return await asyncio.gather(*calls)

    answers = play(journey)
    assert all(answer == answers[0] for answer in answers)
    assert rows(tmp_path) == 1


def test_changing_the_split_moves_nobody(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[dict[str, int], dict[str, int]]:
        experiment = await running(client)
        users = [f"user-{number}" for number in range(60)]
        before = {
            user: (await told(client, "GET", f"/experiments/1/assignment/{user}"))["variant_id"]
            for user in users
        }
        control = experiment["variants"][0]["id"]
        blue = experiment["variants"][1]["id"]
        await told(client, "PATCH", f"/api/v1/experiments/1/variants/{control}", json={"allocation": 0.0})
        await told(client, "PATCH", f"/api/v1/experiments/1/variants/{blue}", json={"allocation": 1.0})
        after = {
            user: (await told(client, "GET", f"/experiments/1/assignment/{user}"))["variant_id"]
            for user in users
        }
        return before, after

    before, after = play(journey)
    assert before == after
    assert len(set(before.values())) == 2


def test_ids_with_slashes_emoji_and_spaces_are_ids(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[str]:
        await running(client)
        return [
            (await told(client, "GET", f"/experiments/1/assignment/{path}"))["user_id"]
            for path in ("a%2Fb", "%F0%9F%98%80", "a%20b", "%25")
        ]

    assert play(journey) == ["a/b", "😀", "a b", "%"]


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/experiments/1/assignment/%00", 422, "NUL"),
        ("/experiments/1/assignment/%FF", 400, "UTF-8"),
        (f"/experiments/1/assignment/{'x' * 201}", 422, "200"),
        ("/experiments/nowhere/assignment/ada", 404, "nowhere"),
    ],
)
def test_an_impossible_path_is_named(play: Play, tmp_path: Path, path: str, status: int, word: str) -> None:
    async def journey(client: httpx2.AsyncClient) -> httpx2.Response:
        await running(client)
        return await client.get(path)

    answer = play(journey)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]
    assert rows(tmp_path) == 0


def test_life_of_an_experiment_as_its_users_see_it(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        async def look(moment: str, user: str) -> None:
            answer = await told(client, "GET", f"/experiments/1/assignment/{user}")
            seen[moment] = (
                answer["assigned"],
                answer["variant"],
                answer["reason"],
                answer["assigned_variant_id"],
            )

        await running(client, status="draft")
        await look("draft", "ada")
        await told(client, "POST", "/api/v1/experiments/1/start")
        await look("running", "ada")
        await told(client, "POST", "/api/v1/experiments/1/pause")
        await look("paused, known", "ada")
        await look("paused, new", "bob")
        await told(client, "POST", "/api/v1/experiments/1/resume")
        await told(client, "POST", "/api/v1/experiments/1/stop", json={"winner": "blue"})
        await look("won, known", "ada")
        await look("won, new", "cyd")
        await told(client, "POST", "/api/v1/experiments/1/archive")
        await look("archived", "ada")
        return seen

    seen = play(journey)
    known = seen["running"][3]
    nobody = (False, None, "not_running", None)
    assert seen["draft"] == nobody
    assert seen["running"][0] is True
    assert seen["running"][2] == "assigned"
    assert seen["paused, known"] == seen["running"]
    assert seen["paused, new"] == nobody
    assert seen["won, known"] == (True, "blue", "rolled_out", known)
    assert seen["won, new"] == (True, "blue", "rolled_out", None)
    assert seen["archived"] == (False, None, "not_running", known)


def test_a_switched_off_variant_serves_the_control_and_stays_on_record(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, set[str]]:
        experiment = await running(client)
        blue = experiment["variants"][1]["id"]
        user = None
        for number in range(50):
            answer = await told(client, "GET", f"/experiments/1/assignment/user-{number}")
            if answer["variant_id"] == blue:
                user = f"user-{number}"
                break
        await told(client, "PATCH", f"/api/v1/experiments/1/variants/{blue}", json={"enabled": False})
        after = await told(client, "GET", f"/experiments/1/assignment/{user}")
        new = {
            (await told(client, "GET", f"/experiments/1/assignment/new-{number}"))["variant"]
            for number in range(30)
        }
        return blue, after, new

    blue, after, new = play(journey)
    assert (after["variant"], after["config"], after["reason"]) == ("control", {}, "variant_disabled")
    assert after["assigned_variant_id"] == blue
    assert new == {"control"}


def test_an_override_wins_and_leaves_no_record(play: Play, tmp_path: Path) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        await running(client)
        await told(client, "PUT", "/api/v1/experiments/1/overrides/qa", json={"variant": "blue"})
        forced = await told(client, "GET", "/experiments/1/assignment/qa")
        other = await told(client, "GET", "/experiments/1/assignment/ada")
        return forced, other

    forced, other = play(journey)
    assert (forced["variant"], forced["reason"], forced["assigned_variant_id"]) == ("blue", "override", None)
    assert other["reason"] == "assigned"
    assert rows(tmp_path) == 1


def test_stored_attributes_count_and_those_of_the_call_win(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        await running(client, condition={"country": "AR"})
        await told(client, "POST", "/api/v1/users", json={"id": "ada", "country": "AR"})
        await told(client, "POST", "/api/v1/users", json={"id": "bob", "country": "US"})
        answers = [
            await told(client, "POST", "/experiments/1/assign", json={"user_id": "bob"}),
            await told(
                client, "POST", "/experiments/1/assign", json={"user_id": "ada", "context": {"country": "US"}}
            ),
            await told(client, "POST", "/experiments/1/assign", json={"user_id": "ada"}),
            await told(
                client, "POST", "/experiments/1/assign", json={"user_id": "bob", "context": {"country": "AR"}}
            ),
        ]
        return [(answer["assigned"], answer["reason"]) for answer in answers]

    assert play(journey) == [
        (False, "not_in_segment"),
        (False, "not_in_segment"),
        (True, "assigned"),
        (True, "assigned"),
    ]


def test_eligibility_names_the_unknown_and_the_excluded(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> Any:
        await running(client)
        await running(client, name="Nobody", traffic_allocation=0.0)
        body = {"user_id": "ada", "experiment_ids": [1, 2, 3]}
        return await told(client, "POST", "/api/experiments/check-eligibility", json=body)

    found = play(journey)
    assert found["ineligible"] == {"2": "not_in_traffic", "3": "unknown_experiment"}
    assert list(found["eligible_experiment_ids"]) == ["1"]
    assert found["eligible_experiment_ids"]["1"]["variant_name"] in {"control", "blue"}


def test_another_unit_is_the_one_that_is_randomised(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[Any]:
        await running(client, unit="account_id")
        post = "/experiments/1/assign"
        return [
            await told(client, "POST", post, json={"user_id": "ada", "units": {"account_id": "acme"}}),
            await told(client, "POST", post, json={"user_id": "bob", "units": {"account_id": "acme"}}),
            await told(client, "GET", "/experiments/1/assignment/cyd?account_id=acme"),
            await told(client, "POST", post, json={"user_id": "ada"}),
        ]

    ada, bob, cyd, without = play(journey)
    assert ada["variant_id"] == bob["variant_id"] == cyd["variant_id"]
    assert ada["assigned_at"] == bob["assigned_at"] == cyd["assigned_at"]
    assert (without["assigned"], without["reason"]) == (False, "no_unit")


def test_bulk_is_one_answer_for_every_pair_and_agrees_with_single_calls(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, list[Any]]:
        await running(client)
        await running(client, name="Second")
        users = [f"user-{number}" for number in range(100)]
        bulk = await told(
            client, "POST", "/api/v1/assignments", json={"user_ids": users, "experiments": [1, "second"]}
        )
        single = [
            await told(client, "GET", f"/experiments/{number}/assignment/{user}")
            for user in users
            for number in (1, 2)
        ]
        return bulk, single

    bulk, single = play(journey)
    assert bulk["total"] == 200
    assert bulk["assignments"] == single


def test_bulk_refuses_more_pairs_than_the_setting(play: Play, tmp_path: Path) -> None:
    async def journey(client: httpx2.AsyncClient) -> httpx2.Response:
        await running(client)
        return await client.post("/api/v1/assignments", json={"user_ids": ["a", "b", "c"]})

    answer = play(journey, max_bulk_pairs=2)
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many")
    assert rows(tmp_path) == 0


def test_explain_shows_each_step(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        await running(client, condition={"country": "AR"})
        await told(client, "POST", "/api/v1/users", json={"id": "ada", "country": "US"})
        return (
            await told(client, "GET", "/api/v1/experiments/1/explain/ada"),
            await told(client, "GET", "/experiments/1/assignment/ada"),
        )

    receipt, answer = play(journey)
    assert receipt["reason"] == answer["reason"] == "not_in_segment"
    assert receipt["hash"]["seed"] == "test"
    assert 0 <= receipt["hash"]["bucket"] < 1
    assert [(each["from"], each["to"]) for each in receipt["ranges"]] == [(0.0, 0.5), (0.5, 1.0)]
