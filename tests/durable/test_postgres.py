"""Group commit on PostgreSQL: what is answered is on disk, once, whatever the database goes through."""

import asyncio
import contextlib
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import structlog

from assay.durable.lanes import Lane, Patience
from assay.durable.postgres import PostgresWriter
from assay.durable.session import Session
from assay.durable.writer import Limits
from assay.errors import Invalid, Unavailable
from live import until
from postgresql import Postgres, free_port
from proxy import Proxy

TABLE = "CREATE TABLE notes (text text PRIMARY KEY)"
INSERT = """
INSERT INTO notes (text) SELECT json_array_elements_text($1::json) ON CONFLICT DO NOTHING RETURNING 1
"""
HASTY = Patience(connect=1.0, statement=1.0, group=4.0, silence=1.0)


async def insert(session: Session, items: list[str], doubt: bool) -> Sequence[int]:
    rows = await session.fetch(INSERT, msgspec.json.encode(sorted(items)).decode())
    return [len(rows)] * len(items)


def size(item: str) -> tuple[int, int]:
    return 1, len(item)


async def make_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    await connection.close()


@pytest.fixture
def url(postgres_url: str) -> str:
    asyncio.run(make_table(postgres_url))
    return postgres_url


@contextlib.asynccontextmanager
async def started(url: str, flights: int = 2, **arguments: Any) -> AsyncIterator[tuple[PostgresWriter, Lane]]:
    writer = PostgresWriter({"dsn": url}, **arguments)
    lane = writer.lane("notes", insert, size, flights=flights)
    await writer.start()
    try:
        yield writer, lane
    finally:
        await writer.close()


async def stored(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch('SELECT text FROM notes ORDER BY text COLLATE "C"')]
    finally:
        await connection.close()


async def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - the database is watched, not this loop
            await asyncio.sleep(0.01)


