"""Bandits over and over, by the report's own path but for the store: shares, intervals and decisions.

The baseline drifts from phase to phase, which is what misleads those who pool the units of all phases.
"""

from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import pytest

from assay.reports.arms import ByVariant, Tally
from assay.reports.bandit import bandit_of
from assay.reports.compare import report_metric
from assay.reports.judging import judged_reports
from assay.reports.spec import AnalysisSpec, BanditSpec, Direction, ExperimentSpec
from assay.stats import Moments
from reports.world import BLUE, CONTROL, GREEN, PURCHASE, SPEC, TIME, phase
from stats.simulation import at_most, check

HOW = BanditSpec(timedelta(days=1), 0.05, "thompson", 0.95, 0.01)
START = replace(
    SPEC,
    variants=tuple(replace(each, allocation=1 / 3) for each in (CONTROL, BLUE, GREEN)),
    analysis=AnalysisSpec(method="bandit", bandit=HOW),
    phases=(),
)
PHASES, UNITS = 12, 1200


class Ran(NamedTuple):
    """What came of one bandit: the mean share of each arm, and whether each interval held at all times."""

    shares: tuple[float, ...]
    held: bool
    held_at_the_end: bool
    error: float


def tally(units: int, events: int) -> Tally:
    means = dict.fromkeys(("converted", "events", "total"), events / units)
    spread = means["converted"] * (1 - means["converted"]) * units / (units - 1)
    names = tuple(means)
    pairs = {(x, y): spread for i, x in enumerate(names) for y in names[i:]}
    return Tally(events, events, float(events), Moments.from_centred(units, means, pairs))


def run(rng: np.random.Generator, lifts: tuple[float, float, float], metric=PURCHASE) -> Ran:  # type: ignore[no-untyped-def]
    """A bandit whose shares follow what it knows after each phase; `lifts` are added to the baseline."""
    spec: ExperimentSpec = replace(START, metrics=(metric,))
    tallies: dict[int, dict[int, Tally]] = {each.id: {} for each in spec.variants}
    shares, dealt, held, at_end, gap = [1 / 3] * 3, np.zeros(3), True, True, 0.0
    for number in range(PHASES):
        spec = replace(spec, phases=(*spec.phases, phase(number, *shares)))
        baseline = 0.10 + 0.05 * np.sin(number)
        counts = rng.multinomial(UNITS, shares)
        for each, count, lift in zip(spec.variants, counts, lifts, strict=True):
            tallies[each.id][number] = tally(int(count), int(rng.binomial(count, baseline + lift)))
        dealt += counts
        report = judged(spec, metric, tallies)
        at_end = True
        for each, lift in zip(report.comparisons, lifts[1:], strict=True):
            assert each.judged is not None
            interval = each.judged.numbers.interval
            at_end = at_end and (interval is None or interval.contains(lift - lifts[0]))
            gap = (each.judged.numbers.difference or 0.0) - (lift - lifts[0])
        held = held and at_end
        known = bandit_of(spec, report)
        assert known is not None
        if known.arms:
            shares = [arm.next_share for arm in known.arms]
            spec = replace(
                spec,
                variants=tuple(
                    replace(each, allocation=share) for each, share in zip(spec.variants, shares, strict=True)
                ),
            )
    return Ran(tuple(dealt / dealt.sum()), held, at_end, gap)


def judged(spec: ExperimentSpec, metric, tallies: ByVariant):  # type: ignore[no-untyped-def]
    found = {metric: report_metric(spec, metric, tallies, spec.variants, alpha=0.05)}
    units = sum(each.units for by_phase in tallies.values() for each in by_phase.values())
    return judged_reports(spec, found, metric, units=units, now=TIME, alpha=0.05)[metric]


SIZES = [pytest.param(25, id="smoke"), pytest.param(2_000, id="nightly", marks=pytest.mark.nightly)]


@pytest.mark.parametrize("runs", SIZES)
def test_equal_arms__share_the_traffic_and_intervals_hold_at_all_times(runs: int) -> None:
    rng = np.random.default_rng(20_261_121)
    found = [run(rng, (0.0, 0.0, 0.0)) for _ in range(runs)]
    # Over many bandits none is preferred; one alone wanders.
    mean = np.mean([each.shares for each in found], axis=0)
    assert np.abs(mean - 1 / 3).max() < 4 * 0.2 / runs**0.5
    check(
        "bandit, A/A: an interval that ever misses",
        np.mean([not each.held for each in found]),
        at_most(0.05, runs),
    )


@pytest.mark.parametrize("runs", SIZES)
def test_the_best_arm__gets_most_of_the_traffic_and_is_measured_without_bias(runs: int) -> None:
    rng = np.random.default_rng(11)
    found = [run(rng, (0.0, 0.01, 0.05)) for _ in range(runs)]
    assert np.mean([each.shares[2] for each in found]) > 0.6
    assert np.mean([each.shares[2] > max(each.shares[:2]) for each in found]) > 0.95
    check(
        "bandit, A/B: an interval that ever misses",
        np.mean([not each.held for each in found]),
        at_most(0.05, runs),
    )
    errors = [each.error for each in found]
    assert abs(np.mean(errors)) < 5 * np.std(errors) / runs**0.5


def test_the_direction__is_respected() -> None:
    rng = np.random.default_rng(3)
    lower = replace(PURCHASE, direction=Direction.DECREASE)
    found = [run(rng, (0.05, 0.05, 0.0), lower) for _ in range(10)]
    assert np.mean([each.shares[2] for each in found]) > 0.6
