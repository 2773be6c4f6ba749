"""From tables to what the hot path reads: a compiled ruleset and the key ring."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import select

from assay.bucketing import ruleset
from assay.bucketing.conditions import Condition, compile_condition
from assay.catalog import keys, slots
from assay.catalog.database import ReadTx, catalog_version
from assay.catalog.editing import whole
from assay.catalog.groups import Rules, listed
from assay.catalog.keys import microseconds
from assay.catalog.segments import members_of
from assay.catalog.tables import Experiment, ExperimentSegment, Override, Phase, Prerequisite, Segment
from assay.errors import Invalid
from assay.published import Key, KeyRing, Published

_log = structlog.get_logger("assay.catalog")

#: What stands for a rule that an earlier version accepted and this one refuses: nobody is in, as in SDKs.
_NOBODY: Final[Mapping[str, Any]] = {"$not": {}}
_CHUNK = 500  # ids in one statement, well below any database's limit on parameters
_SEGMENT_VERSIONS = select(Segment.id, Segment.version)


class _Rule(NamedTuple):
    """A rule that is stored, ready to be evaluated; `refused` says why `_NOBODY` stands for it."""

    rule: Mapping[str, Any] | None
    condition: Condition | None
    groups: Mapping[str, ruleset.Segment]
    refused: str | None = None


class Publisher:
    """Compiles the catalog and swaps what `published` holds.

    What has not changed since the last time is taken over as it was compiled then, so a change costs what
    changed: an experiment is known by its version and those of its segments and of the lists that its
    condition names, a list of members by its own.
    `Database` calls `publish`, one call at a time.
    """

    def __init__(self, published: Published, environment_keys: Sequence[Key] = ()) -> None:
        self._published = published
        self._environment_keys = tuple(environment_keys)
        self._experiments: dict[int, tuple[object, ruleset.Experiment]] = {}
        self._segments: dict[int, tuple[object, ruleset.Segment]] = {}
        #: Those whose lists conditions name, with nothing but the list.
        self._lists: dict[int, tuple[int, ruleset.Segment]] = {}
        self._members: dict[int, tuple[int, ruleset.Members | None]] = {}
        self._segment_versions: dict[int, int] = {}

    def publish(self, tx: ReadTx, now: datetime) -> None:
        """Compile what `tx` sees and put it in force."""
        self._segment_versions = {row.id: row.version for row in tx.execute(_SEGMENT_VERSIONS)}
        segments = self._compile_segments(tx)
        experiments = self._compile_experiments(tx, segments)
        self._let_go()
        ring = KeyRing([*self._environment_keys, *keys.in_force(tx)])
        self._published.ruleset = ruleset.Ruleset(experiments, catalog_version(tx), microseconds(now) or 0)
        self._published.keys = ring

    def _compile_segments(self, tx: ReadTx) -> dict[int, ruleset.Segment]:
        attached = select(ExperimentSegment.segment_id).distinct()
        rows = list(tx.scalars(select(Segment).where(Segment.id.in_(attached))))
        present = {row.id for row in rows}
        self._segments = {each: known for each, known in self._segments.items() if each in present}
        for row in rows:
            known = self._segments.get(row.id)
            if known is None or known[0] != (row.version, self._named_by(known[1])):
                ruled = self._ruled(tx, row.rules, "rules", f"segment {row.id}")
                compiled = ruleset.Segment(
                    row.id,
                    row.name,
                    ruled.condition,
                    self._list_of(tx, row),
                    ruled.rule,
                    row.private,
                    ruled.groups,
                    ruled.refused,
                )
                self._segments[row.id] = ((row.version, self._named_by(compiled)), compiled)
        return {each: compiled for each, (_, compiled) in self._segments.items()}

    def _ruled(self, tx: ReadTx, rule: Rules, path: str, whose: str) -> _Rule:
        """A rule compiled with the lists it names. One that is refused must not hold back all the others."""
        if not rule:
            return _Rule(None, None, {})
        try:
            condition = compile_condition(rule, path)
        except Invalid as error:
            why = "; ".join(f"{each.path} {each.message}" for each in error.errors)
            _log.error("catalog.rule_refused", of=whose, reason=why)
            return _Rule(_NOBODY, compile_condition(_NOBODY), {}, why)
        groups = self._groups(tx, rule)
        if groups:
            condition = compile_condition(rule, path, ruleset.lists(groups))
        return _Rule(rule, condition, groups)

    def _groups(self, tx: ReadTx, rule: Rules) -> dict[str, ruleset.Segment]:
        """The segments whose lists a rule names, by key."""
        found = {}
        for row in listed(tx, [rule]):
            known = self._lists.get(row.id)
            if known is None or known[0] != row.version:
                members = self._list_of(tx, row)
                segment = ruleset.Segment(row.id, row.name, members=members, private=row.private)
                known = self._lists[row.id] = (row.version, segment)
            found[row.key] = known[1]
        return found

    def _named_by(self, ruled: ruleset.Segment | ruleset.Experiment) -> tuple[tuple[int, int | None], ...]:
        """The lists that its rule names, with the versions that they have now."""
        return tuple((each.id, self._segment_versions.get(each.id)) for each in ruled.groups.values())

    def _let_go(self) -> None:
        """Forget the lists that nobody uses any more."""
        named = {group.id for _, each in self._segments.values() for group in each.groups.values()}
        named |= {group.id for _, each in self._experiments.values() for group in each.groups.values()}
        self._lists = {each: known for each, known in self._lists.items() if each in named}
        self._members = {
            each: known for each, known in self._members.items() if each in named or each in self._segments
        }

    def _list_of(self, tx: ReadTx, row: Segment) -> ruleset.Members | None:
        known = self._members.get(row.id)
        if known is not None and known[0] == row.members_version:
            return known[1]
        members = members_of(tx, row)
        self._members[row.id] = (row.members_version, members)
        return members

    def _compile_experiments(
        self, tx: ReadTx, segments: dict[int, ruleset.Segment]
    ) -> Iterable[ruleset.Experiment]:
        links: dict[int, list[int]] = {}
        for link in tx.execute(select(ExperimentSegment.experiment_id, ExperimentSegment.segment_id)):
            links.setdefault(link.experiment_id, []).append(link.segment_id)
        parents: dict[int, list[int]] = {}
        for child, parent in tx.execute(select(Prerequisite.experiment_id, Prerequisite.parent_id)):
            parents.setdefault(child, []).append(parent)
        versions = {
            number: (
                version,
                tuple((each, self._segments[each][0]) for each in sorted(links.get(number, ()))),
            )
            for number, version in tx.execute(select(Experiment.id, Experiment.version))
        }
        above = {number: _above(number, parents) for number in versions}
        known = self._experiments = {
            each: before for each, before in self._experiments.items() if each in versions
        }

        def mark(number: int) -> object:
            """Everything that an experiment, once compiled, was made of."""
            made_of = (number, *above[number])
            return tuple((each, versions[each], self._named_by(known[each][1])) for each in made_of)

        # What is required is compiled first, and what requires it again whenever it changed.
        in_order = sorted(versions, key=lambda each: (len(above[each]), each))
        fresh = {each for each in versions if each not in known}
        stale = [
            number
            for number in in_order
            if not fresh.isdisjoint((number, *above[number])) or known[number][0] != mark(number)
        ]
        for start in range(0, len(stale), _CHUNK):
            chunk = stale[start : start + _CHUNK]
            forced, starts = _overrides(tx, chunk), _phase_starts(tx, chunk)
            found = select(Experiment).where(Experiment.id.in_(chunk)).options(*whole())
            rows = {each.id: each for each in tx.scalars(found)}
            for number in chunk:
                requires = [
                    _requirement(each, self._experiments[each.parent_id][1])
                    for each in rows[number].prerequisites
                    if each.parent_id in above[number]
                ]
                ruled = self._ruled(tx, rows[number].condition, "condition", f"experiment {number}")
                compiled = _compile(
                    rows[number], segments, ruled, forced.get(number, {}), starts.get(number, ()), requires
                )
                known[number] = (None, compiled)
        for number in stale:
            known[number] = (mark(number), known[number][1])
        return [compiled for _, compiled in known.values()]


def _overrides(tx: ReadTx, experiment_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    forced: dict[int, dict[str, int]] = {}
    for row in tx.scalars(select(Override).where(Override.experiment_id.in_(experiment_ids))):
        forced.setdefault(row.experiment_id, {})[row.unit_id] = row.variant_id
    return forced


def _phase_starts(tx: ReadTx, experiment_ids: Sequence[int]) -> dict[int, list[int]]:
    """When each phase began, first to last; they are numbered from 1 without gaps."""
    starts: dict[int, list[int]] = {}
    rows = select(Phase.experiment_id, Phase.started_at).where(Phase.experiment_id.in_(experiment_ids))
    for experiment_id, started_at in tx.execute(rows.order_by(Phase.experiment_id, Phase.number)):
        starts.setdefault(experiment_id, []).append(microseconds(started_at) or 0)
    return starts


def _above(number: int, parents: Mapping[int, list[int]]) -> list[int]:
    """All that an experiment requires, directly or not; since there are no circles, each has fewer itself."""
    found: list[int] = []
    waiting = list(parents.get(number, ()))
    while waiting:
        each = waiting.pop()
        if each not in found and each != number:
            found.append(each)
            waiting.extend(parents.get(each, ()))
    return sorted(found)


def _requirement(row: Prerequisite, parent: ruleset.Experiment) -> ruleset.Requirement:
    variants = frozenset(each.id for each in parent.variants if each.key in row.variants)
    if row.variants and not variants:
        variants = frozenset([-1])  # what it required was removed, and nobody has it
    return ruleset.Requirement(parent, variants, row.holdout)


def _compile(
    row: Experiment,
    segments: dict[int, ruleset.Segment],
    ruled: _Rule,
    forced: dict[str, int],
    phase_starts: Sequence[int],
    requires: Sequence[ruleset.Requirement],
) -> ruleset.Experiment:
    place = {each.id: at for at, each in enumerate(row.variants)}
    removed = {each.id for each in row.variants if each.removed}
    return ruleset.Experiment.compile(
        id=row.id,
        key=row.key,
        name=row.name,
        status=ruleset.Status(row.status),
        variants=[
            ruleset.Variant(
                id=each.id,
                key=each.key,
                name=each.name,
                allocation=each.allocation,
                enabled=each.enabled,
                is_control=each.is_control,
                config=each.config,
                removed=each.removed,
            )
            for each in row.variants
        ],
        unit=row.unit,
        coverage=slots.coverage(row),
        condition=ruled.condition,
        rule=ruled.rule,
        groups=ruled.groups,
        refused=ruled.refused,
        private=row.private,
        segments=[segments[each.id] for each in row.segments],
        requires=requires,
        layer=ruleset.Layer.of(row.layer["key"], row.layer["slots"]) if row.layer else None,
        # An override for a variant that has since been removed would serve what is gone.
        overrides={unit: place[variant] for unit, variant in forced.items() if variant not in removed},
        winner=place.get(row.winner_id) if row.winner_id is not None else None,
        phase=row.phase,
        phase_starts=phase_starts,
        version=row.version,
        started_at=microseconds(row.started_at),
        ended_at=microseconds(row.ended_at),
    )
