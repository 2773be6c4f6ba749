"""A server killed or stopped in the middle of mixed load has lost nothing that it acknowledged.

The load goes on all the time, as clients do: what got no answer is sent again with the same ids to the server
that comes back. Every answer is looked at as it comes, and in the end everything is read back.
"""

import random
import time
from pathlib import Path

import pytest

from live import Server, until
from load import Load, check, traffic_on

ROUNDS = 3
SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(3, 30))]
SEEDS_STOPPED = [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 10))]


def go_on(running: Load, answers: int) -> None:
    """Wait until so many more answers have come."""
    enough = running.answers + answers
    until(lambda: running.answers >= enough, f"{answers} more answers", 120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_kill_in_the_middle_of_load__everything_acknowledged_is_there_once(seed: int, tmp_path: Path) -> None:
    moments = random.Random(seed)
    with Server(tmp_path / "data") as server:
        traffic = traffic_on(server, seed)
        with Load(traffic, connections=16, patience=60) as running:
            for _ in range(ROUNDS):
                go_on(running, moments.randint(50, 2500))
                server.kill()
                server.start()
                traffic.target.url = server.url
            go_on(running, 500)
            report = running.stop()
        # Each kill met requests on their way, and all of them were answered in the end.
        assert len(report.losses) >= ROUNDS
        assert report.given_up == sum(loss.kind == "nameless" for loss in report.losses)
        found = check(traffic, report)
        assert found.assignments > 100
        assert found.events > 1000
        assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS_STOPPED)
def test_stop_in_the_middle_of_load__everything_on_its_way_is_answered(seed: int, tmp_path: Path) -> None:
    moments = random.Random(seed)
    stopped = []
    with Server(tmp_path / "data") as server:
        traffic = traffic_on(server, seed)
        with Load(traffic, connections=16, patience=60) as running:
            for _ in range(ROUNDS):
                go_on(running, moments.randint(50, 2500))
                began = time.monotonic()
                assert server.stop() == 0, server.output()
                server.start()
                stopped.append((began, time.monotonic()))
                traffic.target.url = server.url
            go_on(running, 500)
            report = running.stop()
        check(traffic, report)
    # A connection may be closed while it idles; a request that leaves at that moment crosses the closing.
    # What was on its way before that was answered.
    for loss in report.losses:
        assert not loss.partly, loss
        assert any(began <= loss.sent <= again for began, again in stopped), (loss, stopped)
    assert len(report.losses) <= ROUNDS * 16
