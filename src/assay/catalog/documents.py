"""The catalog's rows as JSON-ready documents: what the API answers and the audit log compares."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NotRequired, TypedDict

from assay.catalog import metrics
from assay.catalog.tables import (
    ApiKey,
    AuditEntry,
    Experiment,
    MetricDefinition,
    MetricVersion,
    Override,
    Phase,
    Segment,
    Template,
    User,
    Variant,
)


class VariantDocument(TypedDict):
    """A variant."""

    id: int
    key: str
    name: str
    description: str
    allocation: float
    allocation_percent: float
    enabled: bool
    is_control: bool
    config: dict[str, Any]


class SegmentReference(TypedDict):
    """A segment attached to an experiment."""

    id: int
    name: str


class RampDocument(TypedDict):
    """How far a ramp has come: `status` is planned, running, paused, halted, finished or ended.

    `opened` counts steps; `next_at` is when the next one opens, `reason` why it did not.
    """

    status: str
    opened: int
    next_at: str | None
    halted_at: str | None
    reason: str | None


class CircuitBreakerDocument(TypedDict):
    """What a circuit breaker has done: `status` is armed, tripped or resumed.

    `evidence` holds the numbers it tripped at, `reason` says them. Since `resumed_at`, by whom, units that
    came before `since_phase` do not count for it any more.
    """

    status: str
    action: str | None
    tripped_at: str | None
    reason: str | None
    evidence: dict[str, Any] | None
    resumed_at: str | None
    resumed_by: str | None
    since_phase: int


class BanditDocument(TypedDict):
    """The last time a bandit was due to re-weight its variants, and when it is next.

    `held` says why it did not; otherwise, by key of the variant, there are the shares it gave, each variant's
    probability to be the best, and what choosing it is expected to cost, as a share of the control's value.
    """

    at: str
    next_at: str
    held: str | None
    weights: dict[str, float]
    best: dict[str, float]
    losses: dict[str, float]


class LayerShareDocument(TypedDict):
    """What an experiment wants of a layer, and the slots [from, to) that it holds now.

    `share` is null where the experiment's `traffic_allocation` says how much.
    """

    id: int
    key: str
    share: float | None
    slots: list[list[int]]


class PrerequisiteDocument(TypedDict):
    """Another experiment, and the keys of the variants of which it must serve one; none for any."""

    experiment_id: int
    experiment: str
    variants: list[str]


class ExperimentDocument(TypedDict):
    """An experiment."""

    id: int
    key: str
    name: str
    description: str
    hypothesis: str
    owner: str | None
    tags: list[str]
    status: str
    created_at: str
    start_at: str | None
    end_at: str | None
    schedule_error: str | None
    ramp: list[dict[str, Any]] | None
    ramp_state: RampDocument | None
    started_at: str | None
    ended_at: str | None
    traffic_allocation: float
    variants: list[VariantDocument]
    segments: list[SegmentReference]
    condition: dict[str, Any] | None
    private: bool
    layer: LayerShareDocument | None
    prerequisites: list[PrerequisiteDocument]
    holdouts: list[str]
    holdout: dict[str, Any] | None
    unit: str
    metrics: list[dict[str, Any]]
    primary_metric: str | None
    guardrail_metrics: list[str]
    target_sample_size: int | None
    significance_level: float
    power: float
    minimum_detectable_effect: float | None
    analysis: dict[str, Any]
    activation_event: dict[str, Any] | None
    circuit_breaker: dict[str, Any] | None
    circuit_breaker_state: CircuitBreakerDocument | None
    bandit_state: BanditDocument | None
    preregistration_hash: str | None
    winner: str | None
    decision: dict[str, Any] | None
    phase: int
    version: int


#: `from` is a word of Python, so that a class cannot have it.
_Retention = TypedDict("_Retention", {"from": NotRequired[str], "to": NotRequired[str]})


class MetricDocument(_Retention):
    """What a metric measures; fields that its type does not read, or that say nothing, are left out."""

    key: str
    name: str
    type: str
    event_type: str
    property: str | None
    direction: str
    role: str | None
    description: NotRequired[str]
    where: NotRequired[list[dict[str, Any]]]
    fold: NotRequired[str]
    denominator: NotRequired[dict[str, Any]]
    quantile: NotRequired[float]
    level: NotRequired[str]
    zeros: NotRequired[bool]
    steps: NotRequired[list[dict[str, Any]]]
    at_least: NotRequired[float]
    window: NotRequired[dict[str, str] | None]
    complete_only: NotRequired[bool | None]
    lookback: NotRequired[str | None]
    cap: NotRequired[dict[str, float] | None]
    margin: NotRequired[dict[str, float] | None]


class DefinitionDocument(MetricDocument):
    """A metric definition in its newest version; `experiments` are those that hold a copy of any version."""

    id: int
    version: int
    archived: bool
    created_at: str
    updated_at: str
    updated_by: str
    experiments: list[int]


class MetricVersionDocument(MetricDocument):
    """What a metric definition said in one version, since when, and who made it say so."""

    version: int
    changed_at: str
    changed_by: str


class TemplateDocument(TypedDict):
    """What experiments of a kind begin with: `body` holds fields of a new experiment."""

    id: int
    key: str
    name: str
    description: str
    body: dict[str, Any]
    created_at: str
    created_by: str


class SegmentDocument(TypedDict):
    """A segment; `key` is what conditions call its list."""

    id: int
    key: str
    name: str
    description: str
    rules: dict[str, Any] | None
    private: bool
    member_count: int
    experiments: list[int]
    created_at: str
    updated_at: str
    version: int


class KeyDocument(TypedDict):
    """An API key, without its secret; `experiments` and `tags` are what it is limited to, null for all."""

    id: int
    name: str
    role: str
    prefix: str
    experiments: list[int] | None
    tags: list[str] | None
    is_active: bool
    created_at: str
    last_used_at: str | None
    expires_at: str | None


class AuditDocument(TypedDict):
    """One entry of the audit log."""

    id: int
    at: str
    actor: str
    key_id: int | None
    request_id: str | None
    action: str
    noun: str
    noun_id: int | None
    experiment_id: int | None
    user_id: str | None
    reason: str | None
    changes: dict[str, Any]


class PhaseDocument(TypedDict):
    """A stretch with unchanged allocation."""

    number: int
    started_at: str
    ended_at: str | None
    traffic_allocation: float
    variants: list[dict[str, Any]]
    condition: dict[str, Any] | None
    layer: LayerShareDocument | None
    segments: list[int]
    prerequisites: list[PrerequisiteDocument]


class OverrideDocument(TypedDict):
    """A forced variant: `unit_id` is an id of the experiment's `unit`; `user_id` is another name of it."""

    experiment_id: int
    unit: str
    unit_id: str
    user_id: str
    variant_id: int
    variant: str
    created_at: str


