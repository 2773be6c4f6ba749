"""A PostgreSQL of the benchmarks' own: that of the tests, and the processor time it takes."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def own() -> Any:
    """A server that is not started yet: `tests/postgresql.py` says what it can do."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    return importlib.import_module("postgresql").Postgres({"shared_buffers": "512MB", "max_wal_size": "4GB"})


def cpu(postgres: Any) -> float:
    """Seconds of processor time of all its processes, those that have ended included."""
    parent: int = postgres._process.pid  # noqa: SLF001 - nobody else wants to know
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return _times(str(parent), ended=True) + sum(_times(child, ended=False) for child in children)


def _times(pid: str, *, ended: bool) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11 : 15 if ended else 13])) / _TICKS
