"""The sufficient statistics as rows: of every kind of metric all that its numbers are made of."""

from dataclasses import replace

import pytest

from assay.reports.export import STATISTICS, sufficient_statistics
from assay.reports.question import Question
from assay.reports.spec import CapSpec, MetricSpec, MetricType, Role
from assay.reports.views.canonical import canonical
from contracts.event_store import DAY, NOW, event
from reports.world import PURCHASE, SPEC, World

SPENT = MetricSpec(
    "spent",
    "spent",
    MetricType.REVENUE,
    "purchase",
    role=Role.SECONDARY,
    lookback=4 * DAY,
    cap=CapSpec(0.895, is_quantile=True),
)
MEDIAN = replace(SPENT, key="median", type=MetricType.QUANTILE, quantile=0.5, lookback=None, cap=None)


def test_rows__hold_past_caps_and_samples(world: World) -> None:
    for arm in (10, 11):
        world.units(arm, 50)
        for nth in range(50):
            name = f"u{arm}-{nth}"
            world.feed.events(
                event(name, at=NOW, a=1.0 + nth), event(name, at=NOW - 2 * DAY, a=float(nth % 5))
            )
    report = world.answer(replace(SPEC, metrics=(PURCHASE, SPENT, MEDIAN)), Question())
    rows = list(sufficient_statistics(report))
    assert all(list(row) == list(STATISTICS) for row in rows)
    share, spent, median = (next(row for row in rows if row["metric"] == key) for key in KEYS)
    assert (share["mean_before_late"], share["quantile"], share["cap_high"]) == (None, None, None)
    # Of the hundred units ninety spent no more.
    assert spent["cap_high"] == 45.0
    assert spent["mean_total"] == pytest.approx(sum(min(1.0 + nth, 45.0) for nth in range(50)) / 50)
    assert spent["mean_before_late"] == pytest.approx(2.0)
    assert spent["cov_before_late_before_late"] == pytest.approx(2.0 * 50 / 49)
    assert spent["cov_total_before_late"] is not None
    assert (median["quantile"], median["observations"], median["quantile_value"]) == (0.5, 50, 25.0)
    assert median["lower_neighbour"] < 25.0 < median["upper_neighbour"]
    assert (median["mean_below"], median["mean_observations"]) == (0.5, 1.0)
    assert [each["capped_at"] for each in canonical(report)["metrics"]] == [
        None,
        {"high": 45.0, "low": None},
        None,
    ]


KEYS = ("purchase", "spent", "median")
