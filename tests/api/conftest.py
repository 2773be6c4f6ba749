"""The control plane on real files, asked in process."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.api import Parts, create_api
from assay.api.parts import moment
from assay.assignments.sqlite import SqliteAssignments
from assay.bucketing.ruleset import Ruleset
from assay.catalog import keys, schema
from assay.catalog.database import Actor, Database, sqlite_url
from assay.catalog.publish import Publisher
from assay.durable.writer import SqliteWriter
from assay.eventstore.duckdb import DuckdbStore
from assay.published import KeyRing, Published, Role
from assay.reports.snapshots import Snapshots

START = 1_795_000_000_000_000  # 2026-11-18, in microseconds


@dataclass
class Clock:
    """A clock that moves a second with each look, so that no two moments are the same."""

    now: int = START

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


@dataclass
class House:
    """A control plane with everything beneath it, and one key for each role."""

    parts: Parts
    path: Path
    secrets: Mapping[str, str]
    clock: Clock
    flushes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app: Any = create_api(self.parts)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        """One request; `role` says whose key it carries."""
        sent = {} if role is None else {"Authorization": f"Bearer {self.secrets[role]}"}
        sent |= headers or {}

        async def request() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
                if content is not None:
                    return await client.request(method, path, headers=sent, content=content)
                return await client.request(method, path, headers=sent, json=body)

        return asyncio.run(request())

    def at_once(
        self, count: int, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> list[int]:
        """The same request many times at the same time; the statuses of the answers."""
        sent = {"Authorization": f"Bearer {self.secrets['admin']}", **(headers or {})}

        async def requests() -> list[int]:
            transport = httpx2.ASGITransport(app=self.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://assay", timeout=60) as client:
                calls = [client.request(method, path, headers=sent, json=body) for _ in range(count)]
                return [response.status_code for response in await asyncio.gather(*calls)]

        return asyncio.run(requests())

    def made(self, body: Any, prefix: str = "/api/v1") -> dict[str, Any]:
        """A new experiment."""
        response = self.ask("POST", f"{prefix}/experiments", body)
        assert response.status_code == 201, response.text
        document: dict[str, Any] = response.json()
        return document

    def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            tables = [
                name
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                if not name.startswith("sqlite_")
            ]
            return {
                table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables
            }


@pytest.fixture
def house_with(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Builds a house; keyword arguments are those of `Parts`, and who hears of each report."""
    with contextlib.ExitStack() as stack:

        def build(**settings: Any) -> House:
            path = tmp_path / "assay.db"
            schema.migrate(sqlite_url(path))
            writer = SqliteWriter(path)
            assignments = SqliteAssignments(writer, path, 1000)
            stack.callback(assignments.close)
            writer.start()
            stack.callback(writer.close)
            published = Published(Ruleset(), KeyRing([]))
            publisher = Publisher(published, keys.environment_keys(["from-the-environment"]))
            database = Database(sqlite_url(path), turn=writer.turn, publish=publisher.publish)
            stack.callback(database.close)
            store = DuckdbStore(tmp_path / "events.duckdb")
            stack.callback(store.close)
            clock = Clock()
            secrets = {"environment": "from-the-environment"}
            with database.writing(Actor("test"), moment(clock())) as tx:
                for role in Role:
                    secrets[role.value] = keys.create(tx, keys.KeyInput(name=f"{role} key", role=role))[1]
            flushes: list[int] = []

            async def flush() -> None:
                flushes.append(clock.now)

            analysed = settings.pop("analysed", lambda _report, _seconds: None)
            parts = Parts(
                database=database,
                published=published,
                store=store,
                snapshots=Snapshots(database, store, lambda: None, analysed=analysed),
                assignments=assignments,
                flush=flush,
                paused=nullcontext,
                forget=lambda _user_id: None,
                clock=clock,
                key_use=keys.KeyUse(),
                **settings,
            )
            return House(parts, path, secrets, clock, flushes)

        yield build


@pytest.fixture
def house(house_with: Callable[..., House]) -> House:
    """A house as it is usually built."""
    return house_with()
