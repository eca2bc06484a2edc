from __future__ import annotations

from collections.abc import Callable

import numpy as np
import orjson
import pytest
import sqlalchemy as sa

from dubio.models import Predictor, Work
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store.inputs import read_array
from dubio.serving.store.rows import KeptRows, Signature
from dubio.serving.store.store import Store
from dubio.serving.store.tables import Kept
from tests.serving.store.reading import read_all


def test_what_is_stored_is_the_answer(
    store: Store, url: sa.URL, served: ServedModel, bars: np.ndarray, strangers: np.ndarray
) -> None:
    x = np.concatenate([bars[:3], strangers[:2]])
    prediction = served.predictor.predict(x)
    done = store.record(served, x, prediction, request_id="r", everything=True)
    assert done is not None
    assert done.result(20)
    rows = read_all(url)
    classes = served.predictor.classes
    assert [row["row_number"] for row in rows] == [0, 1, 2, 3, 4]
    for i, row in enumerate(rows):
        assert (row["request_id"], row["model"], row["version"]) == ("r", "bars", "1")
        assert row["label"] == classes[prediction.label[i]]
        assert row["mc_label"] == classes[prediction.mc_label[i]]
        assert row["probability"] == pytest.approx(prediction.probabilities[i].max())
        assert row["mc_probability"] == pytest.approx(prediction.mc_mean[i].max())
        for name in ("predictive_entropy", "expected_entropy", "mutual_information", "p_value"):
            assert row[name] == pytest.approx(getattr(prediction, name)[i], rel=1e-6)
        assert row["flagged"] == prediction.flagged[i]
        assert row["reason"] == prediction.reasons[i]
        assert row["level"] == pytest.approx(prediction.level)
        assert row["samples"] == 16
        assert row["accepted"] == (None if prediction.accepted is None else prediction.accepted[i])
        arrays = orjson.loads(row["arrays"])
        np.testing.assert_array_equal(np.float32(arrays["probabilities"]), prediction.probabilities[i])
        np.testing.assert_array_equal(np.float32(arrays["mean"]), prediction.mc_mean[i])
        np.testing.assert_array_equal(np.float32(arrays["std"]), prediction.mc_std[i])
        assert set(arrays["label_set"]) == {classes[j] for j in np.flatnonzero(prediction.label_set[i])}
        np.testing.assert_array_equal(read_array(row["input"]), x[i])
        assert row["kept"] == ("flagged" if prediction.flagged[i] else "asked")
        assert (row["state"], row["review_label"], row["true_label"]) == ("open", None, None)


def test_what_was_not_computed_is_null(store: Store, url: sa.URL, served: ServedModel, bars: np.ndarray) -> None:
    prediction = served.predictor.predict(bars[:1], work=Work.DETERMINISTIC)
    done = store.record(served, bars[:1], prediction, request_id="r", everything=True)
    assert done is not None
    assert done.result(20)
    [row] = read_all(url)
    assert row["label"] == served.predictor.classes[prediction.label[0]]
    absent = ("mc_label", "mc_probability", "mutual_information", "flagged", "p_value", "level", "reason", "accepted")
    assert {row[name] for name in absent} == {None}
    assert row["samples"] == 0


def test_rows_of_a_request_keep_nothing_of_the_others(predictor: Predictor, bars: np.ndarray) -> None:
    signature = Signature.of(ServedModel("bars", "1", predictor))
    prediction = predictor.predict(bars)
    rows = KeptRows.of(signature, "r", np.array([7, 9]), [Kept.SAMPLED] * 2, 0.5, bars, None, prediction)
    kept = [rows.inputs, *rows.prediction.values()]
    assert {len(array) for array in kept} == {2}
    assert all(array.base is None or array.base.nbytes <= 2 * array.nbytes for array in kept)
    assert [row["row_number"] for row in rows.to_database("hash")] == [7, 9]
    np.testing.assert_array_equal(rows.inputs, bars[[7, 9]])


def test_identifiers_grow_with_time_and_are_as_many_as_rows(predictor: Predictor, bars: np.ndarray) -> None:
    signature, prediction = Signature.of(ServedModel("bars", "1", predictor)), predictor.predict(bars[:2])
    many: list[Callable[[], KeptRows]] = [
        lambda: KeptRows.of(signature, "r", np.arange(2), [Kept.ASKED] * 2, 0, bars[:2], None, prediction)
    ] * 50
    identifiers = [row["id"] for make in many for row in make().to_database("hash")]
    assert len(set(identifiers)) == 100
    times = [int(identifier[:12], 16) for identifier in identifiers]
    assert times == sorted(times)
