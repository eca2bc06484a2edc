from __future__ import annotations

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from dubio.serving.store.database import Database
from dubio.serving.store.tables import metadata


def test_the_migrations_make_the_tables_that_are_used(url: sa.URL) -> None:
    database = Database(url)
    for _ in range(2):  # the second time there is nothing to do
        database.upgrade()
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.forget_connections()
