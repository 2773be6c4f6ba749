"""Reports by value, on a real store filled with cases that can be counted by hand."""

import math
from dataclasses import replace
from datetime import timedelta

import duckdb
import numpy as np
import pytest

from assay.reports.report import ConversionSource, Health, Verdict, Why
from assay.reports.spec import Direction, MetricSpec, MetricType, Role
from assay.reports.views.common import conventional
from contracts.event_store import DAY, HOUR, NOW, SECOND, event
from reports.world import PURCHASE, SPEC, START, THREE, TIME, World, phase

REVENUE = MetricSpec("revenue", "revenue", MetricType.REVENUE, "purchase")
COUNT = MetricSpec("orders", "orders", MetricType.COUNT, "purchase")
MEAN = MetricSpec("basket", "basket", MetricType.MEAN, "purchase")


def test_conversion__is_users_with_an_event_over_users_assigned(world: World) -> None:
    world.units(10, 200)
    world.units(11, 200)
    world.events(10, 20, a=5.0)
    world.events(11, 40, a=5.0)
    world.events(11, 10, a=1.0)  # a second event of the same users
    report = world.report()
    control, blue = report.primary.arms
    assert (control.units, control.tally.converters, control.value) == (200, 20, 0.1)
    assert (blue.units, blue.tally.converters, blue.tally.events, blue.value) == (200, 40, 50, 0.2)
    assert blue.tally.total == 210.0
    assert blue.std_dev == pytest.approx(math.sqrt(0.16 * 200 / 199))
    assert blue.interval.method == "wilson"
    [found] = report.primary.comparisons
    assert found.effect.estimate == pytest.approx(0.1)
    assert found.effect.lift.value == pytest.approx(1.0)
    # Pooled rate 60/400: z = 0.1 / sqrt(0.15 * 0.85 * 2 / 200).
    assert found.effect.statistic == pytest.approx(0.1 / math.sqrt(0.15 * 0.85 / 100))
    assert found.effect.p_value == pytest.approx(math.erfc(0.1 / math.sqrt(0.15 * 0.85 / 100) / math.sqrt(2)))
    assert found.significant
    assert found.improves(Direction.INCREASE)
    assert report.decision.verdict is Verdict.SHIP
    assert report.conversion_source is ConversionSource.PRIMARY_METRIC


def test_each_type__has_its_own_value(world: World) -> None:
    world.units(10, 3)
    world.units(11, 4)
    # Control: 2 + 4, nothing, 6. Blue: 1, 3 + 5, nothing, nothing.
    for unit, amount in (("u10-0", 2.0), ("u10-0", 4.0), ("u10-2", 6.0)):
        world.feed.events(event(unit, a=amount))
    for unit, amount in (("u11-0", 1.0), ("u11-1", 3.0), ("u11-1", 5.0)):
        world.feed.events(event(unit, a=amount))
    report = world.report(replace(SPEC, metrics=(REVENUE, COUNT, MEAN)))
    revenue, count, mean = report.metrics
    assert [arm.value for arm in revenue.arms] == [4.0, 2.25]
    assert [arm.value for arm in count.arms] == [1.0, 0.75]
    assert [arm.value for arm in mean.arms] == [4.0, 3.0]
    a, b = np.array([6.0, 0.0, 6.0]), np.array([1.0, 8.0, 0.0, 0.0])
    [found] = revenue.comparisons
    error = math.sqrt(a.var(ddof=1) / 3 + b.var(ddof=1) / 4)
    assert found.effect.estimate == pytest.approx(-1.75)
    assert found.effect.standard_error == pytest.approx(error)
    assert [arm.std_dev for arm in revenue.arms] == pytest.approx([a.std(ddof=1), b.std(ddof=1)])
    # The ratio's delta-method variance, from the influence of each unit.
    events = np.array([2.0, 0.0, 1.0])
    influence = (a - 4.0 * events) / events.mean()
    assert mean.arms[0].interval.standard_error == pytest.approx(influence.std(ddof=1) / math.sqrt(3))


def test_published_trial__comes_out(world: World) -> None:
    data = pytest.importorskip("causaldata").nsw_mixtape.load_pandas().data
    for variant, treat in ((10, 0), (11, 1)):
        earned = data.loc[data["treat"] == treat, "re78"].tolist()
        world.units(variant, len(earned))
        world.feed.events(*(event(f"u{variant}-{n}", "earnings", a=float(x)) for n, x in enumerate(earned)))
    earnings = MetricSpec("earnings", "earnings", MetricType.SUM, "earnings", role=Role.PRIMARY)
    report = world.report(replace(SPEC, metrics=(earnings,)))
    assert [arm.units for arm in report.primary.arms] == [260, 185]
    [found] = report.primary.comparisons
    assert found.effect.estimate == pytest.approx(1794.34, abs=0.005)
    assert found.effect.standard_error == pytest.approx(670.997, abs=0.0005)
    assert found.effect.p_value == pytest.approx(0.00789, abs=0.000005)


