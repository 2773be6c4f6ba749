"""Prerequisites and holdouts as people set them: what is refused, what follows, what is published."""

from typing import Any

import pytest

from assay.bucketing.evaluate import Reason, decide
from assay.catalog import experiments, holdouts, lifecycle, phases
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.errors import AssayError, Conflict, Invalid
from catalog.conftest import HALVES, Catalog

USERS = [f"user-{number}" for number in range(1000)]


def step(catalog: Catalog, experiment: int | str, verb: str, **more: Any) -> None:
    with catalog.write() as tx:
        getattr(lifecycle, verb)(tx, find(tx, experiment), **more)


def holdout(catalog: Catalog, **fields: Any) -> int:
    with catalog.write() as tx:
        given = {"name": "Holdout", "share": 0.2, "status": "running", **fields}
        return holdouts.create(tx, parse(holdouts.HoldoutInput, given)).id


def shown(catalog: Catalog, reference: int | str) -> holdouts.HoldoutDocument:
    with catalog.read() as tx:
        (found,) = holdouts.listed(tx, [holdouts.find_holdout(tx, reference)])
    return found


def decided(catalog: Catalog, experiment: int | str) -> dict[str, tuple[str | None, Reason]]:
    found = {user: decide(catalog.compiled(experiment), user, user, {}) for user in USERS}
    return {user: (each.variant.key if each.variant else None, each.reason) for user, each in found.items()}


def test_only_units_with_the_variant_required_get_in(catalog: Catalog) -> None:
    parent = catalog.running(key="parent")
    catalog.running(key="child", prerequisites=[{"experiment": "parent", "variants": ["b"]}])
    catalog.running(key="any", prerequisites=["parent"])
    assert catalog.document("child")["prerequisites"] == [
        {"experiment_id": parent, "experiment": "parent", "variants": ["b"]}
    ]
    first, second, third = (decided(catalog, key) for key in ("parent", "child", "any"))
    for user in USERS:
        assert (second[user][1] is Reason.ASSIGNED) is (first[user][0] == "b")
        assert second[user][1] in {Reason.ASSIGNED, Reason.PREREQUISITE}
        assert third[user][1] is Reason.ASSIGNED
    # What is required is told apart from what the unit gets: both halves have both variants.
    assert {second[user][0] for user in USERS if first[user][0] == "b"} == {"control", "b"}
    catalog.edit("parent", traffic_allocation=0.5)
    assert {decided(catalog, "any")[user][1] for user in USERS} == {Reason.ASSIGNED, Reason.PREREQUISITE}
    step(catalog, "parent", "stop", winner="b")
    assert {each[1] for each in decided(catalog, "child").values()} == {Reason.ASSIGNED}
    step(catalog, "parent", "archive")
    assert {each[1] for each in decided(catalog, "child").values()} == {Reason.PREREQUISITE}


def test_a_change_of_prerequisites_begins_a_phase(catalog: Catalog) -> None:
    catalog.running(key="parent")
    child = catalog.running(key="child")
    found = catalog.edit("child", prerequisites=[{"experiment": "parent", "variants": ["b", "b"]}])
    assert (found["phase"], found["prerequisites"][0]["variants"]) == (2, ["b"])
    # What was answered may be sent back, and changes nothing.
    assert catalog.edit("child", prerequisites=found["prerequisites"])["version"] == found["version"]
    assert catalog.edit("child", prerequisites=[])["phase"] == 3
    with catalog.read() as tx:
        listed = [each.prerequisites for each in phases.listed(tx, child)]
    assert [each and each[0]["experiment"] for each in listed] == [None, "parent", None]


def test_a_circle_is_refused_with_its_path(catalog: Catalog) -> None:
    for key, required in (("a", []), ("b", ["a"]), ("c", ["b"])):
        catalog.create(key=key, variants=HALVES, prerequisites=required)
    with pytest.raises(Invalid) as caught:
        catalog.edit("a", prerequisites=["c"])
    assert (caught.value.code, caught.value.errors[0].path) == (
        "prerequisite_cycle",
        "prerequisites[0].experiment",
    )
    assert "a → c → b → a" in caught.value.detail
    with pytest.raises(Invalid, match="a → a"):
        catalog.edit("a", prerequisites=["a"])
    assert catalog.document("a")["prerequisites"] == []


