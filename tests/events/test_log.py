"""The log: on disk before it answers, repetitions known as soon as they are on disk."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from assay.errors import Unavailable
from assay.events import identity
from assay.events.event import Event
from assay.events.log import EventLog

NOW = 1_790_000_000_000_000


def event(user_id: str = "u", event_id: str | None = None, **more: Any) -> Event:
    canonical = identity.fresh(identity.beginning(NOW)) if event_id is None else identity.canonical(event_id)
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


def test_a_key_is_known_once_it_is_on_disk(pipeline: Any) -> None:
    first = event("a", "1")

    async def twice() -> list[bool]:
        future = pipeline.log.append([first])
        before = pipeline.log.known("a", first.e)
        await future
        return [before, pipeline.log.known("a", first.e), pipeline.log.known("b", first.e)]

    assert pipeline.run(twice()) == [False, True, False]


def test_a_failed_append_leaves_no_key(pipeline: Any) -> None:
    pipeline.writer.run(lambda connection: connection.execute("DROP TABLE inbox"))
    with pytest.raises(Unavailable):
        pipeline.append(event("a", "1"))
    assert not pipeline.log.known("a", identity.canonical("1"))
    assert pipeline.log.accepted == 0
    with pytest.raises(Unavailable):
        pipeline.log.seed([])


def test_split_names_doubles_within_a_request_and_known_ones(pipeline: Any) -> None:
    pipeline.append(event("a", "1"))
    sent = [event("a", "1"), event("b", "1"), event("b", "1"), event("b"), event("b"), event("a", "2")]
    fresh, doubles = pipeline.log.split(sent)
    assert fresh == [sent[1], sent[3], sent[4], sent[5]]
    assert doubles == [sent[0], sent[2]]
    assert pipeline.log.doubles == 2


def test_memory_is_seeded_from_store_and_rows(pipeline: Any) -> None:
    pipeline.append(event("a", "1"), event("a"))
    pipeline.append(event("b", "2"))
    log = EventLog(pipeline.writer, pipeline.path, memory=100)
    log.seed([("c", identity.canonical("3"))])
    for user, text in (("a", "1"), ("b", "2"), ("c", "3")):
        assert log.known(user, identity.canonical(text))
    assert not log.known("a", identity.canonical("3"))


def test_memory_is_bounded_and_keeps_the_latest(pipeline: Any) -> None:
    log = EventLog(pipeline.writer, pipeline.path, memory=100)
    keys = [("u", identity.canonical(str(index))) for index in range(1_000)]
    log.seed(keys)
    assert not any(log.known(*key) for key in keys[:900])
    assert all(log.known(*key) for key in keys[-50:])


def test_a_row_that_cannot_be_read_does_not_stop_the_start(pipeline: Any) -> None:
    pipeline.writer.run(lambda connection: connection.execute("INSERT INTO inbox VALUES (1, 1, '{broken')"))
    log = EventLog(pipeline.writer, pipeline.path, memory=100)
    log.seed([("c", "x" * 36)])
    assert log.known("c", "x" * 36)


def test_an_erased_user_is_forgotten(pipeline: Any) -> None:
    pipeline.append(event("a", "1"), event("b", "1"))
    pipeline.log.forget("a")
    assert not pipeline.log.known("a", identity.canonical("1"))
    assert pipeline.log.known("b", identity.canonical("1"))


def test_refusals_are_counted_by_kind_with_samples(pipeline: Any) -> None:
    log = pipeline.log
    for index in range(8):
        log.note_rejected(1, "buy", "invalid", f"s{index}")
    log.note_rejected(None, None, "invalid_json", "x")
    taken = log.take_rejections()
    assert taken == [
        (1, "buy", "invalid", 8, ("s0", "s1", "s2", "s3", "s4")),
        (None, None, "invalid_json", 1, ("x",)),
    ]
    assert log.take_rejections() == []
    log.note_rejected(1, "buy", "invalid", "new")
    log.give_back(taken)
    assert log.take_rejections()[0] == (1, "buy", "invalid", 9, ("new", "s0", "s1", "s2", "s3"))


def test_callers_cannot_make_up_kinds_without_end(pipeline: Any) -> None:
    for index in range(5_000):
        pipeline.log.note_rejected(1, f"type {index}", "invalid", "")
    taken = pipeline.log.take_rejections()
    assert len(taken) == 1_001
    assert sum(count for *_, count, _ in taken) == 5_000
    assert (1, None, "invalid", 4_000) in [kind[:4] for kind in taken]


def test_events_survive_a_restart(open_pipeline: Callable[[], Any]) -> None:
    sent = [event("a", "1", v=1.5), event("b")]
    open_pipeline().append(*sent)
    assert rows(open_pipeline()) == [(1, 2, sent)]
