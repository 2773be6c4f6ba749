"""PostgreSQL stopped or frozen for ten seconds: what is known is answered, the rest refused at once."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import psycopg
import pytest

from live import Server, until
from postgresql import Postgres

WORKERS = 2
AWAY = 10.0
#: Seconds until everybody knows that it is away: a statement is waited for that long, and a little more.
KNOWN = 7.0
#: Seconds that a statement is waited for: who does not wait for the database has an answer sooner.
STATEMENT = 5.0
USERS = [f"known-{number}" for number in range(8)]


class Seen(NamedTuple):
    """One answer: when it was asked for, in seconds of the outage, and how long it took."""

    kind: str
    at: float
    took: float
    answer: httpx2.Response
    sent: str = ""


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A PostgreSQL that this test may stop."""
    with Postgres() as running:
        yield running


def server_on(url: str, data: Path, **more: str) -> Server:
    settings = {"DATABASE_URL": url, "ASSAY_WORKERS": str(WORKERS), "ADMIN_TOKEN": "the-admin-key", **more}
    return Server(data, settings)


def running(client: httpx2.Client) -> int:
    body = {
        "name": "Away",
        "status": "running",
        "variants": [{"name": "a", "allocation": 0.5}, {"name": "b", "allocation": 0.5}],
    }
    made = client.post("/api/v1/experiments", json=body)
    assert made.status_code == 201, made.text
    number: int = made.json()["id"]
    return number


class Watcher:
    """Asks all kinds of questions over and over, each on a kept connection, while `outage` runs."""

    def __init__(self, server: Server, experiment: int) -> None:
        self.server = server
        self.path = f"/api/v1/experiments/{experiment}/assignment"
        self.control = ("/api/v1/experiments", "/api/v1/events", f"/api/v1/experiments/{experiment}/results")
        self.seen: list[Seen] = []
        self.known: dict[str, Any] = {}
        self.began = 0.0
        #: When it was away, in seconds since all this began.
        self.gone = 0.0
        self._ended = False
        self._serial = 0

    def _client(self) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.server.key}"}
        return httpx2.AsyncClient(base_url=self.server.url, headers=headers, timeout=90)

    async def _ask(self, client: httpx2.AsyncClient, kind: str) -> None:
        self._serial += 1
        name = f"{kind}-{self._serial}"
        began = time.monotonic()
        if kind == "known":
            name = USERS[self._serial % len(USERS)]
            answer = await client.get(f"{self.path}/{name}")
        elif kind == "new":
            answer = await client.get(f"{self.path}/{name}")
        elif kind == "event":
            body = {"user_id": "known-0", "type": "buy", "event_id": name}
            answer = await client.post("/api/v1/events", json=body)
        else:
            answer = await client.get(kind)
        self.seen.append(Seen(kind, began - self.began, time.monotonic() - began, answer, name))

    async def _keep_asking(self, client: httpx2.AsyncClient, kind: str) -> None:
        while not self._ended:
            await self._ask(client, kind)
            await asyncio.sleep(0.1)

    async def during(self, outage: Callable[[], Awaitable[None]]) -> None:
        """Let everybody know the users, then ask while the outage lasts."""
        async with contextual(self._client, 10) as clients:
            # Which worker has which connection is chance: each one is told of every user.
            for client in clients:
                for user in USERS:
                    answer = await client.get(f"{self.path}/{user}")
                    assert answer.status_code == 200, answer.text
                    assert self.known.setdefault(user, answer.content) == answer.content
            self.began = time.monotonic()
            kinds = ("known", "known", "known", "new", "new", "event", "event", "/health", "/ready")
            asking = [
                asyncio.create_task(self._keep_asking(client, kind))
                for client, kind in zip(clients, kinds, strict=False)
            ]
            # More questions for the control plane at once than it has threads.
            many = [
                asyncio.create_task(self._ask(clients[9], path)) for path in self.control for _ in range(20)
            ]
            await outage()
            self._ended = True
            await asyncio.gather(*asking, *many)

    def of(self, *kinds: str, after: float = 0.0, before: float = AWAY) -> list[Seen]:
        """Answers of these kinds, asked for so many seconds into the outage; those before it are in, too."""
        begun, ended = after and self.gone + after, self.gone + before
        return [each for each in self.seen if each.kind in kinds and begun <= each.at < ended]


class contextual:  # noqa: N801 - used as a function
    """So many clients, closed in the end."""

    def __init__(self, make: Callable[[], httpx2.AsyncClient], count: int) -> None:
        self._clients = [make() for _ in range(count)]

    async def __aenter__(self) -> list[httpx2.AsyncClient]:
        return self._clients

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()


