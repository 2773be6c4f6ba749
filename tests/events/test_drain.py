"""The drain: everything acknowledged arrives, once, in order, whatever happens in between."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.assignments.base import Record
from assay.errors import Invalid, Unavailable
from assay.events import drain as drain_module
from assay.events import identity
from assay.events.accept import accept_batch
from assay.events.drain import Drain
from assay.events.event import Event
from assay.eventstore.base import EventFilter, LedgerReason, Measure, Position, Scope
from contracts.embedded import Pipeline
from live import until

NOW = 1_790_000_000_000_000


def event(user_id: str = "u", event_id: str | None = None, **more: Any) -> Event:
    canonical = identity.Fresh(NOW).next() if event_id is None else identity.canonical(event_id)
    return Event(canonical, user_id, "click", NOW, NOW, o=event_id, k=event_id is not None, **more)


def stored(pipeline: Any) -> list[str]:
    """The users of all stored events, in log order."""
    rows, _ = pipeline.store.events(EventFilter(), 100_000)
    return [row.user_id for row in sorted(rows, key=lambda row: row.seq)]


def assign(pipeline: Any, *units: str) -> None:
    pipeline.run(pipeline.assignments.put_many([Record(1, unit, 10, 0, NOW - 5) for unit in units]))


def test_everything_acknowledged_before_a_flush_is_readable(pipeline: Any) -> None:
    pipeline.drain.start()
    assign(pipeline, "a", "b")
    pipeline.append(event("a", "1", a=2.0), event("b"))
    pipeline.drain.flush()
    [arm] = pipeline.store.moments(Scope(1), [Measure("m", "click")])
    assert (arm.units, arm.measures["m"].events, arm.measures["m"].total) == (2, 2, 2.0)
    pipeline.append(event("c"))
    pipeline.run(pipeline.drain.wait_past())
    assert stored(pipeline) == ["a", "b", "c"]
    assert pipeline.drain.drained == (3, 0, 2, 0)
    assert pipeline.drain.lag() == (0, 0.0)
    assert pipeline.drain.last_error is None


def test_rows_leave_once_they_are_safe(pipeline: Any) -> None:
    pipeline.drain.start()
    for index in range(50):
        pipeline.append(event(str(index)))
    pipeline.drain.flush()
    with pipeline.drain.paused():
        assert pipeline.inbox() == 0
        assert len(stored(pipeline)) == 50


def test_numbers_go_on_after_the_log_was_empty(open_pipeline: Callable[[], Any]) -> None:
    for round_ in range(3):
        pipeline = open_pipeline()
        pipeline.drain.start()
        pipeline.append(event(f"u{round_}", "same"))
        pipeline.drain.flush()
    assert stored(pipeline) == ["u0", "u1", "u2"]
    assert pipeline.store.position() == Position(3 << 16 | 0xFFFF, 0)


def test_nothing_to_do_is_done_at_once(pipeline: Any) -> None:
    pipeline.drain.start()
    pipeline.drain.flush(5)
    assert pipeline.store.position() == Position(-1, 0)


def test_a_flush_without_a_drain_is_refused(pipeline: Any) -> None:
    with pytest.raises(Unavailable, match="shutting down"):
        pipeline.drain.flush()


def test_closing_moves_what_is_left(open_pipeline: Callable[[], Any]) -> None:
    pipeline = open_pipeline()
    pipeline.drain.start()
    with pipeline.drain.paused():
        pipeline.append(event("a"))
    again = open_pipeline()
    assert stored(again) == ["a"]


def test_refusals_reach_the_ledger(pipeline: Any) -> None:
    pipeline.drain.start()
    pipeline.log.notes.rejected(1, "click", "invalid", "sample")
    pipeline.append(event("a"))
    pipeline.drain.flush()
    [entry] = pipeline.store.ledger(Scope(1))
    assert (entry.reason, entry.detail, entry.count, entry.samples) == (
        LedgerReason.REJECTED,
        "invalid",
        1,
        ("sample",),
    )


def test_many_small_and_few_large_rows_arrive_whole(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "EVENTS", 40)
    monkeypatch.setattr(drain_module, "BYTES", 20_000)
    sizes = [1] * 300 + [100, 1, 1, 60] + [1] * 100 + [1]
    sent = [[event(f"{row}.{place}") for place in range(size)] for row, size in enumerate(sizes)]
    sent[-1][0].p = '{"x": "' + "y" * 30_000 + '"}'

    async def all_at_once() -> None:
        await asyncio.gather(*(pipeline.log.append(request) for request in sent))

    pipeline.run(all_at_once())
    pipeline.drain.start()
    pipeline.drain.flush()
    assert stored(pipeline) == [one.u for request in sent for one in request]


# A store that fails.


class Flaky:
    """A store in front of the real one, which fails as told, before or after it really stored."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.calls = 0

    def position(self) -> tuple[int, int]:
        position: tuple[int, int] = self.store.position()
        return position

    def append(self, *portion: Any) -> tuple[int, int, int]:
        self.calls += 1
        if self.before:
            raise self.before.pop()
        result: tuple[int, int, int] = self.store.append(*portion)
        if self.after:
            raise self.after.pop()
        return result

    def maintain(self) -> None:
        self.store.maintain()


