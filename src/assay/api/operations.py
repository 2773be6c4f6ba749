"""What a route takes and answers, noted beside its handler for the API page."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

F = TypeVar("F", bound=Callable[..., Any])


class Operation(NamedTuple):
    """`takes` is the model of the body, `answers` the type of the answer; either may be missing.

    `examples` are bodies by what they show.
    """

    takes: type[BaseModel] | None
    answers: Any
    body_required: bool
    examples: Mapping[str, Any]


#: What was noted, by handler.
OPERATIONS: dict[Callable[..., Any], Operation] = {}


def operation(
    *,
    takes: type[BaseModel] | None = None,
    answers: Any = None,
    body_required: bool = True,
    examples: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Note what a handler takes and answers. Handlers read and write themselves; this is documentation."""

    def note(handler: F) -> F:
        OPERATIONS[handler] = Operation(takes, answers, body_required, examples or {})
        return handler

    return note
