"""Metric definitions: every type of metric, every wrong word, versions, and experiments that copy them."""

from typing import Any

import pytest

from assay.catalog import audit, definitions, documents
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.measuring import DefinitionInput
from assay.errors import Conflict, Invalid, NotFound, Stale
from catalog.conftest import HALVES, NOON, Catalog

BARE = {
    "key": "m",
    "name": "m",
    "type": "conversion",
    "event_type": "buy",
    "property": None,
    "direction": "increase",
    "role": "primary",
}


def define(catalog: Catalog, **fields: Any) -> str:
    """A new definition; its key."""
    with catalog.write() as tx:
        return definitions.create(tx, parse(DefinitionInput, {"event_type": "buy", **fields})).key


def change(catalog: Catalog, reference: str, /, **fields: Any) -> documents.DefinitionDocument:
    with catalog.write() as tx:
        row = definitions.find(tx, reference)
        definitions.edit(tx, row, fields)
        return definitions.document(tx, row)


def shown(catalog: Catalog, key: str) -> documents.DefinitionDocument:
    with catalog.read() as tx:
        return definitions.document(tx, definitions.find(tx, key))


FILTERS = [
    ({"property": "plan", "value": "pro"}, {"property": "plan", "op": "eq", "value": "pro"}),
    ({"property": "n", "op": "ge", "value": 3}, {"property": "n", "op": "ge", "value": 3}),
    ({"property": "n", "op": "in", "value": ["a", 1, True]},) * 2,
    ({"property": "n", "op": "not_exists"},) * 2,
]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"type": "conversion"}, {}),
        ({"event": "buy", "event_type": "buy"}, {}),
        *(({"where": [given]}, {"where": [stored]}) for given, stored in FILTERS),
        ({"where": []}, {}),
        ({"description": "Who buys.", "role": None}, {"description": "Who buys."}),
        ({"window": {"duration": "168h"}}, {"window": {"duration": "7d"}}),
        (
            {"window": {"delay": "60m", "duration": "1440m"}, "complete_only": True},
            {"window": {"delay": "1h", "duration": "1d"}, "complete_only": True},
        ),
        ({"window": {"delay": "0d"}}, {}),
        ({"window": None, "cap": None, "zeros": None, "complete_only": False}, {}),
        ({"lookback": "28d"}, {"lookback": "28d"}),
        ({"type": "count", "cap": {"value": 50}}, {"cap": {"value": 50}}),
        (
            {"type": "sum", "property": "eur", "cap": {"percentile": 99.5, "lower": 0.5}},
            {"property": "eur", "cap": {"percentile": 99.5, "lower": 0.5}},
        ),
        ({"type": "revenue", "cap": {"value": 10, "lower": -10}}, {"cap": {"value": 10, "lower": -10}}),
        ({"type": "mean", "property": "ms"}, {"property": "ms"}),
        (
            {"type": "ratio", "denominator": "visit"},
            {"fold": "count", "denominator": {"event_type": "visit", "fold": "count"}},
        ),
        (
            {
                "type": "ratio",
                "property": "eur",
                "denominator": {"event_type": "order", "property": "items", "where": [FILTERS[0][0]]},
            },
            {
                "property": "eur",
                "fold": "sum",
                "denominator": {
                    "event_type": "order",
                    "where": [FILTERS[0][1]],
                    "fold": "sum",
                    "property": "items",
                },
            },
        ),
        ({"type": "quantile", "quantile": 0.9}, {"quantile": 0.9, "level": "user"}),
        (
            {"type": "quantile", "quantile": 0.5, "zeros": True, "level": "user"},
            {"quantile": 0.5, "level": "user", "zeros": True},
        ),
        ({"type": "quantile", "quantile": 0.5, "level": "event"}, {"quantile": 0.5, "level": "event"}),
        ({"type": "retention", "from": "0d", "to": "7d"}, {"from": "0d", "to": "7d"}),
        (
            {"type": "funnel", "event_type": None, "steps": ["cart", {"event_type": "buy", "where": []}]},
            {"steps": [{"event_type": "cart"}, {"event_type": "buy"}]},
        ),
        ({"type": "threshold", "at_least": 3}, {"at_least": 3, "fold": "count"}),
        (
            {"type": "threshold", "at_least": 99.5, "property": "eur"},
            {"at_least": 99.5, "property": "eur", "fold": "sum"},
        ),
        (
            {"role": "guardrail", "margin": {"relative": 0.02}},
            {"role": "guardrail", "margin": {"relative": 0.02}},
        ),
        (
            {"role": "guardrail", "direction": "decrease", "margin": {"absolute": 1.5}},
            {"role": "guardrail", "direction": "decrease", "margin": {"absolute": 1.5}},
        ),
    ],
)
def test_one_form_which_can_be_sent_back(
    catalog: Catalog, given: dict[str, Any], stored: dict[str, Any]
) -> None:
    written = {"key": "m", "event_type": "buy", **given}
    written = {name: value for name, value in written.items() if (name, value) != ("event_type", None)}
    role = stored.get("role", "primary")
    inline = catalog.document(catalog.create(metrics=[written]))["metrics"]
    assert inline == [{**BARE, "type": given.get("type", "conversion"), **stored, "role": role}]
    assert catalog.document(catalog.create(metrics=inline))["metrics"] == inline
    key = define(catalog, **{"event_type": "buy", **written})
    copied = catalog.document(catalog.create(metrics=[{"definition": key}]))["metrics"]
    assert copied == [{**inline[0], "definition": "m", "definition_version": 1, "newest_version": 1}]
    assert list(copied[0])[:7] == list(BARE)
    assert change(catalog, key, **shown(catalog, key))["version"] == 1


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"where": [{"property": "a", "op": "like", "value": 1}]}, "where[0].op", '"like"'),
    ({"where": [{"op": "exists"}]}, "where[0].property", "is required"),
    ({"where": [{"property": "a"}]}, "where[0].value", "must not be null"),
    ({"where": [{"property": "a", "value": {}}]}, "where[0].value", "text, a number"),
    ({"where": [{"property": "a", "value": "\x00"}]}, "where[0].value", "NUL"),
    ({"where": [{"property": "a", "op": "lt", "value": "5"}]}, "where[0].value", 'for lt; got "5"'),
    ({"where": [{"property": "a", "op": "gt", "value": True}]}, "where[0].value", "got true"),
    ({"where": [{"property": "a", "op": "in", "value": "x"}]}, "where[0].value", 'got "x"'),
    ({"where": [{"property": "a", "op": "in", "value": []}]}, "where[0].value", "got a list of 0"),
    ({"where": [{"property": "a", "op": "in", "value": [1, None]}]}, "where[0].value[1]", "null"),
    ({"where": [{"property": "a", "op": "exists", "value": 1}]}, "where[0].value", "not read by exists"),
    ({"where": [{"property": "a", "vlaue": 1}]}, "where[0].vlaue", "did you mean value?"),
    ({"where": [{"property": "a", "op": "exists"}] * 21}, "where", "at most 20 items"),
    ({"where": {"a": 1}}, "where", "must be a list"),
    ({"window": {}}, "window", "delay, duration or both"),
    ({"window": {"duration": "0d"}}, "window.duration", "longer than nothing"),
    ({"window": {"duration": "-7d"}}, "window.duration", 'such as 7d, 24h or 30m; got "-7d"'),
    ({"window": {"duration": 7}}, "window.duration", "got 7"),
    ({"window": {"duration": "7 days"}}, "window.duration", "7 days"),
    ({"window": {"duration": "732d"}}, "window.duration", "at most 731d"),
    ({"window": {"duration": "700d", "delay": "32d"}}, "window", "at most 731d"),
    ({"window": "7d"}, "window", "JSON object"),
    ({"complete_only": True}, "complete_only", "needs a window"),
    ({"complete_only": True, "window": {"delay": "1d"}}, "complete_only", "needs a window"),
    ({"lookback": "0h"}, "lookback", "longer than nothing"),
    ({"lookback": "9999999d"}, "lookback", "at most 731d"),
    ({"type": "median"}, "type", '"median"'),
    (
        {"cap": {"value": 1}},
        "cap",
        "is read by count, sum, revenue, mean, ratio metrics, not by a conversion",
    ),
    ({"type": "sum", "cap": {"value": 1, "percentile": 99}}, "cap", "got both"),
    ({"type": "sum", "cap": {"lower": 1}}, "cap", "got neither"),
    ({"type": "sum", "cap": {"percentile": 0.99}}, "cap.percentile", "got 0.99"),
    ({"type": "sum", "cap": {"percentile": 100}}, "cap.percentile", "less than 100"),
    ({"type": "sum", "cap": {"percentile": 99, "lower": 50}}, "cap.lower", "less than 50"),
    ({"type": "sum", "cap": {"value": 5, "lower": 5}}, "cap.lower", "less than value, which is 5"),
    ({"type": "ratio"}, "denominator", "is required of a ratio metric"),
    ({"type": "ratio", "denominator": {}}, "denominator.event_type", "is required"),
    ({"type": "ratio", "denominator": "v", "fold": "max"}, "fold", '"max"'),
    ({"type": "ratio", "denominator": "v", "property": "e", "fold": "count"}, "property", "fold must be sum"),
    (
        {"type": "ratio", "denominator": {"event_type": "v", "property": "e", "fold": "any"}},
        "denominator.property",
        "fold must be sum",
    ),
    ({"denominator": "visit"}, "denominator", "is read by ratio metrics"),
    ({"type": "quantile"}, "quantile", "is required of a quantile metric"),
    ({"type": "quantile", "quantile": 0}, "quantile", "greater than 0; got 0"),
    ({"type": "quantile", "quantile": 1}, "quantile", "less than 1; got 1"),
    ({"type": "quantile", "quantile": 90}, "quantile", "got 90"),
    ({"type": "quantile", "quantile": 0.5, "lookback": "7d"}, "lookback", "not by a quantile metric"),
    ({"type": "quantile", "quantile": 0.5, "level": "session"}, "level", '"session"'),
    ({"type": "quantile", "quantile": 0.5, "level": "event", "zeros": True}, "zeros", "quantiles of units"),
    ({"type": "retention", "to": "7d"}, "from", "is required of a retention metric"),
    ({"type": "retention", "from": "7d"}, "to", "is required of a retention metric"),
    ({"type": "retention", "from": "7d", "to": "168h"}, "to", 'later than from, which is 7d; got "7d"'),
    ({"type": "retention", "from": "7d", "to": "9d", "window": {"delay": "1d"}}, "window", "not by a ret"),
    ({"type": "funnel"}, "steps", "is required of a funnel metric"),
    ({"type": "funnel", "steps": ["buy"]}, "steps", "at least 2"),
    ({"type": "funnel", "steps": ["cart", "pay"]}, "event_type", 'last step, "pay"'),
    ({"type": "funnel", "steps": ["a", {"event": "b"}]}, "steps[1].event_type", "is required"),
    ({"type": "threshold"}, "at_least", "is required of a threshold metric"),
    ({"type": "threshold", "at_least": 0}, "at_least", "greater than 0"),
    ({"type": "threshold", "at_least": "3"}, "at_least", "must be a number"),
    ({"type": "threshold", "at_least": 3, "fold": "any"}, "fold", "count or sum"),
    ({"type": "count", "property": "eur"}, "property", "not by a count metric"),
    ({"margin": {"relative": 0.1}}, "margin", "is read of guardrails"),
    ({"role": "secondary", "margin": {"relative": 0.1}}, "margin", "secondary"),
    ({"role": "guardrail", "margin": {}}, "margin", "got neither"),
    ({"role": "guardrail", "margin": {"relative": 0.1, "absolute": 1}}, "margin", "got both"),
    ({"role": "guardrail", "margin": {"relative": 2}}, "margin.relative", "less than 1; got 2"),
    ({"role": "guardrail", "margin": {"absolute": -1}}, "margin.absolute", "greater than 0; got -1"),
    ({"direction": "up"}, "direction", '"up"'),
    ({"event": "pay"}, "event", "give one of them"),
    ({"windw": {}}, "windw", "did you mean window?"),
]


