"""How long rows are kept: by their age, and by the size of all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlalchemy as sa

from dubio.serving.store.database import Database
from dubio.serving.store.shadow_rows import ROW_BYTES
from dubio.serving.store.tables import State, answers, begin_of, shadow_answers

# Deleted at a time, so that whoever writes meanwhile does not wait long.
_CHUNK = 1000
_DAY_MS = 86_400_000
# Of the bytes, for what shadows said.
_SHADOWS = 1 / 8


@dataclass(frozen=True)
class Retention:
    """What is deleted.

    Attributes:
        days: Rows that are older go.
        nbytes: Where all rows take more, the oldest go: first those that nobody reviewed, then the others.
    """

    days: float
    nbytes: int

    def step(self, database: Database) -> int:
        """Delete a part of what is too old or too much.

        Returns:
            How many rows; 0 if there is no more to delete.
        """
        oldest_ms = max(0, time.time_ns() // 1_000_000 - int(self.days * _DAY_MS))
        for table in (answers, shadow_answers):
            old = sa.select(table.c.id).where(table.c.id < begin_of(oldest_ms)).order_by(table.c.id).limit(_CHUNK)
            with database.writing() as connection:
                deleted = connection.execute(sa.delete(table).where(table.c.id.in_(old))).rowcount
            if deleted:
                return deleted
        with database.reading() as connection:  # so that nobody waits if there is nothing to do
            if max(self._surpluses(connection)) <= 0:
                return 0
        # What is too much is measured and deleted by one process at a time, or each would delete all of it.
        with database.exclusive() as connection:
            shadows, everything = self._surpluses(connection)
            if shadows > 0:
                return self._delete_shadows(connection, shadows)
            return self._delete_answers(connection, everything) if everything > 0 else 0

    def _surpluses(self, connection: sa.Connection) -> tuple[int, int]:
        """How many bytes what shadows said, and all rows, take too much."""
        rows = sa.select(sa.func.count()).select_from(shadow_answers)
        shadows = connection.execute(rows).scalar_one() * ROW_BYTES
        total = int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(answers.c.bytes), 0))).scalar_one())
        return shadows - int(self.nbytes * _SHADOWS), total + shadows - self.nbytes

    def _delete_shadows(self, connection: sa.Connection, surplus: int) -> int:
        count = min(_CHUNK, -(-surplus // ROW_BYTES))
        oldest = sa.select(shadow_answers.c.id).order_by(shadow_answers.c.id).limit(count)
        return connection.execute(sa.delete(shadow_answers).where(shadow_answers.c.id.in_(oldest))).rowcount

    def _delete_answers(self, connection: sa.Connection, surplus: int) -> int:
        chosen: list[str] = []
        for states in ([State.OPEN], [State.LABELLED, State.NOT_FOR_US]):
            if surplus <= 0 or len(chosen) == _CHUNK:
                break
            query = sa.select(answers.c.id, answers.c.bytes).where(answers.c.state.in_([*map(str, states)]))
            for identifier, size in connection.execute(query.order_by(answers.c.id).limit(_CHUNK - len(chosen))).all():
                if surplus > 0:
                    chosen.append(identifier)
                    surplus -= size
        return connection.execute(sa.delete(answers).where(answers.c.id.in_(chosen))).rowcount
