"""The tables of the catalog, as SQLAlchemy sees them.

`assignments` and `inbox` live in the same database but are read and written by plain SQL on the hot path;
they stand here so that one chain of migrations makes the whole database. Ids are never reused: a purged
experiment's number must not come back with somebody else's events. JSON is stored as it was written, so that
its fields keep their order.

Relations load loudly (`lazy="raise"`): whoever reads says what it needs.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeEngine

#: Eight bytes everywhere; SQLite counts rows only in a column that says exactly INTEGER.
BigId = BigInteger().with_variant(Integer(), "sqlite")
#: SQL NULL for None, so that "nothing" is one thing in both databases.
Json = JSON(none_as_null=True)
_COUNTED = {"sqlite_autoincrement": True}


def Bytewise(length: int | None = None) -> TypeEngine[str]:  # noqa: N802 - stands where types stand
    """Text that sorts, and ignores case, by its bytes: the same in every database, whatever its locale."""
    kind = Text if length is None else String
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")


class Moment(TypeDecorator[datetime]):
    """A moment, always with its zone: SQLite stores it as UTC without one and gives it back with one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a time without a zone rather than guess it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give back the zone that SQLite does not keep."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Base of all tables; constraints get names by rule, so that later migrations can address them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Experiment(Table):
    """An experiment: what is tested, on whom, and what success means.

    `coverage` is the share of eligible units that enter. `phase` counts stretches of unchanged
    allocation, 0 before the first start. `start_at` and `end_at` are plans; `started_at` and
    `ended_at` are what happened. `schedule_error` says why a planned start did not happen. `plan_hash` is
    that of the plan which was frozen at the start. `ramp` are the steps by which coverage is to grow,
    `ramp_state` says how far it has come, and `ramp_due_at` when the next one opens. `breaker` says what
    a harmed guardrail does, `breaker_state` what one has done; `bandit_state` is the last re-weighting. What
    is `private` is evaluated by the server alone. `layer` is what it wants of a layer, with the slots
    it holds now, and `layer_id` which one. `version` grows with every change.
    """

    __tablename__ = "experiments"
    __table_args__ = (Index(None, "status"), Index(None, "layer_id"), _COUNTED)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(Bytewise(200), unique=True)
    name: Mapped[str] = mapped_column(Bytewise(200))
    description: Mapped[str] = mapped_column(Bytewise())
    hypothesis: Mapped[str] = mapped_column(Bytewise())
    owner: Mapped[str | None] = mapped_column(Bytewise(200))
    status: Mapped[str] = mapped_column(Bytewise(16))
    unit: Mapped[str] = mapped_column(Bytewise(200))
    coverage: Mapped[float] = mapped_column(Float(53))
    condition: Mapped[dict[str, Any] | None] = mapped_column(Json)
    private: Mapped[bool] = mapped_column(Boolean, server_default=false())
    layer: Mapped[dict[str, Any] | None] = mapped_column(Json)
    layer_id: Mapped[int | None] = mapped_column(BigInteger)
    holdout: Mapped[dict[str, Any] | None] = mapped_column(Json)
    metrics: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    target_sample_size: Mapped[int | None] = mapped_column(BigInteger)
    significance_level: Mapped[float] = mapped_column(Float(53))
    power: Mapped[float] = mapped_column(Float(53))
    minimum_detectable_effect: Mapped[float | None] = mapped_column(Float(53))
    analysis: Mapped[dict[str, Any]] = mapped_column(Json)
    activation: Mapped[dict[str, Any] | None] = mapped_column(Json)
    plan_hash: Mapped[str | None] = mapped_column(Bytewise(64))
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)
    start_at: Mapped[datetime | None] = mapped_column(Moment)
    end_at: Mapped[datetime | None] = mapped_column(Moment)
    schedule_error: Mapped[str | None] = mapped_column(Bytewise())
    ramp: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    ramp_state: Mapped[dict[str, Any] | None] = mapped_column(Json)
    ramp_due_at: Mapped[datetime | None] = mapped_column(Moment)
    breaker: Mapped[dict[str, Any] | None] = mapped_column(Json)
    breaker_state: Mapped[dict[str, Any] | None] = mapped_column(Json)
    bandit_state: Mapped[dict[str, Any] | None] = mapped_column(Json)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    winner_id: Mapped[int | None] = mapped_column(BigInteger)
    decision: Mapped[dict[str, Any] | None] = mapped_column(Json)
    phase: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer)

    variants: Mapped[list["Variant"]] = relationship(
        lazy="raise",
        order_by="Variant.position, Variant.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    tags: Mapped[list["Tag"]] = relationship(
        lazy="raise", order_by="Tag.position", cascade="all, delete-orphan", passive_deletes=True
    )
    segments: Mapped[list["Segment"]] = relationship(
        lazy="raise", secondary="experiment_segments", order_by="Segment.id", passive_deletes=True
    )
    prerequisites: Mapped[list["Prerequisite"]] = relationship(
        lazy="raise",
        order_by="Prerequisite.parent_id",
        foreign_keys="Prerequisite.experiment_id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    definitions: Mapped[list["MetricDefinition"]] = relationship(
        lazy="raise",
        secondary="experiment_definitions",
        order_by="MetricDefinition.id",
        passive_deletes=True,
    )


