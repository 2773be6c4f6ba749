"""`assay serve --workers 4` on PostgreSQL: many processes, one installation."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from live import Server, until
from load import Load, check, traffic_on
from postgresql import Postgres

WORKERS = 4


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="module")
def four(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"DATABASE_URL": url, "ASSAY_WORKERS": str(WORKERS), "ADMIN_TOKEN": "the-admin-key"}
    with Server(tmp_path_factory.mktemp("four") / "data", settings) as server:
        yield server


def ask(server: Server, method: str, path: str, *, key: str | None = None, **given: Any) -> httpx2.Response:
    """One request on a connection of its own, which any of the workers may take."""
    with server.client(key) as client:
        return client.request(method, path, **given)


def made(server: Server, name: str, **fields: Any) -> int:
    body = {
        "name": name,
        "status": "running",
        "variants": [{"name": "a", "allocation": 0.5}, {"name": "b", "allocation": 0.5}],
        "metrics": ["buy"],
        **fields,
    }
    answer = ask(server, "POST", "/api/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text
    number: int = answer.json()["id"]
    return number


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rows(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement, values).fetchall()  # type: ignore[call-overload]


def at_once(server: Server, method: str, paths: list[str], **given: Any) -> list[httpx2.Response]:
    """These requests at the same time, each on a connection of its own."""

    async def one(path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
            headers = {"Authorization": f"Bearer {server.key}"}
            return await client.request(method, path, headers=headers, **given)

    async def all_of_them() -> list[httpx2.Response]:
        return list(await asyncio.gather(*map(one, paths)))

    return asyncio.run(all_of_them())


def test_64_first_calls_at_once__give_one_variant_one_time_one_row(four: Server, url: str) -> None:
    experiment = made(four, "Race")
    for user in ("ann", "bob", "cleo"):
        path = f"/api/v1/experiments/{experiment}/assignment/{user}"
        answers = at_once(four, "GET", [path] * 64)
        assert [answer.status_code for answer in answers] == [200] * 64
        assert len({answer.content for answer in answers}) == 1
        found = rows(
            url,
            "SELECT variant_id FROM assignments WHERE experiment_id = %s AND unit_id = %s",
            experiment,
            user,
        )
        assert found == [(answers[0].json()["variant_id"],)]


def test_first_calls_while_the_split_is_edited__still_give_one(four: Server, url: str) -> None:
    experiment = made(four, "Edited race")
    done = threading.Event()

    def edit() -> None:
        share = 0.1
        while not done.is_set():
            share = 1.0 - share
            variants = [
                {"key": "a", "name": "a", "allocation": share},
                {"key": "b", "name": "b", "allocation": 1 - share},
            ]
            answer = ask(four, "PATCH", f"/api/v1/experiments/{experiment}", json={"variants": variants})
            assert answer.status_code == 200, answer.text

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        for user in range(6):
            path = f"/api/v1/experiments/{experiment}/assignment/u{user}"
            answers = at_once(four, "GET", [path] * 64)
            told = {(each.json()["variant_id"], each.json()["assigned_at"]) for each in answers}
            assert len(told) == 1
    finally:
        done.set()
        editor.join(30)
    assert rows(url, "SELECT count(*) FROM assignments WHERE experiment_id = %s", experiment) == [(6,)]


def test_what_one_worker_was_told__all_know_when_it_answers(four: Server) -> None:
    for turn in range(5):
        experiment = made(four, f"Known {turn}", status="draft")
        paths = [f"/api/v1/experiments/{experiment}/assignment/u{user}" for user in range(16)]
        assert {each.json()["reason"] for each in at_once(four, "GET", paths)} == {"not_running"}
        assert ask(four, "POST", f"/api/v1/experiments/{experiment}/start").status_code == 200
        assert {each.json()["assigned"] for each in at_once(four, "GET", paths)} == {True}


def test_a_revoked_key_is_refused_by_all_at_once(four: Server) -> None:
    key = ask(four, "POST", "/api/v1/auth/keys", json={"name": "k", "role": "viewer"}).json()
    seen = [ask(four, "GET", "/api/v1/experiments", key=key["key"]).status_code for _ in range(12)]
    assert seen == [200] * 12
    assert ask(four, "DELETE", f"/api/v1/auth/keys/{key['id']}").status_code in {200, 204}
    refused = [ask(four, "GET", "/api/v1/experiments", key=key["key"]).status_code for _ in range(12)]
    assert refused == [401] * 12


def test_an_erased_user_is_forgotten_by_all(four: Server, url: str) -> None:
    experiment = made(four, "Erasure")
    path = f"/api/v1/experiments/{experiment}/assignment/erased"
    first = at_once(four, "GET", [path] * 32)[0].json()
    event = {"user_id": "erased", "type": "buy", "event_id": "once"}
    assert ask(four, "POST", "/api/v1/events", json=event).json()["status"] == "accepted"
    assert ask(four, "DELETE", "/api/v1/users/erased", params={"erase": True}).status_code == 200
    assert rows(url, "SELECT count(*) FROM events WHERE user_id = 'erased'") == [(0,)]
    again = at_once(four, "GET", [path] * 32)
    assert len({answer.content for answer in again}) == 1
    assert again[0].json()["assigned_at"] > first["assigned_at"]
    assert at_once(four, "POST", ["/api/v1/events"], json=event)[0].json()["status"] == "accepted"


def test_a_double_is_named_whichever_worker_it_comes_to(four: Server) -> None:
    event = {"user_id": "doubling", "type": "buy", "event_id": "d-1", "value": 2}
    answers = at_once(four, "POST", ["/api/v1/events"] * 24, json=event)
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted", *["duplicate"] * 23]
    batch = {"events": [event, {**event, "event_id": "d-2"}, {**event, "event_id": "d-2"}]}
    answer = ask(four, "POST", "/api/v1/events", json=batch).json()
    assert (answer["accepted"], answer["duplicates"]) == (1, 2)


def test_a_planned_start_happens_once(four: Server, url: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    experiment = made(four, "Planned", status="draft", start_at=soon)

    def running() -> bool:
        return bool(ask(four, "GET", f"/api/v1/experiments/{experiment}").json()["status"] == "running")

    until(running, "the experiment has started by itself")
    audited = "SELECT count(*) FROM audit WHERE experiment_id = %s AND action = 'experiment.start'"
    assert rows(url, audited, experiment) == [(1,)]
    assert len(rows(url, "SELECT holder FROM leases WHERE name = 'schedule'")) == 1


def test_a_killed_worker_is_replaced__also_one_that_holds_the_lease(four: Server, url: str) -> None:
    until(lambda: len(children(four.pid)) == WORKERS, "all workers live")
    (holder,) = until(
        lambda: rows(url, "SELECT holder FROM leases WHERE name = 'schedule'"), "somebody holds the lease"
    )[0]
    victim = int(holder.split(":")[1])
    assert victim in children(four.pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(children(four.pid)) == WORKERS and victim not in children(four.pid), "it is replaced")

    def taken_over() -> bool:
        found = rows(url, "SELECT holder FROM leases WHERE name = 'schedule'")
        return bool(found) and int(found[0][0].split(":")[1]) != victim

    until(taken_over, "another holds the lease")
    assert ask(four, "GET", "/ready").status_code == 200


def test_a_second_server_on_the_same_database__sees_changes_within_a_second(
    four: Server, url: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": url, "ADMIN_TOKEN": "the-admin-key"}
    with Server(tmp_path / "second", settings) as second:
        experiment = made(four, "Two machines")
        path = f"/api/v1/experiments/{experiment}/assignment/traveller"
        until(lambda: ask(second, "GET", path).status_code == 200, "the other server knows it")
        assert ask(four, "GET", path).content == ask(second, "GET", path).content
        key = ask(four, "POST", "/api/v1/auth/keys", json={"name": "abroad", "role": "viewer"}).json()
        asked = "/api/v1/experiments"
        until(lambda: ask(second, "GET", asked, key=key["key"]).status_code == 200, "the key is known")
        assert ask(four, "DELETE", f"/api/v1/auth/keys/{key['id']}").status_code in {200, 204}
        until(lambda: ask(second, "GET", asked, key=key["key"]).status_code == 401, "the key is revoked")
        assert second.stop() == 0


@pytest.mark.slow
def test_rolling_restarts_under_load__drop_no_request(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        settings = {"DATABASE_URL": url, "ASSAY_WORKERS": "2", "ADMIN_TOKEN": "the-admin-key"}
        with Server(tmp_path / "data", settings) as server:
            traffic = traffic_on(server, 1)
            with Load(traffic, connections=16, patience=60) as running:
                for hangups in (1, 2):  # the second time both signals come before the first is dealt with
                    before = set(children(server.pid))
                    enough = running.answers + 500
                    until(lambda most=enough: running.answers > most, "load", 120)
                    for _ in range(hangups):
                        os.kill(server.pid, signal.SIGHUP)

                    def replaced(gone: set[int] = before) -> bool:
                        now = set(children(server.pid))
                        return len(now) == 2 and not now & gone

                    until(replaced, "both workers are new", 120)
                enough = running.answers + 500
                until(lambda: running.answers > enough, "load", 120)
                report = running.stop()
            assert report.losses == []
            assert report.unreachable == 0
            assert not [status for _, status in report.statuses if status == 503]
            check(traffic, report)
            assert server.stop() == 0
