"""Hot routes by one table, everything else by the control plane behind it.

`HotPath` is an ASGI application, so that any server can run it. Under `assay serve` the same routes are
reached by `assay.hotpath.protocol`, which leaves ASGI out where it can: what is found, asked for, answered
and counted is decided here for both.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from assay.errors import AssayError, Unavailable
from assay.hotpath.admission import Admission
from assay.hotpath.http import (
    Application,
    Handler,
    Head,
    Outcome,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    Waiting,
    new_request_id,
    path_text,
    problem,
    respond,
    whole_body,
)
from assay.published import Key, Published, Right

_log = structlog.get_logger("assay.hotpath")

#: Authorization headers remembered, and how long one may be: it can be spelt in many ways.
_MOST_KNOWN: Final = 4096
_LONGEST_KNOWN: Final = 512
#: Seconds for which the catalog may be unseen before answers say so, and microseconds between two looks.
_FRESH: Final = 2.0
_LOOK_EVERY: Final = 100_000

_OVERLOADED = Unavailable(
    "More requests are waiting than can be answered soon; repeat the request a little later.",
    code="overloaded",
    retry_after=1,
)

Quick = Callable[[list[bytes], int, Callable[[], bool]], Response | Waiting | None]


class Route(NamedTuple):
    """One row of the table that drives both dispatch and the OpenAPI entries.

    `path` has its variable parts in braces. `right` None: no key is asked for. `prefixes` are those
    under which the route exists. `bodies` (any one of them) and `summary` document it. `quick`, where there
    is one, is tried first where the address has no query and the key no scope: from the raw path parts, the
    time and a function that says whether nothing may wait now, it gives the answer, or None to leave it to
    `handler`. `refuse` makes the answer of an error.
    """

    method: str
    path: str
    handler: Handler
    right: Right | None
    summary: str
    bodies: tuple[type, ...] = ()
    status: int = 200
    prefixes: tuple[str, ...] = ("/api/v1", "/api", "")
    quick: Quick | None = None
    refuse: Callable[[AssayError], Response] = problem


class Target(NamedTuple):
    """A route as it is dispatched to.

    `reads`: whether the request has a body that counts. `overloaded` is the answer while too many wait.
    """

    name: str
    handler: Handler
    quick: Quick | None
    right: Right | None
    reads: bool
    params: tuple[int, ...]
    literals: tuple[tuple[int, bytes], ...]
    refuse: Callable[[AssayError], Response]
    overloaded: Response

    def fits(self, parts: list[bytes]) -> bool:
        """Whether the literal parts of the path that look-up leaves open are the route's."""
        return all(parts[position] == literal for position, literal in self.literals)


