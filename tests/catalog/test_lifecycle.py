"""States, what leads from one to the next, phases, and the schedule."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from assay.catalog import documents, experiments, lifecycle, phases, segments
from assay.catalog.checks import parse
from assay.catalog.database import WriteTx
from assay.catalog.editing import find
from assay.catalog.tables import Experiment
from assay.errors import Conflict, Invalid
from catalog.conftest import HALVES, NOON, Catalog

STEPS: dict[str, Callable[[WriteTx, Experiment], None]] = {
    "start": lifecycle.start,
    "pause": lifecycle.pause,
    "resume": lifecycle.resume,
    "stop": lambda tx, row: lifecycle.stop(tx, row),
    "archive": lifecycle.archive,
}
#: Every allowed step; all others are refused.
ALLOWED = {
    ("draft", "start"): "running",
    ("running", "pause"): "paused",
    ("paused", "resume"): "running",
    ("running", "stop"): "stopped",
    ("paused", "stop"): "stopped",
    ("stopped", "archive"): "archived",
}
WAY = {
    "draft": [],
    "running": ["start"],
    "paused": ["start", "pause"],
    "stopped": ["start", "stop"],
    "archived": ["start", "stop", "archive"],
}


def step(catalog: Catalog, experiment: int, name: str) -> None:
    with catalog.write() as tx:
        STEPS[name](tx, find(tx, experiment))


def in_state(catalog: Catalog, state: str, **fields: Any) -> int:
    experiment = catalog.create(**{"variants": HALVES, **fields})
    for name in WAY[state]:
        step(catalog, experiment, name)
    return experiment


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("name", STEPS)
def test_every_step_from_every_state(catalog: Catalog, state: str, name: str) -> None:
    experiment = in_state(catalog, state)
    before = catalog.document(experiment)
    if (state, name) in ALLOWED:
        step(catalog, experiment, name)
        assert catalog.document(experiment)["status"] == ALLOWED[state, name]
        assert catalog.compiled(experiment).status == ALLOWED[state, name]
    else:
        with pytest.raises(Conflict) as caught:
            step(catalog, experiment, name)
        assert caught.value.code == f"experiment_{state}"
        assert f"is {state}" in caught.value.detail
        assert catalog.document(experiment) == before


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("target", WAY)
def test_a_written_status_is_the_step_that_leads_there(catalog: Catalog, state: str, target: str) -> None:
    experiment = in_state(catalog, state)
    reachable = {ALLOWED[each] for each in ALLOWED if each[0] == state} | {state}
    if target in reachable:
        assert catalog.edit(experiment, status=target.upper())["status"] == target
    else:
        with pytest.raises(Conflict):
            catalog.edit(experiment, status=target)
        assert catalog.document(experiment)["status"] == state


def test_the_times_of_a_life(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES)
    catalog.later(hours=1)
    step(catalog, experiment, "start")
    catalog.later(hours=1)
    step(catalog, experiment, "pause")
    catalog.later(hours=1)
    step(catalog, experiment, "resume")
    catalog.later(hours=1)
    step(catalog, experiment, "stop")
    document = catalog.document(experiment)
    assert (document["created_at"], document["started_at"], document["ended_at"]) == (
        "2026-11-21T12:00:00.000000Z",
        "2026-11-21T13:00:00.000000Z",
        "2026-11-21T16:00:00.000000Z",
    )
    assert catalog.compiled(experiment).started_at == 1_795_266_000_000_000
    assert catalog.compiled(experiment).ended_at == 1_795_276_800_000_000


def test_a_stop_with_a_winner_and_a_reason(catalog: Catalog) -> None:
    experiment = catalog.running()
    with catalog.write() as tx:
        lifecycle.stop(tx, find(tx, experiment), winner="b", reason="clearly better")
    document = catalog.document(experiment)
    assert document["winner"] == "b"
    assert document["decision"] == {
        "winner": "b",
        "reason": "clearly better",
        "decided_at": "2026-11-21T12:00:00.000000Z",
        "decided_by": "ada",
    }
    assert catalog.compiled(experiment).winner == 1
    assert catalog.rows("SELECT reason FROM audit WHERE action = 'experiment.stop'") == [("clearly better",)]


def test_a_winner_must_be_a_variant(catalog: Catalog) -> None:
    experiment = catalog.running()
    with pytest.raises(Invalid) as caught, catalog.write() as tx:
        lifecycle.stop(tx, find(tx, experiment), winner="nobody")
    assert caught.value.errors[0].path == "winner"
    assert catalog.document(experiment)["status"] == "running"


def test_a_start_needs_a_whole_split(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES)
    from catalog.test_variants import edit

    edit(catalog, experiment, "b", allocation=0.3)
    with pytest.raises(Invalid) as caught:
        step(catalog, experiment, "start")
    assert caught.value.code == "allocation_sum"
    assert "they sum to 0.8 (80 %)" in caught.value.detail
    edit(catalog, experiment, "b", allocation=0.5)
    for variant in ("b", "control"):
        edit(catalog, experiment, variant, enabled=False)
    with pytest.raises(Invalid) as caught:
        step(catalog, experiment, "start")
    assert caught.value.code == "no_variant"


def listed(catalog: Catalog, experiment: int) -> list[documents.PhaseDocument]:
    with catalog.read() as tx:
        return [documents.phase(row) for row in phases.listed(tx, experiment)]


def test_each_change_of_the_split_begins_a_phase(catalog: Catalog) -> None:
    from catalog.test_variants import edit

    with catalog.write() as tx:
        segment = segments.create(
            tx, parse(segments.SegmentInput, {"name": "US", "rules": {"country": "US"}})
        )
    other, experiment = catalog.running(), catalog.running()
    changes: list[Callable[[], Any]] = [
        lambda: edit(catalog, experiment, "b", allocation=0.2),
        lambda: catalog.edit(experiment, traffic_allocation=0.5),
        lambda: catalog.edit(experiment, condition={"country": "US"}),
        lambda: catalog.edit(experiment, segments=[segment.id]),
        lambda: catalog.edit(experiment, prerequisites=[other]),
        lambda: edit(catalog, experiment, "b", enabled=False),
    ]
    for number, change in enumerate(changes, 2):
        catalog.later(hours=1)
        change()
        assert catalog.document(experiment)["phase"] == number
        assert catalog.compiled(experiment).phase == number
    for change in (
        lambda: catalog.edit(experiment, description="x", metrics=["buy"], tags=["t"]),
        lambda: step(catalog, experiment, "pause"),
        lambda: step(catalog, experiment, "resume"),
    ):
        change()
        assert catalog.document(experiment)["phase"] == 7
    catalog.later(hours=1)
    step(catalog, experiment, "stop")
    found = listed(catalog, experiment)
    assert [each["number"] for each in found] == [1, 2, 3, 4, 5, 6, 7]
    hours = [datetime.fromisoformat(each["started_at"]) for each in found]
    assert hours == [NOON + timedelta(hours=at) for at in range(7)]
    ends = [each["ended_at"] for each in found]
    assert ends == [each["started_at"] for each in found[1:]] + ["2026-11-21T19:00:00.000000Z"]
    assert [arm["allocation"] for arm in found[0]["variants"]] == [0.5, 0.5]
    assert [arm["allocation"] for arm in found[1]["variants"]] == [0.5, 0.2]
    assert found[2]["traffic_allocation"] == 0.5
    assert found[3]["condition"] == {"country": "US"}
    assert found[4]["segments"] == [segment.id]
    assert [arm["enabled"] for arm in found[6]["variants"]] == [True, False]


def test_a_draft_has_no_phase_and_a_paused_experiment_may_get_one(catalog: Catalog) -> None:
    draft = catalog.create(variants=HALVES)
    catalog.edit(draft, traffic_allocation=0.5)
    assert listed(catalog, draft) == []
    paused = in_state(catalog, "paused")
    catalog.edit(paused, traffic_allocation=0.5)
    assert catalog.document(paused)["phase"] == 2


def test_a_changed_segment_rule_begins_a_phase_where_it_is_used(catalog: Catalog) -> None:
    with catalog.write() as tx:
        segment = segments.create(
            tx, parse(segments.SegmentInput, {"name": "US", "rules": {"country": "US"}})
        )
    experiment, other = catalog.running(segments=[segment.id]), catalog.running()
    with catalog.write() as tx:
        segments.edit(
            tx, segments.find(tx, segment.id), parse(segments.SegmentEdit, {"rules": {"country": "DE"}})
        )
    assert catalog.document(experiment)["phase"] == 2
    assert catalog.document(other)["phase"] == 1
    assert catalog.compiled(experiment).segments[0].matches("u", {"country": "DE"})
    with catalog.write() as tx:
        segments.add_members(tx, segments.find(tx, segment.id), ["u1"])
    assert catalog.document(experiment)["phase"] == 2
    assert catalog.compiled(experiment).segments[0].matches("u1", {})


def test_the_schedule_starts_and_ends(catalog: Catalog) -> None:
    experiment = catalog.create(
        variants=HALVES, start_at="2026-11-21T13:00:00Z", end_at="2026-11-21T14:00:00Z"
    )
    hour = timedelta(hours=1)
    assert lifecycle.tick(catalog.database, NOON + hour - timedelta(microseconds=1)) == 0
    assert catalog.document(experiment)["status"] == "draft"
    assert lifecycle.tick(catalog.database, NOON + hour) == 1
    assert lifecycle.tick(catalog.database, NOON + hour) == 0
    document = catalog.document(experiment)
    assert (document["status"], document["started_at"]) == ("running", "2026-11-21T13:00:00.000000Z")
    assert (document["start_at"], document["schedule_error"]) == ("2026-11-21T13:00:00.000000Z", None)
    assert lifecycle.tick(catalog.database, NOON + 2 * hour) == 1
    document = catalog.document(experiment)
    assert (document["status"], document["ended_at"]) == ("stopped", "2026-11-21T14:00:00.000000Z")
    assert (document["winner"], document["end_at"]) == (None, "2026-11-21T14:00:00.000000Z")
    assert catalog.rows("SELECT actor, action FROM audit ORDER BY id") == [
        ("ada", "experiment.create"),
        ("schedule", "experiment.start"),
        ("schedule", "experiment.stop"),
    ]


def test_a_scheduled_start_that_cannot_be_is_tried_once_and_told(catalog: Catalog) -> None:
    from catalog.test_variants import edit

    experiment = catalog.create(variants=HALVES, start_at="2026-11-21T13:00:00Z")
    edit(catalog, experiment, "b", allocation=0.1)
    good = catalog.create(start_at="2026-11-21T13:00:00Z")
    assert lifecycle.tick(catalog.database, datetime(2026, 11, 21, 13, tzinfo=UTC)) == 2
    assert catalog.document(good)["status"] == "running"
    document = catalog.document(experiment)
    assert (document["status"], document["start_at"]) == ("draft", "2026-11-21T13:00:00.000000Z")
    assert "they sum to 0.6" in (document["schedule_error"] or "")
    assert catalog.edit(experiment, schedule_error=document["schedule_error"]) == document
    ((reason,),) = catalog.rows("SELECT reason FROM audit WHERE action = 'experiment.schedule_refused'")
    assert "they sum to 0.6" in reason
    assert lifecycle.tick(catalog.database, datetime(2026, 11, 21, 14, tzinfo=UTC)) == 0
    edit(catalog, experiment, "b", allocation=0.5)
    catalog.now = datetime(2026, 11, 21, 14, tzinfo=UTC)
    assert catalog.edit(experiment, start_at="2026-11-21T15:00:00Z")["schedule_error"] is None
    assert lifecycle.tick(catalog.database, datetime(2026, 11, 21, 15, tzinfo=UTC)) == 1
    assert catalog.document(experiment)["status"] == "running"


def test_who_is_quicker_than_the_plan_ends_it(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES, start_at="2026-12-01", end_at="2026-12-02")
    assert catalog.edit(experiment, status="running")["start_at"] is None
    assert catalog.edit(experiment, status="stopped")["end_at"] is None


@pytest.mark.parametrize(
    ("state", "change", "path"),
    [
        ("running", {"end_at": "2020-01-01"}, "end_at"),
        ("running", {"end_at": "2026-11-21T12:00:00Z"}, "end_at"),
        ("paused", {"end_at": "2026-11-21T11:59:59Z"}, "end_at"),
        ("draft", {"end_at": "2026-11-21"}, "end_at"),
        ("draft", {"start_at": "2026-11-20T11:59:59Z"}, "start_at"),
        ("draft", {"start_at": "2026-11-22", "status": "running"}, "start_at"),
    ],
)
def test_a_plan_for_the_past_is_refused(
    catalog: Catalog, state: str, change: dict[str, Any], path: str
) -> None:
    experiment = in_state(catalog, state)
    with pytest.raises(Invalid) as caught:
        catalog.edit(experiment, **change)
    assert caught.value.errors[0].path == path
    assert catalog.document(experiment)["status"] == state
    if state == "draft":
        with pytest.raises(Invalid) as caught:
            catalog.create(**change)
        assert caught.value.errors[0].path == path


def test_a_start_of_the_last_day_is_due(catalog: Catalog) -> None:
    at_once = catalog.document(catalog.create(start_at="2026-11-21"))
    assert (at_once["status"], at_once["start_at"], at_once["started_at"]) == (
        "running",
        "2026-11-21T00:00:00.000000Z",
        "2026-11-21T12:00:00.000000Z",
    )
    assert catalog.document(catalog.create(start_at="2026-11-21", status="draft"))["status"] == "draft"
    later = catalog.document(catalog.create(start_at="2026-11-21T12:00:01Z"))
    assert (later["status"], later["started_at"]) == ("draft", None)


def test_a_plan_that_has_passed_may_be_sent_back(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES, start_at="2026-11-21T12:00:00Z", end_at="2026-12-01")
    catalog.later(days=5)
    document = catalog.document(experiment)
    assert catalog.edit(experiment, start_at=document["start_at"], end_at=document["end_at"]) == document


def test_a_paused_experiment_ends_on_schedule_too(catalog: Catalog) -> None:
    experiment = in_state(catalog, "paused", end_at="2026-11-21T13:00:00Z")
    assert lifecycle.tick(catalog.database, datetime(2026, 11, 21, 13, tzinfo=UTC)) == 1
    assert catalog.document(experiment)["status"] == "stopped"


@pytest.mark.parametrize(
    ("state", "change", "error"),
    [
        ("draft", {"start_at": "2026-12-01", "end_at": "2026-12-01"}, Invalid),
        ("running", {"start_at": "2026-12-01"}, Conflict),
        ("stopped", {"end_at": "2026-12-01"}, Conflict),
        ("draft", {"start_at": "soon"}, Invalid),
        ("draft", {"start_at": 1795262400}, Invalid),
        ("draft", {"start_at": "1995-01-01"}, Invalid),
        ("draft", {"start_at": "0001-01-01T00:00:00+14:00"}, Invalid),
    ],
)
def test_schedules_that_are_refused(
    catalog: Catalog, state: str, change: dict[str, Any], error: type[Exception]
) -> None:
    experiment = in_state(catalog, state)
    with pytest.raises(error):
        catalog.edit(experiment, **change)


def test_an_end_before_the_start_on_record_is_refused(catalog: Catalog) -> None:
    experiment = catalog.create(start_at="2026-12-10")
    with pytest.raises(Invalid) as caught:
        catalog.edit(experiment, end_at="2026-12-01")
    assert caught.value.errors[0].path == "end_at"


def test_put_away_ends_what_runs(catalog: Catalog) -> None:
    for state in ("running", "paused", "stopped"):
        experiment = in_state(catalog, state)
        with catalog.write() as tx:
            assert experiments.remove(tx, find(tx, experiment)) == "archived"
        assert all(each["ended_at"] for each in listed(catalog, experiment))


@pytest.mark.parametrize("state", ["running", "paused"])
@pytest.mark.parametrize("change", [{"enabled": False}, {"allocation": 0}])
def test_the_last_variant_that_is_on_stays_on(catalog: Catalog, state: str, change: dict[str, Any]) -> None:
    from catalog.test_variants import edit

    experiment = in_state(catalog, state)
    edit(catalog, experiment, "b", enabled=False)
    before = catalog.document(experiment)
    with pytest.raises(Conflict) as caught:
        edit(catalog, experiment, "control", **change)
    assert caught.value.code == "no_variant"
    assert catalog.document(experiment) == before
    edit(catalog, experiment, "b", enabled=True)
    edit(catalog, experiment, "control", **change)


@pytest.mark.parametrize("state", ["running", "stopped", "archived"])
def test_a_refused_new_key_is_not_the_one_the_error_names(catalog: Catalog, state: str) -> None:
    experiment = in_state(catalog, state, key="old")
    with pytest.raises(Conflict) as caught:
        catalog.edit(experiment, key="new")
    assert caught.value.detail.startswith(f"Experiment old is {state}: its key")
    assert catalog.document("old")["id"] == experiment
