"""Agreement with scipy, statsmodels and tea-tasting on generated inputs."""

import gc
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
import tea_tasting
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from statsmodels.stats import multitest
from statsmodels.stats import power as sm_power
from statsmodels.stats import proportion as sm_proportion
from statsmodels.stats.meta_analysis import combine_effects

from assay import stats as s

COUNTS = st.integers(3, 2_000_000)
MEANS = st.floats(-1e3, 1e3)
SPREADS = st.floats(1e-3, 1e3)
ARM = st.tuples(COUNTS, MEANS, SPREADS)
SIDES = st.sampled_from(["two-sided", "greater", "less"])
PS = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def close(got: Any, expected: Any, rel: float = 1e-9) -> bool:
    return bool(np.allclose(got, expected, rtol=rel, atol=1e-300))


def flat(interval: s.Interval | None) -> tuple[float, float]:
    assert interval is not None
    return (
        -math.inf if interval.low is None else interval.low,
        math.inf if interval.high is None else interval.high,
    )


@settings(max_examples=300, deadline=None)
@given(ARM, ARM, SIDES, st.floats(0.001, 0.3))
def test_welch__scipy(
    control: tuple[int, float, float], treatment: tuple[int, float, float], side: Any, alpha: float
) -> None:
    (n, a, sd_a), (m, b, sd_b) = control, treatment
    found = s.compare(
        s.Moments.from_mean(n, a, sd_a**2),
        s.Moments.from_mean(m, b, sd_b**2),
        alpha=alpha,
        alternative=side,
    )
    oracle = scipy.stats.ttest_ind_from_stats(b, sd_b, m, a, sd_a, n, equal_var=False, alternative=side)
    assert close(found.statistic, oracle.statistic, 1e-8)
    assume(oracle.pvalue > 1e-290)
    assert close(found.p_value, oracle.pvalue, 1e-6)
    limit = scipy.stats.t.isf(alpha / 2 if side == "two-sided" else alpha, found.df)
    low, high = flat(found.interval)
    reach = limit * math.sqrt(sd_a**2 / n + sd_b**2 / m)
    assert close(low, -math.inf if side == "less" else b - a - reach, 1e-7)
    assert close(high, math.inf if side == "greater" else b - a + reach, 1e-7)


@settings(max_examples=100, deadline=None)
@given(COUNTS, COUNTS, st.floats(0.01, 0.99), st.floats(0.01, 0.99), SIDES)
def test_pooled_z__statsmodels(n: int, m: int, p: float, q: float, side: Any) -> None:
    x, y = round(n * p), round(m * q)
    assume(0 < x + y < n + m)
    found = s.two_proportions(s.Count(n, x), s.Count(m, y), alternative=side)
    names = {"two-sided": "two-sided", "greater": "larger", "less": "smaller"}
    z, p_value = sm_proportion.proportions_ztest([y, x], [m, n], alternative=names[side])
    assert close(found.statistic, z, 1e-7)
    assert close(found.p_value, p_value, 1e-5) or abs(z) > 30
    # The interval inverts the same test: it excludes zero exactly when the test rejects.
    low, high = flat(found.interval)
    assert (low <= 0.0 <= high) == (not found.significant)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 400), st.integers(2, 400), st.floats(0, 1), st.floats(0, 1))
def test_difference_intervals__statsmodels(n: int, m: int, p: float, q: float) -> None:
    x, y = round(n * p), round(m * q)
    for ours, theirs in (("newcombe", "newcomb"), ("agresti_caffo", "agresti-caffo")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            low, high = sm_proportion.confint_proportions_2indep(y, m, x, n, method=theirs)
        found = s.difference_interval(s.Count(n, x), s.Count(m, y), method=ours)  # type: ignore[arg-type]
        assert np.allclose(found, (max(low, -1.0), min(high, 1.0)), rtol=1e-8, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 400), st.integers(3, 400), st.data())