def test_random_case__equals_a_direct_computation(world: World) -> None:
    rng = np.random.default_rng(20261121)
    units = {variant: int(rng.integers(150, 250)) for variant in (10, 11)}
    rows: list[tuple[str, int, str, float | None, int]] = []
    for variant, count in units.items():
        world.units(variant, count)
        for number in range(count):
            for _ in range(int(rng.poisson(1.5))):
                kind = str(rng.choice(["purchase", "click"]))
                amount = float(rng.lognormal(2.0, 1.0)) if rng.random() < 0.8 else None
                at = NOW - DAY + int(rng.integers(-6, 24)) * HOUR
                rows.append((f"u{variant}-{number}", variant, kind, amount, at))
    world.feed.events(*(event(unit, kind, at, a=amount) for unit, _, kind, amount, at in rows))
    metrics = (PURCHASE, REVENUE, COUNT, MEAN)
    report = world.report(replace(SPEC, metrics=metrics))
    with duckdb.connect() as engine:
        engine.execute("CREATE TABLE e (unit TEXT, variant INT, kind TEXT, amount DOUBLE, happened BIGINT)")
        engine.executemany("INSERT INTO e VALUES (?, ?, ?, ?, ?)", rows)
        engine.execute(
            "CREATE TABLE a AS SELECT 'u' || v || '-' || i AS unit, v"
            " FROM (VALUES (10), (11)) t(v), range(300) r(i)"
        )
        engine.execute(
            "DELETE FROM a WHERE substr(unit, 5)::INT >= CASE v WHEN 10 THEN ? ELSE ? END",
            [units[10], units[11]],
        )
        found = engine.execute(
            """SELECT v, count(*), count(n), sum(n), sum(t), stddev_samp(coalesce(t, 0)),
                      covar_samp(coalesce(t, 0), coalesce(n, 0)), var_samp(coalesce(n, 0))
               FROM a LEFT JOIN (SELECT unit, count(*) n, coalesce(sum(amount), 0) t FROM e
                                 WHERE kind = 'purchase' AND happened >= ? GROUP BY unit) USING (unit)
               GROUP BY v ORDER BY v""",
            [NOW - DAY],
        ).fetchall()
    conversion, revenue, count, mean = report.metrics
    for place, (_, n, converters, events, total, spread, both, var) in enumerate(found):
        assert conversion.arms[place].tally.converters == converters
        assert conversion.arms[place].value == converters / n
        assert count.arms[place].value == pytest.approx(events / n, rel=1e-12)
        assert revenue.arms[place].tally.total == pytest.approx(total, rel=1e-12)
        assert revenue.arms[place].std_dev == pytest.approx(spread, rel=1e-9)
        ratio = total / events
        variance = (spread**2 - 2 * ratio * both + ratio**2 * var) / n / (events / n) ** 2
        assert mean.arms[place].interval.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)
    (_, n, x, *_), (_, m, y, *_) = found
    pooled = (x + y) / (n + m)
    z = (y / m - x / n) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    assert conversion.comparisons[0].effect.statistic == pytest.approx(z)


def test_before_assignment_and_after_the_end__nothing_counts(world: World) -> None:
    world.units(10, 2)
    world.units(11, 2)
    world.events(10, 2, at=NOW - DAY - SECOND)  # before
    world.events(11, 1, at=NOW + HOUR)  # after the end
    world.events(11, 2, at=NOW)
    report = world.report(replace(SPEC, status="stopped", ended_at=TIME))
    assert [arm.tally.converters for arm in report.primary.arms] == [0, 2]
    assert [arm.tally.events for arm in report.primary.arms] == [0, 2]
    assert report.end == TIME


def test_coarse_times__lose_no_conversion(world: World) -> None:
    at = NOW - DAY + 500_000
    world.units(10, 1, at=at)
    world.units(11, 1, at=at)
    begin = NOW - DAY
    world.feed.events(event("u10-0", at=begin, c=begin + SECOND - 1), event("u11-0", at=begin))
    assert [arm.tally.converters for arm in world.report().primary.arms] == [1, 0]


