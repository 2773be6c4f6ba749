"""Errors as RFC 9457 `application/problem+json`."""

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from assay.catalog.checks import joined, shown
from assay.errors import AssayError, FieldError, Invalid, Unavailable

_PLACES = {"query", "path", "header", "cookie"}
_CODES = {404: "no_such_route", 405: "method_not_allowed"}


def problem(error: AssayError) -> Response:
    """The answer to a deliberate error."""
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="assay"'
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    errors = [{"path": each.path, "message": each.message} for each in error.errors]
    return _problem(error.status, error.title, error.detail, error.code, errors=errors, headers=headers)


def internal_problem() -> Response:
    """The answer to a fault of ours: no details leave the process."""
    return problem(AssayError("Something went wrong on our side; the log has the details."))


def install(app: FastAPI) -> None:
    """Let every error of `app` leave as a problem document."""

    @app.exception_handler(AssayError)
    async def deliberate(_request: Request, error: AssayError) -> Response:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(_request: Request, error: RequestValidationError) -> Response:
        errors = []
        for each in error.errors():
            steps = each["loc"][1:] if each["loc"][0] in _PLACES else each["loc"]
            message = each["msg"].replace("Input should be", "must be")
            errors.append(FieldError(joined("", steps), f"{message}; got {shown(each.get('input'))}"))
        return problem(Invalid(f"{errors[0].path}: {errors[0].message}", errors=errors))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        path = shown(request.scope.get("assay.path", request.url.path))
        detail = {
            404: f"There is nothing at {path}.",
            405: f"{request.method} is not possible at {path}.",
        }.get(status, str(error.detail))
        code = _CODES.get(status, status.phrase.lower().replace(" ", "_"))
        return _problem(
            status, status.phrase.capitalize(), detail, code, errors=[], headers=dict(error.headers or {})
        )


def _problem(
    status: int, title: str, detail: str, code: str, *, errors: list[dict[str, str]], headers: dict[str, str]
) -> Response:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": int(status),
        "detail": detail,
        "code": code,
        "errors": errors,
    }
    return Response(
        msgspec.json.encode(document), status, headers=headers, media_type="application/problem+json"
    )
