"""Bandits: what may be asked for, and how shares change."""

from typing import Any

import pytest

from assay.catalog import bandits
from assay.catalog.editing import find
from assay.errors import Invalid
from catalog.conftest import HALVES, Catalog

THIRDS = [
    {"key": "a", "name": "a", "allocation": 0.4},
    {"key": "b", "name": "b", "allocation": 0.4},
    {"key": "c", "name": "c", "allocation": 0.2, "enabled": False},
]


def bandit(catalog: Catalog, **analysis: Any) -> int:
    return catalog.running(metrics=["buy"], variants=THIRDS, analysis={"method": "bandit", **analysis})


def test_a_bandit__has_defaults_and_says_what_it_reads(catalog: Catalog) -> None:
    experiment = bandit(catalog)
    document = catalog.document(experiment)
    assert document["analysis"] == {
        "method": "bandit",
        "alternative": "two-sided",
        "correction": "holm",
        "cuped": True,
        "reweight_every": "1d",
        "floor": 0.05,
        "sampling": "thompson",
        "ship_probability": 0.95,
        "ship_loss": 0.01,
    }
    assert document["bandit_state"] is None
    assert catalog.edit(experiment, **document)["version"] == document["version"]


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"analysis": {"method": "fixed", "floor": 0.1}}, "analysis.floor", "is read by bandit"),
        (
            {"analysis": {"method": "bandit", "reweight_every": "30m"}},
            "analysis.reweight_every",
            "at least 1h",
        ),
        ({"analysis": {"method": "bandit", "looks": 3}}, "analysis.looks", "is read by group_sequential"),
        ({"analysis": {"method": "bandit", "floor": 0.5}}, "analysis.floor", "must be less than 0.5"),
        ({"analysis": {"method": "bandit"}, "metrics": []}, "primary_metric", "is required of a bandit"),
        (
            {"analysis": {"method": "bandit"}, "metrics": [{"key": "m", "type": "mean", "property": "x"}]},
            "analysis.method",
            "m is a mean metric",
        ),
    ],
)
def test_what_makes_no_bandit__is_refused_by_its_field(
    catalog: Catalog, fields: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(Invalid) as refused:
        catalog.create(**{"metrics": ["buy"], "variants": HALVES, **fields})
    [error] = refused.value.errors
    assert error.path == path
    assert said in error.message


def test_new_shares__open_a_phase_sum_to_what_was_there_and_are_on_record(catalog: Catalog) -> None:
    experiment = bandit(catalog)
    a, b, c = (each["id"] for each in catalog.document(experiment)["variants"])
    catalog.later(days=1)
    with catalog.write("schedule") as tx:
        row = find(tx, experiment)
        bandits.reweight(tx, row, {a: 0.12345, b: 0.87655}, {a: 0.1, b: 0.9}, {a: 0.2, b: 0.001})
    assert catalog.allocations(experiment) == {"a": 0.0988, "b": 0.7012, "c": 0.2}
    document = catalog.document(experiment)
    assert document["phase"] == 2
    assert document["bandit_state"] == {
        "at": "2026-11-22T12:00:00.000000Z",
        "next_at": "2026-11-23T12:00:00.000000Z",
        "held": None,
        "weights": {"a": 0.0988, "b": 0.7012},
        "best": {"a": 0.1, "b": 0.9},
        "losses": {"a": 0.2, "b": 0.001},
    }
    assert c
    with catalog.write("schedule") as tx:
        bandits.hold(tx, find(tx, experiment), "The sample ratio does not hold.")
    document = catalog.document(experiment)
    assert document["phase"] == 2
    assert document["bandit_state"]["held"] == "The sample ratio does not hold."  # type: ignore[index]
    found = catalog.rows("SELECT action, reason FROM audit ORDER BY id DESC LIMIT 2")
    assert found == [
        ("experiment.bandit_hold", "The sample ratio does not hold."),
        ("experiment.bandit_reweight", None),
    ]
