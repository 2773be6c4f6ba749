"""What an import brings along: the hot path stays light, and `assay --help` loads no server."""

import subprocess
import sys

import pytest

HEAVY = ("sqlalchemy", "alembic", "fastapi", "starlette", "pydantic", "scipy", "duckdb", "pandas", "pyarrow")


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in memory after one statement in a fresh interpreter."""
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{statement}\nimport sys\nprint(*{{n.partition('.')[0] for n in sys.modules}})",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "assay.hotpath.app",
        "assay.hotpath.routes",
        "assay.assignments.sqlite",
        "assay.events.log",
        "assay.events.drain",
        "assay.durable.writer",
        "assay.published",
        "assay.bucketing.evaluate",
    ],
)
def test_hot_rooms__load_no_framework(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "assay" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_package__loads_nothing() -> None:
    assert loaded_by("import assay").isdisjoint({*HEAVY, "numpy", "msgspec", "uvicorn", "typer"})


def test_command_line__loads_no_server() -> None:
    assert loaded_by("import assay.cli").isdisjoint({*HEAVY, "numpy", "uvicorn", "prometheus_client"})


def test_importing_the_application__opens_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("untouched")
    subprocess.run([sys.executable, "-c", "import assay.asgi"], cwd=folder, check=True)
    assert list(folder.iterdir()) == []