async def put_until_taken(lane: Lane, item: str) -> None:
    """Repeat a request as a caller does who gets 503."""
    async with asyncio.timeout(120):
        while True:
            try:
                await lane.put(item)
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def revive(server: Postgres) -> None:
    """Start it again after a kill; a process of it may hold its memory for a moment longer."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(server.start)
            except AssertionError:
                await asyncio.to_thread(server.kill)
            else:
                return


@pytest.mark.parametrize("prepared", [True, False])
def test_rows_put_together_share_commits(url: str, prepared: bool) -> None:
    async def journey() -> None:
        async with started(url, prepared=prepared) as (writer, lane):
            await asyncio.gather(*(lane.put(f"note {number:04}") for number in range(1_000)))
            assert writer.rows == 1_000
            assert 1 <= writer.commits <= 10
            assert writer.waiting == (0, 0)
        assert await stored(url) == [f"note {number:04}" for number in range(1_000)]

    asyncio.run(journey())


def test_a_group_keeps_within_its_limit(url: str) -> None:
    async def journey() -> None:
        async with started(url, limits=Limits(rows=10)) as (writer, lane):
            await asyncio.gather(*(lane.put(f"{number}") for number in range(95)))
            assert (writer.rows, writer.commits >= 10) == (95, True)

    asyncio.run(journey())


def test_a_full_queue_refuses_with_retry_after(url: str) -> None:
    async def journey() -> None:
        async with started(url, limits=Limits(waiting_rows=5)) as (_, lane):
            waiting = [lane.put(f"{number}") for number in range(5)]
            with pytest.raises(Unavailable) as refused:
                lane.put("one too many")
            assert (refused.value.code, refused.value.retry_after) == ("queue_full", 1)
            await asyncio.gather(*waiting)
        assert await stored(url) == [f"{number}" for number in range(5)]

    asyncio.run(journey())


def test_a_caller_that_leaves_takes_nothing_with_it(url: str) -> None:
    async def journey() -> None:
        async with started(url) as (_, lane):
            leaving, staying = lane.put("left"), lane.put("stayed")
            await asyncio.sleep(0)
            leaving.cancel()
            await staying
        assert await stored(url) == ["left", "stayed"]

    asyncio.run(journey())


def test_a_row_the_database_refuses_does_no_harm_to_its_neighbours(url: str) -> None:
    async def journey() -> None:
        async with started(url) as (writer, lane):
            items = [f"{number}" for number in range(20)] + ["bad \0 letter"]
            outcomes = await asyncio.gather(*map(lane.put, items), return_exceptions=True)
            assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == [outcomes[-1]]
            assert isinstance(outcomes[-1], Invalid)
            assert writer.last_error is None
        assert len(await stored(url)) == 20

    asyncio.run(journey())


def test_closing_writes_what_is_queued_and_refuses_more(url: str) -> None:
    async def journey() -> None:
        async with started(url) as (writer, lane):
            waiting = [lane.put(f"{number:02}") for number in range(50)]
            await writer.close()
            await asyncio.gather(*waiting)
            with pytest.raises(Unavailable, match="shutting down"):
                lane.put("late")
        assert len(await stored(url)) == 50

    asyncio.run(journey())


def test_another_thread_waits_for_its_work(url: str) -> None:
    async def work(session: Session) -> int:
        await session.execute("INSERT INTO notes (text) SELECT generate_series(1, $1::int)::text", 7)
        return await session.execute("DELETE FROM notes WHERE text::int > $1", 3)

    async def bad(session: Session) -> None:
        await session.fetch("SELECT 1 / $1::int", 0)

    async def journey() -> None:
        async with started(url) as (writer, lane):
            assert await asyncio.to_thread(writer.call, work) == 4
            with pytest.raises(Unavailable, match="division by zero"):
                await asyncio.to_thread(writer.call, bad)
            await lane.put("after")
            assert writer.last_error is None

    asyncio.run(journey())


def test_two_processes_that_want_the_same_rows_do_not_hold_each_other_up(url: str) -> None:
    async def journey() -> None:
        async with started(url, flights=4) as (_, one), started(url, flights=4) as (_, two):
            items = [f"{number:03}" for number in range(400)]
            made = await asyncio.gather(
                *(one.put(item) for item in items), *(two.put(item) for item in reversed(items))
            )
            assert len(made) == 800
        assert await stored(url) == items

    asyncio.run(journey())


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to be killed and frozen."""
    with Postgres() as server:
        asyncio.run(make_table(server.url()))
        yield server


@pytest.mark.slow
def test_killed_in_the_middle_of_load_what_was_answered_is_there(own: Postgres) -> None:
    async def journey() -> None:
        answered: list[str] = []

        async def client(name: int) -> None:
            for number in range(150):
                await put_until_taken(lane, f"{name:02}-{number:03}")
                answered.append(f"{name:02}-{number:03}")

        async with started(own.url(), patience=HASTY) as (writer, lane):
            clients = [asyncio.create_task(client(name)) for name in range(16)]
            for goal in (300, 1_200):
                await eventually(lambda goal=goal: len(answered) > goal)  # type: ignore[misc]
                await asyncio.to_thread(own.kill)
                await eventually(lambda: writer.last_error is not None)
                await revive(own)
                assert set(answered) <= set(await stored(own.url()))
            await asyncio.gather(*clients)
            await eventually(lambda: writer.last_error is None)
        assert sorted(answered) == await stored(own.url())

    asyncio.run(journey())


@pytest.mark.slow
def test_a_database_that_is_away_is_known_to_be_and_comes_back(own: Postgres) -> None:
    async def journey() -> None:
        async with started(own.url(), patience=HASTY) as (writer, lane):
            await lane.put("before")
            await asyncio.to_thread(own.stop)
            await eventually(lambda: writer.last_error is not None)  # without anybody asking for anything
            with pytest.raises(Unavailable, match="nothing was stored") as refused:
                await lane.put("meanwhile")
            assert (refused.value.code, refused.value.retry_after) == ("store_unreachable", 2)
            with pytest.raises(Unavailable, match="nothing was stored"):
                await writer.run(lambda session: session.fetch("SELECT 1"))
            await asyncio.to_thread(own.start)
            await eventually(lambda: writer.last_error is None)
            await lane.put("after")
        assert await stored(own.url()) == ["after", "before"]

    asyncio.run(journey())


