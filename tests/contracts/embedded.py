"""The embedded event pipeline and the two hot tables of `assay.db`, for tests without the catalog."""

import asyncio
import sqlite3
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from assay.assignments.sqlite import SqliteAssignments
from assay.durable.writer import SqliteWriter
from assay.events.drain import Drain
from assay.events.event import Event
from assay.events.sqlite import SqliteEventLog
from assay.eventstore.duckdb import DuckdbStore

HOT_TABLES = """
CREATE TABLE assignments (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  experiment_id INTEGER NOT NULL,
  unit_id TEXT NOT NULL,
  variant_id INTEGER NOT NULL,
  phase INTEGER NOT NULL,
  assigned_at INTEGER NOT NULL,
  UNIQUE (experiment_id, unit_id)
);
CREATE TABLE inbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  count INTEGER NOT NULL,
  body TEXT NOT NULL
);
"""


def make_hot_tables(path: Path) -> None:
    """Create the file at `path` with both tables, in the journal mode the program uses."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(HOT_TABLES)
    connection.close()


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
        self.store = DuckdbStore(folder / "events.duckdb", memory="256MiB", threads=2)
        self.log = SqliteEventLog(self.writer, self.path, self.store.recent_keys, memory=10_000)
        self.drain = Drain(self.writer, self.path, self.log.notes, self.store)

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
