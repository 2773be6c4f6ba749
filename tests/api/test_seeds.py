"""Requests as the reference documents write them, as far as the control plane answers them."""

from typing import Any

import pytest

from api.conftest import House

CREATES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "/experiments",
        {
            "name": "experiment18",
            "description": "test experiment",
            "status": "RUNNING",
            "primary_metric_name": "purchase",
            "variants": [
                {"variant_name": "variant1", "traffic_allocation_percent": 30, "configuration_json": {}},
                {"variant_name": "variant2", "traffic_allocation_percent": 70, "configuration_json": {}},
            ],
        },
        {"status": "running", "allocations": [0.3, 0.7], "primary": "purchase", "control": "variant1"},
    ),
    (
        "/experiments",
        {
            "name": "Button Color Test",
            "description": "Testing red vs blue for purchase button clicks.",
            "variants": [
                {"name": "red_button", "allocation_percent": 50.0},
                {"name": "blue_button", "allocation_percent": 50.0},
            ],
        },
        {"status": "running", "allocations": [0.5, 0.5], "primary": None, "control": "red_button"},
    ),
    (
        "/api/v1/experiments",
        {
            "name": "New Feature Test",
            "description": "Testing new feature vs. control",
            "hypothesis": "New feature will increase conversion by 10%",
            "variants": [
                {"name": "control", "allocation": 0.5, "config": {}},
                {"name": "new-feature", "allocation": 0.5, "config": {"feature_enabled": True}},
            ],
            "metrics": ["conversion", "signup"],
            "target_sample_size": 1000,
            "significance_level": 0.05,
            "traffic_allocation": 1.0,
        },
        {"status": "draft", "allocations": [0.5, 0.5], "primary": "conversion", "control": "control"},
    ),
    (
        "/experiments",
        {
            "name": "Button Color Test",
            "description": "Testing red vs blue button",
            "variants": [
                {"name": "control", "traffic_percentage": 50.0},
                {"name": "variant_b", "traffic_percentage": 50.0},
            ],
        },
        {"status": "running", "allocations": [0.5, 0.5], "primary": None, "control": "control"},
    ),
]


@pytest.mark.parametrize(("path", "body", "expected"), CREATES)
def test_an_experiment_as_each_document_creates_it_twice(
    house: House, path: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    keys = []
    for _ in range(2):
        response = house.ask("POST", path, body)
        assert response.status_code == 201, response.text
        made = response.json()
        keys.append(made["key"])
        assert made["name"] == body["name"]
        assert made["status"] == expected["status"]
        assert [each["allocation"] for each in made["variants"]] == expected["allocations"]
        assert made["primary_metric"] == expected["primary"]
        assert [each["name"] for each in made["variants"] if each["is_control"]] == [expected["control"]]
        for given, found in zip(body["variants"], made["variants"], strict=True):
            assert {**found, **given} == found or path == "/api/v1/experiments"
        start = house.ask("POST", f"{path}/{made['id']}/start")
        assert start.status_code == (200 if expected["status"] == "draft" else 409)
        for view in ("results", "stats", "report"):
            assert house.ask("GET", f"{path}/{made['id']}/{view}").status_code == 200
    assert keys[1] == f"{keys[0]}-2"


@pytest.mark.parametrize(
    "query",
    [
        "start_date=2024-01-01&end_date=2024-01-31&event_type=purchase&primary_event_type=purchase&group_by=day",
        "event_type=purchase",
        "event_type=purchase&last_day=1",
        "event_type=click",
        "start_date=2025-10-22&end_date=2025-10-22&aggregation=hour",
        "variant_id=1",
        "view=summary",
    ],
)
def test_results_as_the_documents_ask_for_them(house: House, query: str) -> None:
    house.made(CREATES[1][1], "")
    response = house.ask("GET", f"/experiments/1/results?{query}")
    assert response.status_code == 200, response.text
    assert response.json()["total_users_in_experiment"] == 0
    assert response.json()["global_conversion_rate"] == 0.0


def test_who_won(house: House) -> None:
    house.made(CREATES[1][1], "/api")
    body = {"conversion_event_type": "purchase", "confidence_level": 0.95, "significance_threshold": 0.05}
    found = house.ask("POST", "/api/experiments/1/results", body).json()
    assert [each["total_users"] for each in found["variants"]] == [0, 0]
    assert found["winner"] is None
    for wrong in ({"confidence_level": 95}, {"confidence_level": "0.95"}, {"conversion": "x"}, []):
        assert house.ask("POST", "/api/experiments/1/results", wrong).status_code == 422


def test_a_client_that_never_calls_start(house: House) -> None:
    made = house.ask("POST", "/api/experiments", {"name": "My test"}).json()
    assert (made["status"], [each["name"] for each in made["variants"]]) == ("running", ["control"])
    path = f"/api/experiments/{made['id']}/variants"
    assert (
        house.ask("PUT", f"{path}/{made['variants'][0]['id']}", {"allocation_percent": 70}).status_code == 200
    )
    added = house.ask(
        "POST", path, {"name": "treatment", "allocation_percent": 30, "enabled": True, "config": {}}
    )
    assert added.status_code == 201
    compiled = house.parts.published.ruleset.find(made["id"])
    assert compiled is not None
    assert compiled.ranges == ((0.0, 0.7), (0.7, 1.0))
    user = house.ask("POST", "/api/users", {"country_code": "US", "is_premium": True})
    assert user.status_code == 201
    segment = house.ask("POST", "/api/segments", {"name": "US", "rules": {"country_code": "US"}}).json()
    body = {"segment_id": segment["id"], "user_id": user.json()["id"]}
    assert house.ask("POST", "/api/segments/assign-user", body).status_code == 200
    body = {"segment_id": segment["id"], "experiment_id": made["id"]}
    assert house.ask("POST", "/api/segments/assign-experiment", body).status_code == 200
    assert house.ask("GET", "/api/experiments").json()["total"] == 1


def test_exports(house: House) -> None:
    house.made(CREATES[2][1])
    for rows in ("", "&rows=users", "&rows=events"):
        for form, kind in [
            ("csv", "text/csv; charset=utf-8"),
            ("json", "application/json"),
            ("parquet", "application/vnd.apache.parquet"),
        ]:
            response = house.ask("GET", f"/api/v1/experiments/1/export?format={form}{rows}")
            assert (response.status_code, response.headers["content-type"]) == (200, kind)
            assert "attachment" in response.headers["content-disposition"]
    for query in ("format=xml", "rows=keys", "foo=1"):
        assert house.ask("GET", f"/api/v1/experiments/1/export?{query}").status_code == 422
    assert house.ask("GET", "/api/v1/experiments/1/timeseries?metric=conversion&by=hour").status_code == 200
