"""What shadows say and what true labels say about them, and indexes for a million rows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "comparisons",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.Text),
    )
    op.create_table(
        "shadow_answers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("comparison", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("row_number", sa.Integer, nullable=False),
        sa.Column("live_label", sa.String(256), nullable=False),
        sa.Column("shadow_label", sa.String(256)),
        sa.Column("true_label", sa.String(256)),
    )
    columns = ["request_id", "row_number", "comparison"]
    op.create_index("shadow_answers_by_request", "shadow_answers", columns, unique=True)
    op.create_index("answers_by_version", "answers", ["model", "version", "id", "kept", "share"])
    judged = "(state <> 'open' OR true_label IS NOT NULL)"
    op.create_index("answers_by_reason", "answers", ["reason", "id"], **_only("reason IS NOT NULL"))
    op.create_index("answers_asked", "answers", ["kept", "id"], **_only("kept = 'asked'"))
    op.create_index("answers_judged", "answers", ["model", "version", "id"], **_only(judged))


def _only(condition: str) -> dict[str, Any]:
    return {f"{name}_where": sa.text(condition) for name in ("sqlite", "postgresql")}


def downgrade() -> None:
    """Drop them, with all that they hold."""
    for index in ("answers_judged", "answers_asked", "answers_by_reason", "answers_by_version"):
        op.drop_index(index, "answers")
    op.drop_table("shadow_answers")
    op.drop_table("comparisons")
