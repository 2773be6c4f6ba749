"""The dashboard as one ASGI application: routes, the door, and the last net under all errors."""

import hmac
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.dashboard import (
    auditing,
    beginnings,
    breakdown,
    calculator,
    editing,
    experiments,
    holdouts,
    installation,
    keys,
    layers,
    lifecycle,
    live,
    metrics,
    overtime,
    past,
    results,
    segments,
    signing,
    targeting,
)
from assay.dashboard.pages import (
    HEADERS,
    ROOT,
    STATIC,
    Form,
    Handler,
    Visit,
    link,
    refusal,
    templates,
    versioned,
)
from assay.dashboard.parts import Parts
from assay.dashboard.sessions import Session, Sessions
from assay.dashboard.tickets import Tickets
from assay.errors import AssayError, Forbidden, Malformed, NotFound, TooLarge
from assay.published import RIGHTS, Right

_log = structlog.get_logger("assay.dashboard")
_MOST_FIELDS = 5000
_YEAR = 31_536_000


class Page(NamedTuple):
    """One row of the table of pages. `right` None is for anybody."""

    path: str
    handler: Handler
    right: Right | None
    methods: tuple[str, ...] = ("GET",)


_READ, _EDIT, _ADMIN = Right.READ, Right.EDIT, Right.ADMIN
_POST = ("POST",)
_BOTH = ("GET", "POST")


def _noun(
    plural: str, noun: str, listed: Handler, create: Handler, shown: Handler, edit: Handler
) -> tuple[Page, ...]:
    """What every noun has: a list, a form for a new one, its page, and a form to change it."""
    return (
        Page(f"/{plural}", listed, _READ),
        Page(f"/{plural}/new", create, _EDIT, _BOTH),
        Page(f"/{plural}/{{{noun}}}", shown, _READ),
        Page(f"/{plural}/{{{noun}}}/edit", edit, _EDIT, _BOTH),
    )


PAGES: tuple[Page, ...] = (
    Page("/sign-in", signing.sign_in, None, _BOTH),
    Page("/sign-out", signing.sign_out, None, _POST),
    *_noun("experiments", "key", experiments.listed, editing.create, results.shown, editing.edit),
    Page("/experiments/{key}/headline", experiments.headline, _READ),
    Page("/experiments/{key}/trend", overtime.piece, _READ),
    Page("/experiments/{key}/breakdown", breakdown.piece, _READ),
    Page("/experiments/{key}/statements", results.statements_piece, _READ),
    Page("/experiments/{key}/ledger", results.ledger_piece, _READ),
    Page("/experiments/{key}/export", results.export_file, _READ),
    Page("/experiments/{key}/history", auditing.history, _READ),
    Page("/experiments/{key}/reports", past.listed, _READ),
    Page("/experiments/{key}/reports/keep", past.keep, _EDIT, _POST),
    Page("/experiments/{key}/reports/{number}", past.shown, _READ),
    Page("/experiments/{key}/reports/{number}/document", past.document, _READ),
    Page("/experiments/{key}/look", past.look, _EDIT, _BOTH),
    Page("/experiments/{key}/duplicate", editing.duplicate, _EDIT),
    Page("/experiments/{key}/template", beginnings.create, _EDIT, _BOTH),
    Page("/experiments/{key}/do/{step}", lifecycle.step, _EDIT, _BOTH),
    Page("/calculator", calculator.shown, _READ),
    *_noun("metrics", "metric", metrics.listed, metrics.create, metrics.shown, metrics.edit),
    Page("/metrics/{metric}/do/{step}", metrics.step, _EDIT, _BOTH),
    Page("/targeting/preview", targeting.preview_piece, _READ, _POST),
    *_noun("segments", "segment", segments.listed, segments.create, segments.shown, segments.edit),
    Page("/segments/{segment}/delete", segments.delete, _EDIT, _BOTH),
    Page("/segments/{segment}/members", segments.members, _EDIT, _POST),
    *_noun("layers", "layer", layers.listed, layers.create, layers.shown, layers.edit),
    Page("/layers/{layer}/delete", layers.delete, _EDIT, _BOTH),
    *_noun("holdouts", "holdout", holdouts.listed, holdouts.create, holdouts.shown, holdouts.edit),
    Page("/templates", beginnings.listed, _READ),
    Page("/templates/{template}/delete", beginnings.delete, _EDIT, _BOTH),
    Page("/arrivals", experiments.arrivals, _READ),
    Page("/events", live.shown, _READ),
    Page("/events/stream", live.stream, _READ),
    Page("/audit", auditing.log, _READ),
    Page("/keys", keys.listed, _ADMIN, _BOTH),
    Page("/keys/{key_id}/revoke", keys.revoke, _ADMIN, _BOTH),
    Page("/installation", installation.shown, _READ),
)


