"""A server killed in the middle of load has lost nothing that it acknowledged, and counts nothing twice."""

import random
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from live import Server, until

THREADS = 4
ROUNDS = 3


class Load:
    """Clients that assign and record until the server is gone; `sent` and `acknowledged` are their ledger."""

    def __init__(self, server: Server, experiment: int, round_: int) -> None:
        self.server = server
        self.experiment = experiment
        self.round = round_
        self.sent: dict[str, str] = {}  # event id: user id
        self.acknowledged: set[str] = set()
        self.assigned: dict[str, dict[str, Any]] = {}
        self.answers = 0
        self.broken: list[str] = []
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _client(self, number: int) -> None:
        with self.server.client() as client:
            step = 0
            while True:
                user = f"r{self.round}-c{number}-{step}"
                try:
                    self._visit(client, user, step)
                except httpx2.TransportError:
                    return  # the server was taken away in the middle of this one
                step += 1

    def _visit(self, client: httpx2.Client, user: str, step: int) -> None:
        answer = client.post(f"/experiments/{self.experiment}/assign", json={"user_id": user})
        self._expect(answer, 200)
        self.assigned[user] = answer.json()
        if step % 3:
            events = [{"user_id": user, "event_id": f"{user}-e", "type": "buy", "value": 1}]
            self.sent[f"{user}-e"] = user
            self._expect(client.post("/events", json=events[0]), 201)
        else:
            events = [
                {"user_id": user, "event_id": f"{user}-b{i}", "type": "buy", "value": 1} for i in range(20)
            ]
            self.sent.update({event["event_id"]: user for event in events})  # type: ignore[misc]
            self._expect(client.post("/events", json=events), 202)
        self.acknowledged.update(str(event["event_id"]) for event in events)

    def _expect(self, answer: httpx2.Response, status: int) -> None:
        self.answers += 1
        if answer.status_code != status:
            self.broken.append(f"{answer.status_code}: {answer.text}")


def listed(client: httpx2.Client) -> list[str]:
    """The ids of all stored events, page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
        page = client.get("/api/v1/events", params=query).json()
        found += [event["event_id"] for event in page["events"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_in_the_middle_of_load__everything_acknowledged_is_there_once(seed: int, tmp_path: Path) -> None:
    moments = random.Random(seed)
    server = Server(tmp_path / "data")
    sent: dict[str, str] = {}
    acknowledged: set[str] = set()
    assigned: dict[str, dict[str, Any]] = {}
    server.start()
    with server.client() as client:
        made = client.post(
            "/experiments", json={"name": "Killed", "variants": [{"name": "a"}, {"name": "b"}]}
        )
        assert made.status_code == 201, made.text
        experiment = made.json()["id"]
    for round_ in range(ROUNDS):
        load = Load(server, experiment, round_)
        load.start()
        enough = moments.randint(50, 600)
        until(lambda load=load, enough=enough: load.answers >= enough, "the load has reached its moment", 60)
        server.kill()
        load.join()
        assert load.broken == []
        sent.update(load.sent)
        acknowledged |= load.acknowledged
        assigned.update(load.assigned)
        server.start()
    with server.client() as client:
        for user, answer in assigned.items():
            assert client.get(f"/experiments/{experiment}/assignment/{user}").json() == answer
        found = listed(client)
        assert len(found) == len(set(found))
        assert acknowledged <= set(found) <= set(sent)
        # What was never answered is sent again with everything else: each counts once.
        again = [
            {"user_id": user, "event_id": event, "type": "buy", "value": 1} for event, user in sent.items()
        ]
        for start in range(0, len(again), 1000):
            assert client.post("/events", json=again[start : start + 1000]).status_code == 202
        assert sorted(listed(client)) == sorted(sent)
        stats = client.get(f"/experiments/{experiment}/results", params={"event_type": "buy"}).json()
        assert sum(variant["event_count"] for variant in stats["variants"]) == sum(
            user in assigned for user in sent.values()
        )
    assert server.stop() == 0
