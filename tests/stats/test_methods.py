"""Methods against independent computations of the same quantity.

Unit-level data, multivariate normals, simulation.
"""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from assay import stats as s


def moments(**columns: Any) -> s.Moments:
    return s.Moments.from_arrays(columns)


def two_arms(seed: int, sizes: tuple[int, int] = (300, 400)) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    arms = []
    for n in sizes:
        d = 1.0 + rng.poisson(4.0, n)
        pre = rng.gamma(3.0, 1.0, n) * d
        arms.append({"m": 0.7 * pre + rng.gamma(2.0, 1.0, n), "d": d, "p": pre, "q": d + rng.poisson(1.0, n)})
    return arms


def test_ratio__variance_is_that_of_the_influence_values() -> None:
    arms = two_arms(1)
    found = s.contrast(moments(**arms[0]), moments(**arms[1]), s.Ratio("m", "d"))
    parts = []
    for arm in arms:
        r = arm["m"].mean() / arm["d"].mean()
        w = (arm["m"] - r * arm["d"]) / arm["d"].mean()
        parts.append(w.var(ddof=1) / w.size)
    assert found.variance == pytest.approx(sum(parts), rel=1e-10)
    assert found.control == pytest.approx(arms[0]["m"].sum() / arms[0]["d"].sum(), rel=1e-12)


def test_ratio_cuped__is_the_regression_of_influence_values() -> None:
    arms = two_arms(2)
    metric, covariate = s.Ratio("m", "d"), s.Ratio("p", "q")
    found = s.adjust(moments(**arms[0]), moments(**arms[1]), metric, [covariate])
    post, pre, values = [], [], []
    for arm in arms:
        r, g = arm["m"].mean() / arm["d"].mean(), arm["p"].mean() / arm["q"].mean()
        post.append((arm["m"] - r * arm["d"]) / arm["d"].mean())
        pre.append((arm["p"] - g * arm["q"]) / arm["q"].mean())
        values.append((r, g))
    theta = sum(a @ b for a, b in zip(post, pre, strict=True)) / sum(b @ b for b in pre)
    assert found.theta[0] == pytest.approx(theta, rel=1e-9)
    expected = (values[1][0] - values[0][0]) - theta * (values[1][1] - values[0][1])
    assert found.estimate == pytest.approx(expected, rel=1e-9)
    variance = sum((a - theta * b).var(ddof=1) / a.size for a, b in zip(post, pre, strict=True))
    assert found.variance == pytest.approx(variance, rel=1e-9)


def test_strata__one_stratum_is_no_stratum_and_copies_change_nothing() -> None:
    arms = two_arms(3)
    pair = moments(**arms[0]), moments(**arms[1])
    for metric in ("m", s.Ratio("m", "d")):
        plain = s.contrast(*pair, metric)
        single = s.stratify([pair], metric)
        assert single.estimate == pytest.approx(plain.estimate, rel=1e-12)
        assert single.variance == pytest.approx(plain.variance, rel=1e-12)
        double = s.stratify([pair, pair], metric)
        assert double.estimate == pytest.approx(plain.estimate, rel=1e-12)
        assert double.variance == pytest.approx((plain.variance or 0.0) / 2.0, rel=1e-9)
        assert double.covariance == pytest.approx(-(double.control_variance or 0.0), rel=1e-9)


def test_strata__random_shares_add_the_spread_of_the_effects() -> None:
    strata = [
        (s.Moments.from_mean(50, 1.0, 1.0), s.Moments.from_mean(50, 1.0, 1.0)),
        (s.Moments.from_mean(50, 2.0, 1.0), s.Moments.from_mean(50, 4.0, 1.0)),
    ]
    fixed, loose = s.stratify(strata, "y"), s.stratify(strata, "y", super_population=True)
    # Effects 0 and 2 at equal shares have variance 1, over 200 units.
    assert (loose.variance or 0.0) - (fixed.variance or 0.0) == pytest.approx(1.0 / 200)


