"""Many seeded moments are tried only when asked for: `pytest -m nightly tests/faults`."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave nightly items of this folder out unless the marker expression names them."""
    if "nightly" in (config.option.markexpr or ""):
        return
    out = [item for item in items if HERE in item.path.parents and item.get_closest_marker("nightly")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
