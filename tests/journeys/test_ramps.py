"""A ramp on a running server: steps in time, nobody moves, and a halt that somebody ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from live import Server, until

STEP = 0.5


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def told(client: httpx2.Client, method: str, path: str, **body: Any) -> dict[str, Any]:
    answer = client.request(method, f"/api/v1{path}", **body)
    assert answer.status_code < 300, answer.text
    found: dict[str, Any] = answer.json()
    return found


def once(client: httpx2.Client, status: str) -> dict[str, Any]:
    """The experiment once its ramp has this status."""

    def look() -> dict[str, Any] | None:
        document = told(client, "GET", "/experiments/ramped")
        return document if document["ramp_state"]["status"] == status else None

    return until(look, f"the ramp is {status}")


def variants(client: httpx2.Client) -> dict[str, str]:
    asked = {"user_ids": [f"u{number}" for number in range(1000)], "experiments": ["ramped"]}
    found = told(client, "POST", "/assignments", json=asked)["assignments"]
    return {each["user_id"]: each["variant_key"] for each in found if each["assigned"]}


def test_a_ramp_opens_in_time_and_halts_on_a_mismatch(server: Server) -> None:
    with server.client() as client:
        halves = [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}]
        body = {"key": "ramped", "name": "Ramped", "status": "running", "variants": halves}
        told(client, "POST", "/experiments", json={**body, "traffic_allocation": 0.05})
        before = variants(client)
        planned = soon(2)
        step = {"traffic_allocation": STEP, "at": planned}
        told(client, "PATCH", "/experiments/ramped", json={"ramp": [step]})
        opened = once(client, "finished")
        phases = told(client, "GET", "/experiments/ramped/phases")["phases"]
        # Never before its time. The schedule is looked at every half second; how long a look takes, so how
        # much later it may be, is for the machine to say.
        assert datetime.fromisoformat(phases[1]["started_at"]) >= datetime.fromisoformat(planned)
        assert phases[0]["ended_at"] == phases[1]["started_at"]
        assert [each["traffic_allocation"] for each in phases] == [0.05, STEP]
        assert opened["traffic_allocation"] == STEP
        after = variants(client)
        assert 20 <= len(before) <= 90
        assert 400 <= len(after) <= 600
        assert before.items() <= after.items()

        skewed = [
            {"user_id": f"skewed-{number}", "experiment": "ramped", "variant": "control"}
            for number in range(400)
        ]
        told(client, "POST", "/exposures", json=skewed)
        told(
            client, "PATCH", "/experiments/ramped", json={"ramp": [{"traffic_allocation": 1, "after": "0m"}]}
        )
        halted = once(client, "halted")
        assert halted["traffic_allocation"] == STEP
        assert "do not hold the shares" in halted["ramp_state"]["reason"]
        told(client, "POST", "/experiments/ramped/ramp/resume", json={"ignore_health": True})
        assert once(client, "finished")["traffic_allocation"] == 1.0
