"""A connection to PostgreSQL that breaks while it commits, and a database whose disk is full."""

import contextlib
import os
import pwd
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from live import Server, until
from load import Load, check, traffic_on
from postgresql import Postgres
from proxy import Proxy


def server_on(url: str, data: Path, workers: int = 2) -> Server:
    settings = {"DATABASE_URL": url, "ASSAY_WORKERS": str(workers), "ADMIN_TOKEN": "the-admin-key"}
    return Server(data, settings)


def running(client: httpx2.Client) -> int:
    body = {
        "name": "Broken",
        "status": "running",
        "variants": [{"name": "a", "allocation": 0.5}, {"name": "b", "allocation": 0.5}],
    }
    made = client.post("/api/v1/experiments", json=body)
    assert made.status_code == 201, made.text
    number: int = made.json()["id"]
    return number


def rows(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement, values).fetchall()  # type: ignore[call-overload]


@pytest.fixture
def cut(postgres: Postgres, postgres_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the database, and the database's URL by way of it."""
    with Proxy(postgres.port) as proxy:
        yield proxy, f"postgresql://postgres@127.0.0.1:{proxy.port}/{postgres_url.rpartition('/')[2]}"


def assign(client: httpx2.Client, experiment: int, name: str) -> httpx2.Response:
    return client.get(f"/api/v1/experiments/{experiment}/assignment/{name}")


def record(client: httpx2.Client, _: int, name: str) -> httpx2.Response:
    return client.post("/api/v1/events", json={"user_id": name, "type": "buy", "event_id": f"id-{name}"})


def record_unnamed(client: httpx2.Client, _: int, name: str) -> httpx2.Response:
    return client.post("/api/v1/events", json={"user_id": name, "type": "buy"})


@pytest.mark.slow
@pytest.mark.parametrize("write", [assign, record, record_unnamed])
def test_reset_just_before_the_answer_to_a_commit__the_client_is_answered_as_if_nothing_had_been(
    cut: tuple[Proxy, str], postgres_url: str, write: Any, tmp_path: Path
) -> None:
    proxy, url = cut
    with server_on(url, tmp_path / "data") as server, server.client() as client:
        experiment = running(client)
        for number in range(6):
            name = f"cut-{number}"
            proxy.cut_answer_to(name.encode())
            answer = write(client, experiment, name)
            assert not proxy.armed
            assert answer.status_code in {200, 201}, answer.text
            told = answer.json()
            if write is assign:
                found = rows(postgres_url, "SELECT variant_id FROM assignments WHERE unit_id = %s", name)
                assert found == [(told["variant_id"],)]
            else:
                found = rows(
                    postgres_url,
                    "SELECT coalesce(original_id, event_id::text) FROM events WHERE user_id = %s",
                    name,
                )
                assert found == [(told["event_id"],)]
                # It was stored by this very request, whatever the database says to its repetition.
                assert told["status"] == "accepted"
        until(lambda: client.get("/ready").status_code == 200, "it is ready")
        assert server.stop() == 0, server.output()
        assert "Traceback" not in server.output()
        assert "request.failed" not in server.output()


@pytest.mark.slow
def test_reset_just_before_the_answer_to_a_change__it_is_said_that_it_may_be_stored(
    cut: tuple[Proxy, str], postgres_url: str, tmp_path: Path
) -> None:
    proxy, url = cut
    with server_on(url, tmp_path / "data") as server, server.client() as client:
        for number in range(3):
            # Others commit as well, so the cut may come elsewhere: then it is said that nothing was stored.
            name = f"Cut {number}"
            proxy.cut_answer_to(b"COMMIT")
            answer = client.post("/api/v1/experiments", json={"name": name})
            until(lambda: not proxy.armed, "the connections were cut")
            found = rows(postgres_url, "SELECT id FROM experiments WHERE name = %s", name)
            if answer.status_code == 201:
                assert found == [(answer.json()["id"],)]
            else:
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["code"] == "database_in_doubt" or found == [], answer.text
                assert len(found) <= 1
        until(lambda: client.get("/ready").status_code == 200, "it is ready")
        assert client.post("/api/v1/experiments", json={"name": "After"}).status_code == 201
        assert server.stop() == 0, server.output()
        assert "Traceback" not in server.output()


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(each, marks=pytest.mark.nightly) for each in range(2, 20))]
)
def test_connections_cut_in_the_middle_of_load__everything_acknowledged_is_there_once(
    cut: tuple[Proxy, str], seed: int, tmp_path: Path
) -> None:
    proxy, url = cut
    moments = random.Random(seed)
    with server_on(url, tmp_path / "data") as server:
        traffic = traffic_on(server, seed)
        with Load(traffic, connections=16, patience=60) as running:
            for _ in range(12):
                enough = running.answers + moments.randint(20, 300)
                until(lambda: running.answers >= enough, "load", 120)  # noqa: B023 - called at once
                if moments.random() < 0.7:
                    proxy.cut_before_answer(moments.randint(1, 5))
                else:
                    proxy.cut_before_request(moments.randint(1, 5))
                until(lambda: not proxy.armed, "the connections were cut")
            report = running.stop()
        # It was between the server and its database: no client lost its connection.
        assert report.losses == []
        check(traffic, report)
        assert server.stop() == 0, server.output()
        assert "request.failed" not in server.output()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A database on a file system of 64 MiB of its own: its URL, and the file system."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    with Postgres() as own:
        assert own.user is not None
        owner = pwd.getpwnam(own.user)
        disk = own.directory / "small"
        disk.mkdir()
        options = f"size=64m,mode=700,uid={owner.pw_uid},gid={owner.pw_gid}"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
        try:
            own.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            own.execute("CREATE DATABASE small TABLESPACE small")
            yield own.url("small"), disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * (1 << 16)):
            pass
    return filler


