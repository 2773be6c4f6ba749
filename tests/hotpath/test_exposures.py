"""Exposures through all of the application: the first is the assignment, what contradicts it is named."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from inprocess import running, told

Play = Callable[..., Any]


def rows(directory: Path) -> int:
    with sqlite3.connect(directory / "data" / "assay.db") as connection:
        number: int = connection.execute("SELECT count(*) FROM assignments").fetchone()[0]
    connection.close()
    return number


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
