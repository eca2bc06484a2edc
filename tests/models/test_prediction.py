from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dubio.models import Predictor
from dubio.models.prediction import NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES, OUT_OF_RANGE


def test_arrays_have_the_documented_types_and_one_row_an_input(trained: Predictor, rows):
    prediction = trained.predict(rows)
    b, c = len(rows), len(trained.classes)
    expected = {
        "label": (np.int64, (b,)),
        "probabilities": (np.float32, (b, c)),
        "mc_label": (np.int64, (b,)),
        "mc_mean": (np.float32, (b, c)),
        "mc_std": (np.float32, (b, c)),
        "predictive_entropy": (np.float32, (b,)),
        "expected_entropy": (np.float32, (b,)),
        "mutual_information": (np.float32, (b,)),
        "p_value": (np.float64, (b,)),
        "flagged": (np.bool_, (b,)),
    }
    found = {name: (getattr(prediction, name).dtype, getattr(prediction, name).shape) for name in expected}
    assert found == expected
    assert len(prediction.reasons) == b
    assert prediction.samples == 16


def test_a_prediction_is_frozen(trained: Predictor, rows):
    with pytest.raises(dataclasses.FrozenInstanceError):
        trained.predict(rows).samples = 3


def test_reasons_are_words_that_a_client_can_rely_on():
    assert (OUT_OF_RANGE, NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES) == (
        "out_of_range",
        "not_calibrated",
        "not_calibrated_for_these_samples",
    )


@pytest.mark.parametrize("samples", [None, 5, "auto"])
def test_the_members_that_answered_are_known_for_every_row_and_every_part(trained: Predictor, rows, samples):
    prediction = trained.predict(rows, samples=samples)
    assert prediction.mc_samples.dtype == np.int32
    assert prediction.mc_samples.shape == (len(rows),)
    assert np.array_equal(prediction.mc_samples, np.broadcast_to(prediction.samples, len(rows)))
    parts = [prediction.rows(start, start + 2) for start in range(0, len(rows), 2)]
    assert np.array_equal(np.concatenate([part.mc_samples for part in parts]), prediction.mc_samples)
