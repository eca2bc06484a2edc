"""What a database holds, by a connection of its own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from dubio.serving.store.tables import answers


def read_all(url: sa.URL) -> list[dict[str, Any]]:
    """Every row, the oldest first, over a connection of its own."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(answers).order_by(answers.c.id)).mappings().all()
    engine.dispose()
    return [dict(row) for row in rows]
