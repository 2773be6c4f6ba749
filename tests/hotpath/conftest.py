"""The whole application on real files, reached both ways: as ASGI in process, and as `assay serve` is."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvloop

from assay.settings import Settings
from assay.wiring import Application
from hotpath.served import served
from inprocess import KEY

Journey = Callable[[httpx2.AsyncClient], Awaitable[Any]]


@pytest.fixture(params=["asgi", "protocol"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Run a journey against an application on this test's directory; settings may be given."""

    async def by_asgi(journey: Journey, settings: dict[str, Any]) -> Any:
        given = {"data_dir": str(tmp_path / "data"), "api_token": KEY, **settings}
        application = Application(Settings(**given))
        await application.startup()
        try:
            transport = httpx2.ASGITransport(app=application)
            headers = {"Authorization": f"Bearer {KEY}"} if given["api_token"] else {}
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://assay", headers=headers
            ) as client:
                return await journey(client)
        finally:
            await application.shutdown()

    async def by_protocol(journey: Journey, settings: dict[str, Any]) -> Any:
        async with served(tmp_path, **settings) as server:
            headers = {"Authorization": f"Bearer {KEY}"} if settings.get("api_token", KEY) else {}
            async with httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=60
            ) as client:
                return await journey(client)

    def run(journey: Journey, **settings: Any) -> Any:
        way = by_asgi if request.param == "asgi" else by_protocol
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(way(journey, settings))

    return run
