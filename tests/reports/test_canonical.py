"""The complete report: every number can be made again from what is in it, and what is odd is said in it."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from assay.reports.spec import (
    DeviationSpec,
    ExperimentSpec,
    LookSpec,
    LookVerdict,
    MetricSpec,
    MetricType,
    Role,
    SourceSpec,
)
from assay.reports.views.canonical import canonical
from contracts.event_store import DAY, NOW, event
from reports.world import PURCHASE, SPEC, TIME, World, phase

SPENT = MetricSpec("spent", "spent", MetricType.REVENUE, "purchase", role=Role.PRIMARY, lookback=4 * DAY)


def document(world: World, spec: ExperimentSpec, **more: Any) -> dict[str, Any]:
    """As it goes over the wire: without NaN, and with nothing that JSON cannot hold."""
    found: dict[str, Any] = json.loads(json.dumps(canonical(world.report(spec, **more)), allow_nan=False))
    return found


def test_adjusted_difference_in_a_ramp__is_made_again_from_the_document(world: World) -> None:
    rng = np.random.default_rng(5)
    for number, sizes in ((1, (90, 30)), (2, (60, 60))):
        for arm, size in zip((10, 11), sizes, strict=True):
            prefix = f"p{number}-"
            world.units(arm, size, phase=number, at=NOW - 3 * DAY, prefix=prefix)
            for at, most in ((NOW - 4 * DAY, size), (NOW - 6 * DAY, size // 2), (NOW - DAY, size)):
                amounts = [float(nth % 7 + rng.integers(1, 9)) for nth in range(most)]
                world.feed.events(
                    *(
                        event(f"{prefix}{arm}-{nth}", at=at, v=amount, a=amount)
                        for nth, amount in enumerate(amounts)
                    )
                )
    spec = replace(SPEC, metrics=(SPENT,), phases=(phase(1, 0.75, 0.25), phase(2, 0.5, 0.5)))
    found = document(world, spec)
    [metric] = found["metrics"]
    [comparison] = metric["comparisons"]
    cells = {(row["variant_id"], row["phase"]): row for row in metric["statistics"]}
    names = metric["statistics"][0]["columns"]
    y, past = names.index("total"), [names.index(name) for name in comparison["covariates"]]
    matrix = {key: np.array(row["covariance"]) for key, row in cells.items()}
    within = sum(matrix[key] * (row["units"] - 1) for key, row in cells.items())
    assert isinstance(within, np.ndarray)
    theta = np.linalg.lstsq(within[np.ix_(past, past)], within[past, y], rcond=None)[0]
    total = sum(row["units"] for row in cells.values())
    along = np.zeros(len(names))
    along[y], along[past] = 1.0, -theta
    difference, variance = 0.0, 0.0
    for number in (1, 2):
        pair = [cells[arm, number] for arm in (10, 11)]
        weight = sum(row["units"] for row in pair) / total
        difference += weight * float(along @ (np.array(pair[1]["means"]) - np.array(pair[0]["means"])))
        for row in pair:
            variance += weight**2 * float(along @ np.array(row["covariance"]) @ along) / row["units"]
    assert comparison["strata"] == 2
    assert comparison["difference"] == pytest.approx(difference, rel=1e-9)
    assert comparison["standard_error"] == pytest.approx(np.sqrt(variance), rel=1e-9)
    p = 2 * reference.t.sf(abs(comparison["statistic"]), comparison["df"])
    assert comparison["p_value"] == pytest.approx(p, rel=1e-9)
    reach = reference.t.ppf(1 - comparison["significance_level"] / 2, comparison["df"])
    assert comparison["interval"]["high"] == pytest.approx(difference + reach * np.sqrt(variance), rel=1e-9)
    unadjusted = comparison["unadjusted"]
    assert comparison["variance_reduction"] == pytest.approx(1 - variance / unadjusted["standard_error"] ** 2)


@pytest.mark.parametrize(
    ("metric", "reason", "code"),
    [
        (MetricSpec("m", "m", MetricType.SUM, "purchase", "nope"), "zero_variance", "unknown_property"),
        (MetricSpec("m", "m", MetricType.SUM, "purchase", "colour"), "zero_variance", "unreadable_values"),
        (
            MetricSpec("m", "m", MetricType.RATIO, "purchase", denominator=SourceSpec("never")),
            "denominator_zero",
            "denominator_zero",
        ),
        (
            MetricSpec(
                "m", "m", MetricType.RETENTION, "purchase", opens=DAY, closes=300 * DAY, complete_only=True
            ),
            "no_data",
            "window_not_over",
        ),
        (MetricSpec("m", "m", MetricType.QUANTILE, "purchase", "one", quantile=0.5), "quantile_ties", None),
        (MetricSpec("m", "m", MetricType.QUANTILE, "never", quantile=0.5), "no_data", None),
        (MetricSpec("m", "m", MetricType.QUANTILE, "purchase", quantile=0.99), "quantile_too_extreme", None),
        (MetricSpec("m", "m", MetricType.REVENUE, "never", lookback=DAY), "no_events", None),
    ],
    ids=lambda value: f"{value.type} {value.prop}" if isinstance(value, MetricSpec) else "",
)
def test_odd_metric__has_a_reason_and_what_to_do_and_hides_no_other(
    world: World, metric: MetricSpec, reason: str, code: str | None
) -> None:
    for arm in (10, 11):
        world.units(arm, 60)
        world.events(arm, 50, a=2.0, p='{"colour": "red", "one": 1}')
    found = document(world, replace(SPEC, metrics=(PURCHASE, metric)))
    good, odd = found["metrics"]
    assert good["variants"][0]["value"] == pytest.approx(50 / 60)
    [comparison] = odd["comparisons"]
    assert (comparison["p_value"], comparison["reason"]) == (None, reason)
    assert comparison["sentence"].endswith(".")
    assert comparison["what_to_do"].endswith(".")
    assert [note["code"] for note in odd["notes"]] == ([] if code is None else [code])
    assert all(note["sentence"].endswith(".") and note["what_to_do"] for note in odd["notes"])


def test_statements__are_there_on_request_alone(world: World) -> None:
    world.units(10, 5)
    world.units(11, 5)
    spec = replace(SPEC, metrics=(SPENT,), excluded_units=frozenset({"u10-1"}))
    assert "sql" not in document(world, spec)
    statements = document(world, spec, sql="true")["sql"]
    scanned = next(each for each in statements if "covar_samp" in each["text"])
    assert "FROM events" in scanned["text"]
    assert scanned["parameters"]["experiment_id"] == 1
    assert ["u10-1"] in scanned["parameters"].values()
    # Nothing is kept for whoever asks next.
    with world.store.recorded() as fresh:
        assert fresh == []


def test_plan_looks_and_versions__are_in_the_report(world: World) -> None:
    world.units(10, 5)
    change = DeviationSpec("metrics.late", "added", None, {"key": "late"}, "2026-09-02T00:00:00Z", "ann")
    verdict = LookVerdict("spent", 11, 1.0, 2.8, False, 0.5, (None, 1.0), None)
    spec = replace(
        SPEC,
        metrics=(replace(SPENT, definition="revenue", definition_version=3),),
        plan_hash="abc",
        deviations=(change,),
        looks=(LookSpec(1, TIME, 5, 0.5, (verdict,)),),
    )
    found = document(world, spec)
    assert (found["plan"]["hash"], found["plan"]["deviations"][0]["field"]) == ("abc", "metrics.late")
    definition = found["metrics"][0]["definition"]
    assert (definition["name"], definition["version"], definition["lookback"]) == ("revenue", 3, 4 * 86_400.0)
    [look] = found["looks"]
    assert look["verdicts"][0]["interval"] == {"low": None, "high": 1.0}
    assert datetime.fromisoformat(look["at"]) == TIME
    assert found["decision"]["rules"]
