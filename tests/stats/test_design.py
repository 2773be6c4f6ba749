"""Planning and allocating: sizes, powers, durations, bandit weights."""

import math

import numpy as np
import pytest

from assay import stats as s
from assay.stats import Moments


def test_design__sizes_and_powers_are_each_others_inverse() -> None:
    baseline = s.Baseline(0.1, 0.09)
    for design in (
        s.Design(),
        s.Design("group_sequential", looks=5),
        s.Design("always_valid", looks=10),
        s.Design("fixed", ratio=0.25, alternative="greater"),
    ):
        plan = s.plan(baseline, lift=0.05, power=0.9, design=design)
        assert plan.units is not None
        assert plan.expected_units is not None
        assert s.power_of(baseline, 0.005, plan.units, design) == pytest.approx(0.9, abs=1e-8)
        back = s.detectable(baseline, plan.units, power=0.9, design=design)
        assert back.lift == pytest.approx(0.05, rel=1e-8)
        assert plan.expected_units <= plan.units * (1 + 1e-12)
    fixed = s.plan(baseline, lift=0.05).units or 0.0
    cost = (s.plan(baseline, lift=0.05, design=s.Design("group_sequential", looks=5)).units or 0.0) / fixed
    assert cost == pytest.approx(1.026, abs=0.004)
    assert s.plan(baseline, lift=0.0).reason is s.Reason.UNREACHABLE
    assert s.days_needed(1000, 30) == 34
    assert s.days_needed(1000, [100.0] * 5) == 10
    assert s.days_needed(1000, 0.0) is None


def test_baseline__ratio_and_covariates_feed_the_design() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(10.0, 2.0, 5000)
    arm = Moments.from_arrays({"y": x + rng.normal(0.0, 1.0, 5000), "x": x})
    plain, adjusted = s.baseline_of(arm, "y"), s.baseline_of(arm, "y", ["x"])
    assert isinstance(plain, s.Baseline)
    assert isinstance(adjusted, s.Baseline)
    assert plain.variance == pytest.approx(5.0, rel=0.05)
    assert adjusted.variance == pytest.approx(1.0, rel=0.1)
    assert s.baseline_of(Moments.empty()) is s.Reason.NO_DATA


def test_bandit__floor_and_second_best() -> None:
    arms = [s.Normal(0.0, 1.0), s.Normal(0.5, 1.0), s.Normal(-1.0, 1.0)]
    best = s.bandit_weights(arms, floor=0.05)
    top = s.bandit_weights(arms, method="top_two", floor=0.0)
    assert math.fsum(best.weights) == pytest.approx(1.0)
    assert min(best.weights) >= 0.05
    assert math.fsum(top.weights) == pytest.approx(1.0)
    assert top.weights[0] > best.best[0]
    low = s.bandit_weights(arms, lower_is_better=True)
    assert low.best[2] == max(low.best)
    with pytest.raises(ValueError, match="leaves nothing"):
        s.bandit_weights(arms, floor=0.5)


def test_bandit__periods_are_weighed_by_their_size() -> None:
    periods = [
        [Moments.from_mean(900, 1.0, 1.0), Moments.from_mean(100, 1.1, 1.0)],
        [Moments.from_mean(100, 2.0, 1.0), Moments.from_mean(900, 2.1, 1.0)],
    ]
    found = s.period_posteriors(periods)
    assert not isinstance(found, s.Reason)
    assert found[1].mean - found[0].mean == pytest.approx(0.1)
    assert s.period_posteriors([]) is s.Reason.NO_DATA
