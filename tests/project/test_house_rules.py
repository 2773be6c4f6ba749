"""The house rules find what they are there to find, and nothing in the package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house_rules", ROOT / "scripts" / "house_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house_rules"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("room", "text", "rule", "line"),
    [
        ("catalog/users.py", "def save(tx):\n    tx.commit()\n", "commits", 2),
        ("stats/srm.py", "import time\nstart = time.time()\n", "clocks", 2),
        ("bucketing/evaluate.py", "import datetime\nx = datetime.datetime.now()\n", "clocks", 2),
        ("events/accept.py", "from datetime import datetime\nx = datetime.now(None)\n", "clocks", 2),
        ("wiring.py", "def open():\n    from assay.settings import load\n", "inner-imports", 2),
        ("wiring.py", "async def open():\n    import assay.settings\n", "inner-imports", 2),
    ],
)
def test_breach__named_with_its_line(rules: ModuleType, room: str, text: str, rule: str, line: int) -> None:
    found = list(rules.breaches(Path(room), room, text))
    assert [(each.rule, each.line) for each in found] == [(rule, line)]


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("catalog/database.py", "def save(tx):\n    tx.commit()\n"),
        ("hotpath/app.py", "import time\nnow = time.time_ns()\n"),
        ("wiring.py", "def open():\n    import fastapi\n"),
        ("cli.py", "def serve():\n    import assay.wiring\n"),
        (
            "stats/srm.py",
            "import time\nt = time.time()  # house: allow clocks because it is only shown\n",
        ),
    ],
)
def test_allowed__silent(rules: ModuleType, room: str, text: str) -> None:
    assert list(rules.breaches(Path(room), room, text)) == []
