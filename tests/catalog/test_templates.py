"""Duplicates have everything but the history; templates are what new experiments begin with."""

from typing import Any

import pytest

from assay.catalog import definitions, experiments, lifecycle, templates, variants
from assay.catalog.checks import parse
from assay.catalog.editing import find, find_variant
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.templates import DuplicateInput, TemplateInput
from assay.errors import Conflict, Invalid, NotFound
from catalog.conftest import Catalog
from catalog.test_definitions import change, define

#: What belongs to one experiment alone.
OWN = {
    "id",
    "key",
    "name",
    "status",
    "created_at",
    "started_at",
    "phase",
    "version",
    "end_at",
    "variants",
} | {
    "preregistration_hash",
    "metrics",
}


def full(catalog: Catalog, **fields: Any) -> int:
    define(catalog, key="m", type="sum", property="eur", lookback="7d")
    catalog.layer(key="l", unit="account_id")
    return catalog.running(
        **{
            "name": "Original",
            "description": "d",
            "hypothesis": "h",
            "owner": "ada",
            "tags": ["b", "a"],
            "end_at": "2026-12-24",
            "traffic_allocation": 0.25,
            "variants": [
                {"name": "old", "allocation": 0.25, "config": {"x": 1}},
                {"name": "new", "allocation": 0.75, "is_control": True, "enabled": True},
            ],
            "condition": {"country": "US"},
            "layer": {"key": "l", "share": 0.5},
            "unit": "account_id",
            "metrics": ["a", {"definition": "m", "lookback": None, "role": "guardrail"}],
            "target_sample_size": 1000,
            "significance_level": 0.1,
            "power": 0.9,
            "minimum_detectable_effect": 0.02,
            "analysis": {"method": "group_sequential", "look_dates": ["2026-12-01"]},
            "activation_event": {"event_type": "open", "where": [{"property": "p", "value": 1}]},
            **fields,
        }
    )


def duplicate(catalog: Catalog, experiment: int, **fields: Any) -> int:
    with catalog.write() as tx:
        return templates.duplicate(tx, find(tx, experiment), parse(DuplicateInput, fields)).id


def template(catalog: Catalog, **fields: Any) -> str:
    with catalog.write() as tx:
        return templates.create(tx, parse(TemplateInput, fields)).key


def begun(catalog: Catalog, **fields: Any) -> int:
    with catalog.write() as tx:
        return experiments.create(tx, parse(ExperimentCreate, templates.filled(tx, fields))).id


def same(one: Any, other: Any) -> None:
    for name in one.keys() - OWN - {"layer"}:
        assert one[name] == other[name], name
    for mine, copy in zip(one["variants"], other["variants"], strict=True):
        assert {**mine, "id": 0} == {**copy, "id": 0}


def test_a_duplicate_is_a_draft_with_everything_but_the_history(catalog: Catalog) -> None:
    experiment = full(catalog)
    original = catalog.document(experiment)
    copy = catalog.document(duplicate(catalog, experiment))
    same(original, copy)
    assert copy["metrics"] == original["metrics"]
    assert (copy["name"], copy["key"], copy["status"]) == ("Original (copy)", "original-copy", "draft")
    assert (copy["started_at"], copy["end_at"], copy["preregistration_hash"]) == (None, None, None)
    named = catalog.document(duplicate(catalog, experiment, name="Second", key="again"))
    assert (named["name"], named["key"]) == ("Second", "again")
    with pytest.raises(Conflict) as caught:
        duplicate(catalog, experiment, key="again")
    assert caught.value.code == "key_taken"
    long = catalog.create(name="x" * 200)
    assert len(catalog.document(duplicate(catalog, long))["name"]) == 200
    with catalog.write() as tx:
        lifecycle.start(tx, find(tx, copy["id"]))


def test_a_duplicate_of_what_has_changed_since_its_start(catalog: Catalog) -> None:
    experiment = catalog.running(
        metrics=["a"], variants=[{"name": name, "allocation": 0.25} for name in ("control", "b", "c", "d")]
    )
    catalog.edit(experiment, metrics=["a", "late"], primary_metric=None)
    with catalog.write() as tx:
        row = find(tx, experiment)
        variants.remove(tx, row, find_variant(row, "b"))
    copy = duplicate(catalog, experiment)
    assert catalog.allocations(copy) == pytest.approx({"control": 1 / 3, "c": 1 / 3, "d": 1 / 3})
    document = catalog.document(copy)
    assert document["primary_metric"] is None
    assert [(each["key"], each["role"], "registered" in each) for each in document["metrics"]] == [
        ("a", "secondary", False),
        ("late", "exploratory", False),
    ]


