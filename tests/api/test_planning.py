"""What comes before an experiment runs, over HTTP: checklist, frozen plan, duplicates, templates."""

import hashlib
import json
from typing import Any

import pytest

from api.conftest import House
from assay.api import experiments, planning
from assay.api.operations import OPERATIONS
from assay.errors import Unavailable

BASE = "/api/v1/experiments"
HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]
PLAN: dict[str, Any] = {
    "key": "x",
    "name": "x",
    "hypothesis": "More.",
    "variants": HALVES,
    "metrics": ["buy", {"event_type": "pay", "type": "revenue", "property": "eur"}],
    "traffic_allocation": 0.2,
    "target_sample_size": 100_000,
    "minimum_detectable_effect": 0.05,
}


def test_the_checklist_before_and_the_warnings_at_the_start(house: House) -> None:
    house.made(PLAN)
    found = house.ask("GET", f"{BASE}/x/checklist", role="viewer").json()
    assert (found["experiment_key"], found["ready"]) == ("x", False)
    (metric,) = [each for each in found["items"] if not each["ok"]]
    assert metric["name"] == "metric"
    assert metric["inputs"]["without_events"] == ["buy", "pay"]
    started = house.ask("POST", f"{BASE}/x/start").json()
    assert started["status"] == "running"
    assert [each["name"] for each in started["warnings"]] == ["metric"]
    assert started["preregistration_hash"]
    same = house.ask("PATCH", f"{BASE}/x", started)
    assert (same.status_code, same.json()["version"]) == (200, started["version"])
    short = house.made({**PLAN, "key": "y", "status": "draft"}, "/api")
    again = house.ask("POST", "/experiments/y/start").json()
    assert (again["experiment_id"], "warnings" in again) == (short["id"], True)
    for path in (f"{BASE}/nope/checklist", f"{BASE}/nope/preregistration"):
        assert house.ask("GET", path).status_code == 404


def test_events_that_arrived_lately_are_seen(house: House) -> None:
    house.made(PLAN)
    day = 86_400_000_000
    rows = [("buy", 8, {}), ("pay", 1, {"usd": 5}), ("pay", 2, {"eur": None})]
    events = [
        {
            "e": f"00000000-0000-0000-0000-{number:012}",
            "k": True,
            "u": "u",
            "t": kind,
            "s": house.clock.now - days * day,
            "c": house.clock.now - days * day,
            "r": house.clock.now,
            "p": properties,
        }
        for number, (kind, days, properties) in enumerate(rows, 1)
    ]
    house.parts.store.append((65_536 + 3, 0), json.dumps([{"q": 1, "i": 0, "b": events}]))

    def metric() -> dict[str, Any]:
        items = house.ask("GET", f"{BASE}/x/checklist").json()["items"]
        found: dict[str, Any] = next(each for each in items if each["name"] == "metric")
        return found

    assert metric()["inputs"]["without_events"] == ["buy"]
    assert metric()["inputs"]["without_property"] == ["pay.eur"]
    again = [{**events[0], "e": events[0]["e"][:-1] + "7", "s": house.clock.now, "c": house.clock.now}]
    again.append({**events[1], "e": events[0]["e"][:-1] + "8", "p": {"eur": 5}})
    house.parts.store.append((2 * 65_536 + 2, 0), json.dumps([{"q": 2, "i": 0, "b": again}]))
    assert metric()["ok"] is True


