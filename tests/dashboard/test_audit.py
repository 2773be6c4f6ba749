"""The audit log and an experiment's history: names for ids, times, and a filter that offers everything."""

import re
from html import unescape
from typing import Any

import pytest
from sqlalchemy import select

from assay.catalog import (
    definitions,
    experiments,
    holdouts,
    keys,
    layers,
    segments,
    templates,
    users,
    variants,
)
from assay.catalog.audit import Subject
from assay.catalog.checks import parse
from assay.catalog.database import RECORDED, Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit, VariantInput
from assay.catalog.tables import AuditEntry
from assay.dashboard.differences import changes, ids_in, said
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_result_page import words

METRIC = {"key": "orders", "name": "Orders", "type": "conversion", "event_type": "order"}


@pytest.fixture
def told(house: House) -> House:
    """A house in which one of everything was made, and some of it deleted."""
    with house.stores.database.writing(Actor("ann"), utc_now()) as tx:
        gone = layers.create(tx, parse(layers.LayerInput, {"name": "Old checkout"}))
        layers.remove(tx, gone)
        layers.create(tx, parse(layers.LayerInput, {"name": "Checkout", "key": "checkout"}))
        staff = segments.create(tx, parse(segments.SegmentInput, {"name": "Staff"}))
        dropped = segments.create(tx, parse(segments.SegmentInput, {"name": "Old staff"}))
        segments.remove(tx, dropped)
        definitions.create(tx, parse(definitions.DefinitionInput, METRIC))
        document = {"key": "prices", "name": "Prices", "metrics": ["buy"], "end_at": "2031-05-06T07:08:09Z"}
        made = experiments.create(tx, parse(ExperimentCreate, {**document, "segments": [staff.id]}))
        experiments.edit(
            tx, made, parse(ExperimentEdit, {"traffic_allocation": 0.25, "end_at": "2032-01-01T00:00:00Z"})
        )
        variants.add(tx, made, parse(VariantInput, {"name": "third", "allocation": 0}))
        draft = experiments.create(
            tx, parse(ExperimentCreate, {**document, "key": "x", "name": "Dead draft"})
        )
        experiments.remove(tx, draft)
        templates.create(tx, parse(templates.TemplateInput, {"name": "House style", "experiment": "prices"}))
        hold = {"key": "hold", "name": "Hold five", "share": 0.05, "experiments": ["prices"]}
        holdouts.create(tx, parse(holdouts.HoldoutInput, hold))
        scope = {"name": "scoped", "role": "client", "experiments": ["prices"]}
        keys.create(tx, parse(keys.KeyInput, scope))
        users.create(tx, users.parse_user({"id": "u1", "seen_at": "2026-01-02T03:04:05Z"}))
    return house


def entries(house: House, address: str = "/ui/audit") -> list[tuple[str, str]]:
    """What each entry of a page says, and its markup."""
    page = house.ask("GET", address)
    assert page.status_code == 200, page.text
    found = page.text.partition('<ol class="timeline">')[2].partition("</ol>")[0].split("<li ")[1:]
    return [(words(f"<li {each}").strip(), each) for each in found]


def entry(house: House, begins: str, address: str = "/ui/audit") -> tuple[str, str]:
    """The newest entry that begins so."""
    return next(each for each in entries(house, address) if each[0].startswith(begins))


def test_what_was_changed_is_named_and_linked_and_what_was_deleted_keeps_its_name(told: House) -> None:
    told.sign_in()
    linked = {
        "Layer: create": ("Checkout", "/ui/layers/checkout"),
        "Segment: create": ("Old staff", None),
        "Segment: delete": ("Old staff (deleted)", None),
        "Layer: delete": ("Old checkout (deleted)", None),
        "Metric: create": ("Orders", "/ui/metrics/orders"),
        "Experiment: delete": ("Dead draft (deleted)", None),
        "Experiment: edit": ("Prices", "/ui/experiments/prices"),
        "Variant: add": ("Prices", "/ui/experiments/prices"),
        "Template: create": ("House style", "/ui/templates"),
        "Key: create": ("scoped", "/ui/keys"),
        "User: create": ("u1", None),
    }
    for action, (name, address) in linked.items():
        text, markup = entry(told, action)
        assert f"{action} · {name}" in text, text
        assert ("href" in markup) == (address is not None)
        assert address is None or f'href="{address}"' in markup
    told.sign_in("viewer")
    assert "href" not in entry(told, "Key: create")[1], "whoever may not see keys is not led to them"


def test_ids_within_a_change_are_names_and_shares_are_percent(told: House) -> None:
    told.sign_in()
    assert "Experiments: Prices" in entry(told, "Key: create")[0]
    assert "Holdout Experiments: Prices" in entry(told, "Experiment: create · Hold five")[0]
    assert "Traffic allocation 100 % 25 %" in entry(told, "Experiment: edit")[0]


