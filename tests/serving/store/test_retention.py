from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa

from dubio.serving.repository.registry import ServedModel
from dubio.serving.store import retention, reviews
from dubio.serving.store.database import Database
from dubio.serving.store.drawn import Drawn
from dubio.serving.store.retention import Retention
from dubio.serving.store.shadow_rows import ROW_BYTES
from dubio.serving.store.store import Store
from dubio.serving.store.tables import State, shadow_answers
from tests.serving.store.reading import read_all
from tests.serving.store.test_comparisons import PAIR

PLENTY = 2**40


def tidy(retention: Retention, database: Database) -> int:
    """Step by step to the end; gives how many rows went."""
    deleted = 0
    while step := retention.step(database):
        deleted += step
    return deleted


def test_what_is_too_old_goes(
    url: sa.URL, store: Store, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "a", "b")
    time.sleep(0.01)
    fill(store, "c")
    database = Database(url)
    assert tidy(Retention(1, PLENTY), database) == 0
    in_a_day = read_all(url)[2]["created_ms"] + 86_400_000
    monkeypatch.setattr(retention, "time", SimpleNamespace(time_ns=lambda: in_a_day * 10**6))
    assert tidy(Retention(1, PLENTY), database) == 2
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
    assert tidy(Retention(30, two), database) == 2
    assert [row["request_id"] for row in read_all(url)] == ["a", "d"]
    assert tidy(Retention(30, rows[0]["bytes"]), database) == 1
    assert [row["request_id"] for row in read_all(url)] == ["a"]
    assert tidy(Retention(30, 1), database) == 1
    assert read_all(url) == []
    database.forget_connections()


def test_many_rows_go_in_parts(
    url: sa.URL, store: Store, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "a", "b", rows=40)
    database = Database(url)
    monkeypatch.setattr(retention, "_CHUNK", 30)
    assert tidy(Retention(30, sum(row["bytes"] for row in read_all(url)[70:])), database) == 70
    assert tidy(Retention(1e-9, PLENTY), database) == 10
    database.forget_connections()


def test_processes_that_tidy_at_once_delete_no_more_than_one_would(
    url: sa.URL, store: Store, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, *map(str, range(5)), rows=40)
    monkeypatch.setattr(retention, "_CHUNK", 10)
    rows = read_all(url)
    keep = Retention(30, sum(row["bytes"] for row in rows[100:]))

    def work(database: Database) -> None:
        tidy(keep, database)
        database.forget_connections()

    threads = [threading.Thread(target=work, args=(Database(url),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["id"] for row in read_all(url)] == [row["id"] for row in rows[100:]]


def test_rows_are_written_while_much_is_deleted(
    url: sa.URL,
    store: Store,
    open_store: Callable[..., Store],
    served: ServedModel,
    strangers: np.ndarray,
    fill: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(store, *map(str, range(20)), rows=40)
    store.close()
    monkeypatch.setattr(retention, "_CHUNK", 1)
    later = open_store(url, retention=Retention(1, 1))  # which is more than a second's work
    until = time.monotonic() + 20
    while len(read_all(url)) == 800:
        assert time.monotonic() < until
    x = strangers[:1]
    done = later.record(served, x, served.predictor.predict(x), request_id="new", everything=True)
    assert done is not None
    assert done.result(20)
    assert read_all(url)[0]["request_id"] != "new"  # older ones still wait to be deleted
    later.close()


def test_what_shadows_said_takes_an_eighth(url: sa.URL, store: Store) -> None:
    for number in range(40):
        store.keep_labels(PAIR, Drawn(f"r{number}", [True], everything=False), ["class-0"], ["class-1"])
    store.close()
    database = Database(url)

    def identifiers() -> list[str]:
        with database.reading() as connection:
            return list(connection.execute(sa.select(shadow_answers.c.id).order_by(shadow_answers.c.id)).scalars())

    before = identifiers()
    assert tidy(Retention(30, 8 * 25 * ROW_BYTES), database) == 15
    assert identifiers() == before[15:]
    assert tidy(Retention(1e-9, PLENTY), database) == 25
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
