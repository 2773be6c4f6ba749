"""Who gets what. Total functions of a frozen experiment: any input has an answer, nothing raises."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from assay.bucketing.clauses import attributes_read, deciding
from assay.bucketing.conditions import reach
from assay.bucketing.hashing import SLOTS, choose, place
from assay.bucketing.ruleset import Experiment, Requirement, Segment, Status, Variant, lists


class Reason(StrEnum):
    """Why a unit is served what it is."""

    ASSIGNED = "assigned"
    OVERRIDE = "override"  # forced for this unit, which results leave out
    ROLLED_OUT = "rolled_out"  # stopped with a winner, which everybody gets
    VARIANT_DISABLED = "variant_disabled"  # what is on record was switched off: the control is served
    NOT_RUNNING = "not_running"
    NOT_IN_TRAFFIC = "not_in_traffic"  # outside the coverage, or in a share that was given to nobody
    NOT_IN_SEGMENT = "not_in_segment"
    LAYER_EXCLUDED = "layer_excluded"  # its slot of the layer is not held by this experiment
    PREREQUISITE = "prerequisite"  # another experiment does not serve it what this one requires
    HOLDOUT = "holdout"  # kept out of new experiments, and of what came of them
    NO_UNIT = "no_unit"  # the call names no unit of the experiment's kind


class Decision(NamedTuple):
    """The variant to serve, None for none; `bucket` is the unit's place in [0, 1) where it was computed."""

    variant: Variant | None
    reason: Reason
    bucket: float | None = None


# Looked up on every call: a name of this module costs a tenth of a member of an enumeration.
_RUNNING = Status.RUNNING
_ASSIGNED = Reason.ASSIGNED
_NOT_IN_TRAFFIC = Reason.NOT_IN_TRAFFIC
_new = tuple.__new__  # a third of what calling a named tuple costs

_NO_UNIT = Decision(None, Reason.NO_UNIT)
_NOT_RUNNING = Decision(None, Reason.NOT_RUNNING)
_NOT_IN_SEGMENT = Decision(None, Reason.NOT_IN_SEGMENT)
_LAYER_EXCLUDED = Decision(None, Reason.LAYER_EXCLUDED)
_NO_RECORDS: Mapping[int, int] = MappingProxyType({})


def evaluate(
    experiment: Experiment, unit_id: str | None, user_id: str | None, attributes: Mapping[str, Any]
) -> Decision:
    """What a unit that is not on record gets now by the experiment's own rules; `decide` asks others, too.

    `attributes` are the stored ones with those of the call laid over them; `id`, `user_id` and the unit's own
    name are added where absent.
    """
    if not unit_id:  # an empty id would put all who lack one into the same bucket
        return _NO_UNIT
    if experiment.status is not _RUNNING:
        return _NOT_RUNNING
    segments, condition, layer = experiment.segments, experiment.condition, experiment.layer
    if segments or condition is not None:
        seen = _seen(experiment, unit_id, user_id, attributes)
        if segments:
            member = _member_id(experiment, unit_id, user_id)
            if not any(segment.matches(member, seen) for segment in segments):
                return _NOT_IN_SEGMENT
        if condition is not None and not condition(seen):
            return _NOT_IN_SEGMENT
    if layer is not None and not layer.holds(unit_id):
        return _LAYER_EXCLUDED
    bucket = place(experiment.seed, unit_id)
    index = choose(bucket, experiment.edges)
    if index < 0:
        return _new(Decision, (None, _NOT_IN_TRAFFIC, bucket))
    return _new(Decision, (experiment.variants[index], _ASSIGNED, bucket))


def _seen(
    experiment: Experiment, unit_id: str | None, user_id: str | None, attributes: Mapping[str, Any]
) -> Mapping[str, Any]:
    return {"id": user_id or unit_id, "user_id": user_id, experiment.unit: unit_id, **attributes}


def _member_id(experiment: Experiment, unit_id: str | None, user_id: str | None) -> str:
    """The id that lists of members are asked for; empty, which is in no list, where only a unit is known."""
    return user_id or (unit_id if experiment.unit == "user_id" else None) or ""


def serve(experiment: Experiment, unit_id: str, recorded: int | None) -> Decision | None:
    """What the record, an override or the experiment's end decide; None where evaluation has to.

    `recorded` is the id of the variant on record, None where there is none.
    """
    status = experiment.status
    if status is Status.ARCHIVED or not experiment.variants:
        return _NOT_RUNNING
    if status is Status.STOPPED:
        if experiment.winner is None:
            return _NOT_RUNNING
        return Decision(experiment.variants[experiment.winner], Reason.ROLLED_OUT)
    forced = experiment.overrides.get(unit_id)
    if forced is not None:
        return Decision(experiment.variants[forced], Reason.OVERRIDE)
    if status is Status.DRAFT:
        return _NOT_RUNNING
    if recorded is not None:
        at = experiment.by_variant_id.get(recorded)
        if at is None or not experiment.variants[at].on:
            return Decision(experiment.variants[experiment.control], Reason.VARIANT_DISABLED)
        return Decision(experiment.variants[at], Reason.ASSIGNED)
    return None if status is Status.RUNNING else _NOT_RUNNING


