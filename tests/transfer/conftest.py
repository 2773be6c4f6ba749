"""One installation, made once; each test gets a copy of its directory."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from transfer.installation import answers, fill


class Made(NamedTuple):
    """A data directory, what its tests need to know, and what it answered before anything was moved."""

    data: Path
    facts: dict[str, Any]
    answers: dict[str, Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    data = tmp_path_factory.mktemp("installation") / "data"
    facts = fill(data)
    return Made(data, facts, answers({"data_dir": str(data)}, facts))


@pytest.fixture
def data(made: Made, tmp_path: Path) -> Path:
    """A copy of the installation for one test."""
    return Path(shutil.copytree(made.data, tmp_path / "data", ignore=shutil.ignore_patterns("*.sock")))


@pytest.fixture
def elsewhere(postgres_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of the same installation on PostgreSQL, with another directory."""
    return {"data_dir": str(tmp_path / "elsewhere"), "database_url": postgres_url}
