"""The disk has confirmed before the caller hears of it, seen in the system calls: a kill proves nothing.

A killed process leaves its writes in the page cache, where the next one finds them, synced or not. So the
server runs under strace, and between the arrival of a request and its answer there must be a sync of the
database or its write-ahead log.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from live import Server, until

CALLS = "read,recvfrom,recvmsg,fsync,fdatasync,write,writev,sendto,sendmsg"


def _traceable() -> bool:
    tracer = shutil.which("strace")
    return tracer is not None and subprocess.run([tracer, "-qq", "-o", "/dev/null", "true"]).returncode == 0


pytestmark = pytest.mark.skipif(not _traceable(), reason="strace is not here, or may not trace")


class Traced:
    """A server whose system calls are written down in the order in which they happened."""

    def __init__(self, server: Server, trace: Path) -> None:
        self.server = server
        self.trace = trace

    def calls(self, after: int) -> list[str]:
        """What has been traced since byte `after`."""
        with self.trace.open(errors="replace") as file:
            file.seek(after)
            return file.read().splitlines()

    def exchange(self, client: httpx2.Client, path: str, body: bytes, mark: str, status: int) -> list[str]:
        """Send one request; its calls from the arrival of `mark` to the first byte of the answer."""
        before = self.trace.stat().st_size
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text

        def between() -> list[str] | None:
            calls = self.calls(before)
            arrived = [
                i for i, call in enumerate(calls) if mark in call and re.search(r"\b(read|recv)", call)
            ]
            answered = [i for i, call in enumerate(calls) if f"HTTP/1.1 {status}" in call]
            return calls[arrived[0] : answered[0]] if arrived and answered else None

        return until(between, f"the request and its answer in the trace of {path}")


def syncs(calls: list[str]) -> list[str]:
    """The finished syncs of the database or its log among these calls, on whichever thread."""
    done = []
    waiting: dict[str, str] = {}
    for call in calls:
        thread = call.split(None, 1)[0]
        if re.search(r"\bf(data)?sync\(\d+<[^>]*/assay\.db(-wal)?>", call):
            if "= 0" in call:
                done.append(call)
            else:
                waiting[thread] = call
        elif re.search(r"f(data)?sync resumed", call) and "= 0" in call and thread in waiting:
            done.append(waiting.pop(thread))
    return done


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    trace = folder / "trace"
    before = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-s",
        "400",
        "-e",
        f"trace={CALLS}",
        "-e",
        "signal=none",
        "-o",
        str(trace),
    ]
    with Server(folder / "data", before=before) as server:
        with server.client() as client:
            for name in ("sync-one", "sync-two"):
                made = client.post("/experiments", json={"name": name})
                assert made.status_code == 201, made.text
        yield Traced(server, trace)


@pytest.mark.parametrize(
    ("path", "body", "mark", "status"),
    [
        ("/experiments/sync-one/assign", b'{"user_id":"mark-assign"}', "mark-assign", 200),
        (
            "/experiments/check-eligibility",
            b'{"user_id":"mark-check","experiment_ids":["sync-one","sync-two"]}',
            "mark-check",
            200,
        ),
        (
            "/api/v1/assignments",
            b'{"user_ids":["mark-bulk","u2","u3"],"experiments":["sync-one"]}',
            "mark-bulk",
            200,
        ),
        (
            "/api/v1/exposures",
            b'{"user_id":"mark-exposure","experiment":"sync-one","variant":"control"}',
            "mark-exposure",
            202,
        ),
        ("/events", b'{"user_id":"mark-event","type":"buy"}', "mark-event", 201),
        (
            "/events",
            b'[{"user_id":"mark-batch","type":"buy"},{"user_id":"u2","type":"buy"}]',
            "mark-batch",
            202,
        ),
        ("/experiments/sync-one/track", b'{"user_id":"mark-track","event_name":"buy"}', "mark-track", 201),
    ],
    ids=["assign", "eligibility", "bulk", "exposure", "event", "batch", "track"],
)
def test_acknowledgement__comes_after_a_sync(
    traced: Traced, path: str, body: bytes, mark: str, status: int
) -> None:
    with traced.server.client() as client:
        assert len(syncs(traced.exchange(client, path, body, mark, status))) >= 1


def test_repeat__writes_nothing(traced: Traced) -> None:
    body = b'{"user_id":"mark-repeat"}'
    with traced.server.client() as client:
        first = traced.exchange(client, "/experiments/sync-one/assign", body, "mark-repeat", 200)
        again = traced.exchange(client, "/experiments/sync-one/assign", body, "mark-repeat", 200)
    assert len(syncs(first)) >= 1
    # Other threads may be at work; the thread that answered waited for no disk.
    loop = again[0].split(None, 1)[0]
    assert [
        call for call in again if call.startswith(f"{loop} ") and re.search(r"f(data)?sync\(", call)
    ] == []
