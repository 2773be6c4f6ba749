"""The log: on disk before it answers, repetitions known as soon as they are on disk."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from assay.errors import Unavailable
from assay.events import identity
from assay.events.event import Event
from assay.events.notes import Notes
from assay.events.sqlite import SqliteEventLog

NOW = 1_790_000_000_000_000


def event(user_id: str = "u", event_id: str | None = None, **more: Any) -> Event:
    canonical = identity.Fresh(NOW).next() if event_id is None else identity.canonical(event_id)
    return Event(canonical, user_id, "click", NOW, NOW, o=event_id, k=event_id is not None, **more)


def rows(pipeline: Any) -> list[tuple[int, int, list[Event]]]:
    found = pipeline.writer.run(lambda connection: connection.execute("SELECT * FROM inbox").fetchall())
    return [(seq, count, msgspec.json.decode(f"[{body}]", type=list[Event])) for seq, count, body in found]


def test_a_request_is_one_row_in_order(pipeline: Any) -> None:
    requests = [[event(str(index)) for index in range(1 + size % 3)] for size in range(700)]

    async def all_at_once() -> None:
        await asyncio.gather(*(pipeline.log.append(request) for request in requests))

    pipeline.run(all_at_once())
    assert rows(pipeline) == [(seq, len(request), request) for seq, request in enumerate(requests, start=1)]
    assert pipeline.log.accepted == sum(map(len, requests))


def known(log: Any, user: str, caller_id: str) -> bool:
    """Whether an event that a caller sends with this id now is named as a repetition."""
    return log.split([event(user, caller_id)])[1] != []


def test_a_key_is_known_once_it_is_on_disk(pipeline: Any) -> None:
    async def twice() -> list[bool]:
        future = pipeline.log.append([event("a", "1")])
        before = known(pipeline.log, "a", "1")
        assert await future == ()
        return [before, known(pipeline.log, "a", "1"), known(pipeline.log, "b", "1")]

    assert pipeline.run(twice()) == [False, True, False]


def test_a_failed_append_leaves_no_key(pipeline: Any) -> None:
    pipeline.writer.run(lambda connection: connection.execute("DROP TABLE inbox"))
    with pytest.raises(Unavailable):
        pipeline.append(event("a", "1"))
    assert not known(pipeline.log, "a", "1")
    assert pipeline.log.accepted == 0
    with pytest.raises(Unavailable):
        pipeline.log.relearn()


def test_split_names_doubles_within_a_request_and_known_ones(pipeline: Any) -> None:
    pipeline.append(event("a", "1"))
    sent = [event("a", "1"), event("b", "1"), event("b", "1"), event("b"), event("b"), event("a", "2")]
    fresh, doubles = pipeline.log.split(sent)
    assert fresh == [sent[1], sent[3], sent[4], sent[5]]
    assert doubles == [sent[0], sent[2]]
    assert pipeline.log.doubles == 2


def test_memory_is_learnt_from_store_and_rows(pipeline: Any) -> None:
    pipeline.append(event("a", "1"), event("a"))
    pipeline.append(event("b", "2"))
    stored = [("c", identity.canonical("3"))]
    log = SqliteEventLog(pipeline.writer, pipeline.path, lambda _: stored, memory=100)
    log.relearn()
    assert all(known(log, *key) for key in (("a", "1"), ("b", "2"), ("c", "3")))
    assert not known(log, "a", "3")
    stored.clear()
    log.relearn()
    assert known(log, "a", "1")
    assert not known(log, "c", "3")


def test_memory_is_bounded_and_keeps_the_latest(pipeline: Any) -> None:
    for index in range(300):
        pipeline.append(event("u", str(index)))
    log = SqliteEventLog(pipeline.writer, pipeline.path, lambda _: [], memory=100)
    log.relearn()
    assert not any(known(log, "u", str(index)) for index in range(200))
    assert all(known(log, "u", str(index)) for index in range(250, 300))


def test_a_row_that_cannot_be_read_does_not_stop_the_start(pipeline: Any) -> None:
    pipeline.writer.run(lambda connection: connection.execute("INSERT INTO inbox VALUES (1, 1, '{broken')"))
    stored = [("c", identity.canonical("1"))]
    log = SqliteEventLog(pipeline.writer, pipeline.path, lambda _: stored, memory=100)
    log.relearn()
    assert known(log, "c", "1")


def test_an_erased_user_is_forgotten(pipeline: Any) -> None:
    pipeline.append(event("a", "1"), event("b", "1"))
    pipeline.log.forget("a")
    assert not known(pipeline.log, "a", "1")
    assert known(pipeline.log, "b", "1")


def test_refusals_are_counted_by_kind_with_samples() -> None:
    notes = Notes()
    for index in range(8):
        notes.rejected(1, "buy", "invalid", f"s{index}")
    notes.rejected(None, None, "invalid_json", "x")
    taken = notes.take()
    assert taken == [
        (1, "buy", "invalid", 8, ("s0", "s1", "s2", "s3", "s4")),
        (None, None, "invalid_json", 1, ("x",)),
    ]
    assert notes.take() == []
    notes.rejected(1, "buy", "invalid", "new")
    notes.give_back(taken)
    assert notes.take()[0] == (1, "buy", "invalid", 9, ("new", "s0", "s1", "s2", "s3"))


def test_callers_cannot_make_up_kinds_without_end() -> None:
    notes = Notes()
    for index in range(5_000):
        notes.rejected(1, f"type {index}", "invalid", "")
    taken = notes.take()
    assert len(taken) == 1_001
    assert sum(count for *_, count, _ in taken) == 5_000
    assert (1, None, "invalid", 4_000) in [kind[:4] for kind in taken]


def test_events_survive_a_restart(open_pipeline: Callable[[], Any]) -> None:
    sent = [event("a", "1", v=1.5), event("b")]
    open_pipeline().append(*sent)
    assert rows(open_pipeline()) == [(1, 2, sent)]
