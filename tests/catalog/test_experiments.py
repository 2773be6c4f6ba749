"""Creating, editing, listing and removing experiments."""

from typing import Any

import pytest

from assay.catalog import documents, experiments
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.errors import Conflict, Invalid, NotFound, Stale
from catalog.conftest import HALVES, Catalog


def test_what_is_not_given_has_its_default(catalog: Catalog) -> None:
    experiment = catalog.create(name="Button Color Test")
    assert catalog.document(experiment) == {
        "id": experiment,
        "key": "button-color-test",
        "name": "Button Color Test",
        "description": "",
        "hypothesis": "",
        "owner": None,
        "tags": [],
        "status": "draft",
        "created_at": "2026-11-21T12:00:00.000000Z",
        "start_at": None,
        "end_at": None,
        "schedule_error": None,
        "ramp": None,
        "ramp_state": None,
        "started_at": None,
        "ended_at": None,
        "traffic_allocation": 1.0,
        "variants": [
            {
                "id": 1,
                "key": "control",
                "name": "control",
                "description": "",
                "allocation": 1.0,
                "allocation_percent": 100.0,
                "enabled": True,
                "is_control": True,
                "config": {},
            }
        ],
        "segments": [],
        "condition": None,
        "private": False,
        "layer": None,
        "prerequisites": [],
        "holdouts": [],
        "holdout": None,
        "unit": "user_id",
        "metrics": [],
        "primary_metric": None,
        "guardrail_metrics": [],
        "target_sample_size": None,
        "significance_level": 0.05,
        "power": 0.8,
        "minimum_detectable_effect": None,
        "analysis": {
            "method": "fixed",
            "alternative": "two-sided",
            "correction": "holm",
            "cuped": True,
        },
        "activation_event": None,
        "circuit_breaker": None,
        "circuit_breaker_state": None,
        "bandit_state": None,
        "preregistration_hash": None,
        "winner": None,
        "decision": None,
        "phase": 0,
        "version": 1,
    }


def test_everything_given_comes_back(catalog: Catalog) -> None:
    given: dict[str, Any] = {
        "key": "Checkout.v2",
        "name": "Checkout ✨",
        "description": "d",
        "hypothesis": "h",
        "owner": "ada",
        "tags": ["b", "a", "b"],
        "start_at": "2026-12-01T09:00:00+01:00",
        "end_at": "2026-12-24",
        "traffic_allocation": 0.25,
        "variants": [
            {"name": "old", "allocation": 0.25, "config": {"x": [1, {"y": None}]}},
            {"name": "new", "allocation": 0.75, "key": "New", "description": "n", "is_control": True},
        ],
        "condition": {"country": "US"},
        "layer": {"key": "checkout", "share": 0.5},
        "unit": "account_id",
        "target_sample_size": 1000,
        "significance_level": 0.1,
        "power": 0.9,
        "minimum_detectable_effect": 0.02,
    }
    layer = catalog.layer(key="checkout", unit="account_id")
    document: dict[str, Any] = {**catalog.document(catalog.create(**given))}
    assert document["tags"] == ["b", "a"]
    assert document["start_at"] == "2026-12-01T08:00:00.000000Z"
    assert document["end_at"] == "2026-12-24T00:00:00.000000Z"
    assert document["layer"] == {"id": layer, "key": "checkout", "share": 0.5, "slots": []}
    assert [(each["key"], each["allocation"], each["is_control"]) for each in document["variants"]] == [
        ("old", 0.25, False),
        ("New", 0.75, True),
    ]
    assert document["variants"][0]["config"] == {"x": [1, {"y": None}]}
    for name in given.keys() - {"tags", "start_at", "end_at", "variants", "layer"}:
        assert document[name] == given[name], name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Button Color Test", "button-color-test"),
        ("  Überprüfung Nº 3 ", "uberprufung-no-3"),
        ("variant_b", "variant_b"),
        ("2024", "experiment-2024"),
        ("日本語", "experiment"),
        ("🎉", "experiment"),
        ("a/b?c#d", "a-b-c-d"),
        ("x" * 200, "x" * 80),
    ],
)
def test_a_key_is_made_from_the_name(catalog: Catalog, name: str, key: str) -> None:
    assert catalog.document(catalog.create(name=name))["key"] == key


