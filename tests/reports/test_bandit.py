"""Bandits at work: re-weighted on a schedule, held where something is wrong, judged by what suits them."""

from typing import Any

import pytest

from assay.reports.bandit import bandit_of
from assay.reports.question import Question
from assay.reports.report import Report, Verdict
from assay.reports.schedule import Schedule
from assay.reports.views.canonical import canonical
from catalog.conftest import catalog, lasting_url, opened, url
from contracts.event_store import SECOND, event
from reports.test_snapshots import Kept, kept

__all__ = ["catalog", "kept", "lasting_url", "opened", "url"]

ARMS = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]


class Bandit:
    """A running bandit into which units come as a test says."""

    def __init__(self, kept: Kept, *others: dict[str, Any], **metric: Any) -> None:
        self.kept, self.catalog = kept, kept.catalog
        self.id = self.catalog.running(
            key="bandit",
            variants=ARMS,
            metrics=[{"key": "order", "role": "primary", **metric}, *others],
            analysis={"method": "bandit", "reweight_every": "2h", "floor": 0.1},
        )
        self.arms = [each["id"] for each in self.catalog.document(self.id)["variants"]]
        self.schedule = Schedule(kept.snapshots, self.catalog.database, None, 90)
        self.units = 0

    def come(self, counts: tuple[int, int], buyers: tuple[int, int], phase: int = 1) -> None:
        """So many units of each arm, of whom so many buy."""
        at = self.kept.at + self.units
        for arm in (0, 1):
            users = [f"b{arm}-{self.units + n}" for n in range(counts[arm])]
            rows = ((user, self.arms[arm]) for user in users)
            self.kept.feed.assign(*rows, experiment=self.id, phase=phase, at=at)
            bought = users[: buyers[arm]]
            self.kept.feed.events(*(event(each, "order", at + SECOND, a=3.0) for each in bought))
        self.units += max(counts)

    def later(self, **passed: float) -> int:
        """A round of the schedule; how often the split has changed."""
        self.catalog.later(**passed)
        self.schedule.run(lambda: self.catalog.now, lambda: True)
        return self.schedule.done.splits

    @property
    def report(self) -> Report:
        return self.kept.snapshots.get(self.id, Question(), self.catalog.now).report

    @property
    def state(self) -> dict[str, Any]:
        found = self.catalog.document(self.id)["bandit_state"]
        assert found is not None
        return dict(found)


def test_the_split__follows_what_is_known_when_its_time_has_come(kept: Kept) -> None:
    bandit = Bandit(kept)
    bandit.come((500, 500), (50, 70))
    assert bandit.later(hours=1, minutes=59) == 0
    known = bandit.report.bandit
    assert known is not None
    assert known.best is not None
    assert known.best.variant.key == "b"
    # 0.10 against 0.14 with standard errors of 0.0134 and 0.0155: z = 1.95.
    assert known.best.probability == pytest.approx(0.9743, abs=2e-3)
    assert known.best.next_share == pytest.approx(0.1 + 0.8 * known.best.probability)
    assert bandit.later(minutes=1) == 1
    shares = bandit.catalog.allocations(bandit.id)
    assert shares["b"] == pytest.approx(known.best.next_share, abs=1e-4)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-12)
    assert bandit.state["best"]["b"] == known.best.probability
    assert bandit.state["next_at"] == "2026-11-21T16:00:00.000000Z"
    assert [each.number for each in bandit.report.spec.phases] == [1, 2]
    # Another process has nothing to do any more.
    second = Schedule(kept.snapshots, bandit.catalog.database, None, 90)
    second.run(lambda: bandit.catalog.now, lambda: True)
    assert second.done.splits == 0

    # A time when everybody buys, and most units are of b: pooled, b would seem far better than it is.
    bandit.come((100, 900), (50, 450), phase=2)
    report = bandit.report
    [each] = report.primary.comparisons
    assert each.judged is not None
    numbers = each.judged.numbers
    assert (numbers.method, each.strata) == ("asymptotic_confidence_sequence", 2)
    assert numbers.difference == pytest.approx(0.02)  # half of 0.04 and half of 0
    assert numbers.interval is not None
    assert numbers.interval.contains(0.0)
    known = bandit_of(report.spec, report.primary)
    assert known is not None
    assert known.arms[1].mean - known.arms[0].mean == pytest.approx(0.02)
    document = canonical(report)["bandit"]
    assert isinstance(document, dict)
    assert document["sampling"] == "thompson"
    assert "always-valid sets" in str(document["method"])
    assert "always-valid sets" in report.decision.rules[1]


def test_too_little__or_a_mismatch_holds_the_split_and_says_why(kept: Kept) -> None:
    bandit = Bandit(kept)
    bandit.come((50, 60), (5, 6))
    assert bandit.later(hours=2) == 0
    assert bandit.state["held"] == "control has 50 of the 100 units from which a bandit learns."
    assert bandit.report.decision.verdict is Verdict.KEEP_RUNNING
    bandit.come((900, 600), (90, 90))
    assert bandit.later(hours=1) == 0
    assert bandit.later(hours=1) == 0
    assert "do not hold the shares" in bandit.state["held"]
    assert bandit.catalog.allocations(bandit.id) == {"control": 0.5, "b": 0.5}
    assert bandit.catalog.document(bandit.id)["phase"] == 1


def test_it_ships__what_is_surely_the_best_and_keeps_the_control_where_that_is(kept: Kept) -> None:
    bandit = Bandit(kept, type="revenue")
    bandit.come((600, 600), (100, 200))
    decision = bandit.report.decision
    assert (decision.verdict, decision.winner and decision.winner.key) == (Verdict.SHIP, "b")
    assert decision.sentence.startswith("Ship b: b is the best by order with a probability of")
    bandit.catalog.edit(bandit.id, metrics=[{"key": "order", "type": "revenue", "direction": "decrease"}])
    decision = bandit.report.decision
    assert decision.verdict is Verdict.ROLL_BACK
    assert decision.sentence.startswith("Keep control: control is the best by order")


def test_an_arm_without_any_event__is_learnt_from_too(kept: Kept) -> None:
    bandit = Bandit(kept)
    bandit.come((500, 500), (50, 0))
    assert bandit.later(hours=2) == 1
    assert bandit.catalog.allocations(bandit.id)["b"] == pytest.approx(0.1, abs=1e-3)
    assert bandit.report.decision.sentence.startswith("Keep control: control is the best by order")


def test_ratios_and_quantiles_beside_it__are_judged_too(kept: Kept) -> None:
    basket = {"key": "basket", "type": "mean", "event": "order"}
    bandit = Bandit(kept, basket, {"key": "median", "type": "quantile", "quantile": 0.5, "event": "order"})
    bandit.come((500, 500), (50, 60))
    found = canonical(bandit.report)["metrics"]
    assert [each["key"] for each in found] == ["order", "basket", "median"]
    assert [each["comparisons"][0]["method"] for each in found] == ["asymptotic_confidence_sequence"] * 3


def test_what_is_nearly_sure__is_not_said_to_be_sure(kept: Kept) -> None:
    bandit = Bandit(kept)
    bandit.come((2000, 2000), (100, 600))
    assert bandit.report.decision.sentence == (
        "Ship b: b is the best by order with a probability of > 99.9 %, and choosing it is expected to cost "
        "less than 0.001 %."
    )
