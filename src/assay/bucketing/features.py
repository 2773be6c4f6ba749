"""GrowthBook's payload, evaluated as their SDKs evaluate it: features, rules, experiments, sticky buckets.

Source: GrowthBook's "build your own SDK" specification, version 0.8, and where it is silent the JavaScript
SDK. `payload` makes what this module reads; what other servers put into a payload is understood, too. A
payload is compiled once, and compiling never raises: what cannot be read is left out and named in `problems`,
and a condition with a mistake holds for nobody, as in the SDKs.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from assay.bucketing.conditions import compile_condition
from assay.bucketing.feature_rules import Feature, Filter, Maker, Parent, Rule, Test
from assay.bucketing.hashing import Ranges, hash_unit, in_namespace

#: What is on record for an attribute and its value: variant by experiment and version (`checkout__0`).
Sticky = Callable[[str, str], Mapping[str, str]]
#: Prerequisites of prerequisites that are followed before the payload is taken for a circle.
_DEEPEST = 50


class Source(StrEnum):
    """Where a feature's value comes from, in the SDKs' words."""

    UNKNOWN = "unknownFeature"
    DEFAULT = "defaultValue"
    FORCE = "force"
    EXPERIMENT = "experiment"
    PREREQUISITE = "prerequisite"
    CYCLIC = "cyclicPrerequisite"


class Miss(StrEnum):
    """What kept a unit out of an experiment."""

    NO_UNIT = "no_unit"
    CONDITION = "condition"
    NAMESPACE = "namespace"
    COVERAGE = "coverage"
    PREREQUISITE = "prerequisite"
    OFF = "off"  # inactive, malformed, or in quality assurance
    BLOCKED = "blocked"  # on record under a version that no longer counts


class Kept(NamedTuple):
    """A sticky bucket to be stored: under this attribute and value, this variant for this experiment."""

    attribute: str
    value: str
    experiment: str
    variant: str


class Ran(NamedTuple):
    """What an experiment gave; `at` is the variant's index, 0 for those not `inside`; `miss` says why.

    `hashed` is false for a variant that was forced. `variant` is its key, its index as a text where it has
    none. `keep` is what has to be stored for the next call to find, None where nothing has changed.
    """

    experiment: str
    at: int
    variant: str
    value: Any
    inside: bool
    hashed: bool
    attribute: str
    unit_id: str
    bucket: float | None = None
    sticky: bool = False
    miss: Miss | None = None
    keep: Kept | None = None


class Evaluated(NamedTuple):
    """The value of a feature, where it is from, the experiment that decided or the last that did not, and
    what it was in the way of that one."""

    value: Any
    source: Source
    ran: Ran | None = None
    miss: Miss | None = None
    rule_id: str = ""


class Caller(NamedTuple):
    """Who is evaluated, and how. Only `attributes` matter to a server; the rest is for pages and tests."""

    attributes: Mapping[str, Any]
    sticky: Sticky | None = None
    forced: Mapping[str, int] = {}
    enabled: bool = True
    qa: bool = False
    url: str = ""


class Features:
    """A compiled payload; immutable. `problems` names what could not be read, by feature."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.problems: dict[str, str] = {}
        groups = payload.get("savedGroups")
        bandits = payload.get("contextualBandits")
        maker = Maker(
            _lists(groups) if isinstance(groups, Mapping) else {},
            bandits if isinstance(bandits, Mapping) else {},
        )
        self._maker = maker
        self._features: dict[str, Feature] = {}
        given = payload.get("features")
        for key, each in given.items() if isinstance(given, Mapping) else ():
            try:
                self._features[key] = maker.feature(key, each)
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                self.problems[key] = f"cannot be read: {type(error).__name__}: {error}"
                continue
            if maker.mistakes:
                self.problems[key] = maker.mistakes[0]
                maker.mistakes.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._features

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def test_of(self, key: str) -> Test | None:
        """The last experiment among this feature's rules; None where it has none."""
        feature = self._features.get(key)
        tests = () if feature is None else [each.test for each in feature.rules if each.test is not None]
        return tests[-1] if tests else None

    def evaluate(self, key: str, caller: Caller) -> Evaluated:
        """The value of a feature for a caller; an unknown one is worth None."""
        return self._evaluate(key, caller, ())

    def run(self, document: Mapping[str, Any], caller: Caller) -> Ran:
        """What an experiment that is in no feature gives; `document` is one in the SDKs' form."""
        return self._run(self._maker.test(str(document["key"]), document), caller, ())

    def _evaluate(self, key: str, caller: Caller, above: tuple[str, ...]) -> Evaluated:
        feature = self._features.get(key)
        if feature is None:
            return Evaluated(None, Source.UNKNOWN)
        if key in above or len(above) > _DEEPEST:
            return Evaluated(None, Source.CYCLIC)
        ran: Ran | None = None
        miss: Miss | None = None
        for rule in feature.rules:
            missed, final = self._passed_over(rule, caller, (*above, key))
            if final is not None:
                return Evaluated(None, final, miss=Miss.PREREQUISITE)
            if missed is not None:
                # That somebody is not among those who are forced says nothing of why they are not in.
                miss = miss if rule.forces and missed is not Miss.PREREQUISITE else missed
            elif rule.forces:
                return Evaluated(rule.force, Source.FORCE, rule_id=rule.id)
            elif rule.test is not None:
                ran = self._run(rule.test, caller, (*above, key))
                if not ran.inside:
                    miss = ran.miss
                elif ran.at not in rule.test.passing:
                    return Evaluated(ran.value, Source.EXPERIMENT, ran, rule_id=rule.id)
        return Evaluated(feature.default, Source.DEFAULT, ran, miss)

    def _passed_over(
        self, rule: Rule, caller: Caller, above: tuple[str, ...]
    ) -> tuple[Miss | None, Source | None]:
        """Why a rule does not apply, None where it does; and what settles the whole feature at once."""
        if rule.parents:
            failed = self._unmet(rule.parents, caller, above)
            if failed is not None:
                return Miss.PREREQUISITE, None if failed is Source.DEFAULT else failed
        tests = rule.test is not None and rule.test.fallback is None
        if tests and not unit_text(caller.attributes.get(rule.attribute)):
            return Miss.NO_UNIT, None  # nothing that follows would help
        if rule.condition is not None and not rule.condition(caller.attributes):
            return Miss.CONDITION, None
        if rule.filters and _filtered(rule.filters, caller.attributes):
            return Miss.NAMESPACE, None
        if rule.forces and not _rolled_out(rule, caller):
            return Miss.COVERAGE, None
        return None, None

    def _unmet(self, parents: tuple[Parent, ...], caller: Caller, above: tuple[str, ...]) -> Source | None:
        """None where all prerequisites hold; else what it means: a value of None, or (DEFAULT) a rule that
        is passed over."""
        for parent in parents:
            found = self._evaluate(parent.key, caller, above)
            if found.source is Source.CYCLIC:
                return Source.CYCLIC
            if not parent.condition({"value": found.value}):
                return Source.PREREQUISITE if parent.gate else Source.DEFAULT
        return None

    def _run(self, test: Test, caller: Caller, above: tuple[str, ...]) -> Ran:
        keeps = caller.sticky is not None and test.sticky
        attribute, unit_id = _unit(caller.attributes, test.attribute, test.fallback if keeps else None)

        def result(at: int, miss: Miss | None = None) -> Ran:
            inside = 0 <= at < len(test.values)
            at = at if inside else 0
            value = test.values[at] if test.values else None
            key = test.keys[at] if test.keys else "0"
            return Ran(
                test.key, at, key, value, inside, False, attribute, unit_id, miss=None if inside else miss
            )

        if len(test.values) < 2 or not caller.enabled:
            return result(-1, Miss.OFF)
        forced = _in_query(caller.url, test) if caller.url else None
        if forced is None:
            forced = caller.forced.get(test.key)
        if forced is not None:
            return result(forced, Miss.OFF)
        if not test.active:
            return result(-1, Miss.OFF)
        if not unit_id:
            return result(-1, Miss.NO_UNIT)
        stored, miss = _recorded(test, caller) if keeps else (-1, None)
        bucket = hash_unit(test.seed, unit_id, test.version)
        at = stored
        if stored < 0:
            miss = self._kept_out(test, caller, unit_id, above) or miss
            at = -1 if bucket is None else _chosen(bucket, _ranges(test, caller))
        if miss is None and at < 0:
            miss = Miss.COVERAGE
        if bucket is None or (test.url is not None and not _matches(test.url, caller.url)):
            miss = Miss.OFF
        if miss is not None:
            return result(-1, miss)
        if test.force is not None:
            return result(test.force, Miss.OFF)
        if caller.qa or test.stopped:
            return result(-1, Miss.OFF)
        keep = _to_keep(test, caller, attribute, unit_id, at) if keeps else None
        return result(at)._replace(hashed=True, bucket=bucket, sticky=stored >= 0, keep=keep)

    def _kept_out(self, test: Test, caller: Caller, unit_id: str, above: tuple[str, ...]) -> Miss | None:
        """What a unit with a sticky bucket is not asked any more."""
        if test.filters:
            if _filtered(test.filters, caller.attributes):
                return Miss.NAMESPACE
        elif test.namespace is not None and not in_namespace(unit_id, test.namespace):
            return Miss.NAMESPACE
        if test.condition is not None and not test.condition(caller.attributes):
            return Miss.CONDITION
        if test.parents and self._unmet(test.parents, caller, above) is not None:
            return Miss.PREREQUISITE
        return None


