"""Reading what SDKs that evaluate locally report: one exposure, an array, or an object around many."""

from typing import Any, NamedTuple

import msgspec

from assay.errors import Refused
from assay.events import timestamps
from assay.events.refusal import wrong_sent_at
from assay.hotpath.http import Request, decode, shown

_encode = msgspec.json.Encoder().encode


class Exposure(msgspec.Struct, forbid_unknown_fields=True):
    """What an SDK that evaluates locally reports: this user saw this variant."""

    user_id: str
    experiment: int | str
    variant: int | str
    timestamp: str | int | float | None = None
    units: dict[str, str] = {}


class Exposures(msgspec.Struct, forbid_unknown_fields=True):
    """Many exposures; `sent_at` is the sender's clock and corrects their times."""

    exposures: list[Exposure]
    sent_at: str | int | float | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    exposures: list[msgspec.Raw]
    sent_at: str | int | float | None = None


class Reports(NamedTuple):
    """The exposures of a request in the order sent; one that cannot be read is the reason why."""

    found: list[Exposure | Refused]
    shift: int
    """What to add to the times that came with them, in µs."""
    single: bool
    """Whether the body was one bare exposure."""


_body = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])
_exposure = msgspec.json.Decoder(Exposure)
_envelope = msgspec.json.Decoder(_Envelope)


def read(request: Request) -> Reports:
    """The exposures in the body. Raises what `Request.json` does where the body as a whole is wrong, and for
    a `sent_at` that is no time; one exposure of many that is wrong raises nothing."""
    body = request.json(_body)
    if isinstance(body, list):
        return Reports([_one(each) for each in body], 0, single=False)
    if "exposures" not in body:
        return Reports([_one(_encode(body))], 0, single=True)
    envelope = decode(_envelope, _encode(body))
    shift = 0 if envelope.sent_at is None else _shift(envelope.sent_at, request.now)
    return Reports([_one(each) for each in envelope.exposures], shift, single=False)


def _one(raw: bytes | msgspec.Raw) -> Exposure | Refused:
    try:
        return decode(_exposure, bytes(raw))
    except Refused as refused:
        return refused


def _shift(sent_at: Any, now: int) -> int:
    moment = timestamps.parse(sent_at)
    if moment is None:
        raise wrong_sent_at(shown(sent_at))
    # As with events: a clock that writes whole seconds was, on average, in the middle of the one it wrote.
    return now - (moment.start + moment.end) // 2
