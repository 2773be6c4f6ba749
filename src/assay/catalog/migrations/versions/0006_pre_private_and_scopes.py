"""What SDKs are not told: private experiments and segments, and what is outside a key's scope.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nothing was private, and no key had a scope."""
    op.add_column("api_keys", sa.Column("scope", sa.JSON(), nullable=True))
    for table in ("experiments", "segments"):
        op.add_column(table, sa.Column("private", sa.Boolean(), nullable=False, server_default=sa.false()))
