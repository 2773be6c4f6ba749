"""Reads the reference documents' requests out of their prose, exactly as they are written there.

Nothing of the documents is kept here: the tests find commands, endpoints and JSON in whatever text lies
beside the project, and have nothing to run where none does.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FOLDER = Path(__file__).parents[2].parent / "shared" / "seeds"
_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ENDPOINT = re.compile(r"\A(GET|POST|PUT|PATCH|DELETE) (/\S+)\Z")
_MENTIONED = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[^\s`*?]+)")
_FETCHED = re.compile(r"\b[Gg]et `[\w.]+:\d+(/[^`?]+)`")
_SERIES = re.compile(r"`(\w+)(?:\{([\w,]+)\})?` - ")


@dataclass
class Request:
    """One request as a document writes it; `path` is without the host and with its placeholders."""

    method: str
    path: str
    body: Any = None
    #: The body's text, to the letter.
    raw: str | None = None
    authorised: bool = True
    media: str | None = None
    #: The JSON documents that the text shows as answers to it.
    answers: list[Any] = field(default_factory=list)


@dataclass
class Document:
    """One reference document: the requests it shows, in order, and all it mentions."""

    name: str
    requests: list[Request]
    #: Every (method, path template) named anywhere in the text.
    mentioned: set[tuple[str, str]]
    #: Prometheus series and their labels.
    series: dict[str, tuple[str, ...]]

    def find(self, method: str, ending: str) -> Request:
        """The first request shown whose path, without its query, ends like this."""
        for request in self.requests:
            if request.method == method and urlsplit(request.path).path.endswith(ending):
                return request
        raise AssertionError(f"{self.name} shows no {method} …{ending}")


def _curls(block: str) -> Iterator[Request]:
    words = shlex.split(block.replace("\\\n", " "), comments=True)
    starts = [i for i, word in enumerate(words) if word == "curl"]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        arguments = iter(words[start + 1 : end])
        method = url = data = None
        headers: list[str] = []
        for word in arguments:
            if word in {"-X", "--request"}:
                method = next(arguments)
            elif word in {"-H", "--header"}:
                headers.append(next(arguments))
            elif word in {"-d", "--data", "--data-raw"}:
                data = next(arguments)
            elif not word.startswith("-"):
                url = word
        assert url is not None, block
        parts = urlsplit(url if "://" in url else f"http://{url}")
        named = {
            name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in headers)
        }
        yield Request(
            method or ("GET" if data is None else "POST"),
            parts.path + (f"?{parts.query}" if parts.query else ""),
            None if data is None else json.loads(data),
            data,
            # A header from a variable (`$NAME`) is the document's authorisation.
            "authorization" in named or any(header.startswith("$") for header in headers),
            named.get("content-type"),
        )


def _json(block: str) -> Any:
    try:
        return json.loads(block.replace("[...]", "[]"))
    except ValueError:
        return None


def parse(name: str, text: str) -> Document:
    """Find the requests, the answers shown for them, and what else is mentioned."""
    requests: list[Request] = []
    template: Request | None = None
    before = 0
    for match in _FENCE.finditer(text):
        block = match[1].strip()
        lead = text[before : match.start()].strip().rpartition("\n")[2].lower()
        before = match.end()
        endpoint = _ENDPOINT.match(block)
        document = _json(block)
        if endpoint:
            template = Request(endpoint[1], endpoint[2])
            requests.append(template)
        elif document is not None and "request" in lead and template is not None:
            if template.body is not None:
                template = Request(template.method, template.path)
                requests.append(template)
            template.body, template.raw, template.media = document, block, "application/json"
        elif document is not None and "response" in lead and requests:
            requests[-1].answers.append(document)
        elif "curl " in block:
            found = list(_curls(block))
            requests.extend(found)
            template = None
    return Document(
        name,
        requests,
        {*_MENTIONED.findall(text), *(("GET", path) for path in _FETCHED.findall(text))},
        {series: tuple(labels.split(",")) if labels else () for series, labels in _SERIES.findall(text)},
    )


def read() -> list[Document]:
    """All documents, in the order of their names; none where the folder is absent."""
    return [parse(path.stem, path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.txt"))]
