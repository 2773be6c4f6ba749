"""`python -m benchmarks [name …]`: run these benchmarks, or all, and print a table for each."""

import argparse
import contextlib
import io
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import limits, paths, postgresql, reports, rollups, soak, startup
from benchmarks.paths import Plan


def bucketing(plan: Plan) -> str:
    """Evaluation in process, beside an SDK."""
    from benchmarks import bucketing as room

    return room.bucketing(plan)


def stats(_plan: Plan) -> str:
    """The statistics of one comparison."""
    from benchmarks import stats as room

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        room.main()
    return f"### Statistics\n\n{said.getvalue()}"


ALL: dict[str, Callable[[Plan], str]] = {
    **paths.ALL,
    "report": reports.report,
    "rollups": rollups.rollups,
    "latency": limits.latency,
    "overload": limits.overload,
    "doubled": limits.doubled,
    "memory": limits.memory,
    "startup": startup.startup,
    "bucketing": bucketing,
    "stats": stats,
}
#: Minutes long, so only when they are named.
LONG: dict[str, Callable[[Plan], str]] = {"soak": soak.soak}


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
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"any of: {', '.join((*ALL, *LONG))}; default: all but the last",
    )
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
    parser.add_argument("--minutes", type=float, default=10, help="length of the soak")
    parser.add_argument(
        "--database",
        default="",
        help="`postgresql`: first, event, batch, rollups and soak on one started for them; or the soak's "
        "DATABASE_URL; default: embedded",
    )
    parser.add_argument("--workers", type=int, default=1, help="server processes of the soak")
    parser.add_argument("--work", type=Path, help="where to keep prepared data for the next time")
    parser.add_argument(
        "--save", action="store_true", help="keep the tables in docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    known = {**ALL, **LONG}
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    short = set(arguments.names or ALL) & set(ALL)
    if short and (shutil.which("wrk") is None or shutil.which("taskset") is None):
        parser.error("needs wrk and taskset: apt install wrk util-linux")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-benchmarks-"))
        postgres = None
        if arguments.database == "postgresql":
            postgres = stack.enter_context(postgresql.own())
            arguments.database = stack.enter_context(postgres.database())
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
            minutes=arguments.minutes,
            database=arguments.database,
            workers=arguments.workers,
            postgres=postgres,
        )
        plan.work.mkdir(parents=True, exist_ok=True)
        said = [f"{datetime.now(UTC):%Y-%m-%d}, {machine()}.\n"]
        print(said[0])
        for name in arguments.names or ALL:
            try:
                said.append(known[name](plan))
            except Exception as error:
                if arguments.names:
                    raise
                said.append(f"### {name}\n\ncould not be measured: {error}\n")
            print(said[-1], flush=True)
    if arguments.save:
        save("\n".join(said))


def save(text: str) -> None:
    """Put the tables in place of those of the last run in the documentation."""
    page = Path(__file__).parent.parent / "docs/explanation/performance.md"
    before, begin, rest = page.read_text().partition("<!-- last run -->\n")
    _, end, after = rest.partition("<!-- end of last run -->\n")
    if not begin or not end:
        raise SystemExit(f"{page} has lost its markers.")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
