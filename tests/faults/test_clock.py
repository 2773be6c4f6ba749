"""The wall clock of the server steps back by an hour: nothing fails, and nobody changes variant or time."""

import asyncio
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.settings import Settings
from assay.wiring import Application, microseconds, utc_now
from inprocess import KEY, running, told

HOUR = 3_600_000_000


class Clock:
    """A clock `shift` microseconds off, in place of the module `time` and of the class `datetime`."""

    def __init__(self) -> None:
        self.shift = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.shift * 1000

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(microseconds=self.shift)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What every application that runs meanwhile takes for the time."""
    clock = Clock()
    monkeypatch.setattr(sys.modules[microseconds.__module__], "time", clock)
    monkeypatch.setattr(sys.modules[utc_now.__module__], "datetime", clock)
    return clock


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Day:
    """Users and events of a journey before and after the step."""

    def __init__(self, client: httpx2.AsyncClient, experiment: int) -> None:
        self.client = client
        self.experiment = experiment
        self.assigned: dict[str, Any] = {}
        self.events: list[str] = []

    async def assign(self, user: str) -> Any:
        path = f"/api/v1/experiments/{self.experiment}/assignment/{user}"
        answer = await told(self.client, "GET", path)
        assert answer["assigned"]
        assert self.assigned.setdefault(user, answer) == answer
        return answer

    async def record(self, user: str, event_id: str | None = None) -> Any:
        body = {"user_id": user, "type": "buy", "value": 1, **({"event_id": event_id} if event_id else {})}
        answer = await told(self.client, "POST", "/api/v1/events", json=body)
        if answer["status"] == "accepted":
            self.events.append(answer["event_id"])
        return answer


async def stored(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """All events, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await told(client, "GET", f"/api/v1/events?limit=7{cursor}")
        found += page["events"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def results(client: httpx2.AsyncClient, experiment: int) -> tuple[int, int, list[int]]:
    """Users, events that count, and the events of the ledger that came before the assignment or late."""
    seen = await told(client, "GET", f"/api/v1/experiments/{experiment}/results?event_type=buy")
    ledger = await told(client, "GET", f"/api/v1/experiments/{experiment}/events/ledger")
    totals = ledger["totals"]
    for name, count in totals.items():
        assert count >= 0, name
    assert totals["accepted"] == totals["counted"] + totals["before_assignment"] + totals["late"]
    variants = seen["variants"]
    return (
        sum(each["assigned_count"] for each in variants),
        sum(each["event_count"] for each in variants),
        [totals["before_assignment"], totals["late"]],
    )


def play(data: Path, journey: Any) -> Any:
    """Run a journey against an application on a directory, from its start to its end."""

    async def whole() -> Any:
        application = Application(Settings(data_dir=str(data), api_token=KEY))
        await application.startup()
        try:
            async with httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=application),
                base_url="http://assay",
                headers={"Authorization": f"Bearer {KEY}"},
            ) as client:
                return await journey(client)
        finally:
            await application.shutdown()

    return asyncio.run(whole())


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_clock_steps_back_an_hour__all_is_as_it_was(tmp_path: Path, clock: Clock, *, restart: bool) -> None:
    users = [f"u{i}" for i in range(20)]

    async def before(client: httpx2.AsyncClient) -> Day:
        made = await running(client)
        day = Day(client, made["id"])
        for user in users:
            await day.assign(user)
            await day.record(user, f"first-{user}")
            await day.record(user)
        return day

    async def after(client: httpx2.AsyncClient, day: Day) -> None:
        day.client = client
        for user in users:
            await day.assign(user)  # the same variant, and the same time, which lies ahead now
            assert (await day.record(user, f"first-{user}"))["status"] == "duplicate"
            assert (await day.record(user, f"second-{user}"))["status"] == "accepted"
            await day.record(user)
        for user in (f"n{i}" for i in range(20)):
            new = await day.assign(user)
            assert when(new["assigned_at"]) < when(day.assigned["u0"]["assigned_at"]) - timedelta(minutes=59)
            await day.record(user, f"third-{user}")
        assert (await client.get("/ready")).status_code == 200
        found = await stored(client)
        ids = [each["event_id"] for each in found]
        assert len(set(ids)) == len(ids)
        assert sorted(ids) == sorted(day.events)
        times = [when(each["timestamp"]) for each in found]
        assert times == sorted(times, reverse=True)
        # Of the 20 users of before, 40 events came before the step and 40 after it, dated before their users'
        # assignments: those are named in the ledger, as events always are that happened too early.
        assert await results(client, day.experiment) == (40, 60, [40, 0])
        for path in ("report", "timeseries?metric=buy&by=hour", "stats", "results"):
            answer = await client.get(f"/api/v1/experiments/{day.experiment}/{path}")
            assert answer.status_code == 200, answer.text
        shown = (await client.get(f"/api/v1/experiments/{day.experiment}/results")).json()
        assert shown["experiment_days_running"] >= 0
        metrics = (await client.get("/metrics")).text
        values = [
            float(line.rpartition(" ")[2])
            for line in metrics.splitlines()
            if line.startswith("assay_") and not line.startswith("#")
        ]
        assert min(values) >= 0, metrics
        clock.shift = 0
        for user in (*users, "n0"):
            await day.assign(user)
            assert (await day.record(user, f"first-{user}"))["status"] in {"duplicate", "accepted"}

    async def whole(client: httpx2.AsyncClient) -> None:
        day = await before(client)
        clock.shift = -HOUR
        await after(client, day)

    if not restart:
        play(tmp_path / "data", whole)
        return
    day = play(tmp_path / "data", before)
    clock.shift = -HOUR
    play(tmp_path / "data", lambda client: after(client, day))
