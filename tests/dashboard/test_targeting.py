"""Conditions as rows and as JSON: the same thing on both sides, and an untouched form changes nothing."""

import json
import random
from typing import Any

import pytest

from assay.bucketing.conditions import compile_condition
from assay.catalog import experiments, segments, users
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.segments import SegmentInput
from assay.dashboard import targeting
from assay.dashboard.pages import Form
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_metrics import Fields, beside, form

SHOWN: tuple[dict[str, Any], ...] = (
    {"country": "DE"},
    {"country": {"$eq": "DE"}},
    {"country": {"$in": ["DE", "a, b", "1", 1, True]}, "age": {"$gte": 18, "$lt": 65}},
    {"$or": [{"plan": "pro"}, {"plan": {"$ne": "free"}, "beta": {"$exists": True}}]},
    {"$and": [{"id": {"$regex": "^a"}}, {"id": {"$regex": "z$"}}]},
    {"app": {"$vgte": "2.10.0"}, "old": {"$exists": False}, "n": {"$nin": [0.5]}, "off": False},
)
HIDDEN: tuple[dict[str, Any], ...] = (
    {"$not": {"country": "DE"}},
    {"$or": [{"$and": [{"a": 1}, {"$or": [{"b": 2}]}]}]},
    {"tags": {"$elemMatch": {"$eq": "x"}}},
    {"a": None},
    {"a": {"$type": "string"}},
    {"a": {}},
)


@pytest.mark.parametrize("document", SHOWN)
def test_rows_say_the_same_as_the_document(document: dict[str, Any]) -> None:
    typed = targeting.written(document)
    assert typed.side == "rows"
    again = targeting.document_of(typed, "condition")
    assert again is not None
    chance = random.Random(1)
    first, second = compile_condition(document), compile_condition(again)
    values: list[Any] = [
        "DE",
        "a, b",
        "1",
        1,
        True,
        False,
        17,
        18,
        64.5,
        "pro",
        "free",
        "az",
        "2.9",
        "2.10.1",
        None,
    ]
    names = ("country", "age", "plan", "beta", "id", "app", "old", "n", "off")
    for _ in range(500):
        user = {name: chance.choice(values) for name in names if chance.random() < 0.6}
        assert first(user) == second(user), user


@pytest.mark.parametrize("document", HIDDEN)
def test_what_rows_cannot_show_stays_json(document: dict[str, Any]) -> None:
    typed = targeting.written(document)
    assert typed.side == "json"
    assert targeting.document_of(typed, "condition") == document
    sent = Form((("condition-side", "json"), ("condition", json.dumps(document)), ("turn", "condition")))
    turned = targeting.changed(sent, targeting.read(sent, "condition"), "condition")
    assert turned is not None
    assert (turned.side, json.loads(turned.text)) == ("json", document)


def test_an_untouched_form_changes_no_rule_and_begins_no_phase(house: House) -> None:
    house.sign_in("editor")
    rule = {"country": {"$eq": "DE"}, "age": {"$gte": 18}}
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        number = segments.create(tx, parse(SegmentInput, {"name": "Germans", "rules": rule})).id
        experiments.create(tx, parse(ExperimentCreate, {"name": "e", "key": "e", "condition": rule}))
    sent = form(house, f"/ui/segments/{number}/edit")
    assert sent["rules-g0-1-attribute"] == "age"
    assert house.ask("POST", f"/ui/segments/{number}/edit", sent).status_code == 303
    assert (
        house.ask("POST", "/ui/experiments/e/edit", form(house, "/ui/experiments/e/edit")).status_code == 303
    )
    with house.stores.database.reading() as tx:
        assert (segments.find(tx, number).version, segments.find(tx, number).rules) == (1, rule)
        assert (find(tx, "e").version, find(tx, "e").condition) == (1, rule)


def test_rows_come_go_and_turn_without_scripts_and_users_are_counted(house: House) -> None:
    house.sign_in("editor")
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        for name, country in (("anna", "DE"), ("bert", "AT"), ("<carl>", "DE")):
            users.create(tx, users.parse_user({"id": name, "country": country}))
    path = "/ui/segments/new"
    sent = form(house, path) | {"name": "It", "rules-g0-0-attribute": "country", "rules-g0-0-value": "DE"}
    page = house.ask("POST", path, {**sent, "count-users": "rules"}).text
    assert "<strong>2</strong> of 3 known users match" in page
    assert "&lt;carl&gt;" in page
    sent = Fields(house.ask("POST", path, {**sent, "add-rule": "rules"}).text).sent
    sent |= {"rules-g1-0-attribute": "age", "rules-g1-0-op": "$gte", "rules-g1-0-value": ""}
    piece = house.ask("POST", "/ui/targeting/preview", sent).text
    assert "Complete the tests" in piece
    wrong = house.ask("POST", path, {**sent, "rules-g1-0-attribute": "", "rules-g1-0-value": "18"})
    assert beside(wrong.text, "rules-g1-0-attribute") == "is needed"
    sent |= {"rules-g1-0-value": "18"}
    sent = Fields(house.ask("POST", path, {**sent, "turn": "rules"}).text).sent
    assert json.loads(sent["rules"]) == {"$or": [{"country": "DE"}, {"age": {"$gte": 18}}]}
    sent = Fields(house.ask("POST", path, {**sent, "turn": "rules"}).text).sent
    sent = Fields(house.ask("POST", path, {**sent, "remove-rule": "rules-g0-0"}).text).sent
    taken = house.ask("POST", path, {**sent, "key": "not a key"})
    assert (taken.status_code, taken.text.count('id="key-problem"')) == (422, 1)
    assert house.ask("POST", path, {**sent, "key": "grown-up"}).status_code == 303
    again = house.ask("POST", path, {**sent, "key": "grown-up"})
    assert (again.status_code, beside(again.text, "key")) == (409, "is taken")
    with house.stores.database.reading() as tx:
        row = segments.page(tx)[0][0]
        assert (row.key, row.rules) == ("grown-up", {"age": {"$gte": 18}})
    for page in ("", f"/{row.id}", f"/{row.id}/edit"):
        shown = house.ask("GET", f"/ui/segments{page}").text
        assert ">grown-up</code>" in shown


def test_a_list_is_added_to_and_replaced(house: House) -> None:
    house.sign_in("editor")
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        number = segments.create(tx, parse(SegmentInput, {"name": "Staff"})).id
    path = f"/ui/segments/{number}"
    token = {"csrf": house.token(path)}
    assert (
        house.ask("POST", f"{path}/members", {**token, "user_ids": "anna\nbert\n anna "}).status_code == 303
    )
    assert house.ask("POST", f"{path}/members", {**token, "user_ids": "carl"}).status_code == 303
    with house.stores.database.reading() as tx:
        assert segments.members(tx, segments.find(tx, number)) == ["anna", "bert", "carl"]
    assert (
        house.ask("POST", f"{path}/members", {**token, "user_ids": "dora", "replace": "1"}).status_code == 303
    )
    assert house.ask("POST", f"{path}/members", token).status_code == 422
    assert house.ask("POST", f"{path}/members", {**token, "user_ids": "x" * 2000}).status_code == 422
    with house.stores.database.reading() as tx:
        row = segments.find(tx, number)
        assert (segments.members(tx, row), row.member_count) == (["dora"], 1)
