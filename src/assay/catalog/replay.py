"""What was in force at a past moment, for one user: the present, with every later change taken back.

Each change of an experiment, a segment, a user or an override stands in the audit log with what was there
before, so that going back from now is exact. What the log does not hold is said in `notes`: a list that was
changed in bulk, and what was erased.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select

from assay.bucketing import ruleset
from assay.bucketing.clauses import groups_read
from assay.bucketing.conditions import compile_condition
from assay.bucketing.evaluate import Past
from assay.catalog import documents, phases, slots
from assay.catalog.database import Database, ReadTx
from assay.catalog.editing import find
from assay.catalog.groups import listed as named_lists
from assay.catalog.keys import microseconds
from assay.catalog.segments import members_of
from assay.catalog.tables import AuditEntry, Experiment, Override, Segment, SegmentMember, User
from assay.errors import NotFound

#: Actions that change a list by more than one user, whose names the log does not hold.
_IN_BULK = frozenset({"segment.add_members", "segment.replace_list"})


def replay(database: Database, experiment_id: int, user_id: str, unit_id: str | None, at: datetime) -> Past:
    """The experiment and what was known of the user at `at`. Raises `NotFound` before the experiment was."""
    with database.reading() as tx:
        row = find(tx, experiment_id)
        if row.created_at > at:
            raise NotFound(
                f"Experiment {row.key} was made at {documents.iso(row.created_at)}, after "
                f"{documents.iso(at)}.",
                code="unknown_experiment",
            )
        notes: list[str] = []
        attributes = _attributes(tx, user_id, at, notes)
        experiment = _compiled(tx, row, user_id, unit_id, at, notes, {})
        return Past(experiment, attributes, _version(tx, at), tuple(notes))


def _later(tx: ReadTx, at: datetime, *which: ColumnElement[bool]) -> Iterator[AuditEntry]:
    """The entries of after the moment, the newest first."""
    return iter(
        tx.scalars(select(AuditEntry).where(AuditEntry.at > at, *which).order_by(AuditEntry.id.desc()))
    )


def _document(tx: ReadTx, row: Experiment, at: datetime) -> dict[str, Any]:
    """The experiment's document as it was."""
    document: dict[str, Any] = {**documents.experiment(row)}
    own = (AuditEntry.experiment_id == row.id, AuditEntry.noun == "experiment", AuditEntry.user_id.is_(None))
    for entry in _later(tx, at, *own):
        document.update({name: change["from"] for name, change in entry.changes.items()})
    return document


def _compiled(
    tx: ReadTx,
    row: Experiment,
    user_id: str,
    unit_id: str | None,
    at: datetime,
    notes: list[str],
    made: dict[int, ruleset.Experiment],
) -> ruleset.Experiment:
    """The experiment as it was, with those that it required; `made` are those that several require."""
    if row.id in made:
        return made[row.id]
    document = _document(tx, row, at)
    variants = [
        ruleset.Variant(
            id=each["id"],
            key=each["key"],
            name=each["name"],
            allocation=each["allocation"],
            enabled=each["enabled"],
            is_control=each["is_control"],
            config=each["config"],
        )
        for each in document["variants"]
    ]
    place = {each.key: number for number, each in enumerate(variants)}
    phase = max((each.number for each in phases.listed(tx, row.id) if each.started_at <= at), default=0)
    condition, layer = document["condition"] or None, document["layer"]
    groups = _groups(tx, condition, at, notes)
    forced = _override(tx, row, unit_id, at)
    made[row.id] = ruleset.Experiment.compile(
        id=row.id,
        key=document["key"],
        name=document["name"],
        status=ruleset.Status(document["status"]),
        variants=variants,
        unit=document["unit"],
        coverage=slots.coverage_in(layer, document["traffic_allocation"]),
        condition=compile_condition(condition, groups=ruleset.lists(groups)) if condition else None,
        rule=condition,
        groups=groups,
        segments=[_segment(tx, each, user_id, at, notes) for each in document["segments"]],
        layer=ruleset.Layer.of(layer["key"], layer["slots"]) if layer else None,
        overrides={unit_id: place[forced]} if unit_id is not None and forced in place else {},
        winner=place.get(document["winner"]) if document["winner"] else None,
        requires=_required(tx, row, document, user_id, unit_id, at, notes, made),
        phase=phase,
        started_at=microseconds(row.started_at),
    )
    return made[row.id]


