"""Fixtures for what every store promises."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from assay.eventstore import importing
from assay.eventstore.base import EventStore

# The contracts are no test modules by name, but their assertions should explain themselves all the same.
pytest.register_assert_rewrite(
    "contracts.event_store",
    "contracts.columns",
    "contracts.reversals",
    "contracts.rollups",
    "contracts.questions",
    "contracts.listing",
    "contracts.imports",
)

from contracts.columns import model  # noqa: E402, F401 - to be rewritten first; a fixture
from contracts.event_store import Feed  # noqa: E402 - it is to be rewritten first


@pytest.fixture
def parquet() -> Callable[[Path, str], None]:
    def parquet(path: Path, query: str) -> None:
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")

    return parquet


@pytest.fixture
def chunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda rows: monkeypatch.setattr(importing, "CHUNK", rows)


@pytest.fixture
def feed(store: EventStore) -> Feed:
    """Plays the drain for `store`."""
    return Feed(store)
