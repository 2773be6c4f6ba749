"""A small installation with something of everything, made through the application, and what it answers."""

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import httpx2

from assay.settings import load
from assay.stores.commands import perform
from assay.wiring import Application
from inprocess import KEY, running, told

HALVES = [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5, "config": {"ö": "🎉"}}]
METRICS: list[Any] = [
    {"name": "buys", "type": "conversion", "event_type": "buy"},
    {"name": "money", "type": "revenue", "event_type": "buy"},
    {"name": "weight", "type": "mean", "event_type": "buy", "property": "kg"},
]
USERS = [*(f"u{number}" for number in range(60)), "Ünal 🙂", "a/b?c d", "tab\tnew\nline\\N\n\\.\n", '"q\\']
EMPTY_ID = str(uuid.UUID(int=0))


async def ask(
    settings: dict[str, str], journey: Callable[[httpx2.AsyncClient, Application], Awaitable[Any]]
) -> Any:
    """Run a journey through the application with these settings."""
    application = Application(load({}, env_file=Path("/nonexistent"), **settings, api_token=KEY))
    await application.startup()
    try:
        transport = httpx2.ASGITransport(app=application)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://assay", headers=headers
        ) as client:
            return await journey(client, application)
    finally:
        await application.shutdown()


def journey(
    settings: dict[str, str], told: Callable[[httpx2.AsyncClient, Application], Awaitable[Any]]
) -> Any:
    """`ask`, from a test that has no event loop."""
    return asyncio.run(ask(settings, told))


def fill(data: Path) -> dict[str, Any]:
    """Make the installation; secrets and ids that tests need."""

    async def filling(client: httpx2.AsyncClient, application: Application) -> dict[str, Any]:
        made = await _experiments(client)
        await _people(client, made)
        await _first_traffic(client, made)
        await _changes(client, made)
        await _events(client, made)
        await asyncio.to_thread(_imports, application, data, made)
        await _ends(client, made)
        made["keys"] = {
            role: (
                await told(client, "POST", "/api/v1/auth/keys", json={"name": f"the {role}", "role": role})
            )
            for role in ("admin", "viewer", "client")
        }
        gone = await told(client, "POST", "/api/v1/auth/keys", json={"name": "gone", "role": "editor"})
        await client.delete(f"/api/v1/auth/keys/{gone['id']}")
        made["held"] = {user: await held(client, user) for user in USERS}
        return made

    found: dict[str, Any] = journey({"data_dir": str(data)}, filling)
    return found


async def _experiments(client: httpx2.AsyncClient) -> dict[str, Any]:
    segment = await told(
        client,
        "POST",
        "/api/v1/segments",
        json={"name": "Friends 🫶", "description": "by list", "rules": {"country": "DÉ"}},
    )
    members = {"user_ids": ["u1", "u2", "Ünal 🙂"]}
    await told(client, "POST", f"/api/v1/segments/{segment['id']}/users", json=members)
    ids = {
        "main": (await running(client, name="Main", key="main", variants=HALVES, metrics=METRICS))["id"],
        "device": (
            await running(
                client, name="Device", key="device", unit="device_id", variants=HALVES, metrics=METRICS
            )
        )["id"],
        "part": (
            await running(
                client, name="Part", key="part", traffic_allocation=0.5, metrics=METRICS, tags=["ä", "b"]
            )
        )["id"],
    }
    for state in ("paused", "stopped", "archived", "winner"):
        ids[state] = (await running(client, name=state, key=state, metrics=METRICS))["id"]
    draft = {"name": "Draft", "key": "draft", "description": "x\ny\t\\z", "segments": [segment["id"]]}
    ids["draft"] = (await told(client, "POST", "/api/v1/experiments", json={**draft, "variants": HALVES}))[
        "id"
    ]
    purged = await running(client, name="Purged", key="purged")
    await client.get(f"/api/v1/experiments/{purged['id']}/assignment/u1")
    await client.delete(f"/api/v1/experiments/{purged['id']}", params={"purge": "true"})
    return {"ids": ids, "segment": segment["id"], "purged": purged["id"]}


