from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from dubio.serving.errors import StoreUnusable
from dubio.serving.store.database import Database, locate, of_file, tell
from tests.serving.store.postgres import Postgres


def test_of_processes_that_start_together_one_makes_the_tables(url: sa.URL, tmp_path: Path) -> None:
    text = url.render_as_string(hide_password=False)
    code = f"from dubio.serving.store.database import *; Database(locate({text!r})).upgrade()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [(b"", 0)] * 3


OPENS = """
import sys, time
from pathlib import Path
from dubio.serving.store.database import Database, of_file

print("ready", flush=True)
begin = float(input())
for turn in range(20):
    database = Database(of_file(Path(sys.argv[1]) / f"{turn}.sqlite"))
    while time.monotonic() < begin + turn / 50:
        pass
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
"""


def test_who_opens_a_new_file_at_the_same_moment_waits(tmp_path: Path) -> None:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", OPENS, str(tmp_path)], **streams) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    begin = f"{time.monotonic() + 0.1}\n"
    for process in processes:
        process.stdin.write(begin)
        process.stdin.flush()
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 2


def test_tables_of_a_newer_release_are_left_alone(url: sa.URL) -> None:
    database = Database(url)
    database.upgrade()
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnusable, match="run the newer release"):
        database.upgrade()
    database.forget_connections()


def test_what_fails_in_a_transaction_leaves_nothing(url: sa.URL) -> None:
    database = Database(url)
    database.upgrade()
    insert = sa.text("INSERT INTO signatures VALUES ('d', '{}')")

    def fail() -> None:
        with database.writing() as connection:
            connection.execute(insert)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.writing() as connection:
        connection.execute(insert)
    with database.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM signatures")).scalar_one() == 1
    database.forget_connections()


def test_a_reader_sees_what_was_there_when_it_began(url: sa.URL) -> None:
    database = Database(url)
    database.upgrade()
    count = sa.text("SELECT count(*) FROM signatures")
    with database.reading() as reading:
        assert reading.execute(count).scalar_one() == 0
        with database.writing() as writing:
            writing.execute(sa.text("INSERT INTO signatures VALUES ('d', '{}')"))
        assert reading.execute(count).scalar_one() == 0
    database.forget_connections()


def test_commits_are_on_disk(tmp_path: Path) -> None:
    database = Database(of_file(tmp_path / "s"))
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    database.forget_connections()


def test_the_file_is_for_its_owner_alone_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "100% mine?.sqlite"
    database = Database(of_file(path))
    database.upgrade()
    database.forget_connections()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("nonsense", "it is no URL"),
        ("mysql://u:secret@h/n", "it begins with 'mysql'"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql+asyncpg://u:secret@h/n", r"it begins with 'postgresql\+asyncpg'"),
    ],
)
def test_what_is_no_database_is_refused(wrong: str, complaint: str) -> None:
    with pytest.raises(StoreUnusable, match=complaint) as refused:
        locate(wrong)
    assert "secret" not in str(refused.value)


def test_a_password_is_not_told() -> None:
    pytest.importorskip("psycopg")
    assert str(Database(locate("postgres://u:secret@localhost/n"))) == "postgresql+psycopg://u:***@localhost/n"


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk, and more")
    with pytest.raises(StoreUnusable, match="to be a SQLite database or new"):
        Database(of_file(path))
    assert path.read_text() == "buy milk, and more"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match="name another file"):
        Database(of_file(tmp_path / "file" / "store.sqlite"))
    assert os.listdir(tmp_path) == ["file"]


def test_no_password_is_shown_wherever_the_url_has_it() -> None:
    pytest.importorskip("psycopg")
    url = "postgresql://u:secret-1@host/name?password=secret-2&sslpassword=secret-3&sslmode=require"
    shown = str(Database(locate(url)))
    assert "secret" not in shown
    assert "sslmode=require" in shown


def test_what_a_row_holds_is_not_told(postgres: Postgres) -> None:
    database = Database(locate(postgres.create("told")))
    database.upgrade()

    def insert() -> None:
        with database.writing() as connection:
            connection.execute(sa.text("INSERT INTO signatures VALUES ('what a caller sent', NULL)"))

    with pytest.raises(IntegrityError) as caught:
        insert()
    assert "what a caller sent" in str(caught.value.orig)
    assert "what a caller sent" not in tell(caught.value)
    assert 'null value in column "content"' in tell(caught.value)
    database.forget_connections()


def test_one_that_is_dropped_leaves_no_connection_open(postgres: Postgres) -> None:
    url = locate(postgres.create("dropped"))
    database, others = Database(url), Database(url)
    with database.reading() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()
    del database, connection
    gc.collect()
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    until = time.monotonic() + 30
    while True:
        with others.reading() as connection:
            if connection.execute(query, {"pid": pid}).scalar() == 0:
                break
        assert time.monotonic() < until
        time.sleep(0.01)
