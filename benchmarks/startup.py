"""P12: from the command to the first answer, and to the help text."""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from benchmarks.paths import Plan
from benchmarks.servers import Assay, Raw, Server, assay
from benchmarks.table import Line, number, table

Took = tuple[float, float]
"""Seconds by the clock, and of processor time."""


def _first_answer(start: Callable[[], Server], path: str) -> Took:
    began = time.perf_counter()
    with start() as server:
        server.wait(path)
        return time.perf_counter() - began, server.cpu()


def _command(*command: str) -> Took:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def startup(plan: Plan) -> str:
    """Start on an empty directory until the first request is answered; print the help."""
    empty = plan.work / "empty"

    def ours() -> Server:
        shutil.rmtree(empty, ignore_errors=True)
        return Assay(empty, core=None)

    contestants: dict[str, tuple[Callable[[], Took], str]] = {
        "raw uvicorn": (lambda: _first_answer(lambda: Raw(core=None), "/"), ""),
        "assay serve, empty directory": (lambda: _first_answer(ours, "/health"), "≤ 1.5 s"),
        "assay serve, the same again": (
            lambda: _first_answer(lambda: Assay(empty, core=None), "/health"),
            "",
        ),
        "assay --help": (lambda: _command(*assay(), "--help"), "≤ 0.3 s"),
        "python -c pass": (lambda: _command(sys.executable, "-c", "pass"), ""),
    }
    seen: dict[str, list[Took]] = {name: [] for name in contestants}
    for turn in range(max(plan.rounds, 5) + 1):
        for name, (measure, _) in contestants.items():
            value = measure()
            if turn:  # the first turn fills the disk cache and writes the bytecode
                seen[name].append(value)
    lines = [
        Line(
            name,
            [clock for clock, _ in seen[name]],
            {"processor seconds": number(median(used for _, used in seen[name]))},
            goal,
        )
        for name, (_, goal) in contestants.items()
    ]
    return table("P12 · start-up", "seconds", lines, yardstick="raw uvicorn")
