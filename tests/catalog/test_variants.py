"""Shares that add up, names that tell arms apart, and always one control."""

from typing import Any

import pytest

from assay.catalog import overrides, variants
from assay.catalog.checks import parse
from assay.catalog.editing import find, find_variant
from assay.catalog.inputs import VariantInput
from assay.errors import AssayError, Conflict, Invalid, NotFound
from catalog.conftest import HALVES, Catalog


def edit(catalog: Catalog, experiment: int, variant: int | str, **fields: Any) -> None:
    with catalog.write() as tx:
        row = find(tx, experiment)
        variants.edit(tx, row, find_variant(row, variant), parse(VariantInput, fields))


def add(catalog: Catalog, experiment: int, **fields: Any) -> int:
    with catalog.write() as tx:
        return variants.add(tx, find(tx, experiment), parse(VariantInput, fields)).id


def remove(catalog: Catalog, experiment: int, variant: int | str) -> None:
    with catalog.write() as tx:
        row = find(tx, experiment)
        variants.remove(tx, row, find_variant(row, variant))


@pytest.mark.parametrize(
    ("field", "whole"),
    [
        ("allocation", 1),
        ("allocation_percent", 100),
        ("traffic_percentage", 100),
        ("traffic_allocation_percent", 100),
        ("percent_allocated", 100),
    ],
)
def test_every_spelling_of_a_share(catalog: Catalog, field: str, whole: int) -> None:
    arms = [{"name": "a", field: 0.3 * whole}, {"name": "b", field: 0.7 * whole}]
    assert catalog.allocations(catalog.create(variants=arms)) == pytest.approx(
        {"a": 0.3, "b": 0.7}, abs=1e-12
    )
    arms[1][field] = 0.6 * whole
    with pytest.raises(Invalid) as caught:
        catalog.create(variants=arms)
    assert caught.value.code == "allocation_sum"
    assert caught.value.detail == f"variants: {field} must sum to {whole}; it sums to {0.9 * whole:g}"


def test_spellings_that_agree_are_one_and_those_that_do_not_are_refused(catalog: Catalog) -> None:
    arm = {"name": "a", "variant_name": "a", "allocation": 0.3, "traffic_percentage": 30.0, "config": {}}
    rest = {"name": "b", "allocation_percent": 70}
    assert catalog.allocations(catalog.create(variants=[arm, rest])) == pytest.approx({"a": 0.3, "b": 0.7})
    for clash, path in [
        ({"traffic_percentage": 40}, "traffic_percentage"),
        ({"variant_name": "other"}, "variant_name"),
        ({"configuration_json": {"x": 1}}, "configuration_json"),
    ]:
        with pytest.raises(Invalid) as caught:
            catalog.create(variants=[{**arm, **clash}, rest])
        assert caught.value.errors[0].path == f"variants[0].{path}"


@pytest.mark.parametrize("shares", [[1 / 3, 1 / 3, 1 / 3], [0.1] * 10, [0.5, 0.4999995], [1.0, 0.0]])
def test_sums_within_a_millionth_are_whole(catalog: Catalog, shares: list[float]) -> None:
    arms = [{"name": f"v{at}", "allocation": share} for at, share in enumerate(shares)]
    assert list(catalog.allocations(catalog.create(variants=arms)).values()) == shares


@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.5, 0.500002], [0.5, 0.499998], [0.0, 0.0], [1.0, 1.0]])
def test_other_sums_are_refused(catalog: Catalog, shares: list[float]) -> None:
    with pytest.raises(Invalid, match="must sum to 1; it sums to"):
        catalog.create(variants=[{"name": f"v{at}", "allocation": share} for at, share in enumerate(shares)])


def test_without_shares_all_are_equal_and_with_some_all_are_needed(catalog: Catalog) -> None:
    names = [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]
    assert set(catalog.allocations(catalog.create(variants=names)).values()) == {0.25}
    with pytest.raises(Invalid) as caught:
        catalog.create(variants=[{"name": "a", "allocation": 1}, {"name": "b"}])
    assert caught.value.errors[0].path == "variants[1].allocation"


