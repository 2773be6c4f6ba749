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


class Paced(NamedTuple):
    """What a load saw whose connections pause before each request. Times in milliseconds."""

    asked: float
    """Requests answered or refused, a second."""
    taken: float
    """Answers with 200 a second."""
    refused: float
    """Answers with 503 a second, each with its `Retry-After`."""
    wrong: int
    p50: float
    p99: float
    """Of the answers with 200, as the other two."""
    p999: float
    first: float
    """The median of those asked for in the first second."""


def load(port: int, seconds: int, *, connections: int, core: int, **options: object) -> Loaded:
    """Run one stretch against a port; `options` are those of `load.lua`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen, _, sample, wrong = _wrk(port, seconds, connections, ("taskset", "-c", str(core)), 1, options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Loaded(
        seen["requests"],
        seen["micros"] / 1e6,
        wrong,
        sample,
        seen["p50"] / 1e3,
        seen["p99"] / 1e3,
        cpu / (seen["micros"] / 1e6),
    )


def paced(port: int, seconds: int, *, connections: int, pause: int, **options: object) -> Paced:
    """First assignments from so many connections, each pausing `pause` milliseconds after every answer.

    Refused or answered, a client asks again at the same pace: a crowd much larger than what can wait asks at
    the rate of connections by pause, whatever the server does.
    """
    given = {**options, "path": "first", "pause": pause}
    seen, found, _, wrong = _wrk(port, seconds, connections, (), 2, given)
    time = seen["micros"] / 1e6
    ranks = (found["p50"], found["p99"], found["p999"], found["first"])
    return Paced(seen["requests"] / time, found["taken"] / time, found["refused"] / time, wrong, *ranks)


def _wrk(
    port: int,
    seconds: int,
    connections: int,
    before: tuple[str, ...],
    threads: int,
    options: dict[str, object],
) -> tuple[dict[str, int], dict[str, int], str, int]:
    """One run: its results, those of a paced one, a sample of what was wrong, and how often that was."""
    options.setdefault("now", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    command = [*before, "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}", "-s", str(_SCRIPT)]
    command += [f"http://127.0.0.1:{port}/", "--", *(f"{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = {word: rest for word, _, rest in (line.partition(" ") for line in done.stdout.splitlines())}
    if done.returncode or "RESULT" not in lines:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    seen, found = (
        {name: int(value) for name, value in _RESULT.findall(lines.get(word, ""))}
        for word in ("RESULT", "PACED")
    )
    wrong = seen["wrong"] + seen["broken"] + max(seen["requests"] - seen["checked"], 0)
    return seen, found, lines.get("WRONG", ""), wrong
