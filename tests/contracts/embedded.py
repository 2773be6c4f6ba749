"""The two hot tables of `assay.db`, for tests of the rooms that use them without the catalog."""

import sqlite3
from pathlib import Path

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
