"""What an import says: every row counted once, bad rows named in order as the file names things."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from assay.catalog import editing, experiments
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.errors import Invalid
from assay.eventstore.base import Bucket, Scope
from assay.settings import load
from assay.stores.base import utc_now
from assay.stores.commands import perform
from assay.stores.embedded import EmbeddedStores

VARIANTS = [{"name": "control", "allocation": 0.5}, {"name": "new", "allocation": 0.5}]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[EmbeddedStores]:
    stores = EmbeddedStores(load(data_dir=tmp_path / "data"))
    stores.open()
    yield stores
    stores.close()


def create(stores: EmbeddedStores, key: str, at: datetime | None = None) -> None:
    what = {"name": key, "key": key, "variants": VARIANTS, "metrics": ["t"], "status": "running"}
    with stores.database.writing(Actor("test"), at or utc_now()) as tx:
        experiments.create(tx, parse(ExperimentCreate, what))


Import = Callable[..., tuple[dict[str, Any], list[tuple[int, str, str]], list[int]]]


@pytest.fixture
def run(stores: EmbeddedStores, tmp_path: Path) -> Import:
    """Imports a text; the summary, the bad values, and the rows in conflict."""

    def run(
        kind: str, text: str, suffix: str = "csv", **options: Any
    ) -> tuple[dict[str, Any], list[tuple[int, str, str]], list[int]]:
        path = tmp_path / f"file.{suffix}"
        path.write_text(text)
        said: list[dict[str, Any]] = []
        perform(
            stores, {"do": "import", "request": {"kind": kind, "path": str(path), **options}}, said.append
        )
        bad = [each["bad_row"] for each in said if "bad_row" in each]
        conflicts = [each["conflict"]["row"] for each in said if "conflict" in each]
        return said[-1]["done"], [(row["row"], row["column"], row["value"]) for row in bad], conflicts

    return run


def test_assignments__rows_add_up__and_bad_ones_come_in_order(stores: EmbeddedStores, run: Import) -> None:
    create(stores, "one")
    text = (
        "user_id,variant,assigned_at,which\n"
        "a,control,2026-01-01,\n"
        "b,absent,2026-01-01,\n"
        "c,control,notatime,\n"
        "d,control,2026-01-01,nowhere\n"
        "bad,control\n"
        ",,soon,\n"
        "a,new,2026-01-01,\n"
        "a,control,2026-01-01,one\n"
        "e,new,2026-01-01,one\n"
        "bad\n"
    )
    options = {"experiment": "one", "rename": {"which": "experiment"}}
    done, bad, conflicts = run("assignments", text, **options)
    assert done == {"kind": "assignments", "rows": 10, "bad": 6, "inserted": 2, "known": 1, "conflicts": 1}
    assert bad == [
        (2, "variant", "absent"),
        (3, "assigned_at", "notatime"),
        (4, "which", "nowhere"),
        (5, "", "bad,control"),
        (6, "user_id", ""),
        (6, "variant", ""),
        (6, "assigned_at", "soon"),
        (10, "", "bad"),
    ]
    assert conflicts == [7]
    again, bad_again, _ = run("assignments", text, **options)
    assert again == {"kind": "assignments", "rows": 10, "bad": 6, "inserted": 0, "known": 3, "conflicts": 1}
    assert bad_again == bad


def test_assignments__of_no_experiment__are_refused_once(stores: EmbeddedStores, run: Import) -> None:
    create(stores, "one")
    with pytest.raises(Invalid, match="give --experiment"):
        run("assignments", "user_id,variant\n,x\n" + "a,control\n" * 20)
    done, bad, _ = run("assignments", "user_id,variant,experiment\na,control,\nb,control,one\n")
    assert done == {"kind": "assignments", "rows": 2, "bad": 1, "inserted": 1, "known": 0, "conflicts": 0}
    assert bad == [(1, "experiment", "")]


def test_events__of_an_experiment_made_later__are_taken_then(stores: EmbeddedStores, run: Import) -> None:
    text = "user_id,type,event_id,experiment\ni1,dig,d1,later\ni2,dig,d2,\n"
    counts = {"kind": "events", "rows": 2, "resumed_from": 0}
    for events, duplicates in ((1, 0), (0, 1)):
        done, bad, _ = run("events", text)
        assert done == counts | {"events": events, "duplicates": duplicates, "bad": 1}
        assert bad == [(1, "experiment", "later")]
    create(stores, "later")
    assert run("events", text) == (counts | {"events": 1, "duplicates": 1, "bad": 0}, [], [])
    assert run("events", text) == (counts | {"events": 0, "duplicates": 2, "bad": 0}, [], [])


def test_a_first_line_that_is_no_text__is_named_only_when_it_is_the_first(
    stores: EmbeddedStores, run: Import, tmp_path: Path
) -> None:
    path = tmp_path / "bytes.csv"
    request = {"do": "import", "request": {"kind": "events", "path": str(path)}}
    path.write_bytes(b"user_id,\xff\nu,t\n")
    with pytest.raises(Invalid, match=r"The first line of bytes\.csv is not UTF-8"):
        perform(stores, request, lambda _: None)
    said: list[dict[str, Any]] = []
    path.write_bytes(b"user_id,type\nu,t\n\xff,t\n")
    perform(stores, request, said.append)
    assert [each["bad_row"]["row"] for each in said if "bad_row" in each] == [2]


def test_assignments__have_the_phase_of_their_time(stores: EmbeddedStores, run: Import) -> None:
    begun = utc_now() - timedelta(days=4)
    moments = [begun, begun + timedelta(days=2)]
    create(stores, "one", at=begun)
    with stores.database.writing(Actor("test"), moments[1]) as tx:
        experiment = editing.find(tx, "one")
        experiments.edit(tx, experiment, parse(ExperimentEdit, {"traffic_allocation": 0.5}))
    rows = "".join(
        f"u{days},control,{(begun + timedelta(days=days)).isoformat()}\n" for days in (-1, 0, 1, 2, 3)
    )
    run("assignments", f"user_id,variant,assigned_at\n{rows}", experiment="one")
    found = stores.store.arrivals(Scope(1), Bucket.HOUR)
    assert [(each.phase, each.units) for each in found] == [(0, 1), (1, 1), (1, 1), (2, 1), (2, 1)]
