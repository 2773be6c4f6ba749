"""`example.py` plays a whole experiment and prints numbers that the server confirms."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from live import Server, environment

EXAMPLE = Path(__file__).parents[2] / "example.py"


def play(cwd: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        cwd=cwd,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_example__prints_what_the_server_found(server: Server, tmp_path: Path) -> None:
    played = play(tmp_path, "--users", "4000", "--seed", "3", ASSAY_URL=server.url, ASSAY_KEY=server.key)
    assert played.returncode == 0, played.stderr
    rows = re.findall(r"^(current|new) +(\d+) +(\d+) +([\d.]+)% +([\d,.]+)$", played.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["current", "new"]
    assert sum(int(row[1]) for row in rows) == 4000
    with server.client() as client:
        [experiment] = client.get("/api/v1/experiments").json()["experiments"]
        results = client.get(f"/api/v1/experiments/{experiment['id']}/results").json()
    for (_, users, buyers, rate, _), arm in zip(rows, results["variants"], strict=True):
        assert (int(users), int(buyers)) == (arm["assigned_count"], arm["primary_unique_users"])
        assert float(rate) == pytest.approx(100 * arm["conversion_rate"], abs=0.005)
    # The simulated truth is 10 % and 12 %: four standard errors around it.
    assert 8.1 < float(rows[0][3]) < 12.0
    assert 9.9 < float(rows[1][3]) < 14.1
    assert f"p = {results['comparison']['p_value']:.4g}" in played.stdout


def test_example__finds_the_key_of_a_server_started_here(tmp_path: Path) -> None:
    with Server(tmp_path / "assay-data") as server:
        played = play(tmp_path, "--users", "200", "--url", server.url)
        assert played.returncode == 0, played.stderr
        assert "new against current" in played.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Which key?"),
        (["--key", "k", "--url", "http://127.0.0.1:9"], "Start one with: assay serve"),
    ],
)
def test_example_without_a_server__says_what_to_do(tmp_path: Path, arguments: list[str], said: str) -> None:
    played = play(tmp_path, *arguments)
    assert played.returncode == 1
    assert said in played.stderr
    assert "Traceback" not in played.stderr
