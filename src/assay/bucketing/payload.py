"""Experiments as GrowthBook's SDKs read them: one feature for each, its rules in their language.

Source: the payload of GrowthBook's SDK specification, version 0.8. Whoever evaluates it gets what `evaluate`
and `serve` give a unit that is not on record. Four things are never in it: an experiment that nobody is
served by, what people wrote for people (names and descriptions of experiments and segments), what is marked
private, and a list of ids too long to send.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple

from assay.bucketing.clauses import naming
from assay.bucketing.hashing import bucket_ranges
from assay.bucketing.ruleset import Experiment, Segment, Status, Variant, effective_weights

#: Ids that one experiment's overrides, or one segment's list, may have in a payload.
MOST_IDS = 10_000

Definition = dict[str, Any]
Groups = dict[str, list[str]]
#: What a variant is worth to those who ask for a feature.
Value = Callable[[Variant], Any]


class Feature(NamedTuple):
    """What SDKs are given of one experiment.

    `definition` is None for one that only the server can evaluate, and `remote` a sentence that says why.
    `groups` are the lists that its conditions mention with `$inGroup`, by name, and `others` features that
    its rules require, which say which variant an experiment serves. `mark` tells what is not sent from what
    was not sent before: those who ask the server are to hear of a change, too.
    """

    definition: Definition | None
    groups: Groups
    remote: str | None = None
    others: Mapping[str, Definition] = MappingProxyType({})
    mark: str = ""


def value_of(variant: Variant) -> Any:
    """What a feature is worth to those with this variant: its config, or its name where that is empty."""
    return variant.config or variant.name


def hash_attribute(experiment: Experiment) -> str:
    """The attribute by which an SDK knows the unit: users are `id`, as everywhere in GrowthBook."""
    return "id" if experiment.unit == "user_id" else experiment.unit


def served_values(experiment: Experiment, value: Value = value_of) -> list[Any]:
    """What is served to those on record with each variant, in order: for one that is off, the control's."""
    control = experiment.variants[experiment.control]
    return [value(each if each.on else control) for each in experiment.variants]


def feature_of(experiment: Experiment) -> Feature | None:
    """The feature that an experiment is; None for one that SDKs are not told of."""
    if not experiment.variants:
        return None
    if experiment.private:
        served = experiment.status is Status.RUNNING or experiment.winner is not None
        return Feature(None, {}, "it is private", mark=_mark(experiment)) if served else None
    if not _serves(experiment):
        return None
    why = _withheld(experiment, set())
    if why is not None:
        return Feature(None, {}, why, mark=_mark(experiment))
    groups: Groups = {}
    others: dict[str, Definition] = {}
    definition = _definition(experiment, value_of, groups, others)
    return Feature(definition, groups, None, others)


def _mark(experiment: Experiment) -> str:
    """What an experiment and all that it requires are made of: their versions, and who is on their lists."""
    waiting, seen = [experiment], {experiment.id: experiment}
    while waiting:
        for each in waiting.pop().requires:
            if each.parent.id not in seen:
                seen[each.parent.id] = each.parent
                waiting.append(each.parent)
    mark = blake2b(digest_size=8)
    for number in sorted(seen):
        mark.update(b"%d:%d;" % (number, seen[number].version))
        for segment in _lists(seen[number]):
            mark.update(b"%d:" % segment.id + (segment.members.mark if segment.members is not None else b"-"))
    return mark.hexdigest()


def _lists(experiment: Experiment) -> Iterator[Segment]:
    """The segments that decide who is in: those attached, and those whose lists conditions name."""
    yield from experiment.segments
    yield from experiment.groups.values()
    for segment in experiment.segments:
        yield from segment.groups.values()


def _serves(experiment: Experiment) -> bool:
    """Whether a unit that is not on record may be served something."""
    return experiment.status is Status.RUNNING or (
        experiment.status is Status.STOPPED and experiment.winner is not None
    )


def _definition(
    experiment: Experiment, value: Value, groups: Groups, others: dict[str, Definition]
) -> Definition:
    """The feature of an experiment that serves somebody, with `value` of what it serves."""
    parents = _parents(experiment, groups, others)
    if experiment.winner is not None and experiment.status is Status.STOPPED:
        won = value(experiment.variants[experiment.winner])
        if parents == []:
            return {"defaultValue": won}
        held: list[Definition] = [] if parents is None else [{"parentConditions": parents, "force": won}]
        return {"defaultValue": None, "rules": held}
    # Who is not in gets null, which an SDK replaces by what the application's code says.
    rules = _forced(experiment, value)
    if parents is not None:
        rule = _rule(experiment, value, groups)
        rules.append({**rule, "parentConditions": parents} if parents else rule)
    return {"defaultValue": None, "rules": rules}


def _parents(
    experiment: Experiment, groups: Groups, others: dict[str, Definition]
) -> list[Definition] | None:
    """What the rule requires of other features; None where no unit that is not on record can meet it.

    The features asked are not those that applications ask for, whose values need not tell variants apart, but
    others whose values are the variants' keys. An SDK that asks one tracks the experiment as for any other.
    """
    conditions: list[Definition] = []
    for each in experiment.requires:
        keys = [arm.key for arm in each.parent.variants if arm.id in each.variants]
        if not _serves(each.parent) or (each.variants and not keys):
            return None
        name = f"variant:{each.parent.key}"
        if name not in others:
            others[name] = _definition(each.parent, _key, groups, others)
        met: Definition = {"$in": keys} if each.variants else {"$ne": None}
        conditions.append({"id": name, "condition": {"value": met}})
    return conditions


