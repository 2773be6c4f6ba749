"""Request ids, metrics and readiness, as whoever runs the server sees them."""

from collections.abc import Callable
from typing import Any

import httpx2

from inprocess import running, told

Play = Callable[..., Any]


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
