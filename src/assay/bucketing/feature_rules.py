"""The rules of a payload for SDKs, compiled into what `features` evaluates.

Source: GrowthBook's "build your own SDK" specification, version 0.8. What is not as it says raises an error
of Python's own, which whoever compiles a payload catches for each feature. A condition with a mistake holds
for nobody, as in the SDKs, and is named.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from assay.bucketing.conditions import Condition, compile_condition
from assay.bucketing.hashing import Ranges, bucket_ranges
from assay.errors import Invalid


class Filter(NamedTuple):
    """A stretch of a namespace of its own, by any attribute: units outside are left out."""

    attribute: str
    seed: str
    version: int
    ranges: Ranges


class Parent(NamedTuple):
    """A feature whose value must meet a condition; with `gate`, else the whole feature is worth None."""

    key: str
    condition: Condition
    gate: bool


class Test(NamedTuple):
    """An experiment, inline or of a rule, compiled; the fields are the specification's.

    `passing` are the variants whose units go on to the next rule, and `leaves` the ranges of a contextual
    bandit, each with the condition for them.
    """

    key: str
    seed: str
    attribute: str
    fallback: str | None
    version: int
    values: Sequence[Any]
    ranges: Ranges
    keys: tuple[str, ...]
    passing: frozenset[int]
    filters: tuple[Filter, ...]
    namespace: tuple[str, float, float] | None
    condition: Condition | None
    parents: tuple[Parent, ...]
    active: bool
    stopped: bool
    force: int | None
    url: str | None
    sticky: bool
    bucket_version: int
    least_version: int
    phase: str
    leaves: tuple[tuple[Condition, Ranges], ...]

    def named(self, version: int) -> str:
        """The name under which a sticky bucket of this version is stored."""
        return f"{self.key}__{version}"


class Rule(NamedTuple):
    """One rule of a feature: who it is for, and either a value that it forces or an experiment."""

    id: str
    parents: tuple[Parent, ...]
    condition: Condition | None
    filters: tuple[Filter, ...]
    forces: bool
    force: Any
    seed: str
    attribute: str
    fallback: str | None
    version: int
    range: tuple[float, float] | None
    coverage: float | None
    test: Test | None


class Feature(NamedTuple):
    """The rules of one feature in order, and what it is worth to those whom none of them is for."""

    default: Any
    rules: tuple[Rule, ...]


class Maker:
    """Compiles the parts of a payload; `mistakes` are those of the feature it is at."""

    def __init__(self, groups: Mapping[str, list[Any]], bandits: Mapping[str, Any]) -> None:
        self.groups = groups
        self.bandits = bandits
        self.mistakes: list[str] = []

    def feature(self, key: str, given: Mapping[str, Any]) -> Feature:
        """Compile a feature."""
        rules = tuple(self.rule(key, each) for each in given.get("rules") or ())
        return Feature(given.get("defaultValue"), rules)

    def rule(self, feature: str, given: Mapping[str, Any]) -> Rule:
        """Compile one rule of a feature."""
        forces = given.get("force") is not None or ("force" in given and "variations" not in given)
        values = given.get("contextualVariations") or given.get("variations")
        key = str(given.get("key") or feature)
        between = given.get("range")
        # What the rule itself asks for is not asked for again by its experiment.
        bare = {name: each for name, each in given.items() if name not in _OF_RULES}
        return Rule(
            id=str(given.get("id") or ""),
            parents=self.parents(given),
            condition=self.condition(given.get("condition")),
            filters=_filters(given.get("filters")),
            forces=forces,
            force=given.get("force"),
            seed=str(given.get("seed") or feature),
            attribute=given.get("hashAttribute") or "id",
            fallback=given.get("fallbackAttribute"),
            version=given.get("hashVersion") or 1,
            range=None if between is None else (float(between[0]), float(between[1])),
            coverage=_number(given.get("coverage")),
            test=None if forces or values is None else self.test(key, {**bare, "variations": values}),
        )

    def test(self, key: str, given: Mapping[str, Any]) -> Test:
        """Compile an experiment, of a rule or inline."""
        values = list(given.get("variations") or ())
        coverage = _number(given.get("coverage"))
        metas = [*(given.get("meta") or ()), *({} for _ in values)][: len(values)]
        forced = given.get("force")
        version = given.get("bucketVersion") or 0
        namespace = given.get("namespace")
        ranges = given.get("ranges")
        return Test(
            key=key,
            seed=str(given.get("seed") or key),
            attribute=given.get("hashAttribute") or "id",
            fallback=given.get("fallbackAttribute"),
            version=given.get("hashVersion") or 1,
            values=values,
            ranges=_pairs(ranges)
            if ranges
            else bucket_ranges(len(values), 1.0 if coverage is None else coverage, given.get("weights")),
            keys=tuple(str(meta.get("key") or at) for at, meta in enumerate(metas)),
            passing=frozenset(at for at, meta in enumerate(metas) if meta.get("passthrough")),
            filters=_filters(given.get("filters")),
            namespace=None
            if not namespace
            else (str(namespace[0]), float(namespace[1]), float(namespace[2])),
            condition=self.condition(given.get("condition")),
            parents=self.parents(given),
            active=given.get("active") is not False and given.get("status") != "draft",
            stopped=given.get("status") == "stopped",
            force=None if forced is None else int(forced),
            url=given.get("url"),
            sticky=not given.get("disableStickyBucketing"),
            bucket_version=int(version),
            least_version=int(given.get("minBucketVersion") or 0),
            phase=str(given.get("phase") or ""),
            leaves=() if ranges else self.leaves(given, len(values), coverage),
        )

    def leaves(
        self, given: Mapping[str, Any], count: int, coverage: float | None
    ) -> tuple[tuple[Condition, Ranges], ...]:
        """The weights that a contextual bandit gives to those who meet a condition, first come first."""
        bandit = self.bandits.get(given.get("contextualBanditRef") or "")
        contexts = bandit.get("contexts") if isinstance(bandit, Mapping) else None
        found = []
        for each in contexts or ():
            weights = each.get("weights")
            if not isinstance(weights, list) or len(weights) != count:
                weights = given.get("weights")
            ranges = bucket_ranges(count, 1.0 if coverage is None else coverage, weights)
            found.append((self.condition(each.get("condition")) or _always, ranges))
        return tuple(found)

    def parents(self, given: Mapping[str, Any]) -> tuple[Parent, ...]:
        """Compile prerequisites."""
        return tuple(
            Parent(str(each["id"]), self.condition(each.get("condition")) or _always, bool(each.get("gate")))
            for each in given.get("parentConditions") or ()
        )

    def condition(self, given: Any) -> Condition | None:
        """Compile a condition; None where there is none."""
        if not given:
            return None
        try:
            return compile_condition(given, groups=self.groups)
        except Invalid as error:
            self.mistakes.append(error.detail)
            return _never


#: What a rule decides before its experiment is asked.
_OF_RULES = frozenset({"condition", "filters", "parentConditions", "force", "id"})


def _always(_: Mapping[str, Any]) -> bool:
    return True


def _never(_: Mapping[str, Any]) -> bool:
    return False


def _number(given: Any) -> float | None:
    return None if given is None else float(given)


def _pairs(given: Sequence[Sequence[float]]) -> Ranges:
    return tuple((float(low), float(high)) for low, high in given)


def _filters(given: Any) -> tuple[Filter, ...]:
    return tuple(
        Filter(
            each.get("attribute") or "id",
            str(each.get("seed") or ""),
            each.get("hashVersion") or 2,
            _pairs(each["ranges"]),
        )
        for each in given or ()
    )