def test_strata__with_covariates_equals_least_squares_with_stratum_effects() -> None:
    rng = np.random.default_rng(4)
    strata, y, columns = [], [], []
    for k in range(3):
        pair = []
        for g in (0, 1):
            x = rng.normal(k, 1.0, 200)
            out = 2.0 * x + k + 0.5 * g + rng.normal(size=200)
            pair.append(moments(y=out, x=x))
            y.append(out)
            dummies = np.zeros((200, 6))
            dummies[:, 2 * k + g] = 1.0
            columns.append(np.column_stack([dummies, x]))
        strata.append((pair[0], pair[1]))
    found = s.stratify(strata, "y", ["x"])
    beta = np.linalg.lstsq(np.vstack(columns), np.concatenate(y), rcond=None)[0]
    assert found.theta[0] == pytest.approx(beta[6], rel=1e-9)
    assert found.estimate == pytest.approx(
        np.mean([beta[2 * k + 1] - beta[2 * k] for k in range(3)]), rel=1e-9
    )


def test_relative_cuped__interval_is_the_inversion_of_the_adjusted_test() -> None:
    rng = np.random.default_rng(5)
    arms = []
    for lift in (0.0, 0.2):
        x = rng.normal(10.0, 2.0, 500)
        arms.append(moments(y=x + 10 * lift + rng.normal(size=500), x=x))
    given = s.adjust(arms[0], arms[1], "y", ["x"])
    effect = s.infer(given)
    assert effect.lift.interval is not None
    assert effect.critical is not None
    for end in effect.lift.interval:
        assert end is not None
        gap = (given.estimate or 0.0) - end * (given.control or 0.0)
        spread = (
            (given.variance or 0.0)
            - 2 * end * (given.covariance or 0.0)
            + end * end * (given.control_variance or 0.0)
        )
        assert abs(gap) == pytest.approx(effect.critical * math.sqrt(spread), rel=1e-9)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock", "power"])
def test_boundaries__spend_exactly_what_a_multivariate_normal_says(sides: Any, spending: Any) -> None:
    fractions = [0.3, 0.55, 1.0]
    found = s.boundaries(fractions, sides=sides, spending=spending, power=2.0)
    limits = np.array(found.z, dtype=float)
    t = np.array(fractions)
    cover = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    for k in (2, 3):
        low = -limits[:k] if sides == 2 else np.full(k, -np.inf)
        inside = scipy.stats.multivariate_normal.cdf(
            limits[:k],
            np.zeros(k),
            cover[:k, :k],
            lower_limit=low,
            maxpts=2_000_000,
            abseps=1e-8,
            rng=np.random.default_rng(k),
        )
        assert found.spent[k - 1] == pytest.approx(1.0 - inside, abs=3e-6)
    assert found.spent[-1] == pytest.approx(0.05, rel=1e-9)


def test_boundaries__over_run_early_end_and_nothing_left() -> None:
    over = s.boundaries([0.5, 1.4])
    # Everything is spent, with the correlation of the true fractions: sqrt(0.5 / 1.4).
    assert over.spent[-1] == pytest.approx(0.05)
    assert over.z[0] == s.boundaries([0.5, 1.0]).z[0]
    assert (over.z[1] or 0.0) > 1.96
    early = s.boundaries([0.3, 0.6], final=True)
    assert early.spent[-1] == pytest.approx(0.05)
    assert s.boundaries([0.5, 1.0, 1.2]).z[2] is None


def test_boundaries__ten_thousandth_steps_still_add_up() -> None:
    fine = s.boundaries([0.5, 0.5001, 0.5002, 1.0], spending="pocock")
    assert fine.spent[-1] == pytest.approx(0.05, rel=1e-9)
    limits = [limit for limit in fine.z if limit is not None]
    assert s.crossing(fine.fractions, limits).total == pytest.approx(0.05, rel=1e-9)


