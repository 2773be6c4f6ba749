"""Holdouts over HTTP."""

from typing import Any

import pytest

from api.conftest import House

HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


def test_a_holdout_from_its_making_to_its_end(house: House) -> None:
    body = {"name": "First half", "share": 0.05, "metrics": ["purchase"]}
    made = house.ask("POST", "/api/v1/holdouts", body, role="editor")
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert (made.json()["key"], made.json()["status"], made.json()["share"]) == ("first-half", "draft", 0.05)
    started = house.ask("PATCH", "/api/v1/holdouts/first-half", {"status": "running"})
    assert (started.status_code, started.json()["status"]) == (200, "running")
    covered = house.made({"name": "New", "variants": HALVES, "status": "running"})
    assert covered["holdouts"] == ["first-half"]
    page = house.ask("GET", "/api/v1/holdouts", role="viewer").json()
    assert (page["total"], [each["key"] for each in page["holdouts"][0]["covered"]]) == (1, ["new"])
    experiment = house.ask("GET", "/api/v1/experiments/first-half").json()
    assert ([each["key"] for each in experiment["variants"]], experiment["holdout"]) == (
        ["held_out", "in"],
        {},
    )
    fixed = house.ask("PATCH", "/api/v1/holdouts/first-half", {"share": 0.1})
    assert (fixed.status_code, fixed.json()["code"]) == (409, "experiment_running")
    ended = house.ask("PATCH", "/api/v1/holdouts/first-half", {"status": "stopped"})
    assert (ended.status_code, ended.json()["covered"]) == (200, [])
    assert house.ask("GET", "/api/v1/holdouts/new").status_code == 404
    assert house.ask("GET", "/api/v1/holdouts/9").status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "name"),
        ({"name": "x"}, "share"),
        ({"name": "x", "share": 0}, "share"),
        ({"name": "x", "share": 0.6}, "share"),
        ({"name": "x", "share": 0.1, "layer": "nowhere"}, "layer"),
        ({"name": "x", "share": 0.1, "layer": {"key": "page"}}, "layer"),
        ({"name": "x", "share": 0.1, "experiments": ["nowhere"]}, "experiments[0]"),
        ({"name": "x", "share": 0.1, "experiments": []}, "experiments"),
        ({"name": "x", "share": 0.1, "experiments": ["there"]}, "experiments[0]"),
        ({"name": "x", "share": 0.1, "experiments": [1], "layer": "page"}, "experiments"),
        ({"name": "x", "share": 0.1, "metrics": [{"wrong": 1}]}, "metrics[0].wrong"),
        ({"name": "x", "share": 0.1, "traffic_allocation": 0.5}, "traffic_allocation"),
    ],
)
def test_what_is_wrong_with_a_holdout_is_named(house: House, body: Any, path: str) -> None:
    house.made({"name": "There", "variants": HALVES, "status": "running"})
    before = house.counts()
    answer = house.ask("POST", "/api/v1/holdouts", body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path), answer.text
    assert house.counts() == before
