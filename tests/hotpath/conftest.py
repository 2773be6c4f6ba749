"""The whole application in process, on real files, and a client that speaks HTTP to it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.settings import Settings
from assay.wiring import Application
from inprocess import KEY

Journey = Callable[[httpx2.AsyncClient], Awaitable[Any]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Any]:
    """Run a journey against an application on this test's directory; settings may be given."""

    def run(journey: Journey, **settings: Any) -> Any:
        async def whole() -> Any:
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

        return asyncio.run(whole())

    return run
