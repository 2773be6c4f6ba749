"""P5 and P11, and what happens at twice the capacity: latency beside a report, memory, refusals."""

import contextlib
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.data import EXPERIMENT, copied, prepared
from benchmarks.generator import Load
from benchmarks.load import Paced, load, paced
from benchmarks.paths import Plan
from benchmarks.servers import KEY, Assay
from benchmarks.table import number
from benchmarks.traffic import WEIGHTS, Traffic
from benchmarks.wire import Target

#: Seconds in which the peak is looked for.
_PEAK_SECONDS = 4
#: Connections of an overload: more than may wait at a time (`assay.hotpath.admission.MOST_WAITING`).
_CROWD = 8000


#: Requests of one path, with the few others that it needs; everything there is, bulk and batches included.
_PATHS: dict[str, Mapping[str, int]] = {
    "repeat assignment": {"first": 1, "repeat": 19},
    "first assignment": {"first": 1},
    "single event": {"first": 1, "event": 19},
    "all kinds": WEIGHTS,
}


def latency(plan: Plan) -> str:
    """P5: each path at half of its peak, alone and while reports on all events are computed anew."""
    directory = copied(prepared(plan.work, plan.users, plan.events), plan.work / "running")
    lines = [
        f"### P5 · latency at half of a path's peak, {plan.users:,} users, {plan.events:,} events\n",
        "| path | peak/s | beside | answers/s | p50 ms | p99 ms | p99.9 ms | wrong | reports | s each |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with Assay(directory, core=None) as server:
        server.wait()
        server.settle()
        server.calm()
        path = f"/api/v1/experiments/{EXPERIMENT}/report?refresh=true&metrics=purchase,revenue"
        server.json("GET", path)
        for name, weights in _PATHS.items():
            traffic = Traffic(
                Target(f"http://127.0.0.1:{server.port}", KEY), seed=1, weights=weights, salt=name[:2]
            )
            peak = Load(traffic, connections=plan.connections).run(_PEAK_SECONDS).rate
            for beside in ("nothing", "reports"):
                server.settle()
                server.calm()
                took: list[float] = []
                with _asking(server, path, took) if beside == "reports" else contextlib.nullcontext():
                    seen = Load(traffic, connections=2 * plan.connections, rate=peak / 2).run(
                        max(3 * plan.seconds, 10)
                    )
                ranks = " | ".join(number(seen.latency().percentile(share)) for share in (0.5, 0.99, 0.999))
                each = f"{len(took)} | {number(sum(took) / len(took))}" if took else "| "
                lines.append(
                    f"| {name} | {number(peak)} | {beside} | {number(seen.rate)} | {ranks} | {seen.wrong} "
                    f"| {each} |"
                )
    lines.append("\n- goal: p99 within 10 ms")
    lines.append("- the load runs on the server's two cores, and its own waiting counts as latency")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _asking(server: Assay, path: str, took: list[float]) -> Iterator[None]:
    """One report after another meanwhile; the seconds of each go into `took`."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            began = time.monotonic()
            server.json("GET", path)
            took.append(time.monotonic() - began)

    reader = threading.Thread(target=ask)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


def overload(plan: Plan) -> str:
    """First assignments at capacity, from a crowd, from a crowd while the disk hangs, and calm again."""
    options = {"path": "first", "check": "size", "size": 0, "key": KEY, "users": 0}
    options["target"] = f"/api/v1/experiments/{EXPERIMENT}/assignment/"
    rows = []
    turns = (
        ("capacity", 256, False),
        ("a crowd", _CROWD, False),
        ("a crowd, and the disk hangs", _CROWD, True),
        ("calm again", 16, False),
    )
    directory = copied(prepared(plan.work, 0, 0), plan.work / "running")
    with Assay(directory, core=plan.server_core) as server:
        server.wait()
        server.calm()
        for turn, (name, connections, hangs) in enumerate(turns):
            before, used = server.answers(), server.cpu()
            began = time.monotonic()
            with _stalled(directory / "assay.db") if hangs else contextlib.nullcontext():
                seen = load(
                    server.port,
                    plan.seconds,
                    connections=connections,
                    core=plan.load_core,
                    salt=f"n{turn}-{time.time_ns():x}-",
                    seed=turn,
                    **options,
                )
            seconds, used = time.monotonic() - began, server.cpu() - used
            counts = {status: count - before.get(status, 0) for status, count in server.answers().items()}
            taken, refused = counts.get(200, 0), counts.get(503, 0)
            rows.append(
                f"| {name} | {connections:,} | {number(taken / seconds)} | {number(refused / seconds)} | "
                f"{number(1e6 * used / max(taken + refused, 1))} | {number(seen.p50)} | {number(seen.p99)} | "
                f"{_resident(server.pid):.0f} |"
            )
            if not turn:
                server.settle()
    return "\n".join(
        [
            "### Overload · first assignments, one core\n",
            "| | connections | 200 a second | 503 a second | CPU µs an answer | p50 ms | p99 ms | MiB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


def doubled(plan: Plan) -> str:
    """First assignments at twice the rate that the server can take, and at half of it before and after."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * _CROWD, most), most))
    rows = []
    directory = copied(prepared(plan.work, 0, 0), plan.work / "running")
    with Assay(directory, core=None) as server:
        server.wait()
        server.calm()

        def ask(connections: int, seconds: int, pause: float) -> Paced:
            return paced(
                server.port,
                seconds,
                connections=connections,
                pause=max(int(1000 * pause), 1),
                target=f"/api/v1/experiments/{EXPERIMENT}/assignment/",
                salt=f"n{time.time_ns():x}-",
                key=KEY,
            )

        ask(256, 1, 0)
        capacity = ask(256, _PEAK_SECONDS, 0).taken
        # Of the time from request to request some goes by waiting for the answer: more where many ask.
        turns = (
            ("half", 256, plan.seconds, 512 / capacity - 0.01),
            ("twice", _CROWD, 2 * plan.seconds, _CROWD / 2 / capacity - 0.2),
            ("half, at once after that", 256, plan.seconds, 512 / capacity - 0.01),
        )
        for name, connections, seconds, pause in turns:
            used = server.cpu()
            seen = ask(connections, seconds, pause)
            cpu = 1e6 * (server.cpu() - used) / max(seen.asked * seconds, 1)
            rows.append(
                f"| {name} | {connections:,} | {number(seen.asked)} | {number(seen.taken)} | "
                f"{number(seen.refused)} | {number(cpu)} | {number(seen.first)} | {number(seen.p50)} | "
                f"{number(seen.p99)} | {_resident(server.pid):.0f} | {seen.wrong} |"
            )
    return "\n".join(
        [
            f"### Overload · twice the capacity of {number(capacity)} first assignments/s\n",
            (
                "| load | connections | asked/s | 200 a second | 503 a second | CPU µs an answer "
                "| p50 ms, first second | p50 ms of 200 | p99 ms of 200 | MiB | wrong |"
            ),
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


@contextlib.contextmanager
def _stalled(database: Path) -> Iterator[None]:
    """Nothing can be written meanwhile, as on a disk that hangs."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def memory(plan: Plan) -> str:
    """P11: what the process holds when idle, and with every assignment in memory and served."""
    rows = []
    for name, users, goal in (("idle", 0, 120), (f"{plan.users:,} assignments served", plan.users, 300)):
        with Assay(copied(prepared(plan.work, users, 0), plan.work / "running"), core=None) as server:
            server.wait()
            server.calm()
            started = _resident(server.pid)
            if users:
                load(
                    server.port,
                    plan.seconds,
                    connections=plan.connections,
                    core=plan.load_core,
                    path="repeat",
                    check="json",
                    key=KEY,
                    users=users,
                    target=f"/api/v1/experiments/{EXPERIMENT}/assignment/",
                )
            rows.append(f"| {name} | {started:.0f} | {_resident(server.pid):.0f} | ≤ {goal} |")
    head = ["### P11 · resident memory\n", "| | MiB after the start | MiB afterwards | goal |"]
    return "\n".join([*head, "| --- | ---: | ---: | ---: |", *rows, ""])


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