def test_ratio_intervals__statsmodels(n: int, m: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(1, n - 1)), data.draw(st.integers(1, m - 1))
    for ours, theirs in (("log", "log"), ("log_adjusted", "log-adjusted"), ("score", "score")):
        low, high = sm_proportion.confint_proportions_2indep(y, m, x, n, method=theirs, compare="ratio")
        method: Any = ours
        found = s.ratio_interval(s.Count(n, x), s.Count(m, y), method=method)
        assert np.allclose(flat(found.interval), (low - 1.0, high - 1.0), rtol=1e-6, atol=1e-8), ours


@settings(max_examples=100, deadline=None)
@given(st.integers(5, 300), st.integers(5, 300), st.data())
def test_constrained_rate__maximises_the_likelihood(n: int, m: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(1, n - 1)), data.draw(st.integers(1, m - 1))
    d = data.draw(st.floats(-0.9, 0.9))
    from assay.stats.proportions import constrained_rate

    def likelihood(p: Any) -> Any:
        return x * np.log(p) + (n - x) * np.log1p(-p) + y * np.log(p + d) + (m - y) * np.log1p(-p - d)

    low, high = max(0.0, -d) + 1e-9, min(1.0, 1.0 - d) - 1e-9
    grid = np.linspace(low, high, 20_001)
    ours = constrained_rate(s.Count(n, x), s.Count(m, y), d)
    assert likelihood(min(max(ours, low), high)) >= likelihood(grid).max() - 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.data(), st.sampled_from(["wilson", "agresti_coull", "beta", "jeffreys"]))
def test_one_proportion__statsmodels(n: int, data: st.DataObject, method: str) -> None:
    x = data.draw(st.integers(0, n))
    ours: Any = "clopper_pearson" if method == "beta" else method
    low, high = sm_proportion.proportion_confint(x, n, method=method)
    found = flat(s.one_proportion(s.Count(n, x), method=ours).interval)
    assert np.allclose(found, (low, high), rtol=1e-8, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data(), SIDES)
def test_fisher_and_contingency__scipy(n: int, m: int, data: st.DataObject, side: Any) -> None:
    x, y = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    assume(0 < x + y < n + m)
    table = [[y, x], [m - y, n - x]]
    found = s.exact_proportions(s.Count(n, x), s.Count(m, y), method="fisher", alternative=side)
    assert close(found.p_value, scipy.stats.fisher_exact(table, alternative=side).pvalue, 1e-7)
    for name, theirs in (
        ("pearson", "pearson"),
        ("log_likelihood", "log-likelihood"),
        ("cressie_read", "cressie-read"),
        ("freeman_tukey", "freeman-tukey"),
    ):
        for correction in (False, True):
            with np.errstate(all="ignore"):
                oracle = scipy.stats.chi2_contingency(table, correction=correction, lambda_=theirs)
            if not math.isfinite(oracle.pvalue):
                continue  # scipy divides by an empty cell
            method: Any = name
            ours = s.contingency(s.Count(n, x), s.Count(m, y), method=method, correction=correction)
            assert np.isclose(ours.p_value, oracle.pvalue, rtol=1e-7, atol=1e-12)


@pytest.fixture(autouse=True, scope="module")
def few_to_collect() -> Iterator[None]:
    """One oracle collects garbage whenever it is asked: all that a long run has left, unless frozen."""
    gc.freeze()
    yield
    gc.unfreeze()