@pytest.mark.parametrize(
    ("arms", "control"),
    [
        ([{"name": "a"}, {"name": "b"}], "a"),
        ([{"name": "a"}, {"name": "Control"}], "control"),
        ([{"name": "a"}, {"name": "control"}, {"name": "b", "is_control": True}], "b"),
        ([{"name": "a", "is_control": False}, {"name": "b"}], "b"),
        ([{"name": "a"}, {"name": "control", "is_control": False}], "a"),
    ],
)
def test_which_variant_is_the_control(catalog: Catalog, arms: list[dict[str, Any]], control: str) -> None:
    document = catalog.document(catalog.create(variants=arms))
    assert [each["key"] for each in document["variants"] if each["is_control"]] == [control]


@pytest.mark.parametrize(
    ("arms", "path"),
    [
        ([{"name": "a", "is_control": True}, {"name": "b", "is_control": True}], "variants[1].is_control"),
        ([{"name": "a", "is_control": False}], "variants"),
        ([{"name": "a"}, {"name": "a"}], "variants[1].name"),
        ([{"allocation": 1}], "variants[0].name"),
        ([{"name": "a", "key": "12"}], "variants[0].key"),
        ([{"name": "a", "key": "a b"}], "variants[0].key"),
        ([{"name": f"v{at}"} for at in range(101)], "variants"),
        ([{"name": "a", "config": {"x": "y" * 65536}}], "variants[0].config"),
        ([{"name": "a", "config": [1]}], "variants[0].config"),
        ([{"name": "a", "config": "{}"}], "variants[0].config"),
        ([{"name": "a", "allocation": -0.1}], "variants[0].allocation"),
        ([{"name": "a", "traffic_percentage": 100.1}], "variants[0].traffic_percentage"),
        ([{"name": "a", "allocation": "1"}], "variants[0].allocation"),
        ([{"name": "a", "allocation": True}], "variants[0].allocation"),
        ([{"name": "a", "enabled": 1}], "variants[0].enabled"),
        ([{"name": "a", "weight": 1}], "variants[0].weight"),
        (["a"], "variants[0]"),
        ({"a": 1}, "variants"),
    ],
)
def test_variants_that_are_refused(catalog: Catalog, arms: Any, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        catalog.create(variants=arms)
    assert caught.value.errors[0].path == path
    assert catalog.rows("SELECT (SELECT count(*) FROM experiments) + (SELECT count(*) FROM audit)") == [(0,)]


def test_a_clash_of_variant_keys(catalog: Catalog) -> None:
    document = catalog.document(catalog.create(variants=[{"name": "A b"}, {"name": "a B"}, {"name": "a-b!"}]))
    assert [each["key"] for each in document["variants"]] == ["a-b", "a-b-2", "a-b-3"]
    with pytest.raises(Conflict):
        catalog.create(variants=[{"name": "a", "key": "k"}, {"name": "b", "key": "k"}])


def test_one_share_may_shrink_but_never_grow_beyond_what_is_free(catalog: Catalog) -> None:
    experiment = catalog.running()
    edit(catalog, experiment, "control", traffic_percentage=20)
    assert catalog.allocations(experiment) == {"control": 0.2, "b": 0.5}
    with pytest.raises(Invalid) as caught:
        edit(catalog, experiment, "b", allocation_percent=80.1)
    assert caught.value.errors[0].path == "allocation_percent"
    assert "it sums to 100.1" in caught.value.detail
    with pytest.raises(Invalid, match=r"it sums to 1\.1"):
        edit(catalog, experiment, "b", allocation=0.9)
    edit(catalog, experiment, "b", allocation=0.8)
    assert catalog.allocations(experiment) == {"control": 0.2, "b": 0.8}


def test_the_control_shrinks_and_a_variant_takes_the_rest(catalog: Catalog) -> None:
    experiment = catalog.create(status="running")
    edit(catalog, experiment, "control", traffic_percentage=70)
    assert catalog.compiled(experiment).ranges == ((0.0, 0.7),)
    with pytest.raises(Invalid, match="it sums to 110"):
        add(catalog, experiment, name="b", traffic_percentage=40)
    add(catalog, experiment, variant_name="b", allocation_percent=30, configuration_json={"color": "red"})
    assert catalog.compiled(experiment).ranges == ((0.0, 0.7), (0.7, 1.0))
    assert catalog.document(experiment)["variants"][1]["config"] == {"color": "red"}
    assert catalog.document(experiment)["phase"] == 3


def test_a_new_variant_gets_nobody_unless_it_is_given_a_share(catalog: Catalog) -> None:
    experiment = catalog.running()
    add(catalog, experiment, name="c")
    assert catalog.allocations(experiment) == {"control": 0.5, "b": 0.5, "c": 0.0}
    with pytest.raises(Invalid) as caught:
        add(catalog, experiment)
    assert caught.value.errors[0].path == "name"
    with pytest.raises(Conflict) as taken:
        add(catalog, experiment, name="c")
    assert taken.value.code == "name_taken"


def test_a_switched_off_variant_leaves_its_share_to_the_others(catalog: Catalog) -> None:
    experiment = catalog.running(variants=[{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}])
    edit(catalog, experiment, "b", enabled=False)
    ranges = catalog.compiled(experiment).ranges
    assert [high - low for low, high in ranges] == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert catalog.allocations(experiment)["b"] == 0.25
    assert catalog.document(experiment)["phase"] == 2
    edit(catalog, experiment, "b", enabled=True)
    assert [high - low for low, high in catalog.compiled(experiment).ranges] == pytest.approx([0.25] * 4)


def test_what_decides_nothing_about_the_split_opens_no_phase(catalog: Catalog) -> None:
    experiment = catalog.running()
    edit(catalog, experiment, "b", name="Better", description="d", config={"x": 1})
    document = catalog.document(experiment)
    assert (document["phase"], document["version"]) == (1, 3)
    assert (
        document["variants"][1] | {"name": "Better", "key": "b", "config": {"x": 1}}
        == document["variants"][1]
    )


def test_removing_a_variant_of_a_draft_deletes_it(catalog: Catalog) -> None:
    experiment = catalog.create(variants=HALVES)
    remove(catalog, experiment, "control")
    assert [(each["key"], each["is_control"]) for each in catalog.document(experiment)["variants"]] == [
        ("b", True)
    ]
    with pytest.raises(Conflict) as caught:
        remove(catalog, experiment, "b")
    assert caught.value.code == "last_variant"


def test_removing_a_variant_people_have_keeps_it_out_of_sight(catalog: Catalog) -> None:
    experiment = catalog.running()
    gone = catalog.document(experiment)["variants"][1]["id"]
    with catalog.write() as tx:
        overrides.put(tx, find(tx, experiment), "qa", parse(overrides.OverrideInput, {"variant": "b"}))
    assert catalog.compiled(experiment).overrides == {"qa": 1}
    remove(catalog, experiment, "b")
    assert list(catalog.allocations(experiment)) == ["control"]
    compiled = catalog.compiled(experiment)
    assert [(each.id, each.removed, each.allocation) for each in compiled.variants][1] == (gone, True, 0.0)
    assert compiled.ranges[0] == (0.0, 0.5)
    assert compiled.ranges[1][0] == compiled.ranges[1][1]
    assert compiled.overrides == {}
    with catalog.read() as tx, pytest.raises(NotFound):
        find_variant(find(tx, experiment), "b")
    with pytest.raises(Conflict) as caught:
        add(catalog, experiment, name="b", allocation=0.5)
    assert "removed" in caught.value.detail
    for forbidden in (lambda: remove(catalog, experiment, "control"),):
        with pytest.raises(Conflict) as control:
            forbidden()
        assert control.value.code == "experiment_running"


def test_the_control_of_a_started_experiment_stays(catalog: Catalog) -> None:
    draft = catalog.create(variants=HALVES)
    edit(catalog, draft, "b", is_control=True)
    assert [each["is_control"] for each in catalog.document(draft)["variants"]] == [False, True]
    with pytest.raises(Invalid):
        edit(catalog, draft, "b", is_control=False)
    experiment = catalog.running()
    with pytest.raises(Conflict):
        edit(catalog, experiment, "b", is_control=True)
    with pytest.raises(Conflict):
        add(catalog, experiment, name="c", is_control=True)


def test_a_list_of_variants_replaces_the_list(catalog: Catalog) -> None:
    experiment = catalog.running(
        variants=[{"name": "control"}, {"name": "b", "config": {"x": 1}}, {"name": "c"}, {"name": "d"}]
    )
    before = {each["key"]: each["id"] for each in catalog.document(experiment)["variants"]}
    catalog.edit(
        experiment,
        variants=[
            {"name": "control", "allocation_percent": 20},
            {"id": before["b"], "name": "renamed", "allocation_percent": 30},
            {"name": "e", "allocation_percent": 50},
        ],
    )
    document = catalog.document(experiment)
    assert [(each["key"], each["name"], each["allocation"]) for each in document["variants"]] == [
        ("control", "control", 0.2),
        ("b", "renamed", 0.3),
        ("e", "e", 0.5),
    ]
    assert document["variants"][1]["config"] == {"x": 1}
    assert [each["id"] for each in document["variants"]][:2] == [before["control"], before["b"]]
    assert document["phase"] == 2
    assert catalog.rows("SELECT key FROM variants WHERE removed ORDER BY key") == [("c",), ("d",)]


@pytest.mark.parametrize(
    ("arms", "path"),
    [
        ([], "variants"),
        ([{"name": "control", "allocation": 0.5}], "variants"),
        ([{"id": 999, "allocation": 1}], "variants[0].id"),
        ([{"id": 1, "allocation": 0.5}, {"name": "control", "allocation": 0.5}], "variants"),
        ([{"name": "control", "key": "other", "id": 1, "allocation": 1}], "variants[0].key"),
    ],
)
def test_lists_that_cannot_replace(catalog: Catalog, arms: list[dict[str, Any]], path: str) -> None:
    experiment = catalog.create(variants=HALVES)
    before = catalog.document(experiment)
    with pytest.raises(Invalid) as caught:
        catalog.edit(experiment, variants=arms)
    assert caught.value.errors[0].path == path
    assert catalog.document(experiment) == before


def test_a_list_cannot_take_the_control_out_of_a_running_experiment(catalog: Catalog) -> None:
    experiment = catalog.running()
    for arms in (
        [{"name": "b", "allocation": 1}],
        [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5, "is_control": True}],
        [{"name": "control", "allocation": 0.5, "is_control": False}, {"name": "b", "allocation": 0.5}],
    ):
        with pytest.raises(AssayError) as caught:
            catalog.edit(experiment, variants=arms)
        assert caught.value.status == 409


