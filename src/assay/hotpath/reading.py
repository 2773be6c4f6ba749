"""From bytes to requests: messages cut apart, and each head judged once.

Messages are cut apart here, by the blank line after the head and the length the head declares, and httptools
judges every head. Heads that differ only in their first line are the rule on a kept-alive connection; one
that was judged before, byte for byte, is not read again.
"""

import asyncio
import re
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Final

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from assay.hotpath.app import HotPath, Target, split
from assay.hotpath.front import Connection, Front, Known
from assay.hotpath.http import PROBLEM, Head, Response, problem, too_large

#: Bytes of a request line with its headers; browsers and proxies stay far below.
MOST_HEAD: Final = 64 * 1024
#: Unread input of a connection at which reading pauses. The socket may bring as much again in one piece.
MOST_HELD: Final = 64 * 1024
#: Requests of one connection answered in a row before others have their turn.
TURN: Final = 32
#: Bytes of a body that are read to the end although the answer is known: cheaper than a new connection.
SHORT_BODY: Final = 64 * 1024

_FAST_METHODS: Final = {b"GET": "GET", b"POST": "POST"}


def refused(status: int, title: str, code: str, detail: str) -> Response:
    """An answer to what is no request that anybody would serve."""
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [],
    }
    return Response(status, msgspec.json.encode(document), PROBLEM)


_HEAD_TOO_LARGE = refused(
    431,
    "Request Header Fields Too Large",
    "head_too_large",
    f"The request line and headers have more than {MOST_HEAD} bytes.",
)
_MALFORMED = refused(400, "Bad Request", "bad_http", "Invalid HTTP request received.")
_NO_TUNNEL = refused(400, "Bad Request", "bad_http", "This server opens no tunnel and changes no protocol.")
_OTHER_VERSION = refused(
    505, "HTTP Version Not Supported", "http_version", "This server speaks HTTP/1.1 and HTTP/1.0."
)


#: The name of the header that asks for another protocol. httptools takes a request that has it for one
#: without a body and reads the body as the next request; so it gets to see the header under another name.
_UPGRADE: Final = re.compile(rb"(?<=[\r\n])upgrade(?=[ \t]*:)", re.IGNORECASE)


class _Unfit(Exception):  # noqa: N818 - it is caught a few lines on
    """A head that httptools lets pass and this server does not; `args` has the answer."""


def _framing(headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, bool, bool]:
    """Of a head that was let pass: the declared length, whether it is chunks, whether 100 is awaited."""
    length, chunked, expects = 0, False, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"expect":
            expects = value.lower() == b"100-continue"
    return length, chunked, expects


