"""Every check of a report's health, silent on sound data and speaking on planted faults."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from assay.errors import Unavailable
from assay.eventstore.base import Arrivals
from assay.reports.audience import Attributed, ByAttribute, nothing_known
from assay.reports.checks.attributes import localised
from assay.reports.checks.effects import novelty
from assay.reports.checks.split import sample_ratio
from assay.reports.evidence import Course, Steps
from assay.reports.report import Check, Health
from assay.reports.spec import ExperimentSpec, MetricType, NeighbourSpec
from assay.stats import Moments
from contracts.event_store import DAY, HOUR, NOW, event
from reports.world import PURCHASE, SPEC, THREE, TIME, World, phase

BEGUN = replace(SPEC, started_at=TIME - timedelta(days=20))
RAMP = replace(SPEC, phases=(phase(1, 0.9, 0.1), phase(2, 0.5, 0.5), phase(3, 0.1, 0.9)))


def checked(world: World, name: str, spec: ExperimentSpec = BEGUN, **asked: Any) -> Check:
    """One check of a report."""
    [found] = [each for each in world.report(spec, **asked).checks if each.name == name]
    return found


def arrive(world: World, days: int, counts: Callable[[int], tuple[int, int]], number: int = 0) -> None:
    """Units of control and blue for each of the last days, the last one that of NOW."""
    for ago in range(days, 0, -1):
        for variant, units in zip((10, 11), counts(ago), strict=True):
            world.units(variant, units, phase=number, at=NOW - ago * DAY + HOUR, prefix=f"d{ago}-{number}-")


class TestSampleRatio:
    def test_an_even_split_is_sound(self, world: World) -> None:
        arrive(world, 5, lambda _: (100, 103))
        found = checked(world, "sample_ratio")
        assert found.health is Health.OK
        assert found.inputs["counts"] == [500, 515]
        assert found.inputs["expected"] == [507.5, 507.5]
        assert found.inputs["any_time_p_value"] == 1.0

    def test_a_day_on_which_units_were_lost_is_named(self, world: World) -> None:
        arrive(world, 6, lambda ago: (200, 60 if ago == 3 else 200))
        found = checked(world, "sample_ratio")
        assert found.health is Health.FAILED
        day = f"{TIME - timedelta(days=3) + timedelta(hours=1):%Y-%m-%d}"
        assert found.sentence.endswith(f"It stands out on {day}: what changed then?")
        [named] = found.inputs["days"]  # type: ignore[misc]
        assert (named["day"], named["counts"], named["expected"]) == (day, [200, 60], [130.0, 130.0])
        assert named["p_value"] < 1e-15

    def test_a_steady_leak_is_of_no_day(self, world: World) -> None:
        arrive(world, 8, lambda _: (220, 180))
        found = checked(world, "sample_ratio")
        assert found.health is Health.FAILED
        assert "No day stands out" in found.sentence
        assert found.inputs["p_value"] == pytest.approx(1.54e-8, rel=0.01)

    def test_deviations_of_two_phases_do_not_cancel(self, world: World) -> None:
        spec = replace(BEGUN, phases=(phase(1, 0.5, 0.5), phase(2, 0.5, 0.5)))
        world.units(10, 700, phase=1, at=NOW - 3 * DAY, prefix="a")
        world.units(11, 500, phase=1, at=NOW - 3 * DAY, prefix="a")
        world.units(10, 500, phase=2, prefix="b")
        world.units(11, 700, phase=2, prefix="b")
        found = checked(world, "sample_ratio", spec)
        assert found.inputs["p_value"] == 1.0
        assert found.health is Health.FAILED
        assert "in phase 1, 2, though not in sum" in found.sentence
        assert [each["phase"] for each in found.inputs["phases"]] == [1, 2]  # type: ignore[union-attr]

    def test_stray_units_are_called_so(self, world: World) -> None:
        spec = replace(THREE, started_at=BEGUN.started_at, phases=(phase(1, 0.5, 0.5, 0.0),))
        for variant, units in ((10, 100), (11, 100), (12, 3)):
            world.units(variant, units, phase=1)
        found = checked(world, "sample_ratio", spec)
        assert found.health is Health.FAILED
        assert found.sentence.startswith("3 units are in a variant that was dealt none")

    def test_units_of_before_the_first_phase_are_held_against_its_split(self, world: World) -> None:
        spec = replace(RAMP, started_at=TIME - timedelta(days=20))
        world.units(10, 900, phase=0)
        world.units(11, 100, phase=0)
        assert checked(world, "sample_ratio", spec).health is Health.OK

    def test_a_ramp_through_the_store_raises_no_alarm(self, world: World) -> None:
        # Ten days at each share, each day as even as whole units can be.
        for number, treated in ((1, 10), (2, 50), (3, 90)):
            for day in range(3):
                at = NOW - (12 - 3 * number - day) * DAY
                world.units(10, 100 - treated, phase=number, at=at, prefix=f"{number}-{day}-")
                world.units(11, treated, phase=number, at=at, prefix=f"{number}-{day}-")
        spec = replace(BEGUN, phases=(phase(1, 0.9, 0.1), phase(2, 0.5, 0.5), phase(3, 0.1, 0.9)))
        found = checked(world, "sample_ratio", spec)
        assert found.health is Health.OK
        assert found.inputs["counts"] == found.inputs["expected"] == [450, 450]


@pytest.mark.parametrize(
    ("runs", "most"),
    # At most 0.001 + 0.001 (phases) + 0.001 (days) + 0.01 (any time): 99.9 % points of the binomial.
    [pytest.param(200, 9, id="smoke"), pytest.param(4_000, 76, id="long", marks=pytest.mark.nightly)],
)
def test_ramp__raises_hardly_any_alarm_read_on_every_day(runs: int, most: int) -> None:
    assert alarms(runs, ((1, 0.1), (2, 0.5), (3, 0.9)), leak=0.0, seed=11) <= most


@pytest.mark.parametrize(
    ("runs", "fewest"),
    # 24,000 units of 51/49 are 3.1 standard errors, 96,000 are 6.2: found but for one in a thousand.
    [pytest.param(100, 97, id="smoke"), pytest.param(1_000, 990, id="long", marks=pytest.mark.nightly)],
)
def test_leak__of_one_point_is_found(runs: int, fewest: int) -> None:
    assert alarms(runs, ((1, 0.5),), leak=1 - 49 / 51, seed=13, daily=8_000) >= fewest


def known(**groups: tuple[int, int]) -> ByAttribute:
    """Units of control and blue by browser; `none` are those without one."""
    return ByAttribute(
        sum(map(sum, groups.values())),
        tuple(
            Attributed(
                "browser",
                "none" if name == "none" else "value",
                None if name == "none" else name,
                ((10, 0, own), (11, 0, other)),
            )
            for name, (own, other) in groups.items()
        ),
    )


class TestWhereItIs:
    def test_units_lost_of_one_browser_are_told_apart_from_the_others(self) -> None:
        groups = known(chrome=(5000, 5050), safari=(1000, 700), firefox=(800, 790), none=(20, 24))
        found = localised(SPEC, lambda: groups, 0.001)
        assert found.sentence == (
            "Among users it stands out where browser is 'safari' (p < 0.001): the others hold their shares."
        )
        assert (found.inputs["units"], found.inputs["groups"]) == (13_384, 4)
        assert found.inputs["threshold"] == 0.00025
        [named] = found.inputs["standing_out"]  # type: ignore[misc]
        assert (named["value"], named["counts"], named["expected"]) == ("safari", [1000, 700], [850, 850])
        assert named["p_value"] == pytest.approx(3.46e-13, rel=0.01)
        assert named["p_value_of_others"] == pytest.approx(0.684, abs=0.001)

    def test_a_leak_everywhere_is_of_no_group(self) -> None:
        found = localised(SPEC, lambda: known(chrome=(5000, 4500), safari=(2500, 2200)), 0.001)
        assert found.sentence.endswith("and among the others, too: the cause is no such group.")
        assert [each["value"] for each in found.inputs["standing_out"]] == ["chrome", "safari"]  # type: ignore[attr-defined]

    def test_no_group_and_no_answer_are_said(self) -> None:
        assert localised(SPEC, lambda: known(chrome=(500, 510)), 0.001).sentence == (
            "No attribute of users tells where."
        )
        assert localised(SPEC, nothing_known, 0.001).sentence == ""

        def broken() -> ByAttribute:
            raise Unavailable("The catalog is busy.")

        found = localised(SPEC, broken, 0.001)
        assert found.sentence == "Users' attributes could not be read: The catalog is busy."

    def test_groups_drawn_by_lot_stand_out_no_oftener_than_the_level_says(self) -> None:
        random = np.random.default_rng(17)
        named = 0
        for _ in range(300):
            sizes = random.integers(50, 2_000, 8)
            treated = random.binomial(sizes, 0.5)
            groups = {
                f"b{at}": (int(size - own), int(own))
                for at, (size, own) in enumerate(zip(sizes, treated, strict=True))
            }
            made = known(**groups)
            named += bool(localised(SPEC, lambda made=made: made, 0.05).inputs["standing_out"])  # type: ignore[misc]
        assert named <= 28  # 15 expected; the 99.9 % point of the binomial


def alarms(
    runs: int, phases: tuple[tuple[int, float], ...], *, leak: float, seed: int, daily: int = 1_000
) -> int:
    """In how many of so many experiments of 12 days the check fails at the end.

    `phases` are numbers and the treatment's shares, in turn; `leak` is the share of its units that is lost.
    """
    random = np.random.default_rng(seed)
    spec = replace(SPEC, phases=tuple(phase(number, 1.0 - share, share) for number, share in phases))
    days = 12 // len(phases)
    failed = 0
    for _ in range(runs):
        arrivals = []
        for day in range(12):
            number, share = phases[day // days]
            treated = int(random.binomial(daily, share))
            at = NOW - NOW % DAY + (day - 12) * DAY
            arrivals.append(Arrivals(at, 10, number, daily - treated))
            arrivals.append(Arrivals(at, 11, number, int(random.binomial(treated, 1.0 - leak))))
        failed += sample_ratio(spec, arrivals, None).health is Health.FAILED
    return failed


class TestEvents:
    """What became of events."""

    def test_sound_events_are_left_in_peace(self, world: World) -> None:
        world.units(10, 60)
        world.units(11, 60)
        world.events(10, 60, x=1, y=10)
        world.events(11, 60, x=1, y=11)
        world.events(11, 60, at=NOW - 3 * DAY)  # of before, and of no experiment: nothing is wrong with it
        names = (
            "one_variant",
            "before_assignment",
            "unassigned_events",
            "late_events",
            "duplicates",
            "reversals",
        )
        for name in names:
            assert checked(world, name).health is Health.OK, name
        assert checked(world, "before_assignment").inputs == {
            "events": 60,
            "naming_the_experiment": 0,
            "of": 120,
        }

    def test_units_that_have_seen_two_variants_fail(self, world: World) -> None:
        world.units(10, 100)
        world.units(11, 100)
        world.events(10, 100, x=1, y=10)
        world.events(11, 30, x=1, y=10)
        found = checked(world, "one_variant")
        assert found.health is Health.FAILED
        assert found.inputs == {
            "claims": 130,
            "mismatched_events": 30,
            "mismatched_units": 30,
            "mismatched_exposures": 0,
        }
        assert found.sentence.startswith("30 events of 30 units (23.1 % of those that say one)")

    def test_a_single_mishap_is_only_worth_a_look(self, world: World) -> None:
        world.units(10, 2)
        world.events(10, 1, x=1, y=11)
        assert checked(world, "one_variant").health is Health.WARNING

    def test_events_before_their_assignment_are_told(self, world: World) -> None:
        world.units(10, 50, at=NOW)
        world.events(10, 20, x=1, at=NOW - HOUR)
        world.events(10, 50, x=1, at=NOW)
        found = checked(world, "before_assignment")
        assert found.health is Health.WARNING
        assert found.inputs == {"events": 20, "naming_the_experiment": 20, "of": 70}
        assert found.sentence.startswith("20 events that name the experiment (28.6 %) happened before")

    def test_events_of_strangers_are_told(self, world: World) -> None:
        world.units(10, 50)
        world.events(10, 50, x=1)
        world.events(10, 12, x=1, prefix="stranger")
        world.events(10, 99, prefix="stranger")
        found = checked(world, "unassigned_events")
        assert found.health is Health.WARNING
        assert found.inputs == {"events": 12, "of": 62}

    def test_events_after_the_end_are_told(self, world: World) -> None:
        ended = replace(BEGUN, status="stopped", ended_at=TIME - timedelta(hours=2))
        world.units(10, 50)
        world.events(10, 50, x=1, at=NOW - 3 * HOUR)
        world.events(10, 15, x=1, at=NOW)
        world.events(10, 40, at=NOW)
        found = checked(world, "late_events", ended)
        assert found.health is Health.WARNING
        assert found.inputs == {"naming_the_experiment": 15, "of": 65}
        assert checked(world, "late_events").health is Health.OK

    def test_repeated_events_are_told(self, world: World) -> None:
        world.units(10, 30)
        for _ in range(2):
            world.feed.events(*(event(f"u10-{number}", id=str(number)) for number in range(30)))
        found = checked(world, "duplicates")
        assert found.health is Health.WARNING
        assert found.inputs == {"dropped": 30, "stored": 30, "share": 0.5}

    def test_events_taken_back_are_told(self, world: World) -> None:
        world.units(10, 30)
        world.feed.events(*(event(f"u10-{number}", id=str(number)) for number in range(30)))
        world.feed.events(
            *(event(f"u10-{number}", "refund", p={"reverses": str(number)}) for number in range(20))
        )
        found = checked(world, "reversals")
        assert found.health is Health.WARNING
        assert found.inputs == {"reversed": 20, "counted": 30}


class TestIntake:
    """Whether units and events keep coming."""

    def test_a_steady_intake_is_sound(self, world: World) -> None:
        arrive(world, 10, lambda ago: (50 + ago % 3, 50))
        found = checked(world, "exposure_drop")
        assert found.health is Health.OK
        assert found.inputs == {"last_24_hours": 101, "days_before": [102, 100, 101, 102, 100, 101, 102]}

    def test_a_sharp_fall_is_told(self, world: World) -> None:
        arrive(world, 10, lambda ago: (10, 10) if ago == 1 else (50, 50))
        found = checked(world, "exposure_drop")
        assert found.health is Health.WARNING
        assert found.sentence.startswith(
            "Only 20 units came in during the last 24 hours, 100 or more on each"
        )
        assert checked(world, "exposure_drop", replace(BEGUN, status="paused")).health is Health.OK

    def test_a_fall_on_purpose_begins_a_phase_and_is_none(self, world: World) -> None:
        arrive(world, 10, lambda ago: (10, 10) if ago <= 2 else (0, 0), number=2)
        arrive(world, 10, lambda ago: (50, 50) if ago > 2 else (0, 0), number=1)
        found = checked(world, "exposure_drop")
        assert found.health is Health.OK
        assert found.inputs["days_before"] == [20]

    def test_events_that_stop_are_told(self, world: World) -> None:
        arrive(world, 6, lambda _: (50, 50))
        for ago in (5, 4, 3):
            world.events(10, 50, prefix="d6-0-", at=NOW - ago * DAY)
        found = checked(world, "events_stop")
        assert found.health is Health.WARNING
        assert found.sentence.startswith(
            "No event has counted for 3 days, when about 225 were to be expected"
        )
        world.events(10, 1, prefix="d6-0-", at=NOW - HOUR)
        assert checked(world, "events_stop").health is Health.OK


class TestBalance:
    """Whether the arms were alike before."""

    def test_arms_that_were_alike_are_sound(self, world: World) -> None:
        world.units(10, 300)
        world.units(11, 300)
        world.events(10, 90, "view", at=NOW - 3 * DAY)
        world.events(11, 95, "view", at=NOW - 3 * DAY)
        found = checked(world, "balance")
        assert found.health is Health.OK
        [compared] = found.inputs["covariates"]  # type: ignore[misc]
        assert (compared["covariate"], compared["treatment"]) == ("having any event", "blue")
        assert compared["before"] == pytest.approx(95 / 300)
        # scipy.stats.ttest_ind of the same 0s and 1s, by the normal distribution: z = 0.4421.
        assert compared["p_value"] == pytest.approx(0.658, abs=0.001)

    def test_arms_that_differed_by_any_event_fail(self, world: World) -> None:
        world.units(10, 300)
        world.units(11, 300)
        world.events(10, 150, "view", at=NOW - 3 * DAY)
        world.events(11, 90, "view", at=NOW - 3 * DAY)
        found = checked(world, "balance")
        assert found.health is Health.FAILED
        assert "blue and control differed in having any event before their assignment" in found.sentence

    def test_arms_that_differed_in_what_a_metric_looks_back_at_fail(self, world: World) -> None:
        spent = replace(PURCHASE, key="spent", name="spent", type=MetricType.SUM, lookback=7 * DAY)
        spec = replace(BEGUN, metrics=(PURCHASE, spent))
        world.units(10, 200)
        world.units(11, 200)
        for variant, amount in ((10, 5.0), (11, 9.0)):
            world.feed.events(
                *(event(f"u{variant}-{n}", at=NOW - 2 * DAY, a=amount + n % 7) for n in range(200))
            )
        found = checked(world, "balance", spec)
        assert found.health is Health.FAILED
        assert "differed in spent (before late)" in found.sentence
        [worst] = [each for each in found.inputs["covariates"] if each["p_value"]]  # type: ignore[attr-defined]
        assert (worst["before"], worst["before_control"]) == (pytest.approx(11.97), pytest.approx(7.97))
        assert "spent" not in checked(world, "balance").sentence


#: The days on which something is bought, two weeks after the start, so that one of them is followed.
FOLLOWED = replace(
    SPEC,
    started_at=TIME - timedelta(days=14),
    metrics=(replace(PURCHASE, type=MetricType.COUNT),),
)


class TestNovelty:
    """Whether the effect has a trend."""

    def test_a_constant_lift_of_a_fading_habit_is_none(self, world: World) -> None:
        self.fill(world, lambda day: (240 - 30 * day, 300 - 37 * day))
        found = checked(world, "novelty", FOLLOWED)
        assert found.health is Health.OK
        [trend] = found.inputs["treatments"]  # type: ignore[misc]
        assert [round(each["lift"], 2) for each in trend["lifts"]] == [
            0.25,
            0.25,
            0.26,
            0.26,
            0.27,
            0.28,
            0.3,
        ]
        assert found.inputs["units"] == 2000

    def test_a_lift_that_wears_off_is_told(self, world: World) -> None:
        self.fill(world, lambda day: (150, (330, 300, 250, 210, 180, 160, 150)[day]))
        found = checked(world, "novelty", FOLLOWED)
        assert found.health is Health.WARNING
        assert "from 120.0 % at first to 0.0 % after 6 days" in found.sentence
        assert "novelty that wears off" in found.sentence
        [trend] = found.inputs["treatments"]  # type: ignore[misc]
        assert trend["slope"] < 0 < trend["standard_error"]

    def test_no_effect_is_not_followed(self, world: World) -> None:
        self.fill(world, lambda _: (150, 150))
        assert checked(world, "novelty", FOLLOWED).inputs == {}

    def fill(self, world: World, buyers: Callable[[int], tuple[int, int]]) -> None:
        world.units(10, 1000, at=NOW - 14 * DAY)
        world.units(11, 1000, at=NOW - 14 * DAY)
        for day in range(7):
            for variant, count in zip((10, 11), buyers(day), strict=True):
                # On each day others, so that days are as good as independent.
                names = (f"u{variant}-{(137 * day + n) % 1000}" for n in range(count))
                world.feed.events(*(event(name, at=NOW - 14 * DAY + day * DAY + HOUR) for name in names))


class TestPower:
    """Whether what is worth finding can be found."""

    def test_the_detectable_effect_is_told_and_held_against_the_wanted_one(self, world: World) -> None:
        world.units(10, 1000)
        world.units(11, 1000)
        world.events(10, 100)
        world.events(11, 100)
        spec = replace(BEGUN, minimum_detectable_effect=0.5, target_sample_size=2000)
        found = checked(world, "enough_power", spec)
        assert found.health is Health.OK
        # 2.8016 standard errors, of √(2 · 0.09009 / 1000) each, over 0.1.
        assert found.inputs["detectable_effect"] == pytest.approx(0.37606, rel=1e-3)
        weak = checked(world, "enough_power", replace(spec, minimum_detectable_effect=0.2))
        assert weak.health is Health.WARNING
        assert weak.sentence.startswith(
            "2,000 units show an effect of 37.6 % with a power of 80 %, more than"
        )
        # Four times the units halve it.
        more = checked(world, "enough_power", replace(spec, target_sample_size=8000))
        assert more.inputs["detectable_effect"] == pytest.approx(0.37606 / 2, rel=1e-3)


BESIDE = replace(BEGUN, neighbours=(NeighbourSpec(2, "other", ((20, "other-control"), (21, "other-new"))),))


class TestInteractions:
    """Whether other experiments change the effect."""

    def fill(self, world: World, buyers: dict[tuple[int, int], int]) -> None:
        """Of 400 units for each variant here and there, so many buy."""
        for (here, there), count in buyers.items():
            world.units(here, 400, prefix=f"x{there}-")
            names = [f"x{there}-{here}-{n}" for n in range(400)]
            world.feed.assign(*((name, there) for name in names), experiment=2)
            world.feed.events(*(event(name) for name in names[:count]))

    def test_an_effect_that_is_the_same_everywhere_is_sound(self, world: World) -> None:
        self.fill(world, {(10, 20): 40, (11, 20): 80, (10, 21): 60, (11, 21): 100})
        found = checked(world, "interactions", BESIDE)
        assert found.health is Health.OK
        assert found.inputs["looked_at"] == [{"experiment": "other", "shared_units": 1600}]
        [pair] = found.inputs["pairs"]  # type: ignore[misc]
        assert pair["effect_in_control"] == pytest.approx(0.1)
        assert pair["effect_in_variant"] == pytest.approx(0.1)
        assert pair["p_value"] == pytest.approx(1.0)

    def test_an_effect_that_turns_around_is_told(self, world: World) -> None:
        self.fill(world, {(10, 20): 40, (11, 20): 100, (10, 21): 100, (11, 21): 60})
        found = checked(world, "interactions", BESIDE)
        assert found.health is Health.WARNING
        assert found.sentence.startswith(
            "The effect of blue is -0.1 among units that have other-new in other, 0.15 among those in its "
            "control (p = "
        )
        assert checked(world, "interactions", BEGUN).health is Health.OK

    def test_few_units_in_common_are_not_looked_at(self, world: World) -> None:
        world.units(10, 500)
        world.units(11, 500)
        world.feed.assign(*((f"u10-{n}", 20) for n in range(99)), experiment=2)
        found = checked(world, "interactions", BESIDE)
        assert (found.health, found.inputs["looked_at"], found.inputs["pairs"]) == (Health.OK, [], [])


@pytest.mark.parametrize(
    ("runs", "most"),
    # 99.9 % points of the binomial at the stated level of 0.01.
    [pytest.param(200, 8, id="smoke"), pytest.param(4_000, 60, id="long", marks=pytest.mark.nightly)],
)
def test_trend__of_a_constant_lift_is_seen_as_often_as_the_level_says(runs: int, most: int) -> None:
    assert trends(runs, lift=lambda _: 0.1, seed=17) <= most


@pytest.mark.parametrize(
    ("runs", "fewest"),
    [pytest.param(100, 95, id="smoke"), pytest.param(1_000, 975, id="long", marks=pytest.mark.nightly)],
)
def test_trend__that_wears_off_is_seen(runs: int, fewest: int) -> None:
    assert trends(runs, lift=lambda day: 0.4 * (1.0 - day / 6.0), seed=19) >= fewest


def trends(runs: int, *, lift: Callable[[int], float], seed: int, units: int = 3_000) -> int:
    """In how many of so many experiments a trend is told; units differ, so that a unit's days are alike."""
    random = np.random.default_rng(seed)
    days, told = 7, 0
    for _ in range(runs):
        arms = {}
        for variant in (10, 11):
            # A habit that fades, by gamma-distributed units.
            rates = np.outer(random.gamma(2.0, 0.5, units), [0.5 * 0.8**day for day in range(days)])
            if variant == 11:
                rates *= [1.0 + lift(day) for day in range(days)]
            drawn = random.poisson(rates)
            names = [str(day) for day in range(days)]
            cover = np.cov(drawn, rowvar=False)
            pairs = {(x, y): cover[i, j] for i, x in enumerate(names) for j, y in enumerate(names)}
            moments = Moments.from_centred(units, dict(zip(names, drawn.mean(axis=0), strict=True)), pairs)
            arms[variant] = Steps(moments, tuple((drawn > 0).sum(axis=0).tolist()))
        told += novelty(SPEC, Course(arms, days, DAY, 1)).health is Health.WARNING
    return told