def test_a_failing_store_is_tried_again(pipeline: Any) -> None:
    flaky = Flaky(pipeline.store)
    flaky.before = [Unavailable("The disk is full."), OSError("odd")]
    pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, flaky)
    pipeline.log.notes.rejected(1, "click", "invalid", "sample")
    pipeline.append(event("a", "1"))
    pipeline.drain.start()
    for words in ("odd", "disk is full"):
        with pytest.raises(Unavailable, match=words):
            pipeline.drain.flush()
    pipeline.drain.flush()
    assert stored(pipeline) == ["a"]
    assert pipeline.drain.last_error is None
    assert [entry.count for entry in pipeline.store.ledger(Scope(1))] == [1]


def test_an_answer_lost_after_storing_repeats_nothing(pipeline: Any) -> None:
    flaky = Flaky(pipeline.store)
    flaky.after = [Unavailable("The answer was lost.")]
    pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, flaky)
    assign(pipeline, "a")
    pipeline.append(event("a"), event("b"))
    pipeline.drain.start()
    with pytest.raises(Unavailable, match="lost"):
        pipeline.drain.flush()
    pipeline.append(event("c"))
    pipeline.drain.flush()
    assert stored(pipeline) == ["a", "b", "c"]
    assert [arm.units for arm in pipeline.store.moments(Scope(1), [])] == [1]


def test_a_slow_store_is_waited_for_only_so_long(pipeline: Any) -> None:
    gate = threading.Event()

    class Slow(Flaky):
        def append(self, *portion: Any) -> tuple[int, int, int]:
            gate.wait(60)
            return super().append(*portion)

    pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, Slow(pipeline.store))
    pipeline.append(event("a"))
    pipeline.drain.start()
    with pytest.raises(Unavailable, match="not caught up"):
        pipeline.drain.flush(0.05)
    assert pipeline.drain.lag()[0] == 1
    gate.set()
    pipeline.drain.flush()
    assert stored(pipeline) == ["a"]


def test_a_failing_store_is_left_in_peace_between_attempts(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "EVENTS", 1)
    flaky = Flaky(pipeline.store)
    flaky.after = [Unavailable("full")] * 1_000
    pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, flaky)
    for user in ("a", "b", "c"):
        pipeline.append(event(user))
    began = time.monotonic()
    pipeline.drain.start()
    until(lambda: flaky.calls, "it was tried")
    time.sleep(0.5)
    calls = flaky.calls
    assert calls <= 2 + (time.monotonic() - began) / drain_module._IDLE
    flaky.after.clear()
    pipeline.drain.flush()
    assert stored(pipeline) == ["a", "b", "c"]