def _required(
    tx: ReadTx,
    row: Experiment,
    document: Mapping[str, Any],
    user_id: str,
    unit_id: str | None,
    at: datetime,
    notes: list[str],
    made: dict[int, ruleset.Experiment],
) -> Iterator[ruleset.Requirement]:
    """What the experiment required of others, as they were. What a holdout must serve is settled for good."""
    wanted = [
        (each["experiment_id"], each["variants"], False) for each in document.get("prerequisites") or ()
    ]
    held = {each.parent.key: each.variants for each in row.prerequisites if each.holdout}
    wanted += [(key, held.get(key, []), True) for key in document.get("holdouts") or ()]
    for reference, keys, holdout in wanted:
        try:
            parent = _compiled(tx, find(tx, reference), user_id, unit_id, at, notes, made)
        except NotFound:
            notes.append(f"Experiment {reference}, which was required, is not there any more.")
            continue
        variants = frozenset(arm.id for arm in parent.variants if arm.key in keys)
        # What was required of a variant that is not there is met by nobody.
        yield ruleset.Requirement(parent, variants or frozenset([-1] if keys else []), holdout)


def _override(tx: ReadTx, row: Experiment, unit_id: str | None, at: datetime) -> str | None:
    """The key of the variant that was forced for the unit."""
    if unit_id is None:
        return None
    found = tx.get(Override, (row.id, unit_id))
    forced = next((each.key for each in row.variants if found and each.id == found.variant_id), None)
    its = (AuditEntry.experiment_id == row.id, AuditEntry.noun == "experiment", AuditEntry.user_id == unit_id)
    for entry in _later(tx, at, *its):
        forced = entry.changes["variant"]["from"]
    return forced


def _segment(
    tx: ReadTx, reference: Mapping[str, Any], user_id: str, at: datetime, notes: list[str]
) -> ruleset.Segment:
    """A segment's rule as it was, and whether the user was on its list."""
    number = reference["id"]
    row = tx.get(Segment, number)
    rules = row.rules if row is not None else None
    listed = row is not None and tx.get(SegmentMember, (number, row.list, user_id)) is not None
    if row is None:
        notes.append(f"Segment {reference['name']} was deleted since; its list is not known any more.")
    for entry in _later(tx, at, AuditEntry.noun == "segment", AuditEntry.noun_id == number):
        if "rules" in entry.changes:
            rules = entry.changes["rules"]["from"]
        if entry.action in _IN_BULK:
            notes.append(_bulk_note(reference["name"], entry.at))
        elif entry.user_id == user_id:
            listed = entry.action == "segment.remove_member"
    groups = _groups(tx, rules, at, notes)
    condition = compile_condition(rules, "rules", ruleset.lists(groups)) if rules else None
    members = ruleset.Members([user_id]) if listed else None
    return ruleset.Segment(number, reference["name"], condition, members, rules or None, groups=groups)


def _groups(
    tx: ReadTx, rule: Mapping[str, Any] | None, at: datetime, notes: list[str]
) -> dict[str, ruleset.Segment]:
    """The lists that a rule names, as they were."""
    if not rule:
        return {}
    rows = {each.key: each for each in named_lists(tx, [dict(rule)])}
    gone = dict.fromkeys(key for key, _ in groups_read(rule) if key not in rows)
    notes.extend(f"Segment {key} was deleted since; its list is not known any more." for key in gone)
    return {
        key: ruleset.Segment(row.id, row.name, members=_members(tx, row, at, notes))
        for key, row in rows.items()
    }


def _members(tx: ReadTx, row: Segment, at: datetime, notes: list[str]) -> ruleset.Members | None:
    """A whole list as it was."""
    gone: set[str] = set()
    back: set[str] = set()
    for entry in _later(tx, at, AuditEntry.noun == "segment", AuditEntry.noun_id == row.id):
        if entry.action in _IN_BULK:
            notes.append(_bulk_note(row.name, entry.at))
        elif entry.user_id is not None:
            left, joined = (back, gone) if entry.action == "segment.remove_member" else (gone, back)
            left.add(entry.user_id)
            joined.discard(entry.user_id)
    members = members_of(tx, row)
    return members if not gone and not back else (members or ruleset.Members(())).changed(gone, back)


def _bulk_note(segment: str, at: datetime) -> str:
    return (
        f"The list of segment {segment} was changed in bulk at {documents.iso(at)}; what it held before "
        "is not known, and what it holds since is shown."
    )


def _attributes(tx: ReadTx, user_id: str, at: datetime, notes: list[str]) -> dict[str, Any]:
    """What was stored of the user."""
    row = tx.get(User, user_id)
    attributes = dict(row.attributes) if row is not None else {}
    for entry in _later(tx, at, AuditEntry.noun == "user", AuditEntry.user_id == user_id):
        if entry.action == "user.delete":
            notes.append(
                f"The user's attributes were deleted at {documents.iso(entry.at)} and are not known any more."
            )
        for name, change in entry.changes.items():
            if name == "created_at":
                continue
            if change["from"] is None:
                attributes.pop(name, None)
            else:
                attributes[name] = change["from"]
    return attributes


def _version(tx: ReadTx, at: datetime) -> int | None:
    """The catalog's version of that moment; None for one of before versions were written down."""
    return tx.scalar(select(func.max(AuditEntry.ruleset_version)).where(AuditEntry.at <= at))
