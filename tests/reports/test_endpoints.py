"""The routes of results, in process: parameters, roles, shapes and files."""

import asyncio
import csv
import io
import json
from typing import Any

import duckdb
import httpx2
import pytest

from api.conftest import START, House
from assay.assignments.base import Record
from contracts.event_store import DAY, HOUR, SECOND, Feed, event

BASE = "/api/v1/experiments/shop"


@pytest.fixture
def shop(house: House) -> dict[str, Any]:
    """A running experiment with 100 users an arm, of whom 10 and 30 bought for 5 each."""
    made = house.made(
        {
            "name": "Shop",
            "key": "shop",
            "variants": [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}],
            "metrics": ["purchase", {"key": "revenue", "type": "revenue", "event": "purchase"}],
        }
    )
    assert house.ask("POST", f"{BASE}/start").status_code == 200
    feed = Feed(house.parts.store)
    at = START + 60 * SECOND
    house.clock.now = START + DAY + HOUR
    records = []
    for variant, buyers in zip(made["variants"], (10, 30), strict=True):
        users = [f"{variant['key']}-{number}" for number in range(100)]
        feed.assign(*((user, variant["id"]) for user in users), experiment=made["id"], phase=1, at=at)
        feed.events(*(event(user, "purchase", at + SECOND, a=5.0) for user in users[:buyers]))
        records += [Record(made["id"], user, variant["id"], 1, at) for user in users]
    asyncio.run(house.parts.assignments.put_many(records))
    return made


def answered(house: House, path: str, **query: str) -> Any:
    response = house.ask("GET", str(httpx2.URL(f"{BASE}/{path}", params=query)), role="viewer")
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.usefixtures("shop")
def test_views__agree_on_the_counts(house: House) -> None:
    results, stats, report = answered(house, "results"), answered(house, "stats"), answered(house, "report")
    posted = house.ask("POST", f"{BASE}/results", {"conversion_event_type": "purchase"}).json()
    assert [arm["conversion_rate"] for arm in results["variants"]] == [0.1, 0.3]
    assert [arm["conversion_rate"] for arm in stats["variants"]] == [0.1, 0.3]
    assert [arm["conversion_rate"] for arm in posted["variants"]] == [10.0, 30.0]
    assert [arm["value"] for arm in report["metrics"][0]["variants"]] == [0.1, 0.3]
    assert results["comparison"]["p_value"] == stats["p_value"] == posted["variants"][1]["p_value"]
    assert (
        results["recommendation"] == stats["recommendation"] == posted["recommendation"] == report["headline"]
    )
    assert answered(house, "results", view="summary") == {
        name: results[name] for name in answered(house, "results", view="summary")
    }
    assert len(house.flushes) == 6


def test_short_prefixes__answer_alike(house: House, shop: dict[str, Any]) -> None:
    for prefix in ("", "/api"):
        path = f"{prefix}/experiments/{shop['id']}/results/"
        assert house.ask("GET", path).json()["variants"] == answered(house, "results")["variants"]
    assert house.ask("POST", f"/experiments/{shop['id']}/results", content=b"").status_code == 200


@pytest.mark.usefixtures("shop")
def test_repeats__are_the_same_bytes_until_something_comes(house: House) -> None:
    feed = Feed(house.parts.store)
    feed.row, feed.assigned = 2, 200
    for path in ("report", "results", "results?view=summary", "stats", "timeseries", "timeseries?by=hour"):
        first, again = house.ask("GET", f"{BASE}/{path}"), house.ask("GET", f"{BASE}/{path}")
        assert first.content == again.content
        assert int(again.headers["age"]) > int(first.headers["age"])
        feed.events(event("control-99", "purchase", START + 120 * SECOND, a=5.0))
        house.clock.now += SECOND
        stale = house.ask("GET", f"{BASE}/{path}{'&' if '?' in path else '?'}max_age=60")
        new = house.ask("GET", f"{BASE}/{path}")
        assert (stale.content == first.content, new.content == first.content) == (True, False)
    before = answered(house, "report")
    assert answered(house, "report", refresh="true")["computed_at"] > before["computed_at"]


