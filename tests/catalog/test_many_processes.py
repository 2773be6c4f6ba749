"""Several processes on one database: whoever writes, all see the same, in order."""

import threading
from collections.abc import Callable
from datetime import datetime

import pytest

from assay.catalog import experiments, keys
from assay.catalog.checks import parse
from assay.catalog.database import Database, ReadTx, catalog_version
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentEdit
from assay.errors import Conflict
from catalog.conftest import NOON, Catalog


def _at_once(works: list[Callable[[], object]]) -> list[BaseException]:
    failures: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        gate.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - for the caller to look at
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_another_process_sees_a_change_when_it_looks(opened: Callable[[], Catalog]) -> None:
    one, two = opened(), opened()
    experiment = one.running(name="A")
    assert two.published.ruleset.find(experiment) is None
    assert (one.database.version(), two.database.version()) == (1, 1)
    assert two.database.refresh(NOON)
    assert two.compiled(experiment).name == "A"
    assert not two.database.refresh(NOON)
    assert not one.database.refresh(NOON)


def test_a_key_revoked_there_is_refused_here(opened: Callable[[], Catalog]) -> None:
    one, two = opened(), opened()
    secret = keys.ensure_admin_key(one.database, NOON) or ""
    two.database.refresh(NOON)
    key = two.published.keys.find(secret.encode(), 0)
    assert key is not None
    with one.write() as tx:
        keys.revoke(tx, key.id)
    two.database.refresh(NOON)
    assert two.published.keys.find(secret.encode(), 0) is None


def test_the_first_admin_key_is_made_by_one_of_many(opened: Callable[[], Catalog]) -> None:
    catalogs = [opened() for _ in range(4)]
    made: list[str | None] = []
    failures = _at_once(
        [lambda each=each: made.append(keys.ensure_admin_key(each.database, NOON)) for each in catalogs]  # type: ignore[misc]
    )
    assert failures == []
    assert len([secret for secret in made if secret is not None]) == 1


def test_writers_of_several_processes_lose_nothing(opened: Callable[[], Catalog]) -> None:
    catalogs = [opened() for _ in range(3)]
    experiment = catalogs[0].running()

    def work(catalog: Catalog, number: int) -> None:
        for step in range(5):
            with catalog.write() as tx:
                row = find(tx, experiment)
                tags = [each.tag for each in row.tags]
                given = parse(ExperimentEdit, {"tags": [*tags, f"{number}-{step}"]})
                experiments.edit(tx, row, given)

    failures = _at_once(
        [lambda number=number: work(catalogs[number % 3], number) for number in range(6)]  # type: ignore[misc]
    )
    assert failures == []
    assert len(catalogs[0].document(experiment)["tags"]) == 30
    assert catalogs[0].rows("SELECT version FROM catalog_version") == [(31,)]
    assert catalogs[0].document(experiment)["version"] == 2 + 30


def test_one_of_many_gets_the_key_and_the_others_are_told(opened: Callable[[], Catalog]) -> None:
    catalogs = [opened() for _ in range(2)]
    works: list[Callable[[], object]] = [
        lambda at=at: catalogs[at % 2].create(key="wanted")  # type: ignore[misc]
        for at in range(6)
    ]
    failures = _at_once(works)
    assert [type(each) for each in failures] == [Conflict] * 5
    assert {each.code for each in failures if isinstance(each, Conflict)} == {"key_taken"}
    assert catalogs[0].rows("SELECT count(*) FROM experiments") == [(1,)]


def test_what_is_published_never_goes_back(opened: Callable[[], Catalog]) -> None:
    """Writers and lookers race; each process puts versions in force in their order."""
    writer, looker = opened(), opened()
    seen: list[int] = []

    def publish(tx: ReadTx, _now: datetime) -> None:
        seen.append(catalog_version(tx))

    database = Database(looker.url, turn=looker.database._turn, publish=publish)
    done = threading.Event()

    def write() -> None:
        for number in range(12):
            writer.create(name=f"w{number}")

    def write_here() -> None:
        from assay.catalog.database import Actor
        from assay.catalog.inputs import ExperimentCreate

        for number in range(12):
            with database.writing(Actor("here"), NOON) as tx:
                experiments.create(tx, parse(ExperimentCreate, {"name": f"h{number}"}))

    def look() -> None:
        while not done.is_set():
            database.refresh(NOON)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    try:
        assert _at_once([write, write_here]) == []
    finally:
        done.set()
        for thread in lookers:
            thread.join()
    database.refresh(NOON)
    database.close()
    assert seen == sorted(set(seen))
    assert seen[-1] == 24


def test_a_mistake_in_one_process_leaves_nothing_for_others(opened: Callable[[], Catalog]) -> None:
    one, two = opened(), opened()

    def fail() -> None:
        with one.write() as tx:
            one_row = find(tx, one_id)
            experiments.edit(tx, one_row, parse(ExperimentEdit, {"description": "half"}))
            raise ZeroDivisionError

    one_id = one.create()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert two.document(one_id)["description"] == ""
    two.edit(one_id, description="whole")
    assert one.document(one_id)["description"] == "whole"