def test_times_within_a_change_are_those_of_the_reader_but_a_users_own_words_stay(told: House) -> None:
    told.sign_in()
    for address in ("/ui/audit", "/ui/experiments/prices/history"):
        _, markup = entry(told, "Experiment: edit", address)
        assert '<time datetime="2031-05-06T07:08:09Z" title="6 May 2031, 07:08:09 UTC"' in markup
        assert '<time datetime="2032-01-01T00:00:00Z"' in markup
    assert not re.search(r"\d{4}-\d\d-\d\dT", entry(told, "Experiment: edit")[0])
    text, markup = entry(told, "User: create")
    assert "2026-01-02T03:04:05Z" in text
    assert '<time datetime="2026-01-02' not in markup


def test_the_filter_offers_every_noun_that_can_be_written_and_no_other_can_be(told: House) -> None:
    told.sign_in()
    page = told.ask("GET", "/ui/audit").text
    offered = re.findall(r'<option value="(\w+)"', page)
    assert offered == list(RECORDED)
    with told.stores.database.reading() as tx:
        rows = tx.execute(select(AuditEntry.noun, AuditEntry.action)).all()
    written = {each for noun, action in rows for each in (noun, action.partition(".")[0])}
    assert written <= set(offered)
    assert {"variant", "layer", "template", "metric", "segment", "key", "user", "experiment"} <= written
    for action, noun in (("cohort.create", "experiment"), ("experiment.create", "cohort")):
        with (
            pytest.raises(ValueError, match="cohort"),
            told.stores.database.writing(Actor("ann"), utc_now()) as tx,
        ):
            tx.record(action, noun, 1)


@pytest.mark.parametrize(
    ("noun", "says"),
    [
        ("variant", ["Variant: add"]),
        ("holdout", ["Experiment: create · Hold five"]),
        ("layer", ["Layer: create", "Layer: delete", "Layer: create"]),
        ("template", ["Template: create"]),
        ("look", []),
    ],
)
def test_the_filter_finds_what_it_says(told: House, noun: str, says: list[str]) -> None:
    told.sign_in()
    found = [text for text, _ in entries(told, f"/ui/audit?noun={noun}")]
    assert len(found) == len(says)
    assert all(text.startswith(begin) for text, begin in zip(found, says, strict=True)), found


def test_a_purged_or_deleted_holdout_stays_under_holdouts(told: House) -> None:
    with told.stores.database.writing(Actor("ann"), utc_now()) as tx:
        draft = {"key": "brief", "name": "Hold all", "share": 0.1}
        experiments.remove(tx, holdouts.create(tx, parse(holdouts.HoldoutInput, draft)))
        experiments.remove(tx, find(tx, "hold"), purge=True)
    told.sign_in()
    found = [text for text, _ in entries(told, "/ui/audit?noun=holdout")]
    begins = [
        "Experiment: purge · Hold five (deleted)",
        "Experiment: delete · Hold all (deleted)",
        "Experiment: create · Hold all (deleted)",
        "Experiment: create · Hold five (deleted)",
    ]
    assert [each[: len(begin)] for each, begin in zip(found, begins, strict=True)] == begins


def test_a_noun_that_nothing_is_filed_under_filters_nothing(told: House) -> None:
    told.sign_in()
    assert entries(told, "/ui/audit?noun=bogus") == entries(told)
    assert "noun=bogus" not in told.ask("GET", "/ui/audit?noun=bogus&skip=1").text


def test_a_users_own_attributes_are_no_ids_of_ours(house: House) -> None:
    with house.stores.database.writing(Actor("ann"), utc_now()) as tx:
        users.create(tx, users.parse_user({"id": "u1", "layer_id": 10**30, "plan": "nothing"}))
    house.sign_in()
    said_of_it = unescape(entry(house, "User: create")[0])
    assert f"layer_id {10**30}" in said_of_it
    assert 'plan "nothing"' in said_of_it


def between(field: str, before: Any, after: Any, **more: Any) -> list[tuple[str, str]]:
    """How a change of a field reads."""
    found = changes({field: {"from": before, "to": after}}, **more)
    return [(unescape(each.before), unescape(each.after)) for each in found]