class Reading(HttpToolsProtocol, Connection):
    """The side of a connection that reads. `_held` from `_at` on is input that nobody has looked at yet."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        front: Front,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._front = front
        self._hot = front.hot()
        self._held = b""
        self._at = 0
        #: A request is being answered; the next one has to wait.
        self._busy = False
        #: A head was read whose body is still arriving, of which `_due` bytes are missing; -1: chunks say.
        self._reading = False
        self._due = 0
        #: The parser has seen a message begin, its head end, and the whole of it; `_beyond`: another behind,
        #: which is not looked at.
        self._began = self._headed = self._complete = self._beyond = False
        #: No request after this one is served.
        self._last = False
        #: The client sends no more; what it has sent is still served.
        self._ended = False
        #: Nothing is read any more, only thrown away until the connection closes.
        self._over = False
        self._scheduled = False
        #: The second in which what is waited for began.
        self._since = front.tick
        #: Bytes of answers that the client had not taken when they last were fewer, and the second of that.
        self._unsent = 0
        self._taken = front.tick
        # Of the request at work, where it is a hot one:
        self._target: Target | None = None
        self._parts: list[bytes] = []
        self._query = b""
        self._head = Head(())
        self._stays = True
        self._headless = False
        self._body: list[bytes] = []
        self._size = 0

    @abstractmethod
    def _serve(
        self, hot: HotPath, target: Target, parts: list[bytes], query: bytes, head: Head, body: bytes
    ) -> None:
        """Answer a request for a hot route, at once or later."""

    @abstractmethod
    def _turn_away(self, response: Response) -> None:
        """Say why this request is not served, and close."""

    def _final(self) -> bool:
        """Whether no request can follow the one at work."""
        return self._last or (self._ended and self._held.find(b"\r\n\r\n", self._at) < 0)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._over:
            return
        if self._held:
            self._held = self._held[self._at :] + data
            self._at = 0
        else:
            self._held = data
            if not self._reading or self._target is None:  # a hot body has its time by what has come of it
                self._since = self._front.tick
        self._work()

    def _work(self) -> None:
        """Go through what is held, as far as it goes now."""
        turns = 0
        while self._at < len(self._held) and not self._over:
            if self._reading:
                self._read_on()
            elif self._busy or self._scheduled or self.flow.write_paused:
                break
            elif turns == TURN:
                self._scheduled = True
                self.loop.call_soon(self.go_on)
            else:
                turns += 1
                if not self._take():
                    break
        left = len(self._held) - self._at
        if not left:
            self._held, self._at = b"", 0
        if self._over:
            return
        if self._ended:
            if not (self._busy or self._scheduled or self.flow.write_paused):
                self._over = True
                self.transport.close()
        elif left > MOST_HELD:
            self.flow.pause_reading()
        elif self.flow.read_paused and not self._busy:
            self.flow.resume_reading()

    def go_on(self) -> None:
        """Take up what has come meanwhile: others had their turn."""
        self._scheduled = False
        self._work()
        if self._last and not (self._busy or self._reading or self._held or self._over):
            self.transport.close()  # it was told to in the meantime

    def _take(self) -> bool:
        """Take up the request that begins where we are; False when its head is not all there yet."""
        held, at = self._held, self._at
        end = held.find(b"\r\n\r\n", at)
        if end < 0:
            if len(held) - at > MOST_HEAD:
                self._refuse_next(_HEAD_TOO_LARGE)
            return False
        if end - at > MOST_HEAD:
            self._refuse_next(_HEAD_TOO_LARGE)
            return False
        first = held.find(b"\r\n", at)
        block = held[first:end]
        known = self._front.known.get(block)
        if known is None or not self._take_known(held[at:first], end + 4, known):
            self._at = end + 4
            self._parse(held[at : end + 4], block)
        return True

    def _take_known(self, line: bytes, begin: int, known: Known) -> bool:
        """Serve a request whose head was judged before, if the line and the body behind it are simple."""
        words = line.split(b" ")
        hot, end = self._hot, begin + known.length
        if len(words) != 3 or words[2] != b"HTTP/1.1" or hot is None or end > len(self._held):
            return False
        method, path = _FAST_METHODS.get(words[0]), words[1]
        if (
            method is None
            or path[:1] != b"/"
            or b"?" in path
            or b"#" in path
            or not path.isascii()
            or not path.decode("ascii").isprintable()
            or known.length > hot.max_body
        ):
            return False
        parts = split(path)
        target = hot.find(method, parts)
        if target is None:
            return False
        body = self._held[begin:end] if known.length else b""
        self._at = end
        self._stays, self._headless = True, False
        self._serve(hot, target, parts, b"", known.head, body)
        return True

    def _parse(self, text: bytes, block: bytes) -> None:
        """Let the parser judge a head, and begin what it asks for."""
        self._began = self._headed = self._complete = self._beyond = False
        self._target, self._body, self._size = None, [], 0
        self._headless = text.startswith(b"HEAD ")
        if self.ws_protocol_class is None or b"websocket" not in text.lower():
            text = _UPGRADE.sub(b"x-upgrade", text)
        if not self._fed(text) or not self._began:
            return
        if not self._headed:  # such as the preface of HTTP/2, of which httptools waits for more
            self._refuse()
            return
        length, chunked, expects = _framing(self.headers)
        if not self._complete:
            if not length and not chunked:
                self._refuse()
                return
            self._reading, self._due = True, -1 if chunked else length
            self._since = self._front.tick
        target, hot = self._target, self._hot
        if target is None or hot is None:
            return
        if self._complete:
            self._serve(hot, target, self._parts, self._query, self._head, b"")
        elif length > hot.max_body:
            self._turn_away(problem(too_large(hot.max_body)))
        elif expects or chunked or length > SHORT_BODY:
            refusal = hot.refusal(target, self._head)
            if refusal is not None:
                hot.count(target, refusal.status)
                self._turn_away(refusal)
            elif expects and self._at == len(self._held):
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        plain = self._stays and not (chunked or expects or self._headless or self.parser.should_upgrade())
        if plain and text.startswith((b"GET ", b"POST ")):
            self._front.learn(block, self._head, length)

    def _read_on(self) -> None:
        """Feed what is held of a body."""
        at = self._at
        self._at = len(self._held) if self._due < 0 else min(at + self._due, len(self._held))
        if self._due >= 0:
            self._due -= self._at - at
        if not self._fed(self._held[at : self._at]):
            return
        target, hot = self._target, self._hot
        if target is not None and hot is not None and self._size > hot.max_body:
            self._turn_away(problem(too_large(hot.max_body)))
        elif self._complete:
            self._reading = False
            if self._beyond:
                self._last = True
                if self.cycle is not None:
                    self.cycle.keep_alive = False
            if target is not None and hot is not None:
                self._serve(hot, target, self._parts, self._query, self._head, b"".join(self._body))
        elif not self._due:  # httptools counts otherwise than we do
            self._refuse()

    def _fed(self, data: bytes) -> bool:
        """Give bytes to the parser; False when they are no HTTP, which the client has been told then."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if not self._beyond:
                if self._headed:
                    self.handle_websocket_upgrade()
                    self._over = True
                else:
                    self._refuse()
                return False
        except httptools.HttpParserError as error:
            if not self._beyond:
                unfit = error.__context__
                self._refuse(*unfit.args if isinstance(unfit, _Unfit) else ())
                return False
        return True

    def _refuse(self, response: Response | None = None) -> None:
        """Answer what is no request, and close; without a response of its own as uvicorn does."""
        if response is None and not self._headless:
            self._over = True
            self.send_400_response("Invalid HTTP request received.")
        else:
            self._turn_away(response or _MALFORMED)

    def _refuse_next(self, response: Response) -> None:
        """Turn away a request whose head is not read."""
        self._target = None
        self._headless = self._held.startswith(b"HEAD ", self._at)
        self._turn_away(response)

    # What the parser tells.

    def on_message_begin(self) -> None:
        """See httptools. Behind a body in chunks another message may begin before its end was noticed."""
        if self._complete:
            self._beyond = True
            return
        self._began = True
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        if not self._beyond:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if not self._complete:  # else it is a trailer, or of a message beyond
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide who serves this request."""
        if self._beyond:
            return
        self._headed = True
        parser, hot = self.parser, self._hot
        method, version, upgrades = parser.get_method().decode("ascii"), parser.get_http_version(), False
        if version not in ("1.1", "1.0"):
            raise _Unfit(_OTHER_VERSION)
        if parser.should_upgrade():
            upgrades = self._should_upgrade()
            if not upgrades:  # CONNECT: what follows would be read as requests
                raise _Unfit(_NO_TUNNEL)
        self._stays = version == "1.1" and parser.should_keep_alive()
        self._headless = method == "HEAD"
        if hot is not None and not upgrades:
            url = httptools.parse_url(self.url)
            self._parts = split(url.path)
            self._target = hot.find("GET" if self._headless else method, self._parts)
            if self._target is not None:
                self._query = url.query or b""
                self._head = Head(self.headers)
                return
        given, address = self.headers, self.url
        super().on_message_begin()  # makes the scope
        self.url = address
        for name, value in given:
            super().on_header(name, value)
        super().on_headers_complete()
        if self.cycle is not None:
            self._busy = True
            if self._front.draining() or self._final():
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self._beyond:
            return
        if self._target is None:
            super().on_body(body)
        else:
            self._size += len(body)
            if self._hot is not None and self._size <= self._hot.max_body:
                self._body.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._beyond:
            return
        self._complete = True
        if self._target is None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The ASGI application has answered."""
        self.server_state.total_requests += 1
        self._busy = False
        self._since = self._front.tick
        if self.transport.is_closing():
            self._over = True
            return
        self.flow.resume_reading()  # also where it did not want the rest of the body, which is passed over
        if (self._held or self._ended) and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.go_on)
