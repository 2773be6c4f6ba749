"""Group commit: what is answered is on disk, once, and nobody's trouble is their neighbour's."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import msgspec
import pytest

from assay.durable.writer import Lane, Limits, SqliteWriter, open_connection, open_reader
from assay.errors import Unavailable

_TABLE = "CREATE TABLE notes (seq INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE)"


def _insert(connection: sqlite3.Connection, items: list[str]) -> list[int]:
    connection.execute(
        "INSERT INTO notes (text) SELECT value FROM json_each(?)", (msgspec.json.encode(items).decode(),)
    )
    return list(range(len(items)))


def _size(item: str) -> tuple[int, int]:
    return 1, len(item)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "assay.db"
    connection = open_connection(file)
    connection.execute(_TABLE)
    connection.close()
    return file


def started(path: Path, limits: Limits | None = None) -> tuple[SqliteWriter, Lane]:
    writer = SqliteWriter(path, limits or Limits())
    lane = writer.lane("notes", _insert, _size)
    writer.start()
    return writer, lane


def stored(path: Path) -> list[str]:
    reader = open_reader(path)
    try:
        return [text for (text,) in reader.execute("SELECT text FROM notes ORDER BY seq")]
    finally:
        reader.close()


def test_an_answered_row_is_readable_by_another_connection(path: Path) -> None:
    async def journey() -> list[str]:
        writer, lane = started(path)
        await lane.put("one")
        seen = stored(path)
        await asyncio.to_thread(writer.close)
        return seen

    assert asyncio.run(journey()) == ["one"]


def test_rows_put_together_share_commits_and_keep_their_order(path: Path) -> None:
    async def journey() -> tuple[list[int], int]:
        writer, lane = started(path)
        results = await asyncio.gather(*(lane.put(f"note {number}") for number in range(1000)))
        await asyncio.to_thread(writer.close)
        return results, writer.commits

    results, commits = asyncio.run(journey())
    assert stored(path) == [f"note {number}" for number in range(1000)]
    assert len(results) == 1000
    assert 1 <= commits < 1000


def test_a_group_keeps_within_its_limit(path: Path) -> None:
    async def journey() -> SqliteWriter:
        writer, lane = started(path, Limits(rows=10))
        await asyncio.gather(*(lane.put(f"note {number}") for number in range(95)))
        await asyncio.to_thread(writer.close)
        return writer

    writer = asyncio.run(journey())
    assert writer.commits >= 10
    assert writer.rows == 95
    assert writer.waiting == (0, 0)


def test_a_failed_group_tells_everybody_and_the_next_one_works(path: Path) -> None:
    async def journey() -> list[object]:
        writer, lane = started(path)
        await lane.put("taken")
        outcomes = await asyncio.gather(lane.put("taken"), return_exceptions=True)
        await lane.put("free")
        await asyncio.to_thread(writer.close)
        return outcomes

    (outcome,) = asyncio.run(journey())
    assert isinstance(outcome, Unavailable)
    assert stored(path) == ["taken", "free"]


def test_a_full_queue_refuses_with_retry_after(path: Path) -> None:
    async def journey() -> tuple[Unavailable, int]:
        writer, lane = started(path, Limits(waiting_rows=5))
        gate = threading.Event()
        blocked = asyncio.create_task(asyncio.to_thread(writer.run, lambda _: gate.wait(60)))
        waiting: list[asyncio.Future[int]] = []
        with pytest.raises(Unavailable) as refused:  # noqa: PT012 - which of them is refused is the point
            for number in range(100):
                waiting.append(lane.put(f"note {number}"))
                await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(blocked, *waiting)
        await asyncio.to_thread(writer.close)
        return refused.value, len(waiting)

    error, accepted = asyncio.run(journey())
    assert (error.code, error.status, error.retry_after) == ("queue_full", 503, 1)
    assert stored(path) == [f"note {number}" for number in range(accepted)]


def test_a_caller_that_leaves_takes_nothing_with_it(path: Path) -> None:
    async def journey() -> None:
        writer, lane = started(path)
        leaving, staying = lane.put("left"), lane.put("stayed")
        leaving.cancel()
        await staying
        await asyncio.to_thread(writer.close)

    asyncio.run(journey())
    assert stored(path) == ["left", "stayed"]


def test_closing_writes_what_is_queued_and_refuses_more(path: Path) -> None:
    async def journey() -> Unavailable:
        writer, lane = started(path)
        waiting = [lane.put(f"note {number}") for number in range(50)]
        await asyncio.to_thread(writer.close)
        await asyncio.gather(*waiting)
        with pytest.raises(Unavailable) as refused:
            lane.put("late")
        return refused.value

    assert asyncio.run(journey()).code == "shutting_down"
    assert len(stored(path)) == 50


def test_a_turn_keeps_the_writer_away_from_another_connections_transaction(path: Path) -> None:
    def hold(writer: SqliteWriter, entered: threading.Event, leave: threading.Event) -> None:
        other = open_connection(path)
        with writer.turn():
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO notes (text) VALUES ('turn')")
            entered.set()
            assert leave.wait(60)
            other.execute("COMMIT")
        other.close()

    async def journey() -> bool:
        writer, lane = started(path)
        entered, leave = threading.Event(), threading.Event()
        holding = asyncio.create_task(asyncio.to_thread(hold, writer, entered, leave))
        assert await asyncio.to_thread(entered.wait, 20)
        waiting = lane.put("after")
        for _ in range(1000):
            await asyncio.sleep(0)
        early = waiting.done()
        leave.set()
        await asyncio.gather(holding, waiting)
        await asyncio.to_thread(writer.close)
        return early

    assert asyncio.run(journey()) is False
    assert stored(path) == ["turn", "after"]


def test_a_job_that_raises_leaves_nothing_behind(path: Path) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes (text) VALUES ('half')")
        raise ValueError("no")

    writer, _ = started(path)
    with pytest.raises(ValueError, match="no"):
        writer.run(work)
    assert writer.run(lambda connection: connection.execute("SELECT count(*) FROM notes").fetchone()) == (0,)
    writer.close()


def test_the_file_is_synchronised_in_full(path: Path) -> None:
    writer, _ = started(path)

    def pragmas(connection: sqlite3.Connection) -> tuple[str, int]:
        mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
        level: int = connection.execute("PRAGMA synchronous").fetchone()[0]
        return mode, level

    assert writer.run(pragmas) == ("wal", 2)
    writer.close()


def test_a_failure_is_known_until_a_write_succeeds(path: Path) -> None:
    writer, _ = started(path)
    with pytest.raises(Unavailable):
        writer.run(lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"))
    assert writer.last_error is not None
    assert writer.last_error.status == 503
    writer.run(lambda connection: connection.execute("INSERT INTO notes (text) VALUES ('well again')"))
    assert writer.last_error is None
    writer.close()
