"""Metric definitions over HTTP."""

from typing import Any

import pytest

from api.conftest import House
from assay.api.metrics import _EXAMPLES

PATH = "/api/v1/metric-definitions"
HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


def test_the_examples_of_the_api_page_work(house: House) -> None:
    for body in _EXAMPLES.values():
        response = house.ask("POST", PATH, body)
        assert response.status_code == 201, response.text
        assert response.headers["etag"] == '"1"'
    page = house.ask("GET", "/openapi.json").json()["paths"][PATH]["post"]["requestBody"]
    examples = page["content"]["application/json"]["examples"]
    assert [each["value"] for each in examples.values()] == list(_EXAMPLES.values())
    assert "Revenue in two weeks" in house.ask("GET", "/docs").text
    listed = house.ask("GET", f"{PATH}?q=rev").json()
    assert (listed["total"], listed["metric_definitions"][0]["key"]) == (1, "revenue-14d")


def test_a_definition_from_its_making_to_its_end(house: House) -> None:
    made = house.ask("POST", PATH, {"name": "Sign ups", "event_type": "signup"}, role="editor").json()
    assert made == {
        "id": 1,
        "key": "sign-ups",
        "name": "Sign ups",
        "type": "conversion",
        "event_type": "signup",
        "property": None,
        "direction": "increase",
        "role": None,
        "version": 1,
        "archived": False,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "updated_by": "editor key",
        "experiments": [],
    }
    one = f"{PATH}/sign-ups"
    assert house.ask("GET", one, role="viewer").json() == made
    assert house.ask("GET", f"{PATH}/1").json() == made
    stale = house.ask("PATCH", one, {"window": {"duration": "7d"}}, headers={"If-Match": '"9"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    changed = house.ask("PUT", one, {"window": {"duration": "7d"}}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert changed.json()["window"] == {"duration": "7d"}
    assert "window" not in house.ask("GET", f"{one}?version=1").json()
    versions = house.ask("GET", f"{one}/versions").json()["versions"]
    assert [(each["version"], each["changed_by"]) for each in versions] == [
        (2, "admin key"),
        (1, "editor key"),
    ]
    experiment = house.made(
        {"name": "x", "variants": HALVES, "status": "running", "metrics": [{"definition": "sign-ups"}]}
    )
    assert experiment["metrics"][0]["definition_version"] == 2
    refused = house.ask("DELETE", one)
    assert (refused.status_code, refused.json()["code"]) == (409, "definition_in_use")
    assert house.ask("POST", f"{one}/archive").json()["archived"] is True
    assert house.ask("GET", PATH).json()["total"] == 0
    assert house.ask("GET", f"{PATH}?archived=true").json()["total"] == 1
    assert house.ask("POST", f"{one}/restore").json()["archived"] is False
    house.ask("DELETE", f"/api/v1/experiments/{experiment['id']}?purge=true")
    assert house.ask("DELETE", one).json() == {"id": 1, "key": "sign-ups", "result": "deleted"}
    assert house.ask("GET", one).status_code == 404
    actions = [each["action"] for each in house.ask("GET", "/api/v1/audit?noun=metric").json()["entries"]]
    assert actions == [f"metric.{each}" for each in ("delete", "restore", "archive", "edit", "create")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "", [], 422),
        ("POST", "", {}, 422),
        ("POST", "", {"name": "m", "event_type": "a", "key": 5}, 422),
        ("POST", "", {"name": "m", "definition": "m"}, 422),
        ("POST", "", {"name": "m", "event_type": "a", "where": [[]]}, 422),
        ("POST", "", {"name": "m", "event_type": "a", "steps": 5}, 422),
        ("POST", "", {"name": "m", "event_type": "a", "type": ["sum"]}, 422),
        ("PATCH", "/m", [], 422),
        ("PATCH", "/m", {"type": None}, 422),
        ("PATCH", "/m", {"type": "ratio"}, 422),
        ("PATCH", "/m", {"type": {}}, 422),
        ("PATCH", "/m", {"key": None}, 422),
        ("PATCH", "/m", {"key": "a b"}, 422),
        ("PATCH", "/m", {"version": "1"}, 422),
        ("PATCH", "/m", {"archived": True}, 422),
        ("PATCH", "/m", {"nmae": "x"}, 422),
        ("PATCH", "/nope", {}, 404),
        ("GET", "/m?version=0", None, 404),
        ("GET", "/m?version=99999999999999999999999", None, 404),
        ("GET", "/m?version=x", None, 422),
        ("GET", "/%00", None, 404),
        ("POST", "/m/archive", {"x": 1}, 422),
        ("DELETE", "/m?purge=true", None, 422),
    ],
)
def test_whatever_is_wrong_has_a_sentence(
    house: House, method: str, path: str, body: Any, status: int
) -> None:
    house.ask("POST", PATH, {"key": "m", "name": "m", "event_type": "buy"})
    response = house.ask(method, PATH + path, body)
    assert response.status_code == status, response.text
    assert response.json()["detail"]