# When portions are moved.


def test_a_first_event_arrives_by_itself_and_others_together(pipeline: Any) -> None:
    counting = Flaky(pipeline.store)
    pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, counting)
    pipeline.drain.start()
    pipeline.drain.flush()
    pipeline.append(event("first"))
    until(lambda: stored(pipeline), "it has arrived")
    calls, began = counting.calls, time.monotonic()
    for number in range(60):
        pipeline.append(event(str(number)))
        time.sleep(0.01)
    calls = counting.calls - calls
    assert calls <= 2 + (time.monotonic() - began) / drain_module._BUSY
    pipeline.drain.flush()
    assert len(stored(pipeline)) == 61


def test_a_flush_ends_the_pause(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "_BUSY", 60.0)
    pipeline.drain.start()
    began = time.monotonic()
    for number in range(10):
        pipeline.append(event(str(number)))
        pipeline.drain.flush()
        assert len(stored(pipeline)) == number + 1
    assert time.monotonic() - began < 60


def test_what_is_behind_a_full_portion_follows_at_once(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "_BUSY", 120.0)
    monkeypatch.setattr(drain_module, "EVENTS", 3)
    assign(pipeline, *map(str, range(10)))
    for number in range(10):
        pipeline.append(event(str(number)))
    pipeline.drain.start()
    pipeline.drain.flush(60)
    assert pipeline.drain.drained == (10, 0, 10, 0)


# Rows that the store cannot read.


def poison(pipeline: Any, bodies: Sequence[tuple[int, str]]) -> None:
    def insert(connection: Any) -> None:
        for count, body in bodies:
            connection.execute("INSERT INTO inbox (count, body) VALUES (?, ?)", (count, body))

    pipeline.writer.run(insert)


GOOD = (
    '{"e":"0199aaaa-bbbb-7000-8000-0000000000%02x","u":"%s","t":"click",'
    '"s":1790000000000000,"r":1790000000000000}'
)


def test_a_bad_event_is_set_aside_alone(pipeline: Any) -> None:
    bad = GOOD.replace("1790000000000000", '"never"') % (99, "bad")
    poison(
        pipeline,
        [(1, GOOD % (row, f"u{row}")) for row in range(20)]
        + [
            (3, ",".join((GOOD % (50, "x"), bad, GOOD % (51, "y")))),
            (1, "{broken"),
            (1, GOOD % (52, "z")),
            (1, bad),
        ],
    )
    pipeline.drain.start()
    pipeline.drain.flush()
    assert stored(pipeline) == [*(f"u{row}" for row in range(20)), "x", "y", "z"]
    assert pipeline.drain.drained.set_aside == 3
    [entry] = [entry for entry in pipeline.store.ledger(Scope(1)) if entry.detail == "unstorable"]
    assert entry.count == 3
    assert "{broken" in entry.samples
    with pipeline.drain.paused():
        assert pipeline.inbox() == 0


def test_the_store_is_maintained_when_nothing_waits(pipeline: Any) -> None:
    maintained = threading.Event()

    class Maintained(Flaky):
        def maintain(self) -> None:
            self.store.maintain()
            maintained.set()

    pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, Maintained(pipeline.store))
    pipeline.drain.start()
    assert maintained.wait(60)
    pipeline.append(event("a"))
    pipeline.drain.flush()
    assert stored(pipeline) == ["a"]


class Stopping(Flaky):
    """Stores two portions and then no more."""

    def append(self, *portion: Any) -> tuple[int, int, int]:
        if self.calls >= 2:
            raise Unavailable("stopped")
        return super().append(*portion)


