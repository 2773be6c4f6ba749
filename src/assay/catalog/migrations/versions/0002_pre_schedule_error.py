"""Why a planned start did not happen.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("experiments", sa.Column("schedule_error", text, nullable=True))
