"""The result page: verdicts by the experiment's own method, and what they rest on."""

import random
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from assay.catalog import definitions, experiments, layers, lifecycle, users
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.catalog.measuring import DefinitionInput
from assay.stores.base import utc_now
from assay.stores.commands import perform
from dashboard.conftest import House

REVENUE = {
    "key": "revenue-7d",
    "name": "Revenue in a week",
    "type": "revenue",
    "event_type": "purchase",
    "property": "eur",
    "lookback": "14d",
}
METRICS: list[dict[str, Any]] = [
    {"definition": "revenue-7d", "role": "primary"},
    {
        "key": "crashes",
        "name": "Crashes",
        "type": "count",
        "event_type": "crash",
        "direction": "decrease",
        "role": "guardrail",
        "margin": {"relative": 0.9},
    },
    {
        "key": "bought",
        "name": "Bought",
        "event_type": "purchase",
        "role": "guardrail",
        "margin": {"absolute": 0.0001},
    },
]


def told(house: House, folder: Path, key: str, treatments: int = 1, **more: Any) -> None:
    """A running experiment of twelve days on 400 units whose purchases follow those from before."""
    begun = utc_now() - timedelta(days=12)
    arms = ["control", *(f"arm {number}" for number in range(1, treatments + 1))]
    document = {
        "key": key,
        "name": "Shorter checkout",
        "status": "running",
        "variants": [{"name": arm, "allocation": 1 / len(arms)} for arm in arms],
        "metrics": METRICS,
        "target_sample_size": 600,
        **more,
    }
    with house.stores.database.writing(Actor("anna"), begun) as tx:
        definitions.create(tx, parse(DefinitionInput, REVENUE))
        experiments.create(tx, parse(ExperimentCreate, document))
    chance = random.Random(7)
    who, what = ["user_id,variant,assigned_at"], ["user_id,type,timestamp,eur"]
    for number in range(400):
        at = begun + timedelta(minutes=40 * number)
        taste = chance.lognormvariate(3, 0.6)
        who.append(f"u{number},{arms[number % len(arms)]},{at.isoformat()}")
        early, late = (at - timedelta(days=3)).isoformat(), (at + timedelta(minutes=5)).isoformat()
        what.append(f"u{number},purchase,{early},{taste:.2f}")
        paid = taste * (1.0 + 0.3 * (number % len(arms)))
        done = "purchase" if number // len(arms) % 5 else "crash"  # alike in all arms
        what.append(f"u{number},{done},{late},{paid:.2f}")
    for kind, rows in (("assignments", who), ("events", what)):
        path = folder / f"{kind}.csv"
        path.write_text("\n".join(rows) + "\n")
        request = {"kind": kind, "path": str(path), "experiment": key, "extra_as_properties": True}
        perform(house.stores, {"do": "import", "request": request}, lambda _said: None)


