"""Metric definitions, frozen plans and templates.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    kind = sa.Text if length is None else sa.String
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables, and room in the experiments for what refers to them."""
    op.add_column("experiments", sa.Column("activation", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("experiments", sa.Column("plan_hash", _bytewise(64), nullable=True))
    _definitions()
    op.create_table(
        "preregistrations",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("frozen_by", _bytewise(200), nullable=False),
        sa.Column("plan", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("hash", _bytewise(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_preregistrations_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", name=op.f("pk_preregistrations")),
    )
    op.create_table(
        "templates",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("key", _bytewise(200), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("description", _bytewise(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", _bytewise(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_templates")),
        sa.UniqueConstraint("key", name=op.f("uq_templates_key")),
        sqlite_autoincrement=True,
    )


def _definitions() -> None:
    op.create_table(
        "metric_definitions",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("key", _bytewise(200), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", _bytewise(200), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric_definitions")),
        sa.UniqueConstraint("key", name=op.f("uq_metric_definitions_key")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "metric_versions",
        sa.Column("definition_id", _ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", _bytewise(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["metric_definitions.id"],
            name=op.f("fk_metric_versions_definition_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("definition_id", "version", name=op.f("pk_metric_versions")),
    )
    op.create_table(
        "experiment_definitions",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("definition_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_experiment_definitions_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["metric_definitions.id"],
            name=op.f("fk_experiment_definitions_definition_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "definition_id", name=op.f("pk_experiment_definitions")),
    )
    op.create_index(
        op.f("ix_experiment_definitions_definition_id"), "experiment_definitions", ["definition_id"]
    )
