"""Clients that dawdle, vanish or never listen, in a process of their own.

    python hostile.py KIND URL KEY PATH…

Says `ready` when it has begun, and ends when its input does. PATHs are what `pipelined` and `deaf` ask for.
"""

import contextlib
import socket
import sys
import threading
from urllib.parse import urlsplit

CLIENTS = 200
DEAF = 10
RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"
#: The end of an assignment that was made.
_END = b'Z"}'


class Hostile:
    """Connections to one server."""

    def __init__(self, url: str, key: str, paths: list[str]) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port)
        self.head = f"Host: x\r\nAuthorization: Bearer {key}\r\n"
        self.paths = paths
        self.ended = threading.Event()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def post(self, length: int) -> bytes:
        return (
            f"POST /api/v1/events HTTP/1.1\r\n{self.head}"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    def gets(self, number: int) -> bytes:
        each = [f"GET {path} HTTP/1.1\r\n{self.head}\r\n" for path in self.paths]
        return "".join((each * (number // len(each) + 1))[:number]).encode()

    def slow(self) -> None:
        """A byte a second each: half of them in the headers, half in the body."""
        request = self.post(100_000)
        clients = [self.connect() for _ in range(CLIENTS)]
        for each in clients[: CLIENTS // 2]:
            each.sendall(request)
        say("ready")
        position = 0
        while not self.ended.wait(1):
            for number, each in enumerate(clients):
                with contextlib.suppress(OSError):  # the server may have had enough of it
                    each.send(b" " if number < CLIENTS // 2 else request[position : position + 1])
            position += 1

    def half_open(self) -> None:
        """A third says nothing, a third says half a request, a third vanishes in the middle of one."""
        kept = []
        for number in range(CLIENTS):
            made = self.connect()
            if number % 3 == 2:
                made.sendall(self.post(1000) + b"[")
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                made.close()
                continue
            kept.append(made)
            if number % 3 == 1:
                made.sendall(self.post(1000)[:-9])
        say("ready")
        self.ended.wait()

    def pipelined(self, number: int = 10_000) -> None:
        """Ten thousand requests on one connection at once; says `answered` when it has as many answers."""
        client = self.connect()
        asked = self.gets(number)
        threading.Thread(target=client.sendall, args=(asked,), daemon=True).start()
        say("ready")
        users = [b'"user_id":"%s"' % path.rpartition("/")[2].encode() for path in self.paths]
        answers, data = 0, b""
        while answers < number:
            found = client.recv(1 << 20)
            if not found:
                say(f"ended after {answers} answers")
                return
            *whole, data = (data + found).split(_END)
            for each in whole:
                if users[answers % len(users)] not in each:
                    say(f"answer {answers} is for somebody else: {each!r}")
                    return
                answers += 1
        say("answered")
        self.ended.wait()

    def deaf(self) -> None:
        """Connections on which a thousand requests are sent and no answer is ever read."""
        asked = self.gets(1000)
        for _ in range(DEAF):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(self.address)
            threading.Thread(target=client.sendall, args=(asked,), daemon=True).start()
        say("ready")
        self.ended.wait()


def say(word: str) -> None:
    """To whoever started this."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Be one kind until the input ends."""
    kind, url, key, *paths = sys.argv[1:]
    hostile = Hostile(url, key, paths)
    beside = threading.Thread(target=getattr(hostile, kind), daemon=True)
    beside.start()
    sys.stdin.read()
    hostile.ended.set()


if __name__ == "__main__":
    main()
