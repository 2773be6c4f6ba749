"""Metrics with filters, windows, caps, denominators and steps: values by hand, verdicts by the statistics."""

from dataclasses import replace
from typing import Any

import pytest

from assay.reports.report import Report
from assay.reports.spec import (
    CapSpec,
    FilterSpec,
    MetricSpec,
    MetricType,
    Role,
    SourceSpec,
)
from assay.stats import Count, Moments, Ratio, Reason, compare, two_proportions
from contracts.event_store import DAY, NOW
from reports.world import SPEC, World

HOUR = DAY // 24
UNITS = 40
GERMAN = (FilterSpec("country", "eq", ("de",)),)


def metric(kind: MetricType, event_type: str = "purchase", **more: Any) -> MetricSpec:
    return MetricSpec("m", "m", kind, event_type, role=Role.PRIMARY, **more)


@pytest.fixture
def filled(world: World) -> World:
    """40 units an arm, assigned a day ago: views of all, purchases of some in two countries."""
    for variant, buyers in ((10, 10), (11, 20)):
        world.units(variant, UNITS)
        world.events(variant, UNITS, "view", at=NOW - DAY + HOUR)
        world.events(variant, 30, "view", at=NOW - DAY + 2 * HOUR)
        bought = {"v": 10.0, "a": 10.0, "p": '{"country": "de", "items": 2}'}
        world.events(variant, buyers, at=NOW - DAY + 3 * HOUR, **bought)
        again = {"v": 100.0, "a": 100.0, "p": '{"country": "fr", "items": 5}'}
        world.events(variant, 5, at=NOW - DAY + 20 * HOUR, **again)
    return world


def shown(world: World, wanted: MetricSpec) -> tuple[Report, list[float | None]]:
    report = world.report(replace(SPEC, metrics=(wanted,)))
    return report, [arm.value for arm in report.primary.arms]


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        (metric(MetricType.CONVERSION, where=GERMAN), [10 / 40, 20 / 40]),
        (metric(MetricType.CONVERSION, opens=4 * HOUR), [5 / 40, 5 / 40]),
        (metric(MetricType.REVENUE, closes=4 * HOUR), [100 / 40, 200 / 40]),
        (metric(MetricType.REVENUE), [600 / 40, 700 / 40]),
        (metric(MetricType.REVENUE, cap=CapSpec(50.0)), [(5 * 50 + 5 * 10) / 40, (5 * 50 + 15 * 10) / 40]),
        (metric(MetricType.SUM, prop="items", where=GERMAN), [20 / 40, 40 / 40]),
        (metric(MetricType.MEAN, where=GERMAN), [10.0, 10.0]),
        (metric(MetricType.COUNT, "view", closes=int(1.5 * HOUR)), [1.0, 1.0]),
        (metric(MetricType.COUNT, "view", cap=CapSpec(1.0)), [1.0, 1.0]),
        (metric(MetricType.RATIO, fold="count", denominator=SourceSpec("view")), [15 / 70, 25 / 70]),
        (
            metric(
                MetricType.RATIO, fold="sum", denominator=SourceSpec("purchase", fold="sum", prop="items")
            ),
            [600 / 45, 700 / 65],
        ),
        (metric(MetricType.RETENTION, opens=10 * HOUR, closes=DAY), [5 / 40, 5 / 40]),
        (metric(MetricType.THRESHOLD, fold="sum", at_least=110.0), [5 / 40, 5 / 40]),
        (metric(MetricType.THRESHOLD, "view", fold="count", at_least=2.0), [30 / 40, 30 / 40]),
        (
            metric(MetricType.FUNNEL, steps=(SourceSpec("view"), SourceSpec("purchase", GERMAN))),
            [10 / 40, 20 / 40],
        ),
        (metric(MetricType.FUNNEL, steps=(SourceSpec("purchase"), SourceSpec("view"))), [0.0, 0.0]),
    ],
    ids=lambda value: f"{value.type}" if isinstance(value, MetricSpec) else "",
)
def test_values_are_those_counted_by_hand(filled: World, wanted: MetricSpec, values: list[float]) -> None:
    assert shown(filled, wanted)[1] == pytest.approx(values, rel=1e-12)


