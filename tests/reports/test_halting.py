"""What speaks against showing an experiment to more people."""

from dataclasses import replace

from assay.reports.halting import objection
from assay.reports.spec import Direction, MetricSpec, MetricType, Role
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
