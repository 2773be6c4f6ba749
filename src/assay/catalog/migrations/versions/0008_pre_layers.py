"""Layers and who holds their slots; the ranges that experiments had of layers become slots.

Revision ID: 0008
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SLOTS = 10_000


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    kind = sa.Text if length is None else sa.String
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables, and carry over what experiments said of layers."""
    op.create_table(
        "layers",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("key", _bytewise(200), nullable=False),
        sa.Column("name", _bytewise(200), nullable=False),
        sa.Column("description", _bytewise(), nullable=False),
        sa.Column("unit", _bytewise(200), nullable=False),
        sa.Column("wash_out", _bytewise(16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_layers")),
        sa.UniqueConstraint("key", name=op.f("uq_layers_key")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "layer_slots",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("layer_id", _ID, nullable=False),
        sa.Column("experiment_id", _ID, nullable=True),
        sa.Column("low", sa.Integer(), nullable=False),
        sa.Column("high", sa.Integer(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["layer_id"], ["layers.id"], name=op.f("fk_layer_slots_layer_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_layer_slots_experiment_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_layer_slots")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_layer_slots_layer_id"), "layer_slots", ["layer_id"])
    op.create_index(op.f("ix_layer_slots_experiment_id"), "layer_slots", ["experiment_id"])
    op.add_column("experiments", sa.Column("layer_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_experiments_layer_id"), "experiments", ["layer_id"])
    _carry_over()


def _carry_over() -> None:
    """A layer for each key that experiments mention; those under way hold what they had a range of."""
    connection = op.get_bind()
    moment = sa.DateTime(timezone=True)
    experiments = sa.table(
        "experiments",
        sa.column("id", sa.BigInteger),
        sa.column("status", sa.Text),
        sa.column("unit", sa.Text),
        sa.column("layer", sa.JSON(none_as_null=True)),
        sa.column("layer_id", sa.BigInteger),
    )
    phases = sa.table(
        "phases",
        sa.column("experiment_id", sa.BigInteger),
        sa.column("number", sa.Integer),
        sa.column("layer", sa.JSON(none_as_null=True)),
    )
    layers = sa.table(
        "layers",
        *(sa.column(name, sa.Text) for name in ("key", "name", "description", "unit", "wash_out")),
        sa.column("id", sa.BigInteger),
        sa.column("version", sa.Integer),
        sa.column("created_at", moment),
        sa.column("updated_at", moment),
    )
    held = sa.table(
        "layer_slots",
        *(sa.column(name, sa.BigInteger) for name in ("layer_id", "experiment_id", "low", "high")),
        sa.column("taken_at", moment),
    )
    now = datetime.now(UTC)
    known: dict[str, int] = {}
    for row in connection.execute(
        sa.select(experiments).where(experiments.c.layer.is_not(None)).order_by(experiments.c.id)
    ).all():
        key = row.layer["key"]
        if key not in known:
            connection.execute(
                layers.insert().values(
                    key=key,
                    name=key,
                    description="",
                    unit=row.unit,
                    wash_out="7d",
                    version=1,
                    created_at=now,
                    updated_at=now,
                )
            )
            known[key] = connection.scalar(sa.select(layers.c.id).where(layers.c.key == key)) or 0
        low, high = round(row.layer["low"] * _SLOTS), round(row.layer["high"] * _SLOTS)
        live = row.status in ("running", "paused")
        connection.execute(
            experiments.update()
            .where(experiments.c.id == row.id)
            .values(layer_id=known[key], layer=_share(row.layer, known[key], live=live))
        )
        if live:
            connection.execute(
                held.insert().values(
                    layer_id=known[key], experiment_id=row.id, low=low, high=high, taken_at=now
                )
            )
    for row in connection.execute(sa.select(phases).where(phases.c.layer.is_not(None))).all():
        mine = (phases.c.experiment_id == row.experiment_id) & (phases.c.number == row.number)
        number = known.get(row.layer["key"], 0)
        connection.execute(phases.update().where(mine).values(layer=_share(row.layer, number, live=True)))


def _share(layer: dict[str, object], number: int, *, live: bool) -> dict[str, object]:
    low, high = (round(float(str(layer[name])) * _SLOTS) for name in ("low", "high"))
    return {
        "id": number,
        "key": layer["key"],
        "share": (high - low) / _SLOTS,
        "slots": [[low, high]] if live else [],
    }
