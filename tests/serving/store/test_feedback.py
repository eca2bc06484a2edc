from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sqlalchemy as sa

from dubio.serving.errors import AmbiguousFeedback, InvalidRequest
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store import feedback
from dubio.serving.store.database import Database
from dubio.serving.store.feedback import Truth
from dubio.serving.store.store import Store
from tests.serving.store.reading import read_all


def join(url: sa.URL, *truths: Truth) -> list[int]:
    database = Database(url)
    try:
        with database.writing() as connection:
            return feedback.join(connection, truths)
    finally:
        database.forget_connections()


def test_a_true_label_reaches_its_row(url: sa.URL, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a", "b", rows=2)
    truths = [
        Truth("a", 1, "class-3"),
        Truth("gone", 0, "class-0"),
        Truth("b", 0, "unheard of", True),
        Truth("b", 9, "x"),
    ]
    assert join(url, *truths) == [1, 3]
    said = {(row["request_id"], row["row_number"]): row["true_label"] for row in read_all(url)}
    assert said == {("a", 0): None, ("a", 1): "class-3", ("b", 0): "unheard of", ("b", 1): None}
    join(url, Truth("a", 1, "class-0"))
    assert read_all(url)[1]["true_label"] == "class-0"


def test_all_are_taken_or_none(url: sa.URL, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a", rows=2)
    with pytest.raises(InvalidRequest, match="class of the model"):
        join(url, Truth("a", 0, "class-1"), Truth("a", 1, "klass"))
    assert [row["true_label"] for row in read_all(url)] == [None, None]


def test_a_row_with_two_labels_at_once_is_refused(url: sa.URL, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a")
    with pytest.raises(InvalidRequest, match="one label for row 0 of request 'a', but got 'class-1' and 'class-2'"):
        join(url, Truth("a", 0, "class-1"), Truth("a", 0, "class-2"))
    assert read_all(url)[0]["true_label"] is None
    assert join(url, Truth("a", 0, "class-1"), Truth("a", 0, "class-1")) == []
    assert read_all(url)[0]["true_label"] == "class-1"


def test_one_name_for_several_inputs_is_ambiguous(
    url: sa.URL, store: Store, served: ServedModel, strangers: np.ndarray
) -> None:
    for x in (strangers[:1], strangers[:1], strangers[1:2]):
        done = store.record(served, x, served.predictor.predict(x), request_id="same", everything=True)
        assert done is not None
        assert done.result(20)
        if len(read_all(url)) == 2:  # the same request, sent again
            assert join(url, Truth("same", 0, "class-1")) == []
            assert [row["true_label"] for row in read_all(url)] == ["class-1"] * 2
    with pytest.raises(AmbiguousFeedback, match="2 requests of this name"):
        join(url, Truth("same", 0, "class-1"))