class HotPath:
    """Dispatches hot routes without a framework; the rest goes to `fallback`.

    `clock` gives microseconds UTC. A route is found by one dictionary look-up on method, number of
    segments and the two segments that tell our paths apart. `age` gives the seconds since the catalog was
    last seen, where another process may have changed it.

    Attributes:
        max_body: the most bytes a body may have.
        admission: of requests that wait; whoever awaits an `Outcome` is counted there meanwhile.
        age: what answers say in `x-assay-age`, the seconds since the catalog was seen; empty while fresh.
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
        age: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.max_body = max_body
        self.admission = Admission()
        self.age = b""
        self._measure_age = age
        self._looked = 0
        self._fallback = fallback
        self._published = published
        self._anonymous = anonymous
        self._clock = clock
        self._note_use = note_use
        #: Answers by route and status; bounded, since both are ours.
        self._answered = answered
        self._table: dict[tuple[str, int, bytes, bytes], Target] = {}
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
            self._table[key] = Target(
                f"{route.method} {route.path}",
                route.handler,
                route.quick,
                route.right,
                route.method == "POST",
                params,
                literals,
                route.refuse,
                route.refuse(_OVERLOADED),
            )

    @staticmethod
    def _signature(parts: list[bytes]) -> tuple[bytes, bytes]:
        """The literal that tells routes of one length apart: the last part, or the one before a parameter."""
        last = parts[-1]
        return (b"", last) if not last.startswith(b"{") else (parts[-2], b"")

    def find(self, method: str, parts: list[bytes]) -> Target | None:
        """The route of this method and these parts of a path (by `split`), or None where it is not hot."""
        size = len(parts)
        target = None
        if method == "GET" and size > 1:
            target = self._table.get((method, size, parts[-2], b""))
        if target is None:
            target = self._table.get((method, size, b"", parts[-1]))
            if target is None:
                return self._find_posted(method, parts)
        for position, literal in target.literals:
            if parts[position] != literal:
                return self._find_posted(method, parts)
        return target

    def _find_posted(self, method: str, parts: list[bytes]) -> Target | None:
        """The route of a POST whose path ends in a parameter, which may spell another route's last part."""
        if method != "POST" or len(parts) < 2:
            return None
        target = self._table.get((method, len(parts), parts[-2], b""))
        return target if target is not None and target.fits(parts) else None

    def refusal(self, target: Target, head: Head) -> Response | None:
        """Why the request is not served whatever its body says; None where it depends on that."""
        try:
            if target.right is not None:
                self._authorise(head.authorization, target.right, self._clock())
        except AssayError as error:
            return target.refuse(error)
        return target.overloaded if target.right is not None and self.admission.full() else None

    def begin(self, target: Target, parts: list[bytes], query: bytes, head: Head, body: bytes) -> Outcome:
        """The answer, or what it waits for. Raises nothing."""
        try:
            now = self._clock()
            if not 0 <= now - self._looked < _LOOK_EVERY:
                self._look_at_age(now)
            right = target.right
            key = None if right is None else self._authorise(head.authorization, right, now)
            if target.quick is not None and not query and (key is None or key.scope is None):
                outcome: Outcome | None = target.quick(parts, now, self.admission.full)
                if outcome is not None:
                    return outcome
            if right is not None and self.admission.full():
                return target.overloaded
            params = [path_text(parts[position]) for position in target.params]
            return target.handler(Request(params, query, head, body, key, now, self.max_body))
        except Exception as error:  # noqa: BLE001 - becomes an answer
            return self.failed(error, target)

    def _look_at_age(self, now: int) -> None:
        self._looked = now
        age = self._measure_age()
        self.age = b"%.1f" % age if age > _FRESH else b""

    def failed(self, error: Exception, target: Target) -> Response:
        """The answer to a request that met this error; what is not the caller's doing is logged."""
        if isinstance(error, AssayError):
            return target.refuse(error)
        _log.error("request.failed", route=target.name, exc_info=error)
        return target.refuse(AssayError("Something went wrong on our side; the log has the details."))

    def count(self, target: Target, status: int) -> None:
        """Count an answer."""
        answered, what = self._answered, (target.name, status)
        answered[what] = answered.get(what, 0) + 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass it on."""
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        parts = split(scope.get("raw_path") or scope["path"].encode())
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        target = self.find(scope["method"], parts)
        head = Head(scope["headers"])
        identity = head.identity or new_request_id()
        if target is None:
            await self._pass_on(scope, receive, send, identity)
            return
        response = await self._response(target, parts, scope["query_string"], head, receive)
        self.count(target, response.status)
        if self.age:
            response = response._replace(headers=(*response.headers, (b"x-assay-age", self.age)))
        await respond(send, response, identity)

    async def _response(
        self, target: Target, parts: list[bytes], query: bytes, head: Head, receive: Receive
    ) -> Response:
        body = b""
        if target.reads:
            response = self.refusal(target, head)
            if response is not None:
                return response
        try:
            if target.reads:
                body = await whole_body(receive, self.max_body)
            outcome = self.begin(target, parts, query, head, body)
            if type(outcome) is Response:
                return outcome
            self.admission.enter()
            try:
                return outcome.finish(await outcome.future) if type(outcome) is Waiting else await outcome  # type: ignore[misc]
            finally:
                self.admission.leave()
        except Exception as error:  # noqa: BLE001 - becomes an answer
            return self.failed(error, target)

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
            if len(header) <= _LONGEST_KNOWN:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[header, right] = key
            self._note_use(key, now)
        return key

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, identity: bytes) -> None:
        """Hand over to the control plane, which gets a request id and loses its trailing slash."""
        raw = scope.get("raw_path") or scope["path"].encode()
        if raw.endswith(b"/") and len(raw) > 1:  # a slash that was percent-encoded belongs to an id
            scope = {**scope, "path": scope["path"].removesuffix("/"), "raw_path": raw[:-1]}
        scope["assay.request_id"] = identity.decode()

        async def with_identity(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", identity)]}
            await send(message)

        await self._fallback(scope, receive, with_identity)


def split(path: bytes) -> list[bytes]:
    """The parts of a raw path; a slash at its end makes none."""
    parts = path.split(b"/")
    if not parts[-1] and len(parts) > 2:
        parts.pop()
    return parts


def _without_body(send: Send) -> Send:
    """The answer to HEAD: that to GET, less its body."""

    async def head_only(message: Any) -> None:
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
