"""Writes what is kept, from one thread: in batches, off the request path, and again until it is on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from dubio.serving.errors import StoreUnusable
from dubio.serving.store import comparisons
from dubio.serving.store.database import Database, tell
from dubio.serving.store.inputs import StoredInput
from dubio.serving.store.retention import Retention
from dubio.serving.store.tables import shadow_answers

_log = logging.getLogger("dubio")

# Of one transaction. Building its rows takes the interpreter from whoever predicts, so they are not many.
_MOST_ROWS = 128
# What nobody waits for waits this long for company.
_GATHER_SECONDS = 0.5
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
_RETENTION_SECONDS = 60.0


class Parent(Protocol):
    """What rows are about, stored once."""

    @property
    def digest(self) -> str:
        """By which rows name it."""

    @property
    def content(self) -> str:
        """As it is stored."""


class Rows(Protocol):
    """Rows of one request, to be written."""

    def __len__(self) -> int:
        """How many."""

    @property
    def nbytes(self) -> int:
        """Memory that they take, about."""

    @property
    def table(self) -> Table:
        """Where to."""

    @property
    def parents(self) -> Table:
        """Where what they are about is stored."""

    @property
    def parent(self) -> Parent:
        """What they are about."""

    def to_database(self, stored: StoredInput) -> Iterator[dict[str, Any]]:
        """As the table has them."""


@dataclass(frozen=True)
class _Entry:
    rows: Rows
    nbytes: int
    done: Future[bool] | None

    def settle(self, stored: bool) -> None:
        if self.done is not None:
            self.done.set_result(stored)


class Writer:
    """One thread with a bounded queue.

    Args:
        database: Where to.
        stored_input: How much of the inputs.
        retention: What is deleted now and then.
        most_rows: That may wait; further ones are dropped.
        most_bytes: That these may take.
        written: Told how many rows are on disk.
        dropped: Told how many rows will never be.

    Attributes:
        failing: Whether the database could not be written to when it was tried last.
    """

    def __init__(
        self,
        database: Database,
        stored_input: StoredInput,
        retention: Retention,
        *,
        most_rows: int,
        most_bytes: int,
        written: Callable[[int], None],
        dropped: Callable[[int], None],
    ) -> None:
        self.failing = False
        self._database = database
        self._stored_input = stored_input
        self._retention = retention
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._written, self._dropped = written, dropped
        self._lock = threading.Lock()
        self._waiting: deque[_Entry] = deque()
        self._rows = self._bytes = 0  # of what waits, and of what is being written
        self._arrived = threading.Event()
        self._urgent = threading.Event()
        self._closing = threading.Event()
        self._ready = False
        self._tried = threading.Event()
        self._known: set[str] = set()  # digests of parents that are stored
        self._retention_due = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="dubio-store", daemon=True)

    def start(self) -> None:
        """Begin; until then everything waits."""
        self._thread.start()

    def wait_for_tables(self, seconds: float) -> None:
        """Wait until they were made at the start, or could not be."""
        self._tried.wait(seconds)

    @property
    def waiting_rows(self) -> int:
        """Rows that are not on disk yet."""
        return self._rows

    def has_room(self, rows: int, nbytes: int) -> bool:
        """Whether so much more may wait."""
        return self._rows + rows <= self._most_rows and self._bytes + nbytes <= self._most_bytes

    def put(self, rows: Rows, *, notify: bool) -> Future[bool] | None:
        """Queue rows, or drop them where too much waits.

        Args:
            rows: To write.
            notify: Whether somebody waits for them.

        Returns:
            If so, what becomes true once they are on disk, and false if they will never be.
        """
        done: Future[bool] | None = None
        if notify:
            done = Future()
            done.set_running_or_notify_cancel()  # so that nobody who stops waiting can cancel it
        entry = _Entry(rows, rows.nbytes, done)
        with self._lock:
            taken = not self._closing.is_set() and self.has_room(len(rows), entry.nbytes)
            if taken:
                self._waiting.append(entry)
                self._rows += len(rows)
                self._bytes += entry.nbytes
        if not taken:
            self._dropped(len(rows))
            entry.settle(False)
            return done
        if (notify or self._rows >= _MOST_ROWS) and not self._urgent.is_set():
            self._urgent.set()
        if not self._arrived.is_set():
            self._arrived.set()
        return done

    def close(self, seconds: float) -> None:
        """Write what waits, for so long; what is left then is dropped, which the log says."""
        self._closing.set()
        self._urgent.set()
        self._arrived.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        with self._lock:
            lost, self._waiting = list(self._waiting), deque()
        if self._rows:
            _log.error("The store: %d rows could not be written in time and are lost.", self._rows)
            self._dropped(self._rows)
        for entry in lost:
            entry.settle(False)
        self._database.forget_connections()

    def _run(self) -> None:
        while True:
            self._arrived.wait(max(0.0, self._retention_due - time.monotonic()))
            if self._arrived.is_set():
                self._urgent.wait(_GATHER_SECONDS)
                batch = self._take()
                if batch:
                    self._write(batch)
                elif self._closing.is_set():
                    return
            if time.monotonic() >= self._retention_due and not self._closing.is_set():
                self._tidy()

    def _take(self) -> list[_Entry]:
        """What to write next; whole requests, since one is acknowledged as a whole."""
        batch: list[_Entry] = []
        rows = 0
        with self._lock:
            while self._waiting and (not batch or rows + len(self._waiting[0].rows) <= _MOST_ROWS):
                batch.append(self._waiting.popleft())
                rows += len(batch[-1].rows)
            if not self._waiting and not self._closing.is_set():
                self._arrived.clear()
                self._urgent.clear()
        return batch

    def _write(self, batch: Sequence[_Entry]) -> None:
        """Write a batch, however often it takes; a row that no database takes is dropped by itself."""
        try:
            stored = self._insist(batch)
        except Exception as error:  # whatever it is, the next rows are to be written
            if len(batch) > 1:
                for entry in batch:
                    self._write([entry])
                return
            _log.error("The store: %d rows of one request cannot be written: %s", len(batch[0].rows), tell(error))
            stored = False
        rows = sum(len(entry.rows) for entry in batch)
        with self._lock:
            self._rows -= rows
            self._bytes -= sum(entry.nbytes for entry in batch)
        (self._written if stored else self._dropped)(rows)
        for entry in batch:
            entry.settle(stored)

    def _insist(self, batch: Sequence[_Entry]) -> bool:
        """Write a batch as soon as the database lets it; false if the service ends before."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            try:
                self._insert(batch)
            except (DataError, IntegrityError):
                raise
            except (SQLAlchemyError, OSError, StoreUnusable) as error:
                self._fail(error)
                if self._closing.wait(delay):
                    return False
                delay = min(2 * delay, _LAST_RETRY_SECONDS)
            else:
                self._recover()
                return True

    def _insert(self, batch: Sequence[_Entry]) -> None:
        self._prepare()
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        rows: defaultdict[Table, list[dict[str, Any]]] = defaultdict(list)
        for entry in batch:
            for row in entry.rows.to_database(self._stored_input):
                rows[entry.rows.table].append(row)
                time.sleep(0)  # whoever answers a request goes first
        new = {entry.rows.parent.digest: entry.rows for entry in batch}
        with self._database.writing() as connection:
            for digest in sorted(new.keys() - self._known):
                parent = insert(new[digest].parents).values(digest=digest, content=new[digest].parent.content)
                connection.execute(parent.on_conflict_do_nothing())
            # A transaction that failed may have been committed all the same.
            for table, values in rows.items():
                connection.execute(insert(table).on_conflict_do_nothing(), values)
            if shadow_answers in rows:
                comparisons.note_known(connection, [row["id"] for row in rows[shadow_answers]])
        self._known |= new.keys()

    def _prepare(self) -> None:
        if not self._ready:
            self._database.upgrade()
            self._ready = True

    def _tidy(self) -> None:
        """Delete a part of what is not kept; the next one after what came meanwhile is written."""
        deleted = 0
        try:
            self._prepare()
            deleted = self._retention.step(self._database)
        except Exception as error:  # whatever it is, rows are to be written
            self._fail(error)
        else:
            self._recover()
        self._retention_due = time.monotonic() + (0.0 if deleted else _RETENTION_SECONDS)
        self._tried.set()

    def _fail(self, error: Exception) -> None:
        if not self.failing:
            _log.error(
                "Cannot write to the store %s, so its rows wait, %d at most: %s",
                self._database,
                self._most_rows,
                tell(error),
            )
        self.failing, self._ready = True, False
        self._known.clear()
        self._database.forget_connections()

    def _recover(self) -> None:
        if self.failing:
            _log.info("The store can be written again.")
        self.failing = False