@settings(max_examples=100, deadline=None)
@given(PS)
def test_multiplicity__statsmodels(p_values: list[float]) -> None:
    for ours, theirs in (
        ("bonferroni", "bonferroni"),
        ("sidak", "sidak"),
        ("holm", "holm"),
        ("holm_sidak", "holm-sidak"),
        ("hochberg", "simes-hochberg"),
        ("hommel", "hommel"),
        ("benjamini_hochberg", "fdr_bh"),
        ("benjamini_yekutieli", "fdr_by"),
    ):
        with np.errstate(divide="ignore"):
            _, adjusted, _, _ = multitest.multipletests(p_values, method=theirs)
        method: Any = ours
        found = s.correct(p_values, method=method)
        assert np.allclose(np.array(found.p_values, dtype=float), adjusted, rtol=1e-9, atol=1e-14), ours


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(1, 4), st.integers(0, 10_000))
def test_ancova__statsmodels_ols(n: int, m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n + m, k)) @ rng.normal(size=(k, k)) + rng.normal(size=k) * 10
    group = np.repeat([0.0, 1.0], [n, m])
    y = x @ rng.normal(size=k) + 0.3 * group + rng.normal(size=n + m) + 100
    arms = [
        s.Moments.from_arrays({"y": y[group == g], **{f"x{i}": x[group == g, i] for i in range(k)}})
        for g in (0.0, 1.0)
    ]
    names = [f"x{i}" for i in range(k)]
    fit = sm.OLS(y, np.column_stack([np.ones(n + m), group, x])).fit()
    pooled = s.infer(s.adjust(arms[0], arms[1], "y", names, spread="pooled"))
    assert close(pooled.estimate, fit.params[1], 1e-6)
    assert close(pooled.standard_error, fit.bse[1], 1e-6)
    assert close(pooled.p_value, fit.pvalues[1], 1e-5)
    away = x - x.mean(axis=0)
    lin = sm.OLS(y, np.column_stack([np.ones(n + m), group, away, away * group[:, None]])).fit()
    assert close(s.adjust(arms[0], arms[1], "y", names, theta="interacted").estimate, lin.params[1], 1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 400), st.integers(30, 400), st.integers(0, 10_000))
def test_mean_ratio_and_cuped__tea_tasting(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1], [n, m])
    size = 1.0 + rng.poisson(5.0, n + m)
    pre = size * rng.gamma(4.0, 0.5, n + m)
    total = pre + rng.gamma(3.0, 1.0, n + m) * (1.0 + 0.1 * group)
    import pandas as pd

    frame = pd.DataFrame({"variant": group, "y": total, "n": size, "x": pre})
    result = tea_tasting.Experiment(
        mean=tea_tasting.Mean("y"),
        ratio=tea_tasting.RatioOfMeans("y", "n"),
        cuped=tea_tasting.Mean("y", "x"),
    ).analyze(frame)
    arms = [
        s.Moments.from_arrays({"y": total[group == g], "n": size[group == g], "x": pre[group == g]})
        for g in (0, 1)
    ]
    ours = {
        "mean": s.infer(s.contrast(*arms, "y"), lift="log"),
        "ratio": s.infer(s.contrast(*arms, s.Ratio("y", "n")), lift="log"),
        "cuped": s.infer(s.adjust(*arms, "y", ["x"], theta="joint", baseline="adjusted"), lift="log"),
    }
    for name, found in ours.items():
        theirs: Any = result[name]
        assert close(found.estimate, theirs.effect_size, 1e-7), name
        assert close(found.p_value, theirs.pvalue, 1e-6), name
        assert close(flat(found.interval), (theirs.effect_size_ci_lower, theirs.effect_size_ci_upper), 1e-6)
        assert close(
            flat(found.lift.interval),
            (theirs.rel_effect_size_ci_lower, theirs.rel_effect_size_ci_upper),
            1e-6,
        )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 5)), min_size=2, max_size=8),
)
def test_heterogeneity__statsmodels_with_truncation(pairs: list[tuple[float, float]]) -> None:
    effects, variances = (list(column) for column in zip(*pairs, strict=True))
    found = s.heterogeneity(effects, variances)
    with np.errstate(all="ignore"):
        oracle = combine_effects(np.array(effects), np.array(variances), method_re="dl")
    assert close(found.fixed, oracle.mean_effect_fe, 1e-7) or abs(oracle.mean_effect_fe) < 1e-9
    assert found.q == pytest.approx(oracle.q, rel=1e-7, abs=1e-9)
    assert found.tau2 == pytest.approx(max(0.0, oracle.tau2), rel=1e-6, abs=1e-9)
    assert found.p_value == pytest.approx(scipy.stats.chi2.sf(oracle.q, len(pairs) - 1), rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 1.0), st.integers(5, 5000), st.floats(0.2, 5.0), st.floats(0.01, 0.2))