def test_a_chain_has_an_end(catalog: Catalog) -> None:
    keys = ["a", "b", "c", "d", "e"]
    for above, key in zip([None, *keys], keys, strict=False):
        catalog.create(key=key, variants=HALVES, prerequisites=[above] if above else [])
    with pytest.raises(Invalid) as caught:
        catalog.create(key="f", prerequisites=["e"])
    assert caught.value.code == "prerequisite_chain"
    assert "make a chain of 6 experiments: f → e → d → c → b → a; at most 5" in caught.value.detail
    top = catalog.create(key="top")
    with pytest.raises(Invalid, match="e → d → c → b → a → top"):
        catalog.edit("a", prerequisites=[top])


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (["nowhere"], "prerequisites[0].experiment"),
        ([{"experiment_id": 99}], "prerequisites[0].experiment_id"),
        ([{"experiment": "parent", "experiment_id": 99}], "prerequisites[0].experiment_id"),
        ([{"experiment": "parent", "variants": ["b", "none"]}], "prerequisites[0].variants[1]"),
        (["parent", "parent"], "prerequisites[1].experiment"),
        (["account"], "prerequisites[0].experiment"),
        ([{}], "prerequisites[0].experiment"),
        ([{"experiment": "parent", "gate": 1}], "prerequisites[0].gate"),
        ("parent", "prerequisites"),
        ([True], "prerequisites[0]"),
        ([{"experiment": {"a": 1}}], "prerequisites[0].experiment"),
        ([{"experiment": "a\0b"}], "prerequisites[0].experiment"),
        ([{"experiment": ""}], "prerequisites[0].experiment"),
    ],
)
def test_what_cannot_be_required_is_named(catalog: Catalog, given: Any, path: str) -> None:
    catalog.running(key="parent")
    catalog.running(key="account", unit="account_id")
    with pytest.raises(Invalid) as caught:
        catalog.create(prerequisites=given)
    assert caught.value.errors[0].path == path


def test_what_is_required_stays_and_keeps_its_unit(catalog: Catalog) -> None:
    parent = catalog.create(key="parent", variants=HALVES)
    child = catalog.create(key="child", variants=HALVES, prerequisites=["parent"])

    def remove(experiment: int, *, purge: bool = False) -> None:
        with catalog.write() as tx:
            experiments.remove(tx, find(tx, experiment), purge=purge)

    for purge in (False, True):
        with pytest.raises(Conflict) as caught:
            remove(parent, purge=purge)
        assert (caught.value.code, "of child" in caught.value.detail) == ("prerequisite_in_use", True)
    for each in (parent, child):
        with pytest.raises(Invalid) as wrong:
            catalog.edit(each, unit="account_id")
        assert wrong.value.code == "prerequisite_unit"
    catalog.edit(parent, key="renamed")
    assert catalog.document(child)["prerequisites"][0]["experiment"] == "renamed"
    remove(child)
    remove(parent)


def test_a_holdout_keeps_its_units_out_of_what_starts_after_it(catalog: Catalog) -> None:
    catalog.running(key="before")
    number = holdout(catalog, key="h", metrics=["buy"])
    catalog.running(key="after")
    catalog.running(key="account", unit="account_id")
    assert [catalog.document(key)["holdouts"] for key in ("before", "after", "account")] == [[], ["h"], []]
    found = shown(catalog, "h")
    assert (found["share"], found["layer"], found["experiments"]) == (0.2, None, None)
    assert [each["key"] for each in found["covered"]] == ["after"]
    held = {user for user, each in decided(catalog, number).items() if each[0] == "held_out"}
    assert len(held) / 1000 == pytest.approx(0.2, abs=0.04)
    after = decided(catalog, "after")
    assert {user for user, each in after.items() if each == (None, Reason.HOLDOUT)} == held
    assert {each[1] for user, each in after.items() if user not in held} == {Reason.ASSIGNED}
    assert {each[1] for each in decided(catalog, "before").values()} == {Reason.ASSIGNED}
    variants = {each["key"]: each for each in catalog.document("h")["variants"]}
    assert (variants["held_out"]["is_control"], variants["in"]["allocation"]) == (True, 0.8)
    # What was rolled out is kept from them, too, until the holdout ends.
    step(catalog, "after", "stop", winner="b")
    rolled = decided(catalog, "after")
    assert {user for user, each in rolled.items() if each == (None, Reason.HOLDOUT)} == held
    assert {each for user, each in rolled.items() if user not in held} == {("b", Reason.ROLLED_OUT)}
    step(catalog, "h", "stop")
    assert set(decided(catalog, "after").values()) == {("b", Reason.ROLLED_OUT)}


