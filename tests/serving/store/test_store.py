from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from dubio.models import Predictor
from dubio.serving.errors import StoreUnavailable
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store.database import of_file
from dubio.serving.store.store import Store
from tests.serving.store.reading import read_all


def record(store: Store, model: ServedModel, x: np.ndarray, **given: Any) -> Any:
    return store.record(model, x, model.predictor.predict(x), **{"request_id": "r", **given})


def test_flagged_rows_are_kept_and_others_are_not(
    tmp_path: Path, open_store: Callable[..., Store], served: ServedModel, bars: np.ndarray, strangers: np.ndarray
) -> None:
    url = of_file(tmp_path / "s")
    store = open_store(url)
    x = np.concatenate([bars[:20], strangers[:5]])
    flagged = served.predictor.predict(x).flagged
    assert 5 <= flagged.sum() < 15
    record(store, served, x)
    store.close()
    rows = read_all(url)
    assert [row["row_number"] for row in rows] == np.flatnonzero(flagged).tolist()
    assert {(row["kept"], row["share"]) for row in rows} == {("flagged", 1.0)}


def test_a_share_of_the_others_is_sampled(
    tmp_path: Path, open_store: Callable[..., Store], served: ServedModel, bars: np.ndarray
) -> None:
    url = of_file(tmp_path / "s")
    store = open_store(url, share=0.25)
    x = bars[~served.predictor.predict(bars).flagged]
    prediction = served.predictor.predict(x)
    for number in range(20):
        store.record(served, x, prediction, request_id=f"r{number}")
    store.close()
    rows = read_all(url)
    total = 20 * len(x)
    assert abs(len(rows) - total / 4) < 6 * (total * 3 / 16) ** 0.5
    assert {(row["kept"], row["share"]) for row in rows} == {("sampled", 0.25)}


def test_who_asks_keeps_everything_and_what_was_sampled_stays_so(
    tmp_path: Path, open_store: Callable[..., Store], served: ServedModel, bars: np.ndarray, strangers: np.ndarray
) -> None:
    url = of_file(tmp_path / "s")
    store = open_store(url, share=0.5)
    x = np.concatenate([bars[:40], strangers[:2]])
    assert record(store, served, x, everything=True).result(20)
    kept = Counter(row["kept"] for row in read_all(url))
    assert sum(kept.values()) == 42
    assert kept["flagged"] == served.predictor.predict(x).flagged.sum()
    assert kept["sampled"] > 5
    assert kept["asked"] > 5


def test_without_room_nothing_is_copied_and_the_rows_are_counted(
    tmp_path: Path, open_store: Callable[..., Store], counts: Any, served: ServedModel, strangers: np.ndarray
) -> None:
    store = open_store(of_file(tmp_path / "s"), started=False, most_rows=3)
    assert record(store, served, strangers[:4]) is None
    record(store, served, strangers[:2])
    assert (counts.dropped, store.waiting_rows) == (4, 2)


def test_whatever_goes_wrong_fails_no_request(
    tmp_path: Path,
    open_store: Callable[..., Store],
    counts: Any,
    served: ServedModel,
    strangers: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_store(of_file(tmp_path / "s"))
    for _ in range(2):
        assert record(store, served, strangers[:3], instance=lambda row: object()) is None  # no JSON
    assert counts.dropped == 6
    assert caplog.text.count("Cannot keep rows") == 1


def test_a_store_keeps_no_model_alive(
    tmp_path: Path, open_store: Callable[..., Store], predictor: Predictor, strangers: np.ndarray
) -> None:
    import gc
    import weakref

    store = open_store(of_file(tmp_path / "s"))
    model = ServedModel("bars", "7", predictor)
    assert record(store, model, strangers[:1], everything=True).result(20)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_what_cannot_be_read_is_said(
    tmp_path: Path, open_store: Callable[..., Store], fill: Callable[..., None]
) -> None:
    store = open_store(of_file(tmp_path / "s"))
    fill(store, "a")
    with sqlite3.connect(tmp_path / "s", isolation_level=None) as other:
        other.execute("DROP TABLE answers")
        with pytest.raises(StoreUnavailable, match="predictions go on"):
            asyncio.run(store.read(lambda connection: connection.execute(sa.text("SELECT * FROM answers"))))
    other.close()
