"""P1 to P4 and P6: the paths that carry the load, against the raw handler and the typical service."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks import postgresql
from benchmarks.data import EXPERIMENT, copied, define, fill_typical, prepared
from benchmarks.load import Loaded, load
from benchmarks.servers import KEY, Assay, Raw, Server, Typical, counting_syncs
from benchmarks.table import Line, number, table

_ASSIGNMENT = f"/experiments/{EXPERIMENT}/assignment/"


@dataclass(frozen=True)
class Plan:
    """How long, how much, on which cores."""

    work: Path
    rounds: int = 3
    seconds: int = 3
    connections: int = 32
    users: int = 1_000_000
    events: int = 10_000_000
    stored: int = 1_000_000
    server_core: int = 0
    load_core: int = 1
    typical: bool = True
    minutes: float = 10
    database: str = ""
    workers: int = 1
    postgres: Any = None
    """A running PostgreSQL that the paths use instead of SQLite; see `benchmarks.postgresql`."""

    @property
    def engine(self) -> str:
        """What the contestants store in."""
        return "SQLite" if self.postgres is None else "PostgreSQL"

    def goal(self, embedded: str, shared: str) -> str:
        """The goal for what the contestants store in."""
        return embedded if self.postgres is None else shared


@dataclass
class Contestant:
    """A server and the options with which `load.lua` speaks to it."""

    name: str
    server: Server
    options: dict[str, Any]
    goal: str = ""


class Rounds:
    """Contestants taking turns, and what was seen of each."""

    def __init__(self, plan: Plan, path: str, contestants: list[Contestant], *, warm_up: int = 1) -> None:
        self.plan = plan
        self.path = path
        self.contestants = contestants
        self.seen: dict[str, list[Loaded]] = {each.name: [] for each in contestants}
        self.server_cpu: dict[str, list[float]] = {each.name: [] for each in contestants}
        self.server_share: dict[str, list[float]] = {each.name: [] for each in contestants}
        self.database_cpu: dict[str, list[float]] = {each.name: [] for each in contestants}
        for each in contestants:
            self.load(each, warm_up)
            each.server.settle()
        for _ in range(plan.rounds):
            for each in contestants:
                database = 0.0 if plan.postgres is None else postgresql.cpu(plan.postgres)
                busy, began = each.server.cpu(), time.monotonic()
                seen = self.load(each, plan.seconds)
                used = each.server.cpu() - busy
                if plan.postgres is not None:
                    self.database_cpu[each.name].append(postgresql.cpu(plan.postgres) - database)
                self.server_cpu[each.name].append(used)
                self.server_share[each.name].append(used / (time.monotonic() - began))
                self.seen[each.name].append(seen)
                each.server.settle()

    def load(self, each: Contestant, seconds: int) -> Loaded:
        """One stretch of load on one contestant."""
        salt = uuid4().hex
        return load(
            each.server.port,
            seconds,
            connections=self.plan.connections,
            core=self.plan.load_core,
            path=self.path,
            key=KEY,
            users=self.plan.users,
            salt=f"n{salt[:10]}-",
            seed=int(salt[:7], 16),
            **each.options,
        )

    def per_core_second(self, name: str) -> list[float]:
        """Answers for each second of processor time that the server had, in each round."""
        used = zip(self.seen[name], self.server_cpu[name], strict=True)
        return [seen.requests / max(cpu, 0.01) for seen, cpu in used]

    def _database(self, name: str, times: float) -> dict[str, str]:
        """What the database took beside the server, in µs for each thing."""
        used = zip(self.database_cpu[name], self.seen[name], strict=False)
        costs = [1e6 * cpu / (seen.requests * times) for cpu, seen in used]
        return {"database µs each": number(median(costs))} if costs else {}

    def lines(self, *, times: float = 1, notes: dict[str, dict[str, str]] | None = None) -> list[Line]:
        """A line for each contestant; `times` is how many things one request does."""
        lines = []
        costs = {name: [value * times for value in self.per_core_second(name)] for name in self.seen}
        for each in self.contestants:
            seen = self.seen[each.name]
            cheaper = [a / b for a, b in zip(costs[each.name], costs["raw"], strict=True)]
            wrong = sum(one.wrong for one in seen)
            said = {
                "per core second": number(median(costs[each.name])),
                "× raw per core second": f"{median(cheaper):.2f}",
                "p50 ms": number(median(one.p50 for one in seen)),
                "p99 ms": number(median(one.p99 for one in seen)),
                "server core": f"{median(self.server_share[each.name]):.0%}",
                **self._database(each.name, times),
                "load core": f"{median(one.load_share for one in seen):.0%}",
                "wrong": f"{wrong:,}",
                **(notes or {}).get(each.name, {}),
            }
            if wrong:
                print(f"WRONG ANSWERS from {each.name}: {next(one.sample for one in seen if one.wrong)}")
            lines.append(Line(each.name, [one.rate * times for one in seen], said, each.goal))
        return lines


@contextlib.contextmanager
def _assay(plan: Plan, events: int = 0, **environment: str) -> Iterator[Assay]:
    if plan.postgres is not None:
        with (
            plan.postgres.database() as url,
            Assay(plan.work / "empty", core=plan.server_core, DATABASE_URL=url, **environment) as server,
        ):
            server.wait()
            define(server)
            server.calm()
            yield server
        return
    directory = copied(prepared(plan.work, plan.users, events), plan.work / "running")
    with Assay(directory, core=plan.server_core, **environment) as server:
        server.wait()
        server.settle()
        server.calm()
        yield server


@contextlib.contextmanager
def _raw(plan: Plan, *, get: int = 300, post: int = 300) -> Iterator[Raw]:
    with Raw(core=plan.server_core, get=get, post=post) as server:
        server.wait()
        yield server


@contextlib.contextmanager
def _typical(plan: Plan, *, users: int = 0) -> Iterator[Typical]:
    directory = plan.work / "typical"
    for file in directory.glob("typical.db*"):
        file.unlink()
    with contextlib.ExitStack() as stack:
        url = ""
        if plan.postgres is not None:
            found: str = stack.enter_context(plan.postgres.database())
            url = found.replace("postgresql://", "postgresql+psycopg://")
        server = stack.enter_context(Typical(directory, core=plan.server_core, database=url))
        server.wait("/docs")
        if users:
            fill_typical(directory / "typical.db", users)
        yield server


def _contest(
    plan: Plan,
    path: str,
    assay: Assay,
    *,
    size: int,
    target: str,
    prefix: str,
    goal: str,
    typical: Typical | None,
    options: dict[str, Any] | None = None,
) -> tuple[Rounds, Contestant]:
    more = options or {}
    method = {"repeat": "get", "first": "get"}.get(path, "post")
    with _raw(plan, **{method: size}) as raw:
        ours = Contestant("assay", assay, {"check": "json", "target": prefix + target, **more}, goal)
        contestants = [
            Contestant("raw", raw, {"check": "size", "size": size, "target": prefix + target, **more})
        ]
        contestants.append(ours)
        if typical is not None:
            contestants.append(Contestant("typical", typical, {"check": "json", "target": target, **more}))
        return Rounds(plan, path, contestants), ours


def _durability(rounds: Rounds, ours: Contestant, assay: Assay, times: float = 1) -> str:
    """Syncs for each acknowledged thing, counted from outside in a stretch that is not timed."""
    if rounds.plan.postgres is not None:
        return ""  # the database confirms, in processes of its own
    before = assay.series()
    with counting_syncs(assay.pid) as syncs:
        seen = rounds.load(ours, 1)
    after = assay.series()
    assay.settle()
    commits = after.get("assay_group_commits_total", 0) - before.get("assay_group_commits_total", 0)
    acknowledged = seen.requests * times
    if not syncs.known:
        return f"{commits:,.0f} commits for {acknowledged:,.0f} acknowledgements (strace cannot be used here)"
    return (
        f"{syncs.count:,} fsyncs and {commits:,.0f} group commits for {acknowledged:,.0f} acknowledgements: "
        f"{syncs.count / max(acknowledged, 1):.3f} fsyncs each (counted by strace, which slows the server)"
    )


def _groups(assay: Assay, before: dict[str, float]) -> str:
    after = assay.series()
    commits = after.get("assay_group_commits_total", 0) - before.get("assay_group_commits_total", 0)
    rows = after.get("assay_committed_rows_total", 0) - before.get("assay_committed_rows_total", 0)
    return f"{rows / commits:,.1f} rows in a group commit" if commits else "no group commits"


def repeat(plan: Plan) -> str:
    """P1: repeat assignment, GET, uniform over all users, with the default cache."""
    with contextlib.ExitStack() as stack:
        assay = stack.enter_context(_assay(plan))
        typical = stack.enter_context(_typical(plan, users=plan.users)) if plan.typical else None
        answer = assay.call("GET", "/api/v1" + _ASSIGNMENT + "u0000001")[1]
        cold = _fill_memory(plan, assay)
        before = assay.series()
        rounds, _ = _contest(
            plan,
            "repeat",
            assay,
            size=len(answer),
            target=_ASSIGNMENT,
            prefix="/api/v1",
            goal="0.75",
            typical=typical,
        )
        after = assay.series()
        lines = rounds.lines(notes={"assay": {"cache misses": f"{_misses(before, after):.1%}"}})
        title = f"P1 · repeat assignment, uniform over {plan.users:,} users"
        return table(title, "answers/s", lines, yardstick="raw") + _note(
            f"{_groups(assay, before)} over all rounds, though nothing is written"
            if after.get("assay_group_commits_total", 0) > before.get("assay_group_commits_total", 0)
            else "",
            f"{cold:.0%} misses in the first second after the start",
            _against_typical(rounds, 60),
        )


def _misses(before: dict[str, float], after: dict[str, float]) -> float:
    hits, misses = (
        after.get(name, 0) - before.get(name, 0)
        for name in ("assay_cache_hits_total", "assay_cache_misses_total")
    )
    return misses / max(hits + misses, 1)


def _fill_memory(plan: Plan, assay: Assay) -> float:
    """Ask for users until memory holds what it is going to hold; the share of misses in the first second."""
    rounds = Rounds(replace(plan, rounds=0), "repeat", [])
    ours = Contestant("assay", assay, {"check": "json", "target": "/api/v1" + _ASSIGNMENT})
    shares: list[float] = []
    until = time.monotonic() + 90
    while time.monotonic() < until:
        before = assay.series()
        rounds.load(ours, 5 if shares else 1)
        shares.append(_misses(before, assay.series()))
        if shares[-1] < 0.01 or (len(shares) > 3 and shares[-1] > shares[-3] - 0.01):
            break
    return shares[0]


def _durable(
    plan: Plan,
    path: str,
    assay: Assay,
    title: str,
    *,
    unit: str,
    size: int,
    target: str,
    goal: str,
    typical: Typical | None = None,
    against: int = 0,
    times: int = 1,
) -> str:
    """A path whose answers wait for the disk: the contest of `times` things a request, and its commits.

    `size` is the length of an answer; `against` is how many times as fast as the typical service is the goal.
    """
    before = assay.series()
    rounds, ours = _contest(
        plan,
        path,
        assay,
        size=size,
        target=target,
        prefix="/api/v1",
        goal=goal,
        typical=typical,
        options={} if times == 1 else {"events": times},
    )
    groups = _groups(assay, before)
    text = table(title, unit, rounds.lines(times=times), yardstick="raw")
    return text + _note(groups, _durability(rounds, ours, assay, times), _against_typical(rounds, against))


def first(plan: Plan, users: int = 0) -> str:
    """P2: first assignment, durable before it is answered, with this many users in the experiment already."""
    with contextlib.ExitStack() as stack:
        assay = stack.enter_context(_assay(replace(plan, users=users)))
        typical = stack.enter_context(_typical(plan, users=users)) if plan.typical else None
        answer = assay.call("GET", "/api/v1" + _ASSIGNMENT + "nabcdefghij-10000")[1]
        return _durable(
            plan,
            "first",
            assay,
            f"P2 · first assignment, durable, {plan.engine}, {users:,} users already there",
            unit="answers/s",
            size=len(answer),
            target=_ASSIGNMENT,
            goal=plan.goal("0.45", "0.35"),
            typical=typical,
            against=60,
        )


def event(plan: Plan, stored: int = 0) -> str:
    """P3: one event a request, with the caller's random ids, durable before it is answered."""
    with contextlib.ExitStack() as stack:
        assay = stack.enter_context(_assay(plan, stored))
        typical = stack.enter_context(_typical(plan)) if plan.typical else None
        sent = {
            "event_id": str(uuid4()),
            "user_id": "u0000001",
            "type": "purchase",
            "timestamp": "2026-01-01T00:00:00.000000Z",
            "value": 12.5,
            "properties": {"currency": "EUR", "items": 2},
        }
        answer = assay.call("POST", "/api/v1/events", sent)[1]
        return _durable(
            plan,
            "event",
            assay,
            f"P3 · one event a request, durable, {plan.engine}, {stored:,} events already stored",
            unit="events/s",
            size=len(answer),
            target="/events",
            goal=plan.goal("0.40", "0.30"),
            typical=typical,
            against=40,
        )