class Tag(Table):
    """One tag of an experiment; rows rather than a list, so that every database can filter by it."""

    __tablename__ = "experiment_tags"

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(Bytewise(100), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)


class Variant(Table):
    """One arm. Once its experiment has started it is never deleted, only `removed`: people have it."""

    __tablename__ = "variants"
    __table_args__ = (UniqueConstraint("experiment_id", "key"), _COUNTED)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(Bytewise(200))
    name: Mapped[str] = mapped_column(Bytewise(200))
    description: Mapped[str] = mapped_column(Bytewise())
    allocation: Mapped[float] = mapped_column(Float(53))
    enabled: Mapped[bool] = mapped_column(Boolean)
    is_control: Mapped[bool] = mapped_column(Boolean)
    config: Mapped[dict[str, Any]] = mapped_column(Json)
    position: Mapped[int] = mapped_column(Integer)
    removed: Mapped[bool] = mapped_column(Boolean)


class Phase(Table):
    """A stretch with unchanged allocation: what was in force, from when to when."""

    __tablename__ = "phases"

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    started_at: Mapped[datetime] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    coverage: Mapped[float] = mapped_column(Float(53))
    allocations: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    condition: Mapped[dict[str, Any] | None] = mapped_column(Json)
    layer: Mapped[dict[str, Any] | None] = mapped_column(Json)
    segments: Mapped[list[int]] = mapped_column(Json)
    prerequisites: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)


class Prerequisite(Table):
    """Another experiment that must serve a unit one of these variants, by key; with none of them, any.

    `holdout` says that the other one is a holdout: then the row was made by the start of this one.
    """

    __tablename__ = "prerequisites"
    __table_args__ = (Index(None, "parent_id"),)

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    parent_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    holdout: Mapped[bool] = mapped_column(Boolean)
    variants: Mapped[list[str]] = mapped_column(Json)

    parent: Mapped["Experiment"] = relationship(lazy="joined", innerjoin=True, foreign_keys=[parent_id])


class Layer(Table):
    """Experiments of which a unit can be in one at most: each holds slots of its own.

    `wash_out` is how long a slot rests after an experiment, as a duration.
    """

    __tablename__ = "layers"
    __table_args__ = (_COUNTED,)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(Bytewise(200), unique=True)
    name: Mapped[str] = mapped_column(Bytewise(200))
    description: Mapped[str] = mapped_column(Bytewise())
    unit: Mapped[str] = mapped_column(Bytewise(200))
    wash_out: Mapped[str] = mapped_column(Bytewise(16))
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)


class LayerSlots(Table):
    """Slots [low, high) of a layer that an experiment holds, or held until `released_at`.

    The row outlives its experiment: what was tried on a unit is not undone by a purge.
    """

    __tablename__ = "layer_slots"
    __table_args__ = (Index(None, "layer_id"), Index(None, "experiment_id"), _COUNTED)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    layer_id: Mapped[int] = mapped_column(ForeignKey("layers.id", ondelete="CASCADE"))
    experiment_id: Mapped[int | None] = mapped_column(ForeignKey("experiments.id", ondelete="SET NULL"))
    low: Mapped[int] = mapped_column(Integer)
    high: Mapped[int] = mapped_column(Integer)
    taken_at: Mapped[datetime] = mapped_column(Moment)
    released_at: Mapped[datetime | None] = mapped_column(Moment)


class Segment(Table):
    """A named part of the population, by rule, by list, or both.

    `version` grows with every change; `members_version` only when the list changes, so that a long
    list is not read again because somebody corrected a description. `list` is the number of the list in
    force.
    """

    __tablename__ = "segments"
    __table_args__ = (Index(None, "key", unique=True), _COUNTED)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Bytewise(200))
    key: Mapped[str] = mapped_column(Bytewise(200), server_default="")
    description: Mapped[str] = mapped_column(Bytewise())
    rules: Mapped[dict[str, Any] | None] = mapped_column(Json)
    private: Mapped[bool] = mapped_column(Boolean, server_default=false())
    member_count: Mapped[int] = mapped_column(BigInteger)
    list: Mapped[int] = mapped_column(Integer, server_default="0")
    members_version: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)


