"""Reports are kept, and yet hold what was acknowledged; past ones are made by themselves."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from live import Server, until
from postgresql import Postgres

EVERY = 1.0
#: Seconds between two reports that are made by themselves.
SETTINGS = {"REPORT_REFRESH": f"{EVERY:g}", "REPORT_HISTORY": "1", "ADMIN_TOKEN": "the-admin-key"}


@pytest.fixture(scope="module", params=["embedded", "two workers"])
def many(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("kept")
    if request.param == "embedded":
        with Server(folder / "data", SETTINGS) as server:
            yield server
        return
    with postgres.database() as url:
        settings = {**SETTINGS, "DATABASE_URL": url, "ASSAY_WORKERS": "2"}
        with Server(folder / "data", settings) as server:
            yield server


def ask(server: Server, method: str, path: str, **given: Any) -> httpx2.Response:
    """One request on a connection of its own, which any of the workers may take."""
    with server.client() as client:
        answer = client.request(method, f"/api/v1{path}", **given)
    assert answer.status_code in {200, 201, 202}, answer.text
    return answer


def running(server: Server, key: str, **fields: Any) -> None:
    halves = [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}]
    body = {"name": key, "key": key, "status": "running", "variants": halves, "metrics": ["buy"], **fields}
    ask(server, "POST", "/experiments", json=body)


def bought(server: Server, key: str, user: str) -> None:
    ask(server, "GET", f"/experiments/{key}/assignment/{user}")
    ask(server, "POST", "/events", json={"user_id": user, "type": "buy"})


def converters(document: dict[str, Any]) -> int:
    return sum(arm["converters"] for arm in document["metrics"][0]["variants"])


def counted(server: Server) -> dict[str, float]:
    """What all workers have counted of reports."""
    text = httpx2.get(f"{server.url}/metrics").text
    return {
        name: float(value)
        for name, value in re.findall(r"^assay_(?:report|scheduled)_(\w+)_total ([\d.]+)", text, re.MULTILINE)
    }


def test_what_is_acknowledged__every_reader_sees(many: Server) -> None:
    running(many, "seen")
    for number in range(1, 5):
        bought(many, "seen", f"u{number}")
        for _ in range(2):
            assert converters(ask(many, "GET", "/experiments/seen/report").json()) == number
    bought(many, "seen", "u5")
    older = ask(many, "GET", "/experiments/seen/report?max_age=3600").json()
    assert converters(older) in {1, 2, 3, 4, 5}  # the newest of whichever worker was asked
    removed = ask(many, "DELETE", "/users/u1?erase=true").json()["removed"]
    assert removed["events"] == 1
    for _ in range(4):
        assert converters(ask(many, "GET", "/experiments/seen/report?max_age=3600").json()) == 4


def test_readers_at_once__share_a_computation_a_worker(many: Server) -> None:
    running(many, "shared")
    bought(many, "shared", "one")

    async def read() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=64)
        async with httpx2.AsyncClient(base_url=many.url, timeout=60, limits=limits) as client:
            headers = {"Authorization": f"Bearer {many.key}"}
            asked = [client.get("/api/v1/experiments/shared/results", headers=headers) for _ in range(64)]
            return list(await asyncio.gather(*asked))

    answers = asyncio.run(read())
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) <= int(many.settings.get("ASSAY_WORKERS", "1"))
    assert {int(each.headers["age"]) for each in answers} <= set(range(60))


def test_reports__are_made_by_themselves_by_one_process(many: Server) -> None:
    running(many, "itself", analysis={"method": "always_valid"})
    bought(many, "itself", "somebody")

    def history() -> list[datetime] | None:
        found = ask(many, "GET", "/experiments/itself/report/history").json()["snapshots"]
        times = [datetime.fromisoformat(each["computed_at"]) for each in found if each["why"] == "schedule"]
        return times if len(times) > 2 else None

    times = until(history, "three reports are kept", 60)
    assert all((later - earlier).total_seconds() >= EVERY / 2 for later, earlier in itertools.pairwise(times))
    planned = datetime.now(UTC) + timedelta(seconds=2)
    running(many, "planned", status="draft", start_at=planned.isoformat())
    started = until(
        lambda: ask(many, "GET", "/experiments/planned").json()["started_at"], "it starts as planned"
    )
    assert (datetime.fromisoformat(started) - planned).total_seconds() < 60
    assert ask(many, "POST", "/experiments/itself/looks").json()["number"] == 1
    assert until(lambda: counted(many).get("reports", 0.0) > 2, "the counters are told")
    assert counted(many)["misses"] > 0
