"""Experiments: create, edit, list, remove."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import func, or_, select

from assay.bucketing.ruleset import Status
from assay.catalog import (
    bandits,
    breakers,
    definitions,
    documents,
    keying,
    layers,
    lifecycle,
    metrics,
    preregistration,
    prerequisites,
    ramps,
    segments,
    variants,
)
from assay.catalog.checks import expect_storable, shown
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import LIVE, changing, expect_version, state_forbids, whole
from assay.catalog.groups import checked_rule
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit, ExperimentInput
from assay.catalog.tables import Experiment, Segment, Tag
from assay.errors import Invalid, NotFound

#: How long after its `start_at` a new plan still means "at once".
_DUE = timedelta(days=1)
#: Fields that are columns as they stand.
_PLAIN = {
    "name": "name",
    "description": "description",
    "hypothesis": "hypothesis",
    "owner": "owner",
    "private": "private",
    "traffic_allocation": "coverage",
    "unit": "unit",
    "target_sample_size": "target_sample_size",
    "significance_level": "significance_level",
    "power": "power",
    "minimum_detectable_effect": "minimum_detectable_effect",
}
#: Fields of an answer that are changed by other calls, if at all.
_READ_ONLY = {
    "id": "id",
    "experiment_id": "id",
    "created_at": "created_at",
    "started_at": "started_at",
    "start_time": "started_at",
    "ended_at": "ended_at",
    "end_time": "ended_at",
    "winner": "winner",
    "decision": "decision",
    "holdout": "holdout",
    "holdouts": "holdouts",
    "schedule_error": "schedule_error",
    "ramp_state": "ramp_state",
    "circuit_breaker_state": "circuit_breaker_state",
    "bandit_state": "bandit_state",
    "preregistration_hash": "preregistration_hash",
    "phase": "phase",
}


def create(
    tx: WriteTx,
    given: ExperimentCreate,
    *,
    status: Status = Status.DRAFT,
    holdout: dict[str, Any] | None = None,
) -> Experiment:
    """A new experiment; it starts at once where the caller, or else `status`, says `running`.

    `holdout` says what it keeps units out of, for one that is a holdout.
    """
    wanted = given.status or status
    if wanted not in {Status.DRAFT, Status.RUNNING}:
        raise Invalid.field("status", f"a new experiment is draft or running; got {wanted}")
    _refuse_past(given.start_at, given.end_at, tx.now)
    if given.start_at is not None and given.start_at > tx.now:
        if given.status == Status.RUNNING:
            raise _runs_already(given.start_at)
        wanted = Status.DRAFT  # it is to start later
    elif given.start_at is not None and given.status is None:
        wanted = Status.RUNNING  # it is due
    experiment = described(tx, given, tx.now)
    experiment.holdout = holdout
    tx.add(experiment)
    tx.flush()
    tx.refresh(experiment, ["variants", "tags", "segments", "prerequisites"])
    created = documents.difference({}, documents.experiment(experiment))
    tx.record("experiment.create", "experiment", experiment.id, experiment_id=experiment.id, changes=created)
    if wanted == Status.RUNNING:
        lifecycle.start(tx, experiment)
    return experiment


def described(tx: ReadTx, given: ExperimentCreate, now: datetime) -> Experiment:
    """The row of a draft as `create` would make it, not in the database. Raises what `create` would."""
    chosen = metrics.settled([], given, partial(definitions.look_up, tx), started=False)
    row = Experiment(
        key=keying.settled(tx, Experiment.key, "experiment", given.key, given.name),
        name=given.name,
        description=given.description,
        hypothesis=given.hypothesis,
        owner=given.owner,
        status=Status.DRAFT,
        unit=given.unit,
        coverage=given.traffic_allocation,
        condition=checked_rule(tx, given.condition, "condition"),
        private=given.private,
        layer=None,
        layer_id=None,
        holdout=None,
        prerequisites=[],
        metrics=chosen,
        target_sample_size=given.target_sample_size,
        significance_level=given.significance_level,
        power=given.power,
        minimum_detectable_effect=given.minimum_detectable_effect,
        analysis=given.analysis.normal,
        activation=given.activation_event.normal if given.activation_event else None,
        breaker=given.circuit_breaker.normal if given.circuit_breaker else None,
        created_at=now,
        updated_at=now,
        start_at=given.start_at,
        end_at=given.end_at,
        ramp=_ramp(given, given.traffic_allocation),
        phase=0,
        version=1,
        variants=variants.made(given.variants),
        tags=_tags(given.tags),
        segments=_segments(tx, given.segments),
        definitions=definitions.named(tx, chosen),
    )
    breakers.expect_guardrails(row.breaker, chosen)
    bandits.expect_sensible(row)
    layers.place(tx, row, given.layer)
    prerequisites.replace(tx, row, given.prerequisites)
    return row


def edit(
    tx: WriteTx, experiment: Experiment, given: ExperimentEdit, *, expected: frozenset[int] | None = None
) -> None:
    """Change what is given. A changed split of a started experiment begins a new phase.

    `expected` are the versions the caller may have been looking at. Raises `Stale` for another one.
    """
    expect_version(experiment.version, expected)
    if given.version is not None:
        expect_version(experiment.version, frozenset({given.version}))
    _refuse_read_only(experiment, given)
    with changing(tx, experiment, "experiment.edit"):
        if given.given("key"):
            _rename_key(tx, experiment, given.key)
        for field, column in _PLAIN.items():
            if given.given(field):
                setattr(experiment, column, getattr(given, field))
        _edit_rules(tx, experiment, given)
        _edit_schedule(tx, experiment, given)
        _edit_ramp(tx, experiment, given)
        if given.given("variants"):
            variants.replace(experiment, given.variants)
        if (
            given.given("variants")
            or given.given("analysis")
            or given.given("metrics")
            or given.names_primary
        ):
            bandits.expect_sensible(experiment)
        if given.given("tags") and given.tags != [each.tag for each in experiment.tags]:
            experiment.tags.clear()
            tx.flush()
            experiment.tags = _tags(given.tags)
    if given.status is not None:
        starts = given.status == Status.RUNNING and experiment.status == Status.DRAFT
        if starts and given.start_at is not None and given.start_at > tx.now:
            raise _runs_already(given.start_at)
        lifecycle.bring_to(tx, experiment, given.status)


def page(
    tx: ReadTx,
    *,
    status: Status | None = None,
    q: str | None = None,
    tag: str | None = None,
    skip: int = 0,
    limit: int = 100,
) -> tuple[list[Experiment], int]:
    """The newest experiments that match, and how many match. Archived ones only when asked for."""
    expect_storable("q", q)
    expect_storable("tag", tag)
    conditions = [Experiment.status == status if status else Experiment.status != Status.ARCHIVED]
    if q:
        pattern = "%" + q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        fields = (Experiment.name, Experiment.key, Experiment.description, Experiment.hypothesis)
        conditions.append(or_(*(field.ilike(pattern, escape="\\") for field in fields)))
    if tag:
        conditions.append(Experiment.id.in_(select(Tag.experiment_id).where(Tag.tag == tag)))
    total = tx.scalar(select(func.count()).select_from(Experiment).where(*conditions)) or 0
    rows = (
        select(Experiment)
        .where(*conditions)
        .order_by(Experiment.id.desc())
        .offset(skip)
        .limit(limit)
        .options(*whole())
    )
    return list(tx.scalars(rows)), total


def remove(tx: WriteTx, experiment: Experiment, *, purge: bool = False) -> str:
    """Delete a draft, archive a started experiment, or with `purge` delete it with all that belongs to it.

    Returns `deleted`, `archived` or `purged`. The audit log keeps its entries in every case. What other
    stores hold about a purged experiment is theirs to remove, after this transaction.
    """
    if not purge and experiment.status != Status.DRAFT:
        lifecycle.put_away(tx, experiment)
        return "archived"
    prerequisites.expect_unneeded(tx, experiment)
    what = "purge" if purge else "delete"
    changes = documents.difference(documents.experiment(experiment), {})
    tx.record(f"experiment.{what}", "experiment", experiment.id, experiment_id=experiment.id, changes=changes)
    tx.delete(experiment)
    return f"{what}d"


def attach(tx: WriteTx, experiment: Experiment, segment: Segment) -> None:
    """Let the units of a segment in, beside those of the segments already attached."""
    with changing(tx, experiment, "segment.attach"):
        if segment not in experiment.segments:
            experiment.segments.append(segment)


def detach(tx: WriteTx, experiment: Experiment, segment: Segment) -> None:
    """Take a segment off an experiment; without any, everybody is eligible. Raises `NotFound`."""
    if segment not in experiment.segments:
        raise NotFound(
            f"Segment {segment.id} is not attached to experiment {experiment.key}.", code="not_attached"
        )
    with changing(tx, experiment, "segment.detach"):
        experiment.segments.remove(segment)


def _rename_key(tx: ReadTx, experiment: Experiment, key: str | None) -> None:
    if key is None:
        raise Invalid.field("key", "must be a string; got null")
    if key != experiment.key:
        if experiment.status != Status.DRAFT:
            raise state_forbids(experiment, "its key decides who gets what and can no longer change")
        keying.refuse_taken(tx, Experiment.key, "experiment", key)
        experiment.key = key


def _refuse_read_only(experiment: Experiment, given: ExperimentEdit) -> None:
    current: Mapping[str, Any] = {**documents.experiment(experiment)}
    for name, field in _READ_ONLY.items():
        if given.given(name) and getattr(given, name) != current[field]:
            raise Invalid.field(
                name,
                f"cannot be changed here; it is {shown(current[field])}, got {shown(getattr(given, name))}",
            )


def _edit_rules(tx: ReadTx, experiment: Experiment, given: ExperimentEdit) -> None:
    """Targeting, layer, analysis and metrics: what needs a look before it is stored."""
    if given.given("condition"):
        experiment.condition = checked_rule(tx, given.condition, "condition")
    if given.given("layer"):
        layers.place(tx, experiment, given.layer)
    if given.given("prerequisites"):
        prerequisites.replace(tx, experiment, given.prerequisites)
    if given.given("unit"):
        layers.expect_unit(tx, experiment)
        prerequisites.expect_unit(tx, experiment)
    if given.given("analysis"):
        experiment.analysis = given.analysis.normal
    if given.given("activation_event"):
        experiment.activation = given.activation_event.normal if given.activation_event else None
    if given.given("segments"):
        experiment.segments = _segments(tx, given.segments)
    if given.given("metrics") or given.given("guardrail_metrics") or given.names_primary:
        look_up = partial(definitions.look_up, tx)
        experiment.metrics = metrics.settled(
            experiment.metrics,
            given,
            look_up,
            started=experiment.phase > 0,
            plan=preregistration.planned_metrics(tx, experiment),
        )
        experiment.definitions = definitions.named(tx, experiment.metrics)
    wanted = experiment.breaker
    if given.given("circuit_breaker"):
        wanted = given.circuit_breaker.normal if given.circuit_breaker else None
    if wanted != experiment.breaker or given.given("metrics") or given.given("guardrail_metrics"):
        breakers.expect_guardrails(wanted, experiment.metrics)
        experiment.breaker = wanted


def _edit_schedule(tx: WriteTx, experiment: Experiment, given: ExperimentInput) -> None:
    """The plans; one that is sent back as it is need not lie ahead any more."""
    if given.given("start_at") and given.start_at != experiment.start_at:
        if experiment.status != Status.DRAFT:
            raise state_forbids(experiment, "it has started already, so start_at cannot change")
        _refuse_past(given.start_at, None, tx.now)
        experiment.start_at = given.start_at
        experiment.schedule_error = None
    if given.given("end_at") and given.end_at != experiment.end_at:
        if experiment.status not in {Status.DRAFT, *LIVE}:
            raise state_forbids(experiment, "it has ended already, so end_at cannot change")
        _refuse_past(None, given.end_at, tx.now)
        experiment.end_at = given.end_at
    if (
        experiment.start_at is not None
        and experiment.end_at is not None
        and experiment.start_at >= experiment.end_at
    ):
        raise Invalid.field("end_at", "must be later than start_at")


def _edit_ramp(tx: WriteTx, experiment: Experiment, given: ExperimentInput) -> None:
    """The steps; others than before are counted from now where the experiment has started."""
    if given.given("ramp"):
        if [each.normal for each in given.ramp or ()] == (experiment.ramp or []):
            return
        if experiment.status not in {Status.DRAFT, *LIVE}:
            raise state_forbids(experiment, "it has ended already, so its ramp cannot change")
        experiment.ramp = _ramp(given, experiment.coverage)
        if experiment.status != Status.DRAFT:
            ramps.begin(experiment, tx.now)
            if experiment.status == Status.PAUSED:
                ramps.hold(experiment, tx.now)
    elif given.given("traffic_allocation") and experiment.status == Status.DRAFT:
        _expect_growth(experiment.ramp, experiment.coverage)


def _ramp(given: ExperimentInput, coverage: float) -> list[dict[str, Any]] | None:
    steps = [each.normal for each in given.ramp or ()]
    _expect_growth(steps, coverage)
    return steps or None


def _expect_growth(steps: Sequence[Mapping[str, Any]] | None, coverage: float) -> None:
    if steps and steps[0]["traffic_allocation"] <= coverage:
        raise Invalid.field(
            "ramp[0].traffic_allocation",
            f"must be more than traffic_allocation, with which the ramp begins and which is {coverage:g}; "
            f"got {steps[0]['traffic_allocation']:g}",
        )


def _refuse_past(start_at: datetime | None, end_at: datetime | None, now: datetime) -> None:
    """A time gone by is a slip, not a plan: acting on it would start or end the experiment for good.

    A start of the last day is due: clocks differ, forms take their time, and a date means its midnight.
    """
    if start_at is not None and start_at < now - _DUE:
        raise Invalid.field(
            "start_at",
            f"lies in the past; leave it out and start the experiment to let units in now; "
            f"got {documents.iso(start_at)}",
            code="in_the_past",
        )
    if end_at is not None and end_at <= now:
        raise Invalid.field(
            "end_at",
            f"lies in the past; to end a running experiment now, stop it; got {documents.iso(end_at)}",
            code="in_the_past",
        )


def _runs_already(start_at: datetime) -> Invalid:
    return Invalid.field(
        "start_at",
        f"is {documents.iso(start_at)}, but status running starts the experiment now; give one of them",
    )


def _tags(tags: Sequence[str]) -> list[Tag]:
    return [Tag(tag=tag, position=at) for at, tag in enumerate(dict.fromkeys(tags))]


def _segments(tx: ReadTx, references: Sequence[int | str]) -> list[Segment]:
    found: dict[int, Segment] = {}
    for at, each in enumerate(references):
        try:
            row = segments.find(tx, each)
        except NotFound as error:
            raise Invalid.field(f"segments[{at}]", error.detail, code="unknown_segment") from error
        found[row.id] = row
    return [found[each] for each in sorted(found)]
