"""OpenFeature's Remote Evaluation Protocol 0.3: an experiment is a flag, and evaluating it assigns durably.

Beside the protocol, which has no such call, lies one that takes OpenFeature's tracking events, so that an
application on OpenFeature alone is measured, too. Answers and errors have the protocol's shapes.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final

import msgspec

from assay.bucketing.evaluate import Reason
from assay.bucketing.ruleset import Experiment, Variant
from assay.errors import AssayError, Forbidden, Invalid, Malformed, TooLarge, Unavailable, UnsupportedType
from assay.hotpath.assigner import Assigner, Serving, Settled
from assay.hotpath.features import CROSS_ORIGIN, evaluated, same_tag, unit_text
from assay.hotpath.http import JSON, Head, Outcome, Request, Response, Waiting, problem, shown, text_id
from assay.hotpath.recording import RecordingRoutes
from assay.published import covers

_encode = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="sorted").encode
_document: "msgspec.json.Decoder[Any]" = msgspec.json.Decoder()
_UNTYPED: Final = Head(())

#: The protocol's word for each of our reasons; `metadata.reason` has ours.
REASONS: Final[Mapping[str, str]] = {
    Reason.ASSIGNED: "SPLIT",
    Reason.OVERRIDE: "TARGETING_MATCH",
    Reason.ROLLED_OUT: "STATIC",
    Reason.VARIANT_DISABLED: "DISABLED",
    Reason.NOT_RUNNING: "DISABLED",
    Reason.NOT_IN_TRAFFIC: "SPLIT",
    Reason.LAYER_EXCLUDED: "SPLIT",
    Reason.HOLDOUT: "SPLIT",
    Reason.PREREQUISITE: "UNKNOWN",
    Reason.NOT_IN_SEGMENT: "UNKNOWN",
    Reason.NO_UNIT: "UNKNOWN",
}


class FlagEvaluation(msgspec.Struct):
    """Body of OFREP's calls: `context.targetingKey` is the user, what stands beside it are attributes."""

    context: dict[str, Any]


class TrackingEvent(msgspec.Struct):
    """What OpenFeature's `track` is given: a name, the context's `targetingKey`, and details.

    `details.value` is the event's value, the rest of them its properties. `eventId` makes repetition safe.
    """

    name: str
    targetingKey: str | None = None  # noqa: N815 - OpenFeature's names
    context: dict[str, Any] = {}
    value: float | None = None
    details: dict[str, Any] = {}
    timestamp: str | int | float | None = None
    eventId: str | None = None  # noqa: N815


class TrackingEvents(msgspec.Struct):
    """Many tracking events; `sentAt` is the sender's clock and corrects their times."""

    events: list[TrackingEvent]
    sentAt: str | int | float | None = None  # noqa: N815


