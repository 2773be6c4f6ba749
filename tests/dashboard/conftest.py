"""The dashboard on real stores, asked in process."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from assay.catalog import experiments, keys
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.inputs import ExperimentCreate
from assay.control import build, snapshots
from assay.published import Role
from assay.settings import load
from assay.stores.base import utc_now
from assay.stores.commands import perform
from assay.stores.embedded import EmbeddedStores
from assay.telemetry import Telemetry

ORIGIN = "http://assay.test"


@dataclass
class House:
    """Pages and API over open stores, a key for each role, and the cookies of whoever is signed in."""

    app: Any
    stores: EmbeddedStores
    secrets: Mapping[str, str]
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """One request with the cookies so far; new ones are kept."""

        async def request() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app)
            async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                sent = {"accept": "text/html", **(headers or {})}
                if self.cookies:
                    sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
                body = None if form is None else urlencode(form).encode()
                return await client.request(method, path, headers=sent, content=body)

        answer = asyncio.run(request())
        self.cookies.update(answer.cookies)
        return answer

    def sign_in(self, role: str = "admin") -> None:
        """Through the door with the key of this role."""
        self.cookies.clear()
        token = self.token("/ui/sign-in")
        answer = self.ask("POST", "/ui/sign-in", {"csrf": token, "key": self.secrets[role]})
        assert answer.status_code == 303, answer.text

    def token(self, path: str) -> str:
        """The token of the first form on a page."""
        return self.ask("GET", path).text.partition('name="csrf" value="')[2].partition('"')[0]

    def filled(self, folder: Path, key: str, metrics: int, users: int = 400) -> None:
        """A running experiment of ten days with so many metrics, and users who did something for each."""
        begun = utc_now() - timedelta(days=10)
        definition = {
            "key": key,
            "name": key,
            "status": "running",
            "variants": [{"name": "control", "allocation": 0.5}, {"name": "treatment", "allocation": 0.5}],
            "metrics": [f"event {number}" for number in range(metrics)],
            "target_sample_size": users,
        }
        with self.stores.database.writing(Actor("test"), begun) as tx:
            experiments.create(tx, parse(ExperimentCreate, definition))
        who, what = folder / "who.csv", folder / "what.csv"
        arms = ("control", "treatment")
        at = [begun + timedelta(minutes=30 * number) for number in range(users)]
        rows = [f"u{n},{arms[n % 2]},{at[n].isoformat()}" for n in range(users)]
        who.write_text("user_id,variant,assigned_at\n" + "\n".join(rows) + "\n")
        done = [
            f"u{n},event {m},{(at[n] + timedelta(minutes=5)).isoformat()}"
            for n in range(users)
            for m in range(metrics)
            if (n // 2 * 7 + m + n % 2) % 5 < 2
        ]
        what.write_text("user_id,type,timestamp\n" + "\n".join(done) + "\n")
        for kind, path in (("assignments", who), ("events", what)):
            request = {"kind": kind, "path": str(path), "experiment": key}
            perform(self.stores, {"do": "import", "request": request}, lambda _said: None)


@pytest.fixture
def house_with(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Builds a house; keyword arguments are settings."""
    opened: list[EmbeddedStores] = []

    def make(**given: str) -> House:
        settings = load({"DATA_DIR": str(tmp_path / "data"), **given})
        stores = EmbeddedStores(settings)
        stores.open()
        opened.append(stores)
        secrets = {}
        with stores.database.writing(Actor("test"), utc_now()) as tx:
            for role in Role:
                secrets[role.value] = keys.create(tx, keys.KeyInput(name=f"{role} key", role=role))[1]
        kept = snapshots(settings, stores, Telemetry())
        app = build(settings, stores, [], keys.KeyUse(), lambda: False, kept)
        return House(app, stores, secrets)

    yield make
    for stores in opened:
        stores.close()


@pytest.fixture
def house(house_with: Callable[..., House]) -> House:
    """A house as it is usually built."""
    return house_with()
