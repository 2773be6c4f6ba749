"""The skin of the control plane: short prefixes, trailing slashes, and the last net under all errors."""

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.api.problems import internal_problem

_log = structlog.get_logger("assay.api")

_CANONICAL = "/api/v1"
#: What also lives under `/api` and at the root, as older clients write it.
_SHORT = ("/experiments", "/events", "/segments", "/users", "/auth/keys")


def canonical(path: str) -> str | None:
    """The path under `/api/v1` that a short one stands for; None for one that is not short."""
    if path.startswith(_CANONICAL + "/"):
        return None
    rest = path.removeprefix("/api")
    for noun in _SHORT:
        if rest == noun or rest.startswith(noun + "/"):
            return _CANONICAL + rest
    return None


class Surface:
    """Leads every accepted spelling of a path to the one route there is.

    Handlers see in `scope["assay.short"]` whether the caller used a short prefix.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        raw = scope.get("raw_path")
        if path.endswith("/") and (raw is None or raw.endswith(b"/")):
            path = path.rstrip("/") or "/"  # a slash that was percent-encoded belongs to an id
        full = canonical(path)
        scope = {**scope, "path": full or path, "assay.path": path, "assay.short": full is not None}
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            _log.exception(
                "request.failed", method=scope["method"], path=path, request_id=scope.get("assay.request_id")
            )
            if started:
                raise
            await internal_problem()(scope, receive, send)