async def _people(client: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    for number, user in enumerate(USERS):
        attributes = {
            "id": user,
            "country": "DÉ",
            "n": number,
            "deep": {"z": [1, None, 0.1], "a": "😀 \\u0000"},
        }
        await told(client, "POST", "/api/v1/users", json=attributes)
    await told(client, "PUT", "/api/v1/users/u3", json={"country": "FR", "big": 12345678901234567})
    await client.delete("/api/v1/users/u59")


async def _first_traffic(client: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    for name, number in made["ids"].items():
        if name != "draft":
            await told(client, "POST", "/api/v1/assignments", json=_bulk(USERS[::2], number))


def _bulk(users: list[str], experiment: int) -> dict[str, Any]:
    units = [{"user_id": user, "units": {"device_id": user}} for user in users]
    return {"units": units, "experiments": [experiment]}


async def _changes(client: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    main = f"/api/v1/experiments/{made['ids']['main']}"
    await told(client, "POST", f"{main}/variants", json={"name": "green", "allocation": 0.0})
    await client.request("PATCH", f"{main}/variants/blue", json={"allocation": 0.3})
    await client.request("PATCH", f"{main}/variants/green", json={"allocation": 0.2})
    await told(client, "POST", "/api/v1/assignments", json=_bulk(USERS, made["ids"]["main"]))
    await client.delete(f"{main}/variants/green")
    await told(client, "PUT", f"{main}/overrides/u5", json={"variant": "blue"})


async def _events(client: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    ids = made["ids"]
    now = datetime.now(UTC)
    events: list[dict[str, Any]] = []
    for number, user in enumerate(USERS):
        properties = {"kg": number / 7, "text": 'say "hi"\\ \n🙂\u0000' if number % 5 else "plain", "n": None}
        events.append({"user_id": user, "type": "buy", "value": number * 1.1, "properties": properties})
        events.append(
            {"user_id": user, "type": "sée\tit", "units": {"device_id": user}, "timestamp": now.isoformat()}
        )
        own = {"user_id": user, "type": "buy", "event_id": f"order {number}", "experiment_id": ids["part"]}
        events += [own, own] if number % 7 == 0 else [own]
    events += [
        {
            "user_id": "u1",
            "type": "buy",
            # The whole second counts, and none of it lies ahead of the time at which everything is asked.
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        {"user_id": "u1", "type": "old", "timestamp": "2020-01-02"},
        {"user_id": "u1", "type": "buy", "event_id": EMPTY_ID, "value": 0.1},
        {"user_id": "u2", "type": "buy", "event_id": EMPTY_ID.upper(), "value": 5e-324},
        {"user_id": "nobody", "type": "buy", "experiment_id": ids["main"], "value": 1e99},
        {"user_id": "u1\0", "type": "buy", "experiment_id": ids["main"]},
        {"type": "buy"},
        {"user_id": "u4", "type": "buy", "experiment_id": 424242},
    ]
    answer = await client.post("/api/v1/events", json=events)
    assert answer.status_code in {200, 202, 207, 422}, answer.text
    again = await client.post(
        "/api/v1/events", json=[{"user_id": "u0", "type": "buy", "event_id": "order 0"}]
    )
    assert again.status_code < 500


def _imports(application: Application, data: Path, made: dict[str, Any]) -> None:
    files = {
        "events": "user_id,type,timestamp,value,event_id\n"
        + "".join(f"u{number},buy,2026-01-02 03:04:05.{number},3.5,i{number}\n" for number in range(20)),
        "assignments": "user_id,variant,assigned_at,experiment\nimported,blue,2026-01-01,main\n",
    }
    for kind, text in files.items():
        path = data / f"{kind}.csv"
        path.write_text(text)
        perform(
            application.stores,
            {"do": "import", "request": {"kind": kind, "path": str(path)}},
            lambda _message: None,
        )
    made["file"] = str(data / "events.csv")


async def _ends(client: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    ids = made["ids"]
    await told(client, "POST", f"/api/v1/experiments/{ids['paused']}/pause")
    for name in ("stopped", "archived"):
        await told(client, "POST", f"/api/v1/experiments/{ids[name]}/stop")
    await told(client, "POST", f"/api/v1/experiments/{ids['archived']}/archive")
    await told(client, "POST", f"/api/v1/experiments/{ids['winner']}/stop", json={"winner": "blue"})
    await told(client, "POST", "/api/v1/events", json=[{"user_id": "u0", "type": "buy"}])  # late, for some


async def held(client: httpx2.AsyncClient, user: str) -> tuple[Any, ...]:
    """What the user is given in the experiment `main`, and since when."""
    answer = await told(client, "POST", "/api/v1/experiments/main/assign", json={"user_id": user})
    return answer["variant_id"], answer["assigned_at"], answer.get("reason")


#: What says when an answer was made, not what it is about.
_MADE = {
    *("computed_at", "last_used_at", "days", "end", "until", "progress", "outlook"),
    *("days_without", "expected_since"),
}


def _lasting(document: Any) -> Any:
    """An answer without what depends on when it was asked for; numbers without their last digits."""
    if isinstance(document, dict):
        return {name: _lasting(value) for name, value in document.items() if name not in _MADE}
    if isinstance(document, list):
        return [_lasting(each) for each in document]
    return float(f"{document:.9g}") if isinstance(document, float) else document


def answers(settings: dict[str, str], made: dict[str, Any]) -> dict[str, Any]:
    """What the application says of everything, by path."""
    paths = ["experiments", "users", "segments", "audit", "auth/keys", "events"]
    for number in made["ids"].values():
        about = f"experiments/{number}"
        paths += [about, *(f"{about}/{what}" for what in _ABOUT)]
    paths += [f"segments/{made['segment']}", f"segments/{made['segment']}/users", "users/u3", "users/Ünal 🙂"]

    async def asking(client: httpx2.AsyncClient, _application: Application) -> dict[str, Any]:
        found = {}
        for path in paths:
            answer = await client.get(f"/api/v1/{path}", params={"limit": "200"} if "/" not in path else None)
            body = answer.json() if "json" in answer.headers["content-type"] else answer.text
            found[path] = [answer.status_code, _lasting(body)]
        return found

    found: dict[str, Any] = journey(settings, asking)
    return found


_ABOUT = (
    *("report", "results", "stats", "timeseries", "events/ledger", "variants", "history", "phases"),
    *("overrides", "assignments", "results?group_by=day", "report?metrics=buy,money"),
)


_MANY_RECORDS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO assignments (seq, experiment_id, unit_id, variant_id, phase, assigned_at)
SELECT :last + i, 1, 'many-' || i, :variant + i % 2, 1 + i % 3, 1780000000000000 + i FROM n
"""
_MANY_ASSIGNMENTS = """
INSERT INTO assignments
SELECT $last + i, 1, 'many-' || i, $variant + i % 2, 1 + i % 3, make_timestamp(1780000000000000 + i)
FROM range(1, $count + 1) AS r (i)
"""
_MANY_EVENTS = """
INSERT INTO events
SELECT
  $last + i, id, CASE WHEN i % 3 = 0 THEN 'order-' || i END, i % 3 = 0,
  CASE WHEN i % 3 = 0 THEN md5_number_lower(unit || chr(31) || CAST(id AS VARCHAR)) END, unit, NULL,
  CASE i % 4 WHEN 0 THEN 'buy' ELSE 'page_view' END, moment, moment, moment, i % 97 / 7, i % 97 / 7,
  '{"page":"/shop/' || i % 1000 || '","kg":' || i % 13 || '.5}', NULL, NULL
FROM (
  SELECT i, CAST(md5('event ' || i) AS UUID) AS id, 'many-' || (i * 7919 % $units + 1) AS unit,
    make_timestamp(1780100000000000 + i * 1000) AS moment
  FROM range(1, $count + 1) AS r (i)
)
"""


def swell(data: Path, *, assignments: int, events: int) -> None:
    """Put many more rows into a directory, as if they had come through the door long ago."""
    with duckdb.connect(str(data / "events.duckdb")) as store, sqlite3.connect(data / "assay.db") as catalog:
        [(last_event, last)] = store.execute("SELECT events, assignments FROM position").fetchall()
        [variant] = catalog.execute("SELECT min(id) FROM variants WHERE experiment_id = 1").fetchone()
        records = {"last": last, "variant": variant, "count": assignments}
        catalog.execute(_MANY_RECORDS, records)
        given = ((last_event + events) // 65_536 + 2,)
        catalog.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'inbox'", given)
        store.execute(_MANY_ASSIGNMENTS, records)
        store.execute(_MANY_EVENTS, {"last": last_event, "units": assignments, "count": events})
        position = {"events": last_event + events, "assignments": last + assignments}
        store.execute("UPDATE position SET events = $events, assignments = $assignments", position)
        # What the store keeps of its events knows nothing of these; without it, it is made anew.
        store.execute("UPDATE rollups SET form = 0")