def test_window__narrows_events_at_its_start_and_units_at_its_end(world: World) -> None:
    world.units(10, 2, at=NOW - 3 * DAY)
    world.units(11, 2, at=NOW - 3 * DAY)
    world.units(11, 1, at=NOW - HOUR, prefix="late")
    world.events(10, 2, at=NOW - 2 * DAY)
    world.events(11, 1, at=NOW - 2 * DAY)
    world.events(11, 2, at=NOW)
    day = (TIME - timedelta(days=1)).date().isoformat()
    later, earlier = world.report(start_date=day), world.report(end_date=day)
    assert [arm.tally.converters for arm in later.primary.arms] == [0, 2]
    assert [arm.units for arm in later.primary.arms] == [2, 3]
    assert [arm.tally.converters for arm in earlier.primary.arms] == [2, 1]
    assert [arm.units for arm in earlier.primary.arms] == [2, 2]
    assert "part of the experiment" in later.decision.text
    assert [arm.tally.events for arm in world.report(last_day="1").primary.arms] == [0, 2]


@pytest.mark.parametrize("metric", [PURCHASE, REVENUE, COUNT, MEAN])
def test_nothing__is_said_where_nothing_can_be(world: World, metric: MetricSpec) -> None:
    spec = replace(SPEC, metrics=(metric,))

    def reason() -> str:
        [found] = world.report(spec).primary.comparisons
        assert found.effect.p_value is None
        assert found.effect.interval is None or found.effect.estimate is not None
        assert not found.significant
        return str(found.effect.reason)

    assert reason() == "no_data"
    world.units(10, 1)
    assert reason() == "insufficient_data"
    world.units(11, 1)
    world.events(11, 1, a=3.0)
    assert reason() == "insufficient_data"
    world.units(10, 3, prefix="more")
    assert reason() == "insufficient_data"
    world.units(11, 3, prefix="more")
    if metric.type is MetricType.MEAN:
        assert reason() == "denominator_zero"


def test_zero_conversions__have_a_reason_and_then_a_decision(world: World) -> None:
    world.units(10, 500)
    world.units(11, 500)
    report = world.report()
    [found] = report.primary.comparisons
    assert (str(found.effect.reason), found.effect.p_value) == ("zero_variance", None)
    assert report.decision.verdict is Verdict.KEEP_RUNNING
    assert {check.name: check.health for check in report.checks}["events_arrive"] is Health.WARNING
    world.events(11, 30)
    report = world.report()
    [found] = report.primary.comparisons
    assert found.effect.p_value is not None
    assert found.effect.p_value < 1e-6
    assert str(found.effect.lift.reason) == "baseline_zero"
    assert report.decision.verdict is Verdict.SHIP
    said = conventional(found, 0.05, 0.05)
    assert (said.interval_method, said.lift) == ("newcombe", None)


def test_one_arm__has_no_comparison(world: World) -> None:
    world.units(10, 5)
    alone = replace(SPEC, variants=SPEC.variants[:1], phases=(phase(0, 1.0),))
    report = world.report(alone)
    assert report.missing is Why.NO_TREATMENT
    assert report.primary.comparisons == ()
    assert report.sample_ratio is None
    assert report.decision.sentence == Why.NO_TREATMENT.sentence


def test_three_variants__are_each_compared_with_the_control_at_a_shared_level(world: World) -> None:
    for variant, units, converters in ((10, 400, 40), (11, 300, 30), (12, 300, 60)):
        world.units(variant, units)
        world.events(variant, converters)
    report = world.report(THREE)
    assert [found.treatment.key for found in report.primary.comparisons] == ["blue", "green"]
    assert [found.significant for found in report.primary.comparisons] == [False, True]
    assert report.decision.alpha == 0.025
    assert report.decision.winner is not None
    assert report.decision.winner.key == "green"
    assert report.sample_ratio is not None
    assert (report.sample_ratio.statistic, report.sample_ratio.df) == (0.0, 2)


def test_disabled_and_removed_variants__stay_while_somebody_has_them(world: World) -> None:
    for variant in (10, 11, 12):
        world.units(variant, 5)
    off = replace(THREE.variants[1], enabled=False)
    gone = replace(THREE.variants[2], removed=True)
    spec = replace(THREE, variants=(THREE.variants[0], off, gone))
    assert [variant.key for variant in world.report(spec).variants] == ["control", "blue", "green"]
    nobody = replace(gone, id=99, key="red")
    spec = replace(spec, variants=(*spec.variants, nobody))
    assert [variant.key for variant in world.report(spec).variants] == ["control", "blue", "green"]


