"""Workers, whole servers and PostgreSQL itself killed under mixed load: nothing acknowledged is lost.

The load goes on all the time, as clients do: what got no answer, or a 503, is sent again with the same ids.
Every answer is looked at as it comes, and in the end everything is read back.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live import Server, until
from load import Findings, Load, check, traffic_on
from postgresql import Postgres, free_port

ROUNDS = 3
WORKERS = 2


def seeds(*everyday: int, to: int) -> list[Any]:
    """Some seeds for every day, and those up to `to` for the night."""
    night = (seed for seed in range(1, to) if seed not in everyday)
    return [*everyday, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in night)]


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A PostgreSQL that this test may kill."""
    with Postgres() as running:
        yield running


def server_on(url: str, data: Path, **more: str) -> Server:
    settings = {"DATABASE_URL": url, "ASSAY_WORKERS": str(WORKERS), "ADMIN_TOKEN": "the-admin-key", **more}
    return Server(data, settings)


def knows(server: Server, experiment: int) -> bool:
    """Whether the workers' rules hold an experiment; each connection may be another worker's."""
    for _ in range(8):
        with server.client() as client:
            if client.get(f"/api/v1/experiments/{experiment}/explain/nobody").status_code != 200:
                return False
    return True


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def kill_worker(server: Server, moments: random.Random) -> None:
    """Take one worker away; the parent replaces it."""
    before = until(lambda: now if len(now := children(server.pid)) == WORKERS else None, "all workers live")
    victim = moments.choice(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in (now := children(server.pid)) and len(now) == WORKERS, "it is replaced")


def kill_server(server: Server, _: random.Random | None = None) -> None:
    """Take the parent away and all workers, and start again."""
    workers = children(server.pid)
    server.kill()
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    until(lambda: all(map(gone, workers)), "the workers are gone")
    server.start()


def go_on(running: Load, answers: int) -> None:
    """Wait until so many more answers have come."""
    enough = running.answers + answers
    until(lambda: running.answers >= enough, f"{answers} more answers", 120)


def under_load(
    server: Server, seed: int, strike: Callable[[], None], *, losses: int = 0, rounds: int = ROUNDS
) -> Findings:
    """Mixed load with `strike` several times in its middle, and what was read back after it."""
    moments = random.Random(seed)
    traffic = traffic_on(server, seed)
    with Load(traffic, connections=16, patience=60) as running:
        for _ in range(rounds):
            go_on(running, moments.randint(50, 2000))
            strike()
            traffic.target.url = server.url
        go_on(running, 300)
        report = running.stop()
    assert len(report.losses) >= losses
    assert "request.failed" not in server.output()
    found = check(traffic, report)
    assert found.assignments > 50
    assert found.events > 200
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, to=20))
def test_a_worker_killed__everything_acknowledged_is_there_once(
    postgres: Postgres, seed: int, tmp_path: Path
) -> None:
    moments = random.Random(seed)
    with postgres.database() as url, server_on(url, tmp_path / "data") as server:
        under_load(server, seed, lambda: kill_worker(server, moments), losses=1)
        assert server.stop() == 0, server.output()


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, to=20))
def test_all_workers_and_their_parent_killed__everything_acknowledged_is_there_once(
    postgres: Postgres, seed: int, tmp_path: Path
) -> None:
    with postgres.database() as url, server_on(url, tmp_path / "data") as server:
        under_load(server, seed, lambda: kill_server(server), losses=ROUNDS)
        assert server.stop() == 0, server.output()


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, to=20))
def test_postgresql_killed__everything_acknowledged_is_there_once(
    own: Postgres, seed: int, tmp_path: Path
) -> None:
    def strike() -> None:
        own.kill()
        own.start()

    with own.database() as url, server_on(url, tmp_path / "data") as server:
        workers = children(server.pid)
        under_load(server, seed, strike)
        # Nobody had to be started again.
        assert children(server.pid) == workers
        with server.client() as client:
            until(lambda: client.get("/ready").status_code == 200, "it is ready again")
        assert server.stop() == 0, server.output()


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 10))
def test_everything_killed_in_turn__everything_acknowledged_is_there_once(
    own: Postgres, seed: int, tmp_path: Path
) -> None:
    moments = random.Random(seed)

    def strike() -> None:
        which = moments.randrange(3)
        if which == 0:
            kill_worker(server, moments)
        elif which == 1:
            own.kill()
            own.start()
        else:
            own.kill()
            workers = children(server.pid)
            server.kill()
            until(lambda: all(map(gone, workers)), "the workers ended with their parent", 60)
            own.start()
            server.start()

    with own.database() as url, server_on(url, tmp_path / "data") as server:
        under_load(server, seed, strike, rounds=6)
        assert server.stop() == 0, server.output()


