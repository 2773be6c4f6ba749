"""The log in PostgreSQL: every event once, repetitions named exactly, whoever sent them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from assay.durable.lanes import Patience
from assay.durable.postgres import PostgresWriter
from assay.errors import Unavailable
from assay.events.event import Event
from assay.events.postgres import PostgresEventLog
from assay.eventstore.postgres import PostgresStore
from postgresql import Postgres
from proxy import Proxy

NOW = 1_790_000_000_000_000


def make_tables(url: str) -> None:
    store = PostgresStore(url)
    store.prepare()
    store.close()


@pytest.fixture
def url(postgres_url: str) -> str:
    make_tables(postgres_url)
    return postgres_url


@contextlib.asynccontextmanager
async def opened(url: str, memory: int = 0, **arguments: Any) -> AsyncIterator[PostgresEventLog]:
    """A log with connections of its own, as another process would have; it remembers nothing by itself."""
    writer = PostgresWriter({"dsn": url}, **arguments)
    log = PostgresEventLog(writer, memory=memory)
    await writer.start()
    try:
        yield log
    finally:
        await writer.close()


async def revive(server: Postgres) -> None:
    """Start it again after a kill; a process of it may hold its memory for a moment longer."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(server.start)
            except AssertionError:
                await asyncio.to_thread(server.kill)
            else:
                return


def event(number: int, user: str = "u", received: int = NOW, *, keyed: bool = True, **more: Any) -> Event:
    return Event(e=str(UUID(int=number)), u=user, t="purchase", s=NOW - 7, r=received, k=keyed, **more)


async def rows(url: str, columns: str = "user_id, event_id") -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM events ORDER BY seq")]
    finally:
        await connection.close()


def test_an_event_is_stored_letter_for_letter(url: str) -> None:
    full = Event(
        e="00000000-0000-4000-8000-000000000001",
        u='ü"\\ \u2028 😀',
        t="kauf\n",
        s=NOW,
        r=NOW + 1,
        c=NOW + 2,
        o="order-1 'x'",
        k=True,
        m={"device": 'd"1', "é": "\x7f"},
        v=0.1,
        a=-1e100,
        p='{"a": "\\u0000 \\ud83d\\ude00", "b" : 1.10, "c": "\\\\u0000"}',
        x=2**40,
        y=3,
    )
    bare = event(2**127, keyed=False)
    when = (NOW, NOW + 2, NOW + 1)
    properties = (full.p, 2**40, 3)

    async def journey() -> None:
        async with opened(url) as log:
            assert await log.append([full, bare]) == ()
            assert (log.accepted, log.doubles) == (2, 0)

    asyncio.run(journey())
    columns = (
        "event_id::text, original_id, keyed, user_id, units::json ->> 'device', units::json ->> 'é', type, "
        "occurred_at, counts_until, received_at, value, amount, properties, experiment_id, variant_id"
    )
    nothing = (None,) * 2
    assert asyncio.run(rows(url, columns)) == [
        (full.e, full.o, True, full.u, 'd"1', "\x7f", full.t, *when, 0.1, -1e100, *properties),
        (bare.e, None, False, "u", *nothing, "purchase", NOW - 7, NOW - 7, NOW, *nothing, None, *nothing),
    ]


@pytest.mark.parametrize("prepared", [True, False])
def test_repetitions_are_named_exactly(url: str, prepared: bool) -> None:
    async def journey() -> None:
        async with opened(url, prepared=prepared) as log:
            first = [event(1), event(2), event(1, "other user")]
            assert await log.append(first) == ()
            again = [event(3), event(2), event(1, received=NOW), event(4)]
            assert await log.append(again) == again[1:3]
            assert (log.accepted, log.doubles) == (5, 2)

    asyncio.run(journey())
    assert len(asyncio.run(rows(url))) == 5


def test_of_requests_that_come_together_the_first_one_wins(url: str) -> None:
    async def journey() -> None:
        async with opened(url) as log:
            # The same microsecond, so that nothing but their order tells them apart.
            requests = [[event(n, v=float(at)) for n in (9, at, 5)] for at in range(20, 28)]
            outcomes = await asyncio.gather(*(log.append(request) for request in requests))
            assert list(outcomes[0]) == []
            assert [list(outcome) for outcome in outcomes[1:]] == [[r[0], r[2]] for r in requests[1:]]

    asyncio.run(journey())
    assert sorted(asyncio.run(rows(url, "value")))[:3] == [(20.0,)] * 3


