"""What was planned is frozen at the start, and what was done otherwise is listed."""

import hashlib
import json
from typing import Any, get_args

import pytest

from assay.catalog import definitions, documents, inputs, lifecycle, preregistration
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.catalog.inputs import Analysis
from assay.errors import Invalid
from assay.stats import multiplicity, tails
from assay.stats.boundaries import Spending
from catalog.conftest import HALVES, Catalog
from catalog.test_definitions import change, define

PLAN: dict[str, Any] = {
    "hypothesis": "Green sells.",
    "metrics": ["buy", {"event_type": "crash", "role": "guardrail", "margin": {"relative": 0.1}}],
    "minimum_detectable_effect": 0.05,
    "target_sample_size": 10_000,
    "significance_level": 0.01,
    "power": 0.9,
    "end_at": "2026-12-24",
    "analysis": {"method": "group_sequential", "looks": 4},
    "activation_event": "open",
    "variants": HALVES,
}


def registered(catalog: Catalog, experiment: int) -> preregistration.PreregistrationDocument:
    with catalog.read() as tx:
        return preregistration.document(tx, find(tx, experiment))


def deviations(catalog: Catalog, experiment: int) -> list[tuple[str, str, Any, Any]]:
    listed = registered(catalog, experiment)["deviations"]
    return [(each["field"], each["change"], each["from"], each["to"]) for each in listed]


def roles(document: documents.ExperimentDocument) -> dict[str, tuple[str, bool]]:
    return {each["key"]: (each["role"], each.get("registered", True)) for each in document["metrics"]}


