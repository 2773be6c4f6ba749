"""The routes of past reports and looks: roles, shapes, refusals."""

from typing import Any

import pytest

from api.conftest import START, House
from contracts.event_store import DAY, SECOND, Feed, event

BASE = "/api/v1/experiments/shop"


@pytest.fixture
def shop(house: House) -> dict[str, Any]:
    """A running group-sequential experiment with 100 of 400 planned units."""
    made = house.made(
        {
            "name": "Shop",
            "key": "shop",
            "variants": [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}],
            "metrics": ["purchase"],
            "analysis": {"method": "group_sequential", "planned_units": 400, "looks": 4},
        }
    )
    assert house.ask("POST", f"{BASE}/start").status_code == 200
    feed = Feed(house.parts.store)
    at = START + 60 * SECOND
    house.clock.now = START + DAY
    for variant, buyers in zip(made["variants"], (10, 30), strict=True):
        users = [f"{variant['key']}-{number}" for number in range(50)]
        feed.assign(*((user, variant["id"]) for user in users), experiment=made["id"], phase=1, at=at)
        feed.events(*(event(user, "purchase", at + SECOND) for user in users[:buyers]))
    return made


@pytest.mark.usefixtures("shop")
def test_refresh__keeps_what_it_answers(house: House) -> None:
    assert house.ask("GET", f"{BASE}/report/history").json()["snapshots"] == []
    first = house.ask("GET", f"{BASE}/report", role="viewer").json()
    refreshed = house.ask("POST", f"{BASE}/report/refresh", role="editor")
    assert (refreshed.status_code, refreshed.headers["age"]) == (200, "0")
    assert refreshed.json()["computed_at"] > first["computed_at"]
    page = house.ask("GET", f"{BASE}/report/history", role="viewer").json()
    [row] = page["snapshots"]
    assert (page["total"], row["why"], row["look"], row["total_units"]) == (1, "refresh", None, 100)
    assert (row["headline"], row["computed_at"]) == (
        refreshed.json()["headline"],
        refreshed.json()["computed_at"],
    )
    past = house.ask("GET", f"{BASE}/report/history/{row['id']}", role="viewer")
    assert past.content == refreshed.content == house.ask("GET", f"{BASE}/report").content


@pytest.mark.usefixtures("shop")
def test_a_look__is_made_listed_and_audited(house: House) -> None:
    assert house.ask("GET", f"{BASE}/looks").json() == {
        "method": "group_sequential",
        "looks": [],
        "next": {"number": 1, "at": None, "units": 100},
    }
    made = house.ask("POST", f"{BASE}/looks", role="editor")
    assert made.status_code == 201, made.text
    [verdict] = made.json()["verdicts"]
    assert (made.json()["units"], made.json()["information_fraction"]) == (100, 0.25)
    assert verdict["interval"]["low"] < verdict["estimate"] == pytest.approx(0.4)
    again = house.ask("POST", f"{BASE}/looks", {})
    assert (again.status_code, again.json()) == (200, made.json())
    listed = house.ask("GET", f"{BASE}/looks", role="viewer").json()
    assert (listed["looks"], listed["next"]["number"]) == ([made.json()], 2)
    [entry, *_] = house.ask("GET", f"{BASE}/history").json()["entries"]
    assert (entry["action"], entry["noun_id"]) == ("look.make", 1)
    [row] = house.ask("GET", f"{BASE}/report/history").json()["snapshots"]
    assert (row["why"], row["look"]) == ("look", 1)


def test_refusals__say_what_would_be_right(house: House, shop: dict[str, Any]) -> None:
    for method, path in (("POST", "looks"), ("POST", "report/refresh")):
        assert house.ask(method, f"{BASE}/{path}", role="viewer").status_code == 403
        assert house.ask(method, f"{BASE}/{path}", {"look": 1}).status_code == 422
        assert house.ask(method, f"/api/v1/experiments/nothing/{path}").status_code == 404
    for path in ("looks", "report/history", "report/history/1"):
        assert house.ask("GET", f"/api/v1/experiments/nothing/{path}").status_code == 404
        assert house.ask("GET", f"{BASE}/{path}", role="client").status_code == 403
    assert house.ask("GET", f"{BASE}/report/history/1").status_code == 404
    assert house.ask("GET", f"{BASE}/report/history/{2**70}").status_code == 404
    assert house.ask("GET", f"{BASE}/report/history/x").status_code == 422
    assert house.ask("GET", f"{BASE}/report/history?limit=0").status_code == 422
    other = house.made({"name": "Other"})
    house.ask("POST", f"/api/v1/experiments/{other['id']}/report/refresh")
    [row] = house.ask("GET", f"/api/v1/experiments/{other['id']}/report/history").json()["snapshots"]
    assert house.ask("GET", f"{BASE}/report/history/{row['id']}").status_code == 404
    refused = house.ask("POST", f"/api/v1/experiments/{other['id']}/looks")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_looks")
    assert shop["id"] != other["id"]
