"""P7 and P8: reports from totals that are kept, on more and more events, and what keeping them costs."""

import time
import uuid
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median
from typing import Any

import msgspec
import psycopg

from assay.eventstore.base import Arm, Measure, Position, Scope
from assay.eventstore.duckdb import DuckdbStore
from assay.eventstore.postgres import PostgresStore
from benchmarks import postgresql
from benchmarks.data import COMMON, RARE, copied, prepared
from benchmarks.paths import Plan
from benchmarks.table import number

_SCOPE = Scope(1)
_PURCHASE = (Measure("purchase", "purchase"),)
_TWENTY = tuple(Measure(kind, kind) for kind in (*COMMON, *RARE))
_PORTION = 100_000
_ROW = 50_000
_ASSIGN = """
INSERT INTO assignments (experiment_id, unit_id, variant_id, phase, assigned_at)
SELECT 1, 'u' || lpad(n::text, 7, '0'), 10 + n %% 2, 0, 0 FROM generate_series(0, %(users)s - 1) AS n
"""
# Every twelfth is a purchase, as in the mix of the other events.
_RECORD = """
INSERT INTO events (event_id, keyed, user_id, type, occurred_at, counts_until, received_at, amount)
SELECT
  gen_random_uuid(), false, 'u' || lpad(floor(random() * %(users)s)::text, 7, '0'),
  CASE WHEN n %% 12 = 0 THEN 'purchase' ELSE 'view' END, n, n, n,
  CASE WHEN n %% 12 = 0 THEN 5 + 95 * random() END
FROM generate_series(1, %(events)s) AS n
"""


def rollups(plan: Plan) -> str:
    """A table for each size up to `--events`: 1M, 10M, 50M."""
    sizes = sorted({min(size, plan.events) for size in (1_000_000, 10_000_000, 50_000_000)})
    of_size = _of_size if plan.postgres is None else _on_postgres
    return "\n".join(of_size(plan, events) for events in sizes)


def _on_postgres(plan: Plan, events: int) -> str:
    """The same where totals follow behind the events; the processor time is the database's."""
    with plan.postgres.database() as url:
        store = PostgresStore(url)
        try:
            store.prepare()
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(_ASSIGN, {"users": plan.users})
                times = _Times(partial(postgresql.cpu, plan.postgres))
                connection.execute(_RECORD, {"users": plan.users, "events": events})
                connection.execute("VACUUM ANALYZE events, assignments")
                return _followed(plan, store, connection, times, events)
        finally:
            store.close()


def _followed(
    plan: Plan, store: PostgresStore, connection: psycopg.Connection[Any], times: "_Times", events: int
) -> str:
    ask = partial(store.moments, _SCOPE, _PURCHASE)
    for _ in range(2):
        scanned = times.of("scan", ask)
    times.of("make", store.maintain)
    for _ in range(plan.rounds):
        read = times.of("read", ask)
    if _counts(scanned) != _counts(read):
        return f"\n- WRONG: {events:,} events have other totals when they are kept\n"
    for _ in range(plan.rounds):
        connection.execute(_RECORD, {"users": plan.users, "events": _PORTION})
        times.of("read, 100,000 events behind", ask)
        times.of("fold 100,000 events", store.maintain)
    title = f"P7, P8 · totals that are kept, PostgreSQL, {plan.users:,} users, {events:,} events"
    return f"### {title}\n\n{times.table('scan')}"


def _of_size(plan: Plan, events: int) -> str:
    directory = copied(prepared(plan.work, plan.users, events), plan.work / "running")
    store = DuckdbStore(directory / "events.duckdb")
    try:
        return _measured(plan, store, events)
    finally:
        store.close()


def _measured(plan: Plan, store: DuckdbStore, events: int) -> str:
    times = _Times()
    portions = _Portions(store.position(), plan.users)
    for _ in range(plan.rounds):
        portion = portions.next()
        times.of("append 100,000 events, nothing kept", partial(store.append, *portion))
    for count, measures in ((1, _PURCHASE), (20, _TWENTY)):
        ask = partial(store.moments, _SCOPE, measures)
        for _ in range(2):  # from the second time on they are kept
            scanned = times.of(f"scan, {count} of 20 types", ask)
        times.of(f"make, {count} of 20 types", store.maintain)
        for _ in range(plan.rounds):
            read = times.of(f"read, {count} of 20 types", ask)
        if _counts(scanned) != _counts(read):
            return f"\n- WRONG: {events:,} events have other totals when they are kept\n"
        for _ in range(plan.rounds):
            portion = portions.next()
            times.of(f"append 100,000 events, {count} kept", partial(store.append, *portion))
    title = f"P7, P8 · totals that are kept, {plan.users:,} users, {events:,} events"
    return f"### {title}\n\n{times.table('scan, 1 of 20 types')}"


class _Times:
    """What was timed: on a shared machine processor time says more than the clock."""

    def __init__(self, busy: Callable[[], float] = time.process_time) -> None:
        self._busy = busy
        self._seen: dict[str, list[tuple[float, float]]] = {}

    def of(self, name: str, do: Callable[[], Any]) -> Any:
        """Do it, and note how long it took."""
        began, busy = time.perf_counter(), self._busy()
        found = do()
        took = time.perf_counter() - began, self._busy() - busy
        self._seen.setdefault(name, []).append(took)
        return found

    def table(self, yardstick: str) -> str:
        """A line for each thing that was done."""
        base = min(busy for _, busy in self._seen[yardstick])
        lines = [
            f"| what | ms, median | processor ms, least | × {yardstick} |",
            "| --- | ---: | ---: | ---: |",
        ]
        for name, times in self._seen.items():
            wall, busy = median(wall for wall, _ in times), min(busy for _, busy in times)
            lines.append(f"| {name} | {number(1e3 * wall)} | {number(1e3 * busy)} | {busy / base:.2f} |")
        return "\n".join(lines) + "\n"


def _counts(arms: list[Arm]) -> list[object]:
    return [
        (arm.variant_id, arm.units, [(key, one.converters, one.events) for key, one in arm.measures.items()])
        for arm in arms
    ]


class _Portions:
    """New portions of the log behind a position, with the mix of events of `benchmarks.data`."""

    def __init__(self, position: Position, users: int) -> None:
        self._row = max(position.events >> 16, 0)
        self._assigned = position.assignments
        self._users = users
        self._random = Random(1)
        self._now = time.time_ns() // 1_000

    def next(self) -> tuple[Position, str]:
        """The position after a portion, and its events."""
        rows = []
        for _ in range(_PORTION // _ROW):
            self._row += 1
            rows.append({"q": self._row, "i": 0, "b": [self._event() for _ in range(_ROW)]})
        return Position(self._row << 16 | 0xFFFF, self._assigned), msgspec.json.encode(rows).decode()

    def _event(self) -> dict[str, object]:
        kind = self._random.choices((*COMMON, *RARE), (50, 25, 12, 8, *(5 / 16 for _ in RARE)))[0]
        user = f"u{self._random.randrange(self._users):07}"
        amount = {"a": round(5 + 95 * self._random.random(), 2)} if kind == "purchase" else {}
        made = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        return {"e": made, "u": user, "t": kind, "s": self._now, "r": self._now, **amount}
