"""Templates, holdouts and limited keys through their pages."""

import html
import re
from datetime import timedelta
from typing import Any

from assay.catalog import documents, experiments, holdouts, lifecycle
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_metrics import beside, form
from dashboard.test_result_page import words


def made(house: House, **document: Any) -> int:
    """The id of a new experiment."""
    arms = [{"name": "a", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]
    body = {"variants": arms, "metrics": ["signup"], **document}
    with house.stores.database.writing(Actor("test"), utc_now() - timedelta(minutes=1)) as tx:
        return experiments.create(tx, parse(ExperimentCreate, body)).id


def holdout(house: House, key: str) -> holdouts.HoldoutDocument:
    with house.stores.database.reading() as tx:
        return holdouts.listed(tx, [holdouts.find_holdout(tx, key)])[0]


def test_a_template_is_saved_begun_with_and_let_go(house: House) -> None:
    name = "<script>alert(1)</script>"
    made(house, name=name, key="good", analysis={"method": "always_valid"})
    house.sign_in("editor")
    assert "No templates yet" in house.ask("GET", "/ui/templates").text
    sent = form(house, "/ui/experiments/good/template")
    assert sent["name"] == name
    refused = house.ask("POST", "/ui/experiments/good/template", {**sent, "key": "not a key!"})
    assert "must be letters, digits" in beside(refused.text, "key")
    assert house.ask("POST", "/ui/experiments/good/template", {**sent, "name": ""}).status_code == 422
    answer = house.ask("POST", "/ui/experiments/good/template", {**sent, "description": "For doors."})
    assert answer.headers["location"] == "/ui/templates"
    page = house.ask("GET", "/ui/templates").text
    assert html.escape(name) in page
    assert name not in page
    assert "Always valid; significance level 5 %" in words(page)
    (address,) = re.findall(r'href="(/ui/experiments/new\?template=[^"]+)"', page)
    begun = form(house, address)
    assert begun["analysis-method"] == "always_valid"
    assert begun["metric-0-event_type"] == "signup"
    assert begun["name"] == ""
    key = address.rpartition("=")[2]
    assert house.ask("GET", "/ui/experiments/new?template=nothing").status_code == 404
    again = house.ask("POST", "/ui/experiments/good/template", {**sent, "key": key})
    assert "is taken" in beside(again.text, "key")
    house.sign_in("viewer")
    assert "Begin with it" not in house.ask("GET", "/ui/templates").text
    assert house.ask("GET", f"/ui/templates/{key}/delete").status_code == 403
    house.sign_in("editor")
    token = form(house, f"/ui/templates/{key}/delete")
    assert house.ask("POST", f"/ui/templates/{key}/delete", token).headers["location"] == "/ui/templates"
    assert "No templates yet" in house.ask("GET", "/ui/templates").text


def test_a_template_that_refers_to_something_gone_says_so(house: House) -> None:
    made(house, name="First", key="first")
    second = made(house, name="Second", key="second", prerequisites=["first"])
    house.sign_in("editor")
    sent = form(house, "/ui/experiments/second/template")
    assert house.ask("POST", "/ui/experiments/second/template", sent).status_code == 303
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        experiments.remove(tx, find(tx, second))
        experiments.remove(tx, find(tx, "first"))
    page = words(house.ask("GET", "/ui/templates").text)
    assert "It cannot be used. prerequisites[0].experiment" in page
    assert "Begin with it" not in page
    assert house.ask("GET", "/ui/experiments/new?template=second").status_code == 422


def test_a_holdout_is_made_started_and_ended(house: House) -> None:
    draft = made(house, name="Draft <b>", key="draft")
    house.sign_in("editor")
    blank = form(house, "/ui/holdouts/new")
    sent = {**blank, "name": "Half & half", "metrics": "purchase, visit", "share": "60"}
    wrong = house.ask("POST", "/ui/holdouts/new", sent)
    assert "less than or equal to 0.5" in beside(wrong.text, "share")
    assert 'value="purchase, visit"' in wrong.text
    assert "must be a number" in beside(
        house.ask("POST", "/ui/holdouts/new", {**sent, "share": "few"}).text, "share"
    )
    no_layer = {**sent, "share": "5", "scope": "layer", "layer": ""}
    assert house.ask("POST", "/ui/holdouts/new", no_layer).status_code == 422
    chosen = {**sent, "share": "5", "scope": "experiments", "experiment": str(draft)}
    answer = house.ask("POST", "/ui/holdouts/new", chosen)
    assert answer.headers["location"] == "/ui/holdouts/half-half"
    stored = holdout(house, "half-half")
    assert (stored["share"], stored["experiments"], stored["layer"]) == (0.05, [draft], None)
    with house.stores.database.reading() as tx:
        assert [each["key"] for each in find(tx, "half-half").metrics] == ["purchase", "visit"]

    untouched = form(house, "/ui/holdouts/half-half/edit")
    assert house.ask("POST", "/ui/holdouts/half-half/edit", untouched).status_code == 303
    assert holdout(house, "half-half") == stored
    everything = {**untouched, "scope": "all", "share": "4", "hypothesis": "It adds up."}
    assert house.ask("POST", "/ui/holdouts/half-half/edit", everything).status_code == 303
    assert holdout(house, "half-half")["experiments"] is None
    late = house.ask("POST", "/ui/holdouts/half-half/edit", {**everything, "name": "Late"})
    assert late.status_code == 412

    page = house.ask("GET", "/ui/experiments/half-half/do/start").text
    assert "enter no experiment that it covers" in page
    start = form(house, "/ui/experiments/half-half/do/start")
    assert house.ask("POST", "/ui/experiments/half-half/do/start", start).status_code == 303
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        lifecycle.start(tx, find(tx, "draft"))
    page = house.ask("GET", "/ui/holdouts/half-half").text
    assert "Draft &lt;b&gt;" in page
    assert "4 % of all units are kept out of every experiment that starts while it runs" in words(page)
    assert "Pause" not in page, "a holdout has no pause"
    fixed = form(house, "/ui/holdouts/half-half/edit")
    assert "scope" not in fixed or "disabled" in house.ask("GET", "/ui/holdouts/half-half/edit").text
    assert house.ask("POST", "/ui/holdouts/half-half/edit", {**fixed, "owner": "me"}).status_code == 303
    assert house.ask("POST", "/ui/holdouts/half-half/edit", {**fixed, "share": "9"}).status_code in {409, 412}
    assert holdout(house, "half-half")["share"] == 0.04
    assert "Half &amp; half" in house.ask("GET", "/ui/holdouts").text
    house.sign_in("viewer")
    page = house.ask("GET", "/ui/holdouts/half-half").text
    assert "Stop" not in page
    assert house.ask("GET", "/ui/holdouts/new").status_code == 403
    assert house.ask("GET", "/ui/holdouts/draft").status_code == 404


def test_the_form_of_a_holdout_as_an_experiment_keeps_what_makes_it_one(house: House) -> None:
    body = {"name": "Held", "key": "held", "share": 1 / 30, "metrics": ["signup"]}
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        holdouts.create(tx, parse(holdouts.HoldoutInput, body))
    house.sign_in("editor")
    sent = {**form(house, "/ui/experiments/held/edit"), "analysis-method": "always_valid"}
    assert house.ask("POST", "/ui/experiments/held/edit", sent).status_code == 303
    assert holdout(house, "held")["share"] == 1 / 30
    with house.stores.database.reading() as tx:
        assert documents.experiment(find(tx, "held"))["analysis"]["method"] == "always_valid"
    targeted = {**form(house, "/ui/experiments/held/edit"), "traffic_allocation": "50"}
    refused = house.ask("POST", "/ui/experiments/held/edit", targeted)
    assert "is a holdout" in words(refused.text)


def test_a_key_is_limited_to_experiments_and_tags(house: House) -> None:
    made(house, name="Mine <i>", key="mine")
    house.sign_in("admin")
    sent = {**form(house, "/ui/keys"), "name": "Shop", "role": "client"}
    nowhere = house.ask("POST", "/ui/keys", {**sent, "experiments": "mine, nowhere"})
    assert nowhere.status_code == 422
    assert "There is no experiment" in beside(nowhere.text, "experiments")
    assert 'value="mine, nowhere"' in nowhere.text
    editor = house.ask("POST", "/ui/keys", {**sent, "role": "editor", "tags": "shop"})
    assert "limits keys with the role client" in beside(editor.text, "tags")
    answer = house.ask("POST", "/ui/keys", {**sent, "experiments": "mine", "tags": 'shop, "a, b"'})
    assert answer.status_code == 200
    said = words(answer.text)
    assert "Shop Client Mine <i> shop a, b" in html.unescape(said)
    assert "Mine &lt;i&gt;" in answer.text
    assert "no limit" in said


def test_a_password_manager_finds_a_name_for_the_key(house: House) -> None:
    page = house.ask("GET", "/ui/sign-in").text
    assert re.search(r'<input type="text" name="username" autocomplete="username"[^>]* hidden>', page)
    assert page.index('autocomplete="username"') < page.index('autocomplete="current-password"')
