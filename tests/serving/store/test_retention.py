from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from dubio.serving.store import retention, reviews
from dubio.serving.store.database import Database
from dubio.serving.store.retention import Retention
from dubio.serving.store.store import Store
from dubio.serving.store.tables import State
from tests.serving.store.reading import read_all

PLENTY = 2**40


def never() -> bool:
    return False


def test_what_is_too_old_goes(url: sa.URL, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a", "b")
    time.sleep(0.3)
    fill(store, "c")
    database = Database(url)
    assert Retention(1, PLENTY).apply(database, never) == 0
    age = (time.time() * 1000 - read_all(url)[1]["created_ms"] - 100) / 86_400_000
    assert Retention(age, PLENTY).apply(database, never) == 2
    assert [row["request_id"] for row in read_all(url)] == ["c"]
    database.forget_connections()


def test_where_it_is_too_much_the_oldest_go_and_reviewed_rows_last(
    url: sa.URL, store: Store, fill: Callable[..., None]
) -> None:
    fill(store, "a", "b", "c", "d")
    database = Database(url)
    rows = read_all(url)
    with database.writing() as connection:
        reviews.review(connection, rows[0]["id"], State.LABELLED, "class-1", new_label=False)
    two = rows[0]["bytes"] + rows[3]["bytes"]
    assert Retention(30, two).apply(database, never) == 2
    assert [row["request_id"] for row in read_all(url)] == ["a", "d"]
    assert Retention(30, rows[0]["bytes"]).apply(database, never) == 1
    assert [row["request_id"] for row in read_all(url)] == ["a"]
    assert Retention(30, 1).apply(database, never) == 1
    assert read_all(url) == []
    database.forget_connections()


def test_many_rows_go_in_parts(
    url: sa.URL, store: Store, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "a", "b", rows=40)
    database = Database(url)
    monkeypatch.setattr(retention, "_CHUNK", 30)
    assert Retention(30, sum(row["bytes"] for row in read_all(url)[70:])).apply(database, never) == 70
    assert Retention(1e-9, PLENTY).apply(database, never) == 10
    database.forget_connections()


def test_what_must_stop_stops(url: sa.URL, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a")
    database = Database(url)
    assert Retention(1e-9, 1).apply(database, lambda: True) == 0
    assert len(read_all(url)) == 1
    database.forget_connections()


def test_a_store_tidies_when_it_starts(
    url: sa.URL, open_store: Callable[..., Store], fill: Callable[..., None]
) -> None:
    fill(open_store(url), "a", "b")
    later = open_store(url, retention=Retention(30, 1))
    end = time.monotonic() + 20
    while read_all(url):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not later.failing