@pytest.mark.parametrize(("fields", "path", "words"), WRONG, ids=[str(each[0])[:70] for each in WRONG])
def test_wrong_words_are_named(fields: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(DefinitionInput, {"key": "m", "event_type": "buy", **fields})
    (error,) = caught.value.errors[:1]
    assert error.path == path
    assert words in error.message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"event_type": "buy", "where": [{"property": "a", "op": "?"}]}, "metrics[1].where[0].op"),
        ({"event_type": "buy", "type": "ratio"}, "metrics[1].denominator"),
        ({"event_type": "buy", "margin": {"absolute": 1}}, "metrics[1].margin"),
        ({"definition": "nope"}, "metrics[1].definition"),
        ({"definition": "has space"}, "metrics[1].definition"),
        ({"event_type": "buy", "definition_version": 1}, "metrics[1].definition_version"),
        ({"definition": "d", "definition_version": 2}, "metrics[1].definition_version"),
        ({"definition": "d", "definition_version": 0}, "metrics[1].definition_version"),
        ({"definition": "d", "event_type": "pay"}, "metrics[1].event_type"),
        ({"definition": "d", "event": "pay"}, "metrics[1].event_type"),
        ({"definition": "d", "type": "count"}, "metrics[1].type"),
        ({"definition": "d", "where": [{"property": "a", "value": 1}]}, "metrics[1].where"),
        ({"definition": "d", "cap": {"value": 1}}, "metrics[1].cap"),
        ({"definition": "d", "margin": {"relative": 0.1}}, "metrics[1].margin"),
    ],
)
def test_in_an_experiment_the_place_in_the_list_is_named(
    catalog: Catalog, fields: dict[str, Any], path: str
) -> None:
    define(catalog, key="d")
    with pytest.raises(Invalid) as caught:
        catalog.create(metrics=["first", fields])
    assert caught.value.errors[0].path == path


