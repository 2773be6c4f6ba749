"""Its tables."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import JSON, DateTime, Float, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """All tables."""


class Experiment(Base):
    """An experiment."""

    __tablename__ = "experiments"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20), default="running")
    variants: Mapped[list["Variant"]] = relationship(order_by="Variant.id", lazy="selectin")


class Variant(Base):
    """One arm."""

    __tablename__ = "variants"

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    allocation: Mapped[float] = mapped_column(Float)
    config: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Assignment(Base):
    """Who got what."""

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("experiment_id", "user_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id"))
    user_id: Mapped[str] = mapped_column(String(200))
    variant_id: Mapped[int] = mapped_column(ForeignKey("variants.id"))
    assigned_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    variant: Mapped[Variant] = relationship(lazy="joined")


class Event(Base):
    """What a user did; the caller's event id is the primary key, so a repetition is refused."""

    __tablename__ = "events"
    __table_args__ = (Index("events_by_user", "user_id", "type", "timestamp"),)

    event_id: Mapped[str] = mapped_column(String(200), primary_key=True, default=lambda: str(uuid4()))
    user_id: Mapped[str] = mapped_column(String(200))
    type: Mapped[str] = mapped_column(String(200))
    timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    value: Mapped[float | None] = mapped_column(Float)
    properties: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
