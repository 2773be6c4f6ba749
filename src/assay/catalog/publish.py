"""From tables to what the hot path reads: a compiled ruleset and the key ring."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select

from assay.bucketing import ruleset
from assay.bucketing.conditions import Condition, compile_condition
from assay.catalog import keys, slots
from assay.catalog.database import ReadTx, catalog_version
from assay.catalog.editing import whole
from assay.catalog.keys import microseconds
from assay.catalog.segments import members_of
from assay.catalog.tables import Experiment, ExperimentSegment, Override, Phase, Prerequisite, Segment
from assay.published import Key, KeyRing, Published

_CHUNK = 500  # ids in one statement, well below any database's limit on parameters


class Publisher:
    """Compiles the catalog and swaps what `published` holds.

    What has not changed since the last time is taken over as it was compiled then, so a change costs what
    changed: an experiment is known by its version and those of its segments, a list of members by its own.
    `Database` calls `publish`, one call at a time.
    """

    def __init__(self, published: Published, environment_keys: Sequence[Key] = ()) -> None:
        self._published = published
        self._environment_keys = tuple(environment_keys)
        self._experiments: dict[int, tuple[object, ruleset.Experiment]] = {}
        self._segments: dict[int, tuple[int, ruleset.Segment]] = {}
        self._members: dict[int, tuple[int, ruleset.Members | None]] = {}

    def publish(self, tx: ReadTx, now: datetime) -> None:
        """Compile what `tx` sees and put it in force."""
        segments = self._compile_segments(tx)
        experiments = self._compile_experiments(tx, segments)
        ring = KeyRing([*self._environment_keys, *keys.in_force(tx)])
        self._published.ruleset = ruleset.Ruleset(experiments, catalog_version(tx), microseconds(now) or 0)
        self._published.keys = ring

    def _compile_segments(self, tx: ReadTx) -> dict[int, ruleset.Segment]:
        attached = select(ExperimentSegment.segment_id).distinct()
        rows = list(tx.scalars(select(Segment).where(Segment.id.in_(attached))))
        present = {row.id for row in rows}
        self._segments = {each: known for each, known in self._segments.items() if each in present}
        self._members = {each: known for each, known in self._members.items() if each in present}
        for row in rows:
            known = self._segments.get(row.id)
            if known is None or known[0] != row.version:
                compiled = ruleset.Segment(
                    row.id,
                    row.name,
                    _condition(row.rules, "rules"),
                    self._list_of(tx, row),
                    row.rules or None,
                    row.private,
                )
                self._segments[row.id] = (row.version, compiled)
        return {each: compiled for each, (_, compiled) in self._segments.items()}

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
                tuple(sorted((each, self._segments[each][0]) for each in links.get(number, ()))),
            )
            for number, version in tx.execute(select(Experiment.id, Experiment.version))
        }
        above = {number: _above(number, parents) for number in versions}
        # What is required is compiled first, and what requires it again whenever it changed.
        marks = {
            number: (mark, tuple((each, versions[each]) for each in above[number]))
            for number, mark in sorted(versions.items(), key=lambda each: (len(above[each[0]]), each[0]))
        }
        self._experiments = {each: known for each, known in self._experiments.items() if each in marks}
        stale = [
            number
            for number, mark in marks.items()
            if number not in self._experiments or self._experiments[number][0] != mark
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
                compiled = _compile(
                    rows[number], segments, forced.get(number, {}), starts.get(number, ()), requires
                )
                self._experiments[number] = (marks[number], compiled)
        return [compiled for _, compiled in self._experiments.values()]


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
        condition=_condition(row.condition, "condition"),
        rule=row.condition or None,
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


def _condition(rule: dict[str, object] | None, path: str) -> Condition | None:
    return compile_condition(rule, path) if rule else None
