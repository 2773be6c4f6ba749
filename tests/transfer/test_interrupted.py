"""`assay transfer` killed at any moment, and repeated: as if it had never been interrupted."""

import contextlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from live import environment, run, until
from postgresql import Postgres
from transfer.conftest import Made
from transfer.installation import swell

ASSIGNMENTS, EVENTS = 60_000, 250_000
#: What the target says of itself at moments in which the command is killed.
MOMENTS = {
    "begun": "SELECT count(*) FROM transfer",
    "assignments": "SELECT count(*) FROM transfer_tables WHERE name = 'assignments' AND rows >= {rows}",
    "catalog": "SELECT count(*) FROM transfer_tables WHERE name = 'phases'",
    "events": "SELECT count(*) FROM transfer_tables WHERE name = 'events' AND rows >= {rows}",
    "indexes": "SELECT count(*) FROM pg_indexes WHERE indexname = 'uq_events_event_id_user_id' AND EXISTS "
    "(SELECT 1 FROM transfer_tables WHERE name = 'events')",
    "analyzed": "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'events' AND last_analyze IS NOT NULL",
}


@pytest.fixture(scope="module")
def large(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("large") / "data"
    shutil.copytree(made.data, data, ignore=shutil.ignore_patterns("*.sock"))
    swell(data, assignments=ASSIGNMENTS, events=EVENTS)
    return data


@pytest.fixture(scope="module")
def expected(large: Path, postgres: Postgres) -> dict[str, tuple[int, str]]:
    """What there is after a transfer that nobody interrupted."""
    with postgres.database() as url:
        transfer(large, url)
        return sums(url)


def transfer(data: Path, url: str) -> str:
    done = run("transfer", "--data", data, "--to", url, cwd=data.parent)
    assert done.returncode == 0, done.stderr
    return done.stderr


def sums(url: str) -> dict[str, tuple[int, str]]:
    """Rows of every table and a digest of them; and where numbering goes on."""
    found = {}
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 2200"
        )
        for (name,) in tables.fetchall():
            if name != "transfer":
                row_text = 'CAST(t AS TEXT) COLLATE "C"'
                digest = f"coalesce(md5(string_agg({row_text}, '|' ORDER BY {row_text})), '')"
                row = connection.execute(f"SELECT count(*), {digest} FROM {name} AS t".encode()).fetchone()
                assert row is not None
                found[name] = (row[0], row[1])
        counters = connection.execute("SELECT sequencename, coalesce(last_value, 0) FROM pg_sequences")
        found |= {name: (value, "") for name, value in counters.fetchall()}
        indexes = connection.execute("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        found |= {f"index {name}": (0, text) for name, text in indexes.fetchall()}
    return found


def reached(url: str, question: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            row = connection.execute(question.encode()).fetchone()
        except psycopg.errors.UndefinedTable:
            return False
        return row is not None and bool(row[0])


@contextlib.contextmanager
def begun(data: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "assay", "transfer", "--data", str(data), "--to", url]
    with subprocess.Popen(
        command,
        cwd=data.parent,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(data: Path, url: str, question: str) -> bool:
    """Kill the command when the target says so; whether it had not ended before."""
    with begun(data, url) as process:
        until(lambda: process.poll() is not None or reached(url, question), question, 120)
        alive = process.poll() is None
        process.kill()
        process.wait(60)
    return alive


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again__the_end_is_the_same(
    seed: int, large: Path, expected: dict[str, tuple[int, str]], postgres_url: str
) -> None:
    drawn = random.Random(seed)
    names = sorted(drawn.sample(list(MOMENTS), 3), key=list(MOMENTS).index)
    struck = 0
    for name in names:
        rows = drawn.randrange({"assignments": ASSIGNMENTS, "events": EVENTS}.get(name, 1))
        struck += killed(large, postgres_url, MOMENTS[name].format(rows=rows))
    assert struck
    transfer(large, postgres_url)
    assert sums(postgres_url) == expected
    assert "Everything was transferred" in transfer(large, postgres_url)


@pytest.mark.slow
def test_a_source_that_went_on_meanwhile__is_copied_anew(
    large: Path, tmp_path: Path, postgres_url: str
) -> None:
    data = Path(shutil.copytree(large, tmp_path / "data", ignore=shutil.ignore_patterns("*.sock")))
    assert killed(data, postgres_url, MOMENTS["catalog"])
    done = run("keys", "create", "later", "--data", data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "it begins anew" in transfer(data, postgres_url)
    with psycopg.connect(postgres_url) as connection:
        names = connection.execute("SELECT name FROM api_keys").fetchall()
    assert ("later",) in names


@pytest.mark.slow
def test_a_half_copied_target_that_somebody_wrote_to__is_refused(large: Path, postgres_url: str) -> None:
    assert killed(large, postgres_url, MOMENTS["catalog"])
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO catalog_version VALUES (7, 1) ON CONFLICT DO NOTHING")
    done = run("transfer", "--data", large, "--to", postgres_url, cwd=large.parent)
    assert done.returncode == 1
    assert "somebody else has written there" in done.stderr


@pytest.mark.slow
def test_a_copy_that_differs__is_an_error_and_stays_unfinished(large: Path, postgres_url: str) -> None:
    assert killed(large, postgres_url, MOMENTS["events"].format(rows=1))
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE assignments SET variant_id = 3 - variant_id WHERE unit_id = 'many-17'")
    done = run("transfer", "--data", large, "--to", postgres_url, cwd=large.parent)
    assert done.returncode == 1
    assert "not what the data directory holds: assignments." in done.stderr
    assert "differs" in done.stderr
    transfer(large, postgres_url)
    with psycopg.connect(postgres_url) as connection:
        stored = connection.execute("SELECT variant_id FROM assignments WHERE unit_id = 'many-17'").fetchall()
    assert len(stored) == 1


@pytest.mark.slow
def test_the_database_goes_away_in_the_middle__it_goes_on__and_copies_nothing_again(large: Path) -> None:
    with Postgres() as server:
        url = server.url()
        with begun(large, url) as process:
            until(lambda: reached(url, MOMENTS["events"].format(rows=1)), "events begin to arrive", 120)
            server.kill()
            assert process.wait(60) == 1
        server.start()
        said = transfer(large, url)
        assert "An interrupted transfer goes on." in said
        assert "\nassignments:" not in said
        [events] = [line for line in said.splitlines() if line.startswith("events:")]
        assert int(events.split()[1].replace(",", "")) < EVENTS
