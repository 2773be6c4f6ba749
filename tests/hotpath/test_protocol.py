"""The server's own HTTP: the same answers as by ASGI, in order, whatever pieces they come in."""

import asyncio
import os
import re
from pathlib import Path
from typing import cast

import httpx2
import pytest
import uvicorn

from assay.hotpath.http import new_request_id
from assay.wiring import Application
from hotpath.served import Serving
from hotpath.wire import AUTH, Wire, get, post, prepared, run
from inprocess import KEY

_CHANGING = re.compile(rb"(?<=\r\ndate: )[^\r]+|(?<=\r\nx-request-id: )[0-9a-f]+-[0-9a-f]+")


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
