"""A ramp on a running server: steps in time, nobody moves, and a halt that somebody ends."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import uvloop

from hotpath.served import served
from inprocess import KEY, running, told

PATIENCE = 60.0


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def once(client: httpx2.AsyncClient, status: str) -> dict[str, Any]:
    """The experiment once its ramp has this status."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        document: dict[str, Any] = await told(client, "GET", "/api/v1/experiments/ramped")
        if document["ramp_state"]["status"] == status:
            return document
        await asyncio.sleep(0.05)
    raise AssertionError(f"the ramp never was {status}: {document['ramp_state']}")


def test_a_ramp_opens_in_time_and_halts_on_a_mismatch(tmp_path: Path) -> None:
    async def variants(client: httpx2.AsyncClient) -> dict[str, str]:
        asked = {"user_ids": [f"u{number}" for number in range(1000)], "experiments": ["ramped"]}
        found = (await told(client, "POST", "/api/v1/assignments", json=asked))["assignments"]
        return {each["user_id"]: each["variant_key"] for each in found if each["assigned"]}

    async def journey(client: httpx2.AsyncClient) -> None:
        steps = [{"traffic_allocation": 0.5, "at": soon(5)}, {"traffic_allocation": 1, "after": "0m"}]
        await running(client, key="ramped", traffic_allocation=0.05, ramp=steps[:1])
        before = await variants(client)
        opened = await once(client, "finished")
        late = datetime.fromisoformat((await phases(client))[1]) - datetime.fromisoformat(steps[0]["at"])
        assert timedelta(0) <= late <= timedelta(seconds=5)
        assert opened["traffic_allocation"] == 0.5
        after = await variants(client)
        assert 20 <= len(before) <= 90
        assert 400 <= len(after) <= 600
        assert before.items() <= after.items()

        skewed = [
            {"user_id": f"skewed-{number}", "experiment": "ramped", "variant": "control"}
            for number in range(400)
        ]
        await told(client, "POST", "/api/v1/exposures", json=skewed)
        await told(client, "PATCH", "/api/v1/experiments/ramped", json={"ramp": steps[1:]})
        halted = await once(client, "halted")
        assert halted["traffic_allocation"] == 0.5
        assert "do not hold the shares" in halted["ramp_state"]["reason"]
        await told(client, "POST", "/api/v1/experiments/ramped/ramp/resume", json={"ignore_health": True})
        assert (await once(client, "finished"))["traffic_allocation"] == 1.0

    async def phases(client: httpx2.AsyncClient) -> list[str]:
        found = await told(client, "GET", "/api/v1/experiments/ramped/phases")
        return [each["started_at"] for each in found["phases"]]

    async def serve() -> None:
        async with (
            served(tmp_path) as server,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{server.port}",
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=60,
            ) as client,
        ):
            await journey(client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
