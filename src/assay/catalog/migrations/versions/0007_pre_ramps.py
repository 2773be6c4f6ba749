"""Traffic that grows by a schedule.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("experiments", sa.Column("ramp", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("experiments", sa.Column("ramp_state", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("experiments", sa.Column("ramp_due_at", sa.DateTime(timezone=True), nullable=True))