def test_power_of_means__statsmodels(effect: float, n: int, ratio: float, alpha: float) -> None:
    for reference, oracle in (("t", sm_power.TTestIndPower()), ("normal", sm_power.NormalIndPower())):
        theirs = oracle.power(effect, n, alpha, ratio=ratio)
        assume(math.isfinite(theirs))
        which: Any = reference
        ours = s.power_means(effect, n, ratio=ratio, alpha=alpha, reference=which)
        assert ours == pytest.approx(theirs, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize(("n", "power"), [(1571, 0.8), (210_149, 0.9), (50, 0.95)])
def test_detectable_effect__has_the_wanted_power_in_the_reference(n: int, power: float) -> None:
    normal = s.detectable_means(n, power=power, reference="normal")
    assert sm_power.NormalIndPower().power(normal, n, 0.05) == pytest.approx(power, abs=1e-9)
    student = s.detectable_means(n, power=power)
    assert s.power_means(student, n) == pytest.approx(power, abs=1e-9)
    assert student > normal


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=2, max_size=6), st.data())
def test_sample_ratio__scipy(counts: list[int], data: st.DataObject) -> None:
    assume(sum(counts) > 0)
    weights = data.draw(st.lists(st.floats(0.05, 1), min_size=len(counts), max_size=len(counts)))
    found = s.sample_ratio([s.Phase(tuple(counts), tuple(weights))], method="chi_square")
    share = np.array(weights) / sum(weights)
    oracle = scipy.stats.chisquare(counts, share * sum(counts))
    assert found.statistic == pytest.approx(oracle.statistic, rel=1e-7)
    assert close(found.p_value, oracle.pvalue, 1e-6) or oracle.pvalue < 1e-290


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.data(), st.floats(0.05, 0.95))
def test_exact_sample_ratio__scipy(n: int, data: st.DataObject, p: float) -> None:
    x = data.draw(st.integers(0, n))
    found = s.sample_ratio([s.Phase((x, n - x), (p, 1.0 - p))], method="exact")
    assert found.method == "exact"
    oracle = scipy.stats.binomtest(x, n, p).pvalue
    assert found.p_value == pytest.approx(oracle, rel=1e-6, abs=1e-300)
    assert found.log10_p_value is not None
    assert oracle < 1e-290 or found.log10_p_value == pytest.approx(math.log10(oracle), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 25), st.integers(2, 25), st.integers(0, 10_000), SIDES, st.booleans())
def test_mann_whitney__scipy(n: int, m: int, seed: int, side: Any, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.permutation(n + m) if exact else rng.integers(0, 12, n + m)).astype(float)
    x, y = values[:n], values[n:]
    assume(np.unique(values).size > 1)
    method: Any = "exact" if exact else "asymptotic"
    oracle = scipy.stats.mannwhitneyu(y, x, alternative=side, method=method)
    found = s.mann_whitney(x, y, alternative=side, method=method)
    assert found.u == oracle.statistic
    assert close(found.p_value, oracle.pvalue, 1e-7)