@pytest.mark.slow
def test_a_database_that_hangs_is_given_up_in_time_and_found_again(own: Postgres) -> None:
    async def journey() -> None:
        async with started(own.url(), patience=HASTY) as (writer, lane):
            await asyncio.gather(*(lane.put(f"before {number}") for number in range(50)))
            own.freeze()
            loop = asyncio.get_running_loop()
            began = loop.time()
            flying = [lane.put("sent")]
            await eventually(lambda: writer.waiting == (0, 0))
            outcomes = await asyncio.gather(*flying, return_exceptions=True)
            assert loop.time() - began < 10 * HASTY.group
            assert isinstance(outcomes[0], Unavailable)
            assert outcomes[0].code == "store_in_doubt"
            assert "may be stored" in outcomes[0].detail
            with pytest.raises(Unavailable, match="nothing was stored"):
                await lane.put("refused")
            own.thaw()
            await eventually(lambda: writer.last_error is None)
            await lane.put("sent")
        assert len([text for text in await stored(own.url()) if text == "sent"]) == 1
        assert "refused" not in await stored(own.url())

    asyncio.run(journey())


def test_an_answer_that_is_lost_is_asked_for_again(postgres: Postgres, url: str) -> None:
    async def journey(proxy: Proxy) -> None:
        behind = f"postgresql://postgres@127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}"
        doubts: list[bool] = []

        async def note(session: Session, items: list[str], doubt: bool) -> Sequence[int]:
            doubts.append(doubt)
            return await insert(session, items, doubt)

        writer = PostgresWriter({"dsn": behind})
        lane = writer.lane("notes", note, size)
        await writer.start()
        assert await lane.put("warm") == 1
        await asyncio.to_thread(proxy.cut_before_answer)
        assert await lane.put("lost answer") == 0  # its own first attempt had stored it
        await asyncio.to_thread(proxy.cut_before_request)
        assert await lane.put("lost question") == 1
        assert doubts == [False, False, True, False, True]
        await writer.close()
        assert await stored(url) == ["lost answer", "lost question", "warm"]

    with Proxy(postgres.port) as proxy:
        asyncio.run(journey(proxy))


def test_a_connection_that_breaks_between_two_requests_costs_nobody_anything(
    postgres: Postgres, url: str
) -> None:
    async def journey(proxy: Proxy) -> None:
        behind = f"postgresql://postgres@127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}"
        async with started(behind) as (writer, lane):
            for number in range(5):
                await lane.put(f"{number}")
                await asyncio.to_thread(proxy.drop)
            assert writer.last_error is None
        assert await stored(url) == [f"{number}" for number in range(5)]

    with Proxy(postgres.port) as proxy:
        asyncio.run(journey(proxy))


@pytest.fixture
def crowded(postgres: Postgres, url: str) -> Iterator[str]:
    """The database for a role that gets one connection and no more."""
    name = url.rpartition("/")[2]
    postgres.execute(f'CREATE ROLE "{name}" LOGIN CONNECTION LIMIT 1')
    postgres.execute(f'GRANT ALL ON notes TO "{name}"', name)
    yield url.replace("postgres@", f"{name}@")
    postgres.execute(f'DROP OWNED BY "{name}"', name)
    postgres.execute(f'DROP ROLE "{name}"')


