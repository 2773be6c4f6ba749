"""The little HTTP that the hot path needs: one request, one answer, problems as RFC 9457 says."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec

from assay.errors import AssayError, Invalid, Malformed, TooLarge, Unavailable, UnsupportedType
from assay.events.refusal import at_fault
from assay.published import Key

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

T = TypeVar("T")

#: Each member costs a copy of what follows it.
_MOST_MEMBERS = 64
#: Larger objects are batches, whose fields repeat by nature.
_LARGEST_CHECKED = 64 * 1024

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
PROBLEM = b"application/problem+json"
TEXT = b"text/plain; charset=utf-8"

_SANE_ID = re.compile(rb"[A-Za-z0-9._\-]{1,128}").fullmatch
_ids = itertools.count()
#: Tells the ids of one process from those of another; no secret hangs on it.
_process = bytearray(os.urandom(6).hex().encode())


def _after_fork() -> None:
    _process[:] = os.urandom(6).hex().encode()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Response(NamedTuple):
    """What a handler answers."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Head:
    """The headers of a request, and what the hot path asks of them; for one request, or for all that send the
    same.

    Attributes:
        headers: name (lower case) and value of each, as sent.
        authorization: the value of that header.
        identity: the caller's `X-Request-ID`, if it is sane.
        kind: the media type of the body without parameters, lower case; empty where the caller names none.
        encoding: the `Content-Encoding`, lower case; empty where the body is as it is.
    """

    __slots__ = ("authorization", "encoding", "headers", "identity", "kind")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.headers = headers
        self.authorization: bytes | None = None
        self.identity: bytes | None = None
        self.kind = self.encoding = b""
        for name, value in headers:
            if name == b"authorization":
                self.authorization = value
            elif name == b"content-type":
                self.kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-encoding":
                self.encoding = value.strip().lower()
            elif name == b"x-request-id" and _SANE_ID(value):
                self.identity = value


class Request:
    """One call on a hot route.

    Attributes:
        params: the path's variable parts, decoded.
        query_string: what follows the question mark.
        raw: the body as it came.
        key: who calls, or None for an anonymous call that the settings allow.
        now: microseconds UTC at which the request was taken up.
        limit: the most bytes a body may have, before and after it is unpacked.
    """

    __slots__ = ("head", "key", "limit", "now", "params", "query_string", "raw")

    def __init__(
        self,
        params: list[str],
        query_string: bytes,
        head: Head,
        raw: bytes,
        key: Key | None,
        now: int,
        limit: int,
    ) -> None:
        self.params = params
        self.query_string = query_string
        self.head = head
        self.raw = raw
        self.key = key
        self.now = now
        self.limit = limit

    def query(self) -> dict[str, str]:
        """The query parameters, the last of each name."""
        try:
            return dict(parse_qsl(self.query_string.decode(), keep_blank_values=True, errors="strict"))
        except ValueError as error:
            raise Malformed(
                "The query string is not valid percent-encoded UTF-8.", code="bad_query"
            ) from error

    def body(self) -> bytes:
        """The whole body, decompressed; `TooLarge` before more than the limit is held."""
        encoding = self.head.encoding
        if not encoding or encoding == b"identity":
            return self.raw
        if encoding != b"gzip":
            raise UnsupportedType(
                f"Content-Encoding {shown(encoding)} is not understood; send gzip or nothing."
            )
        return _gunzip(self.raw, self.limit)

    def json(self, decoder: "msgspec.json.Decoder[T]") -> T:
        """The body as the type the decoder was made for; what is wrong is named by path and value."""
        kind = self.head.kind
        if kind != JSON and kind and not kind.endswith(b"+json"):
            raise UnsupportedType(f"Content-Type {shown(kind)} is not understood; send application/json.")
        data = self.body()
        refuse_doubled(data, (b'"user_id"', b'"context"', b'"units"', b'"experiment_ids"', b'"user_ids"'))
        return decode(decoder, data)


class Waiting(NamedTuple):
    """An answer that hangs on a future: `finish` makes it of the future's result."""

    future: asyncio.Future[Any]
    finish: Callable[[Any], Response]


Outcome = Response | Waiting | Coroutine[Any, Any, Response]
"""What a handler gives: an answer at once, one that hangs on a single future, or a coroutine to run."""

Handler = Callable[[Request], Outcome]