def refused(ask: Callable[[int], httpx2.Response], most: int = 3000) -> tuple[list[str], httpx2.Response]:
    """Ask until the answer is no: what was acknowledged before, and the refusal."""
    done = []
    for number in range(most):
        answer = ask(number)
        if not answer.is_success:
            return done, answer
        done.append(answer.text)
    raise AssertionError(f"{most} times there was room on a full disk")


def check_full(answer: httpx2.Response) -> None:
    problem = answer.json()
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert problem["code"] in {"store_full", "database_full"}
    assert "disk is full" in problem["detail"] or "disk of the database is full" in problem["detail"]
    assert "nothing was stored" in problem["detail"]


@pytest.mark.slow
def test_full_disk_of_the_database__refused__nothing_half_stored__works_again_when_there_is_space(
    full: tuple[str, Path], tmp_path: Path
) -> None:
    url, disk = full
    with server_on(url, tmp_path / "data") as server, server.client() as client:
        experiment = running(client)
        known = assign(client, experiment, "known").json()
        filler = fill(disk)

        def batch(number: int) -> httpx2.Response:
            padding = {"padding": "x" * 1500}
            events = [
                {"user_id": "u", "type": "buy", "event_id": f"b-{number}-{each}", "properties": padding}
                for each in range(20)
            ]
            return client.post("/api/v1/events", json={"events": events})

        def create(number: int) -> httpx2.Response:
            return client.post(
                "/api/v1/experiments", json={"name": f"More {number}", "description": "x" * 900}
            )

        batches, refusal = refused(batch)
        check_full(refusal)
        users, refusal = refused(lambda number: assign(client, experiment, f"user-{number}"))
        check_full(refusal)
        experiments, refusal = refused(create)
        check_full(refusal)
        # What is known can be read, from memory and from the disk, and it is said what is wrong.
        assert assign(client, experiment, "known").json() == known
        assert client.get(f"/api/v1/experiments/{experiment}").status_code == 200
        assert client.get("/health").status_code == 200
        # It is tried by the server itself now and then: who asks and who does not hears the same.
        check_full(assign(client, experiment, "one more"))
        not_ready = client.get("/ready").json()
        assert "full" in not_ready["checks"]["database"]["detail"]
        # A refused batch left nothing behind, nor did a refused experiment.
        found = rows(url, "SELECT split_part(original_id, '-', 2)::int, count(*) FROM events GROUP BY 1")
        assert sorted(found) == [(number, 20) for number in range(len(batches))]
        assert rows(url, "SELECT count(*) FROM assignments") == [(len(users) + 1,)]
        assert rows(url, "SELECT count(*) FROM experiments") == [(len(experiments) + 1,)]
        orphans = "SELECT count(*) FROM variants WHERE experiment_id NOT IN (SELECT id FROM experiments)"
        assert rows(url, orphans) == [(0,)]

        filler.unlink()
        until(lambda: client.get("/ready").status_code == 200, "it is ready again")
        assert batch(len(batches)).status_code == 202
        assert assign(client, experiment, "after").status_code == 200
        assert create(9999).status_code == 201
        assert rows(url, "SELECT count(*) FROM events") == [(20 * (len(batches) + 1),)]
        assert server.stop() == 0, server.output()
        assert "Traceback" not in server.output()
