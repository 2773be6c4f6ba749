"""The outermost ASGI application: hot routes by one table, everything else by the control plane behind it."""

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from assay.errors import AssayError
from assay.hotpath.http import (
    Application,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    new_request_id,
    path_text,
    problem,
    request_id,
    respond,
)
from assay.published import Key, Published, Right

_log = structlog.get_logger("assay.hotpath")


class Route(NamedTuple):
    """One row of the table that drives both dispatch and the OpenAPI entries.

    `path` has its variable parts in braces. `right` None: no key is asked for. `prefixes` are those
    under which the route exists. `bodies` (any one of them) and `summary` document it. `repeat`, where there
    is one, is tried first: from the raw path parts it gives the body of a 200, or None to leave it to
    `handler`.
    """

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    right: Right | None
    summary: str
    bodies: tuple[type, ...] = ()
    status: int = 200
    prefixes: tuple[str, ...] = ("/api/v1", "/api", "")
    repeat: Callable[[list[bytes]], bytes | None] | None = None


class _Target(NamedTuple):
    name: str
    handler: Callable[[Request], Awaitable[Response]]
    repeat: Callable[[list[bytes]], bytes | None] | None
    right: Right | None
    params: tuple[int, ...]
    literals: tuple[tuple[int, bytes], ...]


class HotPath:
    """Dispatches hot routes without a framework; the rest goes to `fallback`.

    `clock` gives microseconds UTC. A route is found by one dictionary look-up on method, number of
    segments and the two segments that tell our paths apart.
    """

    def __init__(
        self,
        routes: list[Route],
        fallback: Application,
        published: Published,
        *,
        anonymous: frozenset[Right],
        max_body: int,
        clock: Callable[[], int],
        note_use: Callable[[Key, int], None],
        answered: dict[tuple[str, int], int],
    ) -> None:
        self._fallback = fallback
        self._published = published
        self._anonymous = anonymous
        self._max_body = max_body
        self._clock = clock
        self._note_use = note_use
        #: Answers by route and status; bounded, since both are ours.
        self._answered = answered
        self._table: dict[tuple[str, int, bytes, bytes], _Target] = {}
        for route in routes:
            self._add(route)
        #: Raw Authorization headers already checked against the key ring in force: a digest less per call.
        self._known: dict[tuple[bytes, Right], Key] = {}
        self._known_ring: object = None

    def _add(self, route: Route) -> None:
        for prefix in route.prefixes:
            parts = (prefix + route.path).encode().split(b"/")
            params = tuple(i for i, part in enumerate(parts) if part.startswith(b"{"))
            signature = self._signature(parts)
            literals = tuple(
                (i, part)
                for i, part in enumerate(parts)
                if part and i not in params and part not in signature
            )
            key = (route.method, len(parts), *signature)
            if key in self._table:
                raise ValueError(f"two hot routes look alike: {route.method} {prefix}{route.path}")
            name = f"{route.method} {route.path}"
            self._table[key] = _Target(name, route.handler, route.repeat, route.right, params, literals)

    @staticmethod
    def _signature(parts: list[bytes]) -> tuple[bytes, bytes]:
        """The literal that tells routes of one length apart: the last part, or the one before a parameter."""
        last = parts[-1]
        return (b"", last) if not last.startswith(b"{") else (parts[-2], b"")

    def _find(self, method: str, parts: list[bytes]) -> _Target | None:
        size = len(parts)
        target = None
        if method == "GET" and size > 1:
            target = self._table.get((method, size, parts[-2], b""))
        if target is None:
            target = self._table.get((method, size, b"", parts[-1]))
            if target is None:
                return None
        for position, literal in target.literals:
            if parts[position] != literal:
                return None
        return target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass it on."""
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        parts = (scope.get("raw_path") or scope["path"].encode()).split(b"/")
        if not parts[-1] and len(parts) > 2:
            parts.pop()
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        target = self._find(scope["method"], parts)
        if target is None:
            await self._pass_on(scope, receive, send)
            return
        identity = authorization = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"x-request-id":
                identity = request_id(((name, value),))
        if identity is None:
            identity = new_request_id()
        try:
            now = self._clock()
            key = None if target.right is None else self._authorise(authorization, target.right, now)
            body = None if target.repeat is None or scope["query_string"] else target.repeat(parts)
            if body is not None:
                response = Response(200, body)
            else:
                params = [path_text(parts[position]) for position in target.params]
                response = await target.handler(Request(scope, receive, params, key, now, self._max_body))
        except AssayError as error:
            response = problem(error)
        except Exception:  # noqa: BLE001 - logged; the caller gets a 500 without details
            _log.exception(
                "request.failed", method=scope["method"], path=scope["path"], request_id=identity.decode()
            )
            response = problem(AssayError("Something went wrong on our side; the log has the details."))
        answered = self._answered
        what = (target.name, response.status)
        answered[what] = answered.get(what, 0) + 1
        await respond(send, response, identity)

    def _authorise(self, header: bytes | None, right: Right, now: int) -> Key | None:
        ring = self._published.keys
        if ring is not self._known_ring:
            self._known.clear()
            self._known_ring = ring
        if header is not None:
            key = self._known.get((header, right))
            if key is not None and (key.expires_at is None or key.expires_at > now):
                self._note_use(key, now)
                return key
        key = ring.authorise(header, right, now, self._anonymous)
        if header is not None and key is not None:
            self._known[header, right] = key
            self._note_use(key, now)
        return key

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over to the control plane, which gets a request id and loses its trailing slash."""
        identity = request_id(scope["headers"])
        raw = scope.get("raw_path") or scope["path"].encode()
        if raw.endswith(b"/") and len(raw) > 1:  # a slash that was percent-encoded belongs to an id
            scope = {**scope, "path": scope["path"].removesuffix("/"), "raw_path": raw[:-1]}
        scope["assay.request_id"] = identity.decode()

        async def with_identity(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", identity)]}
            await send(message)

        await self._fallback(scope, receive, with_identity)


def _without_body(send: Send) -> Send:
    """The answer to HEAD: that to GET, less its body."""

    async def head_only(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return head_only


def microseconds() -> int:
    """The wall clock, in microseconds UTC."""
    return time.time_ns() // 1000


def openapi_paths(routes: Sequence[Route]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The OpenAPI `paths` and component schemas of the hot routes, under the canonical prefix."""
    types = [body for route in routes for body in route.bodies]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = iter(schemas)
    paths: dict[str, Any] = {}
    for route in routes:
        operation: dict[str, Any] = {
            "summary": route.summary,
            "parameters": [
                {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
                for part in route.path.split("/")
                if part.startswith("{")
            ],
            "responses": {str(route.status): {"description": "Success", "content": {"application/json": {}}}},
            "security": [] if route.right is None else [{"bearer": []}],
        }
        shapes = [next(schema_of) for _ in route.bodies]
        if shapes:
            schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths.setdefault(route.prefixes[0] + route.path, {})[route.method.lower()] = operation
    return paths, components
