"""Totals that are kept when the server is killed while they are made and added to: those of its raw events.

Reports are asked all the time under mixed load, so that totals are wished for, made, and carried along.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import httpx2
import psycopg
import pytest

from assay.eventstore.base import EventStore, Scope
from assay.eventstore.duckdb import DuckdbStore
from assay.eventstore.postgres import PostgresStore
from contracts.rollups import answers, same
from live import Server, until
from load import Load, check, traffic_on
from postgresql import Postgres

SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 12))]
KEY = "the-admin-key"


@contextmanager
def asking(server: Server, experiments: list[int]) -> Iterator[list[int]]:
    """Reports asked one after another, as long as there is a server that answers; of which experiments."""
    over = threading.Event()
    answered: list[int] = []

    def ask() -> None:
        while not over.wait(0.3):
            for experiment in experiments:
                with suppress(httpx2.HTTPError):
                    url = f"{server.url}/api/v1/experiments/{experiment}/results"
                    found = httpx2.get(url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
                    answered.extend([experiment] if found.status_code == 200 else [])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        over.set()
        thread.join()


def kill_all(server: Server) -> None:
    """The process and, where there are such, its workers."""
    pid = server.pid
    workers = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    server.kill()
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def under_load(server: Server, seed: int, kept: Callable[[], bool]) -> list[int]:
    """Kill the server somewhen after totals are kept; the experiments that there are."""
    moments = random.Random(seed)
    traffic = traffic_on(server, seed, batch=20)
    listed = httpx2.get(f"{server.url}/api/v1/experiments", headers={"Authorization": f"Bearer {KEY}"}).json()
    experiments = [each["id"] for each in listed["experiments"]]
    with (
        Load(traffic, connections=2, rate=60, patience=60) as running,
        asking(server, experiments) as answered,
    ):
        until(lambda: len(answered) >= 4 * len(experiments), "reports", 120)
        until(kept, "totals are kept", 120)
        enough = running.answers + moments.randint(20, 150)
        until(lambda: running.answers >= enough, "answers", 120)
        kill_all(server)
        server.start()
        traffic.target.url = server.url
        more = running.answers + 20
        until(lambda: running.answers >= more, "answers", 120)
        report = running.stop()
    check(traffic, report)
    return experiments


def agree(kept: EventStore, raw: EventStore, experiments: list[int]) -> None:
    """Whether both say the same of every experiment."""
    statements = []
    for experiment in experiments:
        with kept.recorded() as recorded:
            ours = answers(kept, Scope(experiment))
        statements += [one.text for one in recorded]
        theirs = answers(raw, Scope(experiment))
        assert same(ours, theirs), f"{experiment}\n{ours}\n{theirs}"
    assert any("rollup_" in text for text in statements)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_in_the_middle__totals_in_the_file_are_those_of_its_events(seed: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data, {"ADMIN_TOKEN": KEY}) as server:
        # The file has one owner, so whether totals are kept is seen when it is gone.
        experiments = under_load(server, seed, lambda: True)
        assert server.stop() == 0
    path = data / "events.duckdb"
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM rollups").fetchall() != [(0,)]
    copy = tmp_path / "raw.duckdb"
    copy.write_bytes(path.read_bytes())
    with duckdb.connect(copy) as connection:
        connection.execute("UPDATE rollups SET form = form - 1")  # to be dropped when it is opened
    with ExitStack() as opened:
        kept, raw = DuckdbStore(path, memory="256MiB"), DuckdbStore(copy, memory="256MiB")
        opened.callback(kept.close)
        opened.callback(raw.close)
        agree(kept, raw, experiments)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_in_the_middle__totals_in_the_database_are_those_of_its_events(
    postgres: Postgres, seed: int, tmp_path: Path
) -> None:
    with postgres.database() as url:

        def rows(statement: Any) -> list[Any]:
            with psycopg.connect(url) as connection:
                return connection.execute(statement).fetchall()

        settings = {"DATABASE_URL": url, "ASSAY_WORKERS": "2", "ADMIN_TOKEN": KEY}
        with Server(tmp_path / "data", settings) as server:
            experiments = under_load(server, seed, lambda: rows("SELECT FROM rollups") != [])
            assert server.stop() == 0
        assert rows("SELECT FROM rollups") != []
        kept, raw = PostgresStore(url, memory="256MiB"), PostgresStore(url, memory="256MiB")
        raw._engine = raw._engine._replace(wishes=None)
        with ExitStack() as opened:
            opened.callback(kept.close)
            opened.callback(raw.close)
            agree(kept, raw, experiments)
            kept.maintain()
            agree(kept, raw, experiments)
