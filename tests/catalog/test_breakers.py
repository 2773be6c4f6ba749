"""Circuit breakers: what may be asked for, what a trip does, and how a person takes it back."""

from typing import Any

import pytest

from assay.catalog import breakers, lifecycle
from assay.catalog.editing import find
from assay.dashboard.lifecycle import possible
from assay.errors import Conflict, Invalid
from catalog.conftest import Catalog

EVIDENCE = {"metric": "crash", "difference": 0.05, "bound": 0.02}


def with_breaker(catalog: Catalog, action: str = "pause", **fields: Any) -> int:
    metrics = [{"key": "buy", "role": "primary"}, {"key": "crash", "role": "guardrail"}]
    return catalog.running(metrics=metrics, circuit_breaker={"action": action}, **fields)


def trip(catalog: Catalog, experiment: int) -> None:
    with catalog.write("schedule") as tx:
        lifecycle.trip(tx, find(tx, experiment), EVIDENCE, "b harms the guardrail crash.")


def test_a_breaker__has_defaults_and_is_kept_as_asked_for(catalog: Catalog) -> None:
    experiment = with_breaker(catalog)
    document = catalog.document(experiment)
    assert document["circuit_breaker"] == {"action": "pause", "false_trip_rate": 0.005}
    assert document["circuit_breaker_state"] == {
        "status": "armed",
        "action": None,
        "tripped_at": None,
        "reason": None,
        "evidence": None,
        "resumed_at": None,
        "resumed_by": None,
        "since_phase": 0,
    }
    assert catalog.edit(experiment, **document)["version"] == document["version"]
    assert catalog.edit(experiment, circuit_breaker=None)["circuit_breaker_state"] is None


def test_a_breaker__that_nothing_can_trip_is_refused_by_its_field(catalog: Catalog) -> None:
    slow = {"key": "slow", "type": "quantile", "quantile": 0.9, "role": "guardrail"}
    for metrics in ([], ["buy"], [{"key": "buy", "role": "primary"}, slow]):
        with pytest.raises(Invalid) as refused:
            catalog.create(metrics=metrics, circuit_breaker={})
        assert [each.path for each in refused.value.errors] == ["circuit_breaker"]
    experiment = with_breaker(catalog)
    with pytest.raises(Invalid, match="needs a guardrail"):
        catalog.edit(experiment, guardrail_metrics=[])
    with pytest.raises(Invalid) as rejected:
        catalog.edit(experiment, circuit_breaker={"action": "explode", "false_trip_rate": 0.5})
    fields = [each.path for each in rejected.value.errors]
    assert fields == ["circuit_breaker.action", "circuit_breaker.false_trip_rate"]


def test_a_trip__pauses_with_its_evidence_and_an_editor_resumes(catalog: Catalog) -> None:
    experiment = with_breaker(catalog)
    trip(catalog, experiment)
    document = catalog.document(experiment)
    state = document["circuit_breaker_state"]
    assert state is not None
    assert (document["status"], state["status"], state["evidence"]) == ("paused", "tripped", EVIDENCE)
    assert state["tripped_at"] == "2026-11-21T12:00:00.000000Z"
    with pytest.raises(Conflict):
        trip(catalog, experiment)
    catalog.later(hours=1)
    with catalog.write("grace") as tx:
        lifecycle.resume(tx, find(tx, experiment))
    document = catalog.document(experiment)
    state = document["circuit_breaker_state"]
    assert state is not None
    assert (document["status"], state["status"], state["resumed_by"]) == ("running", "resumed", "grace")
    # Who came before does not count for it any more.
    assert (document["phase"], state["since_phase"]) == (2, 2)
    assert catalog.rows(
        "SELECT actor, action, reason FROM audit WHERE action <> 'experiment.create' ORDER BY id"
    )[1:] == [
        ("schedule", "experiment.circuit_breaker", "b harms the guardrail crash."),
        ("grace", "experiment.resume", None),
    ]
    trip(catalog, experiment)
    assert catalog.document(experiment)["circuit_breaker_state"]["since_phase"] == 2  # type: ignore[index]


def test_a_stop__by_a_breaker_can_be_taken_back_and_no_other(catalog: Catalog) -> None:
    layer = catalog.layer(key="shop")
    assert layer
    experiment = with_breaker(catalog, "stop", layer={"key": "shop", "share": 0.5})
    trip(catalog, experiment)
    document = catalog.document(experiment)
    assert (document["status"], document["ended_at"]) == ("stopped", "2026-11-21T12:00:00.000000Z")
    assert document["layer"]["slots"] == []  # type: ignore[index]
    with catalog.read() as read:
        assert possible(find(read, experiment)) == ["resume", "archive"]
    with catalog.write() as tx:
        lifecycle.resume(tx, find(tx, experiment))
    document = catalog.document(experiment)
    assert (document["status"], document["ended_at"], document["phase"]) == ("running", None, 2)
    assert sum(high - low for low, high in document["layer"]["slots"]) == 5000  # type: ignore[index]
    assert catalog.compiled(experiment).status == "running"
    with catalog.write() as tx:
        lifecycle.stop(tx, find(tx, experiment))
    with pytest.raises(Conflict, match="only a paused experiment can be resumed"), catalog.write() as tx:
        lifecycle.resume(tx, find(tx, experiment))


def test_a_person_who_stops_a_tripped_experiment__has_ended_it(catalog: Catalog) -> None:
    experiment = with_breaker(catalog)
    trip(catalog, experiment)
    with catalog.write() as tx:
        lifecycle.stop(tx, find(tx, experiment))
        assert breakers.is_tripped(find(tx, experiment))
    with pytest.raises(Conflict), catalog.write() as tx:
        lifecycle.resume(tx, find(tx, experiment))