def test_names_may_repeat_and_keys_count_up(catalog: Catalog) -> None:
    keys = [catalog.document(catalog.create(name="Same name"))["key"] for _ in range(4)]
    assert keys == ["same-name", "same-name-2", "same-name-3", "same-name-4"]
    assert catalog.document(catalog.create(name="same"))["key"] == "same"
    assert catalog.document(catalog.create(name="same%name"))["key"] == "same-name-5"


def test_an_explicit_key_that_is_taken_is_a_conflict(catalog: Catalog) -> None:
    catalog.create(key="taken")
    with pytest.raises(Conflict) as caught:
        catalog.create(key="taken")
    assert (caught.value.status, caught.value.code) == (409, "key_taken")


def test_an_experiment_is_found_by_id_and_key(catalog: Catalog) -> None:
    experiment = catalog.create(key="abc")
    with catalog.read() as tx:
        assert find(tx, experiment).id == find(tx, str(experiment)).id == find(tx, "abc").id == experiment
        for stranger in ("ABC", "abd", "0", "-1", str(2**63), "9" * 100, "١", "", "1.0", "\x00"):
            with pytest.raises(NotFound):
                find(tx, stranger)


def test_an_edit_changes_only_what_is_given(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES, tags=["a"], owner="ada", metrics=["buy"])
    before: dict[str, Any] = {**catalog.document(experiment)}
    catalog.later(hours=1)
    after = catalog.edit(experiment, description="new", tags=["b", "a"], owner=None)
    assert after == {**before, "description": "new", "tags": ["b", "a"], "owner": None, "version": 2}
    (changes,) = catalog.rows("SELECT changes FROM audit WHERE action = 'experiment.edit'")
    assert documents.difference(before, {**after})  # what the log must hold
    import json

    assert json.loads(changes[0]) == {
        "description": {"from": "", "to": "new"},
        "owner": {"from": "ada", "to": None},
        "tags": {"from": ["a"], "to": ["b", "a"]},
    }


def test_an_edit_that_changes_nothing_leaves_no_trace(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES, tags=["a", "b"], metrics=["buy"], condition={"a": 1})
    before = catalog.document(experiment)
    assert (
        catalog.edit(experiment, name="Test", tags=["a", "b"], metrics=["buy"], condition={"a": 1}) == before
    )
    assert catalog.rows("SELECT count(*) FROM audit") == [(1,)]


def test_what_was_read_may_be_sent_back(catalog: Catalog) -> None:
    experiment = catalog.running(metrics=["buy", {"event_type": "pay", "type": "sum", "property": "eur"}])
    before = catalog.document(experiment)
    assert catalog.edit(experiment, **before) == before
    changed = catalog.edit(experiment, **{**before, "description": "new"})
    assert changed == {**before, "description": "new", "version": before["version"] + 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", 99), ("created_at", "2026-01-01T00:00:00Z"), ("winner", "b"), ("phase", 7), ("started_at", "x")],
)
def test_fields_that_other_calls_change_are_read_only(catalog: Catalog, field: str, value: Any) -> None:
    experiment = catalog.create()
    with pytest.raises(Invalid) as caught:
        catalog.edit(experiment, **{field: value})
    assert caught.value.errors[0].path == field
    assert "cannot be changed here" in caught.value.errors[0].message


def test_two_editors_cannot_both_win(catalog: Catalog) -> None:
    experiment = catalog.create()
    catalog.edit(experiment, description="first", version=1)
    with pytest.raises(Stale) as caught:
        catalog.edit(experiment, description="second", version=1)
    assert caught.value.status == 412
    given = parse(ExperimentEdit, {"description": "third"})
    with catalog.write() as tx, pytest.raises(Stale):
        experiments.edit(tx, find(tx, experiment), given, expected=frozenset({1, 7}))
    assert catalog.document(experiment)["description"] == "first"


