"""The core by value: a published example, and the cases other engines get wrong."""

import math

import pytest

from assay.stats import (
    Count,
    Moments,
    Phase,
    Reason,
    arm_interval,
    compare,
    one_proportion,
    sample_ratio,
    two_proportions,
)


def test_welch__known_case__agrees_with_scipy_to_twelve_digits() -> None:
    found = compare(Moments.from_sum(3407, 1396.87, 52377.9767), Moments.from_sum(3461, 2422.7, 134698.29))
    assert found.estimate == pytest.approx(0.29, rel=1e-12)
    assert found.p_value == pytest.approx(0.02015840264358697, rel=1e-12)
    assert found.interval == pytest.approx((0.04537789255929006, 0.5346221074407099), rel=1e-12)
    assert found.significant is True


def test_zero_conversions_in_one_arm__decisive_difference__is_significant_without_a_lift() -> None:
    found = compare(Moments.from_counts(100_000, 0), Moments.from_counts(100_000, 40))
    assert found.estimate == 0.0004
    assert found.p_value is not None
    assert found.p_value < 1e-9
    assert found.lift.value is None
    assert found.lift.reason is Reason.BASELINE_ZERO


def test_no_spread_at_all__says_why_instead_of_p_one() -> None:
    found = compare(Moments.from_counts(10, 10), Moments.from_counts(10, 10))
    assert (found.p_value, found.interval, found.estimate) == (None, None, 0.0)
    assert found.reason is Reason.ZERO_VARIANCE


def test_one_arm__rate_and_mean_have_intervals() -> None:
    rate = one_proportion(Count(10, 0))
    assert rate.interval == pytest.approx((0.0, 0.27753279986288926), rel=1e-12)
    mean = arm_interval(Moments.from_arrays({"y": [1.0, 2.0, 3.0]}))
    half = 4.302652729911275 / math.sqrt(3.0)
    assert mean.interval == pytest.approx((2.0 - half, 2.0 + half), rel=1e-9)


def test_pooled_z__underflow__reports_the_logarithm() -> None:
    found = two_proportions(Count(1_000_000, 100_000), Count(1_000_000, 120_000))
    assert found.p_value == 0.0
    assert found.log10_p_value == pytest.approx(-445.36369408277733, rel=1e-10)


def test_sample_ratio__published_mismatch__is_found_with_its_p_value() -> None:
    found = sample_ratio([Phase((821_588, 815_482), (0.5, 0.5))])
    assert found.p_value == pytest.approx(1.8217928726191858e-06, rel=1e-9)
    assert found.mismatch is True