def test_overridden_units__are_left_out(world: World) -> None:
    world.units(10, 3)
    world.units(11, 3)
    world.events(11, 3)
    report = world.report(replace(SPEC, excluded_units=frozenset({"u11-0", "u10-2", "stranger"})))
    assert [(arm.units, arm.tally.converters) for arm in report.primary.arms] == [(2, 0), (2, 2)]


def test_variant_filter__shows_one_and_compares_it(world: World) -> None:
    for variant in (10, 11, 12):
        world.units(variant, 10)
    for asked in ("12", "green"):
        report = world.report(THREE, variant_id=asked)
        assert [variant.id for variant in report.variants] == [12]
        assert [found.treatment.id for found in report.primary.comparisons] == [12]
        assert report.total_units == 10
    assert world.report(THREE, variant_id="10").missing is Why.NO_TREATMENT
    nothing = world.report(THREE, variant_id="13")
    assert nothing.missing is Why.NO_SUCH_VARIANT
    assert nothing.total_units == 0


def test_conversion__is_what_was_named_else_what_the_experiment_says(world: World) -> None:
    world.units(10, 10)
    world.events(10, 3, "purchase")
    world.events(10, 5, "click")
    metrics = (replace(REVENUE, role=Role.PRIMARY),)
    paid = replace(SPEC, metrics=metrics)
    first = replace(SPEC, metrics=(replace(PURCHASE, role=Role.SECONDARY),))
    for spec, asked, source, event_type, converters in (
        (paid, {"primary_event_type": "click", "event_type": "purchase"}, "primary_event_type", "click", 5),
        (paid, {"event_type": "click"}, "event_type", "click", 5),
        (paid, {}, "primary_metric", "purchase", 3),
        (first, {}, "first_metric", "purchase", 3),
    ):
        report = world.report(spec, **asked)
        assert str(report.conversion_source) == source
        assert report.conversion.metric.event_type == event_type
        assert report.conversion.arms[0].tally.converters == converters
    bare = world.report(replace(SPEC, metrics=()))
    assert str(bare.conversion_source) == "any_event"
    assert bare.conversion.metric.event_type is None


def test_any_event__counts_each_unit_once(world: World) -> None:
    world.units(10, 10)
    world.units(11, 10)
    world.events(10, 3, "purchase", a=1.0)
    world.events(10, 5, "click")
    world.events(11, 2, "click")
    report = world.report(replace(SPEC, metrics=()), group_by="day")
    control, blue = report.conversion.arms
    assert (control.tally.converters, control.tally.events, control.tally.total) == (5, 8, 3.0)
    assert (blue.tally.converters, blue.tally.events) == (2, 2)
    assert report.activity is not None
    assert report.activity.arms == report.conversion.arms
    assert [(point.events, point.converters) for point in report.series if point.events] == [(8, 5), (2, 2)]
    assert world.report().activity.arms[0].tally.converters == 5  # type: ignore[union-attr]


def test_metrics_asked_for__may_be_declared_or_an_event_type(world: World) -> None:
    world.units(10, 4)
    world.events(10, 2, "click")
    spec = replace(SPEC, metrics=(PURCHASE, REVENUE))
    report = world.report(spec, metrics="revenue,click")
    assert [each.metric.key for each in report.metrics] == ["revenue", "click"]
    assert report.metrics[1].metric.role is Role.AD_HOC
    assert report.metrics[1].arms[0].value == 0.5
    assert report.primary.metric.key == "purchase"
    assert report.decision.metric == PURCHASE


def test_levels__come_from_the_question_else_the_experiment(world: World) -> None:
    strict = replace(SPEC, significance_level=0.01)
    assert world.report(strict).alpha == 0.01
    assert world.report(strict, confidence_level=0.9).alpha == pytest.approx(0.1)
    assert world.report(strict, confidence_level=0.9, significance_threshold=0.2).alpha == 0.2


def test_huge_amounts__stay_finite(world: World) -> None:
    world.units(10, 3)
    world.units(11, 3)
    world.events(10, 2, a=1e100)
    world.events(11, 1, a=-1e100)
    world.events(11, 3, a=0.5)
    report = world.report(replace(SPEC, metrics=(REVENUE, MEAN)))
    for metric in report.metrics:
        for found in metric.comparisons:
            numbers = (found.effect.estimate, found.effect.standard_error, found.effect.p_value)
            assert all(value is not None and math.isfinite(value) for value in numbers)


def test_unstarted__has_a_report_too(world: World) -> None:
    draft = replace(SPEC, status="draft", started_at=None, phases=())
    report = world.report(draft)
    assert report.decision.verdict is Verdict.NOT_STARTED
    assert report.end == TIME
    assert START < TIME
