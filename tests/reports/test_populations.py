"""The units of a stored experiment as simulations deal them: their mean is the report's."""

from dataclasses import replace

import numpy as np
import pytest

from assay.reports.arms import merged
from assay.reports.populations import populations
from assay.reports.question import Question
from assay.reports.spec import MetricSpec, MetricType, Role, SourceSpec
from contracts.event_store import DAY, NOW, event
from reports.world import PURCHASE, SPEC, World

SPENT = MetricSpec("spent", "spent", MetricType.REVENUE, "purchase", role=Role.SECONDARY, lookback=4 * DAY)
PER_VIEW = replace(SPENT, key="per view", type=MetricType.RATIO, fold="sum", denominator=SourceSpec("view"))
LATENCY = replace(SPENT, key="latency", type=MetricType.QUANTILE, quantile=0.9)
PAIRS = (("total", "total"), ("total", "events"), ("events", "events"))
NEVER = replace(SPENT, key="never", event_type="never")


def test_values__average_to_what_the_report_says(world: World) -> None:
    rng = np.random.default_rng(4)
    for arm in (10, 11):
        world.units(arm, 200)
        for nth in range(200):
            wealth = float(rng.gamma(3.0))
            past = [event(f"u{arm}-{nth}", "purchase", NOW - 2 * DAY, a=wealth)] if nth % 5 else []
            views = [event(f"u{arm}-{nth}", "view", NOW) for _ in range(1 + nth % 3)]
            bought = [event(f"u{arm}-{nth}", "purchase", NOW, a=wealth + float(rng.gamma(1.0)))]
            world.feed.events(*past, *views, *(bought if nth % 2 else []))
    spec = replace(SPEC, metrics=(PURCHASE, SPENT, replace(PER_VIEW, lookback=None), LATENCY, NEVER))
    report = world.answer(spec, Question())
    found = {each.name: each for each in populations(report, world.store)}
    assert list(found) == ["purchase", "spent", "spent, adjusted", "per view", "latency", "never"]
    whole = {
        each.metric.key: merged(tally for by in each.tallies.values() for tally in by.values())
        for each in report.metrics
    }
    assert found["purchase"].values.mean() == 0.5
    assert set(found["purchase"].values) == {0.0, 1.0}
    spent = found["spent"].values
    assert (len(spent), spent.mean()) == (400, pytest.approx(whole["spent"].total / 400))
    assert np.var(spent, ddof=1) == pytest.approx(whole["spent"].moments.variance("total"))
    adjusted = found["spent, adjusted"].values
    assert adjusted.mean() == pytest.approx(spent.mean())
    assert np.var(adjusted) < np.var(spent)
    of_views = whole["per view"]
    assert found["per view"].values.mean() == pytest.approx(of_views.total / of_views.events)
    # Its spread is that of the delta method, which the report's standard error is made of.
    below = of_views.moments.mean("events")
    ratio = of_views.total / of_views.events
    form = (of_views.moments.variance("total") or 0.0) + ratio**2 * (
        of_views.moments.variance("events") or 0.0
    )
    form -= 2.0 * ratio * (of_views.moments.covariance("total", "events") or 0.0)
    assert np.var(found["per view"].values, ddof=1) == pytest.approx(form / below**2)
    assert found["latency"].sentence == (
        "latency is a quantile; only what is averaged over units can be simulated."
    )
    assert found["never"].sentence == "never is the same for all units; there is nothing to simulate."
    assert not len(found["never"].values)