def words(page: str) -> str:
    """The text of a page, blanks made one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_scorecard_shows_what_was_judged_and_what_it_rests_on(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    with house.stores.database.writing(Actor("bert"), utc_now() - timedelta(days=2)) as tx:
        row = find(tx, "short")
        late = {"key": "late", "name": "Looked around", "event_type": "visit"}
        experiments.edit(tx, row, parse(ExperimentEdit, {"metrics": [*row.metrics, late]}))
    house.sign_in("viewer")
    answer = house.ask("GET", "/ui/experiments/short")
    assert answer.status_code == 200, answer.text
    said = words(answer.text)
    assert "400 of 600 planned units" in said
    assert re.search(r"CUPED −\d\d(\.\d)? %", said)
    assert "Without covariates the same comparison, unadjusted" in said
    assert "Welch’s t test of means adjusted by what came before (CUPED)" in said
    assert re.search(r"Crashes .*? Within its margin", said)
    assert re.search(r"Bought .*? Not shown to be within", said)
    assert answer.text.count('class="margin"') == 2, "both margins are drawn, the absolute one as a lift"
    assert re.search(r"Looked around not planned", said)
    assert "Version 1 of the definition" in said
    assert re.search(r"In 7 days ≈ \d{3}", said)
    assert 'class="better"' in answer.text
    assert re.search(r"Frozen at the start\. Hash [0-9a-f]{64}", said)
    assert re.search(r"Metrics: late added .*? bert", said)
    assert not re.search(r"\bNaN\b|\bNone\b|e-\d\d\b", said)
    statements = house.ask("GET", "/ui/experiments/short/statements").text
    assert "SELECT" in statements
    assert "experiment_id" in statements


def test_a_fixed_moment_leaves_out_what_came_later(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    house.sign_in("viewer")
    then = utc_now() - timedelta(days=6)
    page = house.ask("GET", f"/ui/experiments/short?as_of={then:%Y-%m-%dT%H:%M:%SZ}").text
    assert "This is the result as it stood at" in page
    units = re.search(r"from (\d+) units", words(page))
    assert units
    assert 200 <= int(units[1]) <= 225, "an assignment every forty minutes of six days"
    assert f"as_of={then:%Y-%m-%dT}" in page, "its charts and exports are of that moment, too"
    export = house.ask("GET", f"/ui/experiments/short/export?format=csv&as_of={then:%Y-%m-%dT%H:%M:%SZ}")
    assert export.status_code == 200
    assert house.ask("GET", "/ui/experiments/short?as_of=soon").status_code == 422


@pytest.mark.parametrize(
    ("method", "heading", "outcome"),
    [
        ({"method": "bayesian"}, "Chance to win", "Better"),
        ({"method": "always_valid"}, "Always-valid p", "Waits for a look"),
        ({"method": "group_sequential", "looks": 3}, "Evidence", "Waits for a look"),
    ],
)
def test_each_method_speaks_in_its_own_terms(
    house: House, tmp_path: Path, method: dict[str, Any], heading: str, outcome: str
) -> None:
    told(house, tmp_path, "short", treatments=2, analysis=method)
    house.sign_in("viewer")
    said = words(house.ask("GET", "/ui/experiments/short").text)
    assert heading in said
    assert re.search(rf"Revenue in a week .*? {outcome}", said)


def test_groups_of_users_stand_behind_their_gate(house: House, tmp_path: Path) -> None:
    told(house, tmp_path, "short")
    house.sign_in("viewer")
    assert "No user has been described yet" in house.ask("GET", "/ui/experiments/short").text
    with house.stores.database.writing(Actor("anna"), utc_now()) as tx:
        for number in range(400):
            country = "<b>DE</b>" if number // 2 % 2 else "AT"
            users.create(tx, users.parse_user({"id": f"u{number}", "country": country}))
    assert '<option value="country">' in house.ask("GET", "/ui/experiments/short").text
    page = house.ask("GET", "/ui/experiments/short/breakdown?attribute=country").text
    assert "&lt;b&gt;DE&lt;/b&gt;" in page
    said = words(page)
    assert re.search(r"No sign that groups differ\.|The groups differ\.|Not tested\.", said)
    assert re.search(r"AT 200 ", said)
    assert house.ask("GET", "/ui/experiments/short/breakdown?attribute=" + "x" * 300).status_code == 422


def test_without_units_nothing_is_said_to_have_passed(house: House) -> None:
    document = {
        "key": "nobody",
        "name": "Nobody yet",
        "status": "running",
        "variants": [{"name": "control", "allocation": 0.5}, {"name": "treatment", "allocation": 0.5}],
        "metrics": ["purchase"],
        "layer": {"key": "pages"},
    }
    with house.stores.database.writing(Actor("anna"), utc_now()) as tx:
        layers.create(tx, parse(layers.LayerInput, {"key": "pages", "name": "Checkout pages"}))
        experiments.create(tx, parse(ExperimentCreate, document))
    house.sign_in("viewer")
    said = words(house.ask("GET", "/ui/experiments/nobody").text)
    assert "Nobody is in yet, so nothing can be checked." in said
    assert "passed" not in said
    assert "Not checked" in words(house.ask("GET", "/ui/experiments/nobody/headline").text)
    assert re.search("In the layer Checkout pages ?; no prerequisites", said)
    assert said.count("Checkout pages") == 1
    with house.stores.database.writing(Actor("anna"), utc_now()) as tx:
        lifecycle.stop(tx, find(tx, "nobody"))
    ended = words(house.ask("GET", "/ui/experiments/nobody").text)
    assert "Nobody was in, so nothing can be checked." in ended
    assert "Connect the application" in said
    assert "Connect the application" not in ended
