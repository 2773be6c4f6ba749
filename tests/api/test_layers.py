"""Layers over HTTP: each answer a page needs, and nothing that is not a clear refusal."""

from typing import Any

import pytest

from api.conftest import House

HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


def test_a_layer_from_its_making_to_its_end(house: House) -> None:
    made = house.ask("POST", "/api/v1/layers", {"name": "Checkout page"}, role="editor")
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    layer = made.json()
    assert (layer["key"], layer["unit"], layer["wash_out"], layer["slots"]) == (
        "checkout-page",
        "user_id",
        "7d",
        10_000,
    )
    body = {"name": "A", "variants": HALVES, "layer": "checkout-page", "traffic_allocation": 0.25}
    experiment = house.made({**body, "status": "running"})
    assert experiment["layer"] == {
        "id": layer["id"],
        "key": "checkout-page",
        "share": None,
        "slots": [[0, 2500]],
    }
    full = house.ask(
        "POST", "/api/v1/experiments", {**body, "name": "B", "status": "running", "traffic_allocation": 0.8}
    )
    assert (full.status_code, full.json()["code"]) == (409, "layer_full")
    assert "75 % (7,500 of 10,000 slots) is free" in full.json()["errors"][0]["message"]
    page = house.ask("GET", "/api/v1/layers?q=check", role="viewer").json()
    assert (page["total"], page["layers"][0]["held"], page["layers"][0]["free"]) == (1, 2500, 7500)
    assert page["layers"][0]["experiments"][0]["key"] == experiment["key"]
    back = {**page["layers"][0], "wash_out": "48h"}
    stale = house.ask("PUT", "/api/v1/layers/checkout-page", back, headers={"If-Match": '"9"'})
    assert stale.status_code == 412
    edited = house.ask("PUT", "/api/v1/layers/checkout-page", back, headers={"If-Match": '"1"'})
    assert (edited.status_code, edited.json()["wash_out"], edited.json()["version"]) == (200, "2d", 2)
    used = house.ask("DELETE", "/api/v1/layers/checkout-page")
    assert (used.status_code, used.json()["code"]) == (409, "layer_in_use")
    assert house.ask("POST", f"/api/v1/experiments/{experiment['id']}/stop").status_code == 200
    seen = house.ask("GET", f"/api/v1/layers/{layer['id']}").json()
    assert (seen["held"], seen["washing_out"], seen["experiments"]) == (0, 2500, [])
    assert house.ask("PATCH", "/api/v1/layers/checkout-page", {"wash_out": "0m"}).status_code == 200
    assert house.ask("DELETE", "/api/v1/layers/checkout-page").status_code == 204
    assert house.ask("GET", "/api/v1/layers/checkout-page").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({}, 422, "name"),
        ([], 422, "body"),
        ({"name": "x", "key": "7"}, 422, "key"),
        ({"name": "x", "key": "a b"}, 422, "key"),
        ({"name": "x", "wash_out": "soon"}, 422, "wash_out"),
        ({"name": "x", "wash_out": "9999d"}, 422, "wash_out"),
        ({"name": "x", "wash_out": 7}, 422, "wash_out"),
        ({"name": "x", "unit": ""}, 422, "unit"),
        ({"name": "x", "slots": 100}, 422, "slots"),
        ({"name": "a\x00b"}, 422, "name"),
        ({"name": "x", "key": "there"}, 409, "key"),
    ],
)
def test_what_is_wrong_with_a_layer_is_named(house: House, body: Any, status: int, path: str) -> None:
    assert house.ask("POST", "/api/v1/layers", {"name": "There"}).status_code == 201
    before = house.counts()
    answer = house.ask("POST", "/api/v1/layers", body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (status, path), answer.text
    assert house.counts() == before


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "nowhere", None, 404),
        ("GET", "a%00b", None, 404),
        ("GET", "99999999999999999999999", None, 404),
        ("PATCH", "there", {"key": "other"}, 422),
        ("PATCH", "there", {"unit": "account_id"}, 422),
        ("PATCH", "there", {"wash_out": None}, 422),
        ("PATCH", "there", {"unknown": 1}, 422),
        ("DELETE", "nowhere", None, 404),
    ],
)
def test_what_a_layer_cannot_do_is_refused(
    house: House, verb: str, path: str, body: Any, status: int
) -> None:
    assert house.ask("POST", "/api/v1/layers", {"name": "There"}).status_code == 201
    assert house.ask(verb, f"/api/v1/layers/{path}", body).status_code == status