def test_processes_that_get_the_same_events_agree_who_was_first(url: str) -> None:
    async def journey() -> None:
        async with contextlib.AsyncExitStack() as stack:
            logs = [await stack.enter_async_context(opened(url)) for _ in range(4)]
            sent = [[[event(n)] for n in range(300)[:: 1 if at % 2 else -1]] for at in range(4)]
            waiting = [
                log.append(request) for log, requests in zip(logs, sent, strict=True) for request in requests
            ]
            outcomes: Sequence[Sequence[Event]] = await asyncio.gather(*waiting)
            assert sum(not outcome for outcome in outcomes) == 300
            assert sum(log.accepted for log in logs) == 300
            assert sum(log.doubles for log in logs) == 900

    asyncio.run(journey())
    assert len(set(asyncio.run(rows(url)))) == 300


def test_events_without_an_id_of_the_callers_are_never_repetitions(url: str) -> None:
    async def journey() -> None:
        async with opened(url) as log:
            assert log.split([event(1, keyed=False), event(1, keyed=False)])[1] == []
            assert await log.append([event(number, keyed=False) for number in range(10)]) == ()

    asyncio.run(journey())


def test_what_is_remembered_costs_the_database_nothing_until_it_is_forgotten(url: str) -> None:
    async def journey() -> None:
        async with opened(url, memory=100) as log:
            await log.append([event(1), event(2, "v")])
            assert log.split([event(1), event(3)]) == ([event(3)], [event(1)])
            log.forget("u")
            assert log.split([event(1), event(2, "v")]) == ([event(1)], [event(2, "v")])
            log.relearn()
            assert log.split([event(2, "v")])[0] == [event(2, "v")]

    asyncio.run(journey())


def test_an_answer_that_is_lost_makes_no_repetition_of_a_first_event(postgres: Postgres, url: str) -> None:
    async def journey(proxy: Proxy) -> None:
        behind = f"postgresql://postgres@127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}"
        async with opened(behind) as log:
            known = event(1, received=NOW - 5)
            assert await log.append([known]) == ()
            await asyncio.to_thread(proxy.cut_before_answer)
            request = [event(3), event(1), event(2), event(4, keyed=False)]
            neighbour = log.append([event(5), event(2)])
            assert list(await log.append(request)) == [request[1], request[2]]
            assert list(await neighbour) == []
            assert not proxy.armed
            # Stored, and its sender never heard of it: to them it is a repetition when they send it anew.
            assert list(await log.append([event(5, received=NOW + 1)])) == [event(5, received=NOW + 1)]

    with Proxy(postgres.port) as proxy:
        asyncio.run(journey(proxy))
    assert sorted(number.int for _, number in asyncio.run(rows(url))) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_acknowledged_events_outlive_a_killed_database() -> None:
    async def journey(server: Postgres) -> None:
        acknowledged: list[int] = []
        patience = Patience(connect=0.5, statement=0.5, group=3.0)

        async def client(log: PostgresEventLog, name: int) -> None:
            for number in range(100):
                sent = event(1_000 * name + number, received=NOW + number)
                async with asyncio.timeout(60):
                    while True:
                        try:
                            await log.append([sent])
                        except Unavailable:
                            await asyncio.sleep(0.02)
                        else:
                            break
                acknowledged.append(1_000 * name + number)

        async with opened(server.url(), patience=patience) as log:
            clients = [asyncio.create_task(client(log, name)) for name in range(12)]
            for goal in (200, 700):
                async with asyncio.timeout(60):
                    while len(acknowledged) < goal:  # noqa: ASYNC110 - counts answers of the database
                        await asyncio.sleep(0.005)
                await asyncio.to_thread(server.kill)
                await revive(server)
            await asyncio.gather(*clients)
        assert sorted(acknowledged) == sorted(number.int for _, number in await rows(server.url()))

    with Postgres() as server:
        make_tables(server.url())
        asyncio.run(journey(server))