def test_where_connections_run_out_every_lane_is_served_by_those_there_are(crowded: str, url: str) -> None:
    """Several clients on each of two lanes, so that both always have more to do."""

    async def journey() -> None:
        writer = PostgresWriter({"dsn": crowded}, patience=Patience(connect=60.0, group=60.0))
        lanes = [writer.lane(name, insert, size) for name in ("one", "two")]
        served = {lane.name: 0 for lane in lanes}

        async def client(lane: Lane, name: int) -> None:
            for number in range(50):
                await lane.put(f"{lane.name} {name} {number:02}")
                served[lane.name] += 1
                assert min(served.values()) > max(served.values()) - 100, served

        await writer.start()
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(client(lane, name) for lane in lanes for name in range(8)))
        await asyncio.gather(
            *(writer.run(lambda s: s.fetch("SELECT 1")) for _ in range(5)), lanes[0].put("x")
        )
        assert asyncio.get_running_loop().time() - began < 60  # nobody sat out the patience for a connection
        assert writer.last_error is None
        await writer.close()
        assert len(await stored(url)) == 801

    with structlog.testing.capture_logs() as logged:
        asyncio.run(journey())
    (warning,) = (each for each in logged if each["log_level"] != "info")
    assert (warning["event"], warning["open"], warning["wanted"]) == ("store.crowded", 1, 6)
    assert "too many connections" in warning["reason"]


def test_what_waits_too_long_for_the_only_connection_is_refused_with_the_reason(
    crowded: str, url: str
) -> None:
    async def journey() -> None:
        other = await asyncpg.connect(url)
        await other.execute("SELECT pg_advisory_lock(1)")
        async with started(crowded, connections=3, patience=HASTY._replace(group=1.0)) as (writer, lane):
            waits = "SELECT pg_advisory_xact_lock(1)"
            held = asyncio.create_task(writer.run(lambda session: session.fetch(waits)))
            await eventually(lambda: writer._job_running)
            await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(Unavailable, match="no more connections") as refused:
                await lane.put("late")
            assert loop.time() - began >= 1.0
            assert not held.done()
            assert (refused.value.code, refused.value.retry_after) == ("database_connections", 2)
            assert (writer.last_error, writer.waiting) == (None, (0, 0))  # others are being served
            await other.close()
            await held
            await lane.put("after")
        assert await stored(url) == ["after"]

    asyncio.run(journey())


def test_a_server_that_gives_no_connection_at_all_is_a_failure_until_it_does(
    postgres: Postgres, crowded: str, url: str
) -> None:
    name = url.rpartition("/")[2]

    async def journey() -> None:
        async with started(crowded, patience=HASTY) as (writer, lane):
            await lane.put("before")
            postgres.execute(f'ALTER ROLE "{name}" CONNECTION LIMIT 0')
            postgres.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"
            )
            await eventually(lambda: writer.last_error is not None)
            with pytest.raises(Unavailable, match="no more connections") as refused:
                await lane.put("meanwhile")
            assert (refused.value.code, refused.value.retry_after) == ("database_connections", 2)
            postgres.execute(f'ALTER ROLE "{name}" CONNECTION LIMIT 1')
            await eventually(lambda: writer.last_error is None)
            await lane.put("after")
        assert await stored(url) == ["after", "before"]

    asyncio.run(journey())


def test_a_database_that_takes_no_writes_says_so_until_it_does(postgres: Postgres, url: str) -> None:
    name = url.rpartition("/")[2]

    async def cut(writer: PostgresWriter, name: str) -> None:
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with contextlib.suppress(Unavailable):  # which of them hears of it is not the point
            await writer.run(lambda session: session.fetch("SELECT 1"))

    async def journey() -> None:
        async with started(url, connections=1) as (writer, lane):
            await lane.put("before")
            postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            await cut(writer, name)
            with pytest.raises(Unavailable, match="takes no writes: nothing was stored") as refused:
                await lane.put("meanwhile")
            assert refused.value.code == "store_readonly"
            assert writer.last_error is not None
            postgres.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            await cut(writer, name)
            await put_until_taken(lane, "after")
            assert writer.last_error is None
        assert await stored(url) == ["after", "before"]

    asyncio.run(journey())