def test_power__crossing_probabilities_match_simulated_paths() -> None:
    rng = np.random.default_rng(6)
    fractions = np.array([0.2, 0.5, 0.8, 1.0])
    plan = s.boundaries(list(fractions))
    steps = np.diff(fractions, prepend=0.0)
    paths = rng.normal(2.5 * steps, np.sqrt(steps), (200_000, 4)).cumsum(axis=1) / np.sqrt(fractions)
    out = np.abs(paths) >= np.array(plan.z, dtype=float)
    first = out & (np.cumsum(out, axis=1) == 1)
    found = s.crossing(list(fractions), plan.z, drift=2.5)
    both = np.add(found.upper, found.lower)
    assert np.allclose(first.mean(axis=0), both, atol=0.005)


def test_always_valid__mixture_sprt_is_the_same_interval() -> None:
    given = s.contrast(s.Moments.from_mean(4000, 5.0, 9.0), s.Moments.from_mean(4000, 5.2, 9.0))
    sequence = s.always_valid(given, planned=8000)
    rho2 = s.tuned_rho2(8000, 0.05)
    sprt = s.always_valid(given, tau=math.sqrt(rho2 * 8000 * (given.variance or 0.0)))
    assert sprt.p_value == pytest.approx(sequence.p_value, rel=1e-12)
    assert sprt.interval == pytest.approx(sequence.interval, rel=1e-12)
    assert s.always_valid(given, planned=8000, previous_p=1e-9).p_value == 1e-9


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_always_valid__p_value_is_alpha_where_the_interval_touches_zero(alternative: Any) -> None:
    k = 3.0
    critical = s.multiplier(k, 0.05, alternative)
    z = -critical if alternative == "less" else critical
    assert s.mixture(z, 1.0, k, alternative=alternative).p_value == pytest.approx(0.05, rel=1e-9)


def test_normal_mixture__bound_over_sum_is_the_multiplier() -> None:
    rho = s.mixture_rho(50.0)
    v = 80.0
    assert s.normal_bound(v, 0.05, rho) / math.sqrt(v) == pytest.approx(
        s.multiplier(v / rho, 0.05), rel=1e-12
    )


def test_score_intervals__end_where_their_test_has_the_critical_value() -> None:
    from assay.stats.proportions import score_statistic

    control, treatment = s.Count(40, 4), s.Count(50, 13)
    for method in ("score", "score_uncorrected"):
        low, high = s.difference_interval(control, treatment, method=method)  # type: ignore[arg-type]
        for end, sign in ((low, 1.0), (high, -1.0)):
            assert end is not None
            z = score_statistic(control, treatment, end, method=method)  # type: ignore[arg-type]
            assert z == pytest.approx(sign * 1.959963984540054, rel=1e-8)


def test_score_ratio__needs_no_successes_in_the_treatment() -> None:
    found = s.ratio_interval(s.Count(200, 10), s.Count(200, 0), method="score")
    assert (found.value, found.interval and found.interval.low) == (-1.0, -1.0)
    assert found.interval is not None
    assert -0.75 < (found.interval.high or 0.0) < -0.5
    assert s.ratio_interval(s.Count(200, 0), s.Count(200, 5)).reason is s.Reason.BASELINE_ZERO
    assert s.ratio_interval(s.Count(200, 5), s.Count(200, 0)).interval is None


def test_quantile__standard_error_agrees_with_resampling() -> None:
    rng = np.random.default_rng(7)
    label = np.repeat(np.arange(400), 5)
    unit = rng.normal(0.0, 1.0, 400)
    values = unit[label] + rng.normal(0.0, 0.5, 2000)
    found = s.quantile_of_values(values, 0.75, units=label)
    table = values.reshape(400, 5)
    draws = [np.quantile(table[rng.integers(0, 400, 400)].ravel(), 0.75) for _ in range(1500)]
    assert found.standard_error == pytest.approx(np.std(draws), rel=0.15)
    plain = s.quantile_of_values(values, 0.75)
    assert (plain.standard_error or 0.0) < 0.75 * (found.standard_error or 0.0)


