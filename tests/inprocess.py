"""Small words for journeys through the application in process."""

from typing import Any

import httpx2

KEY = "a-key-from-the-environment"


async def running(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Create a running experiment with two equal variants, unless told otherwise."""
    body = {
        "name": "Test",
        "status": "running",
        "variants": [
            {"name": "control", "allocation": 0.5},
            {"name": "blue", "allocation": 0.5, "config": {"colour": "blue"}},
        ],
        **fields,
    }
    answer = await client.post("/api/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def told(client: httpx2.AsyncClient, method: str, path: str, **given: Any) -> Any:
    """Send a request that must succeed, and give back its document."""
    answer = await client.request(method, path, **given)
    assert answer.status_code in {200, 201, 202}, answer.text
    return answer.json()
