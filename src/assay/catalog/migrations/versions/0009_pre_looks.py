"""Looks, and reports as they stood.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    kind = sa.Text if length is None else sa.String
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "looks",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("fraction", sa.Float(53), nullable=False),
        sa.Column("verdicts", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("made_by", _bytewise(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_looks_experiment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "number", name=op.f("pk_looks")),
    )
    op.create_table(
        "report_snapshots",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", _bytewise(16), nullable=False),
        sa.Column("look", sa.Integer(), nullable=True),
        sa.Column("position", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("verdict", _bytewise(32), nullable=False),
        sa.Column("headline", _bytewise(), nullable=False),
        sa.Column("document", _bytewise(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_report_snapshots_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_snapshots")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_report_snapshots_experiment_id_computed_at"),
        "report_snapshots",
        ["experiment_id", "computed_at"],
    )