def is_refusal(answer: httpx2.Response) -> bool:
    problem = answer.json()
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and int(answer.headers["retry-after"]) >= 1
        and bool(problem["detail"])
        and "Traceback" not in answer.text
    )


def ages(url: str, key: str) -> float:
    page = httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}, timeout=60).text
    found = re.search(r"^assay_ruleset_age_seconds (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_known_users_are_served_from_memory__the_rest_is_refused_at_once__it_recovers_by_itself(
    own: Postgres, how: str, tmp_path: Path
) -> None:
    with own.database() as url, server_on(url, tmp_path / "data") as server:
        with server.client() as client:
            experiment = running(client)
        watcher = Watcher(server, experiment)
        shown: list[float] = []

        async def outage() -> None:
            await asyncio.to_thread(own.stop if how == "stopped" else own.freeze)
            watcher.gone = time.monotonic() - watcher.began
            try:
                await asyncio.sleep(AWAY - 0.5)
                shown.append(await asyncio.to_thread(ages, server.url, server.key))
                await asyncio.sleep(0.5)
            finally:
                await asyncio.to_thread(own.start if how == "stopped" else own.thaw)

        asyncio.run(watcher.during(outage))

        # Nobody in memory notices, from the first moment to the last; and it says how old what it says is.
        for each in watcher.of("known"):
            assert each.answer.status_code == 200, (each.at, each.answer.text)
            assert each.answer.content == watcher.known[each.sent]
        assert max(each.took for each in watcher.of("known", "/health", "/ready")) < STATEMENT
        assert shown[0] > AWAY - 4
        # New work waits no longer than a statement may take, and not at all once the outage is known.
        for each in watcher.of("new", "event"):
            assert each.took < AWAY, each
            if each.at > watcher.gone:
                assert is_refusal(each.answer), (each.at, each.answer.text)
        late = watcher.of("new", "event", after=KNOWN, before=AWAY - 0.5)
        assert late
        assert max(each.took for each in late) < STATEMENT
        # Readiness says so, and the control plane answers in one sentence, although all its threads waited.
        told = watcher.of("/ready", after=KNOWN, before=AWAY - 0.5)
        assert {each.answer.status_code for each in told} == {503}
        assert not told[-1].answer.json()["checks"]["database"]["ok"]
        assert re.fullmatch(r"seen \d+\.\d s ago", told[-1].answer.json()["checks"]["catalog"]["detail"])
        control = watcher.of(*watcher.control)
        assert len(control) == 60
        for each in control:
            assert each.took < watcher.gone + AWAY, each
            assert each.answer.status_code == 200 or is_refusal(each.answer), each.answer.text
        assert sum(each.answer.status_code == 503 for each in control) > 30

        # It recovers by itself, all workers, soon.
        def works(path: str) -> bool:
            return all(
                httpx2.get(
                    f"{server.url}{path}", headers={"Authorization": f"Bearer {server.key}"}, timeout=120
                ).status_code
                == 200
                for _ in range(4 * WORKERS)
            )

        until(lambda: works("/ready"), "it is ready again")
        until(lambda: works(f"{watcher.path}/after"), "new users are assigned again")
        for path in watcher.control:
            until(lambda: works(path), f"{path} answers again")  # noqa: B023 - called at once
        until(lambda: ages(server.url, server.key) < 2, "the catalog is seen again")

        # What was acknowledged is there, once; what was refused as not stored is not there.
        with psycopg.connect(url) as connection:
            found = [
                row[0]
                for row in connection.execute(
                    "SELECT coalesce(original_id, event_id::text) FROM events"
                ).fetchall()
            ]
            assigned = {row[0] for row in connection.execute("SELECT unit_id FROM assignments").fetchall()}
        assert len(set(found)) == len(found)
        for each in watcher.seen:
            if each.kind == "event":
                check_stored(
                    each, each.answer.json().get("event_id") if each.answer.is_success else None, found
                )
            elif each.kind == "new":
                check_stored(each, each.sent if each.answer.is_success else None, assigned)
        assert server.stop() == 0, server.output()
        assert "Traceback" not in server.output()


def check_stored(seen: Seen, acknowledged: str | None, found: Any) -> None:
    """What was said of a row is so."""
    if acknowledged is not None:
        assert seen.sent in found, seen
    elif seen.answer.json()["code"] != "store_in_doubt":
        assert seen.sent not in found, seen
