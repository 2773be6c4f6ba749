"""Who may wait: by their number at any time, by time only where a queue stands and the turn is used up."""

import asyncio
from collections.abc import Callable
from typing import Any

from assay.hotpath.admission import (
    FEW_WAITING,
    MOST_WAITING,
    PATIENCE,
    RECOVERY,
    SOON,
    TURN_SECONDS,
    Admission,
)


class Clock:
    """A time that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def in_loop(journey: Callable[[Admission, Clock], Any]) -> None:
    """Play it within an event loop, whose turns are those that count."""

    async def play() -> None:
        clock = Clock()
        await journey(Admission(clock), clock)

    asyncio.run(play())


def crowd(admission: Admission, clock: Clock, seconds: float, each: float = 0.2, size: int = 1000) -> None:
    """For so long there are `size` who wait, each answered after a time, with another in its place."""
    while admission.waiting < size:
        admission.enter()
    until = clock.now + seconds
    while clock.now < until:
        clock.now += each
        for _ in range(size):
            admission.leave()
            admission.enter()


def empty(admission: Admission) -> None:
    while admission.waiting:
        admission.leave()


async def turn() -> None:
    """Let the loop begin another turn."""
    await asyncio.sleep(0)


def test_number_of_those_who_wait_is_bounded() -> None:
    async def journey(admission: Admission, _: Clock) -> None:
        while not admission.full():
            admission.enter()
        assert admission.waiting == MOST_WAITING
        admission.leave()
        assert not admission.full()
        assert not admission.overloaded

    in_loop(journey)


def test_queue_that_stands__the_rest_of_each_turn_is_refused() -> None:
    async def journey(admission: Admission, clock: Clock) -> None:
        crowd(admission, clock, PATIENCE + 0.5)
        assert admission.overloaded
        for _ in range(5):
            assert not admission.full()  # the turn begins
            clock.now += TURN_SECONDS / 2
            assert not admission.full()
            clock.now += TURN_SECONDS
            assert admission.full()
            assert admission.full()
            await turn()

    in_loop(journey)


def test_few_may_wait_whatever_the_time() -> None:
    async def journey(admission: Admission, clock: Clock) -> None:
        crowd(admission, clock, PATIENCE + 0.5)
        assert not admission.full()
        clock.now += 2 * TURN_SECONDS
        assert admission.full()
        while admission.waiting >= FEW_WAITING:
            admission.leave()
        assert not admission.full()

    in_loop(journey)


def test_hiccup__nobody_is_refused() -> None:
    """A stop of the process, and a crowd that waited in the sockets meanwhile."""

    async def journey(admission: Admission, clock: Clock) -> None:
        for _ in range(20):
            crowd(admission, clock, PATIENCE / 4)
            clock.now += 5 * PATIENCE
            assert not admission.full()
            empty(admission)
            crowd(admission, clock, SOON, each=SOON / 4)  # and then it is answered soon again
            empty(admission)
        assert not admission.overloaded

    in_loop(journey)


def test_many_who_are_answered_soon__nobody_is_refused() -> None:
    async def journey(admission: Admission, clock: Clock) -> None:
        crowd(admission, clock, 5 * PATIENCE, each=SOON / 2, size=MOST_WAITING - 1)
        clock.now += 10 * TURN_SECONDS
        assert not admission.full()

    in_loop(journey)


def test_slow_disk_with_an_idle_processor__nobody_is_refused() -> None:
    """Whoever waits for the disk waits as long alone: each turn is short, and everybody may wait."""

    async def journey(admission: Admission, clock: Clock) -> None:
        crowd(admission, clock, 5 * PATIENCE, each=0.5)
        for _ in range(50):
            assert not admission.full()
            clock.now += TURN_SECONDS / 2
            assert not admission.full()
            await turn()

    in_loop(journey)


def test_load_that_ends__served_at_once__and_forgotten() -> None:
    async def journey(admission: Admission, clock: Clock) -> None:
        crowd(admission, clock, PATIENCE + 0.5)
        assert not admission.full()
        clock.now += 2 * TURN_SECONDS
        assert admission.full()
        empty(admission)
        assert not admission.full()
        clock.now += RECOVERY
        assert not admission.overloaded
        crowd(admission, clock, PATIENCE / 2)  # a burst later on is a burst again
        clock.now += 10 * TURN_SECONDS
        assert not admission.full()

    in_loop(journey)
