"""The commands on our own pages work as they are pasted, and the answers shown are the answers given."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journeys import documents
from live import Server, run

ROOT = Path(__file__).parents[2]


def unlike(shown: Any, found: Any, path: str = "$") -> Iterator[str]:
    """Where an answer is not what the page shows; the page leaves out what it likes, "…" is anything."""
    if isinstance(shown, dict) and isinstance(found, dict):
        for name, value in shown.items():
            yield from unlike(value, found.get(name, "(absent)"), f"{path}.{name}")
    elif isinstance(shown, list) and isinstance(found, list) and len(shown) == len(found):
        for place, (mine, theirs) in enumerate(zip(shown, found, strict=True)):
            yield from unlike(mine, theirs, f"{path}[{place}]")
    elif shown not in ("…", found):
        yield f"{path}: the page shows {shown!r}, the server says {found!r}"


@pytest.mark.parametrize(("page", "calls"), [("README.md", 5), ("docs/tutorial.md", 13)])
def test_page__its_commands_work_and_its_answers_are_true(server: Server, page: str, calls: int) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    # An answer stands below its command, without a word between.
    text = re.sub(r"```\n\n```json", "```\n\nresponse\n\n```json", text)
    shown = documents.parse(page, text).requests
    assert len(shown) == calls
    with server.client() as client:
        for request in shown:
            assert request.authorised
            headers = {"Content-Type": request.media} if request.media else {}
            answer = client.request(
                request.method, request.path, content=(request.raw or "").encode(), headers=headers
            )
            assert answer.status_code in {200, 201, 202}, f"{request.path}: {answer.text}"
            for expected in request.answers:
                assert list(unlike(expected, answer.json())) == [], request.path


def test_first_start__prints_the_key_once_and_keeps_it(server: Server) -> None:
    key = (server.data / "admin.key").read_text().strip()
    assert re.fullmatch(r"assay_[\w-]{40,}", key)
    assert server.output().count(key) == 1
    assert (server.data / "admin.key").stat().st_mode & 0o777 == 0o600
    server.restart()
    assert key not in server.output()
    with server.client() as client:
        assert client.get("/experiments").json() == {"experiments": [], "total": 0, "skip": 0, "limit": 100}


def test_commands__explain_themselves(tmp_path: Path) -> None:
    for command in ("serve", "migrate", "demo", "settings", "import", "keys"):
        shown = run(command, "--help", cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert f"assay {command}" in shown.stdout
