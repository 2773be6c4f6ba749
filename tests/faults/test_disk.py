"""A full or read-only disk, and a directory with an owner already: a sentence, no damage, and recovery."""

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import httpx2
import pytest

from live import Server, run, until

EVENT = {"user_id": "u", "type": "buy", "properties": {"padding": "x" * 4000}}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        try:
            for size in (1 << 20, 4096, 1):
                while file.write(b"\0" * size):
                    file.flush()
        except OSError:
            pass
    return filler


def send(client: httpx2.Client, prefix: str, number: int) -> tuple[list[str], httpx2.Response]:
    """Record events one by one until one is refused; the ids acknowledged, and the refusal."""
    done = []
    for i in range(number):
        answer = client.post("/events", json={**EVENT, "event_id": f"{prefix}-{i}"})
        if answer.status_code != 201:
            return done, answer
        done.append(f"{prefix}-{i}")
    raise AssertionError(f"{number} events of 4 kB fitted on a full disk")


def check_refusal(answer: httpx2.Response) -> None:
    """The answer is the one sentence that a full disk deserves."""
    problem = answer.json()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert problem["code"] in {"store_full", "store_ioerr"}
    assert "disk" in problem["detail"].lower()
    assert "Traceback" not in answer.text


def event_ids(client: httpx2.Client) -> list[str]:
    return sorted(
        event["event_id"] for event in client.get("/events", params={"limit": 1000}).json()["events"]
    )


def check_whole(data: Path) -> None:
    """Both stores are in good order."""
    connection = sqlite3.connect(data / "assay.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    for file in data.glob("*.duckdb"):
        with duckdb.connect(str(file), read_only=True) as store:
            assert store.execute("SELECT count(*) FROM events").fetchone()[0] >= 0


def test_full_disk__refused__works_again_when_there_is_space(small_disk: Path) -> None:
    data = small_disk / "data"
    with Server(data) as server, server.client() as client:
        experiment = client.post("/experiments", json={"name": "Full"}).json()["id"]
        before = client.post(f"/experiments/{experiment}/assign", json={"user_id": "before"}).json()
        filler = fill(small_disk)
        done, refusal = send(client, "full", 20_000)
        check_refusal(refusal)
        # Nor can anything else be written, and each says so.
        check_refusal(client.post(f"/experiments/{experiment}/assign", json={"user_id": "nobody"}))
        check_refusal(client.post("/experiments", json={"name": "Refused"}))
        check_refusal(client.put("/users/nobody", json={"country_code": "FR"}))
        # What is known can still be answered.
        assert client.post(f"/experiments/{experiment}/assign", json={"user_id": "before"}).json() == before
        assert client.get("/health").status_code == 200
        filler.unlink()

        def works() -> bool:
            again = client.post("/events", json={**EVENT, "event_id": f"full-{len(done)}"})
            return again.status_code in {200, 201}

        until(works, "the server takes events again")
        acknowledged = [*done, f"full-{len(done)}"]
        until(lambda: event_ids(client) == sorted(acknowledged), "everything acknowledged is listed, once")
        assert client.post(f"/experiments/{experiment}/assign", json={"user_id": "after"}).json()["assigned"]
        assert client.post("/experiments", json={"name": "Taken"}).status_code == 201
        assert [each["name"] for each in client.get("/experiments").json()["experiments"]] == [
            "Taken",
            "Full",
        ]
        until(lambda: client.get("/ready").status_code == 200, "the server says it is ready")
        assert server.stop() == 0
        check_whole(data)
        server.start()
    with Server(data) as server, server.client() as client:
        assert event_ids(client) == sorted(acknowledged)


def test_file_that_may_not_grow__refused__works_again_when_it_may(server: Server) -> None:
    """The same where no file system can be mounted: the limit of a file's size stands in for the disk's."""
    with server.client() as client:
        done, _ = send_some(client, 5)
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        largest = max(file.stat().st_size for file in server.data.iterdir() if file.is_file())
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + 200_000, hard))
        more, refusal = send(client, "limit", 5000)
        check_refusal(refusal)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))

        def works() -> bool:
            again = client.post("/events", json={**EVENT, "event_id": f"limit-{len(more)}"})
            return again.status_code in {200, 201}

        until(works, "the server takes events again")
        acknowledged = sorted([*done, *more, f"limit-{len(more)}"])
        until(lambda: event_ids(client) == acknowledged, "everything acknowledged is listed, once")
    assert server.stop() == 0
    check_whole(server.data)


def send_some(client: httpx2.Client, number: int) -> tuple[list[str], None]:
    """Record a few events that are all taken."""
    ids = [f"some-{i}" for i in range(number)]
    for name in ids:
        assert client.post("/events", json={**EVENT, "event_id": name}).status_code == 201
    return ids, None


def one_sentence(text: str) -> str:
    """What was printed, if it is one line and no stack trace."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


def test_second_process__told_in_one_sentence(server: Server, tmp_path: Path) -> None:
    second = run("serve", "--port", "0", "--data", server.data, cwd=tmp_path)
    assert second.returncode == 1
    said = one_sentence(second.stderr)
    assert str(server.data) in said
    assert str(server.pid) in said
    with server.client() as client:
        assert client.get("/ready").status_code == 200


def test_directory_that_cannot_be_written__told_in_one_sentence(tmp_path: Path) -> None:
    refused = run("serve", "--port", "0", "--data", "/proc/assay-data", cwd=tmp_path)
    assert refused.returncode == 1
    assert "/proc/assay-data" in one_sentence(refused.stderr)


def test_read_only_disk__told_in_one_sentence__then_served(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "data"
    with Server(data) as server, server.client() as client:
        send_some(client, 3)
        assert server.stop() == 0
        server.start()
        server.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = run("serve", "--port", "0", "--data", data, cwd=tmp_path)
    assert refused.returncode == 1
    assert str(data) in one_sentence(refused.stderr)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with Server(data) as server, server.client() as client:
        assert event_ids(client) == ["some-0", "some-1", "some-2"]
    assert os.access(data, os.W_OK)
