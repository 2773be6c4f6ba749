"""Writes the reference pages that are made from the code: `docs/reference/settings.md` and `api.md`.

With `--check` it writes nothing and exits 1 if a page differs from what it would write.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from assay import settings
from assay.telemetry import configure_logging
from assay.wiring import Application

PAGES = Path(__file__).parents[1] / "docs" / "reference"
_NOTE = "<!-- Written by scripts/reference.py; `just docs` writes it anew. -->\n"


def settings_page() -> str:
    """Every setting with its default."""
    return (
        f"{_NOTE}# Settings\n\n"
        "Read from the environment, and from a `.env` file where `assay` is started; the environment wins\n"
        "over the file, a command-line flag over both. Every name may be written with the prefix `ASSAY_`;\n"
        "those that the table shows with it need it. `assay settings` prints this table.\n\n"
        f"{settings.reference()}"
    )


async def _document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        application = Application(settings.load({"DATA_DIR": folder, "ADMIN_TOKEN": "reference"}))
        await application.startup()
        try:
            transport = httpx2.ASGITransport(application)
            async with httpx2.AsyncClient(transport=transport, base_url="http://reference") as client:
                answer = await client.get("/openapi.json")
                document: dict[str, Any] = answer.raise_for_status().json()
                return document
        finally:
            await application.shutdown()


def api_page() -> str:
    """Every route of the canonical API, and what its bodies hold."""
    document = asyncio.run(_document())
    return f"{_NOTE}# The HTTP API\n\n{document['info']['description']}\n\n" + "\n".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    sections: dict[str, list[str]] = {}
    for path, item in sorted(document["paths"].items()):
        for method, noted in item.items():
            takes = noted.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            row = (
                f"| `{method.upper()} {path}` | {_cell(noted['summary'])} | {_type(takes) if takes else ''} |"
            )
            sections.setdefault((noted.get("tags") or ["assignment and recording"])[0], []).append(row)
    for tag, rows in sorted(sections.items()):
        yield f"## {tag.capitalize()}\n\n| call | what it does | body |\n|---|---|---|"
        yield from rows
        yield ""
    yield "## Bodies and answers\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{_cell(schema['description'])}\n"
        required = set(schema.get("required", ()))
        if schema.get("properties"):
            yield "| field | type | |\n|---|---|---|"
            for field, kind in schema["properties"].items():
                star = " *" if field in required else ""
                yield f"| `{field}`{star} | {_type(kind)} | {_cell(kind.get('description', ''))} |"
            yield ""


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array" and schema.get("items"):
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "anything"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the pages, or compare them."""
    configure_logging("error", "console")
    pages = {PAGES / "settings.md": settings_page(), PAGES / "api.md": api_page().rstrip("\n") + "\n"}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what the code says; run: just docs")
        return 1 if stale else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(pages[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
