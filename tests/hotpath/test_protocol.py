"""The server's own HTTP: the same answers as by ASGI, in order, whatever pieces they come in, and bounded."""

import asyncio
import json
import os
import re
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import httpx2
import pytest
import uvicorn
import uvloop

from assay.hotpath.admission import MOST_WAITING
from assay.hotpath.app import split
from assay.hotpath.http import Head, Response, new_request_id
from assay.hotpath.protocol import (
    BODY_RATE,
    BODY_SECONDS,
    HEAD_SECONDS,
    MOST_HEAD,
    MOST_HELD,
    UNREAD_SECONDS,
    Front,
    HotProtocol,
)
from assay.wiring import Application
from hotpath.served import Serving, served
from inprocess import KEY

Journey = Callable[[Serving], Awaitable[Any]]
AUTH = f"Authorization: Bearer {KEY}\r\n"
_CHANGING = re.compile(rb"(?<=\r\ndate: )[^\r]+|(?<=\r\nx-request-id: )[0-9a-f]+-[0-9a-f]+")


def run(tmp_path: Path, journey: Journey, **settings: Any) -> Any:
    async def whole() -> Any:
        async with served(tmp_path, **settings) as server:
            try:
                return await asyncio.wait_for(journey(server), 60)
            finally:
                while Wire.open:
                    Wire.open.pop().writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


class Wire:
    """A connection on which anything can be said."""

    open: ClassVar[list["Wire"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: Serving) -> "Wire":
        cls.open.append(cls(*await asyncio.open_connection("127.0.0.1", server.port)))
        return cls.open[-1]

    def say(self, text: str | bytes) -> None:
        self.writer.write(text if isinstance(text, bytes) else text.encode())

    async def hear(self, *, body: bool = True) -> tuple[int, bytes, bytes]:
        """One answer: status, head, body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"\r\ncontent-length: (\d+)", head)
        size = int(found[1]) if found and body else 0
        return int(head[9:12]), head, await self.reader.readexactly(size)

    async def ask(self, text: str | bytes) -> tuple[int, bytes, bytes]:
        self.say(text)
        return await self.hear()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self.reader.read()


def get(path: str, more: str = "") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{AUTH}{more}\r\n"


def post(path: str, document: Any, more: str = "") -> str:
    body = document if isinstance(document, str) else json.dumps(document)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{more}\r\n{body}"


async def prepared(server: Serving) -> Wire:
    """A connection to a server that has one running experiment."""
    wire = await Wire.to(server)
    variants = [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}]
    status, _, body = await wire.ask(
        post("/api/v1/experiments", {"name": "Test", "status": "running", "variants": variants})
    )
    assert status == 201, body
    return wire


def connection(server: Serving) -> HotProtocol:
    """The server's side of the only connection there is."""
    (only,) = server.server_state.connections
    return cast("HotProtocol", only)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop go round until something holds."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never held")