def test_a_store_that_is_away_stops_no_start(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.made({**PLAN, "activation_event": "open"})

    def away(*_: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(house.parts.store, "events", away)
    response = house.ask("POST", f"{BASE}/x/start")
    assert (response.status_code, response.json()["status"]) == (200, "running")
    (warning,) = response.json()["warnings"]
    assert (warning["name"], warning["ok"]) == ("metric", None)
    assert warning["sentence"] == "Whether events arrive could not be looked at. The disk is full."
    assert warning["inputs"]["event_types"] == ["open", "buy", "pay"]


def test_the_frozen_plan(house: House) -> None:
    house.made(PLAN)
    path = f"{BASE}/x/preregistration"
    assert house.ask("GET", path).json()["frozen"] is False
    house.ask("POST", f"{BASE}/x/start")
    found = house.ask("GET", path, role="viewer").json()
    text = json.dumps(found["plan"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert found["hash"] == hashlib.sha256(text.encode()).hexdigest()
    assert found["hash"] == house.ask("GET", f"{BASE}/x").json()["preregistration_hash"]
    house.ask("PATCH", f"{BASE}/x", {"significance_level": 0.1}, role="editor")
    (only,) = house.ask("GET", path).json()["deviations"]
    assert {name: only[name] for name in ("field", "change", "from", "to", "by")} == {
        "field": "significance_level",
        "change": "changed",
        "from": 0.05,
        "to": 0.1,
        "by": "editor key",
    }


def test_duplicates(house: House) -> None:
    house.made({**PLAN, "status": "running"})
    response = house.ask("POST", f"{BASE}/x/duplicate", role="editor")
    assert (response.status_code, response.headers["etag"]) == (201, '"1"')
    assert {name: response.json()[name] for name in ("key", "name", "status")} == {
        "key": "x-copy",
        "name": "x (copy)",
        "status": "draft",
    }
    named = house.ask("POST", "/experiments/x/duplicate", {"name": "z", "key": "z"}).json()
    assert (named["key"], named["experiment_id"]) == ("z", named["id"])
    for body, status in (
        ({"key": "z"}, 409),
        ({"key": "a b"}, 422),
        ({"name": ""}, 422),
        ({"status": "running"}, 422),
        ([], 422),
    ):
        assert house.ask("POST", f"{BASE}/x/duplicate", body).status_code == status
    assert house.ask("POST", f"{BASE}/nope/duplicate").status_code == 404


def test_templates(house: House) -> None:
    house.made(PLAN)
    made = house.ask("POST", "/api/v1/templates", {"experiment": "x", "key": "t"}, role="editor")
    assert made.status_code == 201
    assert (made.json()["key"], made.json()["name"], made.json()["body"]["power"]) == ("t", "x", 0.8)
    assert house.ask("POST", "/api/v1/templates", {"experiment": 1, "key": "t"}).status_code == 409
    assert house.ask("GET", "/api/v1/templates", role="viewer").json()["templates"] == [made.json()]
    assert house.ask("GET", "/api/v1/templates/t").json() == made.json()
    experiment = house.ask("POST", BASE, {"template": "t", "name": "From it"}).json()
    assert (experiment["key"], experiment["status"]) == ("from-it", "draft")
    assert [each["event_type"] for each in experiment["metrics"]] == ["buy", "pay"]
    short = house.ask("POST", "/experiments", {"template": "t"}).json()
    assert (short["name"], short["status"]) == ("x", "running")
    for body in ({"template": "nope"}, {"template": None}, {"template": "t", "powr": 1}, {"template": {}}):
        assert house.ask("POST", BASE, body).status_code == 422
    assert house.ask("DELETE", "/api/v1/templates/t").status_code == 204
    assert house.ask("GET", "/api/v1/templates/t").status_code == 404
    actions = [each["action"] for each in house.ask("GET", "/api/v1/audit?noun=template").json()["entries"]]
    assert actions == ["template.delete", "template.create"]


@pytest.mark.parametrize("module", [experiments, planning])
def test_the_examples_of_the_api_page_work(house: House, module: Any) -> None:
    house.ask("POST", "/api/v1/metric-definitions", {"key": "revenue-14d", "type": "revenue", "event": "buy"})
    house.ask(
        "POST",
        "/api/v1/metric-definitions",
        {"key": "crashes", "event_type": "crash", "type": "count", "role": "guardrail"},
    )
    house.made({**PLAN, "key": "checkout-button"})
    house.ask("POST", "/api/v1/templates", {"experiment": "checkout-button", "key": "checkout"})
    asked = 0
    for route in module.router.routes:
        for body in OPERATIONS[route.endpoint].examples.values():
            path = f"/api/v1{route.path}".replace("{experiment}", "checkout-button")
            if "templates" in path:
                house.ask("DELETE", "/api/v1/templates/checkout")
            response = house.ask("POST", path, body)
            assert response.status_code == 201, (path, response.text)
            asked += 1
    assert asked == 3
