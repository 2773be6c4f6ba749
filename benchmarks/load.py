"""One stretch of load from wrk, whose every answer is checked by `load.lua`."""

import re
import resource
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_SCRIPT = Path(__file__).with_name("load.lua")
_RESULT = re.compile(r"(\w+)=(\d+)")


class Loaded(NamedTuple):
    """What one stretch of load saw. Times are in milliseconds."""

    requests: int
    seconds: float
    wrong: int
    """Answers that were not what the request asked for, and connections that broke."""
    sample: str
    p50: float
    p99: float
    load_share: float
    """How much of its core the load itself took; near 1, it is the load that is being measured."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def load(port: int, seconds: int, *, connections: int, core: int, **options: object) -> Loaded:
    """Run one stretch against a port; `options` are those of `load.lua`."""
    options.setdefault("now", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    command = [
        "taskset",
        "-c",
        str(core),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}",
        "-s",
        str(_SCRIPT),
    ]
    command += [f"http://127.0.0.1:{port}/", "--", *(f"{name}={value}" for name, value in options.items())]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    seen = {name: int(value) for name, value in _RESULT.findall(found[1])}
    wrong = seen["wrong"] + seen["broken"] + max(seen["requests"] - seen["checked"], 0)
    sample = re.search(r"^WRONG (.*)$", done.stdout, re.MULTILINE)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Loaded(
        seen["requests"],
        seen["micros"] / 1e6,
        wrong,
        sample[1] if sample else "",
        seen["p50"] / 1e3,
        seen["p99"] / 1e3,
        cpu / (seen["micros"] / 1e6),
    )