_NUMERIC = re.compile(r"\d{1,9}", re.ASCII)


def _lists(groups: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Saved groups by name: a list, or an object that holds one under `values`."""
    found = {name: each.get("values") if isinstance(each, Mapping) else each for name, each in groups.items()}
    return {name: each for name, each in found.items() if isinstance(each, list)}


def unit_text(value: Any) -> str:
    """An attribute's value as the id of a unit, as JavaScript writes it; empty for what is no id."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    return str(value) if value.bit_length() <= 64 else ""


def _unit(attributes: Mapping[str, Any], name: str, fallback: str | None) -> tuple[str, str]:
    text = unit_text(attributes.get(name))
    if not text and fallback:
        other = unit_text(attributes.get(fallback))
        if other:
            return fallback, other
    return name, text


def _filtered(filters: tuple[Filter, ...], attributes: Mapping[str, Any]) -> bool:
    for each in filters:
        unit_id = unit_text(attributes.get(each.attribute))
        position = hash_unit(each.seed, unit_id, each.version) if unit_id else None
        if position is None or _chosen(position, each.ranges) < 0:
            return True
    return False


def _chosen(position: float, ranges: Ranges) -> int:
    """The first range that holds a position, -1 for none. Ranges from elsewhere may overlap, so no search."""
    for index, (low, high) in enumerate(ranges):
        if low <= position < high:
            return index
    return -1


def _ranges(test: Test, caller: Caller) -> Ranges:
    for condition, ranges in test.leaves:
        if condition(caller.attributes):
            return ranges
    return test.ranges


def _rolled_out(rule: Rule, caller: Caller) -> bool:
    """Whether a rule that forces a value forces it for this caller."""
    if rule.range is None and rule.coverage is None:
        return True
    if rule.range is None and rule.coverage == 0:
        return False
    fallback = rule.fallback if caller.sticky is not None else None
    _, unit_id = _unit(caller.attributes, rule.attribute, fallback)
    position = hash_unit(rule.seed, unit_id, rule.version) if unit_id else None
    if position is None:
        return False
    low, high = rule.range if rule.range is not None else (0.0, rule.coverage or 0.0)
    return low <= position < high


def _recorded(test: Test, caller: Caller) -> tuple[int, Miss | None]:
    """The index of the variant in the sticky bucket, -1 for none, and whether a version blocks it."""
    known: dict[str, str] = {}
    for name in (test.fallback, test.attribute):  # the second wins
        unit_id = unit_text(caller.attributes.get(name)) if name else ""
        if name and unit_id and caller.sticky is not None:
            known.update(caller.sticky(name, unit_id))
    if any(test.named(version) in known for version in range(test.least_version)):
        return -1, Miss.BLOCKED
    variant = known.get(test.named(test.bucket_version))
    return (test.keys.index(variant) if variant in test.keys else -1), None


def _to_keep(test: Test, caller: Caller, attribute: str, unit_id: str, at: int) -> Kept | None:
    """The sticky bucket to store; None where it is there already."""
    name = test.named(test.bucket_version)
    if caller.sticky is None or caller.sticky(attribute, unit_id).get(name) == test.keys[at]:
        return None
    return Kept(attribute, unit_id, name, test.keys[at])


def _in_query(url: str, test: Test) -> int | None:
    """The variant that a page's address asks for (`?checkout=1`)."""
    try:
        given = parse_qs(urlsplit(url).query).get(test.key, [""])[0]
    except ValueError:
        return None
    index = int(given) if _NUMERIC.fullmatch(given) else -1
    return index if 0 <= index < len(test.values) else None


def _matches(pattern: str, url: str) -> bool:
    """Whether a page's address, or its path, is one that an experiment is for."""
    condition = compile_condition({"url": {"$regex": pattern}})
    path = re.sub(r"^[^/]*/", "/", re.sub(r"^https?://", "", url))
    return bool(url) and (condition({"url": url}) or condition({"url": path}))
