"""The published catalog in the form that evaluation reads: frozen, compiled, and complete."""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple

from assay.bucketing.conditions import Condition, Groups
from assay.bucketing.hashing import SLOTS, Ranges, choose, cumulated, edges, place

_NO_OVERRIDES: Mapping[str, int] = MappingProxyType({})
_NO_GROUPS: Mapping[str, "Segment"] = MappingProxyType({})

# How far above 1 shares may add up and still be taken as they are; SDKs are as generous.
_SLACK = 0.01


class Status(StrEnum):
    """Where an experiment is in its life."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm. `allocation` is its share of the covered traffic; a removed one is off for ever."""

    id: int
    key: str
    name: str
    allocation: float
    enabled: bool = True
    is_control: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    removed: bool = False

    @property
    def on(self) -> bool:
        """Whether new units may get it."""
        return self.enabled and not self.removed


class Members:
    """A set of unit ids. Small ones are kept as they are, large ones as sorted 64-bit digests.

    With a million members, a stranger's digest meets one of theirs once in 2**44 strangers.
    """

    SMALL = 10_000
    __slots__ = ("_digests", "_ids", "_mark", "_size")

    def __init__(self, ids: Iterable[str]) -> None:
        found = frozenset(ids)
        self._size = len(found)
        self._mark: bytes | None = None
        self._ids: frozenset[str] | None = found if len(found) <= self.SMALL else None
        self._digests = array("Q", () if self._ids is not None else sorted(map(_digest, found)))

    @classmethod
    def of_digests(cls, packed: bytes) -> "Members":
        """A large set from what `digests` gave of its ids, put in order."""
        made = cls(())
        made._ids = None
        made._digests = array("Q")
        made._digests.frombytes(packed)
        made._size = len(made._digests)
        return made

    def __contains__(self, unit_id: object) -> bool:
        if not isinstance(unit_id, str):
            return False
        if self._ids is not None:
            return unit_id in self._ids
        digest = _digest(unit_id)
        place = bisect_left(self._digests, digest)
        return place < self._size and self._digests[place] == digest

    @property
    def mark(self) -> bytes:
        """What tells this set from others, the same in every process."""
        if self._mark is None:
            every = self._digests if self._ids is None else array("Q", sorted(map(_digest, self._ids)))
            self._mark = blake2b(every.tobytes(), digest_size=8).digest()
        return self._mark

    def changed(self, without: AbstractSet[str], beside: AbstractSet[str]) -> "Members":
        """The same without some ids, and with others."""
        if self._ids is not None:
            return Members((self._ids - without) | beside)
        gone, fresh = set(map(_digest, without)), set(map(_digest, beside))
        return Members.of_digests(array("Q", sorted((set(self._digests) - gone) | fresh)).tobytes())

    @property
    def listed(self) -> frozenset[str] | None:
        """The ids themselves, None for a set of which only digests are kept."""
        return self._ids

    def __len__(self) -> int:
        return self._size


