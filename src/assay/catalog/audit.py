"""The audit log: read here, written by `WriteTx.record` in the transaction of the change itself."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from assay.catalog.checks import expect_storable
from assay.catalog.database import ReadTx
from assay.catalog.tables import (
    ApiKey,
    AuditEntry,
    Experiment,
    Layer,
    MetricDefinition,
    Segment,
    Template,
    Variant,
)

#: What something is known by in the log: its noun and its id.
Known = tuple[str, int]


class Subject(NamedTuple):
    """What an id of the log means: a name, and what addresses it, None for what is not there any more."""

    name: str
    reference: str | None


#: For each noun that ids in the log stand for: the id, the name, and what addresses it.
_NAMED: Final[Mapping[str, tuple[InstrumentedAttribute[Any], ...]]] = {
    "experiment": (Experiment.id, Experiment.name, Experiment.key),
    "variant": (Variant.id, Variant.name, Variant.key),
    "segment": (Segment.id, Segment.name, Segment.id),
    "layer": (Layer.id, Layer.name, Layer.key),
    "metric": (MetricDefinition.id, MetricDefinition.name, MetricDefinition.key),
    "template": (Template.id, Template.name, Template.key),
    "key": (ApiKey.id, ApiKey.name, ApiKey.id),
}


def page(
    tx: ReadTx,
    *,
    experiment_id: int | None = None,
    noun: str | None = None,
    actor: str | None = None,
    skip: int = 0,
    limit: int = 100,
) -> tuple[list[AuditEntry], int]:
    """The newest entries that match, and how many match; `noun` is one of `RECORDED`."""
    expect_storable("noun", noun)
    expect_storable("actor", actor)
    rows = select(AuditEntry)
    if experiment_id is not None:
        rows = rows.where(AuditEntry.experiment_id == experiment_id)
    if noun is not None:
        rows = rows.where(_about(noun))
    if actor is not None:
        rows = rows.where(AuditEntry.actor == actor)
    total = tx.scalar(select(func.count()).select_from(rows.subquery())) or 0
    return list(tx.scalars(rows.order_by(AuditEntry.id.desc()).offset(skip).limit(limit))), total


def subjects(tx: ReadTx, wanted: Iterable[Known]) -> dict[Known, Subject]:
    """What these ids mean: what is there by its present name, and what was deleted by its last one."""
    ids: dict[str, set[int]] = defaultdict(set)
    for noun, number in wanted:
        if noun in _NAMED:
            ids[noun].add(number)
    found: dict[Known, Subject] = {}
    for noun, numbers in ids.items():
        column, *called = _NAMED[noun]
        for row in tx.execute(select(column, *called).where(column.in_(numbers))):
            found[noun, row[0]] = Subject(row[1], str(row[2]))
        gone = [each for each in numbers if (noun, each) not in found]
        found |= {(noun, each): Subject(last, None) for each, last in _last_names(tx, noun, gone)}
    return found


def _about(noun: str) -> ColumnElement[bool]:
    """Entries of the noun, and of actions upon it; a holdout is an experiment with a purpose of its own.

    Whether one that is gone was a holdout, its last entry says.
    """
    about = or_(AuditEntry.noun == noun, AuditEntry.action.startswith(f"{noun}.", autoescape=True))
    if noun == "holdout":
        present = select(Experiment.id).where(Experiment.holdout.is_not(None))
        ended = select(AuditEntry.experiment_id).where(
            AuditEntry.noun == "experiment",
            AuditEntry.action.in_(["experiment.delete", "experiment.purge"]),
            AuditEntry.changes["holdout"].as_string().is_not(None),
        )
        return or_(about, AuditEntry.experiment_id.in_(present), AuditEntry.experiment_id.in_(ended))
    return about


def _last_names(tx: ReadTx, noun: str, ids: list[int]) -> Iterator[tuple[int, str]]:
    """The names that the log has of what is gone, the last one last."""
    if not ids:
        return
    ends = [f"{noun}.{what}" for what in ("create", "delete", "purge")]
    entries = select(AuditEntry.noun_id, AuditEntry.changes).where(
        AuditEntry.noun == noun, AuditEntry.noun_id.in_(ids), AuditEntry.action.in_(ends)
    )
    for number, changes in tx.execute(entries.order_by(AuditEntry.id)):
        name = changes.get("name") or {}
        if last := name.get("to") or name.get("from"):
            yield number, last
