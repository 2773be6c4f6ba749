"""Segments and dimensions by the API: parameters, refusals, freshness, and the table as a file."""

import csv
import io
from typing import Any

import pytest

from api.conftest import START, House
from assay.api.parts import moment
from assay.catalog import users
from assay.catalog.database import Actor
from assay.catalog.tables import Assignment
from contracts.event_store import SECOND, Feed
from reports.test_endpoints import BASE, answered, shop

__all__ = ["shop"]


@pytest.fixture
def people(house: House, shop: dict[str, Any]) -> dict[str, Any]:
    """Users of whom every other is German, but for one who is not known."""
    with house.parts.database.writing(Actor("ada"), moment(START)) as tx:
        for arm in ("control", "blue"):
            for number in range(99):
                country, user_id = "de" if number % 2 else "fr", f"{arm}-{number}"
                users.put(tx, user_id, users.parse_user({"country": country, "seat": user_id}))
    return shop


def put(house: House, user_id: str, country: object) -> int:
    return house.ask("PUT", f"/api/v1/users/{user_id}", {"country": country, "seat": user_id}).status_code


@pytest.mark.usefixtures("people")
def test_a_dimension__is_a_part_of_the_report(house: House) -> None:
    found = answered(house, "report", dimension="country")
    [by] = found["dimensions"]
    assert (by["attribute"], by["distinct_values"]) == ("country", 2)
    assert [(each["value"], each["kind"], each["units"]) for each in by["groups"]] == [
        ("fr", "value", 100),
        ("de", "value", 98),
        (None, "none", 2),
    ]
    assert [each["metric"] for each in by["metrics"]] == ["purchase", "revenue"]
    [gate] = by["metrics"][0]["comparisons"]
    assert [each["value_treatment"] for each in gate["effects"]] == [0.3, 15 / 49, None]
    assert gate["differs"] is None
    statistics = by["metrics"][0]["statistics"]
    assert [sum(each["converters"] for each in part["variants"]) for part in statistics] == [20, 20, 0]
    assert "dimensions" not in answered(house, "report")
    both = house.ask("GET", f"{BASE}/report?dimension=seat&dimension=country&dimension=seat").json()
    assert [each["attribute"] for each in both["dimensions"]] == ["seat", "country"]
    assert [each["units"] for each in both["dimensions"][0]["groups"]] == [1] * 10 + [188, 2]


@pytest.mark.usefixtures("people")
def test_a_segment__narrows_report_and_series(house: House) -> None:
    made = house.ask(
        "POST", "/api/v1/segments", {"name": "german", "key": "de", "rules": {"country": "de"}}
    ).json()
    found = answered(house, "report", segment="german")
    assert answered(house, "report", segment="de")["total_units"] == found["total_units"]
    assert (found["total_units"], found["segment"]) == (98, "german")
    assert [arm["converters"] for arm in found["metrics"][0]["variants"]] == [5, 15]
    assert "the whole experiment decides" in found["headline"]
    series = answered(house, "timeseries", segment=str(made["id"]))
    assert [arm["converters"] for arm in series["points"][-1]["variants"]] == [5, 15]
    assert series["segment"] == str(made["id"])
    revenue = answered(house, "timeseries", segment="german", metric="revenue", by="hour")
    assert [arm["units"] for arm in revenue["points"][-1]["variants"]] == [49, 49]
    # Whoever changes a user, or a segment, and then asks, sees it.
    assert put(house, "blue-1", "fr") == 200
    assert answered(house, "report", segment="german")["total_units"] == 97
    assert answered(house, "report", dimension="country")["dimensions"][0]["groups"][1]["units"] == 97
    assert house.ask("DELETE", "/api/v1/users/blue-3").status_code == 204
    assert answered(house, "report", segment="german")["total_units"] == 96
    path = f"/api/v1/segments/{made['id']}"
    assert house.ask("PATCH", path, {"rules": {"country": "it"}}).status_code == 200
    assert answered(house, "report", segment="german")["total_units"] == 0
    listed = house.ask(
        "PUT", f"{path}/members", content=b"blue-99\nstranger\n", headers={"Content-Type": "text/plain"}
    )
    assert listed.status_code == 200
    assert answered(house, "report", segment="german")["total_units"] == 1
    assert answered(house, "report")["total_units"] == 200