def test_keys_are_made_as_those_of_experiments(catalog: Catalog) -> None:
    assert define(catalog, name="Revenue per Üser") == "revenue-per-user"
    assert define(catalog, name="Revenue per User") == "revenue-per-user-2"
    with pytest.raises(Conflict) as caught:
        define(catalog, key="revenue-per-user")
    assert (caught.value.code, caught.value.errors[0].path) == ("key_taken", "key")
    for wrong in ("12", "a b", ""):
        with pytest.raises(Invalid):
            define(catalog, key=wrong)
    with pytest.raises(Invalid, match="name: is required"):
        define(catalog)


def test_each_change_is_a_version_and_the_earlier_ones_stay(catalog: Catalog) -> None:
    key = define(catalog, key="m", type="sum", property="eur", lookback="7d")
    catalog.later(hours=1)
    after = change(catalog, key, window={"duration": "24h"}, lookback=None, name="Revenue")
    assert (after["version"], after["window"], after["name"]) == (2, {"duration": "1d"}, "Revenue")
    assert "lookback" not in after
    assert after["updated_at"] == "2026-11-21T13:00:00.000000Z"
    assert change(catalog, key, window={"duration": "1d"})["version"] == 2
    kept = change(catalog, key, type="conversion", event="signup")
    assert (kept["version"], kept["property"], kept["event_type"]) == (3, None, "signup")
    assert kept["window"] == {"duration": "1d"}
    with catalog.read() as tx:
        row = definitions.find(tx, key)
        first, second = (definitions.version_of(tx, row, number) for number in (1, 2))
        assert (first.body["lookback"], first.body["name"], first.changed_at) == ("7d", "m", NOON)
        assert (second.body["property"], second.changed_by) == ("eur", "ada")
        assert [each.version for each in definitions.versions(tx, row)] == [3, 2, 1]
        for number in (0, 4, -1, 2**80):
            with pytest.raises(NotFound) as caught:
                definitions.version_of(tx, row, number)
            assert caught.value.code == "unknown_version"
        entries, _ = audit.page(tx, noun="metric")
    assert [each.action for each in entries] == ["metric.edit", "metric.edit", "metric.create"]
    assert entries[1].changes["lookback"] == {"from": "7d", "to": None}
    assert entries[1].changes["name"] == {"from": "m", "to": "Revenue"}