def test_the_end_of_a_holdout_lets_its_units_in_by_a_phase(catalog: Catalog) -> None:
    holdout(catalog, key="h")
    running = catalog.running(key="after")
    before = decided(catalog, "after")
    step(catalog, "h", "stop")
    found = catalog.document("after")
    assert (found["holdouts"], found["phase"]) == ([], 2)
    after = decided(catalog, "after")
    assert {each[1] for each in after.values()} == {Reason.ASSIGNED}
    assert all(after[user] == each for user, each in before.items() if each[0] is not None)
    with catalog.read() as tx:
        listed = [each.prerequisites for each in phases.listed(tx, running)]
    assert [each and each[0]["experiment"] for each in listed] == ["h", None]
    (entry,) = catalog.rows("SELECT experiment_id FROM audit WHERE action = 'holdout.end'")
    assert entry == (running,)
    catalog.running(key="later")
    assert catalog.document("later")["holdouts"] == []


def test_a_holdout_of_a_layer_or_of_some_experiments_covers_no_other(catalog: Catalog) -> None:
    catalog.layer(key="page", wash_out="0m")
    drafts = [catalog.create(key=key, variants=HALVES) for key in ("one", "two")]
    holdout(catalog, key="of-layer", layer="page")
    holdout(catalog, key="of-one", experiments=["one"])
    for each in drafts:
        step(catalog, each, "start")
    catalog.running(key="three", layer="page", traffic_allocation=0.5)
    found = {key: catalog.document(key)["holdouts"] for key in ("one", "two", "three")}
    assert found == {"one": ["of-one"], "two": [], "three": ["of-layer"]}
    assert (shown(catalog, "of-layer")["layer"], shown(catalog, "of-one")["experiments"]) == (
        "page",
        [drafts[0]],
    )
    late = catalog.create(key="four", variants=HALVES)
    holdout(catalog, key="late", experiments=["four"], status="draft")
    step(catalog, late, "start")
    with pytest.raises(Conflict) as caught:
        step(catalog, "late", "start")
    assert caught.value.code == "holdout_too_late"


def test_a_holdout_decides_by_its_share_alone(catalog: Catalog) -> None:
    catalog.layer(key="page")
    catalog.running(key="other")
    draft = holdout(catalog, key="h", status="draft")

    def edit(**fields: Any) -> None:
        with catalog.write() as tx:
            holdouts.edit(tx, holdouts.find_holdout(tx, draft), parse(holdouts.HoldoutEdit, fields))

    edit(share=0.1, name="Tenth")
    assert (shown(catalog, "h")["share"], shown(catalog, "h")["name"]) == (0.1, "Tenth")
    refused: list[dict[str, Any]] = [
        {"traffic_allocation": 0.5},
        {"condition": {"country": "US"}},
        {"layer": "page"},
        {"prerequisites": ["other"]},
        {"variants": HALVES},
    ]
    for fields in refused:
        with pytest.raises(AssayError) as caught:
            catalog.edit(draft, **fields)
        assert caught.value.status in {409, 422}, fields
    edit(status="running")
    for fields in ({"share": 0.2}, {"layer": "page"}):
        with pytest.raises(Conflict):
            edit(**fields)
    with pytest.raises(Conflict):
        step(catalog, draft, "pause")
    with pytest.raises(Conflict):
        catalog.edit(
            draft, variants=[{"key": "held_out", "allocation": 0.5}, {"key": "in", "allocation": 0.5}]
        )
    edit(description="still")
    assert shown(catalog, "h")["share"] == 0.1


def test_what_requires_a_changed_experiment_is_compiled_again_and_nothing_else(catalog: Catalog) -> None:
    catalog.running(key="parent")
    catalog.running(key="child", prerequisites=["parent"])
    catalog.running(key="grandchild", prerequisites=["child"])
    catalog.running(key="other")
    before = {key: catalog.compiled(key) for key in ("child", "grandchild", "other")}
    catalog.edit("parent", traffic_allocation=0.5)
    assert catalog.compiled("child") is not before["child"]
    assert catalog.compiled("grandchild").requires[0].parent is catalog.compiled("child")
    assert catalog.compiled("child").requires[0].parent is catalog.compiled("parent")
    assert catalog.compiled("other") is before["other"]