@pytest.mark.usefixtures("people")
def test_a_segment__narrows_the_compatible_views(house: House) -> None:
    assert house.ask("POST", "/api/v1/segments", {"name": "german", "rules": {"country": "de"}}).is_success
    full, flat = answered(house, "results", segment="german"), answered(house, "stats", segment="german")
    posted = house.ask("POST", f"{BASE}/results", {"segment": "german"}).json()
    assert [arm["conversion_rate"] for arm in full["variants"]] == [5 / 49, 15 / 49]
    assert (full["segment"], full["total_users_in_experiment"]) == ("german", 98)
    assert [arm["sample_size"] for arm in flat["variants"]] == [49, 49]
    assert [arm["total_users"] for arm in posted["variants"]] == [49, 49]
    assert full["recommendation"] == flat["recommendation"] == posted["recommendation"]
    assert "the whole experiment decides" in flat["recommendation"]
    shown = answered(house, "results", segment="german", view="summary", group_by="day")
    assert shown == {name: full[name] for name in shown}
    assert answered(house, "stats")["segment"] is None
    refused = house.ask("POST", f"{BASE}/results", {"segment": "french"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_segment")


@pytest.mark.usefixtures("people")
def test_a_segment__narrows_users_events_and_the_notebook(house: House) -> None:
    rules = {"name": "german", "rules": {"country": "de"}}
    assert house.ask("POST", "/api/v1/segments", rules).is_success
    assert house.ask("POST", "/api/v1/segments", {"name": "none", "rules": {"country": "it"}}).is_success

    def exported(rows: str, segment: str) -> list[dict[str, str]]:
        answer = house.ask("GET", f"{BASE}/export?rows={rows}&segment={segment}")
        assert answer.status_code == 200
        return list(csv.DictReader(io.StringIO(answer.text)))

    german = {f"{arm}-{number}" for arm in ("control", "blue") for number in range(1, 99, 2)}
    assert {row["unit_id"] for row in exported("users", "german")} == german
    found = [row["user_id"] for row in exported("events", "german")]
    assert len(found) == 20
    assert set(found) <= german
    assert exported("users", "none") == exported("events", "none") == []
    notebook = house.ask("GET", f"{BASE}/export?format=notebook&segment=german")
    assert notebook.status_code == 200
    assert "control-1," in notebook.text
    assert "control-2," not in notebook.text
    for rows in ("users", "events"):
        refused = house.ask("GET", f"{BASE}/export?rows={rows}&segment=x")
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_segment")


def test_a_mismatch__names_the_users_of_whom_it_is(house: House, people: dict[str, Any]) -> None:
    control, at = people["variants"][0]["id"], START + 60 * SECOND
    more = [f"more-{number}" for number in range(150)]
    with house.parts.database.writing(Actor("ada"), moment(START)) as tx:
        for user_id in more:
            users.put(tx, user_id, users.parse_user({"country": "de", "seat": user_id}))
            tx.add(
                Assignment(
                    experiment_id=people["id"], unit_id=user_id, variant_id=control, phase=1, assigned_at=at
                )
            )
    feed = Feed(house.parts.store)
    feed.row, feed.assigned = 2, 200
    feed.assign(*((user_id, control) for user_id in more), experiment=people["id"], phase=1, at=at)
    report = answered(house, "report")
    check = next(each for each in report["health"] if each["check"] == "sample_ratio")
    assert check["health"] == "failed"
    assert "Among users it stands out where country is 'de' (p" in check["sentence"]
    assert check["sentence"].endswith("the others hold their shares.")
    assert check["sentence"] in report["headline"]
    found = check["inputs"]["attributes"]
    assert (found["units"], found["threshold"]) == (350, 0.001 / found["groups"])
    assert {"attribute": "country", "value": "de", "counts": [199, 49]}.items() <= (
        found["standing_out"][0].items()
    )
    # Members of a segment are a part already: nobody else is counted.
    assert house.ask("POST", "/api/v1/segments", {"name": "german", "rules": {"country": "de"}}).is_success
    [part] = [
        each
        for each in answered(house, "report", segment="german")["health"]
        if each["check"] == "sample_ratio"
    ]
    assert (part["health"], part["inputs"]["attributes"]) == ("failed", {"units": 0})


@pytest.mark.usefixtures("people")
def test_the_same_question__is_answered_from_what_is_kept(house: House) -> None:
    counted = house.parts.snapshots.counted
    for query in ({"dimension": "country"}, {"dimension": "seat"}):
        first = answered(house, "report", **query)
        misses = counted.misses
        assert answered(house, "report", **query) == first
        assert counted.misses == misses


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("dimension=contry", "invalid", "there are: country, seat"),
        ("segment=nobody", "unknown_segment", "there is none yet"),
        ("segment=99", "unknown_segment", "there is none yet"),
        ("&".join(f"dimension=a{n}" for n in range(6)), "invalid", "at most 5"),
        ("dimension=%00", "invalid", "NUL"),
        (f"dimension={'x' * 201}", "invalid", "200 characters"),
        ("segment=a&segment=b", "invalid", "given twice"),
    ],
)
@pytest.mark.usefixtures("people")
def test_wrong_names__are_422_with_what_there_is(house: House, query: str, code: str, said: str) -> None:
    answer = house.ask("GET", f"{BASE}/report?{query}")
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert answer.json()["errors"][0]["path"] == query.partition("=")[0]
    if code == "unknown_segment":
        assert answer.json()["code"] == code


@pytest.mark.usefixtures("people")
def test_the_table__is_a_file(house: House) -> None:
    answer = house.ask("GET", f"{BASE}/export?rows=dimensions&dimension=country&metrics=purchase")
    assert answer.status_code == 200
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["attribute"], row["kind"], row["value"], row["treatment"]) for row in rows] == [
        ("country", "value", '"fr"', "blue"),
        ("country", "value", '"de"', "blue"),
        ("country", "none", "", "blue"),
    ]
    assert [(row["units_control"], row["units_treatment"]) for row in rows] == [
        ("50", "50"),
        ("49", "49"),
        ("1", "1"),
    ]
    assert [float(row["difference"]) for row in rows[:2]] == pytest.approx([0.2, 10 / 49])
    assert rows[2]["difference"] == ""
    nothing = house.ask("GET", f"{BASE}/export?rows=dimensions")
    assert nothing.status_code == 422
    assert "dimension" in nothing.json()["detail"]
