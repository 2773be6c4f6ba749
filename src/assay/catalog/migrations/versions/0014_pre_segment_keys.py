"""Keys of segments, by which conditions name their lists.

Revision ID: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; those that are there are called by their ids."""
    bytewise = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
    op.add_column("segments", sa.Column("key", bytewise, nullable=False, server_default=""))
    op.execute("UPDATE segments SET key = 'segment-' || CAST(id AS VARCHAR)")
    op.create_index(op.f("ix_segments_key"), "segments", ["key"], unique=True)
