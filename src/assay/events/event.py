"""What is said of events between the request and the log: the event, the limits, the refusal."""

from typing import Final, NamedTuple

import msgspec

from assay.errors import FieldError, Invalid, Malformed, Refused, TooLarge

#: Larger amounts than this are refused: their squares would overflow the sums every report is made of.
LARGEST_VALUE: Final = 1e100

_encode = msgspec.json.Encoder().encode


class Limits(NamedTuple):
    """What one request may hold; each is a setting."""

    body: int = 8 * 1024 * 1024
    """Bytes of a request, after decompression."""
    events: int = 10_000
    """Events in one request; at most 65,535, since one row of the log numbers them in 16 bits."""
    event_bytes: int = 64 * 1024
    """Bytes of one event as sent."""
    properties: int = 100
    """Properties of one event."""
    name: int = 200
    """Letters in an id, an event type, a property name or a unit name."""


class Event(msgspec.Struct, omit_defaults=True, gc=False):
    """One accepted event, in the form in which the log keeps it (hence the one-letter names).

    Times are µs since the epoch.
    """

    e: str
    """Event id, a UUID in canonical lower-case form."""
    u: str
    """User id."""
    t: str
    """Type."""
    s: int
    """When it happened; for a time written coarsely, when that stretch began."""
    r: int
    """When it was received."""
    c: int | None = None
    """The last µs the written time may mean; None where that is `s`."""
    o: str | None = None
    """The caller's own event id, where it is not `e` letter for letter."""
    k: bool = False
    """Whether the caller supplied the id: only then can the event be a repetition."""
    m: dict[str, str] | None = None
    """Units other than the user: name to id."""
    v: float | None = None
    """The value as sent."""
    a: float | None = None
    """The amount: the value, else the first number among the usual property names."""
    p: str | None = None
    """The JSON text of the properties, exactly as sent."""
    x: int | None = None
    """The experiment it counts for; None: every experiment the user is in."""
    y: int | None = None
    """The variant the caller believes the user to have; only compared."""


class Rejected(msgspec.Struct, frozen=True):
    """An event that was not taken, and why."""

    index: int
    """Its place in the request, from 0."""
    code: str
    """Stable snake_case word."""
    message: str
    """One sentence that names the field and the value."""
    path: str
    """The field, as `properties.price`; empty when it is the whole event."""
    type: str | None
    """Its type, where that could be read."""
    experiment_id: int | None
    """Its experiment, where that could be read and exists."""
    sample: str
    """The beginning of what was sent."""

    def error(self) -> Refused:
        """The same as an error, for an endpoint that takes a single event."""
        errors = (FieldError(self.path, self.message),) if self.path else ()
        if self.code == "too_large":
            return TooLarge(self.message, errors=errors)
        if self.code in {"invalid_json", "invalid_utf8"}:
            return Malformed(self.message, code=self.code, errors=errors)
        return Invalid(self.message, code=self.code, errors=errors)


class Batch(NamedTuple):
    """What became of one request; both lists are in the order sent."""

    events: list[Event]
    rejected: list[Rejected]
    single: bool
    """Whether the body was one bare event, which is answered for itself."""


def encode(events: list[Event]) -> str:
    """The body of one row of the log: the events as JSON objects joined by commas, without brackets."""
    return _encode(events)[1:-1].decode()