class _Wrong(Exception):  # noqa: N818 - it never leaves this module
    """The context cannot be evaluated: OpenFeature's code, and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class OfrepRoutes:
    """The handlers, over one `Assigner` and the handlers that record events."""

    def __init__(self, assigner: Assigner, recording: RecordingRoutes, *, max_name: int) -> None:
        self.assigner = assigner
        self.recording = recording
        self.max_name = max_name

    async def flag(self, request: Request) -> Response:
        """`POST /ofrep/v1/evaluate/flags/{key}`: one flag for one context."""
        key = request.params[0]
        try:
            user_id, context = self._context(request)
            experiment = self.assigner.published.ruleset.by_key.get(key)
            if experiment is None or not covers(request.key, experiment.id):
                return _failed(404, "FLAG_NOT_FOUND", f"There is no experiment {shown(key)}.", key)
            asked = [self._asked(experiment, user_id, context)]
        except _Wrong as wrong:
            return _failed(400, wrong.code, wrong.detail, key)
        except AssayError as error:
            return refuse(error, key)
        (settled,) = await self.assigner.settle_all(asked, request.now)
        return Response(200, _encode(_flag(experiment, settled)), JSON, CROSS_ORIGIN)

    async def flags(self, request: Request) -> Response:
        """`POST /ofrep/v1/evaluate/flags`: every flag for one context; 304 where nothing has changed."""
        ruleset = self.assigner.published.ruleset
        try:
            user_id, context = self._context(request)
            experiments = [each for each in ruleset if evaluated(each) and covers(request.key, each.id)]
            asked = [self._asked(each, user_id, context) for each in experiments]
        except _Wrong as wrong:
            return _failed(400, wrong.code, wrong.detail)
        settled = await self.assigner.settle_all(asked, request.now)
        flags = [_flag(each, result) for each, result in zip(experiments, settled, strict=True)]
        body = _encode({"flags": flags, "metadata": {"version": ruleset.version}})
        # What a user is known for may change without the ruleset, so the answer itself counts as well.
        principal = b"" if request.key is None else request.key.digest
        parts = (b"%d" % ruleset.version, _sorted([user_id, context]), principal, body)
        mark = blake2b(_encode([each.hex() for each in parts]), digest_size=12).hexdigest().encode()
        headers = (*CROSS_ORIGIN, (b"etag", b'"%s"' % mark), (b"cache-control", b"private, no-cache"))
        sent = b",".join(value for name, value in request.head.headers if name == b"if-none-match")
        if sent and same_tag(sent, mark):
            return Response(304, b"", JSON, headers)
        return Response(200, body, JSON, headers)

    def track(self, request: Request) -> Outcome:
        """`POST /ofrep/v1/track/events`: an OpenFeature tracking event, recorded like any other event."""
        given = self._read(request)
        if not isinstance(given, list) and not (isinstance(given, dict) and "events" in given):
            try:
                event = self._event(given)
            except _Wrong as wrong:
                return _failed(400, wrong.code, wrong.detail)
            return self._recorded(request, event, _open)
        batch = {"events": given} if isinstance(given, list) else given
        if not isinstance(batch["events"], list) or batch.keys() - {"events", "sentAt"}:
            return _failed(400, "PARSE_ERROR", "Many tracking events are a list, or {events: […], sentAt}.")
        events, places, wrongs = [], [], []
        for place, each in enumerate(batch["events"]):
            try:
                events.append(self._event(each))
                places.append(place)
            except _Wrong as wrong:
                wrongs.append({"index": place, "code": wrong.code, "message": wrong.detail, "path": ""})

        def placed(response: Response) -> Response:
            """With the indexes of what was sent, and what was wrong before it came to that."""
            document = _document.decode(response.body)
            for each in document["rejected"]:
                each["index"] = places[each["index"]]
            document["rejected"] = sorted([*document["rejected"], *wrongs], key=itemgetter("index"))
            return _open(response._replace(body=_encode(document)))

        body = {"events": events, "sent_at": batch.get("sentAt")}
        return self._recorded(request, body, placed if wrongs else _open)

    def _recorded(self, request: Request, body: Any, shape: Callable[[Response], Response]) -> Outcome:
        """What the events API makes of this body, in another shape."""
        passed = Request([], b"", _UNTYPED, _encode(body), request.key, request.now, request.limit)
        outcome = self.recording.events(passed)
        if isinstance(outcome, Response):
            return shape(outcome)
        if isinstance(outcome, Waiting):
            finish = outcome.finish
            return Waiting(outcome.future, lambda result: shape(finish(result)))
        return outcome

    def _event(self, given: Any) -> dict[str, Any]:
        """An OpenFeature tracking event as the events API takes it."""
        if not isinstance(given, dict):
            raise _Wrong("PARSE_ERROR", f"A tracking event must be an object, got {_kind(given)}.")
        name = given.get("name", given.get("trackingEventName"))
        if not isinstance(name, str) or not name:
            raise _Wrong("PARSE_ERROR", f"name must be the tracking event's name, got {_kind(name)}.")
        context, details = given.get("context", {}), given.get("details", {})
        for label, each in (("context", context), ("details", details)):
            if not isinstance(each, dict):
                raise _Wrong("PARSE_ERROR", f"{label} must be an object, got {_kind(each)}.")
        user_id = self._targeting_key({**context, **{k: v for k, v in given.items() if k == "targetingKey"}})
        event: dict[str, Any] = {"user_id": user_id, "type": name}
        value = given.get("value", details.get("value"))
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _Wrong("PARSE_ERROR", f"value must be a number, got {_kind(value)}.")
            event["value"] = value
        properties = {label: each for label, each in details.items() if label != "value"}
        if properties:
            event["properties"] = properties
        for ours, theirs in (("event_id", "eventId"), ("timestamp", "timestamp")):
            if given.get(theirs) is not None:
                event[ours] = given[theirs]
        units = self._units(context)
        if units:
            event["units"] = units
        return event

    def _units(self, context: Mapping[str, Any]) -> dict[str, str]:
        """What the context says of the units, other than users, that experiments have."""
        names = {each.unit for each in self.assigner.published.ruleset if each.unit != "user_id"}
        found = {name: unit_text(context.get(name)) for name in names}
        return {name: unit_id for name, unit_id in found.items() if unit_id is not None}

    def _read(self, request: Request) -> Any:
        return request.json(_document)

    def _context(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The user and the attributes of an evaluation request."""
        try:
            given = self._read(request)
        except (Malformed, UnsupportedType, Invalid) as error:
            raise _Wrong("PARSE_ERROR", error.detail) from error
        if not isinstance(given, dict):
            raise _Wrong("PARSE_ERROR", f"The body must be an object with a context, got {_kind(given)}.")
        context = given.get("context")
        if not isinstance(context, dict):
            raise _Wrong("INVALID_CONTEXT", f"context must be an object, got {_kind(context)}.")
        user_id = self._targeting_key(context)
        return user_id, {name: each for name, each in context.items() if name != "targetingKey"}

    def _targeting_key(self, context: Mapping[str, Any]) -> str:
        user_id = context.get("targetingKey")
        if user_id is None or user_id == "":
            raise _Wrong("TARGETING_KEY_MISSING", "The context has no targetingKey: the id of the user.")
        if not isinstance(user_id, str):
            raise _Wrong("INVALID_CONTEXT", f"targetingKey must be a text, got {_kind(user_id)}.")
        try:
            return text_id(user_id, "targetingKey", self.max_name)
        except Invalid as error:
            raise _Wrong("INVALID_CONTEXT", error.detail) from error

    def _asked(
        self, experiment: Experiment, user_id: str, context: Mapping[str, Any]
    ) -> tuple[Serving, str, str | None, Mapping[str, Any]]:
        unit_id: str | None = user_id
        if experiment.unit != "user_id":
            unit_id = unit_text(context.get(experiment.unit))
            if unit_id is not None and (len(unit_id) > self.max_name or "\0" in unit_id):
                raise _Wrong(
                    "INVALID_CONTEXT",
                    f"{experiment.unit} must have at most {self.max_name} characters, none of them NUL.",
                )
        return self.assigner.serving(experiment), user_id, unit_id, context


