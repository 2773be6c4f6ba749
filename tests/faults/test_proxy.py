"""The connection that can be cut cuts where it was told to, and nowhere else."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from live import until
from proxy import Proxy


class Counter(socketserver.BaseRequestHandler):
    """Answers each line with the number of lines it has had, on whatever connection."""

    lines: list[bytes] = []  # noqa: RUF012 - shared by all connections

    def handle(self) -> None:
        while line := self.request.recv(1000):
            self.lines.append(line)
            self.request.sendall(b"%d\n" % len(self.lines))


@pytest.fixture
def lines() -> list[bytes]:
    Counter.lines = []
    return Counter.lines


@pytest.fixture
def proxy(lines: list[bytes]) -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Counter) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with Proxy(server.server_address[1]) as proxy:
                yield proxy
        finally:
            server.shutdown()
            thread.join()


def client(proxy: Proxy) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def ask(connection: socket.socket, line: bytes = b"one\n") -> bytes:
    connection.sendall(line)
    return connection.recv(100)


def test_passes_on__both_ways_and_the_end(proxy: Proxy, lines: list[bytes]) -> None:
    with client(proxy) as first, client(proxy) as second:
        assert ask(first) == b"1\n"
        assert ask(second, b"two\n") == b"2\n"
        first.shutdown(socket.SHUT_WR)
        assert first.recv(100) == b""
        assert ask(second, b"three\n") == b"3\n"
    assert lines == [b"one\n", b"two\n", b"three\n"]
    assert (proxy.accepted, proxy.requests, proxy.answers) == (2, 3, 3)


def test_drop__resets_all_and_takes_new_ones(proxy: Proxy) -> None:
    with client(proxy) as first, client(proxy) as second:
        ask(first)
        ask(second)
        assert proxy.drop() == 2
        for each in (first, second):
            with pytest.raises(ConnectionResetError):
                each.recv(100)
    with client(proxy) as third:
        assert ask(third) == b"3\n"


def test_drop__may_refuse_until_told_otherwise(proxy: Proxy) -> None:
    proxy.drop(refuse=True)
    with pytest.raises(ConnectionError), client(proxy) as first:
        ask(first)
    proxy.accept()
    with client(proxy) as second:
        assert ask(second) == b"1\n"


def test_cut_before_request__the_server_never_hears_of_it(proxy: Proxy, lines: list[bytes]) -> None:
    with client(proxy) as first:
        proxy.cut_before_request(2)
        assert ask(first) == b"1\n"
        assert proxy.armed
        with pytest.raises(ConnectionResetError):
            ask(first, b"lost\n")
    assert not proxy.armed
    assert lines == [b"one\n"]


def test_cut_before_answer__the_server_has_done_it(proxy: Proxy, lines: list[bytes]) -> None:
    with client(proxy) as first:
        proxy.cut_before_answer(2)
        assert ask(first) == b"1\n"
        with pytest.raises(ConnectionResetError):
            ask(first, b"done\n")
    assert lines == [b"one\n", b"done\n"]


def test_stall__nothing_passes_until_resumed(proxy: Proxy, lines: list[bytes]) -> None:
    with client(proxy) as first:
        ask(first)
        proxy.stall()
        first.sendall(b"late\n")
        until(lambda: proxy.requests == 2, "the proxy has it")
        first.settimeout(0.2)
        with pytest.raises(TimeoutError):
            first.recv(100)
        assert lines == [b"one\n"]
        first.settimeout(10)
        proxy.resume()
        assert first.recv(100) == b"2\n"
