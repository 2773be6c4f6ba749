"""The API page: an OpenAPI document of every route, and a page that shows it without the network."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from assay import __version__
from assay.api.operations import OPERATIONS, Operation

_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for a person."},
        "code": {"type": "string", "description": "A stable word to branch on."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_ABOUT = (
    "Experiments, assignment, events and results. The resources experiments, events, segments, users and "
    "auth/keys also live under /api and at the root, where a new experiment runs at once and answers carry a "
    "few older field names besides. Errors are application/problem+json (RFC 9457)."
)


def openapi_document(
    routers: Iterable[APIRouter], extra_paths: Mapping[str, Any], extra_schemas: Mapping[str, Any]
) -> dict[str, Any]:
    """The OpenAPI document of `routers` below `/api/v1` and of the paths documented elsewhere."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    document = get_openapi(title="Assay", version=__version__, description=_ABOUT, routes=routes)
    bodies, answers, schemas = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        noted = OPERATIONS[route.endpoint]
        path = route.path_format
        for method in route.methods or ():
            described = document["paths"][path][method.lower()]
            described["operationId"] = f"{method.lower()}_{route.name}"
            described["summary"] = described.pop("description", route.name)
            described["responses"] = _responses(route, noted, answers)
            if noted.takes is not None:
                described["requestBody"] = {
                    "required": noted.body_required,
                    "content": {"application/json": _content(bodies[noted.takes.__name__], noted)},
                }
            paths.setdefault(f"/api/v1{path}", {})[method.lower()] = described
    for path, item in extra_paths.items():
        paths[path] = {**paths.get(path, {}), **item}
    document["paths"] = dict(sorted(paths.items()))
    document["components"] = {
        "schemas": {**schemas, **extra_schemas, "Problem": _PROBLEM},
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"bearer": []}]
    return document


def _schemas(routes: Iterable[APIRoute]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The schema of each body and each answer, by name, and the components they refer to."""
    noted = [OPERATIONS[route.endpoint] for route in routes]
    models = {each.takes.__name__: each.takes for each in noted if each.takes is not None}
    ref = _REF.replace("{name}", "{model}")
    found, definitions = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template=ref
    )
    bodies = {model.__name__: schema for (model, _), schema in found.items()}
    types = {each.answers.__name__: each.answers for each in noted if each.answers is not None}
    schemas, components = msgspec.json.schema_components(types.values(), ref_template=_REF)
    answers = dict(zip(types, schemas, strict=True))
    return bodies, answers, {**definitions.get("$defs", {}), **components}


def _content(schema: Mapping[str, Any], noted: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if noted.examples:
        content["examples"] = {name: {"value": value} for name, value in noted.examples.items()}
    return content


def _responses(route: APIRoute, noted: Operation, answers: Mapping[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success"}
    if noted.answers is not None:
        success["content"] = {"application/json": {"schema": answers[noted.answers.__name__]}}
    problem = {
        "description": "What went wrong, and what would be right",
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    return {str(route.status_code or 200): success, "4XX": problem, "5XX": problem}


def page(document: Mapping[str, Any]) -> str:
    """The document as one HTML page that needs nothing else: no script, no font, no network."""
    sections: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, described in item.items():
            tag = (described.get("tags") or ["other"])[0]
            sections.setdefault(tag, []).append(_described(method, path, described))
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(rows)}" for tag, rows in sorted(sections.items()))
    schemas = "".join(
        f'<details id="{html.escape(name)}"><summary>{html.escape(name)}</summary>{_fields(schema)}</details>'
        for name, schema in sorted(document["components"]["schemas"].items())
    )
    return _PAGE.format(
        about=html.escape(document["info"]["description"]),
        version=html.escape(document["info"]["version"]),
        body=body,
        schemas=schemas,
    )


def _described(method: str, path: str, described: Mapping[str, Any]) -> str:
    route, summary = html.escape(path), html.escape(described.get("summary", ""))
    parts = [f"<details><summary><code><b>{method.upper()}</b> {route}</code> {summary}</summary>"]
    parameters = "".join(
        _row(each["name"], html.escape(each["in"]), each.get("description") or "")
        for each in described.get("parameters", [])
    )
    if parameters:
        parts.append(f"<table>{parameters}</table>")
    content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "schema" in content:
        parts.append(f"<p>Body: {_type(content['schema'])}</p>")
    for name, example in content.get("examples", {}).items():
        body = msgspec.json.format(msgspec.json.encode(example["value"]), indent=2).decode()
        parts.append(f"<p>{html.escape(name)}</p><pre>{html.escape(body)}</pre>")
    for status, response in described.get("responses", {}).items():
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if status[0] == "2":
            parts.append(f"<p>Answer {html.escape(status)}{': ' + _type(schema) if schema else ''}</p>")
    return "".join([*parts, "</details>"])


def _fields(schema: Mapping[str, Any]) -> str:
    rows = "".join(
        _row(name, _type(field), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    )
    return f"<p>{html.escape(schema.get('description', ''))}</p><table>{rows}</table>"


def _row(name: str, kind: str, description: str) -> str:
    cells = (f"<code>{html.escape(name)}</code>", kind, html.escape(description))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return html.escape(" | ".join(str(each) for each in schema["enum"]))
    kind = str(schema.get("type", "anything"))
    if kind == "array" and "prefixItems" in schema:  # of so many, each of its own kind
        return f"list of {', '.join(_type(each) for each in schema['prefixItems'])}"
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"list of {_type(schema['items'])}"
    return html.escape(kind)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Assay API</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
details {{ border-top: 1px solid #8884; padding: .4rem 0 }} summary {{ cursor: pointer }}
table {{ border-collapse: collapse }} td {{ padding: .1rem 1rem .1rem 0; vertical-align: top }}
</style></head><body>
<h1>Assay API {version}</h1><p>{about}</p>
<p>Send a key with every call: <code>Authorization: Bearer assay_…</code>.
The machine-readable form is <a href="/openapi.json">openapi.json</a>.</p>
{body}<h2>Bodies and answers</h2>{schemas}</body></html>
"""
