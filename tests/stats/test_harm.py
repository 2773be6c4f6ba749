"""Harm beyond a margin: the bound by value, and the rate of false trips under looks without end."""

import math

import numpy as np
import pytest

from assay import stats as s
from stats.simulation import at_most, check

SIZES = [pytest.param(120, id="smoke"), pytest.param(4_000, id="nightly", marks=pytest.mark.nightly)]


def contrast(control: tuple[int, int], treatment: tuple[int, int]) -> s.Contrast:
    """Of converters among units."""
    return s.contrast(s.Moments.from_counts(*control), s.Moments.from_counts(*treatment))


def test_the_bound__is_that_of_the_one_sided_sequence() -> None:
    given = contrast((1000, 200), (1000, 250))
    found = s.harm_beyond(given, 0.02, planned=10_000, direction="decrease", alpha=0.01)
    # The control is taken to vary as much as the treatment, which varies more.
    error = math.sqrt(2 * 0.25 * 0.75 / 999)
    k = 2000 * s.tuned_rho2(10_000, 0.01, "greater")
    limit = s.multiplier(k, 0.01, "greater")
    assert found.null == 0.02
    assert found.standard_error == pytest.approx(error, rel=1e-12)
    assert found.statistic == pytest.approx(0.03 / error, rel=1e-9)
    assert found.bound == pytest.approx(0.05 - limit * error, rel=1e-9)
    assert not found.shown
    worse = s.harm_beyond(
        contrast((1000, 200), (1000, 350)), 0.02, planned=10_000, direction="decrease", alpha=0.01
    )
    assert worse.shown
    assert worse.bound is not None
    assert worse.bound > 0.02
    assert (worse.p_value or 1.0) < 0.01


def test_a_relative_margin__is_a_share_of_the_control_with_its_noise() -> None:
    given = contrast((4000, 800), (4000, 600))
    found = s.harm_beyond(given, 0.1, relative=True, planned=10_000)
    high, low = 0.2 * 0.8 / 3999, 0.15 * 0.85 / 3999
    assert found.null == pytest.approx(-0.02)
    # Of T - 0.9 C, with the variance of C for both.
    assert found.standard_error == pytest.approx(math.sqrt(high + 0.81 * high), rel=1e-9)
    assert low < high
    assert found.statistic == pytest.approx(-0.03 / math.sqrt(1.81 * high), rel=1e-9)


def test_an_arm_in_which_nothing_happens__is_harm_and_few_events_are_not() -> None:
    assert s.harm_beyond(contrast((1000, 20), (1000, 0)), 0.0, planned=10_000).reason is s.Reason.BURN_IN
    assert s.harm_beyond(contrast((1000, 60), (1000, 0)), 0.0, planned=10_000).shown
    # A tenth of the units: what the control has is little to expect of it.
    few = s.harm_beyond(contrast((9000, 200), (1000, 0)), 0.0, planned=10_000)
    assert (few.shown, few.reason) == (False, s.Reason.BURN_IN)
    assert s.harm_beyond(contrast((1000, 0), (1000, 0)), 0.0, planned=10_000).reason is s.Reason.ZERO_VARIANCE
    with pytest.raises(ValueError, match="margin is not negative"):
        s.harm_beyond(contrast((10, 1), (10, 1)), -0.1, planned=10_000)


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.parametrize(
    ("rate", "share", "direction"),
    [(0.05, 0.5, "increase"), (0.05, 0.1, "increase"), (0.05, 0.1, "decrease"), (0.3, 0.9, "increase")],
)
def test_false_trips__stay_within_their_rate_at_looks_without_end(
    runs: int, rate: float, share: float, direction: s.Direction
) -> None:
    rng = np.random.default_rng(20_261_121)
    trips = sum(_tripped(rng, (rate, rate), share, direction) is not None for _ in range(runs))
    check(f"false trips at {rate:g}, {share:g} treated, {direction}", trips / runs, at_most(0.05, runs))


def test_a_planted_harm__trips_soon() -> None:
    rng = np.random.default_rng(5)
    when = [_tripped(rng, (0.05, 0.0), 0.5, "increase") for _ in range(20)]
    assert all(each is not None and each <= 25 for each in when)  # a look for each 100 units
    crashes = [_tripped(rng, (0.01, 0.08), 0.5, "decrease") for _ in range(20)]
    assert all(each is not None and each <= 25 for each in crashes)


def _tripped(
    rng: np.random.Generator, rates: tuple[float, float], share: float, direction: s.Direction
) -> int | None:
    """The number of the look, of 100 after 100 units each, at which it trips."""
    units, events = np.zeros(2, int), np.zeros(2, int)
    for look in range(1, 101):
        more = rng.multinomial(100, [1 - share, share])
        units, events = units + more, events + rng.binomial(more, rates)
        if units.min() > 1:
            given = contrast((int(units[0]), int(events[0])), (int(units[1]), int(events[1])))
            if s.harm_beyond(given, 0.0, planned=10_000, direction=direction, alpha=0.05).shown:
                return look
    return None