def _digest(unit_id: str) -> int:
    return int.from_bytes(blake2b(unit_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def digests(ids: Iterable[str]) -> bytes:
    """The 64-bit digests of ids, one after the other, as `Members.of_digests` reads them."""
    return array("Q", map(_digest, ids)).tobytes()


@dataclass(frozen=True, slots=True)
class Segment:
    """A named part of the population, by rule, by list, or both.

    `rule` is what `condition` was made from, and `groups` are the segments, by key, whose lists it names;
    what is `private` is evaluated by the server alone. `refused` says why the rule that is stored could not
    be compiled: `rule` then holds for nobody.
    """

    id: int
    name: str
    condition: Condition | None = None
    members: Members | None = None
    rule: Mapping[str, Any] | None = None
    private: bool = False
    groups: Mapping[str, "Segment"] = field(default_factory=lambda: _NO_GROUPS)
    refused: str | None = None

    def matches(self, user_id: str, attributes: Mapping[str, Any]) -> bool:
        """Whether the user belongs to it, by membership or by rule."""
        if self.members is not None and user_id in self.members:
            return True
        return self.condition is not None and self.condition(attributes)


def lists(groups: Mapping[str, Segment]) -> Groups:
    """What conditions are compiled with: the lists of these segments, by the key they are named by."""
    return {key: each.members or () for key, each in groups.items()}


class Layer(NamedTuple):
    """What an experiment holds of a layer; made by `of`.

    `slots` are stretches [from, to) of slot numbers, `ranges` the same of [0, 1), and `edges` those in one
    row.
    """

    key: str
    seed: str
    slots: tuple[tuple[int, int], ...]
    ranges: Ranges
    edges: tuple[float, ...]

    @classmethod
    def of(cls, key: str, slots: Iterable[Sequence[int]]) -> "Layer":
        """The slots held of the layer with this key; stretches ascend, and neither overlap nor touch.

        No experiment's key has a colon, so none shares its seed with a layer: slot and bucket of a unit are
        independent.
        """
        held = tuple((low, high) for low, high in slots)
        ranges = tuple((low / SLOTS, high / SLOTS) for low, high in held)
        return cls(key, f"layer:{key}", held, ranges, edges(ranges))

    def holds(self, unit_id: str) -> bool:
        """Whether the unit's slot is one of these."""
        return choose(place(self.seed, unit_id), self.edges) >= 0


class Requirement(NamedTuple):
    """What another experiment must serve a unit: one of `variants` by id, or with none of them any.

    `holdout` says that the other one is a holdout, which also keeps units from what was rolled out.
    """

    parent: "Experiment"
    variants: frozenset[int]
    holdout: bool

    def met(self, variant_id: int | None) -> bool:
        """Whether a unit that the other experiment serves this variant, None for none, may get in."""
        return variant_id is not None and (not self.variants or variant_id in self.variants)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as evaluation sees it; made by `compile`.

    `ranges` holds one stretch of [0, 1) for each variant, empty for those that are off, and `edges` the same
    in one row. `phase` numbers the stretch of unchanged allocation, and `phase_starts` says when that of each
    number, from 1, began. Times are microseconds UTC. `overrides` maps a unit id to the index of a variant,
    and `winner` is one. `rule` is what `condition` was made from, and `groups` are the segments, by key,
    whose lists it names. What is `private` is evaluated by the server alone. `refused` says why the condition
    that is stored could not be compiled: `rule` then holds for nobody.
    """

    id: int
    key: str
    name: str
    status: Status
    unit: str
    seed: str
    variants: tuple[Variant, ...]
    control: int
    coverage: float
    ranges: Ranges
    edges: tuple[float, ...]
    condition: Condition | None
    segments: tuple[Segment, ...]
    layer: Layer | None
    overrides: Mapping[str, int]
    winner: int | None
    phase: int
    version: int
    started_at: int | None
    ended_at: int | None
    needs_attributes: bool
    by_variant_id: Mapping[int, int]
    rule: Mapping[str, Any] | None
    requires: tuple[Requirement, ...]
    private: bool
    phase_starts: tuple[int, ...] = ()
    groups: Mapping[str, Segment] = field(default_factory=lambda: _NO_GROUPS)
    refused: str | None = None

    def phase_at(self, at: int) -> int:
        """The number of the phase in force at a time: 0 before the first, the last one after its end."""
        return bisect_right(self.phase_starts, at)

    @classmethod
    def compile(
        cls,
        *,
        id: int,  # noqa: A002 - the field's name
        key: str,
        name: str,
        status: Status,
        variants: Iterable[Variant],
        unit: str = "user_id",
        seed: str | None = None,
        coverage: float = 1.0,
        condition: Condition | None = None,
        rule: Mapping[str, Any] | None = None,
        groups: Mapping[str, Segment] = _NO_GROUPS,
        refused: str | None = None,
        private: bool = False,
        segments: Iterable[Segment] = (),
        layer: Layer | None = None,
        requires: Iterable[Requirement] = (),
        overrides: Mapping[str, int] = _NO_OVERRIDES,
        winner: int | None = None,
        phase: int = 0,
        phase_starts: Iterable[int] = (),
        version: int = 1,
        started_at: int | None = None,
        ended_at: int | None = None,
    ) -> "Experiment":
        """Work out everything evaluation needs.

        The seed is the key unless another is given. The control is the first variant that says so, else the
        first. An override or a winner that names no variant is left out: evaluation never meets one. What is
        rolled out has no more requirements, but for holdouts.
        """
        arms = tuple(variants)
        attached = tuple(segments)
        places = range(len(arms))
        ranges = shares(arms, coverage)
        return cls(
            id=id,
            key=key,
            name=name,
            status=status,
            unit=unit,
            seed=key if seed is None else seed,
            variants=arms,
            control=next((at for at, each in enumerate(arms) if each.is_control), 0),
            coverage=coverage,
            ranges=ranges,
            edges=edges(ranges),
            condition=condition,
            segments=attached,
            layer=layer,
            overrides=MappingProxyType({unit_id: at for unit_id, at in overrides.items() if at in places}),
            winner=winner if winner in places else None,
            phase=phase,
            version=version,
            started_at=started_at,
            ended_at=ended_at,
            needs_attributes=condition is not None or any(each.condition is not None for each in attached),
            by_variant_id=MappingProxyType({each.id: at for at, each in enumerate(arms)}),
            rule=rule,
            groups=groups,
            requires=tuple(each for each in requires if each.holdout or status is not Status.STOPPED),
            private=private,
            phase_starts=tuple(phase_starts),
            refused=refused,
        )


def shares(variants: Sequence[Variant], coverage: float) -> Ranges:
    """The stretch of [0, 1) for each variant, empty for one that is off.

    With all variants on and shared out in full, these are GrowthBook's own ranges.
    """
    return cumulated(effective_weights(variants), coverage)


def effective_weights(variants: Sequence[Variant]) -> list[float]:
    """The share of the covered traffic that each variant gets, 0 for one that is off.

    What switched-off variants had goes to the others in proportion. A share given to nobody stays free.
    """
    declared = math.fsum(each.allocation for each in variants if not each.removed)
    live = math.fsum(each.allocation for each in variants if each.on)
    if live <= 0:
        return [0.0] * len(variants)
    # Untouched weights stay as they are, to the last bit: a range that ends at 0.3 does so in every SDK.
    untouched = live == declared and declared <= 1 + _SLACK
    scale = 1.0 if untouched else min(declared, 1.0) / live
    return [each.allocation * scale if each.on else 0.0 for each in variants]


class Ruleset:
    """All experiments at one version of the catalog; replaced as a whole, never changed."""

    __slots__ = ("by_id", "by_key", "published_at", "version")

    def __init__(
        self, experiments: Iterable[Experiment] = (), version: int = 0, published_at: int = 0
    ) -> None:
        found = tuple(experiments)
        self.version = version
        self.published_at = published_at
        self.by_id: Mapping[int, Experiment] = MappingProxyType({each.id: each for each in found})
        self.by_key: Mapping[str, Experiment] = MappingProxyType({each.key: each for each in found})

    def find(self, reference: int | str) -> Experiment | None:
        """The experiment with this id or key; a text of digits is an id, since no key is all digits."""
        if isinstance(reference, int):
            return self.by_id.get(reference)
        if reference.isascii() and reference.isdigit() and len(reference) < 19:
            return self.by_id.get(int(reference))
        return self.by_key.get(reference)

    def refused(self) -> list[str]:
        """Whose stored rules could not be compiled and hold for nobody: `experiment 7`, `segment 3`."""
        segments = {each.id for one in self for each in one.segments if each.refused}
        experiments = [f"experiment {each.id}" for each in self if each.refused]
        return experiments + [f"segment {each}" for each in sorted(segments)]

    def __iter__(self) -> Iterator[Experiment]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.by_id)