def test_the_plan_is_frozen_with_its_hash(catalog: Catalog) -> None:
    experiment = catalog.create(**PLAN)
    draft = registered(catalog, experiment)
    assert (draft["frozen"], draft["hash"], draft["unchanged"]) == (False, None, None)
    with catalog.write("grace") as tx:
        lifecycle.start(tx, find(tx, experiment))
    document, found = catalog.document(experiment), registered(catalog, experiment)
    assert (
        found["plan"]
        == draft["plan"]
        == {
            "hypothesis": "Green sells.",
            "primary_metric": "buy",
            "direction": "increase",
            "minimum_detectable_effect": 0.05,
            "significance_level": 0.01,
            "power": 0.9,
            "analysis": {
                "method": "group_sequential",
                "alternative": "two-sided",
                "correction": "holm",
                "cuped": True,
                "spending": "obrien_fleming",
                "looks": 4,
            },
            "stopping_rule": {"target_sample_size": 10_000, "end_at": "2026-12-24T00:00:00.000000Z"},
            "activation_event": {"event_type": "open"},
            "metrics": document["metrics"],
        }
    )
    text = json.dumps(found["plan"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert found["hash"] == digest == document["preregistration_hash"]
    assert (found["frozen"], found["unchanged"], found["deviations"]) == (True, True, [])
    assert (found["frozen_at"], found["frozen_by"]) == (document["started_at"], "grace")
    assert [each["role"] for each in found["plan"]["metrics"]] == ["primary", "guardrail"]


def test_deviations_say_what_when_and_who(catalog: Catalog) -> None:
    experiment = catalog.running(**PLAN)
    frozen = registered(catalog, experiment)
    catalog.later(hours=1)
    catalog.edit(experiment, hypothesis="Anything sells.", name="Not in the plan", power=0.8)
    catalog.edit(experiment, traffic_allocation=0.5)
    metrics = catalog.document(experiment)["metrics"]
    catalog.edit(experiment, metrics=[{**metrics[0], "window": {"duration": "7d"}}, "late"])
    assert deviations(catalog, experiment) == [
        ("hypothesis", "changed", "Green sells.", "Anything sells."),
        ("power", "changed", 0.9, 0.8),
        ("metrics.buy", "changed", {"window": None}, {"window": {"duration": "7d"}}),
        ("metrics.crash", "removed", metrics[1], None),
        (
            "metrics.late",
            "added",
            None,
            {
                "key": "late",
                "name": "late",
                "type": "conversion",
                "event_type": "late",
                "property": None,
                "direction": "increase",
                "role": "exploratory",
            },
        ),
    ]
    found = registered(catalog, experiment)
    first = found["deviations"][0]
    assert (first["at"], first["by"], first["reason"]) == ("2026-11-21T13:00:00.000000Z", "ada", None)
    assert (found["hash"], found["plan"], found["unchanged"]) == (frozen["hash"], frozen["plan"], False)
    assert roles(catalog.document(experiment)) == {"buy": ("primary", False), "late": ("exploratory", False)}
    catalog.edit(experiment, hypothesis="Green sells.", power=0.9, metrics=metrics)
    restored = registered(catalog, experiment)
    assert restored["unchanged"] is True
    assert len(restored["deviations"]) == 10
    assert catalog.document(experiment)["metrics"] == metrics


def test_an_early_end_is_a_deviation(catalog: Catalog) -> None:
    experiment = catalog.running(**PLAN)
    with catalog.write() as tx:
        lifecycle.stop(tx, find(tx, experiment), reason="enough")
    (only,) = registered(catalog, experiment)["deviations"]
    assert (only["field"], only["from"], only["to"], only["reason"]) == (
        "end_at",
        "2026-12-24T00:00:00.000000Z",
        None,
        "enough",
    )


def test_what_is_added_later_is_exploratory_unless_it_guards_or_decides(catalog: Catalog) -> None:
    experiment = catalog.running(metrics=["a", "b"])
    metrics = catalog.document(experiment)["metrics"]
    late = [
        *metrics,
        {"event_type": "c", "role": "secondary"},
        {"event_type": "d", "role": "guardrail", "margin": {"relative": 0.1}},
    ]
    assert roles(catalog.edit(experiment, metrics=late)) == {
        "a": ("primary", True),
        "b": ("secondary", True),
        "c": ("exploratory", False),
        "d": ("guardrail", False),
    }
    assert roles(catalog.edit(experiment, primary_metric="b")) == {
        "a": ("secondary", False),
        "b": ("primary", False),
        "c": ("exploratory", False),
        "d": ("guardrail", False),
    }
    version = catalog.document(experiment)["version"]
    assert catalog.edit(experiment, metrics=catalog.document(experiment)["metrics"])["version"] == version


def test_a_newer_definition_is_a_deviation_once_it_is_taken(catalog: Catalog) -> None:
    key = define(catalog, key="m", type="sum", property="eur")
    experiment = catalog.running(metrics=["a", {"definition": key}])
    change(catalog, key, cap={"value": 100})
    assert deviations(catalog, experiment) == []
    after = catalog.edit(experiment, metrics=["a", {"definition": key}])
    assert roles(after) == {"a": ("primary", True), "m": ("exploratory", False)}
    assert deviations(catalog, experiment) == [
        (
            "metrics.m",
            "changed",
            {"role": "secondary", "cap": None, "definition_version": 1},
            {"role": "exploratory", "cap": {"value": 100}, "definition_version": 2},
        )
    ]
    with catalog.write() as tx:
        definitions.put_away(tx, definitions.find(tx, key))
    assert len(deviations(catalog, experiment)) == 1


def test_a_scheduled_start_freezes_the_plan_too(catalog: Catalog) -> None:
    experiment = catalog.create(start_at="2026-11-21T13:00:00Z", **{**PLAN, "end_at": "2026-12-01"})
    now = catalog.later(hours=1)
    assert lifecycle.tick(catalog.database, now) == 1
    found = registered(catalog, experiment)
    assert (found["frozen"], found["frozen_by"], found["unchanged"]) == (True, "schedule", True)


def test_an_experiment_started_before_plans_were_frozen(catalog: Catalog) -> None:
    experiment = catalog.running(metrics=["a"])
    catalog.rows("DELETE FROM preregistrations")
    catalog.rows('UPDATE experiments SET plan_hash = NULL, analysis = \'{"method": "fixed"}\'')
    assert roles(catalog.edit(experiment, metrics=["a", "b"], primary_metric="a")) == {
        "a": ("primary", True),
        "b": ("exploratory", True),
    }
    found = registered(catalog, experiment)
    assert (found["frozen"], found["hash"], found["deviations"]) == (False, None, [])


def test_the_hash_cannot_be_written(catalog: Catalog) -> None:
    experiment = catalog.running()
    with pytest.raises(Invalid, match="preregistration_hash: cannot be changed here"):
        catalog.edit(experiment, preregistration_hash="0" * 64)


def test_the_words_of_the_analysis_are_those_of_the_statistics() -> None:
    assert get_args(inputs.Alternative) == get_args(tails.Alternative)
    assert get_args(inputs.Correction) == get_args(multiplicity.Correction)
    assert get_args(inputs.Spending) == get_args(Spending)


USUAL = {"method": "fixed", "alternative": "two-sided", "correction": "holm", "cuped": True}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({}, USUAL),
        ({"cuped": False, "correction": "none"}, {**USUAL, "cuped": False, "correction": "none"}),
        ({"alternative": "less"}, {**USUAL, "alternative": "less"}),
        ({"method": "bayesian"}, {**USUAL, "method": "bayesian"}),
        (
            {"method": "always_valid", "planned_units": 5000},
            {**USUAL, "method": "always_valid", "planned_units": 5000},
        ),
        (
            {"method": "group_sequential", "spending": "power", "spending_power": 2},
            {**USUAL, "method": "group_sequential", "spending": "power", "spending_power": 2},
        ),
        (
            {"method": "group_sequential", "spending": "power", "looks": 3},
            {**USUAL, "method": "group_sequential", "spending": "power", "spending_power": 1, "looks": 3},
        ),
        (
            {"method": "group_sequential", "look_dates": ["2026-12-01", "2026-12-08T06:00:00+06:00"]},
            {
                **USUAL,
                "method": "group_sequential",
                "spending": "obrien_fleming",
                "look_dates": ["2026-12-01T00:00:00.000000Z", "2026-12-08T00:00:00.000000Z"],
            },
        ),
    ],
)
def test_an_analysis_can_be_sent_back(given: dict[str, Any], stored: dict[str, Any]) -> None:
    assert parse(Analysis, given).normal == stored
    assert parse(Analysis, stored).normal == stored


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"method": "peek"}, "method"),
        ({"alternative": "two_sided"}, "alternative"),
        ({"method": "bayesian", "alternative": "less"}, "alternative"),
        ({"correction": "fdr"}, "correction"),
        ({"cuped": 1}, "cuped"),
        ({"looks": 5}, "looks"),
        ({"method": "always_valid", "spending": "pocock"}, "spending"),
        ({"method": "group_sequential", "looks": 0}, "looks"),
        ({"method": "group_sequential", "looks": 1001}, "looks"),
        ({"method": "group_sequential", "looks": 2.5}, "looks"),
        ({"method": "group_sequential", "look_dates": []}, "look_dates"),
        ({"method": "group_sequential", "look_dates": ["soon"]}, "look_dates[0]"),
        ({"method": "group_sequential", "look_dates": ["2026-12-02", "2026-12-02"]}, "look_dates[1]"),
        ({"method": "group_sequential", "looks": 2, "look_dates": ["2026-12-02"]}, "look_dates"),
        ({"method": "group_sequential", "spending_power": 2}, "spending_power"),
        ({"method": "group_sequential", "spending": "power", "spending_power": -1}, "spending_power"),
        ({"planned_units": 100}, "planned_units"),
        ({"method": "always_valid", "planned_units": 0}, "planned_units"),
    ],
)
def test_a_wrong_analysis_is_named(given: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(Analysis, given)
    assert caught.value.errors[0].path == path
