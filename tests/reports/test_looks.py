"""Looks, past reports and the schedule that makes both, on both catalogs and stores."""

import json
from datetime import timedelta
from typing import Any

import pytest

from assay.catalog import lifecycle
from assay.catalog import looks as kept_looks
from assay.catalog import snapshots as past
from assay.catalog.audit import page as audit
from assay.catalog.database import Actor
from assay.catalog.documents import audit_entry
from assay.catalog.editing import find
from assay.catalog.users import erase
from assay.errors import Conflict
from assay.reports import history, looks
from assay.reports.question import Question
from assay.reports.schedule import Schedule
from assay.reports.snapshots import Snapshot, Snapshots
from assay.reports.spec import LookSpec
from catalog.conftest import HALVES, catalog, lasting_url, opened, url
from contracts.event_store import DAY, SECOND, event
from reports.test_snapshots import Kept, kept

__all__ = ["catalog", "kept", "lasting_url", "opened", "url"]

ADA = Actor("ada", 7, "req-1")
HOUR = timedelta(hours=1)


class Sequential:
    """A running sequential experiment of `kept`, into which units come as a test says."""

    def __init__(self, kept: Kept, key: str, **analysis: Any) -> None:
        self.kept, self.catalog, self.key = kept, kept.catalog, key
        self.id = self.catalog.running(
            key=key,
            metrics=[f"{key}-buy"],
            variants=HALVES,
            analysis={"method": "group_sequential", **analysis},
        )
        self.arms = [each["id"] for each in self.catalog.document(self.id)["variants"]]
        self.units = 0

    def come(self, count: int, *, rates: tuple[float, float] = (0.5, 0.5)) -> None:
        """So many more units, alternating between the arms, of whom such shares buy."""
        users = [f"{self.key}-{self.units + n}" for n in range(count)]
        at = self.kept.at + self.units
        self.kept.feed.assign(
            *((user, self.arms[n % 2]) for n, user in enumerate(users)), experiment=self.id, phase=1, at=at
        )
        buyers = [user for n, user in enumerate(users) if (n // 2 % 10) < 10 * rates[n % 2]]
        self.kept.feed.events(*(event(user, f"{self.key}-buy", at + SECOND) for user in buyers))
        self.units += count

    def look(self) -> looks.Made:
        return looks.make(
            self.kept.snapshots, self.catalog.database, self.key, ADA, self.catalog.later(seconds=1)
        )

    @property
    def made(self) -> tuple[LookSpec, ...]:
        return self.kept.snapshots.spec(self.id).looks

    @property
    def significant(self) -> bool | None:
        report = self.kept.snapshots.get(self.id, Question(), self.catalog.now).report
        [each] = report.primary.comparisons
        assert each.judged is not None
        return each.judged.significant


def schedule(kept: Kept, *, refresh: timedelta | None = HOUR, days: int = 90) -> Schedule:
    return Schedule(kept.snapshots, kept.catalog.database, refresh, days)


def run(kept: Kept, made: Schedule) -> tuple[int, int]:
    """One round; reports and looks made so far."""
    made.run(lambda: kept.catalog.now, lambda: True)
    return made.done.reports, made.done.looks


def stored(kept: Kept, experiment: int) -> list[past.SnapshotDocument]:
    with kept.catalog.read() as tx:
        return [past.document(row) for row in past.page(tx, experiment)[0]]


def test_a_verdict__moves_at_looks_alone(kept: Kept) -> None:
    test = Sequential(kept, "moves", planned_units=400)
    test.come(200, rates=(0.2, 0.8))
    assert test.significant is None
    first = test.look()
    assert (first.new, first.look.number, first.look.units, first.look.fraction) == (True, 1, 200, 0.5)
    [verdict] = first.look.verdicts
    assert (verdict["metric"], verdict["crossed"]) == ("moves-buy", True)
    assert abs(verdict["z"]) > verdict["limit"] > 1.96
    assert test.significant is True
    test.come(100, rates=(0.9, 0.1))
    assert test.significant is True
    with kept.catalog.read() as tx:
        entry = audit_entry(audit(tx, experiment_id=test.id, noun="look")[0][0])
        assert [kept_looks.document(row)["number"] for row in kept_looks.listed(tx, test.id)] == [1]
    assert (entry["action"], entry["actor"], entry["changes"]["units"]) == ("look.make", "ada", 200)
    assert entry["changes"]["crossed"] == [{"metric": "moves-buy", "treatment_id": test.arms[1]}]


def test_a_look__is_made_once_for_the_same_data(kept: Kept) -> None:
    test = Sequential(kept, "once", planned_units=400)
    with pytest.raises(Conflict, match="Nobody is in"):
        test.look()
    test.come(100)
    first, again = test.look(), test.look()
    assert (first.new, again.new, again.look.number) == (True, False, 1)
    test.come(400)
    last, after = test.look(), test.look()
    assert (last.look.number, last.look.fraction, last.new) == (2, 1.0, True)
    test.come(100)
    assert (test.look().new, after.new, len(test.made)) == (False, False, 2)


def test_two_processes__make_one_look(kept: Kept) -> None:
    test = Sequential(kept, "two", planned_units=400)
    test.come(100)
    other = Snapshots(kept.catalog.database, kept.store, lambda: None)
    stale = other.anew(test.key, Question(), kept.catalog.now).report
    first = test.look()
    with kept.catalog.write("schedule") as tx:
        row, new = kept_looks.add(
            tx, find(tx, test.id), 1, at=stale.computed_at, units=7, fraction=0.1, verdicts=[]
        )
    assert (new, row.units, row.made_by, first.new) == (False, 100, "ada", True)


def test_always_valid__is_looked_at_again_when_anything_has_changed(kept: Kept) -> None:
    test = Sequential(kept, "always", method="always_valid")
    test.come(400, rates=(0.2, 0.7))
    first, again = test.look(), test.look()
    test.come(2)
    third = test.look()
    assert [each.new for each in (first, again, third)] == [True, False, True]
    smallest = [each.verdicts[0].p_value or 1.0 for each in test.made]
    assert smallest[1] <= smallest[0] < 1.0


def test_looks__belong_to_sequential_methods(kept: Kept) -> None:
    with pytest.raises(Conflict, match="method fixed has no looks"):
        looks.make(kept.snapshots, kept.catalog.database, kept.key, ADA, kept.catalog.now)
    draft = kept.catalog.create(key="draft", variants=HALVES, analysis={"method": "always_valid"})
    with pytest.raises(Conflict, match="has not started"):
        looks.make(kept.snapshots, kept.catalog.database, draft, ADA, kept.catalog.now)
    unplanned = Sequential(kept, "unplanned")
    unplanned.come(10)
    with pytest.raises(Conflict, match="how much information is planned"):
        unplanned.look()


def test_scheduled_looks__come_by_units_by_date_or_by_day(kept: Kept) -> None:
    by_units = Sequential(kept, "units", planned_units=100, looks=2)
    dates = [(kept.catalog.now + timedelta(hours=hours)).isoformat() for hours in (5, 10)]
    by_date = Sequential(kept, "dates", look_dates=dates)
    by_day = Sequential(kept, "days", method="always_valid")
    for test in (by_units, by_date, by_day):
        test.come(40)
    hourly = schedule(kept)
    numbers = []
    for hour in range(1, 14):  # from 13:00 to 01:00
        kept.catalog.later(hours=1)
        by_units.come(2 if hour == 5 else 0)
        by_date.come(2)
        if hour == 8:
            by_units.come(10)
        run(kept, hourly)
        numbers.append([len(each.made) for each in (by_units, by_date, by_day)])
    assert numbers[3] == [0, 0, 0]
    assert numbers[4] == [0, 1, 0]
    assert numbers[7] == [1, 1, 0]
    assert numbers[9] == [1, 2, 0]
    assert numbers[10] == [1, 2, 0]
    assert numbers[11] == numbers[12] == [1, 2, 1]
    assert [row["why"] for row in stored(kept, by_day.id)].count("look") == 1
    assert hourly.done.looks == 4


def test_an_end__is_looked_at_once_more(kept: Kept) -> None:
    test = Sequential(kept, "ended", planned_units=1000)
    test.come(100)
    test.look()
    test.come(100)
    kept.catalog.later(hours=1)
    with kept.catalog.write() as tx:
        lifecycle.stop(tx, find(tx, test.id))
    kept.catalog.later(minutes=1)
    made = schedule(kept, refresh=None)
    for _ in range(3):
        run(kept, made)
        kept.catalog.later(hours=2)
    assert [(each.number, each.units) for each in test.made] == [(1, 100), (2, 200)]


def test_running_experiments__are_reported_on_by_one_process(kept: Kept) -> None:
    one = schedule(kept)
    other = Schedule(
        Snapshots(kept.catalog.database, kept.store, lambda: None), kept.catalog.database, HOUR, 90
    )
    assert (run(kept, one), run(kept, other)) == ((0, 0), (0, 0))
    kept.catalog.later(hours=1)
    assert (run(kept, one), run(kept, other)) == ((1, 0), (0, 0))
    kept.catalog.later(minutes=59)
    assert (run(kept, one), run(kept, other)) == ((1, 0), (0, 0))
    kept.catalog.later(minutes=1)
    assert (run(kept, other), run(kept, one)) == ((1, 0), (1, 0))
    [newest, _] = stored(kept, kept.id)
    assert (newest["why"], newest["total_units"], newest["look"]) == ("schedule", 40, None)
    assert newest["position"] == list(kept.store.watermark().mark)
    assert kept.snapshots.found(kept.key, Question(), kept.catalog.now, 2 * HOUR) is not None
    kept.catalog.later(hours=1)
    assert run(kept, schedule(kept, refresh=None)) == (0, 0)
    assert run(kept, schedule(kept, days=0)) == (0, 0)


def test_one_that_fails__does_not_hold_up_the_others(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = kept.catalog.running(key="broken", metrics=["purchase"], variants=HALVES)
    keep = history.keep

    def failing(*given: Any, **more: Any) -> bool:
        if given[1].report.spec.key == kept.key:
            raise RuntimeError("torn")
        return keep(*given, **more)

    monkeypatch.setattr(history, "keep", failing)
    kept.catalog.later(hours=1)
    run(kept, schedule(kept))
    assert (len(stored(kept, kept.id)), len(stored(kept, broken))) == (0, 1)


def kept_now(kept: Kept, days: int, look: int | None = None) -> Snapshot:
    snapshot = kept.snapshots.anew(kept.key, Question(), kept.catalog.now)
    history.keep(
        kept.catalog.database, snapshot, "look" if look else "refresh", kept.catalog.now, days, look=look
    )
    return snapshot


def test_the_history__is_thinned_as_it_ages(kept: Kept) -> None:
    kept.catalog.later(hours=-kept.catalog.now.hour)
    kept_now(kept, 3, look=1)
    for _ in range(6 * 4):
        kept.catalog.later(hours=6)
        kept_now(kept, 3)
    rows = stored(kept, kept.id)
    hours = [f"{row['computed_at'][8:10]} {row['computed_at'][11:13]}" for row in rows]
    days = sorted({each.split()[0] for each in hours})
    assert hours[-1].endswith(" 00")
    assert rows[-1]["look"] == 1
    assert [each.split()[1] for each in hours[:-1]] == ["00", "18", "18", "18"]
    assert len(days) == 5
    history.keep(kept.catalog.database, kept_now(kept, 3), "refresh", kept.catalog.now, 0)
    assert len(stored(kept, kept.id)) == 6


def test_a_past_report__is_given_back_letter_for_letter(kept: Kept) -> None:
    document = kept_now(kept, 90).document
    kept.feed.events(event("u1", "purchase", kept.at + DAY))
    [row] = stored(kept, kept.id)
    with kept.catalog.read() as tx:
        assert past.find(tx, kept.id, row["id"]).document.encode() == document
    assert (row["verdict"], row["headline"]) == (
        json.loads(document)["decision"]["verdict"],
        json.loads(document)["headline"],
    )


def test_erasing__takes_past_reports_that_name_the_user(kept: Kept) -> None:
    kept_now(kept, 90)
    kept.catalog.edit(kept.id, name='u"7')
    kept_now(kept, 90)
    with kept.catalog.write() as tx:
        removed = [erase(tx, user)["report_snapshots"] for user in ("u1", 'u"7', "%", "_")]
    assert (removed, len(stored(kept, kept.id))) == ([0, 1, 0, 0], 1)


def test_deleting_an_experiment__takes_its_looks_and_past_reports(kept: Kept) -> None:
    from assay.catalog.experiments import remove

    test = Sequential(kept, "gone", planned_units=400)
    test.come(100)
    made = test.look()
    snapshot = kept.snapshots.get(test.id, Question(), kept.catalog.now)
    assert history.keep(kept.catalog.database, snapshot, "look", kept.catalog.now, 0, look=made.look.number)
    with kept.catalog.write() as tx:
        lifecycle.put_away(tx, find(tx, test.id))
        remove(tx, find(tx, test.id), purge=True)
    assert kept.catalog.rows("SELECT count(*) FROM looks") == [(0,)]
    assert kept.catalog.rows("SELECT count(*) FROM report_snapshots") == [(0,)]
    assert not history.keep(kept.catalog.database, snapshot, "refresh", kept.catalog.now, 90)
