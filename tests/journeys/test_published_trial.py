"""A randomised trial with a published result, from files to the report, by the command line.

The National Supported Work demonstration (LaLonde 1986; the experimental sample of Dehejia and Wahba 1999, as
the package `causaldata` carries it): the mean difference of earnings in 1978 is 1,794.34 dollars. The data
have no dates, so they get some.
"""

import csv
from pathlib import Path
from typing import Any

import httpx2
import pytest

from live import Server, run

VARIANTS = {0: "control", 1: "training"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Who was in which arm, and what they earned."""
    data = pytest.importorskip("causaldata").nsw_mixtape.load_pandas().data
    folder = tmp_path_factory.mktemp("trial")
    assignments, events = folder / "assignments.csv", folder / "events.csv"
    with assignments.open("w", newline="") as who, events.open("w", newline="") as what:
        arms, earnings = csv.writer(who), csv.writer(what)
        arms.writerow(["user_id", "variant", "assigned_at"])
        earnings.writerow(["user_id", "type", "timestamp", "value", "event_id"])
        for number, (treat, re78) in enumerate(zip(data["treat"], data["re78"], strict=True)):
            arms.writerow([f"person-{number}", VARIANTS[int(treat)], "2026-01-01T00:00:00Z"])
            earnings.writerow([f"person-{number}", "earnings", "2026-06-30", float(re78), f"re78-{number}"])
    return assignments, events


def create(client: httpx2.Client) -> None:
    """The trial as an experiment with one metric: earnings in dollars for each person."""
    made = client.post(
        "/api/v1/experiments",
        json={
            "name": "National Supported Work",
            "key": "nsw",
            "variants": [{"name": "control", "allocation": 0.5}, {"name": "training", "allocation": 0.5}],
            "metrics": [{"key": "earnings", "type": "sum", "event": "earnings"}],
        },
    )
    assert made.status_code == 201, made.text
    assert client.post("/api/v1/experiments/nsw/start").status_code == 200


def load(files: tuple[Path, Path], data: Path) -> None:
    """Import both files."""
    for kind, file, rows in (("assignments", files[0], 445), ("events", files[1], 445)):
        done = run("import", kind, file, "--experiment", "nsw", "--data", data, cwd=data.parent)
        assert done.returncode == 0, done.stderr
        assert f"{rows}" in done.stdout


def check_report(client: httpx2.Client) -> None:
    """The published numbers, to the digits given."""
    report: dict[str, Any] = client.get("/api/v1/experiments/nsw/report").json()
    [metric] = [each for each in report["metrics"] if each["key"] == "earnings"]
    arms = {arm["variant_name"]: arm for arm in metric["variants"]}
    assert (arms["control"]["units"], arms["training"]["units"]) == (260, 185)
    [comparison] = metric["comparisons"]
    assert comparison["difference"] == pytest.approx(1794.34, abs=0.005)
    assert comparison["standard_error"] == pytest.approx(670.997, abs=0.0005)
    assert comparison["p_value"] == pytest.approx(0.00789, abs=0.000005)


def test_import_without_a_server__gives_the_published_result(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    server = Server(tmp_path / "data")
    with server, server.client() as client:
        create(client)
        server.stop()
        load(files, server.data)
        server.start()
        with server.client() as reader:
            check_report(reader)


def test_import_beside_a_server__gives_the_published_result(server: Server, files: tuple[Path, Path]) -> None:
    with server.client() as client:
        create(client)
        load(files, server.data)
        check_report(client)
        # The same files again change nothing.
        load(files, server.data)
        check_report(client)


def test_bad_rows__are_named__and_the_rest_is_kept(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(
        "user_id,type,timestamp,value\nu1,buy,2026-01-01,1\n,buy,2026-01-01,1\nu3,buy,someday,1\n"
    )
    with server.client() as client:
        create(client)
        done = run("import", "events", file, "--data", server.data, cwd=tmp_path)
        assert done.returncode == 2
        assert "someday" in done.stderr
        assert "row 2" in done.stderr
        assert "row 3" in done.stderr
        assert [event["user_id"] for event in client.get("/events").json()["events"]] == ["u1"]
