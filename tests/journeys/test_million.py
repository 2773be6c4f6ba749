"""A million simulated users and ten million events from Parquet: the report counts what the files hold."""

import os
from pathlib import Path
from typing import Any

import duckdb
import pytest

from live import Server, run

#: Share of the full size; 1 on the build machine, less while working.
SCALE = float(os.environ.get("TEST_MILLION") or ("1" if os.environ.get("CI") else "0.02"))
USERS = int(1_000_000 * SCALE)
EVENTS = 10 * USERS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Users with a variant each, and events: some of them before the assignment, some by strangers."""
    folder = tmp_path_factory.mktemp("million")
    assignments, events = folder / "assignments.parquet", folder / "events.parquet"
    with duckdb.connect() as engine:
        engine.execute(
            f"""
            COPY (
              SELECT 'user-' || i AS user_id,
                     CASE WHEN hash(i, 1) % 2 = 0 THEN 'control' ELSE 'new' END AS variant,
                     TIMESTAMP '2026-03-01' + to_seconds((hash(i, 2) % 864000)::BIGINT) AS assigned_at
              FROM range({USERS}) AS users (i)
            ) TO '{assignments}' (FORMAT parquet);
            COPY (
              SELECT 'user-' || (hash(i, 3) % {USERS + USERS // 20})::BIGINT AS user_id,
                     CASE hash(i, 4) % 10 WHEN 0 THEN 'purchase' WHEN 1 THEN 'click' ELSE 'view' END AS type,
                     TIMESTAMP '2026-03-01' + to_seconds((hash(i, 5) % 1728000)::BIGINT)
                       + to_microseconds(1 + (hash(i, 6) % 999998)::BIGINT) AS timestamp,
                     ((hash(i, 7) % 10000) / 100.0)::DOUBLE AS value
              FROM range({EVENTS}) AS events (i)
            ) TO '{events}' (FORMAT parquet);
            """
        )
    return assignments, events


def direct(files: tuple[Path, Path]) -> dict[tuple[str, str], tuple[int, int, float]]:
    """Events, users and value for each variant and event type: one plain query over the files."""
    with duckdb.connect() as engine:
        rows = engine.execute(
            f"""
            SELECT a.variant, e.type, count(*), count(DISTINCT e.user_id), sum(e.value)
            FROM '{files[1]}' e JOIN '{files[0]}' a USING (user_id)
            WHERE e.timestamp >= a.assigned_at
            GROUP BY 1, 2
            """
        ).fetchall()
    return {(variant, kind): (events, users, value) for variant, kind, events, users, value in rows}


def units(files: tuple[Path, Path]) -> dict[str, int]:
    """Users for each variant."""
    with duckdb.connect() as engine:
        return dict(engine.execute(f"SELECT variant, count(*) FROM '{files[0]}' GROUP BY 1").fetchall())


@pytest.mark.slow
def test_million_users__the_report_counts_what_the_files_hold(
    server: Server, files: tuple[Path, Path]
) -> None:
    with server.client() as client:
        made = client.post(
            "/api/v1/experiments",
            json={
                "name": "Million",
                "key": "million",
                "variants": [{"name": "control", "allocation": 0.5}, {"name": "new", "allocation": 0.5}],
                "metrics": ["purchase", {"key": "revenue", "type": "revenue", "event": "purchase"}],
            },
        )
        assert made.status_code == 201, made.text
        assert client.post("/api/v1/experiments/million/start").status_code == 200
        for kind, file in zip(("assignments", "events"), files, strict=True):
            done = run(
                "import",
                kind,
                file,
                "--experiment",
                "million",
                "--data",
                server.data,
                cwd=server.data,
                seconds=500,
            )
            assert done.returncode == 0, done.stderr
        want, sizes = direct(files), units(files)
        for kind in ("purchase", "click", "view"):
            query = {"event_type": kind, "primary_event_type": kind}
            found: dict[str, Any] = client.get(
                "/experiments/million/results", params=query, timeout=120
            ).json()
            assert found["summary"]["total_assigned"] == USERS
            for arm in found["variants"]:
                events, users, value = want[arm["variant_name"], kind]
                assert arm["assigned_count"] == sizes[arm["variant_name"]]
                assert (arm["primary_event_count"], arm["primary_unique_users"]) == (events, users)
                assert arm["primary_conversion_rate"] == users / sizes[arm["variant_name"]]
                flat = found["variant_stats"][arm["variant_name"]]
                if kind == "purchase":
                    assert flat["metrics"]["total_revenue"] == pytest.approx(value, rel=1e-9)