def test_a_lost_update_is_refused(catalog: Catalog) -> None:
    key = define(catalog, key="m")
    change(catalog, key, name="Other")
    with pytest.raises(Stale), catalog.write() as tx:
        definitions.edit(tx, definitions.find(tx, key), {"name": "x"}, expected=frozenset({1}))
    with pytest.raises(Stale):
        change(catalog, key, name="x", version=1)
    with pytest.raises(Invalid, match="id: cannot be changed here"):
        change(catalog, key, id=77)
    assert shown(catalog, key)["name"] == "Other"


def test_an_experiment_keeps_its_version_until_it_takes_another(catalog: Catalog) -> None:
    key = define(catalog, key="m", type="sum", property="eur", name="Revenue")
    experiment = catalog.create(metrics=["a", {"definition": key, "role": "guardrail"}], variants=HALVES)
    before = catalog.document(experiment)
    change(catalog, key, cap={"value": 100})
    metric = catalog.document(experiment)["metrics"][1]
    assert (metric["definition_version"], metric["newest_version"]) == (1, 2)
    assert "cap" not in metric
    # What an answer holds may be sent back, and changes nothing.
    assert catalog.edit(experiment, metrics=before["metrics"])["version"] == before["version"]
    after = catalog.edit(experiment, metrics=["a", {"definition": key, "role": "guardrail"}])
    assert after["metrics"][1]["definition_version"] == after["metrics"][1]["newest_version"] == 2
    assert after["metrics"][1]["cap"] == {"value": 100}
    assert shown(catalog, key)["experiments"] == [experiment]
    pinned = catalog.edit(experiment, metrics=[{"definition": key, "definition_version": 1}])
    assert pinned["metrics"][0]["definition_version"] == 1
    catalog.edit(experiment, metrics=["a"])
    assert shown(catalog, key)["experiments"] == []


