"""The database of the store: where it is, how it is reached, and its tables brought up to date."""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import ArgumentError

from dubio.serving.errors import StoreUnusable

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "postgresql+psycopg": None}
_SECONDS = 5
_AGAIN_SECONDS = 0.01
# A network that swallows everything is noticed so.
_ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000}
_MIGRATIONS = Path(__file__).with_name("migrations")
# Of several workers, one makes the tables, or deletes what is too much; any number that nobody else locks.
_LOCK = 0x647562696F
# With which every file of SQLite begins.
_MAGIC = b"SQLite format 3\0"
# Alembic keeps what it is doing in a global variable.
_ALEMBIC = Lock()


class Database:
    """A database that may be down when this is made, and at any time later.

    Args:
        url: As `locate` or `of_file` gives it.

    Raises:
        StoreUnusable: Its file cannot be written, or is no database.
    """

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_file(Path(str(url.database)))
            self._engine = sa.create_engine(url, connect_args={"timeout": _SECONDS})
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = sa.create_engine(
                url, pool_pre_ping=True, pool_timeout=_SECONDS, connect_args={"connect_timeout": _SECONDS, **_ALIVE}
            )
        # Whoever drops this leaves no connection open.
        weakref.finalize(self, self._engine.dispose).atexit = False

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees the database as it was at its first statement."""
        options: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._engine.connect().execution_options(**options) as connection:
            if not self.is_sqlite:
                # Rows lie in the order of their identifiers, which PostgreSQL does not see of an index that begins with
                # something else; so it would rather walk through all rows from the newest on.
                connection.execute(sa.text("SET LOCAL random_page_cost = 1.1"))
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection whose changes are on disk when it is left, or none of them ever is."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def exclusive(self) -> Iterator[sa.Connection]:
        """One to write with, while no other process is here, too."""
        with self.writing() as connection:
            if not self.is_sqlite:  # where only one writes anyway
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def upgrade(self) -> None:
        """Bring the tables up to date, once however many workers start.

        Raises:
            StoreUnusable: A newer release made them.
        """
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with _ALEMBIC, self.exclusive() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreUnusable(
                    f"Expected tables of this release or an older one in {self}, but: {error}; run the newer release, "
                    "or name another database."
                ) from error

    def forget_connections(self) -> None:
        """Begin anew with the next connection; the present ones may be dead."""
        self._engine.dispose()

    def __str__(self) -> str:
        """Where it is, without passwords, of which libpq takes some in the query, too."""
        query = {name: "***" if "password" in name else value for name, value in self._url.query.items()}
        return self._url.set(query=query).render_as_string(hide_password=True)


def of_file(path: Path) -> sa.URL:
    """The SQLite database in a file, whatever is in its name."""
    return sa.URL.create("sqlite", database=str(path))


def locate(url: str) -> sa.URL:
    """The database that a URL names.

    Raises:
        StoreUnusable: It is no such URL, or its driver is not installed. No message repeats a password.
    """
    rule = (
        "Expected the database to be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME, but {}; set "
        "DUBIO_DATABASE_URL to such a URL."
    )
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise StoreUnusable(rule.format("it is no URL")) from error
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise StoreUnusable(rule.format("it names no file"))
        return parsed
    if parsed.drivername not in _DRIVERS:
        raise StoreUnusable(rule.format(f"it begins with {parsed.drivername[:40]!r}"))
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise StoreUnusable(
            f"Expected the driver of PostgreSQL, but it cannot be imported: {error}; pip install 'dubio[postgres]'."
        ) from error
    return parsed.set(drivername="postgresql+psycopg")


def tell(error: Exception) -> str:
    """An error in one line, without the statement and its values, which hold what callers sent."""
    said = str(getattr(error, "orig", None) or error).partition("DETAIL:")[0]  # where PostgreSQL shows the row
    return " ".join(said.split())[:300] or type(error).__name__


def _make_file(path: Path) -> None:
    """Make the file of a SQLite database, for nobody else's eyes; leave one that is there.

    Raises:
        StoreUnusable: It cannot be written, or is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            begin = os.read(descriptor, len(_MAGIC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnusable(
            f"Expected to write the store's database {path}, but: {error.strerror}; name another file."
        ) from error
    if begin not in (b"", _MAGIC):
        raise StoreUnusable(f"Expected {path} to be a SQLite database or new, but it is something else; name another.")


def _set_up_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    cursor = connection.cursor()
    _write_ahead(cursor)
    # With less, what was committed last may be lost when the machine loses its power.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Choose how a file is written; SQLite itself does not wait where another process does so at the same moment."""
    until = time.monotonic() + _SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(_AGAIN_SECONDS)


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads before it writes would fail where another one wrote meanwhile.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
