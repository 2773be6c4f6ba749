"""The calls that pages print do, as they are printed, what the page says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from assay.dashboard.snippets import calls
from live import Server

#: The client that is printed is the one most people have; ours answers to its name.
_HTTPX = "import sys\nimport httpx2\nsys.modules['httpx'] = httpx2\n"


def _program(language: str, text: str, key: str, folder: Path) -> Sequence[str | Path]:
    """What runs a printed call, given the key as its reader would."""
    if language == "curl":
        return ["bash", "-c", f"{text} --fail --silent"]
    file = folder / ("call.py" if language == "Python" else "call.mjs")
    before = f"{_HTTPX}KEY = {key!r}\n" if language == "Python" else f"const KEY = {key!r};\n"
    file.write_text(before + text, encoding="utf-8")
    return [sys.executable if language == "Python" else "node", file]


def _run(language: str, text: str, key: str, folder: Path) -> None:
    done = subprocess.run(
        _program(language, text, key, folder),
        env={**os.environ, "KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_three_printed_calls_lead_to_a_first_result(server: Server, tmp_path: Path, language: str) -> None:
    program = {"curl": "curl", "JavaScript": "node"}.get(language)
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"there is no {program} on this machine")
    found = calls(server.url, "first-experiment", "signup")
    for step in (found.create, found.assign, found.track):
        _run(language, dict(step)[language], server.key, tmp_path)
    with server.client() as client:
        report = client.get("/api/v1/experiments/first-experiment/report").json()
    assert report["total_units"] == 1
    assert sum(arm["converters"] for arm in report["metrics"][0]["variants"]) == 1
