"""Clients that dawdle, vanish, or never listen: nobody else waits for them, and memory stays bounded.

What others wait is compared with a calm stretch of the same run. Neighbours have this machine, too, so a bad
stretch is measured again, up to three times, calm and disturbed.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import Server
from load import Load, Traffic, check, memory, traffic_on

RATE = 200
SECONDS = 3
#: MiB that hostile clients may cost. What the load itself leaves behind is part of it.
BOUND = 96


@contextlib.contextmanager
def hostile(kind: str, traffic: Traffic) -> Iterator["subprocess.Popen[str]"]:
    """Such clients, at work; see `hostile.py`."""
    ledger, target = traffic.ledger, traffic.target
    path = f"/api/v1/experiments/{ledger.experiments[0].id}/assignment/"
    paths = [path + ledger.user(user) for user in ledger.assigned[:100]]
    command = [sys.executable, str(Path(__file__).with_name("hostile.py")), kind, target.url, target.key]
    with subprocess.Popen(
        [*command, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slow", "half_open", "pipelined", "deaf"])
def test_hostile_clients__others_are_served_as_before(server: Server, kind: str) -> None:
    traffic = traffic_on(server, 1)
    report = Load(traffic, connections=8).run(1)
    assert report.wrong == 0, report.samples
    seen = []
    for _ in range(3):
        calm = Load(traffic, connections=32, rate=RATE).run(SECONDS)
        before = memory(server.pid)
        with hostile(kind, traffic) as process:
            disturbed = Load(traffic, connections=32, rate=RATE).run(SECONDS)
            grown = memory(server.pid) - before
            if kind == "pipelined":
                assert process.stdout is not None
                assert process.stdout.readline() == "answered\n"
        assert disturbed.wrong == 0, disturbed.samples
        assert disturbed.losses == []
        assert grown < BOUND
        quiet, loud = calm.latency().percentile(0.99), disturbed.latency().percentile(0.99)
        seen.append((quiet, loud, grown))
        if loud < max(10 * quiet, 250):
            break
    else:
        raise AssertionError(f"(ms at p99 calm, disturbed; MiB grown): {seen}")
    check(traffic, disturbed)
    assert server.stop() == 0