def unmet(experiment: Experiment, served: Mapping[int, int | None]) -> Reason | None:
    """Why a unit that would get in may not: what is not met of other experiments; None where all is.

    `served` has the id of the variant that each experiment required serves the unit.
    """
    for each in experiment.requires:
        if not each.met(served.get(each.parent.id)):
            return Reason.HOLDOUT if each.holdout else Reason.PREREQUISITE
    return None


def decide(
    experiment: Experiment,
    unit_id: str | None,
    user_id: str | None,
    attributes: Mapping[str, Any],
    records: Mapping[int, int] = _NO_RECORDS,
) -> Decision:
    """What a unit is served, all things considered: record, override, end, own rules, other experiments.

    `records` has the ids of the variants on record, by the experiment's id, also for those required.
    """
    return _Unit(unit_id, user_id, attributes, records).decided(experiment)


class _Unit:
    """One unit, which every experiment decides of once, however many others require it."""

    def __init__(
        self,
        unit_id: str | None,
        user_id: str | None,
        attributes: Mapping[str, Any],
        records: Mapping[int, int],
    ) -> None:
        self.unit_id, self.user_id, self.attributes, self.records = unit_id, user_id, attributes, records
        self._decided: dict[int, Decision] = {}

    def decided(self, experiment: Experiment) -> Decision:
        """What `decide` says."""
        if not self.unit_id:
            return _NO_UNIT
        known = self._decided.get(experiment.id)
        if known is None:
            known = self._decided[experiment.id] = self._decide(experiment, self.unit_id)
        return known

    def _decide(self, experiment: Experiment, unit_id: str) -> Decision:
        recorded = self.records.get(experiment.id)
        decision = serve(experiment, unit_id, recorded)
        if decision is None:
            decision = evaluate(experiment, unit_id, self.user_id, self.attributes)
        if not experiment.requires or not provisional(decision, recorded):
            return decision
        served: dict[int, int | None] = {}
        for each in experiment.requires:
            variant = self.decided(each.parent).variant
            served[each.parent.id] = variant.id if variant else None
        refused = unmet(experiment, served)
        return decision if refused is None else Decision(None, refused, decision.bucket)


def required(experiment: Experiment) -> set[int]:
    """The ids of all experiments that this one requires, directly or not."""
    found: set[int] = set()
    waiting = [experiment]
    while waiting:
        parents = [each.parent for each in waiting.pop().requires]
        waiting += [each for each in parents if each.id not in found]
        found.update(each.id for each in parents)
    return found


def provisional(decision: Decision, recorded: int | None) -> bool:
    """Whether other experiments may still refuse it: a new unit is let in, or gets what was rolled out."""
    return recorded is None and decision.reason in (_ASSIGNED, Reason.ROLLED_OUT)


class Past(NamedTuple):
    """What was in force for one unit at a past moment; `notes` say what of it is not known any more."""

    experiment: Experiment
    attributes: Mapping[str, Any]
    ruleset_version: int | None
    notes: tuple[str, ...]


