"""More than the server can do: what is answered comes at full rate, memory is bounded, it is over at once.

Rates and latencies are compared with those of the same run, for neighbours have this machine, too.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.hotpath.admission import Admission
from hotpath import wire
from hotpath.served import Serving
from hotpath.wire import Wire, get, post, prepared
from live import Server, until
from load import Load, check, memory, traffic_on

#: MiB that a stretch of overload may cost. What it leaves stored is part of it.
BOUND = 128
CONNECTIONS = 500


@contextlib.contextmanager
def stalled(database: Path) -> Iterator[None]:
    """Nothing can be written meanwhile, as on a disk that hangs."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_disk_that_hangs__as_many_wait_as_may__the_rest_told_to_come_again(tmp_path: Path) -> None:
    """What memory knows, health and readiness are answered meanwhile; who waits is answered afterwards."""

    async def journey(server: Serving) -> None:
        hot = server.front.hot()
        assert hot is not None
        first = await prepared(server)
        wires = [first, *[await Wire.to(server) for _ in range(9)]]
        known = await first.ask(get("/experiments/1/assignment/known"))
        hot.admission = Admission(most=8, few=4)
        with stalled(tmp_path / "data" / "assay.db"):
            for number, each in enumerate(wires[:8]):
                each.say(get(f"/experiments/1/assignment/new-{number}"))
            await wire.until(lambda: hot.admission.waiting == 8)
            refused = [
                await wires[8].ask(get("/experiments/1/assignment/more")),
                await wires[9].ask(post("/experiments/1/assign", {"user_id": "more"})),
                await wires[8].ask(post("/events", {"user_id": "more", "type": "t"})),
                await wires[9].ask(post("/events", [{"user_id": "more", "type": "t"}] * 2000)),
            ]
            wires[9] = await Wire.to(server)  # so long a body was not read, and its connection is gone
            served = [
                await wires[8].ask(get("/experiments/1/assignment/known")),
                await wires[9].ask(get("/health")),
                await wires[9].ask(get("/ready")),
            ]
        for status, head, body in refused:
            assert status == 503
            assert b"\r\nretry-after: 1\r\n" in head
            assert json.loads(body)["code"] == "overloaded"
        assert [status for status, _, _ in served] == [200, 200, 200]
        assert served[0][2] == known[2]
        assert [(await each.hear())[0] for each in wires[:8]] == [200] * 8
        assert (await wires[8].ask(get("/experiments/1/assignment/more")))[0] == 200
        assert hot.admission.waiting == 0

    wire.run(tmp_path, journey)


@pytest.mark.slow
def test_twice_the_capacity__full_rate__and_over_within_a_second(server: Server) -> None:
    traffic = traffic_on(server, 1)
    Load(traffic, connections=16).run(1)
    calm = Load(traffic, connections=16, rate=100).run(2)
    capacity = Load(traffic, connections=64).run(3).rate
    before = memory(server.pid)
    overload = Load(traffic, connections=CONNECTIONS, rate=2 * capacity, insist=False)
    report = overload.run(4)
    assert memory(server.pid) - before < BOUND
    after = Load(traffic, connections=16, rate=100).run(1)
    # A request waits on its connection: with one on each there is no more to do than there are connections,
    # and that much fits into the queues. If something was refused, the load has looked at the refusal.
    assert report.losses == []
    assert {code for _, code in report.statuses} <= {200, 201, 202, 503}
    assert report.rate > capacity / 10  # neighbours may have come meanwhile
    usual, again = calm.latency().percentile(0.5), after.latency().percentile(0.5)
    assert again < max(10 * usual, 250), (usual, again)
    assert after.count(503) == 0
    assert after.wrong == 0, after.samples
    check(traffic, report)
    assert server.stop() == 0


@pytest.mark.slow
def test_disk_that_hangs__queue_full__repeats_answered__nothing_lost(server: Server) -> None:
    """The queue is bounded by rows and bytes: what does not fit is refused at once, and may be repeated."""
    traffic = traffic_on(server, 1, weights={"repeat": 4, "batch": 1}, batch=1000)
    Load(traffic, connections=4).run(1)
    before = memory(server.pid)
    with Load(traffic, connections=300, insist=False, patience=60) as running:
        with stalled(server.data / "assay.db"):
            until(lambda: running.report.count(503) >= 20, "the queue is full", 60)
            repeats = running.report.statuses["repeat", 200]
            until(lambda: running.report.statuses["repeat", 200] > repeats + 20, "known users are served")
            grown = memory(server.pid) - before
        stored = running.report.statuses["batch", 202]
        until(lambda: running.report.statuses["batch", 202] > stored, "batches are taken again")
        report = running.stop()
    # Everything that waited has its answer, so there is room.
    after = Load(traffic, connections=4, insist=False).run(1)
    # 64 MiB of rows may wait, in the form in which they are written, and as many bodies may be on their way.
    assert grown < 4 * BOUND
    assert report.losses == []
    assert {code for kind, code in report.statuses if kind == "repeat"} == {200}
    assert {code for kind, code in report.statuses if kind == "batch"} == {202, 503}
    assert after.count(503) == 0
    found = check(traffic, report)
    assert found.doubtful == 0
    assert server.stop() == 0