def holder(url: str) -> tuple[int, bool] | None:
    """The process that does the scheduled work, and whether its lease holds still."""
    clock = "extract(epoch FROM clock_timestamp()) * 1000000"
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"SELECT holder, expires_at > {clock} FROM leases WHERE name = 'schedule'"
        ).fetchone()
    return None if found is None else (int(found[0].split(":")[1]), found[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, to=10))
def test_one_of_two_machines_dies__users_keep_their_variants_and_the_other_takes_over_the_schedule(
    postgres: Postgres, seed: int, tmp_path: Path
) -> None:
    with (
        postgres.database() as url,
        server_on(url, tmp_path / "one") as one,
        server_on(url, tmp_path / "two") as two,
    ):
        until(lambda: (found := holder(url)) and found[0] in children(one.pid), "the first has the lease")
        traffic = traffic_on(one, seed)
        with Load(traffic, connections=16, patience=60) as running:
            go_on(running, random.Random(seed).randint(200, 2000))
            soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
            body = {"name": "Planned", "start_at": soon, "variants": [{"name": "a", "allocation": 1.0}]}
            planned = traffic.target.json("POST", "/api/v1/experiments", body)["id"]
            workers = children(one.pid)
            one.kill()
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            until(lambda: knows(two, planned), "the other machine knows all experiments")
            traffic.target.url = two.url
            go_on(running, 500)
            until(
                lambda: (found := holder(url)) and found[0] in children(two.pid) and found[1],
                "the second has the lease",
            )

            def started() -> bool:
                told = traffic.target.json("GET", f"/api/v1/experiments/{planned}")
                return bool(told["status"] == "running")

            until(started, "the planned experiment has started")
            report = running.stop()
        check(traffic, report)
        with psycopg.connect(url) as connection:
            starts = connection.execute(
                "SELECT count(*) FROM audit WHERE experiment_id = %s AND action = 'experiment.start'",
                [planned],
            ).fetchone()
        assert starts == (1,)
        assert two.stop() == 0, two.output()


@pytest.fixture
def pooled(own: Postgres, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A database, itself and behind PgBouncer, which gives each transaction one of a few connections."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    port = free_port()
    folder = tmp_path / "pooler"
    folder.mkdir()
    with own.database() as url:
        name = url.rpartition("/")[2]
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={own.port} dbname={name}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\ndefault_pool_size = 6\n"
            "server_round_robin = 1\nmax_client_conn = 200\n"
        )
        for path in (tmp_path, folder, *folder.iterdir()):
            path.chmod(0o755)
        arguments = [program, "-u", "nobody"] if os.geteuid() == 0 else [program]
        process = subprocess.Popen(
            [*arguments, str(folder / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        behind = f"postgresql://postgres@127.0.0.1:{port}/{name}"

        def answers() -> bool:
            try:
                psycopg.connect(behind, prepare_threshold=None, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        try:
            until(answers, "PgBouncer takes connections")
            yield url, behind
        finally:
            process.kill()
            process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, to=8))
def test_behind_a_pooler_of_transactions__a_worker_and_postgresql_killed__nothing_is_lost(
    own: Postgres, pooled: tuple[str, str], seed: int, tmp_path: Path
) -> None:
    direct, behind = pooled
    moments = random.Random(seed)
    turns = iter(range(100))

    def strike() -> None:
        if next(turns) % 2 == 0:
            kill_worker(server, moments)
        else:
            own.kill()
            own.start()

    with server_on(f"{behind}?pgbouncer=true", tmp_path / "data") as server:
        found = under_load(server, seed, strike)
        assert server.stop() == 0, server.output()
    with psycopg.connect(direct) as connection:
        stored = connection.execute("SELECT count(*) FROM assignments").fetchone()
    assert stored is not None
    assert stored[0] >= found.assignments
