"""The DuckDB store keeps the contract."""

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assay.errors import Conflict, Invalid, Unavailable
from assay.eventstore.base import Appended, EventFilter
from assay.eventstore.duckdb import DuckdbStore
from contracts.columns import ColumnContract
from contracts.event_store import Feed, KeepingContract, event
from contracts.imports import ImportContract
from contracts.listing import ListingContract
from contracts.questions import QuestionContract
from contracts.reversals import ReversalContract
from contracts.trust import TrustContract


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Callable[[], DuckdbStore]]:
    opened: list[DuckdbStore] = []

    def empty() -> DuckdbStore:
        opened.append(DuckdbStore(tmp_path / f"events{len(opened)}.duckdb", memory="256MiB", threads=2))
        return opened[-1]

    yield empty
    for store in opened:
        store.close()


@pytest.fixture
def store(empty: Callable[[], DuckdbStore]) -> DuckdbStore:
    return empty()


@pytest.fixture
def reopened(store: DuckdbStore) -> Iterator[Callable[[], DuckdbStore]]:
    opened: list[DuckdbStore] = []

    def reopened() -> DuckdbStore:
        store.close()
        opened.append(DuckdbStore(store.path, memory="256MiB"))
        return opened[-1]

    yield reopened
    for again in opened:
        again.close()


class TestDuckdb(
    KeepingContract,
    QuestionContract,
    ListingContract,
    ImportContract,
    ColumnContract,
    ReversalContract,
    TrustContract,
):
    """All of the contract."""


def test_a_second_owner_in_the_process_is_refused(store: DuckdbStore) -> None:
    with pytest.raises(Conflict, match="open already"):
        DuckdbStore(store.path)


def test_a_second_owner_in_another_process_is_told_so(store: DuckdbStore) -> None:
    script = (
        "import sys\nfrom assay.errors import Conflict\nfrom assay.eventstore.duckdb import DuckdbStore\n"
        "try: DuckdbStore(sys.argv[1])\nexcept Conflict as error: print(error.detail)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "Another process has the event store open; only one may.\n"


def test_a_file_that_is_no_store_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(Unavailable):
        DuckdbStore(path)
    path.unlink()
    DuckdbStore(path).close()


def test_portions_go_through_a_file_where_memory_has_none(
    store: DuckdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    feed = Feed(store)
    assert feed.events(event("é")).events == 1
    with pytest.raises(Invalid):
        feed.events(event("a", e="no id"))
    assert list(folder.iterdir()) == []
    folder.rmdir()
    with pytest.raises(Unavailable):
        feed.events(event("b"))
    folder.mkdir()
    assert feed.events(event("b")).events == 1
    assert len(store.events(EventFilter(), 9)[0]) == 2


def test_the_engine_fetches_nothing(store: DuckdbStore) -> None:
    settings = store._ask("SELECT value FROM duckdb_settings() WHERE name = 'autoinstall_known_extensions'")
    assert settings == [("false",)]
    built_in = store._ask("SELECT install_path FROM duckdb_extensions() WHERE extension_name = 'json'")
    assert built_in == [("(BUILT-IN)",)]


def test_the_contract_is_light_to_import() -> None:
    script = (
        "import sys, assay.eventstore.base, assay.events.accept, assay.assignments.sqlite\n"
        "heavy = {'duckdb', 'numpy', 'sqlalchemy', 'pydantic', 'fastapi', 'pyarrow', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_ids_of_our_making_are_not_looked_at(store: DuckdbStore) -> None:
    same = str(uuid.uuid4())
    assert Feed(store).events(event("a", e=same), event("a", e=same)) == Appended(2, 0, 0)
