from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from api.conftest import house, house_with
from assay.eventstore.duckdb import DuckdbStore

__all__ = ["house", "house_with", "world"]

if TYPE_CHECKING:
    from reports.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator["World"]:
    from reports.world import World

    store = DuckdbStore(tmp_path / "events.duckdb", memory="256MiB", threads=1)
    yield World(store)
    store.close()
