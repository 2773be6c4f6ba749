"""Why something sent is no event, in words that name the field, the value and what would be right.

The fast decoder stops at literals like NaN, at half surrogates and at numbers beyond any float without
saying where. The standard library's tolerant one reads most of them; then the culprit can be looked for.
Nothing here runs for good input.
"""

import json
import math
from typing import Any, Final

import msgspec

from assay.errors import Invalid, Malformed, Refused

_LONGEST_SHOWN: Final = 80

# UnicodeDecodeError and msgspec's own errors are all ValueErrors.
UNREADABLE: Final = (ValueError, RecursionError)

_anything = msgspec.json.Decoder()

_EXPECTED: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "user_id": ((str,), "a text"),
    "type": ((str, type(None)), "a text"),
    "event_name": ((str, type(None)), "a text"),
    "event_id": ((str, type(None)), "a text"),
    "timestamp": ((str, int, float, type(None)), "an ISO 8601 time, or seconds or milliseconds since 1970"),
    "value": ((int, float, type(None)), "a finite number"),
    "properties": ((dict, type(None)), "an object"),
    "experiment_id": ((int, str, type(None)), "an experiment's id or key"),
    "variant_id": ((int, str, type(None)), "the number of a variant"),
    "units": ((dict, type(None)), "an object of unit names and ids"),
}


class Wrong(Exception):  # noqa: N818 - a signal between two functions, not an error of the program
    """One thing wrong with one event: the field, one sentence, and a stable code."""

    def __init__(self, path: str, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.path = path
        self.code = code


def shown(value: Any) -> str:
    """A value as JSON for a message: cut to a length that fits one, and always encodable."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[: _LONGEST_SHOWN - 1]}…"
    return text.encode(errors="backslashreplace").decode()


def wrong_shape(fields: dict[str, Any]) -> Wrong:
    """The first thing in a decoded object that keeps it from being an event."""
    for name, found in fields.items():
        if name not in _EXPECTED:
            known = ", ".join(_EXPECTED)
            message = f"{shown(name)} is not a field of an event; those are {known}."
            return Wrong(name[:60], message, "unknown_field")
        types, expected = _EXPECTED[name]
        if not isinstance(found, types) or isinstance(found, bool):
            return Wrong(name, f"{name} must be {expected}, got {shown(found)}.")
    for unit, unit_id in (fields.get("units") or {}).items():
        if not isinstance(unit_id, str):
            return Wrong(f"units.{unit[:60]}", f"units.{unit[:60]} must be a text, got {shown(unit_id)}.")
    if "user_id" not in fields:
        return Wrong("user_id", "user_id is missing: whose event is it?", "missing_field")
    return wrong_value(fields.get("value"))


def wrong_value(value: Any) -> Wrong:
    """A number too large to be summed."""
    return Wrong("value", f"value must be a number between -1e100 and 1e100, got {shown(value)}.")


def wrong_text(path: str, text: str, most: int) -> Wrong:
    """A name or id that is empty, too long or holds the one character that stores cannot keep."""
    where = path if len(path) <= _LONGEST_SHOWN else f"{path[:_LONGEST_SHOWN]}…"
    if not text:
        return Wrong(where, f'{where} must not be empty, got "".')
    if "\0" in text:
        return Wrong(where, f"{where} must not contain the character NUL, got {shown(text)}.")
    message = f"{where} has {len(text)} characters; {most} are allowed: {shown(text)}."
    return Wrong(where, message, "too_long")


def wrong_properties(raw: bytes, reason: Exception) -> Wrong:
    """Properties that did not decode as an object."""
    try:
        found = _anything.decode(raw)
    except UNREADABLE:
        return as_wrong(at_fault(raw, reason, within="properties"))
    return Wrong("properties", f"properties must be an object, got {shown(found)}.")


def wrong_envelope(fields: dict[str, msgspec.Raw]) -> Invalid:
    """An object with `events` that is nevertheless no batch."""
    for name, raw in fields.items():
        if name not in {"events", "sent_at"}:
            message = "is not a field of a batch; those are events, sent_at"
            return Invalid.field(name[:60], message, code="unknown_field")
        if name == "events" and bytes(raw)[:1] != b"[":
            return Invalid.field(name, f"must be an array of events, got {_beginning(raw)}")
    return wrong_sent_at(_beginning(fields["sent_at"]))


def wrong_sent_at(text: str) -> Invalid:
    """A batch whose sending time cannot be read."""
    return Invalid.field(
        "sent_at", f"must be an ISO 8601 time, or seconds or milliseconds since 1970, got {text}"
    )


def as_wrong(fault: Refused) -> Wrong:
    """A fault of a whole text, as the fault of the one event that holds it."""
    return Wrong(fault.errors[0].path if fault.errors else "", fault.detail, fault.code)


def at_fault(body: bytes, reason: Exception, *, within: str = "") -> Refused:
    """The error for a text that the decoder refused with `reason`; `within` is the field it stands in."""
    place = f" in {within}" if within else ""
    if isinstance(reason, RecursionError):
        return Invalid(f"The JSON is nested too deeply{place}.", code="too_deep")
    try:
        text = body.decode()
    except UnicodeDecodeError as broken:
        byte = f"byte {body[broken.start]:#04x} at position {broken.start}"
        return Malformed(f"The text is not valid UTF-8{place}: {byte}.", code="invalid_utf8")
    try:
        found = json.loads(text, parse_constant=_Literal)
    except RecursionError:
        return Invalid(f"The JSON is nested too deeply{place}.", code="too_deep")
    except ValueError as broken:
        return Malformed(f"The text is not valid JSON{place}: {str(broken)[:200]}.", code="invalid_json")
    culprit = _culprit(found, within)
    if culprit is None:
        return Malformed(f"The text is not valid JSON{place}: {str(reason)[:200]}.", code="invalid_json")
    return Invalid.field(*culprit)


class _Literal:
    """A literal that is not JSON: NaN, Infinity, -Infinity."""

    def __init__(self, literal: str) -> None:
        self.literal = literal


def _culprit(found: Any, within: str) -> tuple[str, str] | None:
    """The first value, in order, that JSON text cannot carry: its path and what is wrong with it."""
    waiting: list[tuple[str, Any]] = [(within, found)]
    while waiting:
        path, value = waiting.pop()
        match value:
            case _Literal():
                return path, f"must be a finite number, got {value.literal}"
            case float() if not math.isfinite(value):
                return path, "must be a finite number, got one beyond the largest float"
            case int() if value.bit_length() > 1024:
                return path, "must be a finite number, got one beyond the largest float"
            case str() if not _encodable(value):
                return path, f"must not contain half a surrogate pair, got {shown(value)}"
            case dict():
                for name in value:
                    if not _encodable(name):
                        return path, f"must not contain half a surrogate pair in a name, got {shown(name)}"
                waiting.extend((_joined(path, name), inner) for name, inner in reversed(value.items()))
            case list():
                places = reversed(range(len(value)))
                waiting.extend((f"{path}[{index}]", value[index]) for index in places)
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _joined(path: str, name: str) -> str:
    return f"{path}.{name[:60]}" if path else name[:60]


def _beginning(raw: msgspec.Raw) -> str:
    return bytes(raw)[:_LONGEST_SHOWN].decode(errors="replace")
