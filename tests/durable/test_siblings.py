"""Workers that tell each other of changes: each on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from assay.durable import siblings as module
from assay.durable.siblings import Sibling, Siblings


class Worker:
    """One sibling on its own loop, counting how often it looked."""

    def __init__(self, siblings: Siblings, place: int, look: Callable[[], None] | None = None) -> None:
        self.looks = 0
        self.sibling: Sibling = siblings.sit(place)
        self._look = look or (lambda: None)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.do(lambda: self.sibling.listen(self.looked))
        self.sibling.mark(serving=True)

    def looked(self) -> None:
        self._look()
        self.looks += 1

    def do(self, work: Callable[[], None]) -> None:
        async def run() -> None:
            work()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def close(self) -> None:
        self.do(self.sibling.leave)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()


@pytest.fixture
def workers() -> Iterator[Callable[..., list[Worker]]]:
    made: list[Worker] = []
    opened: list[Siblings] = []

    def make(count: int, look: Callable[[], None] | None = None) -> list[Worker]:
        siblings = Siblings(count)
        opened.append(siblings)
        made.extend(Worker(siblings, place, look) for place in range(count))
        return made

    yield make
    for worker in made:
        worker.close()
    for siblings in opened:
        siblings.close()


def test_who_has_changed_something_goes_on_when_all_others_have_looked(
    workers: Callable[..., list[Worker]],
) -> None:
    first, *others = workers(4)
    assert first.sibling.tell() is True
    assert [first.looks, *(each.looks for each in others)] == [0, 1, 1, 1]


def test_alone_there_is_nobody_to_wait_for(workers: Callable[..., list[Worker]]) -> None:
    (alone,) = workers(1)
    assert alone.sibling.tell() is True
    assert alone.looks == 0


def test_who_does_not_serve_is_not_waited_for(workers: Callable[..., list[Worker]]) -> None:
    first, second = workers(2)
    second.sibling.mark(serving=False)
    assert first.sibling.tell() is True
    assert second.looks == 0


def test_a_sibling_that_hangs_is_waited_for_only_so_long(
    workers: Callable[..., list[Worker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    hanging = threading.Event()
    first, second, _ = workers(3, lambda: hanging.wait(10) and None)
    try:
        assert first.sibling.tell() is False
    finally:
        hanging.set()
    assert second.sibling.tell() is True


def test_a_sibling_whose_look_fails_answers_the_next_time(
    workers: Callable[..., list[Worker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    failing = True

    def look() -> None:
        if failing:
            raise RuntimeError("the database is away")

    first, _ = workers(2, look)
    assert first.sibling.tell() is False
    failing = False
    assert first.sibling.tell() is True


def test_all_may_tell_at_once(workers: Callable[..., list[Worker]]) -> None:
    made = workers(4)
    seen: list[bool] = []
    threads = [
        threading.Thread(target=lambda each=each: seen.append(each.sibling.tell()))
        for each in made
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [True] * 32


def test_what_is_left_in_a_place_is_there_when_its_worker_is_gone() -> None:
    siblings = Siblings(3)
    try:
        first, second = siblings.sit(0), siblings.sit(1)
        assert (first.inherited(), first.others()) == (b"", [])
        second.say(b"a" * 100)
        second.say(b"short")
        second.mark(serving=True)
        assert first.others() == [(b"short", True)]
        second.mark(serving=False)
        assert first.others() == [(b"short", False)]
        assert siblings.sit(1).inherited() == b"short"
        second.say(b"x" * 5_000_000)  # no room for that
        assert first.others() == [(b"short", False)]
    finally:
        siblings.close()
