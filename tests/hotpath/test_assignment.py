"""Get-or-create through the whole application: what is on record wins, and every answer says why."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.bucketing.hashing import hash_unit
from inprocess import KEY, running, told

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


def test_the_first_exposure_is_the_assignment_and_a_different_one_is_named(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any, Any]:
        await running(client)
        post = "/api/v1/exposures"
        one = await told(
            client, "POST", post, json={"user_id": "ada", "experiment": "test", "variant": "blue"}
        )
        two = await told(
            client, "POST", post, json=[{"user_id": "ada", "experiment": 1, "variant": "control"}]
        )
        return one, two, await told(client, "GET", "/experiments/1/assignment/ada")

    one, two, stored = play(journey)
    assert one == {"accepted": 1, "conflicts": [], "rejected": []}
    assert [each["index"] for each in two["conflicts"]] == [0]
    assert stored["variant"] == "blue"


def test_of_many_exposures_the_good_are_stored_and_the_bad_named_by_index(play: Play, tmp_path: Path) -> None:
    shown = {"experiment": "test", "variant": "blue"}
    sent = [
        {"user_id": "ada", **shown},
        {"user_id": "bob", "experiment": "test", "variant": "green"},
        {"user_id": "", **shown},
        "rubbish",
        {"user_id": "cleo", **shown, "zap": 1},
        {"user_id": "dan", "experiment": "nowhere", "variant": "blue"},
        {"user_id": "eve", **shown, "timestamp": "2999-01-01T00:00:00Z"},
        {"user_id": "fay", **shown},
        {"user_id": "ada", "experiment": "test", "variant": "control"},
    ]

    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        await running(client)
        found = await told(client, "POST", "/api/v1/exposures", json=sent)
        alone = await client.post("/api/v1/exposures", json=sent[1])
        assert (alone.status_code, alone.json()["errors"][0]["path"]) == (422, "variant")
        return found, await told(client, "GET", "/api/v1/experiments/1/events/ledger")

    found, ledger = play(journey)
    assert (found["accepted"], [each["index"] for each in found["conflicts"]]) == (2, [8])
    assert [(each["index"], each["path"], each["code"]) for each in found["rejected"]] == [
        (1, "variant", "invalid"),
        (2, "user_id", "invalid"),
        (3, "body", "invalid"),
        (4, "zap", "unknown_field"),
        (5, "experiment", "unknown_experiment"),
        (6, "timestamp", "invalid"),
    ]
    assert rows(tmp_path) == 2
    assert ledger["totals"]["variant_mismatch"] == 1
    assert ledger["totals"]["rejected"] == 7


def test_a_unit_reported_with_another_variant_is_in_the_ledger_and_in_health(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        await running(client)
        for variant in ("blue", "control", "control"):
            report = {"user_id": "ada", "experiment": "test", "variant": variant}
            await told(client, "POST", "/api/v1/exposures", json=report)
        ledger = await told(client, "GET", "/api/v1/experiments/1/events/ledger")
        return ledger, await told(client, "GET", "/api/v1/experiments/1/report")

    ledger, report = play(journey)
    assert ledger["totals"]["variant_mismatch"] == 2
    (check,) = [each for each in report["health"] if each["check"] == "one_variant"]
    assert check["inputs"]["mismatched_exposures"] == 2
    assert "2 exposures name another variant" in check["sentence"]


def test_exposures_and_events_of_a_wrong_clock_are_corrected_alike(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> Any:
        await running(client)
        sent_at = "2019-05-05T12:00:10.000000Z"
        met = {"user_id": "ada", "experiment": "test", "variant": "blue", "timestamp": "2019-05-05T12:00:00Z"}
        did = {"user_id": "ada", "type": "buy", "timestamp": "2019-05-05T12:00:05Z", "experiment_id": "test"}
        await told(client, "POST", "/api/v1/exposures", json={"exposures": [met], "sent_at": sent_at})
        await told(client, "POST", "/events", json={"events": [did], "sent_at": sent_at})
        wrong = await client.post("/api/v1/exposures", json={"exposures": [met], "sent_at": "noon"})
        assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "sent_at")
        assigned = await told(client, "GET", "/experiments/1/assignment/ada")
        assert not assigned["assigned_at"].startswith("2019")
        return await told(client, "GET", "/api/v1/experiments/1/events/ledger")

    totals = play(journey)["totals"]
    assert (totals["counted"], totals["before_assignment"]) == (1, 0)


def test_an_exposure_dated_back_has_the_phase_of_its_time(play: Play, tmp_path: Path) -> None:
    async def journey(client: httpx2.AsyncClient) -> None:
        await running(client)
        await told(client, "PATCH", "/api/v1/experiments/1", json={"traffic_allocation": 0.5})
        shown = {"experiment": "test", "variant": "blue"}
        early = {"user_id": "early", "timestamp": "2020-01-01T00:00:00Z", **shown}
        await told(client, "POST", "/api/v1/exposures", json=[early, {"user_id": "now", **shown}])

    play(journey)
    with closing(sqlite3.connect(tmp_path / "data" / "assay.db")) as base:
        found = base.execute("SELECT unit_id, phase FROM assignments ORDER BY unit_id").fetchall()
    assert found == [("early", 0), ("now", 2)]


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


def test_who_may_do_what(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> dict[str, tuple[int, int, int]]:
        await running(client)
        found = {}
        for role in ("admin", "editor", "viewer", "client"):
            key = (await told(client, "POST", "/api/v1/auth/keys", json={"name": role, "role": role}))["key"]
            headers = {"Authorization": f"Bearer {key}"}
            found[role] = (
                (await client.get("/experiments/1/assignment/ada", headers=headers)).status_code,
                (
                    await client.post("/events", json={"user_id": "ada", "type": "x"}, headers=headers)
                ).status_code,
                (await client.get("/experiments/1/explain/ada", headers=headers)).status_code,
            )
        return found

    assert play(journey) == {
        "admin": (200, 201, 200),
        "editor": (200, 201, 200),
        "viewer": (403, 403, 200),
        "client": (200, 201, 403),
    }


def test_a_revoked_key_is_refused_at_once(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, httpx2.Response]:
        await running(client)
        made = await told(client, "POST", "/auth/keys", json={"name": "app"})
        headers = {"Authorization": f"Bearer {made['key']}"}
        before = await client.get("/experiments/1/assignment/ada", headers=headers)
        gone = await client.delete(f"/auth/keys/{made['id']}")
        assert gone.status_code in {200, 204}
        return before.status_code, await client.get("/experiments/1/assignment/ada", headers=headers)

    before, after = play(journey)
    assert before == 200
    assert after.status_code == 401
    assert after.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("role", "assign", "read"), [("", 401, 401), ("client", 200, 403), ("viewer", 200, 200)]
)
def test_calls_without_a_key(play: Play, role: str, assign: int, read: int) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, int]:
        await running(client)
        del client.headers["Authorization"]
        one = await client.get("/experiments/1/assignment/ada")
        two = await client.get("/api/v1/experiments/1/stats")
        return one.status_code, two.status_code

    found = play(journey, anonymous_role=role)
    assert found[0] == assign
    assert found[1] == read or (role == "client" and found[1] in {401, 403})


def test_every_answer_carries_a_request_id(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> list[str]:
        sane = {"X-Request-ID": "trace-1.a_B"}
        mad = {"X-Request-ID": "a b\tc"}
        return [
            (await client.get("/health", headers=sane)).headers["x-request-id"],
            (await client.get("/api/v1/experiments", headers=sane)).headers["x-request-id"],
            (await client.get("/health", headers=mad)).headers["x-request-id"],
            (await client.get("/nowhere", headers=mad)).headers["x-request-id"],
        ]

    one, two, three, four = play(journey)
    assert one == two == "trace-1.a_B"
    assert three not in {"", "a b\tc"}
    assert three != four


def test_metrics_count_and_may_ask_for_a_token(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[int, str]:
        await running(client)
        await told(client, "GET", "/experiments/1/assignment/ada")
        await told(client, "POST", "/experiments/1/track", json={"user_id": "ada", "event_name": "signup"})
        await told(client, "GET", "/api/v1/experiments/1/stats")
        refused = await client.get("/metrics")
        page = await client.get("/metrics", headers={"Authorization": "Bearer secret"})
        return refused.status_code, page.text

    refused, page = play(journey, metrics_token="secret")
    assert refused == 401
    lines = page.splitlines()
    assert 'experimentation_experiments_total{status="running"} 1.0' in lines
    assert "experimentation_experiments_active 1.0" in lines
    assert any(
        line.startswith('experimentation_variant_assignments_total{experiment_id="1"') for line in lines
    )
    assert any(
        line.startswith('experimentation_events_total{event_name="signup",experiment_id="1",variant=')
        for line in lines
    )
    assert any(line.startswith("experimentation_analysis_duration_seconds_count") for line in lines)
    assert "experimentation_significant_results_total" in page


def test_readiness_names_its_checks(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> tuple[Any, Any]:
        return await told(client, "GET", "/health"), await told(client, "GET", "/ready/")

    health, ready = play(journey)
    assert health["status"] == "ok"
    assert ready["status"] == "ready"
    assert {name for name, check in ready["checks"].items() if check["ok"]} == {
        "catalog",
        "event_store",
        "log",
    }


def test_the_environments_key_is_an_admin(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> int:
        return (await client.get("/auth/keys", headers={"Authorization": f"bearer {KEY}"})).status_code

    assert play(journey) == 200


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