def test_setting_aside_survives_a_stop_at_any_step(open_pipeline: Callable[[], Any]) -> None:
    bad = GOOD.replace("1790000000000000", '"never"')
    mixed = (bad % (3, "x"), GOOD % (4, "c"), bad % (5, "y"), GOOD % (6, "d"))
    poison(open_pipeline(), [(2, f"{GOOD % (1, 'a')},{GOOD % (2, 'b')}"), (4, ",".join(mixed))])
    stops = 0
    while stops < 50:
        pipeline = open_pipeline()
        stopping = Stopping(pipeline.store)
        # Failing at once is no step forward: what the store refuses as unreadable is not counted.
        pipeline.drain = Drain(pipeline.writer, pipeline.path, pipeline.log.notes, stopping)
        before = pipeline.store.position()
        pipeline.drain.start()
        try:
            pipeline.drain.flush()
        except Unavailable:
            stops += 1
            if pipeline.store.position() > before:
                continue
            break
        break
    pipeline = open_pipeline()
    pipeline.drain.start()
    pipeline.drain.flush()
    assert stops > 0
    assert stored(pipeline) == ["a", "b", "c", "d"]
    [entry] = [entry for entry in pipeline.store.ledger(Scope(1)) if entry.detail == "unstorable"]
    assert entry.count == 2


# Any stop between any two steps.


class Stop(BaseException):
    """The process ends here."""


STEPS = ("before append", "after append", "before sweep", "after sweep")


@given(
    stops=st.lists(st.sampled_from(STEPS), max_size=6),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_stop_between_any_two_steps_repeats_and_skips_nothing(
    tmp_path_factory: pytest.TempPathFactory, stops: list[str], sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("stops")
    sent = [
        [event(f"{row}.{place}", f"{row}.{place // 2}") for place in range(size)]
        for row, size in enumerate(sizes)
    ]
    pipeline = Pipeline(folder)
    for request in sent:
        pipeline.append(*request)
        pipeline.run(pipeline.assignments.put_many([Record(1, request[0].u, 10, 0, NOW)]))
    for stop in stops:
        move_until(pipeline, stop)
        pipeline.close()
        pipeline = Pipeline(folder)
    pipeline.drain.start()
    pipeline.drain.flush()
    assert stored(pipeline) == [one.u for request in sent for one in request]
    assert sum(arm.units for arm in pipeline.store.moments(Scope(1), [])) == len(sizes)
    pipeline.close()


def move_until(pipeline: Any, stop: str) -> None:
    """One turn of the drain, in this thread, that ends at a step as if the process had."""
    drain = pipeline.drain
    drain._position = tuple(pipeline.store.position())
    what = drain._store if "append" in stop else pipeline.writer
    name = "append" if "append" in stop else "run"
    real = getattr(what, name)

    def stopping(*arguments: Any) -> Any:
        if stop.startswith("before"):
            raise Stop
        real(*arguments)
        raise Stop

    setattr(what, name, stopping)
    try:
        drain._move()
    except Stop:
        pass
    finally:
        setattr(what, name, real)


def test_accepted_events_are_always_storable(pipeline: Any) -> None:
    texts = [
        '{"a": 1e308}',
        '{"a": -0.0, "a": 5}',
        '{"\\u0000": "\\u0000"}',
        "{}",
        '{"x":' + '{"x":' * 200 + "1" + "}" * 201,
    ]
    body = (
        "["
        + ",".join(
            f'{{"user_id": "u{place}", "type": "t", "properties": {text}}}'
            for place, text in enumerate(texts)
        )
        + "]"
    )
    found = accept_batch(body.encode(), NOW, resolve=lambda _: None)
    pipeline.append(*found.events)
    pipeline.drain.start()
    pipeline.drain.flush()
    rows, _ = pipeline.store.events(EventFilter(), 10)
    assert sorted(row.properties for row in rows) == sorted(texts)
    for name in ("a", "\0", "x"):
        pipeline.store.moments(Scope(1), [Measure("m", "t", name, ((name, "x"),))])
    with pytest.raises(Invalid):
        pipeline.store.append((9 << 40, 0), '[{"q":')
