from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from dubio.serving.repository.registry import ServedModel
from dubio.serving.store.database import Database, locate, of_file
from dubio.serving.store.retention import Retention
from dubio.serving.store.rows import KeptRows, Signature
from dubio.serving.store.store import Store
from dubio.serving.store.tables import Kept
from dubio.serving.store.writer import Writer
from tests.serving.store.postgres import Postgres
from tests.serving.store.reading import read_all


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def kept(served: ServedModel, strangers: np.ndarray) -> Callable[..., KeptRows]:
    """Makes rows to write, apart from a store."""

    def make(request_id: str, rows: int = 1, version: str = "1") -> KeptRows:
        signature = Signature.of(ServedModel("bars", version, served.predictor))
        x = strangers[:rows]
        numbers = np.arange(rows)
        return KeptRows.of(
            signature, request_id, numbers, [Kept.FLAGGED] * rows, 0, x, None, served.predictor.predict(x)
        )

    return make


def writer(url: sa.URL, counts: Any, **limits: int) -> Writer:
    limits = {"most_rows": 1000, "most_bytes": 2**26} | limits
    retention = Retention(30, 2**30)
    return Writer(Database(url), "input", retention, written=counts.write, dropped=counts.drop, **limits)


def test_what_nobody_waits_for_is_written_too(url: sa.URL, counts: Any, kept: Callable[..., KeptRows]) -> None:
    each = writer(url, counts)
    each.start()
    assert each.put(kept("a", rows=3), notify=False) is None
    assert each.put(kept("b"), notify=False) is None
    wait_until(lambda: counts.written == 4)
    assert each.waiting_rows == 0
    each.close(10)
    assert [row["request_id"] for row in read_all(url)] == ["a", "a", "a", "b"]


def test_rows_are_acknowledged_once_others_can_read_them(
    url: sa.URL, counts: Any, kept: Callable[..., KeptRows]
) -> None:
    each = writer(url, counts)
    each.start()
    for number in range(5):
        done = each.put(kept(f"r{number}"), notify=True)
        assert done is not None
        assert done.result(20)
        assert len(read_all(url)) == number + 1
    each.close(10)


def test_a_batch_that_is_written_again_is_there_once(url: sa.URL, counts: Any, kept: Callable[..., KeptRows]) -> None:
    rows = kept("a", rows=3)  # as after a commit whose answer was lost
    each = writer(url, counts)
    each.start()
    for _ in range(2):
        done = each.put(rows, notify=True)
        assert done is not None
        assert done.result(20)
    each.close(10)
    assert [row["row_number"] for row in read_all(url)] == [0, 1, 2]


def test_closing_writes_what_waits(url: sa.URL, counts: Any, kept: Callable[..., KeptRows]) -> None:
    each = writer(url, counts)
    each.start()
    for number in range(300):
        each.put(kept(f"r{number}"), notify=False)
    each.close(30)
    assert (counts.written, counts.dropped, len(read_all(url))) == (300, 0, 300)
    assert each.put(kept("late"), notify=True).result(0) is False
    assert counts.dropped == 1


def test_while_the_database_is_locked_rows_wait_within_bounds_and_are_written_later(
    tmp_path: Path, counts: Any, kept: Callable[..., KeptRows]
) -> None:
    url = of_file(tmp_path / "store.sqlite")
    each = writer(url, counts, most_rows=10)
    each.start()
    assert each.put(kept("first"), notify=True).result(20)
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    waiting = [each.put(kept(f"r{number}"), notify=True) for number in range(14)]
    assert [future.done() for future in waiting] == [False] * 10 + [True] * 4
    assert (counts.dropped, each.waiting_rows) == (4, 10)
    wait_until(lambda: each.failing)
    other.execute("ROLLBACK")
    other.close()
    assert [future.result(30) for future in waiting] == [True] * 10 + [False] * 4
    each.close(10)
    assert not each.failing
    assert (counts.written, counts.dropped, len(read_all(url))) == (11, 4, 11)


def test_bytes_that_wait_are_bounded(url: sa.URL, counts: Any, kept: Callable[..., KeptRows]) -> None:
    size = kept("a").nbytes
    each = writer(url, counts, most_bytes=3 * size)
    for number in range(5):
        each.put(kept(f"r{number}"), notify=False)
    assert (each.waiting_rows, counts.dropped) == (3, 2)
    each.start()
    each.close(20)
    assert counts.written == 3


def test_a_server_that_is_down_and_back_gets_what_waited(
    postgres: Postgres, counts: Any, kept: Callable[..., KeptRows]
) -> None:
    url = locate(postgres.create("down"))
    each = writer(url, counts)
    each.start()
    assert each.put(kept("before"), notify=True).result(20)
    postgres.stop()
    try:
        during = [each.put(kept(f"r{number}"), notify=True) for number in range(200)]
        wait_until(lambda: each.failing)
        assert each.waiting_rows == 200
    finally:
        postgres.start()
    assert all(future.result(30) for future in during)
    assert not each.failing
    each.close(10)
    assert len(read_all(url)) == counts.written == 201
    assert counts.dropped == 0


def test_a_server_that_is_down_at_the_start_gets_its_tables_later(
    postgres: Postgres, counts: Any, kept: Callable[..., KeptRows]
) -> None:
    url = locate(postgres.create("late"))
    postgres.stop()
    try:
        each = writer(url, counts)
        each.start()
        done = each.put(kept("r"), notify=True)
        wait_until(lambda: each.failing)
    finally:
        postgres.start()
    assert done.result(30)
    each.close(10)


def test_what_no_database_takes_is_dropped_alone(
    postgres: Postgres, counts: Any, kept: Callable[..., KeptRows], caplog: pytest.LogCaptureFixture
) -> None:
    url = locate(postgres.create("poison"))
    each = writer(url, counts)
    futures = [each.put(rows, notify=True) for rows in (kept("a"), kept("b", version="\0"), kept("c"))]
    each.start()
    assert [future.result(20) for future in futures] == [True, False, True]
    each.close(10)
    assert [row["request_id"] for row in read_all(url)] == ["a", "c"]
    assert (counts.written, counts.dropped) == (2, 1)
    assert "cannot be written" in caplog.text


def test_what_cannot_be_written_before_the_end_is_counted(
    tmp_path: Path, counts: Any, kept: Callable[..., KeptRows], caplog: pytest.LogCaptureFixture
) -> None:
    url = of_file(tmp_path / "store.sqlite")
    each = writer(url, counts)
    each.start()
    assert each.put(kept("first"), notify=True).result(20)
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    done = each.put(kept("lost"), notify=True)
    each.close(0.2)
    other.close()
    assert done.result(20) in (True, False)  # it may just have been written after all
    assert "lost" in caplog.text


def test_several_workers_write_into_one_database(
    url: sa.URL, open_store: Callable[..., Store], fill: Callable[..., None]
) -> None:
    stores = [open_store(url) for _ in range(3)]
    for number in range(4):
        for place, store in enumerate(stores):
            fill(store, f"w{place}-{number}")
    assert len(read_all(url)) == 12
