"""What an experiment set out to show, frozen at its start, and what was done otherwise since.

The plan is hashed as JSON with sorted keys and no spaces, in UTF-8, so that anybody who kept the hash can
tell that it was not rewritten. Deviations are read from the audit log, which holds every change with its time
and its author.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from sqlalchemy import func, select

from assay.catalog import documents, metrics
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.metrics import StoredMetric
from assay.catalog.tables import AuditEntry, Experiment, Preregistration

#: What is said of an experiment in its plan; metrics are compared one by one.
_PLANNED = (
    "hypothesis",
    "minimum_detectable_effect",
    "significance_level",
    "power",
    "analysis",
    "activation_event",
    "circuit_breaker",
    "target_sample_size",
    "end_at",
)
#: What an answer says about a metric beyond what it is.
_ASIDE = {"registered", "newest_version"}


class Deviation(TypedDict):
    """Something that was planned otherwise: `field` is `metrics.<key>` for a metric.

    `change` is added, removed or changed; of a changed metric, `from` and `to` hold what changed.
    """

    field: str
    change: str
    at: str
    by: str
    reason: str | None
    audit_id: int


class PreregistrationDocument(TypedDict):
    """The plan of an experiment: frozen, or as it would be frozen by a start now.

    `unchanged` says whether what is in force now is what was frozen.
    """

    experiment_id: int
    experiment_key: str
    frozen: bool
    frozen_at: str | None
    frozen_by: str | None
    hash: str | None
    plan: dict[str, Any]
    unchanged: bool | None
    deviations: list[dict[str, Any]]


def plan_of(experiment: Experiment) -> dict[str, Any]:
    """What the experiment as it is now sets out to show, and how it will be judged."""
    chosen = metrics.primary(experiment.metrics)
    primary = next((each for each in experiment.metrics if each["key"] == chosen), None)
    return {
        "hypothesis": experiment.hypothesis,
        "primary_metric": chosen,
        "direction": primary["direction"] if primary is not None else None,
        "minimum_detectable_effect": experiment.minimum_detectable_effect,
        "significance_level": experiment.significance_level,
        "power": experiment.power,
        "analysis": experiment.analysis,
        "stopping_rule": {
            "target_sample_size": experiment.target_sample_size,
            "end_at": documents.iso_or_none(experiment.end_at),
        },
        "activation_event": experiment.activation,
        "metrics": [_plain(metric) for metric in experiment.metrics],
        **({"circuit_breaker": experiment.breaker} if experiment.breaker else {}),
    }


def digest(plan: Mapping[str, Any]) -> str:
    """The SHA-256 of a plan, in hexadecimal."""
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def freeze(tx: WriteTx, experiment: Experiment) -> None:
    """Keep the plan as it stands; for use where an experiment starts."""
    plan = plan_of(experiment)
    experiment.plan_hash = digest(plan)
    tx.add(
        Preregistration(
            experiment_id=experiment.id,
            frozen_at=tx.now,
            frozen_by=tx.actor.name,
            plan=plan,
            hash=experiment.plan_hash,
        )
    )


def planned_metrics(tx: ReadTx, experiment: Experiment) -> list[StoredMetric] | None:
    """The metrics of the frozen plan; None where none was frozen."""
    row = tx.get(Preregistration, experiment.id) if experiment.plan_hash is not None else None
    return None if row is None else row.plan["metrics"]


def document(tx: ReadTx, experiment: Experiment) -> PreregistrationDocument:
    """The plan with its hash and the deviations from it."""
    row = tx.get(Preregistration, experiment.id)
    now = plan_of(experiment)
    return {
        "experiment_id": experiment.id,
        "experiment_key": experiment.key,
        "frozen": row is not None,
        "frozen_at": None if row is None else documents.iso(row.frozen_at),
        "frozen_by": None if row is None else row.frozen_by,
        "hash": None if row is None else row.hash,
        "plan": now if row is None else row.plan,
        "unchanged": None if row is None else now == row.plan,
        "deviations": [] if row is None else deviations(tx, experiment),
    }


def deviations(tx: ReadTx, experiment: Experiment) -> list[dict[str, Any]]:
    """What changed in the planned fields since the start, first to last, each with when and by whom."""
    mine = AuditEntry.experiment_id == experiment.id
    started = select(func.max(AuditEntry.id)).where(mine, AuditEntry.action == "experiment.start")
    begin = tx.scalar(started)
    if begin is None:
        return []
    entries = select(AuditEntry).where(mine, AuditEntry.id > begin, AuditEntry.noun == "experiment")
    return [each for entry in tx.scalars(entries.order_by(AuditEntry.id)) for each in _deviations(entry)]


def _deviations(entry: AuditEntry) -> Iterator[dict[str, Any]]:
    seen = {
        "at": documents.iso(entry.at),
        "by": entry.actor,
        "reason": entry.reason,
        "audit_id": entry.id,
    }
    for field in _PLANNED:
        if field in entry.changes:
            yield {"field": field, "change": "changed", **entry.changes[field], **seen}
    if "metrics" in entry.changes:
        changed = entry.changes["metrics"]
        for each in _metric_changes(changed["from"] or [], changed["to"] or []):
            yield {**each, **seen}


def _metric_changes(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    old = {each["key"]: _plain(each) for each in before}
    new = {each["key"]: _plain(each) for each in after}
    for key in {**old, **new}:
        field = f"metrics.{key}"
        if key not in new:
            yield {"field": field, "change": "removed", "from": old[key], "to": None}
        elif key not in old:
            yield {"field": field, "change": "added", "from": None, "to": new[key]}
        elif old[key] != new[key]:
            differing = [
                name for name in {**old[key], **new[key]} if old[key].get(name) != new[key].get(name)
            ]
            yield {
                "field": field,
                "change": "changed",
                "from": {name: old[key].get(name) for name in differing},
                "to": {name: new[key].get(name) for name in differing},
            }


def _plain(metric: Mapping[str, Any]) -> StoredMetric:
    return {name: value for name, value in metric.items() if name not in _ASIDE}
