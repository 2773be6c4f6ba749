"""From what a caller writes to the one form that reports read."""

from typing import Any

import pytest

from assay.errors import Invalid
from catalog.conftest import HALVES, Catalog


def roles(catalog: Catalog, experiment: int) -> dict[str, str]:
    return {each["key"]: each["role"] for each in catalog.document(experiment)["metrics"]}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (
            "page view",
            {
                "key": "page view",
                "name": "page view",
                "type": "conversion",
                "event_type": "page view",
                "property": None,
                "direction": "increase",
                "role": "primary",
            },
        ),
        (
            {
                "event": "purchase",
                "type": "revenue",
                "property": "eur",
                "name": "Revenue",
                "direction": "decrease",
            },
            {
                "key": "Revenue",
                "name": "Revenue",
                "type": "revenue",
                "event_type": "purchase",
                "property": "eur",
                "direction": "decrease",
                "role": "primary",
            },
        ),
        (
            {"key": "aov", "event_type": "purchase", "type": "mean", "role": "secondary"},
            {
                "key": "aov",
                "name": "aov",
                "type": "mean",
                "event_type": "purchase",
                "property": None,
                "direction": "increase",
                "role": "primary",
            },
        ),
    ],
)
def test_one_form(catalog: Catalog, given: Any, stored: dict[str, Any]) -> None:
    assert catalog.document(catalog.create(metrics=[given]))["metrics"] == [stored]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"metrics": ["a", "b"]}, {"a": "primary", "b": "secondary"}),
        ({"metrics": ["a", "b"], "primary_metric": "b"}, {"a": "secondary", "b": "primary"}),
        ({"metrics": ["a"], "primary_metric": "new"}, {"a": "secondary", "new": "primary"}),
        ({"primary_metric_name": "buy"}, {"buy": "primary"}),
        ({"metrics": ["a"], "primary_metric": None}, {"a": "secondary"}),
        ({"metrics": ["a"], "guardrail_metrics": ["a", "crash"]}, {"a": "guardrail", "crash": "guardrail"}),
        ({"metrics": [{"event_type": "a", "role": "guardrail"}, "b"]}, {"a": "guardrail", "b": "primary"}),
        ({"metrics": ["a", {"event_type": "b", "role": "primary"}]}, {"a": "secondary", "b": "primary"}),
        (
            {
                "metrics": [
                    "buy",
                    {"event_type": "buy", "type": "sum"},
                    {"event_type": "buy", "type": "count"},
                ]
            },
            {"buy": "primary", "buy-2": "secondary", "buy-3": "secondary"},
        ),
        (
            {"metrics": [{"key": "k", "name": "Sales", "event_type": "buy"}], "primary_metric": "Sales"},
            {"k": "primary"},
        ),
        (
            {"metrics": [{"key": "k", "event_type": "buy"}, "b"], "primary_metric": "buy"},
            {"k": "primary", "b": "secondary"},
        ),
        ({"metrics": []}, {}),
    ],
)
def test_roles(catalog: Catalog, fields: dict[str, Any], expected: dict[str, str]) -> None:
    assert roles(catalog, catalog.create(**fields)) == expected


def test_roles_are_the_names_beside_the_list(catalog: Catalog) -> None:
    document = catalog.document(catalog.create(metrics=["a", "b", "c"], guardrail_metrics=["c", "b"]))
    assert document["primary_metric"] == "a"
    assert document["guardrail_metrics"] == ["b", "c"]


def test_a_change_of_the_primary_metric_leaves_the_rest(catalog: Catalog) -> None:
    experiment = catalog.create(metrics=["a", "b", "c"], guardrail_metrics=["c"])
    catalog.edit(experiment, primary_metric="b")
    assert roles(catalog, experiment) == {"a": "secondary", "b": "primary", "c": "guardrail"}
    catalog.edit(experiment, guardrail_metrics=[])
    assert roles(catalog, experiment) == {"a": "secondary", "b": "primary", "c": "secondary"}
    catalog.edit(experiment, primary_metric=None)
    assert catalog.document(experiment)["primary_metric"] is None


def test_what_appears_after_the_start_is_exploratory(catalog: Catalog) -> None:
    experiment = catalog.running(metrics=["a"])
    catalog.edit(experiment, metrics=["a", "b", {"event_type": "c", "role": "guardrail"}], primary_metric="a")
    assert roles(catalog, experiment) == {"a": "primary", "b": "exploratory", "c": "guardrail"}
    document = catalog.document(experiment)
    assert catalog.edit(experiment, metrics=document["metrics"], variants=HALVES) == document


def test_two_primaries_are_refused(catalog: Catalog) -> None:
    with pytest.raises(Invalid) as caught:
        catalog.create(
            metrics=[{"event_type": "a", "role": "primary"}, {"event_type": "b", "role": "primary"}]
        )
    assert caught.value.errors[0].path == "metrics"