def test_a_template_from_an_experiment(catalog: Catalog) -> None:
    experiment = full(catalog)
    key = template(catalog, experiment=experiment, name="Checkout", description="For checkouts.")
    assert key == "checkout"
    change(catalog, "m", cap={"value": 5})
    made = catalog.document(begun(catalog, template="checkout", name="New", power=0.7, tags=[]))
    original = catalog.document(experiment)
    assert (made["name"], made["key"], made["power"], made["tags"]) == ("New", "new", 0.7, [])
    same({**original, "power": 0.7, "tags": []}, made)
    assert made["metrics"] == original["metrics"]
    assert made["metrics"][1]["newest_version"] == 2
    assert catalog.document(begun(catalog, template="checkout"))["name"] == "Checkout"
    replaced = catalog.document(begun(catalog, template=1, metrics=["x"]))
    assert [each["key"] for each in replaced["metrics"]] == ["x"]


def test_a_template_from_a_body(catalog: Catalog) -> None:
    define(catalog, key="m")
    body = {"metrics": ["a", {"definition": "m"}], "primary_metric_name": "m", "traffic_allocation": 0.2}
    assert template(catalog, name="Small", body=body) == "small"
    assert template(catalog, name="Small", body={}) == "small-2"
    assert template(catalog, key="k", body={}) == "k"
    made = catalog.document(begun(catalog, template="small"))
    assert (made["primary_metric"], made["traffic_allocation"]) == ("m", 0.2)
    assert catalog.document(begun(catalog, template="small", primary_metric="a"))["primary_metric"] == "a"
    assert catalog.document(begun(catalog, template="small", metrics=["z"]))["primary_metric"] == "z"
    with catalog.write() as tx:
        for each in list(experiments.page(tx)[0]):
            experiments.remove(tx, each)
        assert definitions.remove(tx, definitions.find(tx, "m")) == "archived"
        assert [each.key for each in templates.page(tx)[0]] == ["k", "small", "small-2"]
        assert [each.key for each in templates.page(tx, skip=1, limit=1)[0]] == ["small"]
        templates.remove(tx, templates.find_template(tx, "small"))
    with catalog.read() as tx:
        for wrong in ("small", "\x00", "9" * 40):
            with pytest.raises(NotFound):
                templates.find_template(tx, wrong)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "experiment"),
        ({"experiment": 1, "body": {}}, "experiment"),
        ({"body": {}}, "name"),
        ({"name": "t", "body": []}, "body"),
        ({"name": "t", "body": {"key": "k"}}, "body.key"),
        ({"name": "t", "body": {"status": "running"}}, "body.status"),
        ({"name": "t", "body": {"template": "x"}}, "body.template"),
        ({"name": "t", "body": {"powr": 0.8}}, "body.powr"),
        ({"name": "t", "body": {"power": 2}}, "body.power"),
        ({"name": "t", "body": {"metrics": [{"definition": "nope"}]}}, "body.metrics[0].definition"),
        ({"name": "t", "body": {"metrics": ["a"], "primary_metric": "b"}}, "body.primary_metric"),
        ({"name": "t", "body": {"segments": [77]}}, "body.segments[0]"),
        ({"name": "t", "body": {"condition": {"a": {"$x": 1}}}}, "body.condition.a.$x"),
        ({"name": "t", "body": {"variants": [{"name": "a", "allocation": 0.5}]}}, "body.variants"),
    ],
)
def test_a_wrong_template_is_named(catalog: Catalog, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        template(catalog, **fields)
    assert caught.value.errors[0].path == path
    assert caught.value.detail.startswith(path)


@pytest.mark.parametrize("reference", [None, True, [], "nope", 7, 1.5])
def test_a_template_that_is_not_there(catalog: Catalog, reference: Any) -> None:
    with pytest.raises(Invalid) as caught:
        begun(catalog, template=reference, name="x")
    assert caught.value.errors[0].path == "template"
