"""Traffic that grows by a schedule, and halts where health says so."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from assay.catalog import documents, lifecycle, ramps
from assay.catalog.editing import find
from assay.errors import Conflict, Invalid
from catalog.conftest import HALVES, NOON, Catalog

STEPS = [
    {"traffic_allocation": 0.05, "after": "1h"},
    {"traffic_allocation": 0.2, "after": "2h"},
    {"traffic_allocation": 0.5, "at": "2026-11-22T12:00:00Z"},
]


def well(_experiment: int, _due_at: datetime) -> ramps.Health:
    return ramps.Health(None)


def ramping(catalog: Catalog, **fields: Any) -> int:
    return catalog.running(**{"traffic_allocation": 0.01, "ramp": STEPS, **fields})


def ticked(catalog: Catalog, ask: ramps.Ask = well, **later: float) -> tuple[int, float]:
    """Let time pass and tick: how many steps were made, and the coverage now."""
    done = ramps.tick(catalog.database, catalog.later(**later), ask)
    return done, catalog.compiled(1).coverage


def state(catalog: Catalog) -> documents.RampDocument:
    found = catalog.document(1)["ramp_state"]
    assert found is not None
    return found


def stepped(catalog: Catalog, step: Any) -> None:
    with catalog.write() as tx:
        step(tx, find(tx, 1))


def test_steps_open_at_their_times_each_in_a_phase_of_its_own(catalog: Catalog) -> None:
    ramping(catalog)
    assert state(catalog) == {
        "status": "running",
        "opened": 0,
        "next_at": "2026-11-21T13:00:00.000000Z",
        "halted_at": None,
        "reason": None,
    }
    seen = [ticked(catalog, **passed) for passed in ({"minutes": 59}, {"minutes": 1}, {"hours": 2})]
    assert seen == [(0, 0.01), (1, 0.05), (1, 0.2)]
    assert state(catalog)["next_at"] == "2026-11-22T12:00:00.000000Z"
    assert ticked(catalog, days=1) == (1, 0.5)
    assert (state(catalog)["status"], state(catalog)["next_at"]) == ("finished", None)
    assert ticked(catalog, days=1) == (0, 0.5)
    assert catalog.rows("SELECT coverage FROM phases ORDER BY number") == [(0.01,), (0.05,), (0.2,), (0.5,)]
    assert catalog.rows("SELECT count(*) FROM audit WHERE action = 'experiment.ramp_step'") == [(3,)]


def test_a_draft_counts_from_its_start(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES, traffic_allocation=0.01, ramp=STEPS)
    assert state(catalog)["status"] == "planned"
    assert ticked(catalog, days=1) == (0, 0.01)
    with catalog.write() as tx:
        lifecycle.start(tx, find(tx, experiment))
    assert state(catalog)["next_at"] == "2026-11-22T13:00:00.000000Z"


def test_health_halts_the_ramp_and_an_editor_resumes_it(catalog: Catalog) -> None:
    ramping(catalog)

    def ill(_experiment: int, _due_at: datetime) -> ramps.Health:
        return ramps.Health("The variants do not hold their shares.")

    assert ticked(catalog, ill, hours=1) == (1, 0.01)
    halted = state(catalog)
    assert (halted["status"], halted["opened"], halted["next_at"]) == ("halted", 0, None)
    assert halted["reason"] == "The variants do not hold their shares."
    assert catalog.rows("SELECT actor, reason FROM audit WHERE action = 'experiment.ramp_halt'") == [
        ("schedule", "The variants do not hold their shares.")
    ]
    assert ticked(catalog, days=30) == (0, 0.01)
    stepped(catalog, ramps.resume)
    assert ticked(catalog, ill) == (1, 0.01)
    assert state(catalog)["status"] == "halted"
    stepped(catalog, lambda tx, row: ramps.resume(tx, row, ignore_health=True))
    assert ticked(catalog, ill) == (1, 0.05)
    assert state(catalog)["status"] == "running"
    assert ticked(catalog, ill, hours=2) == (1, 0.05)  # what was ignored once is not ignored for ever


def test_a_step_waits_for_an_answer_that_is_asked_for_ahead(catalog: Catalog) -> None:
    ramping(catalog)
    asked: list[datetime] = []

    def unknown(_experiment: int, due_at: datetime) -> None:
        asked.append(due_at)

    assert ticked(catalog, unknown, minutes=59, seconds=51) == (0, 0.01)
    assert asked == [NOON + timedelta(hours=1)]
    assert ticked(catalog, unknown, seconds=15) == (0, 0.01)
    assert ticked(catalog) == (1, 0.05)


def test_a_pause_stops_the_clock(catalog: Catalog) -> None:
    ramping(catalog)
    catalog.later(minutes=20)
    stepped(catalog, lifecycle.pause)
    assert (state(catalog)["status"], state(catalog)["next_at"]) == ("paused", None)
    assert ticked(catalog, days=1) == (0, 0.01)
    stepped(catalog, lifecycle.resume)
    assert ticked(catalog, minutes=39) == (0, 0.01)
    assert ticked(catalog, minutes=1) == (1, 0.05)


def test_a_step_never_takes_back_what_was_opened_by_hand(catalog: Catalog) -> None:
    ramping(catalog)
    catalog.edit(1, traffic_allocation=0.1)
    assert ticked(catalog, hours=1) == (1, 0.1)
    assert ticked(catalog, hours=2) == (1, 0.2)
    assert catalog.rows("SELECT count(*) FROM phases") == [(3,)]


def test_a_ramp_is_replaced_and_taken_off(catalog: Catalog) -> None:
    ramping(catalog)
    document = catalog.document(1)
    unchanged = catalog.edit(1, ramp=document["ramp"], ramp_state=document["ramp_state"])
    assert unchanged["version"] == document["version"]
    catalog.later(minutes=30)
    assert catalog.edit(1, ramp=[{"traffic_allocation": 1, "after": "1h"}])["ramp_state"] == {
        "status": "running",
        "opened": 0,
        "next_at": "2026-11-21T13:30:00.000000Z",
        "halted_at": None,
        "reason": None,
    }
    assert catalog.edit(1, ramp=None)["ramp_state"] is None
    assert ticked(catalog, days=9) == (0, 0.01)


def test_an_end_ends_the_ramp(catalog: Catalog) -> None:
    ramping(catalog)
    stepped(catalog, lambda tx, row: lifecycle.stop(tx, row))
    assert ticked(catalog, hours=5) == (0, 0.01)
    assert state(catalog)["status"] == "ended"
    for step in (lambda tx, row: ramps.halt(tx, row, "no"), ramps.resume):
        with pytest.raises(Conflict) as caught:
            stepped(catalog, step)
        assert caught.value.code == "no_ramp"


@pytest.mark.parametrize(
    ("ramp", "path"),
    [
        ([{"traffic_allocation": 0.01, "after": "1h"}], "ramp[0].traffic_allocation"),
        ([{"traffic_allocation": 0.5}], "ramp[0].after"),
        ([{"traffic_allocation": 0.5, "after": "1h", "at": "2027-01-01"}], "ramp[0].at"),
        ([{"traffic_allocation": 0.5, "after": "soon"}], "ramp[0].after"),
        ([STEPS[1], STEPS[0]], "ramp[1].traffic_allocation"),
        ([{"traffic_allocation": 5, "after": "1h"}], "ramp[0].traffic_allocation"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(catalog: Catalog, ramp: Any, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        ramping(catalog, ramp=ramp)
    assert caught.value.errors[0].path == path
