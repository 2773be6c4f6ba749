"""What all tests share: Hypothesis profiles, and real servers for those that need one."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The contracts are no test modules by name, but their assertions should explain themselves, too: this comes
# before any folder imports one.
pytest.register_assert_rewrite("contracts")

from live import Server  # noqa: E402 - after what is to be rewritten
from postgresql import Postgres  # noqa: E402

# On the build machine the same examples every time; while working, new ones on every run.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=200,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server on an empty directory, for one test that stops, kills or fills it."""
    with Server(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server that the tests of one module use together and leave running."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL that all tests of a process share; those that stop or kill one start their own.

    It lives no longer than the tests, so it need not wait for the disk: a new database takes half the time.
    """
    with Postgres({"fsync": "off", "full_page_writes": "off"}) as running:
        yield running


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with postgres.database() as url:
        yield url


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slowest first, so that the others fill the time beside them; nightly ones only if they are named.

    `pytest -m nightly tests/stats tests/reports -s` prints the tables of the long simulations.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if "nightly" in (config.option.markexpr or ""):
        return
    out = [item for item in items if item.get_closest_marker("nightly")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: leave it out of each search for garbage."""
    gc.collect()
    gc.freeze()
