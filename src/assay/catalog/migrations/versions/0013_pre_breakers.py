"""Circuit breakers, and what bandits have done.

Revision ID: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for name in ("breaker", "breaker_state", "bandit_state"):
        op.add_column("experiments", sa.Column(name, sa.JSON(none_as_null=True), nullable=True))
