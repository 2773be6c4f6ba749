"""P12: from the command to the first answer, and to the help text."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.paths import Plan
from benchmarks.servers import Assay, Raw, Server, assay
from benchmarks.table import Line, table


def _first_answer(start: Callable[[], Server], path: str) -> float:
    began = time.perf_counter()
    with start() as server:
        server.wait(path)
        return time.perf_counter() - began


def _command(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def startup(plan: Plan) -> str:
    """Start on an empty directory until the first request is answered; print the help."""
    empty = plan.work / "empty"

    def ours() -> Server:
        shutil.rmtree(empty, ignore_errors=True)
        return Assay(empty, core=None)

    contestants: dict[str, tuple[Callable[[], float], str]] = {
        "raw uvicorn": (lambda: _first_answer(lambda: Raw(core=None), "/"), ""),
        "assay serve, empty directory": (lambda: _first_answer(ours, "/health"), "≤ 1.5 s"),
        "assay serve, the same again": (
            lambda: _first_answer(lambda: Assay(empty, core=None), "/health"),
            "",
        ),
        "assay --help": (lambda: _command(*assay(), "--help"), "≤ 0.3 s"),
        "python -c pass": (lambda: _command(sys.executable, "-c", "pass"), ""),
    }
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(max(plan.rounds, 5) + 1):
        for name, (measure, _) in contestants.items():
            value = measure()
            if turn:  # the first turn fills the disk cache and writes the bytecode
                seen[name].append(value)
    lines = [Line(name, seen[name], goal=goal) for name, (_, goal) in contestants.items()]
    return table("P12 · start-up", "seconds", lines, yardstick="raw uvicorn")
