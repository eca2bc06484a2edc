"""True labels of rows that a shadow answered, too: each counts once, whenever it comes, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import sqlalchemy as sa

from dubio.serving.repository.registry import ServedModel
from dubio.serving.store import comparisons, feedback
from dubio.serving.store.accuracy import Accuracy
from dubio.serving.store.database import Database
from dubio.serving.store.drawn import Drawn
from dubio.serving.store.feedback import Truth
from dubio.serving.store.store import Store
from dubio.serving.store.tables import shadow_answers

LABELS = ["class-0", "class-1", "class-2", "class-3"]


@dataclass(frozen=True)
class Pair:
    """Who is compared."""

    digest: str = "d" * 64
    content: str = '{"margin":0.05,"epsilon":0.05}'
    margin: float = 0.05
    epsilon: float = 0.05


PAIR, OTHER = Pair(), Pair(digest="e" * 64)


@pytest.fixture
def answer(store: Store, url: sa.URL, served: ServedModel, strangers: np.ndarray) -> Callable[..., None]:
    """Keeps a request of four rows: what was said about them, and what shadows said."""

    def answer(request_id: str, *shadows: tuple[Pair, list[str | None]], before: tuple[Truth, ...] = ()) -> None:
        x = strangers[:4]
        done = store.record(served, x, served.predictor.predict(x), request_id=request_id, everything=True)
        assert done is not None
        assert done.result(20)
        join(url, *before)
        for pair, labels in shadows:
            store.keep_labels(pair, Drawn(request_id, [False] * 4, everything=True), LABELS, labels)
        # Written in the order in which they came.
        last = store.record(served, x[:1], served.predictor.predict(x[:1]), request_id="last", everything=True)
        assert last is not None
        assert last.result(20)

    return answer


def join(url: sa.URL, *truths: Truth) -> None:
    database = Database(url)
    with database.writing() as connection:
        feedback.join(connection, truths)
    database.forget_connections()


def read(url: sa.URL, pair: Pair = PAIR) -> Accuracy:
    database = Database(url)
    with database.reading() as connection:
        known = comparisons.read(connection, pair)
    database.forget_connections()
    return known


def counts(url: sa.URL, pair: Pair = PAIR) -> tuple[int, int, int]:
    known = read(url, pair)
    return known.rows, known.live, known.shadow


def test_each_row_counts_once_for_each_pair(url: sa.URL, answer: Callable[..., None]) -> None:
    answer("a", (PAIR, ["class-0", "class-0", None, "class-0"]), (OTHER, LABELS))
    assert read(url) == Accuracy.begin(0.05, 0.05)
    join(url, Truth("a", 0, "class-0"), Truth("a", 1, "class-0"), Truth("a", 2, "class-2"))
    assert counts(url) == (3, 2, 2)
    assert read(url).process == Accuracy.begin(0.05, 0.05).process.observe([0, 1, -1])
    assert counts(url, OTHER) == (3, 2, 2)
    before = read(url)
    join(url, Truth("a", 0, "class-0"), Truth("a", 1, "class-0"))  # told twice
    assert read(url) == before
    join(url, Truth("a", 3, "unheard of", new_label=True), Truth("gone", 0, "class-0"))
    assert counts(url) == (4, 2, 2)


def test_a_label_that_contradicts_one_before_corrects_it(url: sa.URL, answer: Callable[..., None]) -> None:
    answer("a", (PAIR, ["class-1"] * 4))
    join(url, Truth("a", 0, "class-1"))
    first = read(url)
    assert (first.rows, first.live, first.shadow) == (1, 0, 1)
    join(url, Truth("a", 0, "class-0"))
    assert counts(url) == (1, 1, 0)
    assert read(url).e_value < first.e_value
    assert read(url).process.seen == 3  # what spoke for the shadow speaks against it


def test_a_label_may_come_before_the_shadow_has_answered(url: sa.URL, answer: Callable[..., None]) -> None:
    answer("a", (PAIR, LABELS), before=(Truth("a", 1, "class-3"), Truth("a", 2, "class-2")))
    assert counts(url) == (2, 1, 1)
    join(url, Truth("a", 1, "class-3"), Truth("a", 3, "class-3"))
    assert counts(url) == (3, 2, 2)


def test_a_label_of_another_input_of_the_same_name_is_none(
    url: sa.URL, answer: Callable[..., None], store: Store, served: ServedModel, strangers: np.ndarray
) -> None:
    other = strangers[4:8]
    done = store.record(served, other, served.predictor.predict(other), request_id="a", everything=True)
    assert done is not None
    assert done.result(20)
    join(url, Truth("a", 0, "class-3"))
    answer("a", (PAIR, LABELS))  # a client that counts from the beginning again
    assert counts(url) == (0, 0, 0)


def test_rows_that_are_told_at_once_by_several_are_counted_once(url: sa.URL, answer: Callable[..., None]) -> None:
    for number in range(5):
        answer(f"r{number}", (PAIR, ["class-0"] * 4))
    truths = [Truth(f"r{number}", row, "class-0") for number in range(5) for row in range(4)]
    threads = [threading.Thread(target=join, args=(url, *truths)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(url) == (20, 5, 20)
    database = Database(url)
    with database.reading() as connection:
        told = connection.execute(sa.select(shadow_answers.c.true_label)).scalars().all()
    database.forget_connections()
    assert told == ["class-0"] * 20
