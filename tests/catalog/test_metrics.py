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
        ({"metrics": ["a", "a", "b", "a"]}, {"a": "primary", "b": "secondary"}),
        ({"metrics": ["a", {"event_type": "a"}]}, {"a": "primary"}),
        ({"metrics": [], "primary_metric": "new"}, {"new": "primary"}),
        ({"metrics": [], "guardrail_metrics": ["crash"]}, {"crash": "guardrail"}),
        ({"guardrail_metrics": ["crash"], "primary_metric": "buy"}, {"buy": "primary", "crash": "guardrail"}),
        ({"primary_metric_name": "buy"}, {"buy": "primary"}),
        ({"metrics": ["a"], "primary_metric": None}, {"a": "secondary"}),
        ({"metrics": ["a", "b"], "guardrail_metrics": ["b"]}, {"a": "primary", "b": "guardrail"}),
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


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"primary_metric": "nope"}, "primary_metric"),
        ({"primary_metric_name": "nope"}, "primary_metric_name"),
        ({"guardrail_metrics": ["buy", "nope"]}, "guardrail_metrics[1]"),
    ],
)
def test_a_name_that_is_not_in_the_list_given_is_refused(
    catalog: Catalog, fields: dict[str, Any], path: str
) -> None:
    metrics = [{"key": "k", "name": "Sales", "event_type": "buy"}, "visit"]
    with pytest.raises(Invalid) as caught:
        catalog.create(metrics=metrics, **fields)
    (error,) = caught.value.errors
    assert (error.path, error.message) == (
        path,
        'is not one of the metrics given ("k", "visit"); got "nope"',
    )
    experiment = catalog.create(metrics=metrics)
    with pytest.raises(Invalid):
        catalog.edit(experiment, metrics=metrics, **fields)


@pytest.mark.parametrize("fields", [{"name": "buy"}, {"key": "buy"}, {"key": "buy", "name": "buy"}])
def test_a_metric_without_an_event_type_is_called_like_it(catalog: Catalog, fields: dict[str, str]) -> None:
    (metric,) = catalog.document(catalog.create(metrics=[fields]))["metrics"]
    assert (metric["key"], metric["name"], metric["event_type"]) == ("buy", "buy", "buy")


@pytest.mark.parametrize("fields", [{}, {"type": "count"}, {"key": "aov", "name": "Order value"}])
def test_an_event_type_that_nothing_names_is_required(catalog: Catalog, fields: dict[str, str]) -> None:
    with pytest.raises(Invalid) as caught:
        catalog.create(metrics=[fields])
    assert caught.value.errors[0].path == "metrics[0].event_type"