class SegmentMember(Table):
    """A user who is in a segment by name. Users need not be known to the catalog.

    Only rows of the segment's `list` count; others are on their way, or waiting to be removed. There is no
    index by user: it would double the cost of a long list, to serve an erasure now and then.
    """

    __tablename__ = "segment_members"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - as SQLAlchemy has it

    segment_id: Mapped[int] = mapped_column(
        ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    list: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, server_default="0")
    user_id: Mapped[str] = mapped_column(Bytewise(1000), primary_key=True)


class SpareList(Table):
    """A list of members that is not in force: being uploaded, or to be removed.

    `touched_at` is when it last grew; one that has not for a while has been abandoned.
    """

    __tablename__ = "spare_lists"

    segment_id: Mapped[int] = mapped_column(
        ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    list: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    touched_at: Mapped[datetime] = mapped_column(Moment)


class ListDigest(Table):
    """The sorted digests of a long list, so that no process need read its ids to know who is on it."""

    __tablename__ = "list_digests"

    segment_id: Mapped[int] = mapped_column(
        ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    members_version: Mapped[int] = mapped_column(Integer)
    digests: Mapped[bytes] = mapped_column(LargeBinary)


class ExperimentSegment(Table):
    """A segment attached to an experiment."""

    __tablename__ = "experiment_segments"
    __table_args__ = (Index(None, "segment_id"),)

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    segment_id: Mapped[int] = mapped_column(ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True)


class MetricDefinition(Table):
    """A metric that experiments refer to: `body` is its newest version, in the form experiments store.

    `archived_at` is when it was put away: experiments that have it keep it, no other may take it.
    """

    __tablename__ = "metric_definitions"
    __table_args__ = (_COUNTED,)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(Bytewise(200), unique=True)
    name: Mapped[str] = mapped_column(Bytewise(200))
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)
    updated_by: Mapped[str] = mapped_column(Bytewise(200))
    archived_at: Mapped[datetime | None] = mapped_column(Moment)


class MetricVersion(Table):
    """What a metric definition said in one of its versions, since when, and who made it say so."""

    __tablename__ = "metric_versions"

    definition_id: Mapped[int] = mapped_column(
        ForeignKey("metric_definitions.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    changed_at: Mapped[datetime] = mapped_column(Moment)
    changed_by: Mapped[str] = mapped_column(Bytewise(200))


class ExperimentDefinition(Table):
    """A metric definition that an experiment holds a copy of."""

    __tablename__ = "experiment_definitions"
    __table_args__ = (Index(None, "definition_id"),)

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    definition_id: Mapped[int] = mapped_column(
        ForeignKey("metric_definitions.id", ondelete="CASCADE"), primary_key=True
    )


class Preregistration(Table):
    """What an experiment set out to show, as it stood at its start. Written once, never changed."""

    __tablename__ = "preregistrations"

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    frozen_at: Mapped[datetime] = mapped_column(Moment)
    frozen_by: Mapped[str] = mapped_column(Bytewise(200))
    plan: Mapped[dict[str, Any]] = mapped_column(Json)
    hash: Mapped[str] = mapped_column(Bytewise(64))


class Template(Table):
    """The beginning of an experiment, for more of its kind: `body` is what a caller would write."""

    __tablename__ = "templates"
    __table_args__ = (_COUNTED,)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(Bytewise(200), unique=True)
    name: Mapped[str] = mapped_column(Bytewise(200))
    description: Mapped[str] = mapped_column(Bytewise())
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Moment)
    created_by: Mapped[str] = mapped_column(Bytewise(200))


class Look(Table):
    """A look at the results that may change a sequential verdict, with what it said. Never changed."""

    __tablename__ = "looks"

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(Moment)
    units: Mapped[int] = mapped_column(BigInteger)
    fraction: Mapped[float] = mapped_column(Float(53))
    verdicts: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    made_by: Mapped[str] = mapped_column(Bytewise(200))


class ReportSnapshot(Table):
    """A report as it stood: `document` is what was answered, letter for letter.

    `position` is the store's watermark, `why` says what it was made for, and `look` which look it is of.
    """

    __tablename__ = "report_snapshots"
    __table_args__ = (Index(None, "experiment_id", "computed_at"), _COUNTED)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    computed_at: Mapped[datetime] = mapped_column(Moment)
    why: Mapped[str] = mapped_column(Bytewise(16))
    look: Mapped[int | None] = mapped_column(Integer)
    position: Mapped[list[int | None]] = mapped_column(Json)
    units: Mapped[int] = mapped_column(BigInteger)
    verdict: Mapped[str] = mapped_column(Bytewise(32))
    headline: Mapped[str] = mapped_column(Bytewise())
    document: Mapped[str] = mapped_column(Bytewise())


class Override(Table):
    """A unit that is served a variant by decree, for checking an experiment by hand."""

    __tablename__ = "overrides"
    __table_args__ = (Index(None, "unit_id"),)

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    unit_id: Mapped[str] = mapped_column(Bytewise(1000), primary_key=True)
    variant_id: Mapped[int] = mapped_column(ForeignKey("variants.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(Moment)


class User(Table):
    """A user the application has described; all but `id` and `created_at` is attributes."""

    __tablename__ = "users"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[str] = mapped_column(Bytewise(1000), primary_key=True)
    attributes: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)


class ApiKey(Table):
    """An API key: the SHA-256 digest of the secret, in hexadecimal, never the secret.

    `scope` limits it to experiments, by `experiments` (ids) and `tags`; without one it may know of all.
    """

    __tablename__ = "api_keys"
    __table_args__ = (_COUNTED,)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Bytewise(200))
    role: Mapped[str] = mapped_column(Bytewise(16))
    digest: Mapped[str] = mapped_column(Bytewise(64), unique=True)
    prefix: Mapped[str] = mapped_column(Bytewise(32))
    scope: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
    last_used_at: Mapped[datetime | None] = mapped_column(Moment)


class AuditEntry(Table):
    """Who did what, when, and what it changed from what to what.

    No foreign keys: the record outlives what it is about. `user_id` names the person a row concerns,
    and nothing else in the row does, so that erasing them is one statement. `ruleset_version` is the version
    of the catalog that the change made, where it made one.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index(None, "experiment_id"),
        Index(None, "noun", "noun_id"),
        Index(None, "user_id"),
        _COUNTED,
    )

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(Moment)
    actor: Mapped[str] = mapped_column(Bytewise(200))
    key_id: Mapped[int | None] = mapped_column(BigInteger)
    request_id: Mapped[str | None] = mapped_column(Bytewise(128))
    action: Mapped[str] = mapped_column(Bytewise(64))
    noun: Mapped[str] = mapped_column(Bytewise(32))
    noun_id: Mapped[int | None] = mapped_column(BigInteger)
    experiment_id: Mapped[int | None] = mapped_column(BigInteger)
    user_id: Mapped[str | None] = mapped_column(Bytewise(1000))
    reason: Mapped[str | None] = mapped_column(Bytewise())
    changes: Mapped[dict[str, Any]] = mapped_column(Json)
    ruleset_version: Mapped[int | None] = mapped_column(BigInteger)


class CatalogVersion(Table):
    """One row that grows with every change other processes must notice."""

    __tablename__ = "catalog_version"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)


class Lease(Table):
    """Work that one process does: which, whose it is, and until when (microseconds, the database's clock)."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Bytewise(64), primary_key=True)
    holder: Mapped[str] = mapped_column(Bytewise(200))
    expires_at: Mapped[int] = mapped_column(BigInteger)


class Erasure(Table):
    """A unit whose traces were removed lately, for other processes to forget; itself removed soon after."""

    __tablename__ = "erasures"
    __table_args__ = (_COUNTED,)

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    unit_id: Mapped[str] = mapped_column(Bytewise(1000))
    erased_at: Mapped[datetime] = mapped_column(Moment)


class Assignment(Table):
    """The sticky record: which variant a unit got, when (microseconds UTC), and in which phase."""

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("experiment_id", "unit_id"), _COUNTED)

    seq: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    experiment_id: Mapped[int] = mapped_column(BigInteger)
    unit_id: Mapped[str] = mapped_column(Bytewise())
    variant_id: Mapped[int] = mapped_column(BigInteger)
    phase: Mapped[int] = mapped_column(Integer)
    assigned_at: Mapped[int] = mapped_column(BigInteger)


class Inbox(Table):
    """Acknowledged events on their way to the event store: one row is one request."""

    __tablename__ = "inbox"
    __table_args__ = (_COUNTED,)

    seq: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    body: Mapped[str] = mapped_column(Bytewise())
