"""A report is computed again from its own document, and a number that was changed is found."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from assay.errors import Invalid
from assay.reports.spec import (
    AnalysisSpec,
    BanditSpec,
    BreakerSpec,
    CapSpec,
    ExperimentSpec,
    LookSpec,
    LookVerdict,
    MarginSpec,
    MetricSpec,
    MetricType,
    Role,
    SourceSpec,
)
from assay.reports.verify import verify
from assay.reports.views.canonical import canonical
from contracts.event_store import DAY, NOW, event
from reports.world import PURCHASE, SPEC, THREE, TIME, World, phase

METRICS = (
    replace(PURCHASE, lookback=4 * DAY),
    MetricSpec("spent", "spent", MetricType.REVENUE, "purchase", lookback=4 * DAY),
    MetricSpec("each", "each", MetricType.MEAN, "purchase"),
    MetricSpec("per", "per", MetricType.RATIO, "purchase", denominator=SourceSpec("visit")),
    MetricSpec("median", "median", MetricType.QUANTILE, "purchase", quantile=0.5),
    MetricSpec("slow", "slow", MetricType.QUANTILE, "purchase", quantile=0.75, by_event=True),
    MetricSpec(
        "visits", "visits", MetricType.COUNT, "visit", role=Role.GUARDRAIL, margin=MarginSpec(0.1, True)
    ),
    MetricSpec("late", "late", MetricType.SUM, "purchase", registered=False),
)
LOOK = LookSpec(
    1,
    TIME - timedelta(days=1),
    120,
    0.3,
    (LookVerdict("purchase", 11, 1.2, 3.0, False, 0.02, (-0.1, 0.14), None),),
)


def filled(world: World) -> None:
    """Two phases of different splits, with purchases and visits before and after the assignment."""
    rng = np.random.default_rng(11)
    for number, sizes in ((1, (90, 30)), (2, (60, 60))):
        for arm, size in zip((10, 11), sizes, strict=True):
            prefix = f"p{number}-"
            world.units(arm, size, phase=number, at=NOW - 3 * DAY, prefix=prefix)
            for at, kind, most in (
                (NOW - 4 * DAY, "purchase", size // 2),
                (NOW - 2 * DAY, "visit", size),
                (NOW - DAY, "purchase", 2 * size // 3),
            ):
                amounts = [float(rng.integers(1, 900)) / 7 for _ in range(most)]
                world.feed.events(
                    *(
                        event(f"{prefix}{arm}-{n}", kind, at=at, v=amount, a=amount)
                        for n, amount in enumerate(amounts)
                    )
                )


def spec_of(method: str, **analysis: Any) -> ExperimentSpec:
    """A ramp from 75/25 to 50/50, judged by `method`."""
    return replace(
        SPEC,
        metrics=METRICS,
        phases=(phase(1, 0.75, 0.25), phase(2, 0.5, 0.5)),
        started_at=TIME - timedelta(days=5),
        target_sample_size=400,
        analysis=AnalysisSpec(method, **analysis),  # type: ignore[arg-type]
    )


def document(world: World, spec: ExperimentSpec, **asked: Any) -> dict[str, Any]:
    """As it is saved to a file."""
    found: dict[str, Any] = json.loads(json.dumps(canonical(world.report(spec, **asked)), allow_nan=False))
    return found


SPECS = {
    "fixed": spec_of("fixed"),
    "uncorrected, one-sided": spec_of("fixed", correction="none", alternative="greater"),
    "false discovery rate": spec_of("fixed", correction="bh"),
    "bayesian": spec_of("bayesian"),
    "first look to come": spec_of("group_sequential", looks=5),
    "between looks": replace(spec_of("group_sequential", looks=5), looks=(LOOK,)),
    "always valid": replace(spec_of("always_valid"), looks=(LOOK,)),
    "stopped": replace(spec_of("fixed"), status="stopped", ended_at=TIME - timedelta(hours=1), winner_id=11),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_report__is_computed_again_from_itself(world: World, spec: ExperimentSpec) -> None:
    filled(world)
    found = verify(document(world, spec))
    assert found.mismatches == ()
    assert found.left_out == ()
    assert found.compared > 400


def test_report_of_some_metrics_or_of_part_of_the_time__leaves_out_what_rests_on_the_rest(
    world: World,
) -> None:
    filled(world)
    some = verify(document(world, SPECS["fixed"], metrics="spent"))
    assert some.mismatches == ()
    assert some.left_out
    part = verify(document(world, SPECS["fixed"], start=str((TIME - timedelta(days=1)).date())))
    assert part.mismatches == ()


def test_empty_experiment_and_three_arms__are_computed_again(world: World) -> None:
    assert verify(document(world, THREE)).mismatches == ()
    for arm, size in ((10, 40), (11, 30), (12, 30)):
        world.units(arm, size)
        world.events(arm, size // 3)
    assert verify(document(world, THREE)).mismatches == ()


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        (("metrics", 1, "comparisons", 0, "p_value"), 1.0001),
        (("metrics", 1, "comparisons", 0, "interval", "high"), 1.0001),
        (("metrics", 1, "comparisons", 0, "unadjusted", "lift", "value"), 1.0001),
        (("metrics", 4, "comparisons", 0, "difference"), 0.999),
        (("metrics", 7, "variants", 1, "interval", "low"), 0.9),
        (("metrics", 0, "variants", 1, "value"), 1.01),
        (("srm", "p_value"), 0.5),
        (("decision", "progress", "days_left"), 0.5),
        (("decision", "outlook", 0, "better"), 1.1),
    ],
)
def test_changed_number__is_named_with_what_it_should_be(
    world: World, path: tuple[str | int, ...], factor: float
) -> None:
    filled(world)
    said = document(world, SPECS["fixed"])
    place: Any = said
    for step in path[:-1]:
        place = place[step]
    true = place[path[-1]]
    place[path[-1]] = true * factor
    [mismatch] = verify(said).mismatches
    assert mismatch.path.endswith(str(path[-1]))
    assert mismatch.computed == pytest.approx(true, rel=1e-9)


#: A bandit, an activation event, caps, a metric whose window must be over, and a breaker.
BANDIT = replace(
    spec_of("bandit"),
    metrics=(PURCHASE, METRICS[-2]),
    analysis=AnalysisSpec("bandit", bandit=BanditSpec(timedelta(hours=2), 0.1, "thompson", 0.99, 0.01, TIME)),
)
CAPPED = replace(
    SPECS["fixed"],
    metrics=(
        PURCHASE,
        MetricSpec("spent", "spent", MetricType.REVENUE, "purchase", cap=CapSpec(0.9, is_quantile=True)),
        MetricSpec("soon", "soon", MetricType.COUNT, "purchase", closes=9 * DAY, complete_only=True),
        MetricSpec("worth", "worth", MetricType.SUM, "purchase", prop="price"),
    ),
)
TRIPPED = replace(
    SPECS["fixed"],
    status="stopped",
    ended_at=TIME - timedelta(hours=1),
    breaker=BreakerSpec("stop", 0.01, 0, TIME - timedelta(hours=1), "Visits fell."),
)
ACTIVATED = replace(
    SPECS["fixed"],
    metrics=(PURCHASE, replace(METRICS[1], role=Role.GUARDRAIL, margin=MarginSpec(0.1, True))),
    activation=SourceSpec("visit"),
)


@pytest.mark.parametrize(
    ("spec", "path", "factor"),
    [
        (BANDIT, ("bandit", "variants", 0, "mean"), 1.01),
        (BANDIT, ("bandit", "variants", 1, "standard_error"), 1.01),
        (BANDIT, ("bandit", "variants", 1, "best_probability"), 0.9),
        (BANDIT, ("bandit", "variants", 0, "expected_loss"), 1.01),
        (BANDIT, ("bandit", "variants", 0, "next_share"), 1.01),
        (CAPPED, ("metrics", 1, "comparisons", 0, "standard_error"), 1.01),
        (CAPPED, ("total_units",), 2),
        (CAPPED, ("units", "10"), 2),
        (CAPPED, ("metrics", 3, "notes", 0, "code"), "unreadable_values"),
        (CAPPED, ("health", "enough_power", "inputs", "detectable_effect"), 0.5),
        (CAPPED, ("health", "enough_units", "inputs", "fewest_units"), 2),
        (CAPPED, ("health", "planned_sample", "inputs", "units"), 2),
        (CAPPED, ("health", "planned_sample", "health"), "ok"),
        (CAPPED, ("health", "steady_split", "inputs", "strata"), 2),
        (CAPPED, ("health", "enough_days", "inputs", "days"), 2.0),
        (TRIPPED, ("decision", "verdict"), "ship"),
        (TRIPPED, ("decision", "at_stop", 0, "method"), "conditional_mean"),
        (ACTIVATED, ("metrics", 1, "comparisons", 0, "margin", "statistic"), 1.1),
        (SPECS["between looks"], ("next_look", "units"), 2),
        (SPECS["between looks"], ("metrics", 1, "comparisons", 0, "limit"), 1.1),
        (SPECS["bayesian"], ("metrics", 0, "comparisons", 0, "loss_if_kept"), 1.1),
        (SPECS["fixed"], ("metrics", 4, "quantiles", "overall", 0, "standard_error"), 1.1),
    ],
)
def test_every_part__is_computed_again_and_a_change_in_it_is_found(
    world: World, spec: ExperimentSpec, path: tuple[str | int, ...], factor: float | str
) -> None:
    filled(world)
    for arm in (10, 11):  # a bandit learns nothing from fewer than 100 units an arm
        world.units(arm, 50, phase=2, at=NOW - 2 * DAY, prefix="more-")
        world.events(arm, 3 * arm, prefix="more-", v=3.0, a=3.0)
    said = document(world, spec)
    sound = verify(said)
    assert (sound.mismatches, sound.left_out) == ((), ())
    place: Any = said
    for step in path[:-1]:
        named = [each for each in place if each["check"] == step] if place is said["health"] else ()
        place = named[0] if named else place[step]
    true = place[path[-1]]
    place[path[-1]] = factor if isinstance(factor, str) else true * factor
    [mismatch] = verify(said).mismatches
    assert mismatch.path.endswith(str(path[-1]))
    assert mismatch.computed == (true if isinstance(true, str) else pytest.approx(true, rel=1e-9))


@pytest.mark.parametrize("rubbish", [{}, {"metrics": []}, {"metrics": "many"}])
def test_something_else__is_no_report(rubbish: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="no complete report"):
        verify(rubbish)