def test_after_the_start_key_and_unit_stay(catalog: Catalog) -> None:
    draft = catalog.create()
    assert catalog.edit(draft, key="other", unit="account_id")["key"] == "other"
    experiment = catalog.running()
    for change in ({"key": "new-key"}, {"unit": "account_id"}):
        with pytest.raises(Conflict) as caught:
            catalog.edit(experiment, **change)
        assert caught.value.code == "experiment_running"


def test_lists_are_filtered_paged_and_counted(catalog: Catalog) -> None:
    first = catalog.create(name="Alpha 100%", tags=["x"])
    second = catalog.running(name="Beta", description="about alpha", tags=["x", "y"])
    third = catalog.create(name="Gamma_1")

    def listed(**filters: Any) -> tuple[list[int], int]:
        with catalog.read() as tx:
            rows, total = experiments.page(tx, **filters)
            return [row.id for row in rows], total

    assert listed() == ([third, second, first], 3)
    assert listed(limit=2) == ([third, second], 3)
    assert listed(skip=2, limit=2) == ([first], 3)
    assert listed(skip=9) == ([], 3)
    assert listed(status="running") == ([second], 1)
    assert listed(q="ALPHA") == ([second, first], 2)
    assert listed(q="100%") == ([first], 1)
    assert listed(q="%") == ([first], 1)
    assert listed(q="a_1") == ([third], 1)
    assert listed(q="\\") == ([], 0)
    assert listed(tag="x") == ([second, first], 2)
    assert listed(tag="y", q="beta", status="running") == ([second], 1)
    assert listed(tag="X") == ([], 0)


def test_deleting_a_draft_removes_it_and_the_log_remembers(catalog: Catalog) -> None:
    experiment = catalog.create(tags=["x"], metrics=["buy"])
    with catalog.write() as tx:
        assert experiments.remove(tx, find(tx, experiment)) == "deleted"
    for table in ("experiments", "variants", "experiment_tags"):
        assert catalog.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert catalog.rows("SELECT action FROM audit ORDER BY id") == [
        ("experiment.create",),
        ("experiment.delete",),
    ]
    assert catalog.published.ruleset.find(experiment) is None
    assert catalog.create() > experiment


def test_deleting_a_started_experiment_archives_it(catalog: Catalog) -> None:
    experiment = catalog.running()
    catalog.later(days=1)
    with catalog.write() as tx:
        assert experiments.remove(tx, find(tx, experiment)) == "archived"
    document = catalog.document(experiment)
    assert (document["status"], document["ended_at"]) == ("archived", "2026-11-22T12:00:00.000000Z")
    with catalog.read() as tx:
        assert experiments.page(tx) == ([], 0)
        assert experiments.page(tx, status="archived")[1] == 1
    with pytest.raises(Conflict) as caught:
        catalog.edit(experiment, description="late")
    assert caught.value.code == "experiment_archived"


def test_a_purge_leaves_nothing_but_the_log(catalog: Catalog) -> None:
    experiment = catalog.running(tags=["x"])
    with catalog.write() as tx:
        assert experiments.remove(tx, find(tx, experiment), purge=True) == "purged"
    for table in ("experiments", "variants", "experiment_tags", "phases", "experiment_segments", "overrides"):
        assert catalog.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
    assert catalog.rows("SELECT action FROM audit WHERE experiment_id = ? ORDER BY id", experiment) == [
        ("experiment.create",),
        ("experiment.start",),
        ("experiment.purge",),
    ]


def test_a_new_experiment_is_draft_or_running(catalog: Catalog) -> None:
    for status in ("RUNNING", "Active", "running"):
        assert catalog.document(catalog.create(status=status))["status"] == "running"
    for status in ("paused", "stopped", "archived"):
        with pytest.raises(Invalid) as caught:
            catalog.create(status=status)
        assert caught.value.errors[0].path == "status"
    with catalog.write() as tx:
        given = parse(ExperimentCreate, {"name": "later", "start_at": "2026-12-01"})
        assert experiments.create(tx, given, status="running").status == "draft"  # type: ignore[arg-type]