@pytest.mark.usefixtures("shop")
def test_parameters__reach_the_question(house: House) -> None:
    assert answered(house, "results", group_by="day")["timeseries"][0]["group_by"] == "day"
    assert answered(house, "results", end_date="2020-01-01")["summary"]["total_assigned"] == 0
    assert len(answered(house, "results", variant_id="blue")["variants"]) == 1
    assert answered(house, "stats", event_type="click")["total_conversions"] == 0
    report = answered(house, "report", metrics="revenue", refresh="true")
    assert [metric["key"] for metric in report["metrics"]] == ["revenue"]
    series = answered(house, "timeseries", metric="revenue")
    assert (series["by"], series["metric"]["key"], len(series["points"])) == ("day", "revenue", 1)
    assert answered(house, "timeseries", by="hour", cumulative="false")["by"] == "hour"


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("results?startdate=2024-01-01", "startdate"),
        ("results?group_by=day&aggregation=hour", "aggregation"),
        ("results?view=short", "view"),
        ("results?event_type=a&event_type=b", "event_type"),
        ("results?last_day=many", "last_day"),
        ("report?segment=x", "segment"),
        ("stats?group_by=day", "group_by"),
        ("timeseries?by=minute", "by"),
        ("report?refresh=perhaps", "refresh"),
        ("results?max_age=-1", "max_age"),
        ("stats?max_age=86401", "max_age"),
        ("timeseries?max_age=1&refresh=true", "max_age"),
        ("export?format=xls", "format"),
        ("export?rows=all", "rows"),
        ("export?rows=events&format=notebook", "rows"),
    ],
)
def test_wrong_parameters__are_422_by_name(house: House, path: str, named: str) -> None:
    response = house.ask("GET", f"{BASE}/{path}")
    assert response.status_code == 422
    assert [each["path"] for each in response.json()["errors"]] == [named]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"confidence_level": 1.5}, 422),
        ({"significance_threshold": 0}, 422),
        ({"conversion_event_type": ""}, 422),
        ({"conversion": "purchase"}, 422),
        ([], 422),
        ({"confidence_level": 0.9, "significance_threshold": 0.1}, 200),
        ({}, 200),
    ],
)
def test_post_bodies__are_checked(house: House, body: Any, status: int) -> None:
    assert house.ask("POST", f"{BASE}/results", body).status_code == status


@pytest.mark.usefixtures("shop")
def test_roles__readers_only_and_unknown_is_404(house: House) -> None:
    for path in ("report", "results", "stats", "timeseries", "export"):
        assert house.ask("GET", f"{BASE}/{path}", role="client").status_code == 403
        assert house.ask("GET", f"{BASE}/{path}", role=None).status_code == 401
        assert house.ask("GET", f"/api/v1/experiments/nothing/{path}").status_code == 404
    assert house.ask("POST", f"{BASE}/results", {}, role="client").status_code == 403


def test_overrides__are_left_out(house: House, shop: dict[str, Any]) -> None:
    wanted = {"variant": shop["variants"][1]["id"]}
    assert house.ask("PUT", f"{BASE}/overrides/control-0", wanted).status_code in {200, 201}
    arms = answered(house, "results")["variants"]
    assert [(arm["assigned_count"], arm["primary_unique_users"]) for arm in arms] == [(99, 9), (100, 30)]
    text = house.ask("GET", f"{BASE}/export?rows=users").text
    assert len(list(csv.DictReader(io.StringIO(text)))) == 199


