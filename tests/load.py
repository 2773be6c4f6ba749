"""The load generator of `benchmarks/` for tests, which find it in the checkout as in the source archive.

traffic = traffic_on(server, seed=1)
with Load(traffic, connections=16) as running: …
check(traffic, running.stop())
"""

import sys
from pathlib import Path
from typing import Any

from live import Server

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.generator import Load
from benchmarks.ledger import DOUBT, HALF, PLAIN, REFUSED, STORED, UNSENT, Assigned, Findings, Ledger
from benchmarks.seen import Histogram, Report
from benchmarks.traffic import WEIGHTS, Traffic
from benchmarks.wire import Target

__all__ = [
    "DOUBT",
    "HALF",
    "PLAIN",
    "REFUSED",
    "STORED",
    "UNSENT",
    "WEIGHTS",
    "Assigned",
    "Findings",
    "Histogram",
    "Ledger",
    "Load",
    "Report",
    "Target",
    "Traffic",
    "check",
    "memory",
    "traffic_on",
]


def traffic_on(server: Server, seed: int, **options: Any) -> Traffic:
    """Mixed traffic for a running server; makes its experiments. `options` are those of `Traffic`."""
    return Traffic(Target(server.url, server.key), seed=seed, **options)


def check(traffic: Traffic, report: Report) -> Findings:
    """No answer was wrong, nobody gave up, and everything acknowledged is there, once; what was read back."""
    assert report.wrong == 0, report.samples
    findings = traffic.ledger.verify(traffic.target)
    assert not findings, findings
    return findings


def memory(pid: int) -> float:
    """MiB of memory that a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
