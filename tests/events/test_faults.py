"""Processes that are killed, and disks that are full: nothing acknowledged is lost, nothing counts twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.errors import Unavailable
from assay.eventstore.base import EventFilter, Scope
from assay.eventstore.duckdb import DuckdbStore
from contracts.embedded import Pipeline
from events.under_fault import event

TESTS = Path(__file__).parent.parent


def child(mode: str, folder: Path) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("under_fault.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    return subprocess.Popen(
        [sys.executable, script, mode, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_a_killed_process_has_lost_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for lines in (1, 40, 150, 75):
        with child("load", tmp_path) as process:
            assert process.stdout is not None
            acknowledged.extend(name for _ in range(lines) for name in json.loads(process.stdout.readline()))
            process.kill()
            acknowledged.extend(
                name for line in process.stdout if line.endswith("]\n") for name in json.loads(line)
            )
    pipeline = Pipeline(tmp_path)
    pipeline.drain.start()
    pipeline.drain.flush()
    rows, _ = pipeline.store.events(EventFilter(), 10**6)
    users = [row.user_id for row in rows]
    assert len(users) == len(set(users))
    assert set(acknowledged) <= set(users)
    assert len(set(users) - set(acknowledged)) <= 4 * 7  # the request that each kill interrupted
    assigned = {record.unit_id for _, record in pipeline.assignments.page(1, 0, 10**6)}
    assert set(acknowledged) <= assigned
    assert sum(arm.units for arm in pipeline.store.moments(Scope(1), [])) == len(assigned)
    pipeline.close()


def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    with child("full", tmp_path) as process:
        answer, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    same, stored, reasons = json.loads(answer.splitlines()[-1])  # after what was logged
    assert same
    assert stored > 2
    assert reasons
    assert all(reason.startswith("The disk") for reason in reasons)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_store_on_a_full_file_system_goes_on_when_there_is_room(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not possible here")
    try:
        pipeline = Pipeline(tmp_path)
        pipeline.drain.start()
        with pipeline.drain.paused():
            for number in range(100):
                pipeline.append(*(event(f"{number}.{place}", 400) for place in range(20)))
            ballast = tmp_path / "ballast"
            free = os.statvfs(tmp_path)
            ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 8_192))
        with pytest.raises(Unavailable, match="disk is full"):
            pipeline.drain.flush()
        assert pipeline.store.events(EventFilter(), 1) == ([], None)
        ballast.unlink()
        pipeline.drain.flush()
        assert len(pipeline.store.events(EventFilter(), 10**6)[0]) == 2_000
        assert pipeline.drain.last_error is None
        pipeline.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_store_opened_after_a_kill_has_whole_portions(tmp_path: Path) -> None:
    with child("load", tmp_path) as process:
        assert process.stdout is not None
        for _ in range(30):
            process.stdout.readline()
        process.kill()
    store = DuckdbStore(tmp_path / "events.duckdb")
    row, place = store.position().events >> 16, store.position().events & 0xFFFF
    assert place == 0xFFFF
    rows, _ = store.events(EventFilter(), 10**6)
    assert {found.seq >> 16 for found in rows} == set(range(1, row + 1))
    store.close()