class Explanation(NamedTuple):
    """A receipt of one decision; `as_document` puts it into plain values.

    `attributes` are what conditions saw. `bucket` and `slot` are the unit's place in the experiment and its
    slot of the layer, None without a unit or a layer. `segments` says of each: id, name, whether the user is
    in its list of members, whether its rule holds. `condition` says whether the experiment's own holds, None
    without one. `required` says of each experiment required what it serves, and what it requires itself:
    where it is `repeated`, at its first place.
    """

    experiment: Experiment
    unit_id: str | None
    user_id: str | None
    attributes: Mapping[str, Any]
    recorded: int | None
    bucket: float | None
    slot: int | None
    segments: tuple[tuple[int, str, bool, bool], ...]
    condition: bool | None
    required: tuple[dict[str, Any], ...]
    decision: Decision

    def as_document(self) -> dict[str, Any]:
        """The receipt as plain values for JSON."""
        experiment, variant = self.experiment, self.decision.variant
        arms = zip(experiment.variants, experiment.ranges, strict=True)
        layer = experiment.layer
        return {
            "experiment_id": experiment.id,
            "experiment_key": experiment.key,
            "status": str(experiment.status),
            "version": experiment.version,
            "phase": experiment.phase,
            "user_id": self.user_id,
            "unit": experiment.unit,
            "unit_id": self.unit_id,
            "attributes": dict(self.attributes),
            "hash": {
                "version": 2,
                "seed": experiment.seed,
                "input": None if self.unit_id is None else experiment.seed + self.unit_id,
                "bucket": self.bucket,
            },
            "coverage": experiment.coverage,
            "ranges": [
                {"variant_id": arm.id, "variant": arm.name, "enabled": arm.on, "from": low, "to": high}
                for arm, (low, high) in arms
            ],
            "layer": None
            if layer is None
            else {
                "key": layer.key,
                "seed": layer.seed,
                "input": None if self.unit_id is None else layer.seed + self.unit_id,
                "slot": self.slot,
                "slots": [list(each) for each in layer.slots],
                "inside": self.unit_id is not None and layer.holds(self.unit_id),
            },
            "segments": [
                {
                    "id": number,
                    "name": name,
                    "member": member,
                    "rule": rule,
                    "clause": self._clause(each, "rules"),
                    "matched": member or rule,
                }
                for each, (number, name, member, rule) in zip(experiment.segments, self.segments, strict=True)
            ],
            "condition": self.condition,
            "prerequisites": [each for each in self.required if not each["holdout"]],
            "holdouts": [each for each in self.required if each["holdout"]],
            "condition_clause": self._clause(experiment, "condition"),
            "attributes_used": self._used(),
            "refused_rules": self._refused(),
            "assigned_variant_id": self.recorded,
            "assigned": variant is not None,
            "variant_id": variant.id if variant else None,
            "variant": variant.name if variant else None,
            "reason": str(self.decision.reason),
        }

    def _clause(self, ruled: Experiment | Segment, path: str) -> dict[str, Any] | None:
        """The part of a rule that decided; None where there is no rule."""
        if not ruled.rule:
            return None
        return deciding(ruled.rule, self.attributes, path, lists(ruled.groups)).as_document()

    def _refused(self) -> list[str]:
        """Why rules that are stored could not be read, and so hold for nobody."""
        ruled: list[Experiment | Segment] = [self.experiment, *self.experiment.segments]
        return [each.refused for each in ruled if each.refused]

    def _used(self) -> dict[str, Any]:
        """What conditions looked at, with null for what is not known."""
        rules = [each for each in (self.experiment.rule, *(s.rule for s in self.experiment.segments)) if each]
        names = dict.fromkeys(name for rule in rules for name in attributes_read(rule))
        return {name: reach(self.attributes, name.split(".")) for name in names}


def explain(
    experiment: Experiment,
    unit_id: str | None,
    user_id: str | None,
    attributes: Mapping[str, Any],
    records: Mapping[int, int] = _NO_RECORDS,
) -> Explanation:
    """Every step of the decision for this unit, whether or not an earlier step settled it.

    The arguments are those of `decide`.
    """
    unit_id = unit_id or None
    seen = _seen(experiment, unit_id, user_id, attributes)
    member = _member_id(experiment, unit_id, user_id)
    unit = _Unit(unit_id, user_id, attributes, records)
    decision = unit.decided(experiment)
    layer = experiment.layer
    return Explanation(
        experiment=experiment,
        unit_id=unit_id,
        user_id=user_id,
        attributes=seen,
        recorded=records.get(experiment.id),
        bucket=None if unit_id is None else place(experiment.seed, unit_id),
        slot=None if unit_id is None or layer is None else round(place(layer.seed, unit_id) * SLOTS),
        segments=tuple(
            (
                each.id,
                each.name,
                each.members is not None and member in each.members,
                each.condition is not None and each.condition(seen),
            )
            for each in experiment.segments
        ),
        condition=None if experiment.condition is None else experiment.condition(seen),
        required=_required(experiment, unit, set()),
        decision=decision,
    )


def _required(experiment: Experiment, unit: _Unit, told: set[int]) -> tuple[dict[str, Any], ...]:
    """What each experiment required serves the unit and why, with what that one requires, to the end.

    What one requires is told where it first stands: `told` are those of which it was.
    """

    def one(each: Requirement) -> dict[str, Any]:
        parent = each.parent
        decision = unit.decided(parent)
        variant = decision.variant
        repeated = parent.id in told
        told.add(parent.id)
        return {
            "experiment_id": parent.id,
            "experiment_key": parent.key,
            "holdout": each.holdout,
            "variants": [arm.key for arm in parent.variants if arm.id in each.variants],
            "variant": variant.key if variant else None,
            "reason": str(decision.reason),
            "bucket": None if unit.unit_id is None else place(parent.seed, unit.unit_id),
            "assigned_variant_id": unit.records.get(parent.id),
            "met": each.met(variant.id if variant else None),
            "repeated": repeated,
            "prerequisites": [] if repeated else list(_required(parent, unit, told)),
        }

    return tuple(one(each) for each in experiment.requires)
