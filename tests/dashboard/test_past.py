"""Past reports as they were, looks made by hand with what they cost, and results narrowed to a part."""

import json
import re
from pathlib import Path

import pytest

from assay.catalog import segments, users
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_result_page import told, words


def kept(house: House, key: str) -> str:
    """Keep a report by the button, and the address of the newest."""
    page = f"/ui/experiments/{key}/reports"
    answer = house.ask("POST", f"{page}/keep", {"csrf": house.token(page)})
    assert answer.headers["location"] == page
    found = re.search(rf'href="({page}/\d+)"', house.ask("GET", page).text)
    assert found
    return found[1]


def test_a_past_report_stands_as_it_was(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    house.sign_in("editor")
    assert "Nothing kept yet" in house.ask("GET", "/ui/experiments/short/reports").text
    address = kept(house, "short")
    listed = words(house.ask("GET", "/ui/experiments/short/reports").text)
    assert re.search(r"Keep running|Ship it", listed)
    assert re.search(r"400 Kept by hand −?\d", listed)
    then = house.ask("GET", address)
    assert then.status_code == 200, then.text
    said = words(then.text)
    assert "From 400 units" in said
    assert re.search(r"Revenue in a week CUPED −\d\d(\.\d)? % ", said)
    assert re.search(r"Crashes .*? Within its margin", said)
    assert then.text.count('class="margin"') == 2
    assert not re.search(r"\bNaN\b|\bNone\b|e-\d\d\b", said)
    document = house.ask("GET", f"{address}/document")
    assert json.loads(document.text)["total_units"] == 400
    assert "short-" in document.headers["content-disposition"]
    now = words(house.ask("GET", "/ui/experiments/short").text)
    for row in re.findall(r"Revenue in a week CUPED.*?(?:Better|difference)", now):
        assert row in said, "the same row as on the page of the present result"
    assert house.ask("GET", "/ui/experiments/short/reports/99").status_code == 404
    assert house.ask("GET", "/ui/experiments/short/reports/x").status_code == 404


def test_a_viewer_reads_past_reports_and_keeps_none(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short", analysis={"method": "always_valid"})
    house.sign_in("viewer")
    assert "Compute and keep" not in house.ask("GET", "/ui/experiments/short/reports").text
    assert "Look now" not in house.ask("GET", "/ui/experiments/short").text
    assert house.ask("POST", "/ui/experiments/short/reports/keep", {}).status_code == 403
    assert house.ask("POST", "/ui/experiments/short/look", {}).status_code == 403
    assert house.ask("GET", "/ui/experiments/short/look").status_code == 403


@pytest.mark.parametrize(
    ("method", "cost"),
    [
        (
            {"method": "group_sequential", "looks": 3},
            r"66\.\d* % of the planned information .* this look spends 1\.\d+ %, and what is",
        ),
        ({"method": "always_valid"}, "It costs nothing"),
    ],
)
def test_a_look_says_what_it_costs_and_is_made_once(
    house: House, tmp_path: Path, method: dict[str, object], cost: str
) -> None:
    told(house, tmp_path, "short", analysis=method)
    house.sign_in("editor")
    assert "No look has been made yet" in house.ask("GET", "/ui/experiments/short").text
    asked = house.ask("GET", "/ui/experiments/short/look")
    assert re.search(cost, words(asked.text)), words(asked.text)
    form = {"csrf": house.token("/ui/experiments/short/look")}
    made = house.ask("POST", "/ui/experiments/short/look", form)
    assert made.headers["location"] == "/ui/experiments/short?looked=new#looks"
    said = words(house.ask("GET", "/ui/experiments/short?looked=new").text)
    assert re.search(r"The look was made\. .*? 1 \d+ \w+ \d{4}, \d\d:\d\d UTC 400 66\.\d* ?%", said)
    again = house.ask("POST", "/ui/experiments/short/look", form)
    assert again.headers["location"] == "/ui/experiments/short?looked=same#looks"
    assert "With look 1" in house.ask("GET", "/ui/experiments/short/reports").text


def test_a_method_without_looks_has_none_to_make(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    house.sign_in("editor")
    page = house.ask("GET", "/ui/experiments/short/look")
    assert "has no looks: its method is fixed horizon" in page.text
    form = {"csrf": house.token("/ui/experiments/short/reports")}
    refused = house.ask("POST", "/ui/experiments/short/look", form)
    assert refused.status_code == 409
    assert "has no looks" in refused.text
    assert "Looks</h2>" not in house.ask("GET", "/ui/experiments/short").text


def test_one_segment_is_shown_as_the_part_that_it_is(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    with house.stores.database.writing(Actor("anna"), utc_now()) as tx:
        for number in range(400):
            plan = "pro" if number % 4 < 2 else "free"
            users.create(tx, users.parse_user({"id": f"u{number}", "plan": plan}))
        segments.create(tx, parse(segments.SegmentInput, {"name": "<i>Paying</i>", "rules": {"plan": "pro"}}))
    house.sign_in("viewer")
    whole = house.ask("GET", "/ui/experiments/short").text
    assert "A part of the experiment" not in whole
    assert 'value="&lt;i&gt;Paying&lt;/i&gt;">in' in whole
    part = "segment=%3Ci%3EPaying%3C%2Fi%3E"
    page = house.ask("GET", f"/ui/experiments/short?{part}")
    assert page.status_code == 200, page.text
    said = words(page.text)
    assert "only units in the segment “ &lt;i&gt;Paying&lt;/i&gt; ”, 200 of 400" in said
    assert "the whole experiment decides" in said
    for piece in ("trend", "statements", "export"):
        found = re.search(rf'"(/ui/experiments/short/{piece}\?[^"]*{part}[^"]*)"', page.text)
        assert found, piece
        assert house.ask("GET", found[1].replace("&amp;", "&")).status_code == 200
    rows = house.ask("GET", f"/ui/experiments/short/export?rows=users&{part}").text.splitlines()
    assert len(rows) == 201, "the rows are of the segment's units alone"
    by_plan = words(house.ask("GET", f"/ui/experiments/short/breakdown?attribute=plan&{part}").text)
    assert "pro 200" in by_plan
    assert "free" not in by_plan
    assert house.ask("GET", "/ui/experiments/short?segment=nobody").status_code == 422
    assert house.ask("GET", f"/ui/experiments/short?refresh=1&{part}").headers["location"].endswith(part)


def test_a_segment_is_offered_by_what_names_it_alone(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    with house.stores.database.writing(Actor("anna"), utc_now()) as tx:
        for key, name in (("first", "beta"), ("beta", "Others"), ("a", "Twice"), ("b", "Twice"), ("c", "12")):
            segments.create(tx, parse(segments.SegmentInput, {"key": key, "name": name}))
    house.sign_in("viewer")
    page = house.ask("GET", "/ui/experiments/short").text
    offered = re.findall('<option value="([^"]*)">in “([^”]*)”', page)
    assert dict(offered) == {"c": "12", "Others": "Others", "a": "Twice", "b": "Twice", "first": "beta"}
