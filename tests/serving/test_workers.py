"""The parent of several workers, with workers that only listen: who is born, replaced, told to end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import environment, until

_PROGRAM = """
import os, signal, sys, time
from assay.workers import Workers

def run(siblings, place, parent):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    signal.signal(signal.SIGINT, lambda *_: ended.append(1))
    if os.path.exists("broken"):
        print("cannot start", file=sys.stderr)
        return 1
    print(f"born {os.getpid()} at {place}", flush=True)
    siblings.mark(place, serving=True)
    while not ended and os.getppid() != 1:
        time.sleep(0.01)
    while os.path.exists("slow"):
        time.sleep(0.01)
    print(f"ended {os.getpid()}", flush=True)
    return 0

sys.exit(Workers(run, 3, grace=5).serve(lambda: print("all serve", flush=True)))
"""


class Parent:
    """The program, running in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM], cwd=folder, env=environment(), stdout=log, stderr=log
            )

    def said(self) -> str:
        return self.log.read_text()

    def born(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"born (\d+)", self.said())]

    def ended(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"ended (\d+)", self.said())]

    def expect(self, births: int) -> list[int]:
        until(lambda: len(self.born()) >= births, f"{births} workers were born: {self.said()}")
        return self.born()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(tmp_path)
    yield parent
    if parent.process.poll() is None:
        parent.process.kill()
        parent.process.wait(60)


def test_all_serve_and_all_end_when_told(parent: Parent) -> None:
    until(lambda: "all serve" in parent.said(), "all serve")
    born = parent.born()
    parent.process.terminate()
    assert parent.process.wait(60) == 0
    assert len(born) == 3
    assert sorted(parent.ended()) == sorted(born)


def test_a_worker_that_dies_is_replaced(parent: Parent) -> None:
    born = parent.expect(3)
    os.kill(born[1], signal.SIGKILL)
    assert len(parent.expect(4)) == 4
    until(lambda: f"worker {born[1]} ended by itself" in parent.said(), "its death is said")


def test_on_hangup_each_is_replaced_by_one_that_serves_already(parent: Parent) -> None:
    until(lambda: "all serve" in parent.said(), "all serve")
    first = parent.born()
    parent.process.send_signal(signal.SIGHUP)
    second = parent.expect(6)[3:]
    until(lambda: len(parent.ended()) == 3, "the first three ended")
    assert sorted(parent.ended()) == sorted(first)
    said = parent.said()
    for old, new in zip(parent.ended(), second, strict=True):
        assert said.index(f"born {new}") < said.index(f"ended {old}")
    parent.process.terminate()
    assert parent.process.wait(60) == 0


def test_on_hangup_the_old_ones_stay_when_new_ones_cannot_start(parent: Parent) -> None:
    until(lambda: "all serve" in parent.said(), "all serve")
    (parent.folder / "broken").touch()
    parent.process.send_signal(signal.SIGHUP)
    until(lambda: "the old ones stay" in parent.said(), "it is said that the old ones stay")
    assert parent.ended() == []


def test_hangups_while_old_workers_still_finish__are_done_one_after_the_other(parent: Parent) -> None:
    (parent.folder / "slow").touch()
    until(lambda: "all serve" in parent.said(), "all serve")
    for _ in range(5):
        parent.process.send_signal(signal.SIGHUP)
    parent.expect(6)
    parent.process.send_signal(signal.SIGHUP)
    parent.expect(9)
    (parent.folder / "slow").unlink()
    assert parent.process.poll() is None
    parent.process.terminate()
    assert parent.process.wait(60) == 0
    assert [pid for pid in parent.born() if Path(f"/proc/{pid}").exists()] == []


def test_workers_end_with_their_parent(parent: Parent) -> None:
    born = parent.expect(3)
    parent.process.kill()
    parent.process.wait(60)
    until(lambda: sorted(parent.ended()) == sorted(born), "all ended")


def test_what_keeps_the_first_from_serving_ends_everything_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    parent = Parent(tmp_path)
    assert parent.process.wait(60) == 1
    assert parent.said().count("cannot start") == 1
