"""Prerequisites and holdouts.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table, and room for what refers to it."""
    op.create_table(
        "prerequisites",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("parent_id", _ID, nullable=False),
        sa.Column("holdout", sa.Boolean(), nullable=False),
        sa.Column("variants", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_prerequisites_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["experiments.id"], name=op.f("fk_prerequisites_parent_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "parent_id", name=op.f("pk_prerequisites")),
    )
    op.create_index(op.f("ix_prerequisites_parent_id"), "prerequisites", ["parent_id"])
    op.add_column("experiments", sa.Column("holdout", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("phases", sa.Column("prerequisites", sa.JSON(none_as_null=True), nullable=True))