@pytest.mark.parametrize(
    ("field", "before", "after", "reads"),
    [
        ("traffic_allocation", 0.33333, 0.333331, ("33.333 %", "33.3331 %")),
        ("traffic_allocation", 1 / 3, 1, ("33.33 %", "100 %")),
        ("traffic_allocation", 1 / 3, 0.3333333333333334, ("0.3333333333333333", "0.3333333333333334")),
        ("significance_level", 0.00001, 0.00002, ("0.001 %", "0.002 %")),
        ("significance_level", 0.05, 0.00001, ("5 %", "0.001 %")),
        ("ship_probability", 0.95, 0.999, ("95 %", "99.9 %")),
        ("ship_loss", 0.01, 0.0005, ("1 %", "0.05 %")),
        ("false_trip_rate", 0.001, 0.0001, ("0.1 %", "0.01 %")),
        ("margin", 1e-7, 4e-7, ("0.0000001", "0.0000004")),
        ("margin", 1234.5678912, 1e-300, ("1,234.567891", "1e-300")),
        ("margin", -0.5, 1e22, ("-0.5", "1e+22")),
        ("tags", ["a, b"], ["a", "b"], ('"a, b"', "a, b")),
        ("tags", ["nothing", ""], [], ('"nothing", ""', "nothing")),
        ("description", "", "nothing", ("nothing", '"nothing"')),
        ("starts", True, "yes", ("true", "yes")),
        ("config", {"x": 0.1}, {"x": 0.10000001}, ('{"x": 0.1}', '{"x": 0.10000001}')),
        ("ended_at", None, "2024-99-99T00:00:00Z", ("nothing", "2024-99-99T00:00:00Z")),
        ("ended_at", None, "0001-01-01T00:00:00+14:00", ("nothing", "0001-01-01T00:00:00+14:00")),
    ],
)
def test_a_change_reads_as_one(field: str, before: Any, after: Any, reads: tuple[str, str]) -> None:
    assert between(field, before, after) == [reads]


def test_things_of_one_name_are_told_apart_by_their_ids() -> None:
    names = {("layer", each): Subject("Page", "page") for each in (1, 2)}
    assert between("layer_id", 1, 2, names=names) == [("1", "2")]


def test_what_is_not_shown_is_no_change() -> None:
    things = [{"id": 1, "key": "a", "config": {}}], [{"id": 2, "key": "a", "config": None}]
    assert between("variants", *things) == []
    assert between("owner", None, "") == []


@pytest.mark.parametrize(
    ("before", "after", "reads"),
    [(5, "5", ("5", '"5"')), (True, "true", ("true", '"true"')), ("", {}, ('""', "{}"))],
)
def test_an_attribute_that_changed_its_type_did_change(
    before: Any, after: Any, reads: tuple[str, str]
) -> None:
    assert between("plan", before, after, attributes=True) == [reads]


def test_one_of_several_leaves_out_only_what_it_is_called_by() -> None:
    metric = {"key": "revenue", "type": "revenue", "event_type": "revenue"}
    assert said([metric], "metrics") == "• revenue\n  Type: revenue\n  Event type: revenue"


@pytest.mark.parametrize("field", ["config", "condition", "rules"])
def test_documents_of_the_applications_own_hold_no_ids_of_ours(field: str) -> None:
    recorded = {"variants": {"from": None, "to": [{"key": "a", field: {"layer_id": 5}}]}, "layer_id": 3}
    assert list(ids_in(recorded)) == [("layer", 3)]


def test_a_list_of_things_with_names_is_compared_one_by_one() -> None:
    before = [
        {"id": 1, "key": "a", "allocation": 0.5, "config": {}},
        {"id": 2, "key": "b", "allocation": 0.5},
    ]
    after = [
        {"id": 1, "key": "a", "allocation": 0.3, "config": {"x_y": 1}},
        {"id": 3, "key": "c", "allocation": 0},
    ]
    found = changes({"variants": {"from": before, "to": after}})
    assert [tuple(map(unescape, each)) for each in found] == [
        ("Variants · a · allocation", "50 %", "30 %"),
        ("Variants · a · config", "nothing", '{"x_y": 1}'),
        ("Variants · b", "Key: b\nAllocation: 50 %", "nothing"),
        ("Variants · c", "nothing", "Key: c\nAllocation: 0 %"),
    ]


def test_what_a_look_found_names_the_variant() -> None:
    recorded = {"information_fraction": 0.5, "crossed": [{"metric": "buy", "treatment_id": 7}]}
    assert list(ids_in(recorded)) == [("variant", 7)]
    found = changes(recorded, {("variant", 7): Subject("green", "g")})
    assert [each.after for each in found] == ["50 %", "• Metric: buy\n  Variant: green"]


def test_a_hostile_name_stays_text(house: House) -> None:
    hostile = "<script>alert(1)</script>"
    with house.stores.database.writing(Actor(hostile), utc_now()) as tx:
        made = experiments.create(
            tx, parse(ExperimentCreate, {"key": "h", "name": hostile, "metrics": [hostile]})
        )
        experiments.edit(tx, find(tx, made.id), parse(ExperimentEdit, {"tags": [hostile]}))
        experiments.remove(tx, made)
    house.sign_in()
    page = house.ask("GET", "/ui/audit").text
    assert hostile not in page
    assert unescape(page).count(hostile) > 4
