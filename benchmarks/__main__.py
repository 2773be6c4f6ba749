"""`python -m benchmarks [name …]`: run these benchmarks, or all, and print a table for each."""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import paths, reports, startup
from benchmarks.paths import Plan

ALL: dict[str, Callable[[Plan], str]] = {**paths.ALL, "report": reports.report, "startup": startup.startup}


def machine() -> str:
    """What the numbers come from, in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load average at the start {load:.1f}"
    )


def main() -> None:
    """Run what is named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of: {', '.join(ALL)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="length of one round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=10_000_000, help="stored for the report")
    parser.add_argument("--stored", type=int, default=10_000_000, help="stored when single events come in")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument(
        "--no-typical", action="store_true", help="leave out the typical service, which is slow"
    )
    parser.add_argument("--work", type=Path, help="where to keep prepared data for the next time")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ALL]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(ALL)}")
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        parser.error("needs wrk and taskset: apt install wrk util-linux")
    with tempfile.TemporaryDirectory(prefix="assay-benchmarks-") as temporary:
        plan = Plan(
            work=(arguments.work or Path(temporary)).absolute(),
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            connections=arguments.connections,
            users=arguments.users,
            events=arguments.events,
            stored=arguments.stored,
            server_core=arguments.server_core,
            load_core=arguments.load_core,
            typical=not arguments.no_typical,
        )
        plan.work.mkdir(parents=True, exist_ok=True)
        print(f"{machine()}\n")
        for name in arguments.names or ALL:
            try:
                print(ALL[name](plan), flush=True)
            except Exception as error:
                print(f"### {name}\n\ncould not be measured: {error}\n", flush=True)
                if arguments.names:
                    raise
    sys.exit(0)


if __name__ == "__main__":
    main()