def batch(plan: Plan, *, ids: bool) -> str:
    """P4: events in batches of 100, durable before they are answered, and how fast they reach the store."""
    size = 100
    with _assay(plan) as assay:
        sent = [
            {
                "user_id": "u0000001",
                "type": "purchase",
                "timestamp": "2026-01-01T00:00:00.000000Z",
                "value": 1.5,
            }
            for _ in range(size)
        ]
        if ids:
            for one in sent:
                one["event_id"] = str(uuid4())
        answer = assay.call("POST", "/api/v1/events", sent)[1]
        before = assay.series()
        rounds, ours = _contest(
            plan,
            "batch",
            assay,
            size=len(answer),
            target="/events",
            prefix="/api/v1",
            goal=plan.goal("200,000/s", ""),
            typical=None,
            options={"events": size, "ids": "yes" if ids else "no"},
        )
        groups = _groups(assay, before)
        title = (
            f"P4 · events in batches of {size}, durable, {plan.engine}, ids by "
            f"{'the caller' if ids else 'the server'}"
        )
        if plan.postgres is not None:  # there is nothing to drain: the row is in its table
            return table(title, "events/s", rounds.lines(times=size), yardstick="raw") + _note(groups)
        drained = [_drain(rounds, ours, assay, size) for _ in range(plan.rounds)]
        rates = [rate for rate, _, _ in drained]
        text = table(title, "events/s", rounds.lines(times=size), yardstick="raw")
        accepted = median(one.rate * size for one in rounds.seen["assay"])
        return text + _note(
            groups,
            _durability(rounds, ours, assay, size),
            f"drained to the event store: {number(median(rates))} events/s from the first request "
            f"to the last row visible, load included (min {number(min(rates))}, max {number(max(rates))}), "
            f"{median(rates) / accepted:.2f} of the accepted rate; after the load alone "
            f"{number(median(alone for _, alone, _ in drained))} events/s; "
            f"{number(median(left for _, _, left in drained))} rows of the log left when the load ended",
        )