def test_a_list_without_shares_keeps_them_or_must_give_them(catalog: Catalog) -> None:
    experiment = catalog.running(
        variants=[{"name": "control", "allocation": 0.9}, {"name": "b", "allocation": 0.1}]
    )
    catalog.edit(experiment, variants=[{"name": "control"}, {"name": "b", "config": {"x": 1}}])
    assert catalog.allocations(experiment) == {"control": 0.9, "b": 0.1}
    assert catalog.document(experiment)["phase"] == 1
    for arms in ([{"name": "control"}], [{"name": "control"}, {"name": "b"}, {"name": "c"}]):
        with pytest.raises(Invalid) as caught:
            catalog.edit(experiment, variants=arms)
        assert caught.value.errors[0].path == "variants[0].allocation"
    draft = catalog.create(variants=HALVES)
    catalog.edit(draft, variants=[{"name": "x"}, {"name": "y"}])
    assert catalog.allocations(draft) == {"x": 0.5, "y": 0.5}


def test_variants_of_a_stopped_experiment_stay(catalog: Catalog) -> None:
    experiment = catalog.running()
    catalog.edit(experiment, status="stopped")
    for change in (
        lambda: edit(catalog, experiment, "b", allocation=0.1),
        lambda: edit(catalog, experiment, "b", enabled=False),
        lambda: add(catalog, experiment, name="c"),
        lambda: remove(catalog, experiment, "b"),
        lambda: catalog.edit(experiment, traffic_allocation=0.5),
        lambda: catalog.edit(experiment, condition={"a": 1}),
    ):
        with pytest.raises(Conflict) as caught:
            change()
        assert caught.value.code == "experiment_stopped"
    assert catalog.edit(experiment, description="what we learnt")["description"] == "what we learnt"


def test_a_variant_is_found_by_id_key_and_name(catalog: Catalog) -> None:
    experiment = catalog.create(variants=[{"name": "b", "key": "c"}, {"name": "One", "key": "b"}])
    with catalog.read() as tx:
        row = find(tx, experiment)
        assert find_variant(row, "b").name == "One"
        assert find_variant(row, "c").name == "b"
        assert find_variant(row, str(row.variants[1].id)).key == "b"
        assert find_variant(row, row.variants[1].id).key == "b"
        assert find_variant(row, "One").key == "b"
        with pytest.raises(NotFound):
            find_variant(row, "nobody")
