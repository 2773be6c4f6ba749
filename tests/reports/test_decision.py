"""The decision and its sentence, rule by rule."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from assay.reports.checks.base import Finding, HealthCheck
from assay.reports.evidence import Evidence
from assay.reports.health import CHECKS, examine
from assay.reports.report import Health, Report, Verdict
from assay.reports.spec import Direction, ExperimentSpec, MetricSpec, MetricType, Role
from assay.reports.views.verdicts import stats
from contracts.event_store import DAY, NOW
from reports.world import PURCHASE, SPEC, THREE, TIME, World, phase

ERRORS = MetricSpec(
    "errors", "errors", MetricType.CONVERSION, "error", None, Direction.DECREASE, Role.GUARDRAIL
)


def told(world: World, spec: ExperimentSpec = SPEC) -> tuple[Verdict, str]:
    report: Report = world.report(spec)
    sentence = report.decision.sentence
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert "nan" not in sentence
    return report.decision.verdict, sentence


def fill(world: World, control: int, blue: int, units: int = 1000) -> None:
    world.units(10, units, at=NOW - 10 * DAY)
    world.units(11, units, at=NOW - 10 * DAY)
    world.events(10, control)
    world.events(11, blue)


def test_nobody__says_what_to_look_at(world: World) -> None:
    assert told(world) == (
        Verdict.KEEP_RUNNING,
        "No users yet: check that the application asks for assignments.",
    )
    assert told(world, replace(SPEC, status="draft"))[0] is Verdict.NOT_STARTED
    assert told(world, replace(SPEC, status="stopped"))[0] is Verdict.INCONCLUSIVE


def test_better__is_shipped_with_size_interval_and_p(world: World) -> None:
    fill(world, 100, 150)
    verdict, sentence = told(world)
    assert verdict is Verdict.SHIP
    said = "Ship blue: it raises purchase by 50 % against control (95 % interval +18 % to +90 %"
    assert sentence.startswith(said)
    assert "p < 0.001" in sentence
    assert world.report().decision.cautions == ()


def test_worse__keeps_the_control(world: World) -> None:
    fill(world, 150, 100)
    verdict, sentence = told(world)
    assert verdict is Verdict.ROLL_BACK
    assert sentence.startswith("Keep control: blue does worse, it lowers purchase by 33.3 %")


def test_less_is_better__where_the_metric_says_so(world: World) -> None:
    fill(world, 150, 100)
    verdict, sentence = told(world, replace(SPEC, metrics=(replace(PURCHASE, direction=Direction.DECREASE),)))
    assert verdict is Verdict.SHIP
    assert "lowers purchase" in sentence


def test_early__waits_for_the_planned_sample_whatever_p_says(world: World) -> None:
    fill(world, 100, 150)
    verdict, sentence = told(world, replace(SPEC, target_sample_size=5000))
    assert (verdict, sentence) == (
        Verdict.KEEP_RUNNING,
        "Keep running: 2,000 of 5,000 planned users are in; the result is judged when all are.",
    )
    assert world.report(replace(SPEC, target_sample_size=5000)).primary.comparisons[0].significant
    assert told(world, replace(SPEC, target_sample_size=2000))[0] is Verdict.SHIP
    assert told(world, replace(SPEC, target_sample_size=5000, status="stopped"))[0] is Verdict.SHIP


def test_no_difference__is_inconclusive_only_when_the_plan_is_done(world: World) -> None:
    fill(world, 100, 104)
    assert told(world)[0] is Verdict.KEEP_RUNNING
    verdict, sentence = told(world, replace(SPEC, target_sample_size=2000))
    assert verdict is Verdict.INCONCLUSIVE
    assert sentence.startswith(
        "With the planned sample in, no difference in purchase can be told from chance"
    )
    assert told(world, replace(SPEC, status="stopped"))[0] is Verdict.INCONCLUSIVE


def test_mismatch__comes_before_any_effect(world: World) -> None:
    world.units(10, 1000)
    world.units(11, 800)
    world.events(11, 500)
    verdict, sentence = told(world)
    assert verdict is Verdict.FIX
    assert sentence.startswith("Do not read the effect yet.")


def test_harmed_guardrail__forbids_shipping(world: World) -> None:
    fill(world, 100, 150)
    world.events(11, 50, "error")
    verdict, sentence = told(world, replace(SPEC, metrics=(PURCHASE, ERRORS)))
    assert verdict is Verdict.ROLL_BACK
    assert sentence.endswith("but harms the guardrail errors.")
    # Looking at one metric alone does not make the harm go away.
    shown = world.report(replace(SPEC, metrics=(PURCHASE, ERRORS)), metrics="purchase")
    assert shown.decision.sentence == sentence


def test_few_users__are_not_judged(world: World) -> None:
    world.units(10, 20)
    world.units(11, 20)
    world.events(11, 8)
    report = world.report()
    assert report.primary.comparisons[0].significant
    assert report.decision.verdict is Verdict.KEEP_RUNNING
    assert "too few users" in report.decision.sentence


def test_cautions__follow_a_young_or_small_result(world: World) -> None:
    world.units(10, 80)
    world.units(11, 80)
    world.events(10, 10)
    world.events(11, 40)
    young = replace(SPEC, started_at=TIME - timedelta(days=2), winner_id=11)
    text = world.report(young).decision.text
    assert text.startswith("Ship blue")
    assert "fewer than 100 users" in text
    assert "fewer than 7 days" in text
    assert text.endswith("stopped with blue as the winner.")


def test_bad_third_variant__is_named(world: World) -> None:
    for variant, converters in ((10, 200), (11, 300), (12, 100)):
        world.units(variant, {10: 1600, 11: 1200, 12: 1200}[variant])
        world.events(variant, converters)
    decision = world.report(THREE).decision
    assert decision.sentence.startswith("Ship blue")
    assert decision.cautions[0] == "green does worse than control: switch it off."


@pytest.mark.parametrize("off", [{"enabled": False}, {"removed": True}])
def test_best__is_by_difference_and_never_one_that_is_off(world: World, off: dict[str, bool]) -> None:
    # Green was open in the first, better stretch only: its level is the highest, its difference is not.
    steps = {
        1: {10: (2000, 400), 11: (2000, 520), 12: (2000, 500)},
        2: {10: (2000, 100), 11: (2000, 220)},
    }
    for number, arms in steps.items():
        for variant, (units, converters) in arms.items():
            world.units(variant, units, phase=number, prefix=f"p{number}-")
            world.events(variant, converters, prefix=f"p{number}-")
    third = 1 / 3
    spec = replace(THREE, phases=(phase(1, third, third, third), phase(2, 0.5, 0.5, 0.0)))
    for variants in (spec.variants, (*spec.variants[:2], replace(spec.variants[2], **off))):
        report = world.report(replace(spec, variants=variants))
        blue, green = report.primary.comparisons
        assert (blue.effect.estimate, green.effect.estimate) == (pytest.approx(0.06), pytest.approx(0.05))
        assert (green.effect.treatment or 0.0) > (blue.effect.treatment or 0.0)
        assert report.decision.winner is not None
        assert report.decision.winner.key == stats(report)["winner"] == "blue"


def test_only_better_one_is_off__is_not_shipped(world: World) -> None:
    for variant, converters in ((10, 200), (11, 155), (12, 300)):
        world.units(variant, {10: 1600, 11: 1200, 12: 1200}[variant])
        world.events(variant, converters)
    control, blue, green = THREE.variants
    spec = replace(THREE, variants=(control, blue, replace(green, enabled=False)))
    verdict, sentence = told(world, spec)
    assert verdict is Verdict.INCONCLUSIVE
    assert sentence.startswith("Only green does better, and is off: it raises purchase by 100 %")
    assert stats(world.report(spec))["winner"] is None
    assert stats(world.report(THREE))["winner"] == "green"


@pytest.mark.parametrize(
    ("days", "said"),
    [(2e-5, "less than a day"), (1, "1 day"), (1.55, "1.5 days"), (6.99, "6.9 days")],
)
def test_age__is_told_in_days_and_never_rounded_up(world: World, days: float, said: str) -> None:
    checks = world.report(replace(SPEC, started_at=TIME - timedelta(days=days))).checks
    [check] = [each for each in checks if each.name == "enough_days"]
    assert check.sentence == f"The experiment has run for {said}: a week holds every day of the week once."


def test_imported_history__counts_as_time_it_ran(world: World) -> None:
    world.units(10, 1, at=NOW - 10 * DAY)
    [check] = [
        each for each in world.report(replace(SPEC, started_at=TIME)).checks if each.name == "enough_days"
    ]
    assert check.health is Health.OK
    assert check.inputs["days"] == pytest.approx(10, abs=1 / 24)


def test_mismatch__does_not_claim_to_know_the_cause(world: World) -> None:
    world.units(10, 1000)
    world.units(11, 800)
    assert "may be lost, counted twice or given another variant on the way" in told(world)[1]


def test_silent_event_type__is_named(world: World) -> None:
    fill(world, 0, 0)
    assert told(world)[1] == "Keep running: No event of type purchase has arrived that counts."
    assert world.report().decision.cautions == ()
    world.events(10, 40)
    cautions = world.report(event_type="purchsae").decision.cautions
    assert cautions == ("No event of type purchsae has arrived that counts.",)
    assert world.report(metrics="clik").decision.cautions == (
        "No event of type clik has arrived that counts.",
    )
    assert world.report(event_type="purchase").decision.cautions == ()


def test_account_unit__is_not_called_a_user(world: World) -> None:
    assert "No units yet" in world.report(replace(SPEC, unit="account_id")).decision.text


def test_broken_check__hides_no_other() -> None:
    def broken(units: object) -> Finding:
        raise ZeroDivisionError(units)

    evidence = Evidence(SPEC, {10: 5, 11: 5}, (), None, TIME)
    found = examine(evidence, (HealthCheck("broken", ("units",), broken), *CHECKS))
    assert [check.name for check in found] == ["broken", *(check.name for check in CHECKS)]
    assert found[0].health is Health.UNKNOWN
    assert "ZeroDivisionError" in found[0].sentence
    assert all(check.health is not Health.UNKNOWN for check in found[1:])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_checks__declare_what_they_read(check: HealthCheck) -> None:
    assert check.needs
    assert set(check.needs) <= set(Evidence._fields)


def test_showing_fewer_variants__does_not_change_the_decision(world: World) -> None:
    for variant, units, buyers in ((10, 2400, 240), (11, 1800, 216), (12, 1800, 184)):
        world.units(variant, units, at=NOW - 10 * DAY)
        world.events(variant, buyers)
    whole, narrowed = world.report(THREE), world.report(THREE, variant_id="11")
    (p_value,) = [each.effect.p_value for each in whole.primary.comparisons if each.treatment.id == 11]
    assert p_value is not None
    assert 0.025 < p_value < 0.05
    assert whole.decision.verdict is Verdict.KEEP_RUNNING
    assert narrowed.decision == whole.decision
    assert [variant.id for variant in narrowed.variants] == [11]
