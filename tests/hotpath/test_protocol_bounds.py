"""What a client can do to the server by its own HTTP: nothing that grows memory or takes time from others."""

import asyncio
import json
import re
import resource
import socket
from pathlib import Path

import pytest

from assay.hotpath.admission import MOST_WAITING
from assay.hotpath.app import split
from assay.hotpath.front import Front
from assay.hotpath.http import Head, Response
from assay.hotpath.protocol import BODY_RATE, BODY_SECONDS, HEAD_SECONDS, UNREAD_SECONDS
from assay.hotpath.reading import MOST_HEAD, MOST_HELD
from hotpath.served import Serving
from hotpath.wire import AUTH, Wire, connection, get, post, prepared, run, until
from inprocess import KEY


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
