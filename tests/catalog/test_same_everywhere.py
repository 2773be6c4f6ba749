"""Texts, orders and documents that databases are known to treat differently, and here do not."""

from functools import partial
from typing import Any

import pytest

from assay.catalog import (
    audit,
    definitions,
    documents,
    experiments,
    holdouts,
    layers,
    overrides,
    segments,
    templates,
    users,
)
from assay.catalog.checks import parse
from assay.catalog.database import RECORDED
from assay.catalog.editing import find
from assay.errors import AssayError, Invalid, NotFound
from catalog.conftest import HALVES, Catalog

#: In the order of their bytes.
_SORTED = ["10", "9", "A", "B", "_", "a", "a b", "a-b", "ab", "b", "é", "日", "😀"]


def test_lists_are_in_the_order_of_bytes(catalog: Catalog) -> None:
    experiment = catalog.running()
    with catalog.write() as tx:
        segment = segments.create(tx, parse(segments.SegmentInput, {"name": "s"}))
        segments.add_members(tx, segment, list(reversed(_SORTED)))
        for unit in reversed(_SORTED):
            overrides.put(tx, find(tx, experiment), unit, parse(overrides.OverrideInput, {"variant": "b"}))
            users.create(tx, users.parse_user({"id": unit}))
    with catalog.read() as tx:
        assert segments.members(tx, segments.find(tx, segment.id)) == _SORTED
        assert [row.unit_id for row, _ in overrides.listed(tx, find(tx, experiment))[0]] == _SORTED
        assert [row.id for row in users.page(tx)[0]] == _SORTED


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("checkout", ["Checkout É"]),
        ("CHECKOUT", ["Checkout É"]),
        ("É", ["Checkout É"]),
        ("é", []),
        ("50%", ["50%_off\\"]),
        ("%_", ["50%_off\\"]),
        ("\\", ["50%_off\\"]),
        ("_", ["50%_off\\"]),
        ("ß", []),
    ],
)
def test_search_ignores_the_case_of_latin_letters_only(catalog: Catalog, q: str, found: list[str]) -> None:
    for name in ("Checkout É", "50%_off\\"):
        catalog.create(name=name, key=f"k{len(name)}")
        with catalog.write() as tx:
            segments.create(tx, parse(segments.SegmentInput, {"name": name}))
    with catalog.read() as tx:
        assert [row.name for row in experiments.page(tx, q=q)[0]] == found
        assert [row.name for row in segments.page(tx, q=q)[0]] == found


def test_json_comes_back_as_it_was_written(catalog: Catalog) -> None:
    config: dict[str, Any] = {
        "zebra": 1,
        "apple": [1.5, 1e300, -0.1, 2**70, True, None],
        "aa": {"b": 1, "a": {"": "\x00 and \u2028 and 😀"}},
        "\x01": 'quote " backslash \\ slash /',
    }
    experiment = catalog.create(variants=[{"name": "control", "allocation": 1, "config": config}])
    stored = catalog.document(experiment)["variants"][0]["config"]
    assert stored == config
    assert list(stored) == list(config)
    assert list(stored["aa"]) == ["b", "a"]
    with catalog.write() as tx:
        users.create(tx, users.parse_user({"id": "u", **config}))
    with catalog.read() as tx:
        assert list(users.find(tx, "u").attributes.items()) == list(config.items())
        assert audit.page(tx, noun="user")[0][0].changes == documents.difference({}, config)


