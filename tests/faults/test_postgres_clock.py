"""The clock of one machine steps back by an hour: nothing fails, nobody changes variant, leases go on."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from assay.settings import Settings
from assay.wiring import Application
from faults.test_clock import HOUR, Clock, Day, clock, results, stored, when
from inprocess import KEY, running
from live import until

__all__ = ["clock"]


def test_clock_steps_back_an_hour__all_is_as_it_was(
    postgres_url: str,
    tmp_path: Path,
    clock: Clock,
) -> None:
    users = [f"u{number}" for number in range(10)]

    async def whole(client: httpx2.AsyncClient, application: Application) -> None:
        day = Day(client, (await running(client))["id"])
        for user in users:
            await day.assign(user)
            assert (await day.record(user, f"first-{user}"))["status"] == "accepted"
        clock.shift = -HOUR
        for user in users:
            await day.assign(user)  # the same variant, and the same time, which lies ahead now
            assert (await day.record(user, f"first-{user}"))["status"] == "duplicate"
            assert (await day.record(user, f"second-{user}"))["status"] == "accepted"
        for number in range(10):
            new = await day.assign(f"n{number}")
            assert new["assigned_at"] < day.assigned["u0"]["assigned_at"]
            await day.record(f"n{number}", f"third-{number}")
        # Who goes by the true time tells the same as the database holds.
        clock.shift = 0
        found = await stored(client)
        assert sorted(each["event_id"] for each in found) == sorted(day.events)
        times = [when(each["timestamp"]) for each in found]
        assert times == sorted(times, reverse=True)
        clock.shift = -HOUR
        # Events of before the step's users are dated before their assignment: named, as always, not counted.
        assert await results(client, day.experiment) == (20, 20, [10, 0])
        # The lease goes by the database's clock, so scheduled work goes on, and so does everything else.
        await asyncio.to_thread(application._keep_house)
        await asyncio.to_thread(until, application.stores.leads, "it leads")
        assert (await client.get("/ready")).status_code == 200
        clock.shift = 0
        for user in (*users, "n0"):
            await day.assign(user)
            answer: Any = await day.record(user, f"first-{user}")
            assert answer["status"] in {"duplicate", "accepted"}

    async def play() -> None:
        settings = Settings(data_dir=str(tmp_path / "data"), api_token=KEY, database_url=postgres_url)
        application = Application(settings)
        await application.startup()
        try:
            async with httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=application),
                base_url="http://assay",
                headers={"Authorization": f"Bearer {KEY}"},
            ) as client:
                await whole(client, application)
        finally:
            await application.shutdown()

    asyncio.run(play())
    with psycopg.connect(postgres_url) as connection:
        counted = connection.execute(
            "SELECT (SELECT count(*) FROM assignments), (SELECT count(DISTINCT unit_id) FROM assignments)"
        ).fetchone()
    assert counted == (20, 20)
