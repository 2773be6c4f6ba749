"""What the demo says can be done as it is written."""

import re
from pathlib import Path

from live import run


def test_demo__without_serving__says_how_to_serve__and_has_the_key(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    made = run("demo", "--no-serve", "--users", "200", "--data", data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    key = (data / "admin.key").read_text().strip()
    assert f"The admin key is {key} " in made.stdout
    commands = [line for line in made.stdout.splitlines() if line.startswith("  ") and "│" not in line]
    assert commands[0].startswith(f"  assay serve --data {data}")
    assert commands[1] == f"  KEY=$(cat {data}/admin.key)"
    assert re.fullmatch(
        r'  curl -H "Authorization: Bearer \$KEY" http://\S+/demo-checkout/report', commands[2]
    )


def test_import__repeated__says_that_nothing_was_new(tmp_path: Path) -> None:
    file, data = tmp_path / "events.csv", tmp_path / "data"
    file.write_text("user_id,type\na,t\nb,t\nbroken\n")
    first = run("import", "events", file, "--data", data, cwd=tmp_path)
    again = run("import", "events", file, "--data", data, cwd=tmp_path)
    assert first.stdout.splitlines() == ["events.csv: 3 rows, 2 events, 0 duplicates, 1 bad"]
    assert again.stdout.splitlines() == [
        "events.csv: 3 rows, 0 events, 2 duplicates, 1 bad",
        "Nothing new: 2 events were stored before, and stay as they are.",
    ]
    assert (first.returncode, again.returncode) == (2, 2)
    assert "row 3: 'broken': Expected" in again.stderr