def test_a_copy_may_differ_where_the_number_stays_comparable(catalog: Catalog) -> None:
    key = define(
        catalog,
        key="m",
        type="sum",
        role="guardrail",
        margin={"relative": 0.1},
        window={"duration": "7d"},
        lookback="14d",
    )
    asked = [
        {"definition": key, "margin": {"absolute": 3}, "window": {"duration": "14d"}},
        {"definition": key, "key": "other", "role": "primary", "lookback": None, "name": "Other"},
    ]
    experiment = catalog.create(metrics=asked)
    first, second = catalog.document(experiment)["metrics"]
    assert (first["key"], first["margin"], first["window"]) == ("m", {"absolute": 3}, {"duration": "14d"})
    assert (second["key"], second["role"], second["name"]) == ("other", "primary", "Other")
    assert second["lookback"] is None
    assert "margin" not in second
    version = catalog.document(experiment)["version"]
    assert catalog.edit(experiment, metrics=[first, second])["version"] == version


def test_a_margin_goes_with_the_role(catalog: Catalog) -> None:
    guardrail = {"event_type": "crash", "role": "guardrail", "margin": {"relative": 0.1}}
    experiment = catalog.create(metrics=["a", guardrail])
    crash = catalog.edit(experiment, guardrail_metrics=[])["metrics"][1]
    assert (crash["role"], "margin" in crash) == ("secondary", False)
    with pytest.raises(Invalid) as caught:
        catalog.edit(experiment, metrics=["a", {**guardrail, "role": None}])
    assert caught.value.errors[0].path == "metrics[1].margin"
    listed = catalog.edit(experiment, metrics=["a", {**guardrail, "role": None}], guardrail_metrics=["crash"])
    assert listed["metrics"][1]["margin"] == {"relative": 0.1}


def test_what_is_used_is_put_away_rather_than_deleted(catalog: Catalog) -> None:
    key = define(catalog, key="m")
    experiment = catalog.running(metrics=[{"definition": key}])

    def remove() -> str:
        with catalog.write() as tx:
            return definitions.remove(tx, definitions.find(tx, key))

    with pytest.raises(Conflict) as caught:
        remove()
    assert (caught.value.code, "test" in caught.value.detail) == ("definition_in_use", True)
    with pytest.raises(Conflict) as caught:
        change(catalog, key, key="renamed")
    assert caught.value.code == "definition_in_use"
    catalog.edit(experiment, status="stopped")
    assert remove() == "archived"
    assert shown(catalog, key)["archived"] is True
    with pytest.raises(Invalid) as refused:
        catalog.create(metrics=[{"definition": key}])
    assert refused.value.code == "definition_archived"
    with pytest.raises(Conflict) as caught:
        change(catalog, key, name="x")
    assert caught.value.code == "definition_archived"
    document = catalog.document(experiment)
    assert catalog.edit(experiment, metrics=document["metrics"])["version"] == document["version"]
    with catalog.write() as tx:
        definitions.restore(tx, definitions.find(tx, key))
    catalog.create(metrics=[{"definition": key}])
    unused = define(catalog, key="unused")
    assert change(catalog, unused, key="renamed")["key"] == "renamed"
    with catalog.write() as tx:
        assert definitions.remove(tx, definitions.find(tx, "renamed")) == "deleted"
        assert definitions.page(tx)[1] == 1


def test_a_purged_experiment_lets_go_of_its_definitions(catalog: Catalog) -> None:
    from assay.catalog import experiments

    key = define(catalog, key="m")
    experiment = catalog.create(metrics=[{"definition": key}])
    with catalog.database.writing(Actor("ada"), NOON) as tx:
        experiments.remove(tx, find(tx, experiment))
    with catalog.write() as tx:
        assert definitions.remove(tx, definitions.find(tx, key)) == "deleted"


def test_lists_are_by_key_and_searched_by_text(catalog: Catalog) -> None:
    for key in ("b", "a", "c_1"):
        define(catalog, key=key, name=f"Name {key}")
    with catalog.write() as tx:
        definitions.put_away(tx, definitions.find(tx, "b"))
    with catalog.read() as tx:
        assert [each.key for each in definitions.page(tx)[0]] == ["a", "c_1"]
        assert [each.key for each in definitions.page(tx, archived=True)[0]] == ["b"]
        assert [each.key for each in definitions.page(tx, q="_")[0]] == ["c_1"]
        assert [each.key for each in definitions.page(tx, q="NAME", skip=1)[0]] == ["c_1"]
        with pytest.raises(Invalid):
            definitions.page(tx, q="\x00")
        for wrong in ("nope", "a\x00", 7, "9" * 30):
            with pytest.raises(NotFound):
                definitions.find(tx, wrong)