def test_what_no_database_can_hold_is_not_found_or_refused(catalog: Catalog) -> None:
    experiment = catalog.running()
    with catalog.write() as tx:
        segment = segments.create(tx, parse(segments.SegmentInput, {"name": "s"})).id
    lookups = [
        lambda tx: find(tx, "a\x00b"),
        lambda tx: users.find(tx, "a\x00b"),
        lambda tx: users.remove(tx, "a\x00b"),
        lambda tx: overrides.remove(tx, find(tx, experiment), "a\x00b"),
        lambda tx: segments.remove_member(tx, segments.find(tx, segment), "a\x00b"),
        # A key is text, and one database compares it with nothing else.
        *(
            partial(look, reference=number)
            for number in (0, -1, 2**70)
            for look in (find, segments.find, layers.find, definitions.find, templates.find_template)
        ),
    ]
    refused = [
        lambda tx: experiments.page(tx, q="a\x00b"),
        lambda tx: experiments.page(tx, tag="\x00"),
        lambda tx: segments.page(tx, q="\x00"),
        lambda tx: audit.page(tx, actor="\x00"),
        lambda tx: audit.page(tx, noun="\x00"),
        lambda tx: users.erase(tx, "a\x00b"),
    ]
    expected: list[tuple[Any, type[AssayError]]] = [
        *((look, NotFound) for look in lookups),
        *((look, Invalid) for look in refused),
    ]
    for look, error in expected:
        with pytest.raises(error), catalog.write() as tx:
            look(tx)
    with pytest.raises(Invalid, match="There is no segment 1180591620717411303424"):
        catalog.create(segments=[2**70])


def test_numbers_keep_every_bit(catalog: Catalog) -> None:
    shares = [0.1, 0.2, 0.7000000000000001]
    arms = [{"name": f"v{at}", "allocation": share} for at, share in enumerate(shares)]
    experiment = catalog.create(
        variants=arms, minimum_detectable_effect=5e-324, target_sample_size=10**15, traffic_allocation=1 / 3
    )
    document = catalog.document(experiment)
    assert [each["allocation"] for each in document["variants"]] == shares
    assert (document["minimum_detectable_effect"], document["target_sample_size"]) == (5e-324, 10**15)
    assert document["traffic_allocation"] == 1 / 3


def test_a_long_list_of_members_is_stored_whole_and_once(catalog: Catalog) -> None:
    ids = [f"user {number}" for number in range(30_000)]
    with catalog.write() as tx:
        segment = segments.create(tx, parse(segments.SegmentInput, {"name": "s"}))
        assert segments.add_members(tx, segment, [*ids, *ids[:100]]) == 30_000
        assert segments.add_members(tx, segment, ["user 1", "user 30000"]) == 1
    experiment = catalog.running(variants=HALVES, segments=[segment.id])
    members = catalog.compiled(experiment).segments[0].members
    assert members is not None
    assert (len(members), "user 30000" in members) == (30_001, True)


def test_the_audit_log_is_filtered_by_every_noun_and_knows_names(catalog: Catalog) -> None:
    experiment = catalog.create(key="e", name="Prices")
    with catalog.write() as tx:
        holdouts.create(tx, parse(holdouts.HoldoutInput, {"name": "Hold", "share": 0.05}))
        kept = layers.create(tx, parse(layers.LayerInput, {"name": "Page"})).id
        gone = layers.create(tx, parse(layers.LayerInput, {"name": "Old"}))
        layers.remove(tx, gone)
        for purge in (False, True):
            ended = holdouts.create(tx, parse(holdouts.HoldoutInput, {"name": "Over", "share": 0.05}))
            experiments.remove(tx, ended, purge=purge)
    catalog.edit("e", name="Prices, again")
    with catalog.read() as tx:
        found = {noun: [each.action for each in audit.page(tx, noun=noun)[0]] for noun in RECORDED}
        wanted = [
            ("experiment", experiment),
            ("layer", kept),
            ("layer", gone.id),
            ("layer", 999),
            ("user", 1),
        ]
        names = audit.subjects(tx, wanted)
    ended = ["experiment.purge", "experiment.create", "experiment.delete", "experiment.create"]
    assert found["holdout"] == [*ended, "experiment.create"]
    assert found["layer"] == ["layer.delete", "layer.create", "layer.create"]
    assert found["experiment"] == ["experiment.edit", *found["holdout"], "experiment.create"]
    assert not found["template"]
    assert names == {
        ("experiment", experiment): ("Prices, again", "e"),
        ("layer", kept): ("Page", "page"),
        ("layer", gone.id): ("Old", None),
    }
