from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.eventstore.duckdb import DuckdbStore
from reports.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store = DuckdbStore(tmp_path / "events.duckdb", memory="256MiB", threads=1)
    yield World(store)
    store.close()
