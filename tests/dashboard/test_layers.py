"""Layers through their pages: made, filled, shown slot by slot, and let go."""

import re
from datetime import timedelta

from assay.catalog import experiments, layers, lifecycle
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_metrics import beside, form
from dashboard.test_result_page import words


def test_a_layer_is_made_filled_and_shown_slot_by_slot(house: House) -> None:
    house.sign_in("editor")
    sent = {**form(house, "/ui/layers/new"), "name": "Checkout <page>", "wash_out": "soon"}
    wrong = house.ask("POST", "/ui/layers/new", sent)
    assert "such as 7d" in beside(wrong.text, "wash_out")
    answer = house.ask("POST", "/ui/layers/new", {**sent, "wash_out": "3d", "key": "checkout"})
    assert answer.headers["location"] == "/ui/layers/checkout"

    sent = {**form(house, "/ui/experiments/new"), "name": "First", "metric-0-event_type": "signup"}
    sent |= {"layer-key": "checkout", "layer-share": "30"}
    assert house.ask("POST", "/ui/experiments/new", sent).status_code == 303
    with house.stores.database.reading() as tx:
        assert (find(tx, "first").layer or {})["share"] == 0.3
    untouched = form(house, "/ui/experiments/first/edit")
    assert house.ask("POST", "/ui/experiments/first/edit", untouched).status_code == 303
    with house.stores.database.reading() as tx:
        assert find(tx, "first").version == 1

    second = {
        "name": "Second",
        "key": "second",
        "status": "running",
        "layer": {"key": "checkout", "share": 0.2},
        "variants": [{"name": "a", "allocation": 0.5}, {"name": "b", "allocation": 0.5}],
    }
    with house.stores.database.writing(Actor("test"), utc_now() - timedelta(hours=1)) as tx:
        experiments.create(tx, parse(ExperimentCreate, second))
    start = {"csrf": sent["csrf"], "version": "1"}
    assert house.ask("POST", "/ui/experiments/first/do/start", start).status_code == 303
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        lifecycle.stop(tx, find(tx, "second"))
    page = house.ask("GET", "/ui/layers/checkout").text
    assert "Checkout &lt;page&gt;" in page
    said = words(page)
    assert "First Held 30 %" in said
    assert "Second Washing out 20 %" in said
    assert "nobody Free 50 %" in said
    assert re.search('class="part s[01]"', page)
    assert re.search('class="part s[01] fades"', page)
    assert "Checkout &lt;page&gt;" in house.ask("GET", "/ui/layers").text

    token = {"csrf": sent["csrf"]}
    refused = house.ask("POST", "/ui/layers/checkout/delete", token)
    assert refused.status_code == 409
    assert "first" in words(refused.text)


def test_a_layer_is_changed_and_goes_and_a_viewer_can_do_neither(house: House) -> None:
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        layers.create(tx, parse(layers.LayerInput, {"name": "Search", "key": "search"}))
    house.sign_in("viewer")
    page = house.ask("GET", "/ui/layers/search").text
    assert ">Edit<" not in page
    assert "Delete" not in page
    assert house.ask("GET", "/ui/layers/search/edit").status_code == 403
    house.sign_in("editor")
    sent = {**form(house, "/ui/layers/search/edit"), "name": "Search page", "key": "other"}
    assert house.ask("POST", "/ui/layers/search/edit", sent).headers["location"] == "/ui/layers/search"
    late = house.ask("POST", "/ui/layers/search/edit", {**sent, "name": "Once more"})
    assert late.status_code == 412
    assert house.ask("POST", "/ui/layers/search/delete", {"csrf": sent["csrf"]}).status_code == 303
    assert house.ask("GET", "/ui/layers/search").status_code == 404
