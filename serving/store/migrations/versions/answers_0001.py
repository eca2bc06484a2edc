"""The first tables: answers, and what the models that gave them take and know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "signatures",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("row_number", sa.Integer, nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
        sa.Column("kept", sa.String(16), nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("input_form", sa.String(16), nullable=False),
        sa.Column("input_sha256", sa.String(64), nullable=False),
        sa.Column("input", sa.LargeBinary),
        sa.Column("label", sa.String(256), nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("mc_label", sa.String(256)),
        sa.Column("mc_probability", sa.Float),
        sa.Column("predictive_entropy", sa.Float),
        sa.Column("expected_entropy", sa.Float),
        sa.Column("mutual_information", sa.Float),
        sa.Column("flagged", sa.Boolean),
        sa.Column("p_value", sa.Float),
        sa.Column("level", sa.Float),
        sa.Column("reason", sa.String(40)),
        sa.Column("accepted", sa.Boolean),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("review_label", sa.String(256)),
        sa.Column("reviewed_ms", sa.BigInteger),
        sa.Column("true_label", sa.String(256)),
        sa.Column("feedback_ms", sa.BigInteger),
    )
    op.create_index("answers_by_request", "answers", ["request_id", "row_number"])
    op.create_index("answers_by_model", "answers", ["model", "id"])
    op.create_index("answers_by_state", "answers", ["state", "id", "bytes"])


def downgrade() -> None:
    """Drop them, with all that they hold."""
    op.drop_table("answers")
    op.drop_table("signatures")
