"""Request bodies: read up to the limit, decoded strictly, told apart by what is wrong with them."""

import json
import math
import re
from typing import Annotated, Any

from fastapi import Depends, Request

from assay.api.parts import Parts
from assay.catalog.checks import shown
from assay.errors import Malformed, TooLarge, UnsupportedType

_MAX_DEPTH = 64
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


async def read(request: Request) -> bytes:
    """The body's bytes; refused as soon as it is seen to be over the limit."""
    parts: Parts = request.app.state.parts
    limit = parts.max_body
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedType(
            f"Content-Encoding {shown(encoding)} is not understood here; send the body as it is."
        )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


async def json_document(request: Request) -> object:
    """The body as JSON."""
    data = await read(request)
    if not data.strip():
        raise Malformed("The body is empty; a JSON document is expected.", code="empty_body")
    _expect_json(request)
    return decode(data)


async def optional_document(request: Request) -> object:
    """The body as JSON; an empty one is an empty object."""
    data = await read(request)
    if not data.strip():
        return {}
    _expect_json(request)
    return decode(data)


Document = Annotated[object, Depends(json_document)]
OptionalDocument = Annotated[object, Depends(optional_document)]


def decode(data: bytes) -> object:
    """Decode JSON by the letter of its standard, without doubled keys, and only to a sane depth."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not valid UTF-8: {error.reason} at byte {error.start}.") from error
    try:
        document: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"The body is not valid JSON: {error.msg} at {where}.") from error
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(document)
    if _HALF_PAIR.search(data):
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise Malformed("The body has a string with half of a surrogate pair.") from error
    return document


def _expect_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedType(f"Content-Type {shown(kind)} is not understood; send application/json.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes (MAX_BODY_BYTES).", code="body_too_large")


def _too_deep() -> Malformed:
    return Malformed(f"The JSON is nested more than {_MAX_DEPTH} levels deep.", code="too_deep")


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(_MAX_DEPTH):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return
    raise _too_deep()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed(f"The key {shown(key)} stands twice in one object.", code="duplicate_key")
            seen.add(key)
    return found


def _constant(name: str) -> float:
    raise Malformed(f"{name} is not a JSON number; numbers must be finite.", code="not_finite")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed(f"The number {shown(text)} is too large.", code="not_finite")
    return number


def _int(text: str) -> int:
    # Longer ones have no place in a database, and Python refuses to convert really long ones.
    number = int(text) if len(text) <= 20 else 2**64
    if not -(2**63) <= number < 2**63:
        raise Malformed(f"The integer {shown(text)} does not fit into 64 bits.", code="number_too_large")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)