def refuse(error: AssayError, key: str = "") -> Response:
    """An error in the protocol's shape; without a key, or with one that may not ask, HTTP says enough."""
    if isinstance(error, Forbidden) or error.status == 401:
        response = problem(error)
        return response._replace(headers=(*response.headers, *CROSS_ORIGIN))
    if isinstance(error, Unavailable):
        status = 429 if error.code == "overloaded" else error.status
        answer = _failed(status, "GENERAL", error.detail, key)
        return answer._replace(headers=(*answer.headers, (b"retry-after", b"%d" % error.retry_after)))
    if isinstance(error, TooLarge):
        return _failed(error.status, "GENERAL", error.detail, key)
    if error.status < 500:
        return _failed(400, "PARSE_ERROR", error.detail, key)
    return _failed(error.status, "GENERAL", error.detail, key)


def _failed(status: int, code: str, detail: str, key: str | None = None) -> Response:
    document = {"errorCode": code, "errorDetails": detail}
    if key is not None:
        document["key"] = key
    return Response(status, _encode(document), JSON, CROSS_ORIGIN)


def _open(response: Response) -> Response:
    return response._replace(headers=(*response.headers, *CROSS_ORIGIN))


def _flag(experiment: Experiment, settled: Settled) -> dict[str, Any]:
    """One flag as evaluated. Without a value it says: what the application's code has as default."""
    metadata: dict[str, Any] = {
        "experiment_id": experiment.id,
        "phase": experiment.phase,
        "reason": str(settled.reason),
    }
    document: dict[str, Any] = {
        "key": experiment.key,
        "reason": REASONS[settled.reason],
        # Providers insist on it, also where there is none.
        "variant": "",
        "metadata": metadata,
    }
    if settled.served_id is not None:
        variant = experiment.variants[experiment.by_variant_id[settled.served_id]]
        document["variant"] = variant.key
        document["value"] = flag_value(variant)
        metadata["variant_id"] = variant.id
    return document


def flag_value(variant: Variant) -> bool | str | int | float | Mapping[str, Any]:
    """The value of a flag: its name for a variant without config, the scalar of a config that is only
    `{"value": …}`, else the config."""
    config = variant.config
    if not config:
        return variant.name
    if len(config) == 1 and isinstance(config.get("value"), bool | str | int | float):
        scalar: bool | str | int | float = config["value"]
        return scalar
    return config


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return shown(value)
    return "a list" if isinstance(value, list) else "an object"
