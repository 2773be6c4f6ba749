"""The version of the catalog that each change made, so that a past moment can be named by it.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of changes until now the version is not known."""
    op.add_column("audit", sa.Column("ruleset_version", sa.BigInteger(), nullable=True))