def _drain(rounds: Rounds, ours: Contestant, assay: Assay, size: int) -> tuple[float, float, float]:
    """Events a second carried from log to store: with the load, and after it; rows left at its end."""
    began = time.monotonic()
    seen = rounds.load(ours, rounds.plan.seconds)
    ended, left = time.monotonic(), assay.series().get("assay_drain_lag_rows", 0)
    assay.settle()
    finished = time.monotonic()
    return seen.requests * size / (finished - began), left * size / max(finished - ended, 1e-9), left


def _against_typical(rounds: Rounds, goal: int) -> str:
    theirs = rounds.seen.get("typical")
    if not theirs:
        return ""
    ratio = median(a.rate / b.rate for a, b in zip(rounds.seen["assay"], theirs, strict=True))
    ours, them = rounds.per_core_second("assay"), rounds.per_core_second("typical")
    cheaper = median(a / b for a, b in zip(ours, them, strict=True))
    return f"{ratio:.0f} × typical, {cheaper:.0f} × per core second (goal {goal})"


def _note(*sentences: str) -> str:
    said = [f"- {sentence}\n" for sentence in sentences if sentence]
    return "\n" + "".join(said)


def bulk(plan: Plan) -> str:
    """P6: users nobody has asked for, a thousand in each call, durable before it is answered."""
    size = 1000
    with _assay(replace(plan, users=0)) as assay:
        users = [f"nabcdefghij-1000-{number:04d}" for number in range(size)]
        asked = {"experiments": [EXPERIMENT], "user_ids": users}
        answer = assay.call("POST", "/api/v1/assignments", asked)[1]
        return _durable(
            plan,
            "bulk",
            assay,
            f"P6 · first assignment of {size:,} users in a call, durable, {plan.engine}",
            unit="users/s",
            size=len(answer),
            target="/assignments",
            goal="100,000/s",
            times=size,
        )


ALL: dict[str, Callable[[Plan], str]] = {
    "repeat": repeat,
    "first": first,
    "first-stored": lambda plan: first(plan, plan.users),
    "event": event,
    "event-stored": lambda plan: event(plan, plan.stored),
    "batch": lambda plan: batch(plan, ids=False),
    "batch-ids": lambda plan: batch(plan, ids=True),
    "bulk": bulk,
}
