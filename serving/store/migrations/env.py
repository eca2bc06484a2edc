"""Alembic's entry. `dubio.serving.store.database` calls it with a connection at hand."""

from __future__ import annotations

from alembic import context

from dubio.serving.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
