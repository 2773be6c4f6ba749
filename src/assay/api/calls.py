"""Who calls, with what right, and how an answer is written."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query, Request, Response
from fastapi.routing import APIRoute

from assay.api.parts import Parts, moment
from assay.catalog.database import Actor
from assay.errors import FieldError, Invalid
from assay.published import Right

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Call:
    """One request that may do what it asks for.

    `short` says that it came under a short prefix; `expected` are the versions its `If-Match` allows.
    """

    parts: Parts
    actor: Actor
    now: datetime
    short: bool
    expected: frozenset[int] | None


@dataclass(frozen=True)
class Allow:
    """A dependency that lets a request through if its key has `right`; the first of every route."""

    right: Right

    async def __call__(self, request: Request) -> Call:
        """Who calls, or an error."""
        parts: Parts = request.app.state.parts
        header = request.headers.get("authorization")
        now = parts.clock()
        key = parts.published.keys.authorise(
            None if header is None else header.encode("latin-1"), self.right, now, parts.anonymous
        )
        parts.key_use.note(key, now)
        _known_parameters(request)
        actor = Actor(
            name="anonymous" if key is None else key.name,
            key_id=key.id if key is not None and key.id else None,
            request_id=request.scope.get("assay.request_id"),
        )
        return Call(
            parts=parts,
            actor=actor,
            now=moment(now),
            short=request.scope.get("assay.short", False),
            expected=_expected(request.headers.get("if-match")),
        )


def _known_parameters(request: Request) -> None:
    """Refuse parameters that a route would ignore: what was asked would not be what is answered."""
    if request.method not in {"GET", "HEAD", "DELETE"} or not request.query_params:
        return
    known = _parameters(request.scope["route"])
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        there = f"there are: {', '.join(sorted(known))}" if known else "there is none here"
        errors = [FieldError(name, f"no such parameter; {there}") for name in unknown]
        raise Invalid(f"{unknown[0]}: {errors[0].message}", code="unknown_parameter", errors=errors)


def _parameters(route: APIRoute) -> frozenset[str]:
    """The query parameters of a route: those of its handler, and those it documents and reads itself."""
    documented = (route.openapi_extra or {}).get("parameters", [])
    return frozenset(
        [each.alias for each in route.dependant.query_params] + [each["name"] for each in documented]
    )


Reading = Annotated[Call, Depends(Allow(Right.READ))]
Editing = Annotated[Call, Depends(Allow(Right.EDIT))]
Administering = Annotated[Call, Depends(Allow(Right.ADMIN))]

Skip = Annotated[int, Query(ge=0, le=2**62, description="How many to leave out at the beginning.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


def answer(document: object, status: int = 200, *, version: int | None = None) -> Response:
    """A JSON answer; `version` becomes the ETag that `If-Match` refers to."""
    headers = {} if version is None else {"ETag": f'"{version}"'}
    return Response(encode(document), status, headers=headers, media_type="application/json")


def nothing() -> Response:
    """An answer without a body."""
    return Response(status_code=204)


def _expected(header: str | None) -> frozenset[int] | None:
    """The versions in an If-Match header; None where any will do."""
    if header is None or header.strip() == "*":
        return None
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return frozenset(int(tag) for tag in tags if tag.isascii() and tag.isdigit() and len(tag) < 19)


def listing(name: str, items: list[Any], total: int, skip: int, limit: int) -> Response:
    """A stretch of a list with where it lies in the whole."""
    return answer({name: items, "total": total, "skip": skip, "limit": limit})