def test_a_share_is_tested_as_a_share(filled: World) -> None:
    report, _ = shown(filled, metric(MetricType.CONVERSION, where=GERMAN))
    expected = two_proportions(Count(40, 10), Count(40, 20), alpha=0.05)
    (comparison,) = report.primary.comparisons
    assert comparison.effect.p_value == pytest.approx(expected.p_value, rel=1e-12)
    assert comparison.effect.estimate == pytest.approx(0.25)


def test_a_ratio_is_tested_by_the_delta_method(filled: World) -> None:
    report, _ = shown(filled, metric(MetricType.RATIO, fold="count", denominator=SourceSpec("view")))

    def arm(buyers: int) -> Moments:
        bought = [(1 if unit < buyers else 0) + (1 if unit < 5 else 0) for unit in range(UNITS)]
        viewed = [1 + (1 if unit < 30 else 0) for unit in range(UNITS)]
        return Moments.from_arrays({"bought": bought, "viewed": viewed})

    expected = compare(arm(10), arm(20), Ratio("bought", "viewed"), alpha=0.05)
    (comparison,) = report.primary.comparisons
    assert comparison.effect.estimate == pytest.approx(expected.estimate, rel=1e-9)
    assert comparison.effect.p_value == pytest.approx(expected.p_value, rel=1e-9)


def test_a_cap_by_percentile_is_of_all_arms_together(filled: World) -> None:
    # Of 30 buyers, 20 spent 10 and ten spent 110: half of them are at 10, nine tenths at 110.
    low = metric(MetricType.REVENUE, cap=CapSpec(0.5, is_quantile=True))
    assert shown(filled, low)[1] == pytest.approx([10 * 10 / 40, 20 * 10 / 40])
    high = metric(MetricType.REVENUE, cap=CapSpec(0.9, is_quantile=True))
    assert shown(filled, high)[1] == pytest.approx([600 / 40, 700 / 40])


def test_complete_windows_leave_out_who_came_too_late(filled: World) -> None:
    filled.units(10, 7, at=NOW - HOUR, prefix="late")
    wanted = metric(MetricType.RETENTION, opens=10 * HOUR, closes=23 * HOUR, complete_only=True)
    report, values = shown(filled, wanted)
    assert [arm.units for arm in report.primary.arms] == [40, 40]
    assert values == [5 / 40, 5 / 40]
    assert report.total_units == 87


def test_several_metrics_come_together(filled: World) -> None:
    plain = replace(metric(MetricType.CONVERSION), key="plain")
    narrowed = replace(metric(MetricType.CONVERSION, where=GERMAN), key="german", role=Role.SECONDARY)
    ratio = replace(
        metric(MetricType.RATIO, fold="count", denominator=SourceSpec("view")),
        key="ratio",
        role=Role.SECONDARY,
    )
    every = (plain, narrowed, ratio)
    report = filled.report(replace(SPEC, metrics=every))
    assert [[arm.value for arm in each.arms] for each in report.metrics] == [
        [10 / 40, 20 / 40],
        [10 / 40, 20 / 40],
        [15 / 70, 25 / 70],
    ]


def test_a_quantile_decides_like_any_other_metric(filled: World) -> None:
    wanted = metric(MetricType.QUANTILE, "view", quantile=0.5, zeros=True)
    report, values = shown(filled, wanted)
    assert values == [0.0, 0.0]
    [found] = report.primary.comparisons
    assert (found.effect.p_value, found.effect.reason) == (None, Reason.QUANTILE_TIES)
    assert Reason.QUANTILE_TIES.sentence in report.decision.sentence
