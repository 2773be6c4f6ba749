"""Work that one process does, on both databases."""

import threading
from collections.abc import Callable

from assay.catalog import leases
from catalog.conftest import Catalog
from live import until


def test_a_lease_has_one_holder_who_may_renew_it(catalog: Catalog) -> None:
    database = catalog.database
    assert leases.hold(database, "schedule", "a", 60)
    assert not leases.hold(database, "schedule", "b", 60)
    assert leases.hold(database, "schedule", "a", 60)
    assert leases.hold(database, "retention", "b", 60)
    assert (leases.holder(database, "schedule"), leases.holder(database, "retention")) == ("a", "b")
    assert database.version() == 0


def test_a_lease_that_ran_out_is_taken_over(catalog: Catalog) -> None:
    database = catalog.database
    assert leases.hold(database, "schedule", "a", 0.3)
    assert not leases.hold(database, "schedule", "b", 60)
    until(lambda: leases.hold(database, "schedule", "b", 60), "the lease runs out")
    assert not leases.hold(database, "schedule", "a", 60)
    assert leases.holder(database, "schedule") == "b"


def test_a_lease_is_given_back_by_its_holder_only(catalog: Catalog) -> None:
    database = catalog.database
    assert leases.hold(database, "schedule", "a", 60)
    leases.release(database, "schedule", "b")
    assert not leases.hold(database, "schedule", "b", 60)
    leases.release(database, "schedule", "a")
    assert leases.holder(database, "schedule") is None
    assert leases.hold(database, "schedule", "b", 60)


def test_of_many_at_once_one_gets_it(opened: Callable[[], Catalog]) -> None:
    databases = [opened().database for _ in range(2)]
    for name in ("first", "second", "third"):
        got: list[str] = []
        gate = threading.Barrier(8)

        def ask(holder: str, name: str = name, got: list[str] = got, gate: threading.Barrier = gate) -> None:
            gate.wait()
            if leases.hold(databases[int(holder) % 2], name, holder, 60):
                got.append(holder)

        threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1, name