async def whole_body(receive: Receive, limit: int) -> bytes:
    """The body of an ASGI request; `TooLarge` as soon as it passes the limit."""
    message = await receive()
    data: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [data], len(data)
        while message.get("more_body", False) and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Malformed("The connection closed before the whole body had arrived.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        data = b"".join(parts)
    if len(data) > limit:
        raise too_large(limit)
    return data


def refuse_doubled(data: bytes, names: tuple[bytes, ...]) -> None:
    """Refuse an object that says one thing twice, instead of silently believing the last.

    Looked at closely only where one of `names` stands more than once in a body that is a single object: a
    count costs next to nothing. Arrays of events, where names repeat by nature, are not looked at.
    """
    if data[:1] != b"{" or len(data) > _LARGEST_CHECKED:
        return
    count = data.count
    for name in names:  # a loop, not a generator: this runs for every body
        if count(name) > 1:
            break
    else:
        return
    with contextlib.suppress(ValueError, RecursionError):  # the decoder will say what is wrong
        json.loads(data, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise Invalid.field(name[:60], "stands twice in one object", code="duplicate_key")
    return found


def too_large(limit: int) -> TooLarge:
    """The body is over the limit of `MAX_BODY_BYTES`."""
    return TooLarge(f"The body is larger than {limit} bytes (MAX_BODY_BYTES).", code="body_too_large")


def _gunzip(data: bytes, limit: int) -> bytes:
    """Every member of a gzip body; `TooLarge` before more than `limit` bytes are held."""
    parts: list[bytes] = []
    size = 0
    while data:
        if len(parts) == _MOST_MEMBERS:
            raise Malformed(f"A gzip body may have {_MOST_MEMBERS} members, not more.", code="bad_gzip")
        inflate = zlib.decompressobj(wbits=31)
        try:
            parts.append(inflate.decompress(data, limit - size + 1))
        except zlib.error as error:
            raise Malformed("The body is not valid gzip.", code="bad_gzip") from error
        size += len(parts[-1])
        if size > limit:
            raise too_large(limit)
        if not inflate.eof:
            raise Malformed("The gzip body ends too early.", code="bad_gzip")
        data = inflate.unused_data
    return b"".join(parts)


def shown(value: object) -> str:
    """A value as it may stand in an error message: short, and without control characters."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    written = repr(text)
    return written if len(written) <= 80 else f"{written[:60]}… ({len(written)} characters)"


def decode(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    """Decode JSON, turning every way it can fail into an error that says what and where."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise at_fault(data, error) from error
        raise _invalid(str(error), data) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not data.strip():
            raise Malformed("The body is empty; a JSON document is expected.", code="empty_body") from error
        raise at_fault(data, error) from error


_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def _invalid(message: str, data: bytes) -> Invalid:
    """msgspec says `Expected `str`, got `int` - at `$.user_id``; add the value that stands there."""
    what, _, where = message.partition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `([^`]*)`", what)
    missing = re.search(r"missing required field `([^`]*)`", what)
    name = unknown or missing
    if name is not None:
        path = f"{path}.{name[1]}" if path else name[1]
        sentence = "unknown field" if unknown else "required, but missing"
        return Invalid.field(path, sentence, code="unknown_field" if unknown else "missing_field")
    value: Any = None
    try:
        value = msgspec.json.decode(data)
        for key, index in _STEP.findall(where.rstrip("`")):
            value = value[key] if key else value[int(index)]
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, RecursionError):
        return Invalid.field(path or "body", what[0].lower() + what[1:])
    return Invalid.field(path or "body", f"{what[0].lower()}{what[1:]}: {shown(value)}")


def text_id(value: str, path: str, limit: int) -> str:
    """Check an id or name from a caller: not empty, no NUL, no lone surrogate, not too long."""
    if not value:
        raise Invalid.field(path, "must not be empty")
    if len(value) > limit:
        raise Invalid.field(
            path, f"at most {limit} characters (MAX_NAME_LENGTH), got {len(value)}: {shown(value)}"
        )
    if "\x00" in value:
        raise Invalid.field(path, f"must not contain NUL characters: {shown(value)}")
    return value


def path_text(segment: bytes) -> str:
    """One percent-decoded path segment; an encoded slash stays inside it."""
    try:
        text = segment.decode("utf-8")
        return unquote(text, errors="strict") if "%" in text else text
    except UnicodeDecodeError as error:
        raise Malformed(f"The path segment {shown(segment)} is not valid UTF-8.", code="bad_path") from error


def new_request_id() -> bytes:
    """An id that no other request has."""
    return b"%s-%x" % (_process, next(_ids))


def problem(error: AssayError) -> Response:
    """An error as RFC 9457 `application/problem+json`."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if error.status == 401:
        headers = ((b"www-authenticate", b'Bearer realm="assay"'),)
    elif isinstance(error, Unavailable):
        headers = ((b"retry-after", b"%d" % error.retry_after),)
    document = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "errors": [{"path": each.path, "message": each.message} for each in error.errors],
    }
    return Response(error.status, msgspec.json.encode(document), PROBLEM, headers)


async def respond(send: Send, response: Response, identity: bytes) -> None:
    """Send an answer in two messages, with its length and request id."""
    status, body, content_type, extra = response
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", identity),
                *extra,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