def test_bootstrap__same_seed_same_answer_and_poisson_agrees_with_multinomial() -> None:
    rng = np.random.default_rng(8)
    x, y = rng.gamma(2.0, 1.0, 300), rng.gamma(2.0, 1.2, 300)
    seed = s.seed_for("checkout", "revenue", "2026-11-21")
    one = s.bootstrap(x, y, np.random.default_rng(seed))
    assert one == s.bootstrap(x, y, np.random.default_rng(seed))
    assert one.standard_error == pytest.approx(s.ideal_error(x, y), rel=0.03)
    other = s.bootstrap(x, y, np.random.default_rng(seed), draws="multinomial")
    assert other.standard_error == pytest.approx(one.standard_error, rel=0.03)
    median = s.bootstrap(x, y, np.random.default_rng(1), statistic=s.quantile_statistic(0.5), relative=True)
    assert median.interval is not None
    assert median.interval.contains(median.estimate or 0.0)


def test_multi_arm__losses_and_best_agree_with_sampling() -> None:
    arms = [s.Beta(11.0, 91.0), s.Beta(16.0, 86.0), s.Beta(14.0, 88.0)]
    rng = np.random.default_rng(9)
    draws = np.stack([rng.beta(arm.alpha, arm.beta, 400_000) for arm in arms])
    best = np.bincount(draws.argmax(axis=0), minlength=3) / draws.shape[1]
    assert np.allclose(s.best_probabilities(arms), best, atol=0.004)
    losses = (draws.max(axis=0) - draws).mean(axis=1)
    assert np.allclose(s.expected_losses(arms), losses, atol=2e-4)


def test_credible_interval__holds_its_mass() -> None:
    for arm in (s.Beta(3.0, 40.0), s.Gamma(7.0, 3.0), s.Normal(1.0, 2.0)):
        low, high = arm.interval(0.9)
        assert low is not None
        assert high is not None
        grid = np.array([low, high])
        below = arm.below(grid)
        assert below == pytest.approx([0.05, 0.95], rel=1e-9)
        assert arm.above(grid) == pytest.approx([0.95, 0.05], rel=1e-9)


def test_prediction__chances_are_those_of_simulated_ends() -> None:
    given = s.contrast(s.Moments.from_mean(500, 0.0, 1.0), s.Moments.from_mean(500, 0.08, 1.0))
    found = s.predict(given, 4000)
    rng = np.random.default_rng(10)
    effects = rng.normal(0.08, math.sqrt(2 / 500), 200_000)
    later = rng.normal(effects, math.sqrt(2 / 1500))
    final = (500 * 0.08 + 1500 * later) / 2000
    limit = 1.959964 * math.sqrt(2 / 2000)
    assert found.better == pytest.approx(float((final > limit).mean()), abs=0.005)
    assert found.worse == pytest.approx(float((final < -limit).mean()), abs=0.005)


def test_interaction__is_the_difference_of_effects() -> None:
    first = s.contrast(s.Moments.from_mean(100, 1.0, 1.0), s.Moments.from_mean(100, 1.5, 1.0))
    second = s.contrast(s.Moments.from_mean(100, 1.0, 1.0), s.Moments.from_mean(100, 1.1, 1.0))
    found = s.interaction(first, second)
    assert found.estimate == pytest.approx(-0.4)
    assert found.standard_error == pytest.approx(0.2)
    assert found.lift.value is None
    empty = s.interaction(first, s.contrast(s.Moments.empty(), s.Moments.empty()))
    assert (empty.p_value, empty.reason) == (None, s.Reason.NO_DATA)


def test_import__is_light_and_leaves_scipy_out() -> None:
    import subprocess
    import sys

    code = "import sys, assay.stats; print(sorted(m for m in sys.modules if m.startswith('scipy'))[:1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
