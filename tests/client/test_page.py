"""The examples of the client's page run as they stand there."""

import re
from pathlib import Path

import pytest
from openfeature import api

from live import Server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "python-client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_page__every_example_runs_and_prints_what_it_says(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body = {
        "name": "Checkout button",
        "key": "checkout-button",
        "status": "running",
        "variants": [
            {"name": "control", "allocation": 0.5, "config": {"colour": "grey"}},
            {"name": "blue", "allocation": 0.5, "config": {"colour": "blue"}},
        ],
    }
    with server.client() as admin:
        assert admin.post("/api/v1/experiments", json=body).status_code == 201
        key = admin.post("/auth/keys", json={"name": "app", "role": "client"}).json()["key"]
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 8
    # On a busy machine the first rules take longer than an example should have to say.
    first = "assert assay.wait_until_ready(60)"
    blocks[0] = blocks[0].replace("yet\n", f"yet\n{first}\n", 1)
    assert first in blocks[0]
    scope: dict[str, object] = {}
    try:
        for block in blocks:
            code = block.replace("https://assay.example", server.url).replace("assay_…", key)
            exec(compile(code, str(PAGE), "exec"), scope)
            printed = capsys.readouterr().out.splitlines()
            for line in re.findall(r"print\(.*\)  # (.*)", code):
                assert line in printed, code
    finally:
        api.clear_providers()
        for name in ("assay", "careful", "sticky"):
            if name in scope:
                scope[name].close()  # type: ignore[attr-defined]
