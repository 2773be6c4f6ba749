"""What GrowthBook's SDKs ask for: the payload they evaluate themselves, and evaluation by the server."""

import gzip
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from assay.bucketing.evaluate import Reason
from assay.bucketing.payload import feature_of, hash_attribute, served_values, value_of
from assay.bucketing.ruleset import Experiment, Ruleset, Status
from assay.errors import AssayError, Forbidden, Unauthorized
from assay.hotpath.assigner import Assigner, Serving, Settled
from assay.hotpath.http import JSON, Request, Response, problem, text_id
from assay.published import RIGHTS, Key, Published, Right, covers

_encode = msgspec.json.Encoder().encode

#: Browsers of any site may ask: what an SDK key opens is meant to be seen in them.
CROSS_ORIGIN: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag, Retry-After, X-Request-ID, X-SSE-Support"),
)
_UNCACHED: Final = (*CROSS_ORIGIN, (b"cache-control", b"no-store"))
#: Above the level at which a larger payload would take longer to make than to send.
_GZIP_LEVEL: Final = 5
#: Payloads of different scopes that are kept ready.
_MOST_SCOPES: Final = 64


class Evaluation(msgspec.Struct):
    """Body of `POST /api/eval/{sdk_key}`, as GrowthBook's SDKs send it; what else they send is not needed."""

    attributes: dict[str, Any] = {}
    forcedVariations: dict[str, int] = {}  # noqa: N815 - GrowthBook's names
    forcedFeatures: list[tuple[str, Any]] = []  # noqa: N815


_evaluation = msgspec.json.Decoder(Evaluation)


class Compiled(NamedTuple):
    """The payload as it is sent; `mark` tells it from others, and from one with other rules unsent."""

    mark: bytes
    plain: bytes
    packed: bytes


class _Made(NamedTuple):
    """A feature, encoded."""

    definition: msgspec.Raw | None
    groups: dict[str, msgspec.Raw]
    others: dict[str, msgspec.Raw]
    remote: str
    mark: str


def _made(experiment: Experiment) -> _Made | None:
    feature = feature_of(experiment)
    if feature is None:
        return None
    definition = None if feature.definition is None else msgspec.Raw(_encode(feature.definition))
    groups = {name: msgspec.Raw(_encode(ids)) for name, ids in feature.groups.items()}
    others = {name: msgspec.Raw(_encode(each)) for name, each in feature.others.items()}
    return _Made(definition, groups, others, feature.remote or "", feature.mark)


