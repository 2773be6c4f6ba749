"""Fixtures for what every store promises about imports."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from assay.eventstore import importing

# The contracts are no test modules by name, but their assertions should explain themselves all the same.
pytest.register_assert_rewrite("contracts.event_store", "contracts.imports")


@pytest.fixture
def parquet() -> Callable[[Path, str], None]:
    def parquet(path: Path, query: str) -> None:
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")

    return parquet


@pytest.fixture
def chunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda rows: monkeypatch.setattr(importing, "CHUNK", rows)