@pytest.mark.usefixtures("shop")
def test_export__sufficient_statistics_recompute_the_report(house: House) -> None:
    as_json = house.ask("GET", f"{BASE}/export?format=json").json()
    response = house.ask("GET", f"{BASE}/export")
    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["content-disposition"] == 'attachment; filename="shop-statistics.csv"'
    as_csv = list(csv.DictReader(io.StringIO(response.text)))
    assert (
        [row["metric"] for row in as_json]
        == [row["metric"] for row in as_csv]
        == ["purchase"] * 2 + ["revenue"] * 2
    )
    for one, other in zip(as_json, as_csv, strict=True):
        for name, value in one.items():
            assert (type(value)(other[name]) if value is not None else other[name] or None) == value
    low, high = as_json[2:]
    error = (low["cov_total_total"] / low["units"] + high["cov_total_total"] / high["units"]) ** 0.5
    [comparison] = answered(house, "report")["metrics"][1]["comparisons"]
    assert high["mean_total"] - low["mean_total"] == pytest.approx(comparison["difference"])
    assert error == pytest.approx(comparison["standard_error"])


@pytest.mark.usefixtures("shop")
def test_export__parquet_holds_the_same_rows(house: House, tmp_path: Any) -> None:
    for rows, count in (("statistics", 4), ("users", 200), ("events", 40)):
        response = house.ask("GET", f"{BASE}/export?format=parquet&rows={rows}")
        file = tmp_path / "rows.parquet"
        file.write_bytes(response.content)
        as_json = house.ask("GET", f"{BASE}/export?format=json&rows={rows}").json()
        with duckdb.connect() as engine:
            found = engine.execute(f"SELECT * FROM '{file}'")
            names = [column[0] for column in found.description or ()]
            assert [dict(zip(names, row, strict=True)) for row in found.fetchall()] == as_json
        assert len(as_json) == count
    none = house.ask("GET", f"{BASE}/export?format=parquet&rows=events&event_type=never")
    (tmp_path / "none.parquet").write_bytes(none.content)
    with duckdb.connect() as engine:
        assert engine.execute(f"SELECT count(*) FROM '{tmp_path}/none.parquet'").fetchall() == [(0,)]
    assert json.loads(house.ask("GET", f"{BASE}/export?format=json&rows=events&event_type=never").text) == []


@pytest.mark.usefixtures("shop")
def test_export__units_have_their_numbers(house: House) -> None:
    rows = house.ask("GET", f"{BASE}/export?rows=users&format=json").json()
    assert sum(row["purchase.converted"] for row in rows) == 40
    assert sum(row["revenue.total"] for row in rows if row["variant"] == "blue") == 150
    assert {row["phase"] for row in rows} == {1}
    narrowed = house.ask("GET", f"{BASE}/export?rows=users&format=json&metrics=revenue").json()
    assert [name for name in narrowed[0] if "." in name] == [
        "revenue.converted",
        "revenue.events",
        "revenue.total",
    ]


@pytest.mark.usefixtures("shop")
def test_export__notebook(house: House) -> None:
    response = house.ask("GET", f"{BASE}/export?format=notebook", role="viewer")
    assert response.headers["content-type"] == "application/x-ipynb+json"
    assert response.headers["content-disposition"] == 'attachment; filename="shop.ipynb"'
    assert response.json()["nbformat"] == 4
    asked = house.ask("GET", f"{BASE}/export?format=notebook&metrics=revenue").json()
    assert asked["cells"][0]["source"][0] == "# Shop: revenue\n"
    assert house.ask("GET", "/api/v1/experiments/nothing/export?format=notebook").status_code == 404


def test_draft__has_results_too(house: House) -> None:
    house.made({"name": "Bare", "key": "bare"})
    for path in ("report", "results", "stats", "timeseries", "export"):
        assert house.ask("GET", f"/api/v1/experiments/bare/{path}").status_code == 200
    found = house.ask("GET", "/api/v1/experiments/bare/results").json()
    assert found["comparison"]["reason"] == "no_treatment"
    assert found["conversion_source"] == "any_event"


def test_reports__are_noted_with_their_time(house_with: Any) -> None:
    noted: list[tuple[int, bool]] = []
    house = house_with(analysed=lambda report, seconds: noted.append((report.spec.id, seconds > 0)))
    made = house.made({"name": "Noted"})
    house.ask("GET", f"/api/v1/experiments/{made['id']}/stats")
    assert noted == [(made["id"], True)]
