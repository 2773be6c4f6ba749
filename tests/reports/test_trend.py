"""The effect over time: from one scan where that is enough, else from one for each point."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from assay.reports import trend as trends
from assay.reports.build import build
from assay.reports.question import Question, ask
from assay.reports.report import Point
from assay.reports.spec import (
    AnalysisSpec,
    ExperimentSpec,
    LookSpec,
    LookVerdict,
    MetricSpec,
    MetricType,
)
from assay.reports.views.canonical import timeseries
from assay.stats import boundaries
from contracts.event_store import DAY, HOUR, NOW
from reports.world import PURCHASE, SPEC, TIME, World, phase

REVENUE = MetricSpec("revenue", "revenue", MetricType.REVENUE, "purchase")


def points(world: World, spec: ExperimentSpec, question: Question, metric: MetricSpec) -> tuple[Point, ...]:
    return trends.trend(world.store, world.answer(spec, question), metric, question.grain or "day").points


def three_days(world: World) -> None:
    for days, units in ((3, 100), (2, 60)):
        for variant in (10, 11):
            world.units(variant, units, at=NOW - days * DAY, prefix=f"d{days}-")
    world.events(10, 10, at=NOW - 3 * DAY + HOUR, prefix="d3-", a=1.0)
    world.events(11, 20, at=NOW - 2 * DAY + HOUR, prefix="d3-", a=2.0)
    world.events(11, 30, at=NOW - HOUR, prefix="d3-", a=3.0)


@pytest.mark.parametrize("cumulative", [True, False])
@pytest.mark.parametrize("metric", [PURCHASE, REVENUE], ids=["share", "mean"])
def test_each_point__is_the_report_as_it_was_then(world: World, metric: MetricSpec, cumulative: bool) -> None:
    three_days(world)
    spec = replace(SPEC, metrics=(metric,))
    found = points(world, spec, Question(cumulative=cumulative), metric)
    assert [point.start.day for point in found] == [18, 19, 21]
    for point in found:
        question = Question(start=None if cumulative else point.start, end=point.end)
        then = build(world.store, spec, question, TIME).primary
        assert [arm.value for arm in point.arms] == [arm.value for arm in then.arms]
        assert [arm.interval for arm in point.arms] == [arm.interval for arm in then.arms]
        for one, other in zip(point.comparisons, then.comparisons, strict=True):
            assert one.effect.p_value == pytest.approx(other.effect.p_value)
            assert one.effect.estimate == pytest.approx(other.effect.estimate)
            assert one.effect.interval == pytest.approx(other.effect.interval)


def test_last_point__is_the_report_itself(world: World) -> None:
    three_days(world)
    last = points(world, SPEC, Question(), PURCHASE)[-1]
    assert last.end == TIME
    assert last.comparisons[0].effect == world.report().primary.comparisons[0].effect


def test_changed_split__is_stratified_at_every_point(world: World) -> None:
    spec = replace(SPEC, phases=(phase(1, 0.8, 0.2), phase(2, 0.5, 0.5)))
    for number, variant, units, converters in (
        (1, 10, 80, 8),
        (1, 11, 20, 2),
        (2, 10, 50, 25),
        (2, 11, 50, 25),
    ):
        world.units(variant, units, phase=number, at=NOW - (3 - number) * DAY, prefix=f"p{number}-")
        world.events(variant, converters, at=NOW - (3 - number) * DAY + HOUR, prefix=f"p{number}-")
    first, second = points(world, spec, Question(grain="day"), PURCHASE)
    assert first.comparisons[0].strata == 1
    assert second.comparisons[0].strata == 2
    assert second.comparisons[0].effect.estimate == pytest.approx(0.0)


def test_share__accumulates_events_and_amounts_with_its_converters(world: World) -> None:
    three_days(world)
    for cumulative in (True, False):
        found = [
            point.arms[1].tally for point in points(world, SPEC, Question(cumulative=cumulative), PURCHASE)
        ]
        counts = [(each.converters, each.events, each.total) for each in found]
        later = (50, 130.0) if cumulative else (30, 90.0)
        assert counts == [(0, 0, 0.0), (20, 20, 40.0), (30, *later)]


@pytest.mark.parametrize("kind", ["conversion", "count", "sum", "revenue", "mean"])
def test_long_series_of_steps__leave_none_out(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    three_days(world)
    # A changed split takes a scan for each point, too.
    spec = replace(SPEC, phases=(phase(0, 0.5, 0.5), phase(1, 0.4, 0.6)))
    metric = replace(REVENUE, type=MetricType(kind))
    question = Question(cumulative=False, grain="day")
    whole = world.answer(spec, question)
    scanned = trends.trend(world.store, whole, metric, "day")
    monkeypatch.setattr(trends, "MOST_POINTS", 2)
    summed = trends.trend(world.store, whole, metric, "day")
    assert (len(summed.points), summed.compared, scanned.compared) == (3, False, True)
    for one, other in zip(summed.points, scanned.points, strict=True):
        assert (one.start, one.end, one.comparisons) == (other.start, other.end, ())
        for arm, exact in zip(one.arms, other.arms, strict=True):
            assert (arm.units, arm.value) == (exact.units, pytest.approx(exact.value))
            assert (arm.tally.events, arm.tally.total) == (exact.tally.events, exact.tally.total)
            assert (arm.std_dev, arm.interval.interval) == (None, None)
    document = timeseries(whole, metric, summed)
    assert sum(point["variants"][1]["total"] for point in document["points"]) == 130.0
    assert document["thinned"] is None
    assert document["note"].startswith("A series this long holds sums alone")


def test_long_series_of_scans__are_thinned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "MOST_POINTS", 3)
    for hours in range(8):
        world.units(10, 2, at=NOW - hours * HOUR, prefix=f"h{hours}-")
        world.units(11, 2, at=NOW - hours * HOUR, prefix=f"h{hours}-")
    report = world.answer(SPEC, Question(grain="hour"))
    trend = trends.trend(world.store, report, REVENUE, "hour")
    assert timeseries(report, REVENUE, trend)["thinned"] == {"shown": 3, "of": 8}
    found = trend.points
    assert len(found) == 3
    assert found[-1].arms[0].units == 16
    assert len(points(world, SPEC, Question(grain="hour"), PURCHASE)) == 8


@pytest.mark.parametrize(
    ("grain", "start", "end"),
    [
        ("hour", "2026-09-21T14:00:00", "2026-09-21T14:13:20"),
        ("day", "2026-09-21T00:00:00", "2026-09-21T14:13:20"),
        ("week", "2026-09-21T00:00:00", "2026-09-21T14:13:20"),
        ("month", "2026-09-01T00:00:00", "2026-09-21T14:13:20"),
    ],
)
def test_grains__end_with_the_report(world: World, grain: str, start: str, end: str) -> None:
    world.units(10, 1, at=NOW)
    world.units(10, 1, at=NOW - 40 * DAY, prefix="old")
    first, last = points(world, SPEC, ask({"by": grain}, TIME), PURCHASE)
    assert last.start.isoformat().startswith(start)
    assert last.end.isoformat().startswith(end)
    assert first.end < last.start
    assert first.end.microsecond == 999_999


@pytest.mark.parametrize("cumulative", [True, False])
@pytest.mark.parametrize("metric", [PURCHASE, REVENUE], ids=["share", "mean"])
def test_window__leaves_out_what_ended_before_it(world: World, metric: MetricSpec, cumulative: bool) -> None:
    three_days(world)
    question = replace(ask({"start": "2026-09-19"}, TIME), cumulative=cumulative)
    assert [point.start.day for point in points(world, SPEC, question, metric)] == [19, 21]


PLANNED = replace(SPEC, target_sample_size=1000, analysis=AnalysisSpec("always_valid", correction="none"))


@pytest.mark.parametrize("metric", [PURCHASE, REVENUE], ids=["share", "mean"])
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("always_valid", "confidence_sequence"),
        ("bandit", "confidence_sequence"),
        ("group_sequential", "repeated_intervals"),
        ("bayesian", "credible"),
        ("fixed", "fixed_horizon"),
    ],
)
def test_band__is_the_interval_of_the_method_as_it_was_then(
    world: World, metric: MetricSpec, method: Any, kind: str
) -> None:
    three_days(world)
    # An always-valid test says nothing before each arm has had 25 events.
    world.events(10, 40, at=NOW - HOUR, prefix="d3-", a=1.0)
    spec = replace(PLANNED, metrics=(metric,), analysis=replace(PLANNED.analysis, method=method))
    report = world.answer(spec, Question())
    trend = trends.trend(world.store, report, metric, "day")
    for point in trend.points:
        then = build(world.store, spec, Question(end=point.end), TIME).primary.comparisons[0].judged
        judged = point.comparisons[0].judged
        assert judged is not None
        assert then is not None
        assert judged.numbers.interval == (then.numbers.interval and pytest.approx(then.numbers.interval))
        assert judged.numbers.chance_to_win == pytest.approx(then.numbers.chance_to_win)
    document = timeseries(report, metric, trend)
    assert (document["band"]["kind"], document["band"]["level"]) == (kind, 0.95)
    shown, [now] = document["points"][-1]["comparisons"][0], report.primary.comparisons
    assert now.judged is not None
    assert now.judged.numbers.interval is not None
    low, high = now.judged.numbers.interval
    assert shown["interval"] == {"low": pytest.approx(low), "high": pytest.approx(high)}


def test_band__goes_by_the_looks_that_were_made_until_then(world: World) -> None:
    three_days(world)
    verdict = LookVerdict("purchase", 11, 5.0, 4.0, True, 0.1, (0.01, 0.19), None)
    looks = (
        LookSpec(1, TIME - timedelta(days=1), 320, 0.32, ()),
        LookSpec(2, TIME - timedelta(hours=1), 320, 0.32, (verdict,)),
    )
    spec = replace(
        PLANNED, status="stopped", ended_at=TIME, looks=looks, analysis=AnalysisSpec("group_sequential")
    )
    report = world.answer(spec, Question())
    limits, called = [], []
    for point in trends.trend(world.store, report, PURCHASE, "day").points:
        judged = point.comparisons[0].judged
        assert judged is not None
        limits.append(judged.numbers.limit)
        called.append(judged.significant)
    # By units: 200 and 320 of 1,000 while it ran; at its end all that is left may be spent.
    assert called == [None, None, True]
    assert limits == [
        pytest.approx(boundaries((0.2,)).z[-1]),
        pytest.approx(boundaries((0.32,)).z[-1]),
        pytest.approx(boundaries((0.32,), final=True).z[-1]),
    ]


def test_band__of_stretches_by_themselves_or_of_a_segment_is_of_one_look(world: World) -> None:
    three_days(world)
    fixed = replace(PLANNED, analysis=replace(PLANNED.analysis, method="fixed"))
    asked = Question(cumulative=False)
    found = trends.trend(world.store, world.answer(PLANNED, asked), PURCHASE, "day")
    assert found.points == trends.trend(world.store, world.answer(fixed, asked), PURCHASE, "day").points
    assert found.band == "fixed_horizon"
    segment = world.answer(PLANNED, Question(segment="german"))
    assert trends.trend(world.store, segment, PURCHASE, "day").band == "fixed_horizon"


def test_band__without_a_plan_is_none_and_says_what_to_set(world: World) -> None:
    three_days(world)
    spec = replace(PLANNED, target_sample_size=None, analysis=AnalysisSpec("group_sequential"))
    report = world.answer(spec, Question())
    document = timeseries(report, PURCHASE, trends.trend(world.store, report, PURCHASE, "day"))
    assert document["points"][-1]["comparisons"][0]["interval"] is None
    assert document["points"][-1]["comparisons"][0]["difference"] == pytest.approx(0.125)
    assert "Set a target sample size." in document["band"]["sentence"]


def test_silent_metric__says_so(world: World) -> None:
    three_days(world)
    report = world.answer(SPEC, ask({"metric": "zz", "by": "day"}, TIME))
    metric = report.metrics[0].metric
    trend = trends.trend(world.store, report, metric, "day")
    assert timeseries(report, metric, trend)["reason"] == "no_events"


def test_nobody__gives_no_points(world: World) -> None:
    report = world.answer(SPEC, Question(grain="day"))
    assert timeseries(report, PURCHASE, trends.trend(world.store, report, PURCHASE, "day"))["points"] == []
