"""The API page: every route documented, one document, no network."""

import re
from collections.abc import Callable
from typing import Any

from api.conftest import House
from api.test_auth import ASKED


def document(house: House) -> dict[str, Any]:
    response = house.ask("GET", "/openapi.json", role=None)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_every_route_is_documented_once_under_the_canonical_prefix(house: House) -> None:
    paths = document(house)["paths"]
    found = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert found == {name.replace(" ", " /api/v1", 1) for name in ASKED}
    operations = [operation for item in paths.values() for operation in item.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all(each["summary"].endswith(".") or "…" in each["summary"] for each in operations)


def test_every_reference_leads_somewhere(house: House) -> None:
    found = document(house)
    text = house.ask("GET", "/openapi.json").text
    references = set(re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', text))
    assert references
    assert references <= set(found["components"]["schemas"])
    assert found["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert found["security"] == [{"bearer": []}]


def test_bodies_and_answers_are_described(house: House) -> None:
    create = document(house)["paths"]["/api/v1/experiments"]["post"]
    body = create["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schemas = document(house)["components"]["schemas"]
    assert schemas[body]["required"] == ["name"]
    assert {"traffic_allocation", "variants", "primary_metric_name"} <= set(schemas[body]["properties"])
    answer = create["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    made = house.made({"name": "x"})
    assert set(schemas[answer]["properties"]) == set(made)
    assert create["responses"]["4XX"]["content"]["application/problem+json"]


def test_paths_of_other_rooms_are_merged(house_with: Callable[..., House]) -> None:
    extra = {"/api/v1/events": {"post": {"summary": "Record."}}, "/health": {"get": {"summary": "Alive?"}}}
    found = document(house_with(extra_paths=extra, extra_schemas={"EventIn": {"type": "object"}}))
    assert set(found["paths"]["/api/v1/events"]) == {"get", "post"}
    assert found["paths"]["/health"]["get"]["summary"] == "Alive?"
    assert found["components"]["schemas"]["EventIn"] == {"type": "object"}


def test_the_page_needs_nothing_else(house: House) -> None:
    response = house.ask("GET", "/docs", role=None)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    for path in document(house)["paths"]:
        assert path in page


def test_a_browser_at_the_root_is_led_to_the_page(house: House) -> None:
    response = house.ask("GET", "/", role=None)
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


def test_the_page_may_be_switched_off(house_with: Callable[..., House]) -> None:
    house = house_with(docs=False)
    assert house.ask("GET", "/docs").status_code == 404
    assert house.ask("GET", "/openapi.json").status_code == 404
