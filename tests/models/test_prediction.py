from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dubio.models import Ensemble, Prediction, Predictor, Work
from dubio.models.errors import InvalidInput
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


@pytest.mark.parametrize("work", Work)
@pytest.mark.parametrize("samples", [None, 5, "auto"])
def test_joined_parts_are_the_prediction_again(trained: Predictor, rows: Any, samples: Any, work: Work):
    prediction = trained.predict(rows, samples=samples, work=work)
    joined = Prediction.join([prediction.rows(0, 1), prediction.rows(1, 4), prediction.rows(4, len(rows))])
    np.testing.assert_equal(dataclasses.asdict(joined), dataclasses.asdict(prediction))


@pytest.fixture(params=["predictor", "ensemble"])
def fragile_model(request: pytest.FixtureRequest, fragile: Predictor) -> Predictor | Ensemble:
    return fragile if request.param == "predictor" else Ensemble.build([fragile, dataclasses.replace(fragile)])


@pytest.mark.parametrize("work", [Work.MC, Work.FLAG])
@pytest.mark.parametrize("samples", [None, 2, "auto"])
def test_values_that_overflow_the_members_alone_are_refused_by_row(
    fragile_model: Predictor | Ensemble, samples: Any, work: Work
):
    x = torch.tensor([[1.0, 1.0], [1e38, 1.0]])
    # The network itself can process them: only members, whose kept units count ten times as much, cannot.
    assert np.isfinite(fragile_model.predict(x, work=Work.DETERMINISTIC).probabilities).all()
    with pytest.raises(InvalidInput, match=r"input 1 .*overflow .*magnitude 1e\+38"):
        fragile_model.predict(x, samples=samples, work=work)


def test_all_members_may_be_asked_by_their_number_and_not_one_more(fragile_model: Predictor | Ensemble):
    x, size = torch.tensor([[0.2, 0.7]]), fragile_model.committee.num_samples
    for samples in (2, size):
        assert fragile_model.predict(x, samples=samples).mc_samples.tolist() == [samples]
    assert fragile_model.predict(x, samples=size).flagged is not None or fragile_model.no_promise
    for samples in (1, size + 1):
        with pytest.raises(InvalidInput, match=rf"integer in \[2, {size}\].*but got {samples}"):
            fragile_model.predict(x, samples=samples)


def test_what_was_not_computed_is_missed_by_name(trained: Predictor, rows: Tensor):
    deterministic = trained.predict(rows, work=Work.DETERMINISTIC)
    assert deterministic.mc_samples.tolist() == [0] * len(rows)
    for name in ("mc_label", "mc_mean", "mc_std", "mutual_information", "p_value", "flagged", "level", "reasons"):
        with pytest.raises(ValueError, match=r"asked for; call predict\(\) with more `work`"):
            getattr(deterministic, name)
    assert trained.predict(rows, work=Work.MC).mc_mean.shape == (len(rows), 3)