def test_bootstrap_bca__scipy() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.gamma(2.0, 1.0, 80), rng.gamma(2.0, 1.3, 90)
    found = s.bootstrap(x, y, np.random.default_rng(1), method="bca", draws="multinomial", resamples=40_000)
    oracle = scipy.stats.bootstrap(
        (x, y),
        lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis),
        n_resamples=40_000,
        method="BCa",
        rng=np.random.default_rng(2),
    )
    width = oracle.confidence_interval.high - oracle.confidence_interval.low
    assert np.allclose(flat(found.interval), oracle.confidence_interval, atol=0.03 * width)


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 2000), st.floats(0.05, 0.95), st.floats(0.01, 0.2), st.integers(0, 1000))
def test_quantile_interval__scipy(n: int, q: float, alpha: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    found = s.quantile_interval(values, q, alpha=alpha)
    assume(found.interval is not None)
    oracle = scipy.stats.quantile_test(values, p=q).confidence_interval(confidence_level=1 - alpha)
    assert flat(found.interval) == pytest.approx((oracle.low, oracle.high))


@settings(max_examples=60, deadline=None)
@given(st.floats(1, 3000), st.floats(1, 3000), st.floats(1, 3000), st.floats(1, 3000), st.booleans())
@example(9.0, 1.0, 12.0, 1.5, True)
@example(10.5, 1.0, 9.5, 1.5, True)
@example(1.0, 1.0, 1.0, 1.0, True)
def test_beta_posterior__both_directions_add_up(a: float, b: float, c: float, d: float, rough: bool) -> None:
    # Below one a density has no bound at 1, where doubles are 1e-16 apart.
    tolerance = 1e-9
    first, second = s.Beta(a, 0.5 if rough else b), s.Beta(c, d)
    both = s.chance_above(first, second) + s.chance_above(second, first)
    assert both == pytest.approx(1.0, abs=tolerance)
    gap = s.expected_excess(first, second) - s.expected_excess(second, first)
    assert gap == pytest.approx(first.mean - second.mean, abs=tolerance)
    best = s.best_probabilities([first, second])
    assert best[0] == pytest.approx(s.chance_above(first, second), abs=tolerance)


def test_normal_losses__twenty_standard_deviations__agree_with_series() -> None:
    # 50-digit value of phi(20) - 20 * (1 - Phi(20)).
    small, _ = s.normal_losses(20.0, 1.0)
    assert small == pytest.approx(1.3714895083700768e-90, rel=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.02, 2)), min_size=2, max_size=5))
def test_best_probabilities__sum_to_one_and_match_pairs(arms: list[tuple[float, float]]) -> None:
    normals = [s.Normal(mean, sd) for mean, sd in arms]
    best = s.best_probabilities(normals)
    assert math.fsum(best) == pytest.approx(1.0, abs=1e-12)
    pair = s.best_probabilities(normals[:2])
    z = (normals[0].mean - normals[1].mean) / math.hypot(normals[0].sd, normals[1].sd)
    assert pair[0] == pytest.approx(scipy.stats.norm.cdf(z), abs=1e-10)


@pytest.mark.parametrize("side", ["larger", "smaller", "two-sided"])
def test_power_proportions__statsmodels(side: str) -> None:
    ours: Any = {"larger": "greater", "smaller": "less"}.get(side, side)
    for baseline, difference, n in ((0.1, 0.01, 9_000), (0.5, -0.02, 1_500)):
        found = s.power_proportions(baseline, difference, n, alternative=ours)
        oracle = sm_proportion.power_proportions_2indep(
            difference, baseline, n, alternative=side, return_results=False
        )
        assert close(found, oracle, 1e-9)


def test_sample_size_proportions__one_sided__has_the_wanted_power() -> None:
    n = s.sample_size_proportions(0.1, 0.01, alternative="greater", formula="pooled_null")
    assert s.power_proportions(0.1, 0.01, n, alternative="greater") == pytest.approx(0.8, abs=1e-9)
    assert n < s.sample_size_proportions(0.1, 0.01, formula="pooled_null")


@pytest.mark.parametrize("method", ["pearson", "log-likelihood", "freeman-tukey", "neyman", "cressie-read"])
@pytest.mark.parametrize("correction", [True, False])
def test_contingency__scipy(method: str, correction: bool) -> None:
    ours: Any = method.replace("-", "_")
    for n, x, m, y in ((40, 3, 50, 17), (10_000, 200, 10_100, 260), (30, 1, 2_000, 1_999)):
        found = s.contingency(s.Count(n, x), s.Count(m, y), method=ours, correction=correction)
        oracle = scipy.stats.chi2_contingency([[x, n - x], [y, m - y]], correction=correction, lambda_=method)
        assert close(found.statistic, oracle[0], 1e-9)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_ratio_interval_log_adjusted__no_successes__statsmodels(alpha: float) -> None:
    found = s.ratio_interval(s.Count(500, 0), s.Count(480, 4), alpha=alpha, method="log_adjusted")
    oracle = sm_proportion.confint_proportions_2indep(
        4, 480, 0, 500, compare="ratio", method="log-adjusted", alpha=alpha
    )
    assert found.value is None
    assert found.reason is s.Reason.BASELINE_ZERO
    assert close(flat(found.interval), np.array(oracle) - 1.0)
