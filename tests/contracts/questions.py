"""What every event store answers to the questions of reports, as tests that each backend inherits."""

import json
import math
import statistics
from typing import Any

import pytest

from assay.eventstore.base import (
    Bucket,
    EventCount,
    EventFilter,
    EventStore,
    LedgerReason,
    Measure,
    Scope,
    SeriesPoint,
)
from contracts.event_store import DAY, HOUR, NOW, PURCHASES, SCOPE, SECOND, Feed, Fresh, event


def covariance(xs: list[float], ys: list[float]) -> float:
    return statistics.covariance(xs, ys) if len(xs) > 1 else 0.0


class QuestionContract:
    """Inherit and give the fixtures `store` (empty) and `empty`, which gives more of them."""

    def test_only_events_from_assignment_to_end_count(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), at=NOW)
        feed.events(
            event("a", at=NOW - 1, a=1.0),
            event("a", at=NOW, a=2.0),
            event("a", at=NOW + HOUR, a=4.0),
            event("a", at=NOW + HOUR + 1, a=8.0),
            event("stranger", at=NOW, a=16.0),
        )
        [arm] = store.moments(Scope(1, ended_at=NOW + HOUR), [PURCHASES])
        assert arm.measures["purchases"].total == 6.0
        assert store.event_counts(Scope(1, ended_at=NOW + HOUR)) == [EventCount(10, "purchase", 2, 1, 6.0)]

    def test_a_coarse_time_counts_if_it_may_be_after_assignment(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), at=NOW + 500_000)
        feed.events(event("a", at=NOW, c=NOW + SECOND - 1), event("a", at=NOW - SECOND, c=NOW - 1))
        assert store.event_counts(SCOPE) == [EventCount(10, "purchase", 1, 1, 0.0)]

    def test_events_that_name_an_experiment_count_for_it_alone(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.assign(("a", 20), experiment=2)
        feed.events(event("a", x=1, a=1.0), event("a", x=2, a=2.0), event("a", a=4.0), event("a", x=3, a=8.0))
        assert store.event_counts(SCOPE) == [EventCount(10, "purchase", 2, 1, 5.0)]
        assert store.event_counts(Scope(2)) == [EventCount(20, "purchase", 2, 1, 6.0)]

    def test_another_unit_is_found_in_units(self, store: EventStore, feed: Feed) -> None:
        name = "a'b\"c.$[0]/~"
        feed.assign(("acme", 10), ("u1", 11))
        feed.events(
            event("u1", m={name: "acme"}, a=1.0),
            event("u2", m={name: "acme", "other": "u1"}, a=2.0),
            event("u1"),
        )
        assert store.event_counts(Scope(1, unit=name)) == [EventCount(10, "purchase", 2, 1, 3.0)]
        rows, _ = store.events(EventFilter(experiment_id=1, unit=name), 10)
        assert [row.user_id for row in rows] == ["u2", "u1"]
        assert rows[0].units == {name: "acme", "other": "u1"}

    def test_the_scope_narrows(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 10), at=NOW)
        feed.assign(("late", 10), at=NOW + DAY)
        feed.events(
            event("a", at=NOW + 1, a=1.0),
            event("a", at=NOW + HOUR, a=2.0),
            event("b", at=NOW + HOUR, a=4.0),
            event("b", "click", at=NOW + HOUR),
            event("late", at=NOW + 2 * DAY, a=8.0),
        )

        def asked(**narrower: Any) -> tuple[int, float]:
            [arm] = store.moments(Scope(1, **narrower), [PURCHASES])
            return arm.units, arm.measures["purchases"].total

        assert asked() == (3, 15.0)
        assert asked(events_from=NOW + HOUR) == (3, 14.0)
        assert asked(until=NOW + HOUR) == (2, 7.0)
        assert asked(excluded_units=frozenset({"b", "nobody"})) == (2, 11.0)
        assert asked(event_type="click") == (3, 0.0)
        assert store.event_counts(Scope(1, event_type="click")) == [EventCount(10, "click", 1, 1, 0.0)]
        assert asked(until=10**30) == (3, 15.0)
        assert asked(events_from=-(10**30)) == (3, 15.0)

    def test_moments_agree_with_arithmetic(self, store: EventStore, feed: Feed) -> None:
        users = [f"u{index}" for index in range(60)]
        totals: dict[str, list[float]] = {user: [] for user in users}
        feed.assign(*((user, 10 + index % 2) for index, user in enumerate(users[:40])), phase=1)
        feed.assign(*((user, 10 + index % 2) for index, user in enumerate(users[40:])), phase=2)
        sent = []
        for index in range(200):
            user = users[index * index % 47]
            amount = 1e9 + index * 0.25
            totals[user].append(amount)
            sent.append(event(user, a=amount, at=NOW + index))
            sent.append(event(user, "click", at=NOW + index))
        feed.events(*sent)
        arms = store.moments(SCOPE, [PURCHASES, Measure("clicks", "click"), Measure("none", "nothing")])
        assert [(arm.variant_id, arm.phase, arm.units) for arm in arms] == [
            (10, 1, 20),
            (10, 2, 10),
            (11, 1, 20),
            (11, 2, 10),
        ]
        for arm in arms:
            members = [
                amounts
                for index, (user, amounts) in enumerate(totals.items())
                if index % 2 == arm.variant_id - 10 and (index >= 40) == (arm.phase == 2)
            ]
            columns = [
                [float(bool(amounts)) for amounts in members],
                [float(len(amounts)) for amounts in members],
                [math.fsum(amounts) for amounts in members],
            ]
            found = arm.measures["purchases"]
            assert found.count == len(members) == arm.units
            assert (found.converters, found.events) == (sum(columns[0]), sum(columns[1]))
            assert found.total == pytest.approx(math.fsum(columns[2]), rel=1e-12)
            assert found.means == pytest.approx(
                [math.fsum(column) / len(members) for column in columns], rel=1e-12
            )
            for i, row in enumerate(found.covariance):
                for j, entry in enumerate(row):
                    assert entry == pytest.approx(covariance(columns[i], columns[j]), rel=1e-9, abs=1e-9)
            clicks = arm.measures["clicks"]
            assert (clicks.converters, clicks.events, clicks.total) == (found.converters, found.events, 0.0)
            assert clicks.covariance[1][1] == found.covariance[1][1]
            assert arm.measures["none"].events == 0

    def test_a_single_unit_has_no_covariance(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a", a=5.0))
        [arm] = store.moments(SCOPE, [PURCHASES])
        assert arm.measures["purchases"].means == (1.0, 1.0, 5.0)
        assert arm.measures["purchases"].covariance == ((0.0,) * 3,) * 3

    def test_the_largest_values_stay_finite(self, store: EventStore, feed: Feed) -> None:
        feed.assign(*((f"u{index}", 10) for index in range(4)))
        feed.events(
            *(event(f"u{index % 3}", a=(-1.0) ** index * 1e100, p={"x": 1e100}) for index in range(12))
        )
        [arm] = store.moments(SCOPE, [PURCHASES, Measure("x", "purchase", "x")])
        for found in arm.measures.values():
            numbers = [found.total, *found.means, *(entry for row in found.covariance for entry in row)]
            assert all(math.isfinite(number) for number in numbers)

    def test_order_and_repetition_do_not_matter(self, empty: Fresh) -> None:
        sent = [event(f"u{index % 7}", id=f"e{index}", a=index / 7, at=NOW + index) for index in range(50)]
        answers = []
        for delivery in (sent, sent[::-1], sent + sent[::3], [one for one in sent for _ in range(3)]):
            store = empty()
            feed = Feed(store)
            feed.assign(*((f"u{index}", 10 + index % 2) for index in range(9)))
            for start in range(0, len(delivery), 8):
                feed.events(*delivery[start : start + 8])
            answers.append(store.moments(SCOPE, [PURCHASES]))
        for answer in answers[1:]:
            for arm, expected in zip(answer, answers[0], strict=True):
                found, wanted = arm.measures["purchases"], expected.measures["purchases"]
                assert (found.count, found.converters, found.events) == (
                    wanted.count,
                    wanted.converters,
                    wanted.events,
                )
                assert found.total == pytest.approx(wanted.total, rel=1e-12)
                for row, right in zip(found.covariance, wanted.covariance, strict=True):
                    assert row == pytest.approx(right, rel=1e-9)

    @pytest.mark.parametrize(
        "name", ["tax", "a'b\"c.$[0]", "", "/", "~0", "$", "*", "0", "é😀", "a\\b", "{slots}", "$p0"]
    )
    def test_any_property_name_can_be_measured(self, store: EventStore, feed: Feed, name: str) -> None:
        feed.assign(("a", 10), ("b", 10))
        sent: list[Any] = [
            {name: 1.5},
            {name: 2},
            {name: "3"},
            {name: None},
            {name: True},
            {name: [4]},
            {"other" + name: 8},
        ]
        feed.events(*(event("a", p=properties) for properties in sent), event("b"), event("b", p='{"x": 1}'))
        [arm] = store.moments(SCOPE, [Measure("m", "purchase", name)])
        assert (arm.measures["m"].events, arm.measures["m"].total, arm.measures["m"].converters) == (
            9,
            3.5,
            2,
        )

    @pytest.mark.parametrize(
        ("wanted", "matching"),
        [
            ("EUR", 1),
            ("1", 1),
            (1, 2),
            (1.5, 1),
            (True, 1),
            (False, 1),
            (None, 3),
            ("", 1),
            ("a'b\"; --", 1),
            ("true", 0),
        ],
    )
    def test_filters_compare_type_and_value(
        self, store: EventStore, feed: Feed, wanted: Any, matching: int
    ) -> None:
        feed.assign(("a", 10))
        sent = [
            '"EUR"',
            '"1"',
            "1",
            "1.0",
            "1.5",
            "true",
            "false",
            "null",
            '""',
            '"a\'b\\"; --"',
            "[1]",
            '{"k": 1}',
        ]
        name = "cur'r\"ency.$"
        feed.events(
            *(event("a", p=f"{{{json.dumps(name)}: {text}}}") for text in sent),
            event("a", p="{}"),
            event("a"),
        )
        measure = Measure("m", "purchase", equals=((name, wanted),))
        [arm] = store.moments(SCOPE, [measure])
        assert arm.measures["m"].events == matching
        assert sum(point.events for point in store.series(SCOPE, measure, Bucket.DAY)) == matching

    def test_measures_of_one_type_do_not_mix(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 10))
        feed.events(
            event("a", a=1.0, p={"tax": 0.5, "cur": "EUR"}),
            event("a", a=2.0, p={"tax": 0.25, "cur": "USD"}),
            event("b", a=4.0, p={"cur": "USD"}),
            event("b", "refund", a=8.0, p={"tax": 16}),
        )
        measures = [
            PURCHASES,
            Measure("same", "purchase"),
            Measure("tax", "purchase", "tax"),
            Measure("usd", "purchase", equals=(("cur", "USD"),)),
            Measure("usd tax", "purchase", "tax", (("cur", "USD"),)),
            Measure("refund tax", "refund", "tax"),
        ]
        [arm] = store.moments(SCOPE, measures)
        assert {
            key: (found.converters, found.events, found.total) for key, found in arm.measures.items()
        } == {
            "purchases": (2, 3, 7.0),
            "same": (2, 3, 7.0),
            "tax": (2, 3, 0.75),
            "usd": (2, 2, 6.0),
            "usd tax": (2, 2, 0.25),
            "refund tax": (1, 1, 16.0),
        }
        for measure in measures:
            [alone] = store.moments(SCOPE, [measure])
            assert alone.measures[measure.key] == arm.measures[measure.key]

    def test_a_series_accumulates(self, store: EventStore, feed: Feed) -> None:
        monday = NOW - NOW % DAY
        feed.assign(("a", 10), ("b", 11), at=monday + HOUR)
        feed.assign(("c", 10), at=monday + 2 * DAY)
        feed.events(
            event("a", at=monday + 2 * HOUR, a=1.0),
            event("a", at=monday + DAY, a=2.0),
            event("b", at=monday + DAY, a=4.0),
            event("c", at=monday + 2 * DAY, c=monday + 3 * DAY - 1, a=8.0),
            event("c", at=monday + 2 * DAY + 9, a=16.0),
        )
        assert store.series(SCOPE, PURCHASES, Bucket.DAY) == [
            SeriesPoint(monday, 10, 1, 1, 1, 1, 1, 1.0),
            SeriesPoint(monday, 11, 1, 1, 0, 0, 0, 0.0),
            SeriesPoint(monday + DAY, 10, 1, 0, 1, 1, 0, 2.0),
            SeriesPoint(monday + DAY, 11, 1, 0, 1, 1, 1, 4.0),
            SeriesPoint(monday + 2 * DAY, 10, 2, 1, 2, 1, 1, 24.0),
            SeriesPoint(monday + 2 * DAY, 11, 1, 0, 0, 0, 0, 0.0),
        ]
        assert [point.bucket for point in store.series(SCOPE, PURCHASES, Bucket.WEEK)] == [monday] * 2
        [month, _] = store.series(SCOPE, PURCHASES, Bucket.MONTH)
        assert (month.bucket, month.events, month.converters) == (1_788_220_800 * SECOND, 4, 2)
        assert len(store.series(SCOPE, PURCHASES, Bucket.HOUR)) == 2 * 4
        assert (
            sum(point.events for point in store.series(Scope(1, until=monday + DAY), PURCHASES, Bucket.DAY))
            == 3
        )

    def test_a_coarse_event_falls_with_its_assignment(self, store: EventStore, feed: Feed) -> None:
        midnight = NOW - NOW % DAY
        feed.assign(("a", 10), at=midnight + 5 * HOUR)
        feed.events(event("a", at=midnight, c=midnight + DAY - 1, a=1.0))
        assert store.series(SCOPE, PURCHASES, Bucket.HOUR) == [
            SeriesPoint(midnight + 5 * HOUR, 10, 1, 1, 1, 1, 1, 1.0)
        ]

    def test_the_ledger_names_every_fate(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), at=NOW)
        feed.assign(("b", 10), at=NOW)
        feed.events(
            event("a", at=NOW + 1, id="counted", y=11),
            event("b", at=NOW + 2, x=1, y=10),
            event("a", at=NOW - 1, id="early"),
            event("a", at=NOW + DAY, id="late"),
            event("nobody", x=1, id="named"),
            event("nobody"),
            event("a", at=NOW + 1, id="counted"),
            event("a", "click", at=NOW + 1),
            rejections=[
                (1, "purchase", "invalid_timestamp", 7, ("bad",)),
                (None, None, "invalid_json", 2, ()),
                (2, "purchase", "invalid", 1, ()),
            ],
        )
        entries = store.ledger(Scope(1, ended_at=NOW + HOUR), ["purchase"])
        assert [(entry.type, entry.reason.value, entry.detail, entry.count) for entry in entries] == [
            ("purchase", "accepted", "", 5),
            ("purchase", "counted", "", 2),
            ("purchase", "before_assignment", "", 1),
            ("purchase", "late", "", 1),
            ("purchase", "unassigned", "", 1),
            ("purchase", "duplicate", "", 1),
            ("purchase", "variant_mismatch", "", 1),
            ("purchase", "rejected", "invalid_timestamp", 7),
        ]
        by_reason = {entry.reason: entry for entry in entries}
        assert json.loads(by_reason[LedgerReason.UNASSIGNED].samples[0])["event_id"] == "named"
        assert json.loads(by_reason[LedgerReason.VARIANT_MISMATCH].samples[0])["event_id"] == "counted"
        assert by_reason[LedgerReason.REJECTED].samples == ("bad",)
        everything = store.ledger(Scope(1, ended_at=NOW + HOUR))
        assert {entry.type for entry in everything} == {None, "purchase", "click"}
        assert sum(entry.count for entry in everything if entry.reason is LedgerReason.REJECTED) == 9

    def test_the_ledger_keeps_five_samples_and_all_counts(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        for index in range(30):
            feed.events(
                event("a", id="x"),
                event("a", "other", id=f"y{index}"),
                rejections=[(1, "purchase", "invalid", 2, (f"s{index}",))],
            )
        entries = {(entry.type, entry.reason): entry for entry in store.ledger(SCOPE)}
        assert entries["purchase", LedgerReason.DUPLICATE].count == 29
        assert len(entries["purchase", LedgerReason.DUPLICATE].samples) == 5
        assert entries["purchase", LedgerReason.REJECTED].count == 60
        assert entries["purchase", LedgerReason.REJECTED].samples == ("s0", "s1", "s2", "s3", "s4")
        assert len(entries["other", LedgerReason.COUNTED].samples) == 5
