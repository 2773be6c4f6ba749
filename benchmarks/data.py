"""Data directories that already hold something: made once for each size, copied for each benchmark."""

import shutil
import sqlite3
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.servers import Assay, run_assay

EXPERIMENT = "bench"
#: Half of all events are views, a twelfth purchases; the rarer types make up twenty kinds in all.
COMMON = ("view", "click", "add_to_cart", "purchase")
RARE = tuple(f"kind_{number:02d}" for number in range(16))

_ASSIGNMENTS = """
COPY (
  SELECT
    printf('u%07d', i) AS user_id,
    CASE WHEN i % 2 = 1 THEN 'treatment' ELSE 'control' END AS variant,
    $start::TIMESTAMP + to_microseconds(CAST(random() * 14 * 86400e6 AS BIGINT)) AS assigned_at
  FROM range($users) AS numbers (i)
) TO '{path}' (FORMAT parquet)
"""
_EVENTS = """
COPY (
  SELECT
    CAST(uuid() AS VARCHAR) AS event_id,
    printf('u%07d', CAST(floor(random() * $users) AS BIGINT)) AS user_id,
    CASE
      WHEN kind < 0.5 THEN 'view'
      WHEN kind < 0.75 THEN 'click'
      WHEN kind < 0.87 THEN 'add_to_cart'
      WHEN kind < 0.95 THEN 'purchase'
      ELSE printf('kind_%02d', CAST(floor((kind - 0.95) * 319.9) AS BIGINT))
    END AS type,
    $start::TIMESTAMP + to_microseconds(CAST((i + random()) / $events * 28 * 86400e6 AS BIGINT)) AS timestamp,
    CASE WHEN kind >= 0.87 AND kind < 0.95 THEN round(5 + 95 * random(), 2) END AS value
  FROM (SELECT i, random() AS kind FROM range($events) AS numbers (i)) AS drawn
) TO '{path}' (FORMAT parquet)
"""


def define(server: Assay) -> None:
    """Create and start the experiment all benchmarks use, with twenty metrics, two of them on purchases."""
    conversions = [kind for kind in (*COMMON, *RARE) if kind != "purchase"][:18]
    body = {
        "key": EXPERIMENT,
        "name": EXPERIMENT,
        "variants": [
            {"name": "control", "allocation": 0.5, "is_control": True},
            {"name": "treatment", "allocation": 0.5},
        ],
        "metrics": [
            "purchase",
            {"key": "revenue", "name": "revenue", "type": "revenue", "event_type": "purchase"},
            *conversions,
        ],
        "primary_metric": "purchase",
    }
    server.json("POST", "/api/v1/experiments", body)
    server.json("POST", f"/api/v1/experiments/{EXPERIMENT}/start")


def parquet(work: Path, users: int, events: int) -> tuple[Path, Path]:
    """Files of assignments and events, made if they are not there."""
    work.mkdir(parents=True, exist_ok=True)
    assignments, stored = work / f"assignments-{users}.parquet", work / f"events-{users}-{events}.parquet"
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=30)
    parameters = {"users": users, "start": start}
    for path, statement, extra in ((assignments, _ASSIGNMENTS, {}), (stored, _EVENTS, {"events": events})):
        if not path.exists():
            unfinished = path.with_suffix(".part")
            duckdb.execute(statement.format(path=unfinished), {**parameters, **extra})
            unfinished.rename(path)
    return assignments, stored


def prepared(work: Path, users: int, events: int) -> Path:
    """A data directory with this many assignments and events in it, imported by `assay import`."""
    directory = work / f"assay-{users}-{events}"
    marker = directory.with_suffix(".ready")
    if marker.exists():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    with Assay(directory, core=None) as server:
        server.wait()
        define(server)
    files = parquet(work, users, events)
    for kind, file, rows in zip(("assignments", "events"), files, (users, events), strict=True):
        if rows:
            began = time.perf_counter()
            run_assay("import", kind, str(file), "--experiment", EXPERIMENT, "--data", str(directory))
            print(f"imported {rows:,} {kind} in {time.perf_counter() - began:.1f} s\n", flush=True)
    marker.touch()
    return directory


def copied(source: Path, target: Path) -> Path:
    """A copy of a data directory that a benchmark may change."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    return target


def fill_typical(database: Path, users: int) -> None:
    """The same users in the tables of the typical service, which has made them already."""

    def rows() -> Iterable[tuple[str, int, str]]:
        for number in range(users):
            yield f"u{number:07d}", 1 + number % 2, "2026-01-01 00:00:00.000000"

    with sqlite3.connect(database) as connection:
        statement = (
            "INSERT INTO assignments (experiment_id, user_id, variant_id, assigned_at) VALUES (1, ?, ?, ?)"
        )
        connection.executemany(statement, rows())
    connection.close()
