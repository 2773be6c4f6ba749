"""What a call is answered with, and how the payload in memory answers it. No input or output, no clock."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from assay.bucketing.evaluate import Reason
from assay.bucketing.feature_rules import Test
from assay.bucketing.features import Caller, Evaluated, Features, Kept, Miss, Source

_USER: Final = "user_id"

#: The API's words for what kept a unit out.
_MISSES: Final[Mapping[Miss | None, str]] = {
    Miss.NO_UNIT: Reason.NO_UNIT,
    Miss.CONDITION: Reason.NOT_IN_SEGMENT,
    Miss.NAMESPACE: Reason.LAYER_EXCLUDED,
    Miss.COVERAGE: Reason.NOT_IN_TRAFFIC,
    Miss.PREREQUISITE: "prerequisite",
    Miss.OFF: Reason.NOT_RUNNING,
    Miss.BLOCKED: Reason.NOT_RUNNING,
    None: Reason.NOT_RUNNING,
}


class Origin(StrEnum):
    """Who gave an answer."""

    PAYLOAD = "payload"  # this process, from the rules it has in memory or on disk
    SERVER = "server"  # the server, which has it on record
    MEMORY = "memory"  # the server, some time ago
    NOBODY = "nobody"  # there was nothing to answer from


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What a user is served in an experiment.

    `variant` and `value` are None for those who are not in it, and `reason` says why: in the API's words
    (`assigned`, `override`, `rolled_out`, `not_in_traffic`, `not_in_segment`, …), or `unknown_experiment`,
    `remote_only` and `prerequisite`, or `not_ready` and `error` where nothing could be asked. `variant` is
    its key; it is None, too, where a value is given to everybody. `value` is that of a flag: the scalar of a
    config that is only `{"value": …}`, the variant's name where the config is empty, else the config.
    `unit_id` is the id that was hashed, `bucket` its place in [0, 1), where either is known.
    """

    experiment: str
    user_id: str
    variant: str | None = None
    value: Any = None
    reason: str
    origin: Origin
    unit: str = _USER
    unit_id: str | None = None
    bucket: float | None = None
    detail: str = ""
    #: Whether an exposure tells the server something: the variant was drawn, not forced.
    counted: bool = False

    @property
    def assigned(self) -> bool:
        """Whether there is a value to serve."""
        return self.value is not None


class StickyBuckets(Protocol):
    """Where variants are kept that units got by local evaluation, for calls after a change of the split.

    Both are called in the application's threads, and should be as quick as its own memory. What they raise
    is logged, and the unit is evaluated as if nothing were kept.
    """

    def get(self, attribute: str, value: str) -> Mapping[str, str]:
        """Variants by experiment of this unit, such as `("id", "user-17")`; empty where there are none."""

    def put(self, attribute: str, value: str, experiment: str, variant: str) -> None:
        """Keep one more."""


class Rules(NamedTuple):
    """A payload, compiled. `mark` is the server's name for it; `documents` are its features as they came.

    `units` are the kinds of unit that its experiments have, other than users.
    """

    mark: str
    features: Features
    documents: Mapping[str, Any]
    remote: Mapping[str, str]
    units: frozenset[str]


class PayloadError(ValueError):
    """What was received is no payload."""


def read_rules(payload: bytes, mark: str) -> Rules:
    """Compile a payload as it was received. Raises `PayloadError`."""
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(f"the payload is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("features"), dict):
        raise PayloadError("the payload has no features")
    ours = document.get("assay")
    remote = ours.get("remote_only") if isinstance(ours, dict) else None
    features = Features(document)
    tests = map(features.test_of, features)
    units = frozenset(test.attribute for test in tests if test is not None) - {"id"}
    return Rules(mark, features, document["features"], remote if isinstance(remote, dict) else {}, units)


def changed(before: Rules | None, after: Rules) -> list[str]:
    """The experiments that are not what they were, by key."""
    old: Mapping[str, Any] = {} if before is None else before.documents
    keys = old.keys() | after.documents.keys()
    return sorted(key for key in keys if old.get(key, keys) != after.documents.get(key, keys))


def flag_value(value: Any) -> Any:
    """The scalar of a config that is only `{"value": …}`, anything else as it is."""
    if (
        isinstance(value, dict)
        and len(value) == 1
        and isinstance(value.get("value"), bool | str | int | float)
    ):
        return value["value"]
    return value


def evaluate(
    rules: Rules,
    experiment: str,
    user_id: str,
    attributes: Mapping[str, Any],
    units: Mapping[str, str],
    sticky: StickyBuckets | None,
) -> tuple[Evaluation, Kept | None]:
    """What the rules in memory say, and the sticky bucket to keep."""
    seen = {**attributes, **units, "id": user_id}
    found = rules.features.evaluate(experiment, Caller(seen, None if sticky is None else sticky.get))
    ran, test = found.ran, rules.features.test_of(experiment)
    unit = "id" if test is None else test.attribute
    reason, detail = _reason(rules, experiment, found, test)
    drawn = ran is not None and found.source is Source.EXPERIMENT
    evaluation = Evaluation(
        experiment=experiment,
        user_id=user_id,
        variant=ran.variant if ran is not None and drawn else _forced_variant(found, test),
        value=flag_value(found.value),
        reason=reason,
        origin=Origin.PAYLOAD,
        unit=_USER if unit == "id" else unit,
        unit_id=ran.unit_id or None if ran is not None else None,
        bucket=None if ran is None else ran.bucket,
        detail=detail,
        counted=ran is not None and drawn and ran.hashed,
    )
    return evaluation, ran.keep if ran is not None and drawn else None


def _reason(rules: Rules, experiment: str, found: Evaluated, test: Test | None) -> tuple[str, str]:
    if found.source is Source.UNKNOWN:
        if experiment in rules.remote:
            return "remote_only", f"only the server can evaluate it: {rules.remote[experiment]}"
        return "unknown_experiment", "it does not run, or has never been"
    if found.source is Source.EXPERIMENT:
        return Reason.ASSIGNED, ""
    if found.source is Source.FORCE:
        return Reason.OVERRIDE, ""
    if found.source is Source.DEFAULT and test is None and found.value is not None:
        return Reason.ROLLED_OUT, ""
    if found.source in {Source.PREREQUISITE, Source.CYCLIC}:
        return "prerequisite", str(found.source)
    return _MISSES[found.miss], rules.features.problems.get(experiment, "")


def _forced_variant(found: Evaluated, test: Test | None) -> str | None:
    """The variant whose value was forced; None where several have it."""
    if found.source is not Source.FORCE or test is None:
        return None
    keys = {key for key, value in zip(test.keys, test.values, strict=True) if value == found.value}
    return keys.pop() if len(keys) == 1 else None
