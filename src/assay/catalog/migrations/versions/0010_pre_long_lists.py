"""Lists of members in numbered versions, of which one is in force, and the digests of long ones.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID_TEXT = sa.String(1000).with_variant(sa.String(1000, collation="C"), "postgresql")


def upgrade() -> None:
    """Number the lists there are 0, and make the tables beside them."""
    op.add_column("segments", sa.Column("list", sa.Integer(), nullable=False, server_default="0"))
    if op.get_context().dialect.name == "postgresql":
        op.add_column("segment_members", sa.Column("list", sa.Integer(), nullable=False, server_default="0"))
        op.drop_index(op.f("ix_segment_members_user_id"), "segment_members")
        op.drop_constraint(op.f("pk_segment_members"), "segment_members", type_="primary")
        op.create_primary_key(
            op.f("pk_segment_members"), "segment_members", ["segment_id", "list", "user_id"]
        )
    else:
        _copy_members()
    op.create_table(
        "spare_lists",
        sa.Column("segment_id", _ID, autoincrement=False, nullable=False),
        sa.Column("list", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        _segment("spare_lists"),
        sa.PrimaryKeyConstraint("segment_id", "list", name=op.f("pk_spare_lists")),
    )
    op.create_table(
        "list_digests",
        sa.Column("segment_id", _ID, autoincrement=False, nullable=False),
        sa.Column("members_version", sa.Integer(), nullable=False),
        sa.Column("digests", sa.LargeBinary(), nullable=False),
        _segment("list_digests"),
        sa.PrimaryKeyConstraint("segment_id", name=op.f("pk_list_digests")),
    )


def _segment(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_segment_id")
    return sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=name, ondelete="CASCADE")


def _copy_members() -> None:
    """SQLite changes no primary key in place."""
    op.rename_table("segment_members", "segment_members_before")
    op.create_table(
        "segment_members",
        sa.Column("segment_id", _ID, autoincrement=False, nullable=False),
        sa.Column("list", sa.Integer(), autoincrement=False, nullable=False, server_default="0"),
        sa.Column("user_id", _ID_TEXT, nullable=False),
        _segment("segment_members"),
        sa.PrimaryKeyConstraint("segment_id", "list", "user_id", name=op.f("pk_segment_members")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO segment_members (segment_id, list, user_id) "
        "SELECT segment_id, 0, user_id FROM segment_members_before ORDER BY segment_id, user_id"
    )
    op.drop_table("segment_members_before")
