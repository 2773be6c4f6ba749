"""Liveness, readiness and the Prometheus page."""

import hmac
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from assay.errors import Unauthorized
from assay.hotpath.http import JSON, Request, Response
from assay.telemetry import Telemetry

_encode = msgspec.json.Encoder().encode
_EXPOSITION = b"text/plain; version=0.0.4; charset=utf-8"


class Check(NamedTuple):
    """One condition of readiness: whether it holds, and a sentence about it."""

    name: str
    ok: bool
    detail: str


class OperationRoutes:
    """`/health` says the process lives, `/ready` that it can do its work, `/metrics` what it has done."""

    def __init__(
        self,
        telemetry: Telemetry,
        checks: Callable[[int], list[Check]],
        *,
        version: str,
        metrics_token: str,
    ) -> None:
        self.telemetry = telemetry
        self.checks = checks
        self.version = version
        self._metrics_token = metrics_token.encode()

    def health(self, _request: Request) -> Response:
        """`GET /health`: 200 as long as the process answers."""
        return Response(200, _encode({"status": "ok", "version": self.version}))

    def ready(self, request: Request) -> Response:
        """`GET /ready`: 200 when every check holds, else 503 naming what does not."""
        checks = self.checks(request.now)
        ready = all(check.ok for check in checks)
        document = {
            "status": "ready" if ready else "not_ready",
            "version": self.version,
            "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
        }
        return Response(200 if ready else 503, _encode(document), JSON)

    def metrics(self, request: Request) -> Response:
        """`GET /metrics`: the Prometheus text format."""
        if self._metrics_token:
            sent = request.head.authorization or b""
            if not hmac.compare_digest(sent, b"Bearer " + self._metrics_token):
                raise Unauthorized("Send the METRICS_TOKEN: Authorization: Bearer <token>.", code="bad_key")
        return Response(200, self.telemetry.exposition(), _EXPOSITION)