def iso(moment: datetime) -> str:
    """A moment as the API writes it: `2026-11-21T07:49:53.123456Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def iso_or_none(moment: datetime | None) -> str | None:
    """The same for a moment that may be missing."""
    return None if moment is None else iso(moment)


def percent(fraction: float) -> float:
    """A fraction in percent, free of the digits that multiplying adds."""
    return round(fraction * 100, 9)


def variant(row: Variant) -> VariantDocument:
    """A variant."""
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "description": row.description,
        "allocation": row.allocation,
        "allocation_percent": percent(row.allocation),
        "enabled": row.enabled,
        "is_control": row.is_control,
        "config": row.config,
    }


def experiment(row: Experiment) -> ExperimentDocument:
    """An experiment with its variants, tags and segments, which must be loaded."""
    winner = next((arm.key for arm in row.variants if arm.id == row.winner_id), None)
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "description": row.description,
        "hypothesis": row.hypothesis,
        "owner": row.owner,
        "tags": [each.tag for each in row.tags],
        "status": str(row.status),
        "created_at": iso(row.created_at),
        "start_at": iso_or_none(row.start_at),
        "end_at": iso_or_none(row.end_at),
        "schedule_error": row.schedule_error,
        "ramp": row.ramp,
        "ramp_state": _ramp(row),
        "started_at": iso_or_none(row.started_at),
        "ended_at": iso_or_none(row.ended_at),
        "traffic_allocation": row.coverage,
        "variants": [variant(arm) for arm in row.variants if not arm.removed],
        "segments": [{"id": each.id, "name": each.name} for each in row.segments],
        "condition": row.condition,
        "private": row.private,
        "layer": row.layer,  # type: ignore[typeddict-item]
        "prerequisites": prerequisites(row, of_holdouts=False),
        "holdouts": [each.parent.key for each in row.prerequisites if each.holdout],
        "holdout": row.holdout,
        "unit": row.unit,
        "metrics": _metrics(row),
        "primary_metric": metrics.primary(row.metrics),
        "guardrail_metrics": metrics.guardrails(row.metrics),
        "target_sample_size": row.target_sample_size,
        "significance_level": row.significance_level,
        "power": row.power,
        "minimum_detectable_effect": row.minimum_detectable_effect,
        "analysis": row.analysis,
        "activation_event": row.activation,
        "circuit_breaker": row.breaker,
        "circuit_breaker_state": _breaker(row),
        "bandit_state": row.bandit_state,  # type: ignore[typeddict-item]
        "preregistration_hash": row.plan_hash,
        "winner": winner,
        "decision": row.decision,
        "phase": row.phase,
        "version": row.version,
    }


def _ramp(row: Experiment) -> RampDocument | None:
    if row.ramp is None:
        return None
    state = row.ramp_state or {"opened": 0, "halted_at": None, "reason": None}
    if row.status == "draft":
        status = "planned"
    elif state["opened"] == len(row.ramp):
        status = "finished"
    elif row.status in {"stopped", "archived"}:
        status = "ended"
    else:
        status = "halted" if state["halted_at"] else row.status
    return {
        "status": status,
        "opened": state["opened"],
        "next_at": iso_or_none(row.ramp_due_at),
        "halted_at": state["halted_at"],
        "reason": state["reason"],
    }


def _breaker(row: Experiment) -> CircuitBreakerDocument | None:
    state = row.breaker_state
    if state is None and row.breaker is None:
        return None
    done = state or {}
    status = "armed" if state is None else "tripped" if state["resumed_at"] is None else "resumed"
    return {
        "status": status,
        "action": done.get("action"),
        "tripped_at": done.get("tripped_at"),
        "reason": done.get("reason"),
        "evidence": done.get("evidence"),
        "resumed_at": done.get("resumed_at"),
        "resumed_by": done.get("resumed_by"),
        "since_phase": done.get("since_phase", 0),
    }


def prerequisites(row: Experiment, *, of_holdouts: bool | None) -> list[PrerequisiteDocument]:
    """What an experiment requires of holdouts, of others, or with None of both."""
    return [
        {"experiment_id": each.parent_id, "experiment": each.parent.key, "variants": each.variants}
        for each in row.prerequisites
        if of_holdouts is None or each.holdout is of_holdouts
    ]


def _metrics(row: Experiment) -> list[dict[str, Any]]:
    newest = {each.key: each.version for each in row.definitions}
    return [
        {**metric, "newest_version": newest.get(metric["definition"])} if "definition" in metric else metric
        for metric in row.metrics
    ]


def definition(row: MetricDefinition, experiments: list[int]) -> DefinitionDocument:
    """A metric definition in its newest version, and the ids of the experiments that hold a copy."""
    return {
        "id": row.id,
        "key": row.key,
        **row.body,  # type: ignore[typeddict-item]
        "version": row.version,
        "archived": row.archived_at is not None,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "updated_by": row.updated_by,
        "experiments": experiments,
    }


def metric_version(key: str, row: MetricVersion) -> MetricVersionDocument:
    """What a metric definition said in one version."""
    return {
        "key": key,
        **row.body,  # type: ignore[typeddict-item]
        "version": row.version,
        "changed_at": iso(row.changed_at),
        "changed_by": row.changed_by,
    }


def template(row: Template) -> TemplateDocument:
    """A template."""
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "description": row.description,
        "body": row.body,
        "created_at": iso(row.created_at),
        "created_by": row.created_by,
    }


def segment(row: Segment, experiments: list[int]) -> SegmentDocument:
    """A segment and the ids of the experiments it is attached to."""
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "description": row.description,
        "rules": row.rules,
        "private": row.private,
        "member_count": row.member_count,
        "experiments": experiments,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "version": row.version,
    }


def user(row: User) -> dict[str, Any]:
    """A user as one flat document."""
    return {"id": row.id, "created_at": iso(row.created_at), **row.attributes}


def key(row: ApiKey, now: datetime) -> KeyDocument:
    """An API key; whether it is active depends on the time."""
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "prefix": row.prefix,
        "experiments": None if row.scope is None else row.scope["experiments"],
        "tags": None if row.scope is None else row.scope["tags"],
        "is_active": row.revoked_at is None and (row.expires_at is None or row.expires_at > now),
        "created_at": iso(row.created_at),
        "last_used_at": iso_or_none(row.last_used_at),
        "expires_at": iso_or_none(row.expires_at),
    }


def audit_entry(row: AuditEntry) -> AuditDocument:
    """One entry of the audit log."""
    return {
        "id": row.id,
        "at": iso(row.at),
        "actor": row.actor,
        "key_id": row.key_id,
        "request_id": row.request_id,
        "action": row.action,
        "noun": row.noun,
        "noun_id": row.noun_id,
        "experiment_id": row.experiment_id,
        "user_id": row.user_id,
        "reason": row.reason,
        "changes": row.changes,
    }


def phase(row: Phase) -> PhaseDocument:
    """A phase with the allocation that was in force."""
    return {
        "number": row.number,
        "started_at": iso(row.started_at),
        "ended_at": iso_or_none(row.ended_at),
        "traffic_allocation": row.coverage,
        "variants": row.allocations,
        "condition": row.condition,
        "layer": row.layer,  # type: ignore[typeddict-item]
        "segments": row.segments,
        "prerequisites": row.prerequisites or [],  # type: ignore[typeddict-item]
    }


def override(row: Override, arm: Variant, unit: str) -> OverrideDocument:
    """A forced variant in an experiment on `unit`."""
    return {
        "experiment_id": row.experiment_id,
        "unit": unit,
        "unit_id": row.unit_id,
        "user_id": row.unit_id,
        "variant_id": arm.id,
        "variant": arm.name,
        "created_at": iso(row.created_at),
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What changed, as `{field: {"from": …, "to": …}}`; fields that only count changes are left out."""
    return {
        name: {"from": before.get(name), "to": after.get(name)}
        for name in {**before, **after}
        if name not in {"version", "updated_at", "phase"} and before.get(name) != after.get(name)
    }
