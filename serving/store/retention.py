"""How long rows are kept: by their age, and by the size of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from dubio.serving.store.database import Database
from dubio.serving.store.tables import State, answers

# Deleted at a time, so that whoever writes meanwhile does not wait long.
_CHUNK = 1000
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Retention:
    """What is deleted.

    Attributes:
        days: Rows that are older go.
        nbytes: Where all rows take more, the oldest go: first those that nobody reviewed, then the others.
    """

    days: float
    nbytes: int

    def apply(self, database: Database, stopped: Callable[[], bool]) -> int:
        """Delete what is too old or too much, until it is `stopped`.

        Returns:
            How many rows.
        """
        oldest_ms = max(0, time.time_ns() // 1_000_000 - int(self.days * _DAY_MS))
        deleted = 0
        old = sa.select(answers.c.id).where(answers.c.id < f"{oldest_ms:012x}").order_by(answers.c.id).limit(_CHUNK)
        while not stopped():
            with database.writing() as connection:
                chunk = connection.execute(sa.delete(answers).where(answers.c.id.in_(old))).rowcount
            deleted += chunk
            if chunk < _CHUNK:
                break
        with database.reading() as connection:
            surplus = int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(answers.c.bytes), 0))).scalar_one())
        surplus -= self.nbytes
        for which in (answers.c.state == State.OPEN.value, answers.c.state != State.OPEN.value):
            query = sa.select(answers.c.id, answers.c.bytes).where(which).order_by(answers.c.id).limit(_CHUNK)
            while surplus > 0 and not stopped():
                with database.writing() as connection:
                    chosen = []
                    for identifier, size in connection.execute(query).all():
                        if surplus > 0:
                            chosen.append(identifier)
                            surplus -= size
                    connection.execute(sa.delete(answers).where(answers.c.id.in_(chosen)))
                deleted += len(chosen)
                if not chosen:
                    break
        return deleted
