"""Cases that other engines get wrong, or have no answer to: ours, by value."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import stats as s
from assay.stats.moments import Moments


def numbers(result: Any) -> Iterator[float]:
    """Every float anywhere in a result."""
    if isinstance(result, float):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from numbers(part)
    elif dataclasses.is_dataclass(result):
        yield from numbers(dataclasses.astuple(result))  # type: ignore[arg-type]


def pair(a: Moments, b: Moments) -> s.Effect:
    return s.compare(a, b)


def test_means_of_a_billion_with_unit_variance__are_compared_exactly() -> None:
    rng = np.random.default_rng(11)
    x, y = rng.normal(0.0, 1.0, 500), rng.normal(0.3, 1.0, 500)
    near = pair(Moments.from_arrays({"y": x}), Moments.from_arrays({"y": y}))
    # Rounded to what doubles hold near 1e9, so that both computations see the same data.
    a, b = 1e9 + x, 1e9 + y
    far = pair(Moments.from_arrays({"y": a}), Moments.from_arrays({"y": b}))
    again = pair(Moments.from_arrays({"y": a - 1e9}), Moments.from_arrays({"y": b - 1e9}))
    assert far.p_value == pytest.approx(again.p_value, rel=1e-12)
    assert far.p_value == pytest.approx(near.p_value, rel=1e-5)


@pytest.mark.parametrize("kind", ["welch", "pooled", "fisher"])
def test_nothing_against_forty_of_a_hundred_thousand__is_decisive(kind: str) -> None:
    control, treatment = s.Count(100_000, 0), s.Count(100_000, 40)
    if kind == "welch":
        found: Any = pair(Moments.from_counts(*control), Moments.from_counts(*treatment))
    elif kind == "pooled":
        found = s.two_proportions(control, treatment)
    else:
        found = s.exact_proportions(control, treatment, method="fisher")
    expected = {"welch": 2.52e-10, "pooled": 2.529e-10, "fisher": 1.8e-12}
    assert found.p_value == pytest.approx(expected[kind], rel=0.02)
    assert found.estimate == 0.0004


def test_forty_standard_errors__have_a_logarithm_when_the_p_value_has_underflowed() -> None:
    found = s.two_proportions(s.Count(800_000, 80_000), s.Count(800_000, 100_000))
    assert found.statistic is not None
    assert found.statistic > 40
    assert found.p_value == pytest.approx(0.0, abs=1e-300)
    # 2 * (1 - Phi(z)) by its asymptotic series.
    z = found.statistic
    tail = 1 - 1 / z**2 + 3 / z**4 - 15 / z**6
    expected = (math.log(2 * tail / (z * math.sqrt(2 * math.pi))) - z * z / 2) / math.log(10)
    assert found.log10_p_value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("df", [3.0, 50.0, 5841.7, 2e6])
def test_far_student_tail__meets_the_p_value_where_both_exist(df: float) -> None:
    from assay.stats.tails import log_student_sf, student_sf

    for t in (4.0, 9.0, 25.0):
        assert log_student_sf(df, t) == pytest.approx(math.log(student_sf(df, t)), rel=1e-9)


def test_five_conversions__interval_and_p_value_agree_and_nothing_is_claimed() -> None:
    found = pair(Moments.from_counts(500, 5), Moments.from_counts(500, 9))
    assert found.p_value == pytest.approx(0.2808, abs=2e-3)
    assert found.interval is not None
    assert found.interval.contains(0.0)
    assert found.lift.value == pytest.approx(0.8)
    assert found.lift.interval is not None
    assert found.lift.interval.contains(0.0)


def test_baseline_not_separated_from_zero__has_a_lift_but_no_interval_for_it() -> None:
    found = pair(Moments.from_counts(500, 3), Moments.from_counts(500, 20))
    assert found.significant is True
    assert found.lift.value == pytest.approx(17 / 3)
    assert found.lift.g is not None
    assert found.lift.g >= 1.0
    assert (found.lift.interval, found.lift.reason) == (None, s.Reason.BASELINE_NOT_SEPARATED)


def test_baseline_not_separated_from_zero__gives_a_posterior_no_prior_of_the_difference() -> None:
    noise = Moments.from_mean(2000, 0.07, 20.0**2)
    given = s.contrast(noise, Moments.from_mean(2000, 2.0, 20.0**2))
    found = s.bayes(given, scale="absolute")
    # A prior of 30 % of 0.07 would have left nothing of a difference of three standard errors.
    assert found.prior is None
    assert found.mean == pytest.approx(1.93)
    assert found.sd == given.standard_error
    assert found.chance_to_win == pytest.approx(0.9989, abs=1e-4)
    assert s.bayes(given).reason is s.Reason.BASELINE_NOT_SEPARATED
    told = s.contrast(Moments.from_mean(2000, 2.0, 20.0**2), noise)
    assert s.bayes(told, scale="absolute").prior == s.bayesian.Prior(0.0, 0.6)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (1, 5), (1, 1)])
def test_too_few_units__say_so(n: int, m: int) -> None:
    arms = [Moments.from_arrays({"y": np.arange(size, dtype=float)}) for size in (n, m)]
    found = pair(arms[0], arms[1])
    assert (found.p_value, found.interval, found.standard_error) == (None, None, None)
    assert found.reason is (s.Reason.NO_DATA if n + m == 0 else s.Reason.INSUFFICIENT_DATA)


def test_identical_arms__with_noise__are_exactly_no_effect() -> None:
    arm = Moments.from_arrays({"y": [1.0, 2.0, 4.0]})
    found = pair(arm, arm)
    assert (found.estimate, found.statistic, found.p_value) == (0.0, 0.0, 1.0)
    assert found.interval is not None
    assert found.interval.low == -(found.interval.high or 0.0)


def test_constant_but_different_arms__have_an_estimate_and_no_test() -> None:
    found = pair(Moments.from_mean(10, 1.0, 0.0), Moments.from_mean(10, 2.0, 0.0))
    assert (found.estimate, found.lift.value, found.p_value) == (1.0, 1.0, None)
    assert found.reason is s.Reason.ZERO_VARIANCE


def test_one_constant_arm__is_tested_with_the_other_arms_degrees_of_freedom() -> None:
    found = pair(Moments.from_mean(10, 1.0, 0.0), Moments.from_mean(20, 2.0, 4.0))
    assert found.df == pytest.approx(19.0, rel=1e-12)
    assert found.p_value == pytest.approx(0.0374, abs=1e-3)


def test_negative_baseline__an_increase_is_a_positive_lift() -> None:
    mirror = pair(Moments.from_mean(400, 10.0, 25.0), Moments.from_mean(400, 9.0, 30.0)).lift
    found = pair(Moments.from_mean(400, -10.0, 25.0), Moments.from_mean(400, -9.0, 30.0)).lift
    assert found.value == pytest.approx(0.1)
    assert found.interval is not None
    assert mirror.interval is not None
    assert found.interval.low == pytest.approx(-(mirror.interval.high or 0.0))
    assert found.interval.high == pytest.approx(-(mirror.interval.low or 0.0))
    log = s.compare(
        Moments.from_mean(400, -10.0, 25.0), Moments.from_mean(400, -9.0, 30.0), lift="log"
    ).lift.interval
    assert log is not None
    assert log.low == pytest.approx(found.interval.low, abs=0.01)


@pytest.mark.parametrize(("n", "m"), [(1000, 1000), (100_000, 100), (3, 10**9)])
def test_splits__from_equal_to_extreme__stay_consistent(n: int, m: int) -> None:
    found = pair(Moments.from_mean(n, 10.0, 4.0), Moments.from_mean(m, 10.5, 9.0))
    assert found.df is not None
    assert min(n, m) - 1 <= found.df <= n + m - 2
    assert all(math.isfinite(value) for value in numbers(found))


def test_counts_beyond_2_53__are_exact_integers_to_the_division() -> None:
    n = 2**61
    # The rates differ by 2^-30; as floats n and n + 1 would be the same number.
    found = s.two_proportions(s.Count(n, n // 2), s.Count(n + 1, n // 2 + 2**31))
    assert found.estimate == pytest.approx(2.0**-30, rel=1e-6)
    assert found.count_treatment == n + 1
    assert found.count_treatment - found.count_control == 1


def test_phases__a_ramp_is_no_mismatch_and_pooling_would_have_called_one() -> None:
    ramp = [s.Phase((9_000, 1_000), (0.9, 0.1)), s.Phase((5_010, 4_990), (0.5, 0.5))]
    assert s.sample_ratio(ramp).p_value == pytest.approx(0.856, abs=0.01)
    assert s.sample_ratio(ramp).mismatch is False
    assert s.sequential_sample_ratio(ramp).p_value == 1.0
    pooled = s.sample_ratio([s.Phase((14_010, 5_990), (0.5, 0.5))])
    assert pooled.mismatch is True


def test_units_in_an_arm_without_traffic__are_an_alarm_by_themselves() -> None:
    found = s.sample_ratio([s.Phase((500, 500, 3), (0.5, 0.5, 0.0))])
    assert (found.mismatch, found.stray, found.reason) == (True, 3, s.Reason.ZERO_WEIGHT_ARM)
    assert (found.df, found.p_value) == (1, 1.0)
    # Without stray units the empty arm costs no degree of freedom.
    clean = s.sample_ratio([s.Phase((5000, 5200, 0), (0.5, 0.5, 0.0))])
    assert clean.p_value == pytest.approx(0.0476703806561615, rel=1e-9)


def test_seven_equal_arms__need_not_sum_to_one_in_floating_point() -> None:
    found = s.sample_ratio([s.Phase((100,) * 7, (1 / 7,) * 7)])
    assert found.p_value == 1.0
    assert found.df == 6


def test_burn_in__no_verdict_before_twenty_five_effective_events() -> None:
    few = s.always_valid(
        s.contrast(Moments.from_counts(1000, 20), Moments.from_counts(1000, 60)), planned=10_000
    )
    assert (few.p_value, few.interval, few.reason) == (None, None, s.Reason.BURN_IN)
    enough = s.always_valid(
        s.contrast(Moments.from_counts(1000, 40), Moments.from_counts(1000, 90)), planned=10_000
    )
    assert enough.reason is None
    assert enough.significant is True


def test_group_sequential__too_early_a_look_is_none_and_spends_nothing() -> None:
    given = s.contrast(Moments.from_counts(1000, 100), Moments.from_counts(1000, 130))
    found = s.group_sequential(given, [0.5, 0.5 + 1e-7])
    assert (found.reason, found.crossed, found.limit) == (s.Reason.NOT_A_LOOK, None, None)
    assert found.spent == s.group_sequential(given, [0.5]).spent


def test_group_sequential__stop_estimate_is_smaller_than_the_naive_one() -> None:
    given = s.contrast(Moments.from_counts(5000, 500), Moments.from_counts(5000, 620))
    plan = s.boundaries([0.25, 0.5])
    found = s.adjusted_at_stop(given, plan)
    assert isinstance(found, s.StopEstimate)
    assert given.estimate is not None
    assert 0.0 < found.estimate < given.estimate
    assert found.interval.contains(found.estimate)
    look = s.group_sequential(given, [0.25, 0.5])
    assert look.crossed is True
    assert look.p_value is not None
    assert look.p_value < 0.05


def test_sequential_p_value__is_below_alpha_exactly_at_a_crossing() -> None:
    fractions = [0.25, 0.5, 0.75, 1.0]
    for alpha in (0.01, 0.05):
        limits = s.boundaries(fractions, alpha=alpha).z
        for shift, below in ((1e-4, True), (-1e-4, False)):
            z = [0.0, 0.0, (limits[2] or 0.0) + shift]
            assert (s.sequential_p_value(z, fractions[:3]) < alpha) is below


def test_winners_curse__shrinks_more_the_closer_to_the_limit() -> None:
    strong = s.winners_curse(
        s.contrast(Moments.from_mean(10**4, 10, 100), Moments.from_mean(10**4, 10.9, 100))
    )
    weak = s.winners_curse(s.contrast(Moments.from_mean(10**4, 10, 100), Moments.from_mean(10**4, 10.3, 100)))
    none = s.winners_curse(s.contrast(Moments.from_mean(10**4, 10, 100), Moments.from_mean(10**4, 10.1, 100)))
    assert strong.shrinkage is not None
    assert weak.shrinkage is not None
    assert 0.99 < strong.shrinkage <= 1.0
    assert weak.shrinkage < 0.6
    assert none.reason is s.Reason.NOT_STOPPED


def test_prediction__is_certain_at_the_end_and_open_before() -> None:
    given = s.contrast(Moments.from_mean(1000, 10, 100), Moments.from_mean(1000, 10.6, 100))
    early, late = s.predict(given, 20_000), s.predict(given, 2_000)
    assert early.better is not None
    assert early.worse is not None
    assert early.inconclusive is not None
    assert early.better + early.worse + early.inconclusive == pytest.approx(1.0)
    assert 0.5 < early.better < 0.95
    assert (late.better, late.worse, late.inconclusive) == (0.0, 0.0, 1.0)


def test_collinear_covariates__are_left_out_without_harm() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 300))
    y = 2.0 * x + rng.normal(size=(2, 300))
    arms = [
        Moments.from_arrays({"y": y[i], "a": x[i], "b": 3.0 * x[i] + 1e6, "c": np.full(300, 7.0)})
        for i in (0, 1)
    ]
    one = s.adjust(arms[0], arms[1], "y", ["a"])
    three = s.adjust(arms[0], arms[1], "y", ["a", "b", "c"])
    assert three.estimate == pytest.approx(one.estimate, rel=1e-6)
    assert three.df == pytest.approx(one.df or 0.0, rel=1e-6)


def test_constant_covariate__is_exactly_the_unadjusted_contrast() -> None:
    arms = [Moments.from_arrays({"y": [1.0, 2.0, 4.0 + i], "x": [5.0, 5.0, 5.0]}) for i in (0, 1)]
    assert s.adjust(arms[0], arms[1], "y", ["x"])._replace(theta=()) == s.contrast(arms[0], arms[1], "y")


def test_missing_history__with_its_indicator_does_not_bias_theta() -> None:
    rng = np.random.default_rng(9)
    n = 4000
    history = rng.normal(50.0, 5.0, n)
    outcome = history + rng.normal(0.0, 1.0, n)
    known = rng.random(n) < 0.5
    filled, missing = s.with_indicator(np.where(known, history, np.nan))
    arms = [
        Moments.from_arrays({"y": outcome[i::2], "x": filled[i::2], "gap": missing[i::2]}) for i in (0, 1)
    ]
    assert s.adjust(arms[0], arms[1], "y", ["x", "gap"]).theta[0] == pytest.approx(1.0, abs=0.02)
    assert abs(s.adjust(arms[0], arms[1], "y", ["x"]).theta[0] - 1.0) > 0.5


def test_strata__phases_of_a_ramp_remove_the_drift_that_pooling_takes_for_an_effect() -> None:
    phases = [
        (Moments.from_mean(9000, 10.0, 4.0), Moments.from_mean(1000, 10.0, 4.0)),
        (Moments.from_mean(5000, 12.0, 4.0), Moments.from_mean(5000, 12.0, 4.0)),
    ]
    pooled = pair(s.total(c for c, _ in phases), s.total(t for _, t in phases))
    assert pooled.significant is True
    assert s.infer(s.stratify(phases, "y")).estimate == pytest.approx(0.0, abs=1e-12)


def test_strata__too_small_ones_join_the_largest() -> None:
    one = (Moments.from_mean(1, 5.0, 0.0), Moments.from_mean(4, 5.0, 1.0))
    big = (Moments.from_mean(100, 1.0, 1.0), Moments.from_mean(90, 1.1, 1.0))
    mid = (Moments.from_mean(50, 2.0, 1.0), Moments.from_mean(60, 2.1, 1.0))
    merged = s.merge_small([one, mid, big])
    assert [(c.count, t.count) for c, t in merged] == [(101, 94), (50, 60)]
    assert s.stratify([one], "y").reason is s.Reason.INSUFFICIENT_DATA
    assert s.stratify([], "y").reason is s.Reason.NO_DATA


def test_relative_margin__counts_the_noise_of_the_baseline() -> None:
    given = s.contrast(Moments.from_mean(400, 10.0, 100.0), Moments.from_mean(400, 10.0, 100.0))
    relative = s.non_inferiority(given, 0.1, relative=True)
    constant = s.non_inferiority(given, 1.0)
    assert relative.null == constant.null == -1.0
    # (m_T - 0.9 m_C) / sqrt(v_T + 0.81 v_C)
    assert relative.statistic == pytest.approx(1.0 / math.sqrt(0.25 * 1.81))
    assert constant.statistic == pytest.approx(1.0 / math.sqrt(0.5))
    mirrored = s.non_inferiority(given, 0.1, relative=True, direction="decrease")
    # (1.1 m_C - m_T) / sqrt(v_T + 1.21 v_C)
    assert mirrored.statistic == pytest.approx(-1.0 / math.sqrt(0.25 * 2.21))


def test_quantile__ties_and_extremes_say_so() -> None:
    ties = s.quantile_of_values(np.repeat([1.0, 2.0], 500), 0.9)
    assert (ties.value, ties.standard_error, ties.reason) == (2.0, None, s.Reason.QUANTILE_TIES)
    extreme = s.quantile_of_values(np.arange(100.0), 0.999)
    assert extreme.reason is s.Reason.QUANTILE_TOO_EXTREME
    found = s.compare(Moments.from_mean(10, 1, 1), Moments.from_mean(10, 1, 1))
    assert s.infer(s.quantile_contrast(ties, ties)).p_value is None
    assert found.reason is None


def test_units__a_change_of_unit_changes_nothing_but_the_unit() -> None:
    for scale in (1e-5, 1e6):
        one = s.always_valid(
            s.contrast(Moments.from_mean(4000, 1.0, 1.0), Moments.from_mean(4000, 1.15, 1.0)),
            planned=8000,
            alternative="greater",
        )
        other = s.always_valid(
            s.contrast(
                Moments.from_mean(4000, scale, scale**2), Moments.from_mean(4000, 1.15 * scale, scale**2)
            ),
            planned=8000,
            alternative="greater",
        )
        assert other.p_value == pytest.approx(one.p_value, rel=1e-9)
        assert other.lift.value == pytest.approx(one.lift.value)


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(st.integers(0, 50), st.floats(-1e6, 1e6), st.floats(0, 1e6)),
    st.tuples(st.integers(0, 50), st.floats(-1e6, 1e6), st.floats(0, 1e6)),
    st.sampled_from(["two-sided", "greater", "less"]),
    st.sampled_from(["fieller", "log", "delta"]),
)
def test_any_input__results_hold_finite_numbers_or_reasons(
    control: tuple[int, float, float], treatment: tuple[int, float, float], side: Any, lift: Any
) -> None:
    given = s.contrast(Moments.from_mean(*control), Moments.from_mean(*treatment))
    results: list[Any] = [
        s.infer(given, alternative=side, lift=lift),
        s.always_valid(given, planned=100, alternative=side, lift=lift),
        s.group_sequential(given, [0.3, 0.7], alternative=side, lift=lift),
        s.bayes(given),
        s.non_inferiority(given, 0.1, relative=True),
        s.equivalence(given, -1.0, 1.0),
        s.winners_curse(given),
    ]
    for result in results:
        assert all(math.isfinite(value) for value in numbers(result))
        missing = getattr(result, "p_value", 0) is None
        reason = getattr(result, "reason", None)
        assert not missing or reason is not None or getattr(result, "crossed", None) is False
    test = results[0]
    if side == "two-sided" and lift == "fieller" and test.lift.interval is not None:
        low, high = test.lift.interval
        # The lift's interval and the p-value never disagree, to the precision of the quantile function.
        if abs(test.p_value - 0.05) > 1e-9:
            assert (low <= 0.0 <= high) == (test.p_value > 0.05)


@pytest.mark.parametrize(("n", "x"), [(1, 0), (1, 1), (10, 10), (10, 0), (50, 20), (10**6, 10**6)])
def test_bernoulli_sequence__ends_where_nothing_is_excluded(n: int, x: int) -> None:
    low, high = s.bernoulli_interval(s.Count(n, x))
    assert low is not None
    assert high is not None
    assert 0.0 <= low <= x / n <= high <= 1.0
    assert (low == 0.0) == (x == 0 or n == 1)
    assert (high == 1.0) == (n in (x, 1))


@pytest.mark.parametrize("n", [0, 1, 3, 10**6, 10**15])
@pytest.mark.parametrize("m", [0, 1, 5, 2**60])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_counts_of_any_size__give_finite_numbers_or_reasons(n: int, m: int, share: float) -> None:
    control, treatment = s.Count(n, int(n * share)), s.Count(m, m // 3)
    given = s.count_contrast(control, treatment)
    results: list[Any] = [
        s.two_proportions(control, treatment),
        s.two_proportions(control, treatment, method="unpooled", alternative="less"),
        s.one_proportion(control),
        s.one_proportion(control, method="clopper_pearson"),
        s.one_proportion(control, method="jeffreys"),
        s.ratio_interval(control, treatment),
        s.ratio_interval(control, treatment, method="score"),
        s.score_non_inferiority(control, treatment, 0.01),
        s.contingency(control, treatment),
        s.equivalence(given, -0.1, 0.1, reference="normal"),
        s.sample_ratio([s.Phase((n, m), (1.0, 1.0))]),
        s.sequential_sample_ratio([s.Phase((n, m), (0.3, 0.7))]),
    ]
    for result in results:
        assert all(math.isfinite(value) for value in numbers(result))


def test_reasons__each_has_a_sentence() -> None:
    for reason in s.Reason:
        assert reason.sentence.endswith(".")
        assert len(reason.sentence) > 20


def test_family__intervals_agree_with_decisions() -> None:
    rng = np.random.default_rng(4)
    contrasts = {
        i: s.contrast(Moments.from_mean(500, 10, 9), Moments.from_mean(500, 10 + d, 9))
        for i, d in enumerate(rng.normal(0.3, 0.4, 12))
    }
    for method in ("bonferroni", "holm", "hochberg", "benjamini_hochberg", "sidak"):
        members = s.family(contrasts, method=method)  # type: ignore[arg-type]
        assert any(member.rejected for member in members.values())
        assert not all(member.rejected for member in members.values())
        for member in members.values():
            assert member.effect.interval is not None
            low, high = member.effect.interval
            assert low is not None
            assert high is not None
            assert (low >= 0.0 or high <= 0.0) == member.rejected, method


def test_family__missing_tests_are_no_members() -> None:
    found = s.correct([0.01, None, 0.04], method="bonferroni")
    assert found.p_values == (0.02, None, 0.08)
    assert found.members == 2
    assert s.correct([], method="holm").p_values == ()
    weighted = s.correct([0.01, 0.04], method="holm", weights=[1.0, 3.0])
    assert weighted.p_values == pytest.approx((0.04, 0.04))
    assert s.e_benjamini_hochberg([math.log(100.0), None, 0.0, math.log(29.0)]) == (True, None, False, False)
    assert s.guardrail_power(0.8, 3) == pytest.approx(0.95)


def test_vectorised__is_the_scalar_computation() -> None:
    rng = np.random.default_rng(6)
    n, m = rng.integers(0, 400, 500), rng.integers(0, 400, 500)
    a, b = rng.normal(0.5, 1.0, 500), rng.normal(0.5, 1.0, 500)
    u, v = (
        rng.gamma(1.0, 1.0, 500) * (rng.random(500) > 0.1),
        rng.gamma(1.0, 1.0, 500) * (rng.random(500) > 0.1),
    )
    a[::50] = 0.0
    many = s.compare_many((n, a, u), (m, b, v))
    for i in range(500):
        one = pair(Moments.from_mean(int(n[i]), a[i], u[i]), Moments.from_mean(int(m[i]), b[i], v[i]))
        assert (one.p_value is None) == bool(many.p_value.mask[i])
        assert s.REASONS[many.codes[i]] == (
            s.Reason.INSUFFICIENT_DATA if one.reason is s.Reason.NO_DATA else one.reason
        )
        if one.p_value is not None:
            assert many.p_value[i] == pytest.approx(one.p_value, rel=1e-9, abs=1e-300)
            assert (many.low[i], many.high[i]) == pytest.approx(one.interval, rel=1e-9)
        if one.lift.interval is not None:
            assert (many.lift_low[i], many.lift_high[i]) == pytest.approx(one.lift.interval, rel=1e-9)
        else:
            assert bool(many.lift_low.mask[i])


@pytest.mark.parametrize(
    "call",
    [
        lambda: s.compare(Moments.from_counts(9, 3), Moments.from_counts(9, 4), alpha=1.0),
        lambda: s.boundaries([0.5, 0.4]),
        lambda: s.sample_ratio([s.Phase((1, 2), (0.5,))]),
        lambda: s.sample_ratio([s.Phase((1, -2), (0.5, 0.5))]),
        lambda: s.always_valid(s.contrast(Moments.from_counts(9, 3), Moments.from_counts(9, 4))),
        lambda: s.quantile_interval([1.0, 2.0], 1.0),
        lambda: s.non_inferiority(s.contrast(Moments.from_counts(9, 3), Moments.from_counts(9, 4)), -0.1),
        lambda: s.correct([1.2]),
        lambda: s.one_proportion(s.Count(9, 3), method=cast("Any", "binom_test")),
        lambda: s.difference_interval(s.Count(9, 3), s.Count(9, 4), method=cast("Any", "newcomb")),
        lambda: s.ratio_interval(s.Count(9, 3), s.Count(9, 4), method=cast("Any", "log-adjusted")),
        lambda: s.sample_size_means(-0.1, alternative="greater"),
        lambda: s.sample_size_proportions(0.1, 0.01, alternative="less"),
        lambda: s.winsorise([1.0], 0.6, 0.5),
        lambda: s.mann_whitney([1.0, 1.0], [2.0], method="exact"),
        lambda: s.plan(s.Baseline(1.0, 1.0)),
        lambda: s.beta_binomial(s.Count(10**13, 5), s.Count(10, 5)),
        lambda: s.gamma_poisson((0.0, 1.0), (1.0, 1.0)),
        lambda: s.bandit_weights([s.Normal(0.0, 1.0)]),
    ],
)
def test_wrong_arguments__are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        call()


def test_contingency__a_thousand_million_units__keeps_all_digits() -> None:
    control, treatment = s.Count(10**9, 123_456_789), s.Count(10**9, 123_500_000)
    found = s.contingency(control, treatment, method="log_likelihood", correction=False)
    # 50-digit value; summed cell by cell, the textbook formula keeps eight digits.
    assert found.statistic == pytest.approx(8.625912346234937, rel=1e-14)