@pytest.fixture
def small_disk(own: Postgres, tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, on which the table `notes` of `own` lies."""
    folder = own.directory / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        if own.user is not None:
            shutil.chown(folder, own.user)
        own.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        own.execute("ALTER TABLE notes SET TABLESPACE small")
        yield folder
    finally:
        own.kill()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_forgotten_when_there_is_room(own: Postgres, small_disk: Path) -> None:
    seeded = random.Random(1)  # what repeats itself would be stored in a few bytes

    async def journey() -> None:
        async with started(own.url()) as (writer, lane):
            await lane.put("before")
            filler = small_disk / "filler"
            with contextlib.suppress(OSError):
                filler.write_bytes(b"x" * 8_000_000)
            large = sorted(seeded.randbytes(1_000).hex() for _ in range(30))
            outcomes = await asyncio.gather(*map(lane.put, large), return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
            assert len(refused) == len(large)
            assert refused[0].detail == "The database's disk is full: nothing was stored."
            assert (refused[0].code, writer.last_error) == ("store_full", refused[0])
            assert await stored(own.url()) == ["before"]
            filler.unlink()
            await asyncio.gather(*map(lane.put, large))
            assert writer.last_error is None
        assert await stored(own.url()) == sorted([*large, "before"])

    asyncio.run(journey())


def test_a_full_disk_is_full_until_something_could_be_written(own: Postgres, small_disk: Path) -> None:
    """However long nobody has asked for anything: that it can be read says nothing."""
    own.execute("ALTER ROLE CURRENT_USER SET temp_tablespaces = small")
    seeded = random.Random(1)

    async def journey() -> None:
        async with started(own.url(), patience=Patience(silence=0.001)) as (writer, lane):
            filler = small_disk / "filler"
            with contextlib.suppress(OSError):
                filler.write_bytes(b"x" * 8_000_000)
            large = [seeded.randbytes(1_000).hex() for _ in range(30)]
            await asyncio.gather(*map(lane.put, large), return_exceptions=True)
            refused = writer.last_error
            assert refused is not None
            assert refused.code == "store_full"
            await eventually(lambda: writer.last_error is not refused)  # it was tried once more
            assert writer.last_error is not None
            assert writer.last_error.code == "store_full"
            filler.unlink()
            await eventually(lambda: writer.last_error is None)

    asyncio.run(journey())


@pytest.fixture
def pooled(postgres: Postgres, url: str, tmp_path: Path) -> Iterator[str]:
    """The same database behind PgBouncer, which gives each transaction one of three connections."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    name = url.rpartition("/")[2]
    port = free_port()
    (tmp_path / "users").write_text('"postgres" ""\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host=127.0.0.1 port={postgres.port} dbname={name}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {tmp_path}/users\npool_mode = transaction\ndefault_pool_size = 3\n"
        "server_round_robin = 1\nmax_client_conn = 200\n"
    )
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o755)
    arguments = [program, "-u", "nobody"] if Path("/proc/self").owner() == "root" else [program]
    process = subprocess.Popen(
        [*arguments, str(tmp_path / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    behind = f"postgresql://postgres@127.0.0.1:{port}/{name}"

    def answers() -> bool:
        async def ask() -> None:
            connection = await asyncpg.connect(behind, statement_cache_size=0)
            await connection.close()

        try:
            asyncio.run(ask())
        except OSError:
            return False
        return True

    try:
        until(answers, "PgBouncer takes connections")
        yield behind
    finally:
        process.kill()
        process.wait(60)


def test_behind_a_pooler_of_transactions_every_row_is_stored(pooled: str, url: str) -> None:
    async def journey() -> None:
        async with contextlib.AsyncExitStack() as stack:
            lanes = [
                (await stack.enter_async_context(started(pooled, flights=4, prepared=False)))[1]
                for _ in range(4)
            ]

            async def client(name: int) -> None:
                for number in range(40):
                    assert await lanes[name % 4].put(f"{name:02}-{number:02}") >= 1

            await asyncio.gather(*(client(name) for name in range(32)))
        assert len(await stored(url)) == 32 * 40

    asyncio.run(journey())


def test_prepared_statements_behind_a_pooler_are_refused_with_the_reason(pooled: str) -> None:
    async def journey() -> None:
        with pytest.raises(Unavailable, match="unsupported startup parameter"):
            async with started(pooled):
                pass

    asyncio.run(journey())
