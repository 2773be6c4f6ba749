"""The first tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    """Text that sorts by its bytes in every database."""
    kind = sa.Text if length is None else sa.String
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("role", _bytewise(16), nullable=False),
        sa.Column("digest", _bytewise(64), nullable=False),
        sa.Column("prefix", _bytewise(32), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=True),
        sa.Column("revoked_at", _MOMENT, nullable=True),
        sa.Column("last_used_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "assignments",
        sa.Column("seq", _ID, sa.Identity(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("unit_id", _bytewise(), nullable=False),
        sa.Column("variant_id", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("assigned_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_assignments")),
        sa.UniqueConstraint("experiment_id", "unit_id", name=op.f("uq_assignments_experiment_id_unit_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("actor", _bytewise(200), nullable=False),
        sa.Column("key_id", sa.BigInteger(), nullable=True),
        sa.Column("request_id", _bytewise(128), nullable=True),
        sa.Column("action", _bytewise(64), nullable=False),
        sa.Column("noun", _bytewise(32), nullable=False),
        sa.Column("noun_id", sa.BigInteger(), nullable=True),
        sa.Column("experiment_id", sa.BigInteger(), nullable=True),
        sa.Column("user_id", _bytewise(1000), nullable=True),
        sa.Column("reason", _bytewise(), nullable=True),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_experiment_id"), "audit", ["experiment_id"], unique=False)
    op.create_index(op.f("ix_audit_noun_noun_id"), "audit", ["noun", "noun_id"], unique=False)
    op.create_index(op.f("ix_audit_user_id"), "audit", ["user_id"], unique=False)
    op.create_table(
        "catalog_version",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_version")),
    )
    op.create_table(
        "experiments",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("key", _bytewise(200), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("description", _bytewise(), nullable=False),
        sa.Column("hypothesis", _bytewise(), nullable=False),
        sa.Column("owner", _bytewise(200), nullable=True),
        sa.Column("status", _bytewise(16), nullable=False),
        sa.Column("unit", _bytewise(200), nullable=False),
        sa.Column("coverage", sa.Float(precision=53), nullable=False),
        sa.Column("condition", sa.JSON(), nullable=True),
        sa.Column("layer", sa.JSON(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("target_sample_size", sa.BigInteger(), nullable=True),
        sa.Column("significance_level", sa.Float(precision=53), nullable=False),
        sa.Column("power", sa.Float(precision=53), nullable=False),
        sa.Column("minimum_detectable_effect", sa.Float(precision=53), nullable=True),
        sa.Column("analysis", sa.JSON(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.Column("start_at", _MOMENT, nullable=True),
        sa.Column("end_at", _MOMENT, nullable=True),
        sa.Column("started_at", _MOMENT, nullable=True),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.Column("winner_id", sa.BigInteger(), nullable=True),
        sa.Column("decision", sa.JSON(), nullable=True),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
        sa.UniqueConstraint("key", name=op.f("uq_experiments_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_experiments_status"), "experiments", ["status"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("seq", _ID, sa.Identity(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("body", _bytewise(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_inbox")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "segments",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("description", _bytewise(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=True),
        sa.Column("member_count", sa.BigInteger(), nullable=False),
        sa.Column("members_version", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "users",
        sa.Column("id", _bytewise(1000), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(op.f("ix_users_created_at"), "users", ["created_at"], unique=False)
    op.create_table(
        "experiment_segments",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("segment_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_experiment_segments_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["segment_id"],
            ["segments.id"],
            name=op.f("fk_experiment_segments_segment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "segment_id", name=op.f("pk_experiment_segments")),
    )
    op.create_index(
        op.f("ix_experiment_segments_segment_id"), "experiment_segments", ["segment_id"], unique=False
    )
    op.create_table(
        "experiment_tags",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("tag", _bytewise(100), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_experiment_tags_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "tag", name=op.f("pk_experiment_tags")),
    )
    op.create_table(
        "phases",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.Column("coverage", sa.Float(precision=53), nullable=False),
        sa.Column("allocations", sa.JSON(), nullable=False),
        sa.Column("condition", sa.JSON(), nullable=True),
        sa.Column("layer", sa.JSON(), nullable=True),
        sa.Column("segments", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_phases_experiment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "number", name=op.f("pk_phases")),
    )
    op.create_table(
        "segment_members",
        sa.Column("segment_id", _ID, nullable=False),
        sa.Column("user_id", _bytewise(1000), nullable=False),
        sa.ForeignKeyConstraint(
            ["segment_id"], ["segments.id"], name=op.f("fk_segment_members_segment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("segment_id", "user_id", name=op.f("pk_segment_members")),
    )
    op.create_index(op.f("ix_segment_members_user_id"), "segment_members", ["user_id"], unique=False)
    op.create_table(
        "variants",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("key", _bytewise(200), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("description", _bytewise(), nullable=False),
        sa.Column("allocation", sa.Float(precision=53), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("is_control", sa.Boolean(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_variants_experiment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variants")),
        sa.UniqueConstraint("experiment_id", "key", name=op.f("uq_variants_experiment_id_key")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "overrides",
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("unit_id", _bytewise(1000), nullable=False),
        sa.Column("variant_id", _ID, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_overrides_experiment_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variants.id"], name=op.f("fk_overrides_variant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "unit_id", name=op.f("pk_overrides")),
    )
    op.create_index(op.f("ix_overrides_unit_id"), "overrides", ["unit_id"], unique=False)
