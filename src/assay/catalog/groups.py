"""Lists that conditions name, `{"id": {"$inGroup": "vip"}}`: segments that are a list and nothing else.

A list's name is the segment's key, and what is looked for in it is the value of the attribute, whatever that
is. So a list may hold ids of accounts as well as of users, and a condition may leave a list out.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import select

from assay.bucketing.clauses import groups_read
from assay.bucketing.conditions import compile_condition
from assay.bucketing.ruleset import Status
from assay.catalog.checks import shown
from assay.catalog.database import ReadTx
from assay.catalog.tables import Experiment, Segment
from assay.errors import Conflict, Invalid

Rules = dict[str, Any] | None


def checked_rule(tx: ReadTx, rule: Rules, path: str) -> Rules:
    """A targeting rule that compiles, with lists that are there; one that demands nothing is no rule.

    Raises `Invalid` below `path`.
    """
    if not rule:
        return None
    compile_condition(rule, path)
    # Nobody is in a group that does not exist, and everybody outside it: never what the author meant.
    named = groups_read(rule, path)
    known = {each.key: each for each in listed(tx, [rule])}
    for key, where in named:
        if key not in known:
            raise Invalid.field(
                where,
                f"names {shown(key)}, and there is no segment with that key: make one with these members, or "
                "list the values with $in",
                code="unknown_group",
            )
        if known[key].rules:
            raise Invalid.field(
                where,
                f"names segment {key}, which has a rule besides its list: only a list can be named. Attach "
                "the segment, or write its rule here",
                code="not_a_list",
            )
    return rule


def listed(tx: ReadTx, rules: Iterable[Rules]) -> list[Segment]:
    """The segments whose lists these rules, which were accepted before, name; those that are there."""
    keys = {key for rule in rules if rule for key, _ in groups_read(rule)}
    if not keys:
        return []
    return list(tx.scalars(select(Segment).where(Segment.key.in_(keys)).order_by(Segment.id)))


class Namer(NamedTuple):
    """An experiment, in its status, or a segment whose rule names a list; `reference` is its key or id."""

    noun: str
    reference: str
    name: str
    status: str | None = None


def expect_unnamed(tx: ReadTx, segment: Segment, instead: str) -> None:
    """Raises `Conflict` where a condition that counts names the list; `instead` says what to do first."""
    users = [
        f"experiment {each.reference}" if each.status else f"segment {each.name}"
        for each in namers(tx, segment.key)
        if each.status != Status.ARCHIVED
    ]
    if users:
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        raise Conflict(
            f"The list of segment {segment.name} is named, as {segment.key}, by the condition of "
            f"{', '.join(users[:5])}{more}: {instead}",
            code="segment_in_use",
        )


def namers(tx: ReadTx, key: str) -> list[Namer]:
    """Experiments in any state, the newest first, and segments, whose rules name the list with this key."""
    experiments = select(Experiment.key, Experiment.name, Experiment.status, Experiment.condition).where(
        Experiment.condition.is_not(None)
    )
    segments = select(Segment.id, Segment.name, Segment.rules).where(Segment.rules.is_not(None))
    return [
        *(
            Namer("experiment", row.key, row.name, row.status)
            for row in tx.execute(experiments.order_by(Experiment.id.desc()))
            if names(row.condition, key)
        ),
        *(
            Namer("segment", str(row.id), row.name)
            for row in tx.execute(segments.order_by(Segment.id))
            if names(row.rules, key)
        ),
    ]


def names(rule: Rules, key: str) -> bool:
    """Whether a rule, which was accepted before, names the list with this key."""
    return rule is not None and any(each == key for each, _ in groups_read(rule))
