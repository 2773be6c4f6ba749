"""House rules that no linter knows, checked on the syntax tree: prints each breach, exits 1 if there is one.

A line that has to break a rule says so: `# house: allow <rule> because …`.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "assay"


class Breach(NamedTuple):
    """A rule broken at a line."""

    path: Path
    line: int
    rule: str
    why: str


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Every `owner.method(…)`, as the call, the owner's last name and the method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Attribute | ast.Name):
                yield node, owner.attr if isinstance(owner, ast.Attribute) else owner.id, node.func.attr
            else:
                yield node, "", node.func.attr


def commits(room: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """A transaction ends in one place of the catalog and one of the writer, so that nothing is half done."""
    if room not in {"catalog/database.py", "durable/writer.py"}:
        for call, _, method in _calls(tree):
            if method == "commit":
                yield call.lineno, "only catalog/database.py and durable/writer.py commit"


def clocks(room: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Pure rooms are told the time, so that a test can tell them any time."""
    if room.startswith(("bucketing/", "stats/")) or room == "events/accept.py":
        for call, owner, method in _calls(tree):
            if (owner, method) in {("datetime", "now"), ("datetime", "utcnow"), ("date", "today")} or (
                owner == "time" and method in {"time", "time_ns", "monotonic", "perf_counter"}
            ):
                yield call.lineno, f"{owner}.{method}() in a pure room; take `now` as an argument"


def inner_imports(room: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """An import inside a function hides a cycle; only third-party weight may be put off like that.

    The command line is on top, where no cycle can be, and `assay --help` should not load a server.
    """
    if room in {"cli.py", "cli_offline.py"}:
        return
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                for name in names:
                    if name.partition(".")[0] == "assay":
                        yield node.lineno, f"{name} imported inside {function.name}()"


RULES: dict[str, Callable[[str, ast.AST], Iterator[tuple[int, str]]]] = {
    "commits": commits,
    "clocks": clocks,
    "inner-imports": inner_imports,
}


def breaches(path: Path, room: str, text: str) -> Iterator[Breach]:
    """What one file breaks; `room` is its path below the package."""
    lines = text.splitlines()
    tree = ast.parse(text, str(path))
    for rule, check in RULES.items():
        for line, why in sorted(set(check(room, tree))):
            if f"# house: allow {rule} because " not in lines[line - 1]:
                yield Breach(path, line, rule, why)


def main() -> int:
    """Check the whole package."""
    found = [
        breach
        for path in sorted(SOURCE.rglob("*.py"))
        for breach in breaches(path, path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8"))
    ]
    for breach in found:
        print(f"{breach.path}:{breach.line}: [{breach.rule}] {breach.why}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
