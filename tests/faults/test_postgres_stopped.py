"""How `assay serve` on PostgreSQL ends: gently when told to, at once from the keyboard."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from live import Server, environment, until
from postgresql import Postgres

DRAIN = 30.0


@pytest.fixture(params=["1", "2"], ids=["alone", "two-workers"])
def server(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Server]:
    settings = {
        "DATABASE_URL": postgres_url,
        "ASSAY_WORKERS": request.param,
        "ADMIN_TOKEN": "the-admin-key",
        "SHUTDOWN_DELAY": "1",
        "DRAIN_TIMEOUT": str(DRAIN),
    }
    with Server(tmp_path / "data", settings) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "frozen"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_ends_although_the_database_is_away(tmp_path: Path, workers: str, how: str) -> None:
    with Postgres() as own, own.database() as url:
        settings = {
            "DATABASE_URL": url,
            "ASSAY_WORKERS": workers,
            "ADMIN_TOKEN": "the-admin-key",
            "SHUTDOWN_DELAY": "0",
            "DRAIN_TIMEOUT": "3",
        }
        with Server(tmp_path / "data", settings) as server:
            # Somebody holds the lease, and would give it back.
            name = url.rpartition("/")[2]
            until(lambda: own.execute("SELECT holder FROM leases", name) or None, "somebody holds it")
            if how == "frozen":
                own.freeze()
            else:
                own.stop()
            try:
                assert server.stop(120) == 0, server.output()
            finally:
                if how == "frozen":
                    own.thaw()
            assert "Traceback" not in server.output()


def ended(server: Server, seconds: float) -> int:
    assert server.process is not None
    code = server.process.wait(seconds)
    server.process = None
    return code


def test_on_sigterm_readiness_turns_red_first__requests_succeed_meanwhile__then_it_ends(
    server: Server,
) -> None:
    seen: list[tuple[float, int, int]] = []  # seconds since the signal, readiness, an event's status
    with server.client() as client:
        os.kill(server.pid, signal.SIGTERM)
        began = time.monotonic()
        number = 0
        while True:
            try:
                # Each on a connection of its own, as they come from a load balancer that has yet to notice.
                ready = httpx2.get(f"{server.url}/ready", timeout=60)
                event = {"user_id": "u", "type": "buy", "event_id": f"e-{number}"}
                stored = httpx2.post(
                    f"{server.url}/api/v1/events", json=event, headers=client.headers, timeout=60
                )
            except httpx2.TransportError:
                break
            number += 1
            seen.append((time.monotonic() - began, ready.status_code, stored.status_code))
            if ready.status_code == 503:
                assert ready.json()["checks"]["server"] == {"ok": False, "detail": "shutting down"}
    assert ended(server, 2 * DRAIN) in {0, -signal.SIGTERM}, server.output()
    assert time.monotonic() - began < DRAIN
    assert {stored for _, _, stored in seen} == {201}
    # Red before anybody is turned away, and, once all workers know of it, red to the end.
    first = min((at for at, ready, _ in seen if ready == 503), default=0.0)
    assert first > 0
    assert {ready for at, ready, _ in seen if at > first + 0.5} <= {503}
    assert seen[-1][1] == 503


def test_a_request_that_has_begun_is_answered__although_the_server_ends(server: Server) -> None:
    body = b'{"user_id":"slow","type":"buy","event_id":"slow"}'
    sent = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:10]
        os.kill(server.pid, signal.SIGTERM)
        sent.set()
        deadline = time.monotonic() + 1.5
        until(lambda: time.monotonic() > deadline, "the server has stopped to listen", 5)
        yield body[10:]

    with server.client() as client:
        answer = client.post("/api/v1/events", content=slowly(), headers={"Content-Type": "application/json"})
    assert sent.is_set()
    assert answer.status_code == 201, answer.text
    assert ended(server, 2 * DRAIN) in {0, -signal.SIGTERM}, server.output()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal, the keyboard's first."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_control_c_ends_it_soon__and_what_has_begun_is_answered(
    postgres_url: str, tmp_path: Path, terminal: tuple[int, int], workers: str
) -> None:
    keyboard, screen = terminal
    settings = {
        "DATABASE_URL": postgres_url,
        "ASSAY_WORKERS": workers,
        "ADMIN_TOKEN": "the-admin-key",
        "DRAIN_TIMEOUT": str(DRAIN),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "assay", "serve", "--port", "0", "--data", str(tmp_path / "data")],
        env=environment(settings),
        cwd=tmp_path,
        preexec_fn=lambda: os.login_tty(screen),  # noqa: PLW1509 - no other thread runs here
    )
    os.set_blocking(keyboard, False)
    shown = bytearray()

    def address() -> str | None:
        with contextlib.suppress(BlockingIOError):
            shown.extend(os.read(keyboard, 65536))
        found = re.search(rb"http://127\.0\.0\.1:\d+", shown)
        return found and found[0].decode()

    def slowly() -> Iterator[bytes]:
        yield b'{"user_id":"slow",'
        os.write(keyboard, b"\x03")
        deadline = time.monotonic() + 1
        until(lambda: time.monotonic() > deadline, "the signal has arrived everywhere", 5)
        yield b'"type":"buy"}'

    try:
        url = until(address, "the server says where it listens")
        headers = {"Authorization": "Bearer the-admin-key", "Content-Type": "application/json"}
        answer = httpx2.post(f"{url}/api/v1/events", content=slowly(), headers=headers, timeout=30)
        assert answer.status_code == 201, answer.text
        began = time.monotonic()
        assert process.wait(60) in {0, -signal.SIGINT, 130}
        assert time.monotonic() - began < DRAIN
        address()
        assert b"Traceback" not in shown, shown.decode(errors="replace")
    finally:
        process.kill()
        process.wait(60)


def test_sigint_to_the_parent_alone_ends_all(server: Server) -> None:
    began = time.monotonic()
    os.kill(server.pid, signal.SIGINT)
    assert ended(server, 2 * DRAIN) in {0, -signal.SIGINT, 130}, server.output()
    assert time.monotonic() - began < DRAIN
    assert "Traceback" not in server.output()
