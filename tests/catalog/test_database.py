"""One transaction, one commit, one publication."""

import ast
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

import assay
from assay.catalog import experiments, users
from assay.catalog.checks import parse
from assay.catalog.database import catalog_version
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.tables import Experiment
from assay.errors import Conflict, Unavailable
from catalog.conftest import Catalog


def test_rows_audit_and_version_are_committed_together(catalog: Catalog) -> None:
    assert catalog.published.ruleset.version == 0
    experiment = catalog.create()
    assert catalog.rows("SELECT id, key FROM experiments") == [(experiment, "test")]
    assert catalog.rows("SELECT action, actor, key_id, request_id, noun_id, experiment_id FROM audit") == [
        ("experiment.create", "ada", 7, "req-1", experiment, experiment)
    ]
    assert catalog.rows("SELECT id, version FROM catalog_version") == [(1, 1)]
    assert catalog.published.ruleset.version == 1
    assert catalog.published.ruleset.published_at == 1_795_262_400_000_000


def test_an_exception_undoes_everything_and_publishes_nothing(catalog: Catalog) -> None:
    catalog.create()
    before = catalog.published.ruleset

    def two() -> None:
        with catalog.write() as tx:
            experiments.create(tx, parse(ExperimentCreate, {"name": "Second"}))
            experiments.create(tx, parse(ExperimentCreate, {"name": "Third", "key": "test"}))

    with pytest.raises(Conflict):
        two()
    assert catalog.rows("SELECT key FROM experiments") == [("test",)]
    assert catalog.rows("SELECT count(*) FROM audit") == [(1,)]
    assert catalog.published.ruleset is before


def test_a_transaction_that_changes_nothing_publishes_nothing(catalog: Catalog) -> None:
    before = catalog.published.ruleset
    with catalog.write():
        pass
    assert catalog.published.ruleset is before


def test_users_are_stored_without_a_new_ruleset(catalog: Catalog) -> None:
    before = catalog.published.ruleset
    with catalog.write() as tx:
        users.create(tx, users.parse_user({"id": "u1", "plan": "pro"}))
    assert catalog.rows("SELECT id, attributes FROM users") == [("u1", '{"plan": "pro"}')]
    assert catalog.published.ruleset is before
    with catalog.read() as tx:
        assert catalog_version(tx) == 0


def test_a_reader_cannot_write(catalog: Catalog) -> None:
    catalog.create()
    with pytest.raises(Unavailable), catalog.read() as tx:
        tx.execute(text("DELETE FROM experiments"))
    assert catalog.rows("SELECT count(*) FROM experiments") == [(1,)]


def test_a_reader_sees_one_moment(catalog: Catalog) -> None:
    catalog.create()
    with catalog.read() as tx:
        assert tx.query(Experiment).count() == 1
        catalog.create()
        assert tx.query(Experiment).count() == 1
    with catalog.read() as tx:
        assert tx.query(Experiment).count() == 2


def test_relations_are_never_loaded_by_accident(catalog: Catalog) -> None:
    experiment = catalog.create()
    with catalog.read() as tx:
        row = tx.get(Experiment, experiment)
        assert row is not None
        with pytest.raises(InvalidRequestError):
            _ = row.variants


def test_many_writers_at_once_lose_nothing(catalog: Catalog) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                catalog.create(name=f"writer {number}")
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert catalog.rows("SELECT count(*), count(DISTINCT key) FROM experiments") == [(40, 40)]
    assert catalog.rows("SELECT version FROM catalog_version") == [(40,)]
    assert len(catalog.published.ruleset) == 40
    assert catalog.published.ruleset.version == 40


def test_refresh_notices_what_another_process_wrote(catalog: Catalog) -> None:
    experiment = catalog.create()
    assert not catalog.database.refresh(catalog.now)
    catalog.rows("UPDATE experiments SET name = 'Renamed', version = version + 1")
    catalog.rows("UPDATE catalog_version SET version = version + 1")
    assert catalog.database.refresh(catalog.now)
    assert catalog.compiled(experiment).name == "Renamed"


def test_only_the_database_module_commits() -> None:
    root = Path(assay.__file__).parent
    committing = [
        path.name
        for folder in ("catalog", "api")
        for path in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"commit", "rollback"}
    ]
    assert set(committing) == {"database.py"}