class Dashboard:
    """Serves everything below `/ui`; raises nothing."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._sessions = Sessions()
        self._tickets = Tickets()
        self._routes = [Route(ROOT + page.path, self._endpoint(page), methods=page.methods) for page in PAGES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        response = await self._answer(Request(scope, receive))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        if path.rstrip("/") == ROOT:
            return RedirectResponse(link("experiments"), 303)
        if path.startswith(f"{ROOT}/static/"):
            return _static(path)
        allowed: set[str] = set()
        for route in self._routes:
            match, found = route.matches(request.scope)
            if match is Match.FULL:
                request.scope.update(found)
                endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint
                return await endpoint(request)
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
        if allowed:
            return Response("This page takes " + " and ".join(sorted(allowed - {"HEAD"})), 405)
        visit = self._visit(request, self._session(request))
        if visit.session is None and not visit.rights:
            return _to_sign_in(request)
        return refusal(visit, NotFound("This page does not exist."))

    def _endpoint(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            session = self._session(request)
            visit = self._visit(request, session)
            try:
                return await self._serve(page, request, session)
            except AssayError as error:
                return refusal(visit, error)
            except Exception:  # noqa: BLE001 - becomes a page; the log has it
                _log.exception("page.failed", method=request.method, path=request.url.path)
                return refusal(visit, AssayError("The page could not be made."))

        return serve

    async def _serve(self, page: Page, request: Request, session: Session | None) -> Response:
        form = Form()
        if request.method == "POST":
            _same_site(request)
            form = _form(await _body(request, self._parts.max_body))
        visit = self._visit(request, session, _form(request.url.query.encode()), form)
        if page.right is not None:
            if page.right not in visit.rights:
                if session is None:
                    return _to_sign_in(request)
                raise Forbidden(f"The key {session.key.name} has the role {session.key.role}.")
            if request.method == "POST":
                _expect_token(visit)
        if session is not None:
            self._parts.key_use.note(session.key, visit.at)
        response = await run_in_threadpool(page.handler, visit)
        if session is not None and session.due(visit.at) and "set-cookie" not in response.headers:
            renewed = self._sessions.begin(session.secret, session.key, visit.at, session.nonce)
            signing.keep(response, renewed, secure=visit.is_secure)
        return response

    def _session(self, request: Request) -> Session | None:
        cookie = _cookies(request).get(signing.COOKIE)
        if not cookie:
            return None
        session = self._sessions.open(cookie, self._parts.published.keys, self._parts.clock())
        return session if session is not None and Right.READ in RIGHTS[session.key.role] else None

    def _visit(
        self, request: Request, session: Session | None, query: Form | None = None, form: Form | None = None
    ) -> Visit:
        """One visit; without `query` and `form`, for a page that says what is wrong with them."""
        cookies = _cookies(request)
        theme = cookies.get("assay_theme", "")
        url = request.url
        return Visit(
            parts=self._parts,
            session=session,
            rights=RIGHTS[session.key.role] if session else self._parts.anonymous & {Right.READ},
            at=self._parts.clock(),
            method=request.method,
            url=url.path + (f"?{url.query}" if url.query else ""),
            origin=_origin(request),
            place=request.path_params if "path_params" in request.scope else {},
            query=query or Form(),
            form=form or Form(),
            partial="hx-request" in request.headers and "hx-boosted" not in request.headers,
            theme=theme if theme in {"light", "dark"} else "",
            cookies=cookies,
            sessions=self._sessions,
            tickets=self._tickets,
            resumed_after=request.headers.get("last-event-id", ""),
            request_id=request.scope.get("assay.request_id"),
        )


class Entrance:
    """Leads browsers to the pages and everything else to the API."""

    def __init__(self, pages: ASGIApp, api: ASGIApp) -> None:
        self._pages, self._api = pages, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if path == ROOT or path.startswith(f"{ROOT}/") or (path == "/" and _is_browser(scope)):
            if path == "/":
                await RedirectResponse(link("experiments"), 303)(scope, receive, send)
                return
            await self._pages(scope, receive, send)
        elif path == "/favicon.ico":  # browsers ask for it beside any document that names no icon, as JSON
            await RedirectResponse(versioned("mark.svg"))(scope, receive, send)
        else:
            await self._api(scope, receive, send)


def _is_browser(scope: Scope) -> bool:
    accept = next((value for name, value in scope.get("headers", ()) if name == b"accept"), b"")
    return scope.get("method") in {"GET", "HEAD"} and b"text/html" in accept


def _origin(request: Request) -> str:
    """Where the browser believes to be; behind a proxy that ends TLS, what the proxy says."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    scheme = forwarded if forwarded in {"http", "https"} else request.url.scheme
    return f"{scheme}://{request.headers.get('host', request.url.netloc)}"


