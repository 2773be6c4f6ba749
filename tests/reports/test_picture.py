"""The catalog's rows become the picture that reports read."""

import pytest

from api.conftest import House
from assay.errors import NotFound
from assay.reports.picture import read_spec
from assay.reports.spec import Direction, ExperimentSpec, MetricType, Role

BODY = {
    "name": "Picture",
    "key": "picture",
    "variants": [{"name": name, "allocation": share} for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2))],
    "metrics": [
        "purchase",
        {
            "key": "paid",
            "type": "revenue",
            "event_type": "purchase",
            "property": "price",
            "role": "secondary",
        },
        {"event_type": "error", "direction": "decrease"},
    ],
    "guardrail_metrics": ["error"],
    "target_sample_size": 500,
    "significance_level": 0.01,
}


def picture(house: House) -> ExperimentSpec:
    with house.parts.database.reading() as tx:
        return read_spec(tx, "picture")


def test_picture__holds_what_reports_need(house: House) -> None:
    house.made(BODY)
    spec = picture(house)
    assert (spec.key, spec.status, spec.started_at, spec.phases) == ("picture", "draft", None, ())
    assert (spec.target_sample_size, spec.significance_level, spec.analysis.method) == (500, 0.01, "fixed")
    assert spec.control is not None
    assert spec.control.name == "a"
    purchase, paid, error = spec.metrics
    assert spec.primary == purchase
    assert (purchase.type, purchase.role) == (MetricType.CONVERSION, Role.PRIMARY)
    assert (paid.type, paid.event_type, paid.prop) == (MetricType.REVENUE, "purchase", "price")
    assert (error.role, error.direction) == (Role.GUARDRAIL, Direction.DECREASE)
    assert spec.weights(0) == (0.5, 0.3, 0.2)
    with house.parts.database.reading() as tx, pytest.raises(NotFound):
        read_spec(tx, "nothing")


def test_phases__keep_what_was_dealt(house: House) -> None:
    made = house.made(BODY)
    base = "/api/v1/experiments/picture"
    ids = [variant["id"] for variant in made["variants"]]
    house.ask("POST", f"{base}/start")
    assert house.ask("PATCH", f"{base}/variants/{ids[1]}", {"enabled": False}).status_code == 200
    assert house.ask("PUT", f"{base}/overrides/tester", {"variant": ids[2]}).status_code in {200, 201}
    spec = picture(house)
    assert [phase.number for phase in spec.phases] == [1, 2]
    assert spec.weights(1) == (0.5, 0.3, 0.2)
    assert spec.weights(2) == pytest.approx((5 / 7, 0.0, 2 / 7))
    assert spec.weights(99) == spec.weights(2)
    assert spec.excluded_units == frozenset({"tester"})
    assert house.ask("DELETE", f"{base}/variants/{ids[2]}").status_code in {200, 204}
    spec = picture(house)
    assert [variant.removed for variant in spec.variants] == [False, False, True]
    assert spec.weights(3) == (1.0, 0.0, 0.0)


def test_neighbours__ran_at_the_same_time_on_the_same_unit(house: House) -> None:
    base = "/api/v1/experiments"
    for key, unit in (
        ("ended", "user_id"),
        ("picture", "user_id"),
        ("later", "user_id"),
        ("firm", "company"),
    ):
        house.made({**BODY, "key": key, "name": key, "unit": unit})
    assert picture(house).neighbours == ()
    for key in ("ended", "firm"):
        house.ask("POST", f"{base}/{key}/start")
    house.ask("POST", f"{base}/ended/stop")
    house.ask("POST", f"{base}/picture/start")
    assert picture(house).neighbours == ()
    house.ask("POST", f"{base}/later/start")
    [found] = picture(house).neighbours
    assert (found.key, [key for _, key in found.variants]) == ("later", ["a", "b", "c"])
    house.ask("POST", f"{base}/picture/stop")
    assert [each.key for each in picture(house).neighbours] == ["later"]
