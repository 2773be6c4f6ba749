"""How every event store keeps what it is given, as tests that each backend inherits."""

import json
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from assay.errors import Invalid
from assay.eventstore.base import (
    EVENT_IDS,
    Appended,
    Bucket,
    Erased,
    EventCount,
    EventFilter,
    EventStore,
    LedgerReason,
    Measure,
    Position,
    Scope,
)

NOW = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z, a Monday
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
PURCHASES = Measure("purchases", "purchase")
SCOPE = Scope(1)

Fresh = Callable[[], EventStore]


def event(user_id: str, kind: str = "purchase", at: int = NOW, **more: Any) -> dict[str, Any]:
    """An event as the log keeps it; `id` is the caller's."""
    fields = {"u": user_id, "t": kind, "s": at, "r": NOW, **more}
    if "id" in fields:
        text = fields.pop("id")
        fields |= {"e": str(uuid.uuid5(EVENT_IDS, text)), "o": text, "k": True}
    fields.setdefault("e", str(uuid.uuid4()))
    if isinstance(fields.get("p"), dict):
        fields["p"] = json.dumps(fields["p"])
    return fields


class Feed:
    """Plays the drain: gives a store what a log would hold."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.row = 0
        self.assigned = 0

    def events(self, *events: dict[str, Any], rejections: Iterable[tuple[Any, ...]] = ()) -> Appended:
        return self.store.append(*self.portion(*events, rejections=rejections))

    def portion(self, *events: dict[str, Any], rejections: Iterable[tuple[Any, ...]] = ()) -> tuple[Any, ...]:
        self.row += 1
        position = Position(self.row * 65_536 + len(events), self.assigned)
        return position, json.dumps([{"q": self.row, "i": 0, "b": events}]), "[]", tuple(rejections)

    def assign(
        self, *rows: tuple[str, int], experiment: int = 1, phase: int = 0, at: int = NOW - DAY
    ) -> Appended:
        """Pairs of unit and variant."""
        lines = []
        for unit_id, variant_id in rows:
            self.assigned += 1
            lines.append([self.assigned, experiment, unit_id, variant_id, phase, at])
        position = Position(self.store.position().events, self.assigned)
        return self.store.append(position, assignments=json.dumps(lines))


class KeepingContract:
    """Inherit and give the fixtures `store` (empty) and `reopened` (the same data, opened again)."""

    def test_an_empty_store_has_empty_answers(self, store: EventStore) -> None:
        assert store.position() == Position(-1, 0)
        assert store.moments(SCOPE, [PURCHASES]) == []
        assert store.event_counts(SCOPE) == []
        assert store.series(SCOPE, PURCHASES, Bucket.DAY) == []
        assert store.ledger(SCOPE) == []
        assert store.events(EventFilter(), 10) == ([], None)
        assert store.events(EventFilter(experiment_id=1, variant_id=2), 10) == ([], None)
        assert store.event("nothing") is None
        assert store.purge(1) == Erased(0, 0, 0)
        assert store.erase("nobody") == Erased(0, 0, 0)
        assert store.recent_keys(10) == []

    def test_the_watermark_stands_still_while_nothing_comes(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a"))
        before = store.watermark()
        assert before.settled
        store.moments(SCOPE, [PURCHASES])
        store.ledger(SCOPE)
        assert store.watermark() == before

    def test_the_watermark_moves_with_every_change(self, store: EventStore, feed: Feed) -> None:
        marks = [store.watermark()]

        def moved(*, epoch: bool) -> None:
            marks.append(store.watermark())
            assert marks[-1].mark not in [each.mark for each in marks[:-1]]
            assert (marks[-1].epoch != marks[-2].epoch) == epoch
            assert marks[-1].settled

        feed.assign(("a", 10))
        moved(epoch=False)
        feed.events(event("a"), event("a", "view", at=NOW - DAY))
        moved(epoch=False)
        store.append(store.position(), rejections=[(1, "purchase", "invalid", 1, ())])
        moved(epoch=False)
        assert store.expire({"view": NOW}, None, 10) == 1
        moved(epoch=False)
        store.erase("a")
        moved(epoch=True)
        store.purge(1)
        moved(epoch=True)

    def test_units_without_events_are_zeros(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 10), ("c", 11))
        first, second = store.moments(SCOPE, [PURCHASES])
        assert (first.variant_id, first.units, second.variant_id, second.units) == (10, 2, 11, 1)
        nothing = first.measures["purchases"]
        assert (nothing.count, nothing.converters, nothing.events, nothing.total) == (2, 0, 0, 0.0)
        assert nothing.means == (0.0, 0.0, 0.0)
        assert nothing.covariance == ((0.0,) * 3,) * 3
        assert store.moments(Scope(2), [PURCHASES]) == []

    def test_one_moment_sees_nothing_of_what_comes_meanwhile(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a"))
        with store.one_moment():
            before = store.moments(SCOPE, [PURCHASES])
            meanwhile = threading.Thread(target=lambda: (feed.assign(("b", 10)), feed.events(event("b"))))
            meanwhile.start()
            meanwhile.join()
            assert store.moments(SCOPE, [PURCHASES]) == before
            assert sum(each.events for each in store.event_counts(SCOPE)) == 1
        (after,) = store.moments(SCOPE, [PURCHASES])
        assert (before[0].units, after.units) == (1, 2)

    def test_texts_come_back_letter_for_letter(self, store: EventStore) -> None:
        texts = [
            '{"a":1e308,"b":123456789012345678901234567890,"c":-0.0,"a":1.10}',
            ' {\t"b" : "\\u0000\\ud83d\\ude00\\/\\n" , "":[ ]\r\n} ',
            '{"ж":"😀\u2028\u2029\ufeff\x7f\uffff","]}":"[{\\"","\\\\":"\\\\\\""}',
            json.dumps({"x": "é" * 30_000}, ensure_ascii=False),
        ]
        for asciify in (True, False):
            sent = [event(f"{text[:40]}😀", p=text, id=f"{asciify}{text[:40]}") for text in texts]
            position = Position(store.position().events + 65_536, 0)
            line = {"q": position.events >> 16, "i": 0, "b": sent}
            assert store.append(position, json.dumps([line], ensure_ascii=asciify)).events == len(texts)
            rows, _ = store.events(EventFilter(), len(texts))
            found = [(row.user_id, row.event_id, row.properties) for row in reversed(rows)]
            assert found == [(one["u"], one["o"], one["p"]) for one in sent]

    def test_portions_of_equal_size_are_not_taken_for_each_other(self, store: EventStore, feed: Feed) -> None:
        users = [f"user{number:03}" for number in range(20)]
        for user in users:
            assert feed.events(event(user)) == Appended(1, 0, 0)
        rows, _ = store.events(EventFilter(), 100)
        assert sorted(row.user_id for row in rows) == users

    def test_rows_of_the_log_of_any_size_are_read(self, store: EventStore, feed: Feed) -> None:
        wide = '{"x":"' + "y" * 60_000 + '"}'
        feed.events(event("small"))
        feed.events(*(event(str(number), p=wide) for number in range(300)))
        rows, _ = store.events(EventFilter(), 1_000)
        assert len(rows) == 301

    def test_a_portion_twice_changes_nothing(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        portion = feed.portion(event("a", a=3.0), event("a", a=4.0, id="x"))
        assert store.append(*portion) == Appended(2, 0, 0)
        before = store.moments(SCOPE, [PURCHASES])
        assert store.append(*portion) == Appended(0, 0, 0)
        assert store.moments(SCOPE, [PURCHASES]) == before
        assert store.position() == portion[0]

    def test_the_same_user_and_id_count_once(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 10))
        assert feed.events(
            event("a", id="1", a=1.0), event("b", id="1", a=2.0), event("a", id="1", a=9.0)
        ) == (Appended(2, 1, 0))
        assert feed.events(event("a", id="1", a=5.0), event("a", id="2", a=4.0)) == Appended(1, 1, 0)
        [arm] = store.moments(SCOPE, [PURCHASES])
        assert (arm.measures["purchases"].events, arm.measures["purchases"].total) == (3, 7.0)
        [entry] = [found for found in store.ledger(SCOPE) if found.reason is LedgerReason.DUPLICATE]
        assert (entry.type, entry.count) == ("purchase", 2)
        assert [json.loads(sample) for sample in entry.samples] == [{"event_id": "1", "user_id": "a"}] * 2

    def test_the_first_in_log_order_stays(self, store: EventStore, feed: Feed) -> None:
        feed.events(event("a", id="1", v=1.0), event("a", id="1", v=2.0))
        feed.events(event("a", id="1", v=3.0))
        found = store.event("1")
        assert found is not None
        assert found.value == 1.0

    def test_a_bad_portion_leaves_nothing_behind(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        position = store.position()
        for broken in (
            event("a", e="not a uuid"),
            event("a", s="soon"),
            event("a", p="{broken"),
            {"e": None},
        ):
            with pytest.raises(Invalid):
                feed.events(event("a"), broken)
        with pytest.raises(Invalid):
            store.append(Position(9**9, 0), "[{]")
        assert store.position() == position
        assert store.events(EventFilter(), 10) == ([], None)

    def test_everything_outlives_the_store(self, store: EventStore, feed: Feed, reopened: Fresh) -> None:
        feed.assign(("a", 10))
        feed.events(event("a", id="1"), event("a", id="1"))
        before = (
            store.position(),
            store.moments(SCOPE, [PURCHASES]),
            store.ledger(SCOPE),
            store.recent_keys(9),
        )
        again = reopened()
        after = (
            again.position(),
            again.moments(SCOPE, [PURCHASES]),
            again.ledger(SCOPE),
            again.recent_keys(9),
        )
        assert after == before

    def test_recent_keys_are_those_of_callers_latest_last(self, store: EventStore, feed: Feed) -> None:
        feed.events(event("a", id="1"), event("b"), event("c", id="2"), event("d", id="3"))
        keys = [
            (user, str(uuid.uuid5(EVENT_IDS, text))) for user, text in (("a", "1"), ("c", "2"), ("d", "3"))
        ]
        assert store.recent_keys(10) == keys
        assert store.recent_keys(2) == keys[1:]

    def test_purging_removes_an_experiment_and_nothing_else(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 11))
        feed.assign(("a", 20), experiment=2)
        feed.events(event("a", x=1), event("a", x=2), event("b"), rejections=[(1, "t", "invalid", 1, ())])
        assert store.purge(1) == Erased(1, 2, 1)
        assert store.moments(SCOPE, [PURCHASES]) == []
        assert store.ledger(SCOPE) == []
        assert store.event_counts(Scope(2)) == [EventCount(20, "purchase", 1, 1, 0.0)]
        assert len(store.events(EventFilter(), 10)[0]) == 2

    def test_erasing_removes_a_user_and_samples_of_theirs(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("ann", 10), ("bob", 11))
        feed.events(
            event("ann", id="1"),
            event("bob", id="1"),
            event("ann", id="1"),
            event("bob", id="1"),
            rejections=[(1, "purchase", "invalid", 3, ('{"user_id": "ann"}',))],
        )
        assert store.erase("ann")[:2] == (1, 1)
        assert [row.user_id for row in store.events(EventFilter(), 10)[0]] == ["bob"]
        assert [(arm.variant_id, arm.units) for arm in store.moments(SCOPE, [PURCHASES])] == [(11, 1)]
        entries = {entry.reason: entry for entry in store.ledger(SCOPE)}
        assert entries[LedgerReason.REJECTED].count == 3
        assert not any("ann" in sample for entry in entries.values() for sample in entry.samples)

    def test_what_is_too_old_is_removed_by_type(self, store: EventStore, feed: Feed) -> None:
        feed.events(
            *(event(kind, kind, at=NOW + at) for kind in ("click", "view", "purchase") for at in range(10))
        )
        before = {"click": NOW + 4, "purchase": NOW, "unknown": NOW + 9}
        removed = [store.expire(before, NOW + 2, 4), store.expire(before, NOW + 2, 4)]
        assert removed == [4, 2]
        assert store.expire(before, NOW + 2, 4) == 0
        rows, _ = store.events(EventFilter(), 100)
        left = {kind: sum(row.type == kind for row in rows) for kind in ("click", "view", "purchase")}
        assert left == {"click": 6, "view": 8, "purchase": 10}
        assert store.expire({"view": NOW + 100}, None, 100) == 8
        assert store.expire({}, None, 100) == 0
        assert len(store.events(EventFilter(), 100)[0]) == 16

    def test_what_has_expired_may_come_again(self, store: EventStore, feed: Feed) -> None:
        feed.events(event("a", id="1"))
        assert store.expire({}, NOW + 1, 10) == 1
        assert feed.events(event("a", id="1")) == Appended(1, 0, 0)