def _cookies(request: Request) -> Mapping[str, str]:
    try:
        read = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: each.value for name, each in read.items()}


async def _body(request: Request, limit: int) -> bytes:
    kept = bytearray()
    async for piece in request.stream():
        kept += piece
        if len(kept) > limit:
            raise TooLarge(f"A form may have at most {limit:,} bytes.")
    return bytes(kept)


def _form(raw: bytes) -> Form:
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise Malformed("What was sent cannot be read as a form.") from error
    return Form(tuple((name, value.replace("\r\n", "\n")) for name, value in pairs))


def _same_site(request: Request) -> None:
    """Refuse a form that another site sent, before anything of it is read."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    elsewhere = origin not in {None, "null"} and urlsplit(origin or "").netloc != request.headers.get("host")
    if site not in {"same-origin", "none"} or elsewhere:
        raise Forbidden("This form was sent from another site.", code="cross_site")


def _expect_token(visit: Visit) -> None:
    sent = visit.form.get("csrf")
    if visit.session is None or not hmac.compare_digest(sent.encode(), visit.session.csrf.encode()):
        raise Forbidden("The session of this form has ended: load the page again.", code="bad_token")


def _to_sign_in(request: Request) -> Response:
    """To the door, and from there back to where one was."""
    url = request.url
    path = url.path + (f"?{url.query}" if url.query else "")
    if request.method == "POST" or "hx-request" in request.headers:
        shown = request.headers.get("hx-current-url") or request.headers.get("referer") or ""
        came = urlsplit(shown)
        path = came.path + (f"?{came.query}" if came.query else "")
    elif request.headers.get("sec-fetch-site") == "cross-site":
        # A strict cookie does not come with a link from another site; the page asks once more, from here.
        page = templates().get_template("again.html").render(address=path)
        return Response(page, media_type="text/html")
    address = link("sign-in", next=path if signing.ours(path) else "")
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def _static(path: str) -> Response:
    """A file that never changes under its address."""
    name = path.removeprefix(f"{ROOT}/static/").partition("/")[2]
    file = STATIC.get(name)
    if file is None:
        return Response("There is no such file.", 404)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    fresh = versioned(name) == path
    kept = f"public, max-age={_YEAR}, immutable" if fresh else "no-cache"
    return Response(file.read_bytes(), media_type=kind, headers={"Cache-Control": kept})
