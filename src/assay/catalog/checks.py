"""Types of what callers write, and errors that say which field is wrong and what would be right.

Nothing is converted silently: `"1"` is not a number and `true` is not 1.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from assay.errors import FieldError, Invalid

_MAX_ERRORS = 20
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

M = TypeVar("M", bound="Input")


class Input(BaseModel):
    """Base of everything a caller may send: strict types, no unknown fields, finite numbers."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, validate_default=False
    )

    def given(self, name: str) -> bool:
        """Whether the caller wrote this field."""
        return name in self.model_fields_set


def parse(model: type[M], document: object, path: str = "") -> M:
    """Check `document` against `model`; raises `Invalid` naming each wrong field below `path`."""
    if not isinstance(document, Mapping):
        where = path or "body"
        raise Invalid.field(where, f"must be a JSON object; got {shown(document)}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise refusal(error, model, path) from error


def refusal(error: ValidationError, model: type[BaseModel] | None = None, path: str = "") -> Invalid:
    """A validation error in our words."""
    found = error.errors(include_url=False)
    errors = [_field_error(each, model, path) for each in found[:_MAX_ERRORS]]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    code = "unknown_field" if found[0]["type"] == "extra_forbidden" else None
    return Invalid(f"{errors[0].path}: {errors[0].message}{more}", code=code, errors=errors)


def shown(value: object) -> str:
    """A value as it may stand in a message: as JSON, and short."""
    if isinstance(value, Mapping):
        return f"an object with {len(value)} fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def joined(path: str, steps: Sequence[int | str]) -> str:
    """`variants`, 1, `allocation` as `variants[1].allocation`."""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path


def _field_error(error: ErrorDetails, model: type[BaseModel] | None, path: str) -> FieldError:
    location = list(error["loc"])
    context = error.get("ctx", {})
    if "field" in context:
        location.append(str(context["field"]))
    where = joined(path, location) or "body"
    kind = error["type"]
    if kind == "missing":
        return FieldError(where, "is required")
    if kind == "extra_forbidden":
        return FieldError(where, "is not a known field" + _suggestion(model, location))
    message = error["msg"]
    if kind == "refused":
        return FieldError(where, message)
    if kind in _LENGTHS:
        bound = context.get("max_length", context.get("min_length"))
        found = f"{len(error['input'])}: {shown(error['input'])}"
        return FieldError(where, f"must have {_LENGTHS[kind].format(bound)}; got {found}")
    message = _TYPES.get(kind) or message.replace("Input should be", "must be").replace(
        "Input should", "must"
    )
    return FieldError(where, f"{message}; got {shown(error['input'])}")


_LENGTHS = {
    "string_too_long": "at most {} characters",
    "string_too_short": "at least {} character",
    "too_long": "at most {} items",
}
_TYPES = {
    "string_type": "must be a string",
    "string_unicode": "must not contain half of a surrogate pair",
    "float_type": "must be a number",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "list_type": "must be a list",
}


def _suggestion(model: type[BaseModel] | None, location: Sequence[int | str]) -> str:
    """`; did you mean allocation?`, if a known name is near."""
    for step in location[:-1]:
        if model is None:
            return ""
        if isinstance(step, str):
            field = model.model_fields.get(step)
            model = _model_in(field.annotation) if field is not None else None
    if model is None:
        return ""
    near = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None


def refuse(message: str, field: str | None = None) -> PydanticCustomError:
    """What a validator raises to say, in its own words, what would be right."""
    template = message.replace("{", "{{").replace("}", "}}")
    return PydanticCustomError("refused", template, {"field": field} if field else None)


def one(given: dict[str, Any]) -> Any:
    """The value that differently spelled fields agree on; None if none was given.

    Raises what a validator does where they do not agree.
    """
    names = list(given)
    for name in names[1:]:
        if given[name] != given[names[0]]:
            raise refuse(
                f"says {shown(given[name])} where {names[0]} says {shown(given[names[0]])}; give one of them",
                name,
            )
    return given[names[0]] if names else None


def storable(text: str) -> bool:
    """Whether a database can hold this text, so that it is worth looking for: PostgreSQL knows no NUL."""
    return "\x00" not in text


def expect_storable(path: str, text: str | None) -> None:
    """Refuse to look for what no database can hold. Raises `Invalid` for the parameter `path`."""
    if text is not None and not storable(text):
        raise Invalid.field(path, f"must not contain NUL characters; got {shown(text)}")


def _clean(text: str) -> str:
    if not storable(text):
        raise refuse(f"must not contain NUL characters; got {shown(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise refuse(f"must not contain half of a surrogate pair; got {shown(text)}") from error
    return text


def _named(text: str) -> str:
    if not text.strip():
        raise refuse(f"must not be blank; got {shown(text)}")
    return text


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise refuse(
            f"must be letters, digits, '.', '_' and '-', beginning with a letter or digit; got {shown(text)}"
        )
    if text.isdigit():
        raise refuse(f"must not be all digits, which would read as an id; got {shown(text)}")
    return text


def _reference(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refuse(f"must be an id or a key; got {shown(value)}")
    if isinstance(value, str):
        if not 0 < len(value) <= 200:
            raise refuse(f"must have 1 to 200 characters; got {len(value)}")
        return _named(_clean(value))
    return value


def _empty_for_null(value: object) -> object:
    return "" if value is None else value


def _object_for_null(value: object) -> object:
    return {} if value is None else value


def _moment(value: object) -> object:
    if value is None or isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError as error:
        raise refuse(f"must be an ISO 8601 time such as 2026-11-21T09:00:00Z; got {shown(value)}") from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if not _EARLIEST <= moment <= _LATEST:
        raise refuse(f"must lie between the years 2000 and 2200; got {shown(value)}")
    return moment.astimezone(UTC)


def json_object(limit: int) -> AfterValidator:
    """A check that a JSON object takes at most `limit` bytes and holds nothing JSON cannot say."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())
        except UnicodeEncodeError as error:
            raise refuse("must not contain half of a surrogate pair") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise refuse("must be a JSON object with finite numbers and little nesting") from error
        if size > limit:
            raise refuse(f"must take at most {limit} bytes as JSON; got {size}")
        return value

    return AfterValidator(check)


#: 1 to 200 characters that show something.
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_clean), AfterValidator(_named)
]
#: The same, shorter.
Tag = Annotated[
    str, StringConstraints(min_length=1, max_length=100), AfterValidator(_clean), AfterValidator(_named)
]
#: An id a caller chose: 1 to 200 characters, anything but NUL.
OuterId = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_clean)]
#: A word that stands for a thing in URLs and code.
KeyText = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_key)]
#: An id, or a key or name.
Reference = Annotated[int | str, BeforeValidator(_reference)]
#: Prose; null is no prose.
Prose = Annotated[
    str, BeforeValidator(_empty_for_null), StringConstraints(max_length=10_000), AfterValidator(_clean)
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
#: A time; without a zone it is UTC.
Time = Annotated[datetime, BeforeValidator(_moment)]
#: A variant's payload; null is empty.
Config = Annotated[dict[str, Any], BeforeValidator(_object_for_null), json_object(64 * 1024)]
#: A targeting rule: compiled where it is used, which says more than a schema could.
Rule = Annotated[dict[str, Any], json_object(64 * 1024)]
Attributes = Annotated[dict[str, Any], json_object(64 * 1024)]