class Features:
    """The payload of the ruleset in force, made once for each scope of keys."""

    def __init__(self, published: Published, note_use: Callable[[Key, int], None]) -> None:
        self.published = published
        self._note_use = note_use
        self._made_of: Ruleset | None = None
        #: By the experiment's id: what was made of it, which is good for as long as it is this very one.
        self._made: dict[int, tuple[Experiment, _Made | None]] = {}
        #: By scope: the payload, with the ruleset it was last made of and what tells apart what is not in it.
        self._compiled: dict[frozenset[int] | None, tuple[Ruleset, bytes, Compiled]] = {}

    def current(self, key: Key | None = None) -> Compiled:
        """What SDKs with this key are given now."""
        ruleset, scope = self.published.ruleset, None if key is None else key.scope
        known = self._compiled.get(scope)
        if known is not None and known[0] is ruleset:
            return known[2]
        self._take(ruleset)
        plain, unsent = self._document(key)
        # Most changes of the catalog, those of drafts for one, leave it as it was.
        if known is None or plain != known[2].plain or unsent != known[1]:
            mark = blake2b(unsent + plain, digest_size=12).hexdigest().encode()
            compiled = Compiled(mark, plain, gzip.compress(plain, _GZIP_LEVEL, mtime=0))
        else:
            compiled = known[2]
        if known is None and len(self._compiled) >= _MOST_SCOPES:
            self._compiled.clear()
        self._compiled[scope] = (ruleset, unsent, compiled)
        return compiled

    def _take(self, ruleset: Ruleset) -> None:
        """Make the features of a ruleset, in the order of the experiments' ids; only what changed, anew."""
        if ruleset is self._made_of:
            return
        known, self._made = self._made, {}
        for number, experiment in sorted(ruleset.by_id.items()):
            entry = known.get(number)
            if entry is None or entry[0] is not experiment:
                entry = (experiment, _made(experiment))
            self._made[number] = entry
        self._made_of = ruleset

    def _document(self, key: Key | None) -> tuple[bytes, bytes]:
        """The payload, and what tells apart the rules that are not in it."""
        features: dict[str, msgspec.Raw] = {}
        groups: dict[str, msgspec.Raw] = {}
        remote: dict[str, str] = {}
        unsent: list[str] = []
        for experiment, made in self._made.values():
            if made is None or not covers(key, experiment.id):
                continue
            if made.definition is not None:
                features[experiment.key] = made.definition
                features.update(made.others)
                groups.update(made.groups)
            else:
                remote[experiment.key] = made.remote
                unsent.append(made.mark)
        document = _encode(
            {
                "status": 200,
                "features": features,
                "experiments": [],
                "savedGroups": groups,
                "assay": {"remote_only": remote},
            }
        )
        return document, ",".join(unsent).encode()

    def authorise(self, secret: str, now: int) -> Key:
        """The key with this secret. Raises `Unauthorized`, or `Forbidden` for one that may not evaluate."""
        key = self.published.keys.find(secret.encode(), now)
        if key is None:
            raise Unauthorized(
                "This SDK key is unknown, revoked or expired; it is the secret of an API key with the role "
                "client.",
                code="bad_key",
            )
        if Right.ASSIGN not in RIGHTS[key.role]:
            raise Forbidden(
                f"A key with the role {key.role} is no SDK key; make one with the role client.",
                code="role_forbids",
            )
        self._note_use(key, now)
        return key


class FeatureRoutes:
    """The handlers, over `Features` and one `Assigner`."""

    def __init__(self, features: Features, assigner: Assigner, *, max_name: int) -> None:
        self.features = features
        self.assigner = assigner
        self.max_name = max_name

    def payload(self, request: Request) -> Response:
        """`GET /api/features/{sdk_key}`: 304 for an SDK that has this payload already."""
        compiled = self.features.current(self.features.authorise(request.params[0], request.now))
        accepted = _header(request, b"accept-encoding")
        packed = _accepts_gzip(accepted)
        # Packed and not, it is two representations, which must not share a strong validator.
        mark = b'"%s-gzip"' % compiled.mark if packed else b'"%s"' % compiled.mark
        headers = (
            *CROSS_ORIGIN,
            (b"etag", mark),
            (b"cache-control", b"no-cache"),
            (b"vary", b"Accept-Encoding"),
            (b"x-sse-support", b"enabled"),
        )
        if same_tag(_header(request, b"if-none-match"), compiled.mark):
            return Response(304, b"", JSON, headers)
        if packed:
            return Response(200, compiled.packed, JSON, (*headers, (b"content-encoding", b"gzip")))
        return Response(200, compiled.plain, JSON, headers)

    async def evaluate(self, request: Request) -> Response:
        """`POST /api/eval/{sdk_key}`: what this user is served in every experiment, stored durably."""
        key = self.features.authorise(request.params[0], request.now)
        body = request.json(_evaluation)
        attributes = body.attributes
        assigner = self.assigner
        user_id = self._id(attributes, "id")
        features: dict[str, Any] = {}
        asked: list[tuple[Serving, str, str | None, Mapping[str, Any]]] = []
        for experiment in assigner.published.ruleset:
            if not evaluated(experiment) or not covers(key, experiment.id):
                continue
            at = body.forcedVariations.get(experiment.key)
            if at is not None and 0 <= at < len(experiment.variants):
                features[experiment.key] = {"defaultValue": value_of(experiment.variants[at])}
                continue
            unit_id = user_id if experiment.unit == "user_id" else self._id(attributes, experiment.unit)
            asked.append((assigner.serving(experiment), user_id or "", unit_id, attributes))
        settled = await assigner.settle_all(asked, request.now)
        for (serving, _, unit_id, _), each in zip(asked, settled, strict=True):
            features[serving.experiment.key] = _evaluated(serving.experiment, unit_id, each)
        for forced, value in body.forcedFeatures:
            features[forced] = {"defaultValue": value}
        document = {"status": 200, "features": features, "experiments": []}
        return Response(200, _encode(document), JSON, _UNCACHED)

    def _id(self, attributes: Mapping[str, Any], name: str) -> str | None:
        found = unit_text(attributes.get(name))
        return None if found is None else text_id(found, f"attributes.{name}", self.max_name)