def _key(variant: Variant) -> str:
    return variant.key


def _withheld(experiment: Experiment, sendable: set[int]) -> str | None:
    """Why the rules cannot be sent: something is private or too long. Those that can be join `sendable`."""
    for each in experiment.requires:
        if each.parent.id in sendable:
            continue
        if each.parent.private:
            return f"experiment {each.parent.id}, which it requires, is private"
        why = _withheld(each.parent, sendable)
        if why is not None:
            return f"experiment {each.parent.id}, which it requires: {why}"
    if len(experiment.overrides) > MOST_IDS:
        return f"{len(experiment.overrides)} overrides; at most {MOST_IDS} are sent"
    for segment in _lists(experiment):
        if segment.private:
            return f"segment {segment.id} is private"
        if segment.members is not None and segment.members.listed is None:
            return f"segment {segment.id} lists {len(segment.members)} users; at most {MOST_IDS} are sent"
    sendable.add(experiment.id)
    return None


def _forced(experiment: Experiment, value: Value) -> list[Definition]:
    """One rule for each variant that is forced for somebody; the ids in the order of the alphabet."""
    forced: dict[int, list[str]] = {}
    for unit_id, at in sorted(experiment.overrides.items()):
        forced.setdefault(at, []).append(unit_id)
    attribute = hash_attribute(experiment)
    return [
        {"condition": {attribute: {"$in": ids}}, "force": value(experiment.variants[at])}
        for at, ids in sorted(forced.items())
    ]


def _rule(experiment: Experiment, value: Value, groups: Groups) -> Definition:
    """The experiment itself."""
    ranges = [list(each) for each in experiment.ranges]
    weights = effective_weights(experiment.variants)
    values = served_values(experiment, value)
    names = [each.key for each in experiment.variants]
    if len(values) == 1:  # SDKs run no experiment with one variation: a second one that nobody gets
        values, weights, names = values * 2, [*weights, 0.0], names * 2
        ranges.append([1.0, 1.0])
    rule: Definition = {
        "key": experiment.key,
        "seed": experiment.seed,
        "hashAttribute": hash_attribute(experiment),
        "hashVersion": 2,
        "variations": values,
        "weights": weights,
        "coverage": experiment.coverage,
        "meta": [{"key": each} for each in names],
        "phase": str(experiment.phase),
    }
    by_weights = bucket_ranges(len(weights), experiment.coverage, weights)
    if by_weights[: len(experiment.ranges)] != experiment.ranges:
        rule["ranges"] = ranges
    if experiment.layer is not None:
        # What a namespace is, in the form that has several ranges and the second version of the hash.
        rule["filters"] = [
            {
                "seed": experiment.layer.seed,
                "attribute": hash_attribute(experiment),
                "hashVersion": 2,
                "ranges": [list(each) for each in experiment.layer.ranges],
            }
        ]
    condition = _condition(experiment, groups)
    if condition:
        rule["condition"] = condition
    return rule


def _condition(experiment: Experiment, groups: Groups) -> Definition | None:
    """What must hold: any of the segments, and the experiment's own condition."""
    own = _sent(experiment.rule, experiment.groups, groups) if experiment.rule else None
    if not experiment.segments:
        return own
    ways = [way for segment in experiment.segments for way in _ways(segment, groups)]
    # An empty `$or` holds in every SDK; segments without rules and members hold for nobody.
    somewhere = {"$or": ways} if len(ways) != 1 else ways[0]
    if not ways:
        somewhere = {"id": {"$in": []}}
    return somewhere if own is None else {"$and": [somewhere, own]}


def _ways(segment: Segment, groups: Groups) -> list[Definition]:
    """The conditions any of which puts a user into this segment."""
    ways: list[Definition] = []
    if segment.members is not None and segment.members.listed is not None:
        ways.append({"id": {"$inGroup": _group(segment, groups)}})
    if segment.rule:
        ways.append(_sent(segment.rule, segment.groups, groups))
    return ways


def _group(segment: Segment, groups: Groups) -> str:
    """What a segment's list is called: not by its key, which people made of what they call the segment."""
    name = f"segment-{segment.id}"
    if name not in groups:
        groups[name] = sorted(segment.members.listed or ()) if segment.members is not None else []
    return name


def _sent(rule: Mapping[str, Any], named: Mapping[str, Segment], groups: Groups) -> Definition:
    """A condition as SDKs are given it; the lists that it names are put into `groups`."""
    # Ids begin at 1: a list that is not there is called what nothing is called, and nobody is on it.
    return _by_id(naming(rule, lambda key, _: _group(named[key], groups) if key in named else "segment-0"))


def _by_id(document: Mapping[str, Any]) -> Definition:
    """A condition that asks for `id` where ours asks for `user_id`: SDKs know users by the former alone."""
    renamed = {name: _below(name, each) for name, each in document.items() if name != "user_id"}
    if "user_id" not in document:
        return renamed
    user = {"id": document["user_id"]}
    return {"$and": [user, renamed]} if "id" in renamed else {**user, **renamed}


def _below(name: str, given: Any) -> Any:
    if name == "$not" and isinstance(given, Mapping):
        return _by_id(given)
    if name in {"$and", "$or", "$nor"} and isinstance(given, Sequence) and not isinstance(given, str):
        return [_by_id(each) for each in given]
    return given
