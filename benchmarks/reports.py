"""P7: the report on many events, against the best single statement written by hand."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from assay.eventstore.base import Measure, Scope
from assay.eventstore.duckdb import DuckdbStore
from benchmarks.data import COMMON, EXPERIMENT, RARE, copied, prepared
from benchmarks.paths import Plan
from benchmarks.servers import Assay
from benchmarks.table import Line, number, table

_ONE = """
SELECT u.variant_id, u.users, c.converters, c.events, c.total,
  c.total / u.users AS mean, (c.squares - c.total * c.total / u.users) / (u.users - 1) AS variance
FROM (SELECT variant_id, count(*) AS users FROM assignments WHERE experiment_id = 1 GROUP BY 1) AS u
JOIN (
  SELECT variant_id, count(*) AS converters, sum(n) AS events, sum(t) AS total, sum(t * t) AS squares
  FROM (
    SELECT a.seq, a.variant_id, count(*) AS n, sum(e.amount) AS t
    FROM events e JOIN assignments a ON a.unit_id = e.user_id
    WHERE a.experiment_id = 1 AND e.type = 'purchase' AND e.occurred_at >= a.assigned_at
    GROUP BY a.seq, a.variant_id
  ) AS per_user
  GROUP BY 1
) AS c USING (variant_id)
ORDER BY 1
"""
_TWENTY = """
SELECT u.variant_id, c.type, u.users, c.converters, c.events, c.total,
  c.total / u.users AS mean, (c.squares - c.total * c.total / u.users) / (u.users - 1) AS variance
FROM (SELECT variant_id, count(*) AS users FROM assignments WHERE experiment_id = 1 GROUP BY 1) AS u
JOIN (
  SELECT variant_id, type, count(*) AS converters, sum(n) AS events, sum(t) AS total, sum(t * t) AS squares
  FROM (
    SELECT a.seq, a.variant_id, e.type, count(*) AS n, sum(e.amount) AS t
    FROM events e JOIN assignments a ON a.unit_id = e.user_id
    WHERE a.experiment_id = 1 AND e.occurred_at >= a.assigned_at
    GROUP BY a.seq, a.variant_id, e.type
  ) AS per_user
  GROUP BY 1, 2
) AS c USING (variant_id)
ORDER BY 1, 2
"""
_SCOPE = Scope(1)
_MEASURES = tuple(Measure(kind, kind) for kind in (*COMMON, *RARE))
_PURCHASE = (Measure("purchase", "purchase"),)

Row = tuple[int, int, int, float]  # variant, users, converters, total


def _by_hand(path: Path, statement: str) -> tuple[float, list[Row]]:
    with duckdb.connect(str(path), read_only=True, config={"memory_limit": "1GiB"}) as connection:
        connection.execute(statement).fetchall()
        began = time.perf_counter()
        found = connection.execute(statement).fetchall()
        took = time.perf_counter() - began
    return took, [(row[0], row[1], row[2], row[4]) for row in found]


def _moments(path: Path, measures: tuple[Measure, ...]) -> tuple[float, list[Row]]:
    store = DuckdbStore(path)
    try:
        store.moments(_SCOPE, measures)
        began = time.perf_counter()
        arms = store.moments(_SCOPE, measures)
        took = time.perf_counter() - began
    finally:
        store.close()
    bought = [(arm.variant_id, arm.units, arm.measures["purchase"]) for arm in arms]
    return took, [(variant, users, one.converters, one.total) for variant, users, one in bought]


def _served(directory: Path, rounds: int) -> dict[str, tuple[list[float], Any]]:
    """The report over HTTP, computed anew each time: one metric pair, and all twenty."""
    asked = {
        "report over HTTP, 2 metrics": "&metrics=purchase,revenue",
        "report over HTTP, 20 metrics": "",
    }
    seen: dict[str, tuple[list[float], Any]] = {}
    with Assay(directory, core=None) as server:
        server.wait()
        for name, which in asked.items():
            path = f"/api/v1/experiments/{EXPERIMENT}/report?refresh=true{which}"
            answer = server.json("GET", path)
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                server.json("GET", path)
                times.append(time.perf_counter() - began)
            seen[name] = times, answer
    return seen


def report(plan: Plan) -> str:
    """Users, converters, sum and variance of revenue by variant, over events after assignment."""
    directory = copied(prepared(plan.work, plan.users, plan.events), plan.work / "running")
    path = directory / "events.duckdb"
    contestants: dict[str, Callable[[], tuple[float, list[Row]]]] = {
        "by hand, 1 metric": lambda: _by_hand(path, _ONE),
        "moments, 1 metric": lambda: _moments(path, _PURCHASE),
        "by hand, 20 metrics": lambda: _by_hand(path, _TWENTY),
        "moments, 20 metrics": lambda: _moments(path, _MEASURES),
    }
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, list[Row]] = {}
    for _ in range(plan.rounds):
        for name, ask in contestants.items():
            took, answers[name] = ask()
            seen[name].append(took)
    wrong = [
        name
        for name in ("moments, 1 metric", "moments, 20 metrics")
        if not _same(answers[name], answers["by hand, 1 metric"])
    ]
    served = _served(directory, plan.rounds)
    seen.update({name: times for name, (times, _) in served.items()})
    goals = {"moments, 1 metric": "≤ 1.3"}
    lines = [Line(name, values, goal=goals.get(name, "")) for name, values in seen.items()]
    title = f"P7 · report, {plan.users:,} users, {plan.events:,} events"
    twenty = median(seen["moments, 20 metrics"]) / median(seen["moments, 1 metric"])
    by_hand = median(seen["moments, 20 metrics"]) / median(seen["by hand, 20 metrics"])
    return table(title, "seconds", lines, yardstick="by hand, 1 metric") + (
        f"\n- 20 metrics take {number(twenty)} × one (goal 3), {number(by_hand)} × the statement by hand\n"
        f"- the numbers by hand and ours {'DIFFER: ' + ', '.join(wrong) if wrong else 'are the same'}\n"
    )


def _same(ours: list[Row], theirs: list[Row]) -> bool:
    return len(ours) == len(theirs) and all(
        a[:3] == b[:3] and math.isclose(a[3], b[3], rel_tol=1e-9)
        for a, b in zip(sorted(ours), sorted(theirs), strict=True)
    )
