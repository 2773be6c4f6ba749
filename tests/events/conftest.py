"""A whole embedded pipeline: writer, log, drain and store on files of one directory."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.assignments.store import SqliteAssignments
from assay.durable.writer import SqliteWriter
from assay.events.drain import Drain
from assay.events.event import Event
from assay.events.log import EventLog
from assay.eventstore.duckdb import DuckdbStore
from contracts.embedded import make_hot_tables

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Pipeline:
    """Opened, closed and opened again on the same directory; the event loop runs in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "assay.db"
        if not self.path.exists():
            make_hot_tables(self.path)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.writer = SqliteWriter(self.path)
        self.writer.start()
        self.assignments = SqliteAssignments(self.writer, self.path, 1_000)
        self.log = EventLog(self.writer, self.path, memory=10_000)
        self.store = DuckdbStore(folder / "events.duckdb", memory="256MiB", threads=2)
        self.drain = Drain(self.writer, self.path, self.log, self.store)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def append(self, *events: Event) -> None:
        async def append() -> None:
            await self.log.append(list(events))

        self.run(append())

    def inbox(self) -> int:
        count: int = self.writer.run(
            lambda connection: connection.execute("SELECT count(*) FROM inbox").fetchone()[0]
        )
        return count

    def close(self) -> None:
        self.writer.close()
        self.drain.close()
        self.assignments.close()
        self.store.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)
        self.loop.close()


@pytest.fixture
def open_pipeline(tmp_path: Path) -> Iterator[Callable[[], Pipeline]]:
    opened: list[Pipeline] = []

    def open_pipeline() -> Pipeline:
        if opened:
            opened.pop().close()
        opened.append(Pipeline(tmp_path))
        return opened[-1]

    yield open_pipeline
    if opened:
        opened[-1].close()


@pytest.fixture
def pipeline(open_pipeline: Callable[[], Pipeline]) -> Pipeline:
    return open_pipeline()
