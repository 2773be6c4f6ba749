"""A changed split must not turn a drifting baseline into an effect."""

import math
from dataclasses import replace

import numpy as np
import pytest

from assay.reports.arms import ByPhase, Tally
from assay.reports.compare import compare_arms
from assay.reports.report import Health, Verdict
from assay.reports.spec import ExperimentSpec, MetricSpec, MetricType
from assay.reports.strata import comparable
from assay.reports.views.common import conventional
from assay.stats import Moments
from contracts.event_store import DAY, NOW
from reports.world import BLUE, CONTROL, PURCHASE, SPEC, THREE, World, phase

RAMP = replace(SPEC, phases=(phase(1, 0.9, 0.1), phase(2, 0.5, 0.5)))
COUNT = MetricSpec("orders", "orders", MetricType.COUNT, "purchase")


def share(units: int, converters: int) -> Tally:
    """A tally in which each converter has one event worth 1."""
    one = Moments.from_counts(units, converters).comoments[0][0]
    rate = converters / units if units else 0.0
    columns = ("converted", "events", "total")
    return Tally(
        converters, converters, float(converters), Moments(units, columns, (rate,) * 3, ((one,) * 3,) * 3)
    )


def p_value(spec: ExperimentSpec, metric: MetricSpec, control: ByPhase, treatment: ByPhase) -> float:
    found = compare_arms(spec, metric, (CONTROL, BLUE), {10: control, 11: treatment}, alpha=0.05)
    assert found.effect.p_value is not None
    return found.effect.p_value


@pytest.mark.parametrize("metric", [PURCHASE, COUNT])
def test_ramp_over_a_drifting_baseline__errs_no_more_often_than_its_level(metric: MetricSpec) -> None:
    """90/10 at 5 %, then 50/50 at 6 %, both arms alike: a plain test errs about half the time."""
    rng = np.random.default_rng(90_10_50_50)
    runs, phases = 1000, ((1, 0.05, (36_000, 4_000)), (2, 0.06, (20_000, 20_000)))
    drawn = {
        (number, arm): rng.binomial(units[arm], rate, runs)
        for number, rate, units in phases
        for arm in (0, 1)
    }
    stratified = plain = 0
    for run in range(runs):
        control, treatment = (
            {number: share(units[arm], int(drawn[number, arm][run])) for number, _, units in phases}
            for arm in (0, 1)
        )
        stratified += p_value(RAMP, metric, control, treatment) <= 0.05
        plain += p_value(SPEC, metric, control, treatment) <= 0.05
    assert 0.03 < stratified / runs < 0.07
    assert plain / runs > 0.4


def test_stratified__is_the_weighted_difference_of_the_phases() -> None:
    control = {1: share(900, 45), 2: share(500, 30)}
    treatment = {1: share(100, 8), 2: share(500, 45)}
    found = compare_arms(RAMP, PURCHASE, (CONTROL, BLUE), {10: control, 11: treatment}, alpha=0.05)
    # Each phase holds half of the units: weights 1/2; differences 0.03 and 0.03.
    assert found.effect.estimate == pytest.approx(0.03)
    parts = [(0.05 * 0.95, 899), (0.08 * 0.92, 99), (0.06 * 0.94, 499), (0.09 * 0.91, 499)]
    assert found.effect.standard_error == pytest.approx(math.sqrt(sum(0.25 * v / n for v, n in parts)))
    assert (found.strata, found.left_out) == (2, 0)
    assert found.effect.lift.value == pytest.approx(0.03 / 0.055)
    said = conventional(found, 0.05, 0.05)
    assert (said.method, said.interval_method) == ("post_stratified_t", "post_stratified")
    assert said.interval is not None
    assert said.interval.low == pytest.approx(found.effect.interval and found.effect.interval.low)


def test_same_split_in_several_phases__is_one_stratum() -> None:
    spec = replace(
        SPEC, phases=(phase(1, 0.5, 0.5), phase(2, 0.2, 0.2), phase(3, 0.9, 0.1), phase(4, 0.3, 0.3))
    )
    tallies = {number: share(10, 5) for number in (1, 2, 3, 4)}
    strata = comparable(spec, tallies, tallies, (0, 1))
    assert sorted(pair.control.units for pair in strata.pairs) == [10, 30]


def test_units_of_a_closed_variant__are_left_out(world: World) -> None:
    # At first there was only the control, converting rarely; then both were open.
    spec = replace(SPEC, phases=(phase(1, 1.0), phase(2, 0.5, 0.5)))
    world.units(10, 1000, phase=1, prefix="early")
    world.units(10, 200, phase=2)
    world.units(11, 200, phase=2)
    world.events(10, 40)
    world.events(11, 40)
    report = world.report(spec)
    [found] = report.primary.comparisons
    assert (found.strata, found.left_out) == (1, 1000)
    assert found.effect.estimate == 0.0
    assert (found.effect.count_control, found.control_tally.units) == (200, 200)
    assert report.primary.arms[0].units == 1200
    checks = {check.name: check for check in report.checks}
    assert checks["steady_split"].health is Health.WARNING
    assert checks["sample_ratio"].health is Health.OK
    assert report.decision.verdict is Verdict.KEEP_RUNNING


def test_thin_strata__join_the_largest() -> None:
    control = {1: share(1, 0), 2: share(500, 30)}
    treatment = {1: share(3, 1), 2: share(500, 45)}
    strata = comparable(RAMP, control, treatment, (0, 1))
    assert [(pair.control.units, pair.treatment.units) for pair in strata.pairs] == [(501, 503)]
    thin = comparable(RAMP, {1: share(1, 0), 2: share(1, 1)}, {1: share(1, 0), 2: share(1, 0)}, (0, 1))
    assert [(pair.control.units, pair.treatment.units) for pair in thin.pairs] == [(2, 2)]


def test_units_against_the_record__are_compared_as_they_are(world: World) -> None:
    """Imported units may be in a variant that was never dealt any; the sample ratio says so."""
    spec = replace(SPEC, phases=(phase(0, 1.0),))
    world.units(10, 50)
    world.units(11, 50)
    report = world.report(spec)
    [found] = report.primary.comparisons
    assert (found.effect.count_control, found.effect.count_treatment) == (50, 50)
    assert report.sample_ratio is not None
    assert report.sample_ratio.stray == 50
    assert report.decision.verdict is Verdict.FIX


def test_ramp__raises_no_sample_ratio_alarm_and_a_leak_does(world: World) -> None:
    world.units(10, 900, phase=1, at=NOW - 2 * DAY, prefix="a")
    world.units(11, 100, phase=1, at=NOW - 2 * DAY, prefix="a")
    world.units(10, 500, phase=2)
    world.units(11, 500, phase=2)
    assert not world.report(RAMP).sample_ratio.mismatch  # type: ignore[union-attr]
    world.units(11, 200, phase=2, prefix="leak")
    report = world.report(RAMP)
    assert report.sample_ratio is not None
    assert report.sample_ratio.mismatch
    assert report.decision.verdict is Verdict.FIX


def test_third_variant_switched_off__leaves_the_others_one_stratum() -> None:
    spec = replace(THREE, phases=(phase(1, 0.4, 0.3, 0.3), phase(2, 0.4, 0.3, 0.0)))
    strata = comparable(spec, {1: share(40, 4), 2: share(40, 4)}, {1: share(30, 3), 2: share(30, 3)}, (0, 1))
    assert len(strata.pairs) == 1