def test_both_ways_answer_to_the_byte_alike(tmp_path: Path) -> None:
    ada = "/api/v1/experiments/1/assignment/ada"
    event = {"event_id": "e1", "user_id": "ada", "type": "t", "timestamp": "2026-01-01T00:00:00Z"}
    requests = [
        get(ada),
        get(ada, "X-Request-ID: mine\r\n"),
        get(ada, "X-Request-ID: not/sane\r\n"),
        get(ada + "/"),
        get("//api/v1/experiments/1/assignment/ada"),
        get(ada + "?device=1"),
        get(ada + "#fragment"),
        get("/experiments/test/assignment/%61da"),
        get("/experiments/none/assignment/ada"),
        get("/experiments/1/explain/ada"),
        get(ada, "Connection: close\r\n"),
        get(ada).replace("HTTP/1.1", "HTTP/1.0"),
        get(ada).replace(KEY, "wrong"),
        get(ada).replace("GET", "HEAD"),
        get("/nowhere").replace("GET", "HEAD"),
        get(ada).replace("GET", "DELETE"),
        get("http://assay/health"),
        get("/health", "Connection: Upgrade, close\r\nUpgrade: h2c\r\n"),
        get("/api/v1/experiments/1/assignment/a\tda"),
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        post("/api/v1/experiments/1/assign", {"user_id": "ada"}),
        post("/api/v1/experiments/1/assign", {"user": "ada"}),
        post("/api/v1/experiments/1/assign", "{"),
        post("/api/v1/assignments", {"user_ids": ["ada", "bob"]}),
        post("/api/v1/events", event),
        post("/api/v1/events", [event, event]),
        post("/api/v1/events", {**event, "event_id": 1}),
        post("/api/v1/events", "x" * 2000),
        post("/api/v1/events", event).replace("application/json", "text/plain"),
        post("/nowhere", event),
    ]

    async def journey(server: Serving) -> list[tuple[str, bytes, bytes]]:
        application = cast("Application", server.config.app)
        wire = await prepared(server)
        await wire.ask(post("/api/v1/assignments", {"user_ids": ["ada", "bob"]}))
        await wire.ask(post("/api/v1/events", event))
        plain = Serving(application, server.front)
        plain.config = uvicorn.Config(
            application,
            lifespan="off",
            http="httptools",
            log_level="error",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        running = asyncio.create_task(plain._serve([plain.socket]))
        await plain.listening.wait()
        seen = []
        for request in requests:
            answers = []
            for one in (server, plain):
                wire = await Wire.to(one)
                wire.say(request)
                if not any(word in request for word in ("nonsense", "bad header", "\t", "Upgrade")):
                    # A second one ends the connection, and shows that the first was read to its end.
                    wire.say(get("/health", "Connection: close\r\n"))
                answers.append(_CHANGING.sub(b"", await wire.rest()))
                wire.writer.close()
            seen.append((request, *answers))
        plain.should_exit = True
        await running
        return seen

    for request, ours, theirs in run(tmp_path, journey):
        assert ours == theirs, request
        assert ours.startswith(b"HTTP/1.1 ")


def test_a_request_in_pieces_is_the_same_request(tmp_path: Path) -> None:
    requests = [
        get("/experiments/1/assignment/ada"),
        get("/api/v1/experiments/1"),
        post("/events", {"event_id": "e1", "user_id": "ada", "type": "t", "timestamp": "2026-01-01"}),
        post("/experiments/1/assign", {"user_id": "ada"}),
    ]

    async def journey(server: Serving) -> list[tuple[bytes, bytes]]:
        wire = await prepared(server)
        await wire.ask(requests[2])
        seen = []
        for request in requests:
            _, _, whole = await wire.ask(request)
            for letter in request:
                wire.say(letter)
                await wire.writer.drain()
                await asyncio.sleep(0)
            _, _, pieces = await wire.hear()
            seen.append((whole, pieces))
        return seen

    for whole, pieces in run(tmp_path, journey):
        assert whole == pieces
        assert len(whole) > 60


def test_answers_keep_the_order_of_requests(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[bytes]:
        wire = await prepared(server)
        await wire.ask(get("/experiments/1/assignment/known"))
        wire.say(
            get("/experiments/1/assignment/new")
            + get("/experiments/1/assignment/known")
            + post("/events", {"user_id": "new", "type": "bought"})
            + get("/api/v1/experiments/1")
            + get("/experiments/1/assignment/known")
            + post("/assignments", {"user_ids": ["one", "two"]}).replace("/assign", "/api/v1/assign", 1)
            + get("/health")
        )
        return [(await wire.hear())[2] for _ in range(7)]

    bodies = run(tmp_path, journey)
    words = [b'"new"', b'"known"', b'"bought"', b'"variants"', b'"known"', b'"total":2', b'"ok"']
    assert [word in body for word, body in zip(words, bodies, strict=True)] == [True] * 7


def test_a_body_in_chunks_is_read_and_the_connection_stays(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[int]:
        wire = await prepared(server)
        head = f"POST /events HTTP/1.1\r\nHost: a\r\n{AUTH}Transfer-Encoding: chunked\r\n\r\n"
        wire.say(head + '11\r\n{"user_id":"ada",\r\n')
        await wire.writer.drain()
        wire.say('c\r\n"type":"t"}\n\r\n0\r\n\r\n')
        first, _, _ = await wire.hear()
        second, _, _ = await wire.ask(get("/health"))
        wire.say(f"{head}2\r\n[{{\r\n0\r\n\r\n")
        third, _, _ = await wire.hear()
        return [first, second, third]

    assert run(tmp_path, journey) == [201, 200, 400]


def test_100_continue_comes_only_where_the_body_is_wanted(tmp_path: Path) -> None:
    async def journey(server: Serving) -> tuple[bytes, int, bytes]:
        body = '{"user_id":"ada","type":"t"}'
        head = f"POST /events HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n"
        wire = await Wire.to(server)
        wire.say(f"{head}{AUTH}\r\n")
        interim = await wire.reader.readuntil(b"\r\n\r\n")
        status, _, _ = await wire.ask(body)
        stranger = await Wire.to(server)
        stranger.say(f"{head}\r\n")
        return interim, status, await stranger.rest()

    interim, status, refused = run(tmp_path, journey)
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status == 201
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in refused


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (f"POST /events HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Length: 5000\r\n\r\n", 413),
        (f"POST /events HTTP/1.1\r\n{AUTH}Transfer-Encoding: chunked\r\n\r\n7d0\r\n{'x' * 2000}\r\n", 413),
        ("POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", 413),
        (f"GET /health HTTP/1.1\r\nX: {'x' * MOST_HEAD}\r\n\r\n", 431),
        (f"GET /{'x' * MOST_HEAD}", 431),
        ("GET /health HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST /events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\n", 400),
        ("GET /health HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET /api/v1/experiments HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_too_large_or_no_http_is_refused_unread(tmp_path: Path, said: str, status: int) -> None:
    async def journey(server: Serving) -> bytes:
        wire = await Wire.to(server)
        wire.say(said)
        return await wire.rest()

    answer = run(tmp_path, journey, max_body_bytes=1024)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in answer
    assert len(re.findall(rb"HTTP/1\.1 \d{3}", answer)) == 1


def test_the_preface_of_http2_leaves_the_loop_to_others(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[int]:
        seen = []
        for pieces in (["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], list("PRI * HTTP/2.0\r\n\r\n")):
            wire = await Wire.to(server)
            for piece in pieces:
                wire.say(piece)
                await asyncio.sleep(0)
            answer = await wire.rest()
            assert answer.startswith(b"HTTP/1.1 400 ")
            other = await Wire.to(server)
            seen.append((await other.ask(get("/health")))[0])
        await until(lambda: len(server.server_state.connections) == 2)
        return seen

    assert run(tmp_path, journey) == [200, 200]


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/experiments"])
@pytest.mark.parametrize("upgrade", ["Upgrade: h2c", "UPGRADE:websocket", "upgrade: a\r\nUpgrade: h2c"])
def test_a_body_behind_an_offer_of_another_protocol_is_the_body(
    tmp_path: Path, path: str, upgrade: str
) -> None:
    inner = get("/api/v1/experiments/1")
    offer = f"Connection: Upgrade, HTTP2-Settings\r\n{upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n"
    chunks = f"{AUTH}Transfer-Encoding: chunked\r\n{offer}\r\n"

    async def journey(server: Serving) -> list[list[int]]:
        wire = await prepared(server)
        seen = []
        # The second time the head is known.
        for body in (inner, inner, '{"user_id":"ada","type":"t"}'):
            wire.say(post(path, body, offer))
            wire.say(get("/health"))
            seen.append([(await wire.hear())[0] for _ in range(2)])
        wire.say(f"POST {path} HTTP/1.1\r\n{chunks}{len(inner):x}\r\n{inner}\r\n0\r\n\r\n")
        seen.append([(await wire.hear())[0], (await wire.ask(get("/health")))[0]])
        wire.say(f"GET /health HTTP/1.1\r\n{AUTH}{offer}\r\n")
        seen.append([(await wire.hear())[0], (await wire.ask(get("/health")))[0]])
        return seen

    accepted = 201 if path == "/api/v1/events" else 422
    assert run(tmp_path, journey) == [[400, 200], [400, 200], [accepted, 200], [400, 200], [200, 200]]


def test_a_client_that_never_reads_costs_a_bounded_amount_and_nobody_else_waits(tmp_path: Path) -> None:
    many = 20_000

    async def journey(server: Serving) -> tuple[list[int], int]:
        wire = await prepared(server)
        request = get("/experiments/1/assignment/ada")
        await wire.ask(request)
        greedy = connection(server)
        for _ in range(many // 100):
            wire.say(request * 100)
        held = []
        for _ in range(50):
            other = await Wire.to(server)
            status, _, _ = await other.ask(request)
            assert status == 200
            other.writer.close()
            held.append(len(greedy._held) + greedy.transport.get_write_buffer_size())
        answers = 0
        for _ in range(many):
            answers += (await wire.hear())[0] == 200
        return held, answers

    held, answers = run(tmp_path, journey)
    assert max(held) < 2 * MOST_HELD + 512 * 1024
    assert answers == many


def test_a_head_or_a_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async def given_up(server: Serving, said: str, seconds: int) -> bytes:
        wire = await Wire.to(server)
        wire.say(said)
        await until(lambda: bool(server.server_state.connections))
        there = connection(server)
        await until(lambda: not said or bool(there._held) or there._reading)
        there.look_after(server.front.tick + seconds - 2)
        assert not there.transport.is_closing()
        assert not there._over
        there.look_after(server.front.tick + seconds)
        answer = await wire.rest()
        wire.writer.close()
        await until(lambda: not server.server_state.connections)
        return answer

    async def journey(server: Serving) -> list[bytes]:
        head = f"POST /events HTTP/1.1\r\n{AUTH}Content-Length: 10\r\n\r\n{{"
        return [
            await given_up(server, "GET /hea", HEAD_SECONDS),
            await given_up(server, head, BODY_SECONDS),
            await given_up(server, "", server.config.timeout_keep_alive),
        ]

    slow_head, slow_body, idle = run(tmp_path, journey)
    assert slow_head.startswith(b"HTTP/1.1 408 ")
    assert slow_body.startswith(b"HTTP/1.1 408 ")
    assert idle == b""


def test_answers_left_unread_for_long_end_the_connection(tmp_path: Path) -> None:
    async def journey(server: Serving) -> None:
        wire = await prepared(server)
        await wire.ask(get("/experiments/1/assignment/ada"))
        there = connection(server)
        wire.writer.transport.pause_reading()
        while not there.flow.write_paused:
            wire.say(get("/experiments/1/assignment/ada") * 100)
            await asyncio.sleep(0)
        there.look_after(server.front.tick)
        there.look_after(server.front.tick + UNREAD_SECONDS - 2)
        assert not there.transport.is_closing()
        there.look_after(server.front.tick + UNREAD_SECONDS + 2)
        await until(lambda: not server.server_state.connections)

    run(tmp_path, journey)


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
def test_an_answer_that_is_taken_slowly_is_taken_whole(tmp_path: Path, more: str) -> None:
    async def journey(server: Serving) -> tuple[int, int, bytes]:
        wire = await prepared(server)
        there = connection(server)
        there.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        users = [f"{'u' * 180}{number}" for number in range(10_000)]
        wire.say(post("/api/v1/assignments", {"user_ids": users}, more))
        unsent = there.transport.get_write_buffer_size
        await until(lambda: unsent() > 0)
        looks, heard = 0, b""
        while left := unsent():
            looks += 1
            server.front.tick += UNREAD_SECONDS // 2
            there.look_after(server.front.tick)
            while unsent() == left:
                heard += await wire.reader.read(256 * 1024)
        head, _, body = heard.partition(b"\r\n\r\n")
        size = re.search(rb"\r\ncontent-length: (\d+)", head)
        assert size is not None
        body += await wire.reader.readexactly(int(size[1]) - len(body))
        return looks, len(json.loads(body)["assignments"]), head

    looks, answered, head = run(tmp_path, journey)
    assert looks > 4
    assert answered == 10_000
    assert (b"connection: close" in head) == bool(more)


def test_a_body_that_comes_steadily_is_waited_for(tmp_path: Path) -> None:
    size = 4 * BODY_RATE
    text = json.dumps([{"user_id": "ada", "type": "t"}]).ljust(size)

    async def journey(server: Serving) -> tuple[int, bytes]:
        wire = await Wire.to(server)
        head = f"POST /events HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Length: {size}\r\n\r\n"
        wire.say(head + text[: 2 * BODY_RATE])
        await until(lambda: bool(server.server_state.connections))
        there = connection(server)
        await until(lambda: there._size == 2 * BODY_RATE)
        there.look_after(there._since + BODY_SECONDS + 1)
        wire.say(text[2 * BODY_RATE :])
        status, _, _ = await wire.hear()
        wire.say(head + text[: 2 * BODY_RATE])
        await until(lambda: there._reading and there._size == 2 * BODY_RATE)
        there.look_after(there._since + BODY_SECONDS + 3)
        return status, await wire.rest()

    accepted, refused = run(tmp_path, journey)
    assert accepted == 202
    assert refused.startswith(b"HTTP/1.1 408 ")
    assert b"less than 20000 bytes a second" in refused


def test_while_the_server_drains_every_answer_is_the_last_of_its_connection(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[bytes]:
        application = cast("Application", server.config.app)
        await prepared(server)
        wires = [await Wire.to(server) for _ in range(3)]
        application.draining = True
        paths = ("/experiments/1/assignment/ada", "/health", "/api/v1/experiments")
        for wire, path in zip(wires, paths, strict=True):
            wire.say(get(path))
        return [await wire.rest() for wire in wires]

    for answer in run(tmp_path, journey):
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"\r\nconnection: close\r\n") == 1


def test_a_client_that_has_said_all_still_gets_its_answer(tmp_path: Path) -> None:
    async def journey(server: Serving) -> bytes:
        await prepared(server)
        wire = await Wire.to(server)
        wire.say(get("/experiments/1/assignment/new"))
        wire.writer.write_eof()
        return await wire.rest()

    assert b'"user_id":"new"' in run(tmp_path, journey)


def test_all_that_was_said_before_the_end_is_answered(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[bytes]:
        await prepared(server)
        requests = [
            "".join(get(f"/experiments/1/assignment/new{number}") for number in range(5)),
            get("/health") * 100,
            get("/api/v1/experiments/1") * 3,
            get("/health") + post("/events", {"user_id": "ada", "type": "t"}) + get("/api/v1/experiments/1"),
            get("/health") + "GET /hea",
        ]
        seen = []
        for request in requests:
            wire = await Wire.to(server)
            wire.say(request)
            wire.writer.write_eof()
            seen.append(await wire.rest())
        return seen

    answers = run(tmp_path, journey)
    assert [answer.count(b"HTTP/1.1 20") for answer in answers] == [5, 100, 3, 3, 1]
    assert answers[0].count(b"\r\nconnection: close\r\n") == 1
    for answer in answers:  # the end may be heard of after the last answer, but not before it
        assert b"connection: close" not in answer[: answer.rindex(b"HTTP/1.1 20")]


@pytest.mark.parametrize(
    "said",
    [
        f"HEAD /health HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Length: 5000\r\n\r\n",
        f"HEAD /health HTTP/1.1\r\nX: {'x' * MOST_HEAD}\r\n\r\n",
        "HEAD /health HTTP/1.1\r\nbad header\r\n\r\n",
        "HEAD /health HTTP/2.0\r\n\r\n",
    ],
)
def test_a_refusal_of_head_has_no_body(tmp_path: Path, said: str) -> None:
    async def journey(server: Serving) -> bytes:
        wire = await prepared(server)
        await wire.ask(get("/health"))
        wire.say(said)
        return await wire.rest()

    answer = run(tmp_path, journey, max_body_bytes=1024)
    assert int(answer[9:12]) >= 400
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


def test_a_process_may_have_as_many_connections_as_the_system_lets_it() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 60_000 if hard == resource.RLIM_INFINITY else hard
    assert allowed > 1024
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        front = Front(lambda: None, lambda: False)
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == min(allowed, 50_256)
    assert front.most_connections == raised - 256


def test_answers_from_a_catalog_unseen_for_long_tell_its_age(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[list[str | None]]:
        hot = server.front.hot()
        assert hot is not None
        wire = await prepared(server)
        transport = httpx2.ASGITransport(app=server.config.app)  # type: ignore[arg-type]
        seen = []
        async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
            for age in (0.0, 2.0, 3.44, 75.0, 0.1):
                hot._measure_age, hot._looked = lambda age=age: age, 0
                _, head, _ = await wire.ask(get("/health"))
                found = re.search(rb"\r\nx-assay-age: ([^\r]+)\r\n", head)
                answer = await client.get("/health")
                seen.append([found and found[1].decode(), answer.headers.get("x-assay-age")])
        return seen

    assert run(tmp_path, journey) == [[None] * 2, [None] * 2, ["3.4"] * 2, ["75.0"] * 2, [None] * 2]


def test_many_spellings_of_one_key_are_accepted_and_cost_no_memory(tmp_path: Path) -> None:
    async def journey(server: Serving) -> tuple[set[int], int, bool]:
        hot = server.front.hot()
        assert hot is not None
        wire = await prepared(server)
        await wire.ask(get("/experiments/1/assignment/ada"))
        parts = split(b"/experiments/1/assignment/ada")
        target = hot.find("GET", parts)
        assert target is not None
        long = b"Bearer" + b" " * 10_000 + KEY.encode()
        words = (b"Bearer", b"bearer", b"BEARER", b"bEARER", b"beARER", b"beaRER", b"bearER", b"bearEr")
        spellings = [
            b"%s%s%s" % (word, b" " * more, KEY.encode()) for word in words for more in range(1, 441)
        ]
        spellings += [each + b" " for each in spellings]
        statuses, most = set(), 0
        for spelling in [*spellings, long]:
            answer = hot.begin(target, parts, b"", Head([(b"authorization", spelling)]), b"")
            assert isinstance(answer, Response)
            statuses.add(answer.status)
            most = max(most, len(hot._known))
        return statuses, most, any(header == long for header, _ in hot._known)

    assert run(tmp_path, journey) == ({200}, 4096, False)


def test_request_ids_of_forked_processes_differ() -> None:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, new_request_id())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read()
    mine = new_request_id()
    assert told.partition(b"-")[2] == mine.partition(b"-")[2]
    assert len(told) == len(mine)
    assert told != mine


def test_with_too_many_waiting_new_work_is_refused_and_the_known_is_served(tmp_path: Path) -> None:
    async def journey(server: Serving) -> list[tuple[int, bytes, bytes]]:
        hot = server.front.hot()
        assert hot is not None
        wire = await prepared(server)
        await wire.ask(get("/experiments/1/assignment/ada"))
        hot.admission.waiting += MOST_WAITING
        answers = [
            await wire.ask(get("/experiments/1/assignment/ada")),
            await wire.ask(get("/experiments/1/assignment/bea")),
            await wire.ask(post("/events", {"user_id": "ada", "type": "t"})),
            await wire.ask(get("/health")),
        ]
        hot.admission.waiting -= MOST_WAITING
        answers.append(await wire.ask(post("/events", {"user_id": "ada", "type": "t"})))
        return answers

    known, unknown, refused, health, accepted = run(tmp_path, journey)
    assert [known[0], health[0], accepted[0]] == [200, 200, 201]
    for status, head, body in (unknown, refused):
        assert status == 503
        assert b"\r\nretry-after: 1\r\n" in head
        assert json.loads(body)["code"] == "overloaded"
