"""Who may call the hot routes: roles, revoked keys, calls without a key, the key of the environment."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from inprocess import KEY, running, told

Play = Callable[..., Any]


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


def test_the_environments_key_is_an_admin(play: Play) -> None:
    async def journey(client: httpx2.AsyncClient) -> int:
        return (await client.get("/auth/keys", headers={"Authorization": f"bearer {KEY}"})).status_code

    assert play(journey) == 200
