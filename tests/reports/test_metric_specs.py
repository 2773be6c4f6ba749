"""Stored metrics and analysis as reports see them."""

from datetime import UTC, datetime
from typing import Any

from api.conftest import House
from assay.api.metrics import _EXAMPLES
from assay.catalog.tables import Experiment, Variant
from assay.reports.picture import read_spec, spec_of
from assay.reports.spec import (
    AnalysisSpec,
    CapSpec,
    ExperimentSpec,
    FilterSpec,
    MarginSpec,
    MetricSpec,
    MetricType,
    Role,
    SourceSpec,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = 3_600_000_000


def spec(*metrics: dict[str, Any], **fields: Any) -> ExperimentSpec:
    stored = [
        {
            "name": each["key"],
            "event_type": "buy",
            "property": None,
            "direction": "increase",
            "role": "secondary",
            **each,
        }
        for each in metrics
    ]
    row = Experiment(
        id=1,
        key="e",
        name="e",
        status="draft",
        created_at=NOON,
        variants=[
            Variant(id=1, key="c", name="c", allocation=1.0, is_control=True, enabled=True, removed=False)
        ],
        description="",
        hypothesis="More.",
        unit="user_id",
        significance_level=0.05,
        power=0.8,
        metrics=stored,
        **{"analysis": {"method": "fixed"}, **fields},
    )
    return spec_of(row, [], [])


def metric(key: str, kind: MetricType, **fields: Any) -> MetricSpec:
    return MetricSpec(key, key, kind, "buy", **fields)


def test_every_field_is_carried() -> None:
    where = [{"property": "n", "op": "in", "value": [1, "a"]}, {"property": "n", "op": "exists"}]
    filters = (FilterSpec("n", "in", (1, "a")), FilterSpec("n", "exists"))
    found = spec(
        {"key": "plain", "type": "conversion"},
        {"key": "past", "type": "sum", "lookback": "2h"},
        {
            "key": "window",
            "type": "sum",
            "where": where,
            "window": {"delay": "1h", "duration": "1d"},
            "complete_only": True,
        },
        {
            "key": "ratio",
            "type": "ratio",
            "fold": "count",
            "denominator": {"event_type": "visit", "fold": "sum", "property": "n", "where": where},
            "cap": {"percentile": 99, "lower": 1},
            "role": "guardrail",
            "margin": {"relative": 0.02},
        },
        {"key": "q", "type": "quantile", "quantile": 0.9, "level": "event"},
        {"key": "zeros", "type": "quantile", "quantile": 0.5, "level": "user", "zeros": True},
        {"key": "back", "type": "retention", "from": "1d", "to": "2d"},
        {"key": "funnel", "type": "funnel", "steps": [{"event_type": "cart"}, {"event_type": "buy"}]},
        {"key": "many", "type": "threshold", "fold": "count", "at_least": 3, "margin": {"absolute": 1.5}},
        {"key": "cap", "type": "count", "cap": {"value": 10, "lower": None}, "window": None},
        {
            "key": "copy",
            "type": "conversion",
            "definition": "d",
            "definition_version": 2,
            "registered": False,
        },
    )
    assert found.metrics == (
        metric("plain", MetricType.CONVERSION),
        metric("past", MetricType.SUM, lookback=2 * HOUR),
        metric("window", MetricType.SUM, where=filters, opens=HOUR, closes=25 * HOUR, complete_only=True),
        metric(
            "ratio",
            MetricType.RATIO,
            fold="count",
            denominator=SourceSpec("visit", filters, "sum", "n"),
            cap=CapSpec(0.99, 0.01, is_quantile=True),
            role=Role.GUARDRAIL,
            margin=MarginSpec(0.02, is_relative=True),
        ),
        metric("q", MetricType.QUANTILE, quantile=0.9, by_event=True),
        metric("zeros", MetricType.QUANTILE, quantile=0.5, zeros=True),
        metric("back", MetricType.RETENTION, opens=24 * HOUR, closes=48 * HOUR),
        metric("funnel", MetricType.FUNNEL, steps=(SourceSpec("cart"), SourceSpec("buy"))),
        metric(
            "many", MetricType.THRESHOLD, fold="count", at_least=3, margin=MarginSpec(1.5, is_relative=False)
        ),
        metric("cap", MetricType.COUNT, cap=CapSpec(10)),
        metric("copy", MetricType.CONVERSION, definition="d", definition_version=2, registered=False),
    )
    assert len({hash(each) for each in found.metrics}) == len(found.metrics)
    assert found.hypothesis == "More."


def test_the_analysis_is_carried() -> None:
    assert spec().analysis == AnalysisSpec()
    dates = ["2026-12-01T00:00:00.000000Z", "2026-12-08T00:00:00.000000Z"]
    found = spec(
        analysis={
            "method": "group_sequential",
            "alternative": "greater",
            "correction": "none",
            "cuped": False,
            "look_dates": dates,
            "spending": "power",
            "spending_power": 2.0,
            "planned_units": 1000,
        },
        activation={"event_type": "open", "where": [{"property": "a", "op": "eq", "value": True}]},
        plan_hash="ab",
    )
    assert found.analysis == AnalysisSpec(
        "group_sequential",
        "greater",
        "none",
        cuped=False,
        looks=2,
        look_dates=(datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 8, tzinfo=UTC)),
        spending="power",
        spending_power=2.0,
        planned_units=1000,
    )
    assert found.activation == SourceSpec("open", (FilterSpec("a", "eq", (True,)),))
    assert found.plan_hash == "ab"
    assert spec(analysis={"method": "always_valid", "looks": 5}).analysis.looks == 5


def test_deviations_from_the_frozen_plan_are_carried(house: House) -> None:
    house.made({"name": "x", "key": "x", "metrics": ["a"], "status": "running"}, "/api/v1")
    changed = house.ask("PATCH", "/api/v1/experiments/x", {"power": 0.9, "description": "d"}).json()
    with house.parts.database.reading() as tx:
        found = read_spec(tx, "x")
    assert found.plan_hash == changed["preregistration_hash"]
    (only,) = found.deviations
    assert (only.field, only.change, only.before, only.after) == ("power", "changed", 0.8, 0.9)
    assert only.by == "admin key"
    assert isinstance(hash(found), int)


def test_reports_of_metrics_of_every_kind_answer(house: House) -> None:
    metrics = [{**body, "role": None, "margin": None} for body in _EXAMPLES.values()]
    house.made({"name": "x", "key": "x", "metrics": metrics, "status": "running"}, "/api/v1")
    house.made({"name": "y", "key": "y", "metrics": metrics[2:], "status": "running"}, "/api/v1")
    for key in ("x", "y"):
        for path in ("report", "results", "results?group_by=day", "stats", "timeseries", "export?format=csv"):
            response = house.ask("GET", f"/api/v1/experiments/{key}/{path}")
            assert response.status_code == 200, (path, response.text)
        assert house.ask("POST", f"/api/v1/experiments/{key}/results", {}).status_code == 200
