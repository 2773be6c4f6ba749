"""Circuit breakers at work: tripped by harm that is shown, on both catalogs and stores."""

import json
from datetime import timedelta

from assay.catalog import lifecycle
from assay.catalog.audit import page as audit
from assay.catalog.editing import find
from assay.reports.question import Question
from assay.reports.report import Report, Verdict
from assay.reports.schedule import Schedule
from catalog.conftest import HALVES, catalog, lasting_url, opened, url
from contracts.event_store import SECOND, event
from reports.test_snapshots import Kept, kept

__all__ = ["catalog", "kept", "lasting_url", "opened", "url"]

MINUTE = timedelta(minutes=1)


class Guarded:
    """A running experiment with a guardrail, less of which is better, and a breaker."""

    def __init__(self, kept: Kept, action: str = "pause", margin: float | None = None) -> None:
        self.kept, self.catalog = kept, kept.catalog
        crash = {"key": "crash", "role": "guardrail", "direction": "decrease"}
        if margin is not None:
            crash["margin"] = {"absolute": margin}  # type: ignore[assignment]
        self.id = self.catalog.running(
            key="guarded",
            variants=HALVES,
            metrics=[{"key": "order", "role": "primary"}, crash],
            circuit_breaker={"action": action, "false_trip_rate": 0.01},
        )
        self.arms = [each["id"] for each in self.catalog.document(self.id)["variants"]]
        self.schedule = Schedule(kept.snapshots, self.catalog.database, None, 90, MINUTE)
        self.units = 0

    def come(self, count: int, crashes: tuple[int, int], phase: int = 1) -> None:
        """So many units of each arm, of whom so many crash."""
        at = self.kept.at + self.units
        for arm in (0, 1):
            users = [f"g{arm}-{self.units + n}" for n in range(count)]
            rows = ((user, self.arms[arm]) for user in users)
            self.kept.feed.assign(*rows, experiment=self.id, phase=phase, at=at)
            self.kept.feed.events(*(event(each, "crash", at + SECOND) for each in users[: crashes[arm]]))
            self.kept.feed.events(*(event(each, "order", at + SECOND) for each in users[: count // 2]))
        self.units += count

    def watch(self) -> int:
        """A round of the schedule a minute later; the trips so far."""
        self.catalog.later(seconds=61)
        self.schedule.run(lambda: self.catalog.now, lambda: True)
        return self.schedule.done.trips

    @property
    def status(self) -> str:
        return self.catalog.document(self.id)["status"]

    @property
    def report(self) -> Report:
        return self.kept.snapshots.get(self.id, Question(), self.catalog.now).report


def test_harm_that_is_shown__pauses_says_so_and_counts_anew_after_a_resume(kept: Kept) -> None:
    guarded = Guarded(kept)
    guarded.come(400, (20, 24))
    assert (guarded.watch(), guarded.status) == (0, "running")
    guarded.come(400, (20, 100))
    assert (guarded.watch(), guarded.status) == (1, "paused")
    state = guarded.catalog.document(guarded.id)["circuit_breaker_state"]
    assert state is not None
    assert state["status"] == "tripped"
    found = state["evidence"]
    assert found is not None
    assert (found["metric"], found["treatment"], found["units_treatment"]) == ("crash", "b", 800)
    # 124 of 800 against 40 of 800.
    assert abs(found["difference"] - 0.105) < 1e-12
    assert found["difference_at_margin"] == 0 < found["bound"] < found["difference"]
    assert found["alpha"] == found["false_trip_rate"] == 0.01
    assert found["watermark"] == list(kept.store.watermark().mark)
    decision = guarded.report.decision
    assert decision.verdict is Verdict.ROLL_BACK
    assert decision.sentence.startswith(
        "Roll back: the circuit breaker paused the experiment on 2026-11-21 at 12:02 UTC. b changes the "
        "guardrail crash for the worse: +0.105 against control, and at least +0.0"
    )
    assert "A circuit breaker pauses the experiment once" in decision.rules[1]
    with guarded.catalog.read() as tx:
        [entry, *_], _total = audit(tx, experiment_id=guarded.id)
    assert (entry.actor, entry.action) == ("schedule", "experiment.circuit_breaker")
    assert entry.changes["circuit_breaker_state"]["to"]["evidence"] == found

    with guarded.catalog.write("grace") as tx:
        lifecycle.resume(tx, find(tx, guarded.id))
    # The same evidence does not trip it again; that of later units does.
    assert (guarded.watch(), guarded.status) == (1, "running")
    assert guarded.report.decision.verdict is not Verdict.ROLL_BACK
    guarded.come(400, (20, 20), phase=2)
    assert (guarded.watch(), guarded.status) == (1, "running")
    guarded.come(400, (20, 110), phase=2)
    assert (guarded.watch(), guarded.status) == (2, "paused")
    state = guarded.catalog.document(guarded.id)["circuit_breaker_state"]
    assert state is not None
    assert state["evidence"] is not None
    assert state["evidence"]["units_treatment"] == 800
    past = guarded.catalog.rows("SELECT why, document FROM report_snapshots ORDER BY id")
    assert [why for why, _ in past] == ["breaker", "breaker"]
    assert json.loads(past[0][1])["experiment"]["key"] == "guarded"


def test_harm_within_the_margin__trips_nothing_and_one_process_stops_it_once(kept: Kept) -> None:
    guarded = Guarded(kept, "stop", margin=0.1)
    guarded.come(800, (40, 100))
    assert (guarded.watch(), guarded.status) == (0, "running")
    guarded.come(800, (40, 300))
    second = Schedule(kept.snapshots, guarded.catalog.database, None, 90, MINUTE)
    assert (guarded.watch(), guarded.status) == (1, "stopped")
    second.run(lambda: guarded.catalog.now, lambda: True)
    assert second.done.trips == 0
    assert guarded.report.decision.sentence.startswith(
        "Roll back: the circuit breaker stopped the experiment"
    )
    assert "by more than its margin of 0.1" in guarded.report.decision.sentence
