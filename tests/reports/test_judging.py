"""The experiment's own verdicts: methods, families, margins and looks, against scipy and statsmodels."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from assay.eventstore.base import Position
from assay.reports.arms import BEFORE_AMOUNT, COLUMNS, ByPhase, Tally
from assay.reports.compare import compare_arms, contrasts
from assay.reports.judging import information, look_verdicts, next_look
from assay.reports.report import Comparison, Judgement, MetricReport, NextLook, Report, Verdict
from assay.reports.spec import (
    AnalysisSpec,
    Direction,
    ExperimentSpec,
    LookSpec,
    LookVerdict,
    MarginSpec,
    MetricSpec,
    MetricType,
    Role,
)
from assay.reports.views.canonical import canonical
from assay.stats import Moments, boundaries, infer
from contracts.event_store import DAY, NOW, event
from reports.world import BLUE, CONTROL, PURCHASE, SPEC, THREE, TIME, World, phase

ERRORS = MetricSpec(
    "errors", "errors", MetricType.CONVERSION, "error", None, Direction.DECREASE, Role.GUARDRAIL
)


def share(key: str, role: Role = Role.SECONDARY, **more: Any) -> MetricSpec:
    return MetricSpec(key, key, MetricType.CONVERSION, key, role=role, **more)


def planned(spec: ExperimentSpec = SPEC, **analysis: Any) -> ExperimentSpec:
    return replace(spec, analysis=AnalysisSpec(**analysis))


def fill(world: World, *arms: tuple[int, int, dict[str, int]]) -> None:
    for variant, units, counts in arms:
        world.units(variant, units, at=NOW - 10 * DAY)
        for kind, count in counts.items():
            world.events(variant, count, kind)


def own(report: Report, key: str = "purchase", treatment: int = 11) -> Judgement:
    [of] = [each for each in report.metrics if each.metric.key == key]
    found = of.comparison(treatment)
    assert found is not None
    assert found.judged is not None
    return found.judged


def pooled_p(units: int, low: int, high: int) -> float:
    share = (low + high) / (2 * units)
    z = (high - low) / units / np.sqrt(share * (1 - share) * 2 / units)
    return float(2 * reference.norm.sf(abs(z)))


def test_family__is_the_plan_and_nothing_else(world: World) -> None:
    metrics = (
        PURCHASE,
        share("click"),
        share("late", registered=False),
        share("odd", Role.EXPLORATORY),
        ERRORS,
    )
    counts = {"purchase": 100, "click": 300, "late": 100, "odd": 100, "error": 50}
    more = {"purchase": 135, "click": 341, "late": 135, "odd": 135, "error": 52}
    fill(world, (10, 1000, counts), (11, 1000, more))
    report = world.report(planned(replace(SPEC, metrics=metrics)))
    p = [pooled_p(1000, 100, 135), pooled_p(1000, 300, 341)]
    adjusted = multipletests(p, method="holm")[1]
    for key, expected in zip(("purchase", "click"), adjusted, strict=True):
        found = own(report, key)
        assert (found.members, found.adjusted_p_value) == (2, pytest.approx(expected, rel=1e-6))
        assert found.numbers.alpha == pytest.approx(0.025)
        # The interval and the verdict agree.
        assert found.numbers.interval is not None
        assert found.significant == (
            found.numbers.interval.low is not None and found.numbers.interval.low >= 0
        )
    for key in ("late", "odd", "errors"):
        found = own(report, key)
        assert (found.members, found.adjusted_p_value, found.numbers.alpha) == (1, None, 0.05)
    assert own(report, "late").numbers.p_value == pytest.approx(p[0], rel=1e-6)
    labels = {each["key"]: each["exploratory"] for each in canonical(report)["metrics"]}
    assert labels == {"purchase": False, "click": False, "late": True, "odd": True, "errors": False}


@pytest.mark.parametrize(
    ("correction", "name"),
    [
        ("bonferroni", "bonferroni"),
        ("sidak", "sidak"),
        ("hochberg", "simes-hochberg"),
        ("hommel", "hommel"),
        ("benjamini_hochberg", "fdr_bh"),
        ("benjamini_yekutieli", "fdr_by"),
    ],
)
def test_corrections__agree_with_statsmodels(world: World, correction: Any, name: str) -> None:
    metrics = (PURCHASE, share("click"), share("view"))
    fill(
        world,
        (10, 1000, {"purchase": 100, "click": 300, "view": 500}),
        (11, 1000, {"purchase": 135, "click": 341, "view": 520}),
    )
    report = world.report(planned(replace(SPEC, metrics=metrics), correction=correction))
    p = [pooled_p(1000, *pair) for pair in ((100, 135), (300, 341), (500, 520))]
    rejected, adjusted, *_ = multipletests(p, method=name)
    found = [own(report, key) for key in ("purchase", "click", "view")]
    assert [each.adjusted_p_value for each in found] == pytest.approx(list(adjusted), rel=1e-6)
    assert [each.significant for each in found] == list(rejected)


def test_uncorrected__where_the_plan_says_so(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100, "click": 9}), (11, 1000, {"purchase": 135, "click": 8}))
    report = world.report(planned(replace(SPEC, metrics=(PURCHASE, share("click"))), correction="none"))
    assert (own(report).members, own(report).adjusted_p_value, own(report).numbers.alpha) == (1, None, 0.05)


def test_one_sided_plan__asks_each_metric_whether_it_got_better(world: World) -> None:
    fewer = share("refund", direction=Direction.DECREASE)
    fill(
        world,
        (10, 1000, {"purchase": 100, "refund": 60, "error": 9}),
        (11, 1000, {"purchase": 125, "refund": 45, "error": 9}),
    )
    spec = planned(replace(SPEC, metrics=(PURCHASE, fewer, ERRORS)), alternative="greater", correction="none")
    report = world.report(spec)
    sides = [own(report, key).numbers.alternative for key in ("purchase", "refund", "errors")]
    assert sides == ["greater", "less", "two-sided"]
    assert own(report).numbers.p_value == pytest.approx(pooled_p(1000, 100, 125) / 2, rel=1e-6)
    assert own(report, "refund").numbers.p_value == pytest.approx(pooled_p(1000, 60, 45) / 2, rel=1e-6)


def test_margin__relative_and_absolute(world: World) -> None:
    fill(world, (10, 4000, {"purchase": 400, "error": 200}), (11, 4000, {"purchase": 500, "error": 204}))
    low, high = 200 / 4000, 204 / 4000
    var = [rate * (1 - rate) / 3999 for rate in (low, high)]

    def passed(margin: MarginSpec) -> tuple[Any, float, Report]:
        guard = replace(ERRORS, margin=margin)
        report = world.report(replace(SPEC, metrics=(PURCHASE, guard)))
        test = own(report, "errors").margin
        assert test is not None
        assert test.p_value is not None
        return test.passed, test.p_value, report

    # Less is better: at most 30 % more errors, then at most 0.02 more.
    loose, p, report = passed(MarginSpec(0.3, is_relative=True))
    z = (high - 1.3 * low) / np.sqrt(var[1] + 1.3**2 * var[0])
    assert (loose, p) == (True, pytest.approx(reference.norm.cdf(z), rel=0.01))
    assert report.decision.verdict is Verdict.SHIP
    absolute, p, _ = passed(MarginSpec(0.02, is_relative=False))
    z = (high - low - 0.02) / np.sqrt(sum(var))
    assert (absolute, p) == (True, pytest.approx(reference.norm.cdf(z), rel=0.01))
    tight, _, report = passed(MarginSpec(0.05, is_relative=True))
    assert tight is False
    assert report.decision.verdict is Verdict.KEEP_RUNNING
    assert "errors is not shown to be within its margin" in report.decision.sentence
    over = replace(SPEC, metrics=report.spec.metrics, status="stopped")
    assert world.report(over).decision.verdict is Verdict.INCONCLUSIVE


def test_posterior__decides_by_the_chance_to_win(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 140}))
    report = world.report(planned(method="bayesian"))
    found = own(report)
    # A lift of 0.4 with its delta-method error, against a prior of 0 ± 0.3.
    part = [rate * (1 - rate) / 999 for rate in (0.1, 0.14)]
    error = np.sqrt(part[1] / 0.01 + part[0] * 0.14**2 / 0.1**4)
    precision = 1 / error**2 + 1 / 0.3**2
    mean, sd = 0.4 / error**2 / precision, precision**-0.5
    assert found.numbers.lift == pytest.approx(mean, rel=1e-6)
    assert found.numbers.chance_to_win == pytest.approx(reference.norm.cdf(mean / sd), rel=1e-6)
    assert (found.numbers.p_value, found.adjusted_p_value, found.significant) == (None, None, True)
    assert report.decision.verdict is Verdict.SHIP
    assert "chance to win 97.8 %" in report.decision.sentence


def looked(report: Report, number: int, fraction: float) -> LookSpec:
    return LookSpec(number, TIME, report.total_units, fraction, look_verdicts(report))


def test_group_sequential__speaks_at_looks_alone(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 180}))
    spec = replace(planned(method="group_sequential", looks=4, correction="none"), target_sample_size=4000)
    before = world.report(spec)
    assert own(before).significant is None
    assert before.decision.verdict is Verdict.KEEP_RUNNING
    assert "No look has been made yet" in before.decision.sentence
    assert "Look 1 is due when 1,000 users are in." in before.decision.sentence
    assert own(before).numbers.difference == pytest.approx(0.08)
    # A look now: half of the information, and the limit of O'Brien and Fleming's spending there.
    [verdict] = look_verdicts(before)
    limit = boundaries((0.5,), alpha=0.05).z[0]
    assert (verdict.limit, verdict.crossed) == (pytest.approx(limit), True)
    after = world.report(replace(spec, looks=(looked(before, 1, 0.5),)))
    assert own(after).significant is True
    assert after.decision.verdict is Verdict.SHIP
    assert "limit crossed at look 1" in after.decision.sentence
    # Nothing has come since: the interval is that of the look, although the plan has looks left.
    assert own(after).numbers.limit == pytest.approx(limit)
    two = replace(spec, analysis=replace(spec.analysis, looks=2), looks=(looked(before, 1, 0.5),))
    assert own(world.report(two)).numbers.interval == verdict.interval
    [stop] = after.decision.at_stop
    assert (stop.method, stop.naive) == ("stage_wise", pytest.approx(0.08))
    assert stop.estimate is not None
    assert 0.0 < stop.estimate <= 0.08
    # What comes later changes numbers, not the verdict.
    world.units(10, 500, prefix="later")
    world.units(11, 500, prefix="later")
    world.events(10, 200, prefix="later")
    later = world.report(replace(spec, looks=(looked(before, 1, 0.5),)))
    assert own(later).numbers.difference == pytest.approx((180 - 300) / 1500)
    assert own(later).significant is True


def test_group_sequential__without_crossing_ends_at_the_last_look(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 103}))
    spec = replace(planned(method="group_sequential", looks=2), target_sample_size=2000)
    first = LookSpec(1, TIME, 1000, 0.5, (LookVerdict("purchase", 11, 0.1, 2.9, False, 0.0, None, None),))
    middle = world.report(replace(spec, looks=(first,)))
    assert middle.decision.verdict is Verdict.KEEP_RUNNING
    assert middle.next_look == NextLook(2, None, 2000)
    last = world.report(replace(spec, looks=(first, looked(middle, 2, 1.0))))
    assert last.decision.verdict is Verdict.INCONCLUSIVE
    assert last.next_look is None
    assert own(last).look_number == 2


def test_group_sequential__without_a_plan_has_numbers_and_says_why(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 180}))
    report = world.report(planned(method="group_sequential"))
    found = own(report)
    assert (found.numbers.difference, found.numbers.interval) == (pytest.approx(0.08), None)
    assert found.significant is None
    assert "set a target sample size" in report.decision.sentence


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (0.499999,), (0.5,), (0.7,)])
def test_looks_beside_the_information_that_is_in__leave_a_verdict(
    world: World, fractions: tuple[float, ...]
) -> None:
    """As after an erasure, or right after a look: units never make a report fail."""
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 180}))
    spec = replace(planned(method="group_sequential"), target_sample_size=4000)
    crossed = LookVerdict("purchase", 11, 5.2, 2.9, True, 0.08, (0.04, 0.12), None)
    looks = tuple(LookSpec(at, TIME, 2000, each, (crossed,)) for at, each in enumerate(fractions, 1))
    report = world.report(replace(spec, looks=looks))
    assert own(report).numbers.interval is not None
    assert report.decision.verdict is Verdict.SHIP
    assert report.decision.at_stop[0].estimate is not None


def test_dates__stand_for_information_where_no_size_was_planned() -> None:
    dates = tuple(SPEC.started_at + timedelta(days=days) for days in (7, 14))  # type: ignore[operator]
    spec = planned(method="group_sequential", looks=2, look_dates=dates)
    assert information(spec, 99, dates[0]) == pytest.approx(0.5)
    assert next_look(spec) == NextLook(1, dates[0], None)


def test_always_valid__keeps_the_smallest_p_and_waits_for_looks(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 180}))
    spec = replace(planned(method="always_valid"), target_sample_size=4000)
    report = world.report(spec)
    found = own(report)
    assert found.significant is None
    assert found.numbers.interval is not None
    fixed = infer(found.contrast).interval
    assert fixed is not None
    assert fixed.low is not None
    assert found.numbers.interval.low is not None
    assert found.numbers.interval.low < fixed.low
    [verdict] = look_verdicts(report)
    assert verdict.crossed
    assert verdict.p_value == found.numbers.p_value
    small = replace(verdict, p_value=1e-9)
    after = world.report(replace(spec, looks=(LookSpec(1, TIME, 2000, 0.5, (small,)),)))
    assert own(after).numbers.p_value == 1e-9
    assert after.decision.verdict is Verdict.SHIP
    assert after.decision.at_stop[0].estimate is None
    assert after.decision.at_stop[0].sentence is not None


def test_progress_and_outlook__follow_the_pace(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 125}))
    spec = replace(SPEC, target_sample_size=4000, started_at=TIME - timedelta(days=10))
    decision = world.report(spec).decision
    assert decision.progress is not None
    assert decision.progress.days_left == pytest.approx(10.0, rel=0.01)
    assert decision.progress.fraction == 0.5
    assert [each.days for each in decision.outlooks] == [3, 7, 14]
    for each in decision.outlooks:
        found = each.prediction
        assert found.units == pytest.approx(min(2000 + 200 * each.days, 4000), rel=0.01)
        total = (found.better or 0.0) + (found.worse or 0.0) + (found.inconclusive or 0.0)
        assert total == pytest.approx(1.0)
    # Share of the information in: z * sqrt(t) on the way, against the limit at the end (flat prior).
    first = decision.outlooks[0].prediction
    z = own(world.report(spec)).contrast
    score = (z.estimate or 0.0) / (z.standard_error or 1.0)
    ahead = first.units / 2000
    chance = reference.norm.sf((1.959964 - score * np.sqrt(ahead)) / np.sqrt(ahead - 1))
    assert first.better == pytest.approx(chance, rel=1e-3)


def test_stop__corrects_what_was_chosen_for_its_size(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 130}))
    [stop] = world.report(replace(SPEC, status="stopped")).decision.at_stop
    assert stop.naive == pytest.approx(0.03)
    assert stop.estimate is not None
    assert 0.0 < stop.estimate < 0.03


def test_several_treatments__are_one_family(world: World) -> None:
    for variant, units, buyers in ((10, 2400, 240), (11, 1800, 216), (12, 1800, 184)):
        fill(world, (variant, units, {"purchase": buyers}))
    report = world.report(THREE)
    assert {own(report, treatment=arm).members for arm in (11, 12)} == {2}


def test_guardrail_without_events__does_not_speak(world: World) -> None:
    fill(world, (10, 1000, {"purchase": 100}), (11, 1000, {"purchase": 150}))
    guard = replace(ERRORS, margin=MarginSpec(0.1, is_relative=True))
    assert world.report(replace(SPEC, metrics=(PURCHASE, guard))).decision.verdict is Verdict.SHIP


def test_ramp_over_a_drifting_baseline__stays_at_its_level_when_adjusted() -> None:
    """A/A, 90/10 then 50/50, the baseline and the past both higher later: CUPED within the stretches."""
    rng = np.random.default_rng(9_010)
    metric = MetricSpec("spent", "spent", MetricType.REVENUE, "purchase", role=Role.PRIMARY, lookback=DAY)
    spec = replace(SPEC, metrics=(metric,), phases=(phase(1, 0.9, 0.1), phase(2, 0.5, 0.5)))
    columns = (*COLUMNS, *BEFORE_AMOUNT)
    flat = replace(spec, phases=(phase(1, 0.5, 0.5), phase(2, 0.5, 0.5)))
    runs, rejected, plain = 400, 0, 0
    for _ in range(runs):
        by_arm: dict[int, dict[int, Tally]] = {10: {}, 11: {}}
        for number, level, sizes in ((1, 5.0, (1800, 200)), (2, 6.0, (1000, 1000))):
            for arm, size in zip((10, 11), sizes, strict=True):
                before = rng.gamma(level, 1.0, size)
                spent = 0.8 * before + rng.gamma(1.0 + level / 5, 1.0, size)
                some = np.ones(size)
                values = dict(zip(columns, (some, some, spent, some, before / 2, before), strict=True))
                moments = Moments.from_arrays(values)
                by_arm[arm][number] = Tally(size, size, float(spent.sum()), moments)
        rejected += adjusted_p(spec, metric, by_arm[10], by_arm[11]) <= 0.05
        plain += adjusted_p(flat, metric, by_arm[10], by_arm[11]) <= 0.05
    assert 0.02 < rejected / runs < 0.085
    assert plain / runs > 0.2


def adjusted_p(spec: ExperimentSpec, metric: MetricSpec, control: ByPhase, treatment: ByPhase) -> float:
    tallies = {10: control, 11: treatment}
    found: Comparison = compare_arms(spec, metric, (CONTROL, BLUE), tallies, alpha=0.05)
    given = contrasts(spec, MetricReport(metric, (), (found,), tallies), found)
    assert given.covariates == BEFORE_AMOUNT
    p = infer(given.adjusted).p_value
    assert p is not None
    return p


def test_published_trial__adjusted_for_both_years_before(world: World) -> None:
    """LaLonde's trial with earnings of 1974 and 1975 as covariates, against an ANCOVA."""
    data: pd.DataFrame = pytest.importorskip("causaldata").nsw_mixtape.load_pandas().data
    at, year = NOW - 100 * DAY, 365 * DAY
    rows = [
        [seq, 1, f"person-{seq}", 11 if treat else 10, 0, at] for seq, treat in enumerate(data["treat"], 1)
    ]
    world.store.append(Position(-1, len(rows)), assignments=json.dumps(rows))
    for column, when in (("re74", at - year * 3 // 2), ("re75", at - year // 2), ("re78", at + DAY)):
        world.feed.events(
            *(
                event(f"person-{seq}", "earnings", when, v=float(paid), a=float(paid))
                for seq, paid in enumerate(data[column], 1)
                if paid
            )
        )
    metric = MetricSpec(
        "earnings", "earnings", MetricType.SUM, "earnings", role=Role.PRIMARY, lookback=2 * year
    )
    found = own(world.report(replace(SPEC, metrics=(metric,))), "earnings")
    employed = ((data["re74"] + data["re75"]) > 0).astype(float)
    design = sm.add_constant(
        pd.DataFrame({"treat": data["treat"], "any": employed, "re74": data["re74"], "re75": data["re75"]})
    )
    fitted = sm.OLS(data["re78"].astype(float), design.astype(float)).fit(cov_type="HC2")
    assert found.covariates == BEFORE_AMOUNT
    assert found.unadjusted is not None
    assert found.unadjusted.difference == pytest.approx(1794.34, abs=0.005)
    assert found.unadjusted.standard_error == pytest.approx(670.997, abs=0.0005)
    assert found.numbers.difference == pytest.approx(fitted.params["treat"], rel=1e-8)
    assert found.numbers.standard_error == pytest.approx(fitted.bse["treat"], rel=0.01)
    assert found.variance_reduction is not None
    assert 0.0 < found.variance_reduction < 0.1
