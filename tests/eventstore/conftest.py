"""Fixtures for what every store promises."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from assay.eventstore import importing
from assay.eventstore.base import EventStore
from contracts.columns import model  # noqa: F401 - a fixture
from contracts.event_store import Feed


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
