"""A soak: half the peak for minutes on end with reports running, and whether anything drifts.

Every answer is looked at and everything acknowledged is read back in the end. Memory, file descriptors and
latency are taken every second; the verdict is their slope over the second half, where caches have filled.
"""

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.generator import Load
from benchmarks.paths import Plan
from benchmarks.seen import Report
from benchmarks.servers import KEY, Assay
from benchmarks.table import number
from benchmarks.traffic import Traffic
from benchmarks.wire import Target

_PEAK_SECONDS = 8
_REPORT_EVERY = 3.0
#: What a process may gain in ten minutes of the second half before it is called drift.
_MOST_MIB, _MOST_FILES = 64.0, 8.0
#: How much slower, or dearer, an answer of the last quarter of the time may be than one of the second.
_SLOWER = 1.5

#: Caches small enough to be full before the second half, so that what still grows there is a leak.
_BOUNDS = {"CACHE_MAX_SIZE": "100000", "REPORT_MEMORY": "256MiB"}


class Sample(NamedTuple):
    """The server and its children at one moment.

    Seconds since the beginning, MiB, open files, and processor seconds used since the start.
    """

    at: float
    memory: float
    files: int
    cpu: float


class Watch:
    """Takes samples of a process tree, and reads a report every few seconds, until it is closed."""

    def __init__(self, pid: int, target: Target, experiment: int) -> None:
        self.samples: list[Sample] = []
        self.reports: list[tuple[float, float]] = []
        """When a report was asked for, and the seconds it took."""
        self.failed: list[str] = []
        self._pid, self._target, self._experiment = pid, target, experiment
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=work) for work in (self._sample, self._ask)]
        for thread in self._threads:
            thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(1):
            found = [_process(pid) for pid in _tree(self._pid)]
            memory, files, cpu = (sum(column) for column in zip(*found, strict=True))
            self.samples.append(Sample(time.monotonic() - self._began, memory, int(files), cpu))

    def _ask(self) -> None:
        path = f"/api/v1/experiments/{self._experiment}/report?metrics=buy&metrics=view&refresh=true"
        while not self._ended.wait(_REPORT_EVERY):
            began = time.monotonic()
            status, body = self._target.call("GET", path)
            self.reports.append((began - self._began, time.monotonic() - began))
            if status != 200:
                self.failed.append(f"{status} {body[:200]!r}")

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(FileNotFoundError):  # it ended while this was looking
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _tree(int(child))


def _process(pid: int) -> tuple[float, float, float]:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0, 0.0, 0.0
    cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024, files, cpu


def slope(points: list[tuple[float, float]]) -> float:
    """The least-squares gain for each second; 0 where there are fewer than two moments."""
    if len({at for at, _ in points}) < 2:
        return 0.0
    middle = sum(at for at, _ in points) / len(points)
    level = sum(value for _, value in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return sum((at - middle) * (value - level) for at, value in points) / spread


def soak(plan: Plan) -> str:
    """Find the peak, run at half of it, and read everything back."""
    url = plan.database
    environment = {"ASSAY_WORKERS": str(plan.workers), **_BOUNDS, **({"DATABASE_URL": url} if url else {})}
    with Assay(plan.work / "soak", core=None, **environment) as server:
        server.wait()
        target = Target(f"http://127.0.0.1:{server.port}", KEY)
        traffic = Traffic(target, seed=1)
        Load(traffic, connections=plan.connections).run(2)
        peak = Load(traffic, connections=plan.connections * 2).run(_PEAK_SECONDS)
        server.settle()
        watch = Watch(server.pid, target, traffic.ledger.experiments[0].id)
        try:
            seen = Load(traffic, connections=plan.connections * 4, rate=peak.rate / 2).run(plan.minutes * 60)
        finally:
            watch.close()
        began = time.monotonic()
        findings = traffic.ledger.verify(target)
        took = time.monotonic() - began
    asked = len(watch.reports)
    title = f"{plan.minutes:g} minutes at half of the peak of {number(peak.rate)} answers/s, reports running"
    counted = (
        f"{seen.answers:,} answers, wrong {seen.wrong + peak.wrong}, lost {len(seen.losses)}; "
        f"{asked} reports, failed {len(watch.failed)}; the load took {seen.cpu / seen.seconds:.0%} of a core"
    )
    bounds = ", ".join(f"{name}={value}" for name, value in _BOUNDS.items())
    kept = (
        f"read back in {took:.0f} s: {findings.assignments:,} assignments, {findings.events:,} events; "
        f"not as acknowledged: {findings.count}"
    )
    faults = [*peak.samples, *seen.samples, *findings.said, *watch.failed][:10]
    notes = [counted, bounds, kept, *_verdicts(seen, watch), *(f"WRONG {each}" for each in faults)]
    return f"### Soak · {title}\n\n{_table(seen, watch)}\n\n" + "".join(f"- {note}\n" for note in notes)


def _table(seen: Report, watch: Watch) -> str:
    """A line for each minute, or for each sixth of a shorter run."""
    whole = len(seen.windows)
    step = 60 if whole >= 240 else max(whole // 6, 1)
    head = [
        "from s",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "memory MiB",
        "open files",
        "slowest report s",
        "answers per core second",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{' ---: |' * len(head)}"]
    for start in range(0, whole - step // 2, step):
        part = slice(start, start + step)
        latency = seen.latency(windows=part)
        counts = [window.statuses.total() for window in seen.windows[part]]
        samples = [each for each in watch.samples if start <= each.at < start + step]
        reports = [took for at, took in watch.reports if start <= at < start + step]
        cells = [
            str(start),
            number(sum(counts) / len(counts)),
            *(number(latency.percentile(share)) for share in (0.5, 0.99, 0.999)),
            number(max((each.memory for each in samples), default=math.nan)),
            str(max((each.files for each in samples), default=0)),
            number(max(reports, default=math.nan)),
            number(_per_core_second(seen, watch, part)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _per_core_second(seen: Report, watch: Watch, part: slice) -> float:
    """Answers for each second of processor time the server had: what neighbours take away does not count."""
    used = [each.cpu for each in watch.samples if part.start <= each.at < part.stop]
    if len(used) < 2 or used[-1] <= used[0]:
        return math.nan
    return sum(window.statuses.total() for window in seen.windows[part]) / (used[-1] - used[0])


def _verdicts(seen: Report, watch: Watch) -> list[str]:
    half = seen.seconds / 2
    late = [each for each in watch.samples if each.at >= half]
    memory = slope([(each.at, each.memory) for each in late]) * 600
    files = slope([(each.at, float(each.files)) for each in late]) * 600
    quarter = max(len(seen.windows) // 4, 1)
    parts = slice(quarter, 2 * quarter), slice(3 * quarter, 4 * quarter)
    second, last = (seen.latency(windows=part).percentile(0.5) for part in parts)
    cheap, dear = (_per_core_second(seen, watch, part) for part in parts)
    return [
        f"memory gains {memory:+.1f} MiB in ten minutes: {_word(memory <= _MOST_MIB)}",
        f"open files gain {files:+.1f} in ten minutes: {_word(files <= _MOST_FILES)}",
        f"the last quarter's cost {cheap / dear:.2f} × the second's: {_word(cheap <= _SLOWER * dear)}",
        f"p50 of the last quarter is {last / second:.2f} × the second's: {_word(last <= _SLOWER * second)}",
    ]


def _word(flat: bool) -> str:
    return "flat" if flat else "DRIFTS"
