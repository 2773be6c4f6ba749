"""From the bytes a caller sent to events worth keeping, or to the reason why not. Pure: `now` is passed in.

The good case is one typed decode in C and a handful of comparisons for each event. Only when something is
wrong is the event looked at again, slowly, to say what. Nothing here raises on any input but the deliberate
errors of `assay.errors`, and those only where the body as a whole cannot be read.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from assay.errors import Invalid, Malformed, TooLarge
from assay.events import identity, timestamps
from assay.events.event import LARGEST_VALUE, Batch, Event, Limits, Rejected
from assay.events.refusal import (
    UNREADABLE,
    Wrong,
    as_wrong,
    at_fault,
    shown,
    wrong_envelope,
    wrong_properties,
    wrong_sent_at,
    wrong_shape,
    wrong_text,
    wrong_value,
)
from assay.events.timestamps import parse

#: Where the amount of an event is looked for, in this order, when it has no `value`.
AMOUNTS: Final = ("value", "amount", "price", "order_value", "revenue", "total")
#: How far ahead of the server's clock a caller's may be, in µs.
FUTURE: Final = 5 * timestamps.MINUTE
#: Times before this, in µs, are some clock that was never set.
YEAR_2000: Final = 946_684_800 * timestamps.SECOND

_AMOUNTS: Final = frozenset(AMOUNTS)
_NO_JSON: Final = msgspec.Raw()
_LONGEST_SAMPLE: Final = 300

Resolve = Callable[[int | str], int | None]
"""From what was written in `experiment_id` (id, its digits, or key) to the id; None: there is no such one."""


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: str
    type: str | None = None
    event_name: str | None = None
    event_id: str | None = None
    timestamp: str | int | float | None = None
    value: float | None = None
    properties: msgspec.Raw = _NO_JSON
    experiment_id: int | str | None = None
    variant_id: int | str | None = None
    units: dict[str, str] | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    events: list[_Request]
    sent_at: str | int | float | None = None


class _LooseEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]
    sent_at: str | int | float | None = None


_request = msgspec.json.Decoder(_Request)
_requests = msgspec.json.Decoder(list[_Request])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_envelope = msgspec.json.Decoder(_Envelope)
_loose_envelope = msgspec.json.Decoder(_LooseEnvelope)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, Any])
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def accept_one(
    raw: bytes,
    now: int,
    *,
    resolve: Resolve,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    experiment_id: int | None = None,
) -> Event | Rejected:
    """Accept a body that must be one event, received at `now` (µs).

    `experiment_id` is the experiment that the address names, if it names one. Raises TooLarge when the body
    is longer than `limits.body`, Malformed when it is not JSON, Invalid when it holds what JSON cannot carry.
    """
    _check_body(raw, limits)
    return _Acceptor(now, resolve, limits, experiment_id).one(raw)


def accept_batch(
    body: bytes,
    now: int,
    *,
    resolve: Resolve,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    experiment_id: int | None = None,
    lines: bool = False,
) -> Batch:
    """Accept a body of one event, an array, `{"events": […], "sent_at"?}`, or (`lines`) one event to a line.

    Raises TooLarge when a limit of the whole request is exceeded, Malformed when it is not JSON, Invalid
    when it is JSON of another shape. A wrong event raises nothing: it is listed in `rejected`.
    """
    _check_body(body, limits)
    acceptor = _Acceptor(now, resolve, limits, experiment_id)
    if lines:
        return acceptor.each([line for line in body.split(b"\n") if line.strip()])
    start = body.lstrip()[:1]
    if start == b"[":
        return acceptor.array(body)
    if start == b"{":
        return acceptor.object(body)
    try:
        found = _anything.decode(body)
    except UNREADABLE as reason:
        raise at_fault(body, reason) from None
    raise Invalid(
        f"The body must be an event, an array of them or an object with `events`, got {shown(found)}."
    )


def _check_body(body: bytes, limits: Limits) -> None:
    if len(body) > limits.body:
        raise TooLarge(f"The body has {len(body)} bytes; {limits.body} are allowed.")
    if not body or body.isspace():
        raise Malformed("The body is empty; an event is expected.")


class _Acceptor:
    """One request being read: what is the same for all its events."""

    __slots__ = ("experiment_id", "ids", "limits", "longest", "most_properties", "now", "resolve", "shift")

    def __init__(self, now: int, resolve: Resolve, limits: Limits, experiment_id: int | None) -> None:
        self.now = now
        self.resolve = resolve
        self.limits = limits
        self.longest = limits.name
        self.most_properties = limits.properties
        self.experiment_id = experiment_id
        self.shift = 0
        #: Made for the first event that comes without an id.
        self.ids: identity.Fresh | None = None

    def one(self, raw: bytes) -> Event | Rejected:
        """A body that is one event."""
        if len(raw) > self.limits.event_bytes:
            return self._too_large(raw, 0)
        try:
            return self._judged(_request.decode(raw), raw, 0)
        except UNREADABLE:
            try:
                _fields.decode(raw)
            except msgspec.ValidationError:
                pass  # JSON, but no object
            except UNREADABLE as reason:
                raise at_fault(raw, reason) from None
            return self._explained(raw, 0)

    def object(self, body: bytes) -> Batch:
        """A body that is one event, or an object around many."""
        if len(body) <= self.limits.event_bytes:
            try:
                return _alone(self._judged(_request.decode(body), body, 0))
            except UNREADABLE:
                pass  # it may be the envelope
            try:
                envelope = _envelope.decode(body)
            except UNREADABLE:
                pass  # something is wrong with it
            else:
                self._correct_clock(envelope.sent_at)
                return self._typed(envelope.events)
        try:
            fields = _fields.decode(body)
        except UNREADABLE as reason:
            raise at_fault(body, reason) from None
        if "events" not in fields:
            return _alone(self.one(body))
        try:
            loose = _loose_envelope.decode(body)
        except UNREADABLE:
            raise wrong_envelope(fields) from None
        self._correct_clock(loose.sent_at)
        return self.each(loose.events)

    def array(self, body: bytes) -> Batch:
        """A body that is an array of events."""
        if len(body) <= self.limits.event_bytes:  # then no single event is too large either
            try:
                return self._typed(_requests.decode(body))
            except UNREADABLE:
                pass  # at least one is wrong: look at each by itself
        try:
            raws = _raws.decode(body)
        except UNREADABLE as reason:
            raise at_fault(body, reason) from None
        return self.each(raws)

    def each(self, raws: Sequence[bytes | msgspec.Raw]) -> Batch:
        """Events as separate texts, of any size and any of them wrong."""
        self._check_number(len(raws))
        batch = Batch([], [], single=False)
        for index, raw in enumerate(raws):
            if len(memoryview(raw)) > self.limits.event_bytes:
                batch.rejected.append(self._too_large(bytes(raw), index))
                continue
            try:
                request = _request.decode(raw)
            except UNREADABLE:
                batch.rejected.append(self._explained(bytes(raw), index))
            else:
                _add(batch, self._judged(request, raw, index))
        return batch

    def _typed(self, requests: list[_Request]) -> Batch:
        self._check_number(len(requests))
        batch = Batch([], [], single=False)
        events = batch.events
        for index, request in enumerate(requests):
            try:
                events.append(self._event(request))
            except Wrong as wrong:
                batch.rejected.append(self._refused(wrong, request, None, index))
        return batch

    def _check_number(self, number: int) -> None:
        if number > self.limits.events:
            raise TooLarge(f"The request has {number} events; {self.limits.events} are allowed.")

    def _correct_clock(self, sent_at: str | float | None) -> None:
        if sent_at is None:
            return
        moment = timestamps.parse(sent_at)
        if moment is None:
            raise wrong_sent_at(shown(sent_at))
        # A clock that writes whole seconds was, on average, in the middle of the one it wrote.
        self.shift = self.now - (moment.start + moment.end) // 2

    def _judged(self, request: _Request, raw: bytes | msgspec.Raw | None, index: int) -> Event | Rejected:
        try:
            return self._event(request)
        except Wrong as wrong:
            return self._refused(wrong, request, raw, index)

    def _refused(
        self, wrong: Wrong, request: _Request, raw: bytes | msgspec.Raw | None, index: int
    ) -> Rejected:
        sample = _encode(request) if raw is None else bytes(raw)
        named = request.type if request.type is not None else request.event_name
        return self._rejected(wrong, index, sample, named, request.experiment_id)

    def _event(self, request: _Request) -> Event:
        longest, now = self.longest, self.now
        user_id = request.user_id
        if not 0 < len(user_id) <= longest or "\0" in user_id:
            raise wrong_text("user_id", user_id, longest)
        kind = request.type
        if kind is None or request.event_name is not None or not 0 < len(kind) <= longest or "\0" in kind:
            kind = self._type(request)
        written = request.timestamp
        start = end = now
        if written is not None:
            moment = parse(written)
            if moment is None:
                raise _unreadable_time(written)
            shift = self.shift
            start, end = moment[0] + shift, moment[1] + shift
            if not YEAR_2000 <= start <= now + FUTURE:
                raise self._wrong_time(written, start)
        event_id = request.event_id
        if event_id is None:
            ids = self.ids
            if ids is None:
                ids = self.ids = identity.Fresh(self.now)
            canonical = ids.next()
        elif not 0 < len(event_id) <= longest or "\0" in event_id:
            raise wrong_text("event_id", event_id, longest)
        else:
            canonical = identity.canonical(event_id)
        value = request.value
        if value is not None and not -LARGEST_VALUE <= value <= LARGEST_VALUE:
            raise wrong_value(value)
        properties, amount = None, value
        raw = request.properties
        if raw is not _NO_JSON:
            properties, found = self._properties(raw)
            if value is None:
                amount = found
        experiment_id, variant_id, units = request.experiment_id, request.variant_id, request.units
        return Event(
            canonical,
            user_id,
            kind,
            start,
            now,
            end if end != start else None,
            event_id if event_id != canonical else None,
            event_id is not None,
            self._units(units) if units else None,
            value,
            amount,
            properties,
            self.experiment_id if experiment_id is None else self._experiment(experiment_id),
            None if variant_id is None else _variant(variant_id),
        )

    def _type(self, request: _Request) -> str:
        kind = request.type
        if kind is None:
            kind = request.event_name
            if kind is None:
                raise Wrong("type", "type (or event_name) is missing: what happened?", "missing_field")
        elif request.event_name is not None and request.event_name != kind:
            both = f"{shown(kind)} and {shown(request.event_name)}"
            raise Wrong("event_name", f"type and event_name mean the same but differ: {both}.")
        if not 0 < len(kind) <= self.limits.name or "\0" in kind:
            raise wrong_text("type", kind, self.limits.name)
        return kind

    def _wrong_time(self, written: str | float, start: int) -> Wrong:
        """The refusal of a time that was read, but cannot be right."""
        if start < YEAR_2000:
            message = f"timestamp {shown(written)} is before the year 2000."
            return Wrong("timestamp", message, "timestamp_too_old")
        clock = timestamps.iso(self.now)
        message = f"timestamp {shown(written)} is more than 5 minutes ahead of the server's {clock}."
        return Wrong("timestamp", message, "timestamp_in_future")

    def _properties(self, raw: msgspec.Raw) -> tuple[str | None, float | None]:
        """The text as sent, and the amount found in it."""
        try:
            properties = _object.decode(raw)
            text = str(raw, "utf-8")
        except UNREADABLE as reason:
            if bytes(raw) == b"null":
                return None, None
            raise wrong_properties(bytes(raw), reason) from None
        if len(properties) > self.most_properties:
            message = f"properties has {len(properties)} entries; {self.limits.properties} are allowed."
            raise Wrong("properties", message, "too_many_properties")
        if len(text) > self.longest:  # a shorter text has no longer name in it
            for name in properties:
                if len(name) > self.limits.name:
                    raise wrong_text(f"properties.{name}", name, self.limits.name)
        if not _AMOUNTS.isdisjoint(properties):
            for name in AMOUNTS:
                found = properties.get(name)
                if (type(found) is float or type(found) is int) and -LARGEST_VALUE <= found <= LARGEST_VALUE:
                    return text, float(found)
        return text, None

    def _units(self, units: dict[str, str]) -> dict[str, str]:
        if len(units) > self.limits.properties:
            message = f"units has {len(units)} entries; {self.limits.properties} are allowed."
            raise Wrong("units", message, "too_many_units")
        longest = self.limits.name
        for name, unit_id in units.items():
            if not 0 < len(name) <= longest or "\0" in name:
                raise wrong_text("units", name, longest)
            if not 0 < len(unit_id) <= longest or "\0" in unit_id:
                raise wrong_text(f"units.{name}", unit_id, longest)
        return units

    def _experiment(self, written: int | str) -> int:
        found = self.resolve(written)
        if found is None:
            message = f"experiment_id {shown(written)} is not known."
            raise Wrong("experiment_id", message, "unknown_experiment")
        if self.experiment_id is not None and found != self.experiment_id:
            message = (
                f"experiment_id {shown(written)} contradicts the address: it names {self.experiment_id}."
            )
            raise Wrong("experiment_id", message)
        return found

    def _too_large(self, raw: bytes, index: int) -> Rejected:
        message = f"The event has {len(raw)} bytes; {self.limits.event_bytes} are allowed."
        return self._rejected(Wrong("", message, "too_large"), index, raw, None, None)

    def _explained(self, raw: bytes, index: int) -> Rejected:
        """Why this text did not decode as an event."""
        try:
            found = _anything.decode(raw)
        except UNREADABLE as reason:
            return self._rejected(as_wrong(at_fault(raw, reason)), index, raw, None, None)
        if not isinstance(found, dict):
            wrong = Wrong("", f"An event must be an object, got {shown(found)}.")
            return self._rejected(wrong, index, raw, None, None)
        named = found.get("type", found.get("event_name"))
        return self._rejected(wrong_shape(found), index, raw, named, found.get("experiment_id"))

    def _rejected(self, wrong: Wrong, index: int, raw: bytes, named: Any, experiment: Any) -> Rejected:
        naming = isinstance(named, str) and 0 < len(named) <= self.limits.name and "\0" not in named
        known = isinstance(experiment, int | str) and not isinstance(experiment, bool)
        return Rejected(
            index,
            wrong.code,
            str(wrong),
            wrong.path,
            named if naming else None,
            self.resolve(experiment) if known else self.experiment_id,
            raw[:_LONGEST_SAMPLE].decode(errors="replace"),
        )


def _add(batch: Batch, outcome: Event | Rejected) -> None:
    if isinstance(outcome, Event):
        batch.events.append(outcome)
    else:
        batch.rejected.append(outcome)


def _alone(outcome: Event | Rejected) -> Batch:
    batch = Batch([], [], single=True)
    _add(batch, outcome)
    return batch


def _unreadable_time(written: str | float) -> Wrong:
    expected = "an ISO 8601 time, or seconds or milliseconds since 1970"
    message = f"timestamp must be {expected}, got {shown(written)}."
    return Wrong("timestamp", message, "invalid_timestamp")


def _variant(written: int | str) -> int:
    digits = str(written)
    if not (digits.isascii() and digits.isdigit() and 0 < len(digits) <= 18):
        raise Wrong("variant_id", f"variant_id must be the number of a variant, got {shown(written)}.")
    return int(digits)
