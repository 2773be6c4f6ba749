"""What speaks against showing an experiment to more people."""

from dataclasses import replace

from assay.reports.halting import objection
from assay.reports.spec import Direction, MarginSpec, MetricSpec, MetricType, Role
from reports.world import PURCHASE, SPEC, World

CRASH = MetricSpec(
    "crash", "crash", MetricType.CONVERSION, "crash", direction=Direction.DECREASE, role=Role.GUARDRAIL
)
GUARDED = replace(SPEC, metrics=(PURCHASE, CRASH))


def test_nothing__where_nobody_came_yet_or_all_is_well(world: World) -> None:
    assert objection(world.report(GUARDED)) is None
    for variant in (10, 11):
        world.units(variant, 500)
        world.events(variant, 50)
        world.events(variant, 20, "crash")
    assert objection(world.report(GUARDED)) is None


def test_harmed_guardrail__is_named_with_the_variant(world: World) -> None:
    for variant, crashes in ((10, 20), (11, 90)):
        world.units(variant, 500)
        world.events(variant, 50)
        world.events(variant, crashes, "crash")
    assert objection(world.report(GUARDED)) == "blue harms the guardrail crash."


def test_guardrail_a_little_worse__halts_nothing_as_every_step_is_a_look(world: World) -> None:
    for variant, crashes in ((10, 40), (11, 60)):
        world.units(variant, 500)
        world.events(variant, 50)
        world.events(variant, crashes, "crash")
    report = world.report(GUARDED)
    # A single planned test would have rejected.
    assert report.metrics[1].comparisons[0].significant
    assert objection(report) is None


def test_guardrail_worse_but_within_its_margin__halts_nothing(world: World) -> None:
    for variant, crashes in ((10, 20), (11, 90)):
        world.units(variant, 500)
        world.events(variant, 50)
        world.events(variant, crashes, "crash")
    tolerant = replace(CRASH, margin=MarginSpec(0.5, is_relative=False))
    assert objection(world.report(replace(SPEC, metrics=(PURCHASE, tolerant)))) is None
    narrow = replace(CRASH, margin=MarginSpec(0.1, is_relative=False))
    said = objection(world.report(replace(SPEC, metrics=(PURCHASE, narrow))))
    assert said == "blue harms the guardrail crash."


def test_worse_primary_metric__is_for_people_to_judge(world: World) -> None:
    for variant, purchases in ((10, 150), (11, 50)):
        world.units(variant, 500)
        world.events(variant, purchases)
    assert objection(world.report(GUARDED)) is None


def test_mismatch__speaks_against_it(world: World) -> None:
    world.units(10, 700)
    world.units(11, 300)
    said = objection(world.report(GUARDED))
    assert said is not None
    assert said.startswith("The variants do not hold the shares of units that they were dealt")
