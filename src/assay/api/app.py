"""The control plane as one ASGI application."""

from functools import cache

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import RedirectResponse

from assay.api import (
    events,
    experiments,
    history,
    holdouts,
    keys,
    layers,
    metrics,
    openapi,
    planning,
    problems,
    results,
    segments,
    users,
    variants,
)
from assay.api.calls import answer
from assay.api.parts import Parts
from assay.api.surface import Surface

#: Everything there is under `/api/v1`.
ROUTERS: tuple[APIRouter, ...] = (
    experiments.router,
    variants.router,
    metrics.router,
    planning.router,
    segments.router,
    layers.router,
    holdouts.router,
    users.router,
    keys.router,
    events.router,
    results.router,
    history.router,
)


def create_api(parts: Parts) -> FastAPI:
    """Put the control plane together."""
    app = FastAPI(title="Assay", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.parts = parts
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1")
    if parts.docs:
        _document(app, parts)
    app.add_middleware(Surface)
    return app


def _document(app: FastAPI, parts: Parts) -> None:
    @cache
    def document() -> dict[str, object]:
        return openapi.openapi_document(ROUTERS, parts.extra_paths, parts.extra_schemas)

    @app.get("/openapi.json")
    def machine_readable() -> Response:
        return answer(document())

    @app.get("/")
    def start() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs")
    def readable() -> Response:
        return Response(openapi.page(document()), media_type="text/html; charset=utf-8")