def refuse(error: AssayError) -> Response:
    """A problem that a page of another origin can read."""
    response = problem(error)
    return response._replace(headers=(*response.headers, *CROSS_ORIGIN))


def unit_text(value: Any) -> str | None:
    """An id from an attribute: a text, or a whole number as SDKs write it; None for anything else."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    return None


def evaluated(experiment: Experiment) -> bool:
    """Whether somebody is served by it: it runs, is paused with those it has, or ended with a winner."""
    if experiment.status is Status.STOPPED:
        return experiment.winner is not None
    return experiment.status in {Status.RUNNING, Status.PAUSED}


def same_tag(sent: bytes, mark: bytes) -> bool:
    """Whether an `If-None-Match` names this mark, in any encoding."""
    if sent.strip() == b"*":
        return True
    tags = (each.strip().removeprefix(b"W/").strip(b'"') for each in sent.split(b","))
    return any(tag.removesuffix(b"-gzip") == mark for tag in tags)


def _header(request: Request, wanted: bytes) -> bytes:
    return b",".join(value for name, value in request.head.headers if name == wanted)


def _accepts_gzip(accepted: bytes) -> bool:
    for each in accepted.lower().split(b","):
        name, _, weight = each.partition(b";")
        if name.strip() in {b"gzip", b"x-gzip"}:
            return weight.replace(b" ", b"") not in {b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"}
    return False


def _evaluated(experiment: Experiment, unit_id: str | None, settled: Settled) -> dict[str, Any]:
    """A feature whose one rule forces the value; what results count is told to the SDK's tracking, too."""
    at = None if settled.served_id is None else experiment.by_variant_id[settled.served_id]
    if at is None:
        return {"defaultValue": None}
    value = value_of(experiment.variants[at])
    on_record = experiment.by_variant_id.get(settled.variant_id) if settled.variant_id is not None else None
    counted = settled.reason in {Reason.ASSIGNED, Reason.VARIANT_DISABLED}
    if not counted or on_record is None:
        return {"defaultValue": value}
    attribute = hash_attribute(experiment)
    arm = experiment.variants[on_record]
    values = served_values(experiment)
    track = {
        "experiment": {
            "key": experiment.key,
            "seed": experiment.seed,
            "hashAttribute": attribute,
            "hashVersion": 2,
            "phase": str(experiment.phase),
            # The values of the other variants are nobody's business here.
            "variations": [each if place == on_record else {} for place, each in enumerate(values)],
            "meta": [{"key": each.key} for each in experiment.variants],
        },
        "result": {
            "key": arm.key,
            "variationId": on_record,
            "value": value,
            "inExperiment": True,
            "hashUsed": True,
            "hashAttribute": attribute,
            "hashValue": unit_id,
            "featureId": experiment.key,
            "stickyBucketUsed": False,
        },
    }
    return {"defaultValue": value, "rules": [{"force": value, "tracks": [track]}]}
