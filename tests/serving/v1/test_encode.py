from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dubio.models import Prediction, Predictor, Samples
from dubio.models.decision import LabelSetRows
from dubio.models.prediction import NOT_CALIBRATED_FOR_SAMPLES
from dubio.serving.repository.repository import ServedModel
from dubio.serving.v1.encode import encode_response
from dubio.serving.v1.schema import PredictedInstance, PredictResponse


@pytest.mark.parametrize("samples", [None, 5, "auto"])
def test_the_answer_is_the_prediction(predictor: Predictor, bars: np.ndarray, samples: Samples) -> None:
    prediction = predictor.predict(bars[:3], samples=samples)
    read = {"height": 3, "width": 4, "oriented": True, "resized": False}
    model = ServedModel("m", "1", predictor)
    body = encode_response(prediction, model=model, request_id="r", images=[None, read, None])

    answer = PredictResponse.model_validate_json(body, strict=True)
    assert (answer.id, answer.model.name, answer.model.version) == ("r", "m", "1")
    assert [one.image and one.image.model_dump() for one in answer.predictions] == [None, read, None]
    for row, one in enumerate(answer.predictions):
        # float32 texts are the shortest that read back to the same float32, so equality is exact.
        for served, computed in [
            (one.deterministic.probabilities, prediction.probabilities[row]),
            (one.deterministic.probability, prediction.probabilities[row].max()),
            (one.mc.mean, prediction.mc_mean[row]),
            (one.mc.std, prediction.mc_std[row]),
            (one.uncertainty.predictive_entropy, prediction.predictive_entropy[row]),
            (one.uncertainty.expected_entropy, prediction.expected_entropy[row]),
            (one.uncertainty.mutual_information, prediction.mutual_information[row]),
        ]:
            np.testing.assert_array_equal(np.float32(served), computed)
        assert one.deterministic.label == predictor.classes[prediction.label[row]]
        assert one.mc.label == predictor.classes[prediction.mc_label[row]]
        assert one.mc.samples == {None: 16, 5: 5, "auto": prediction.mc_samples[row]}[samples]
        assert one.ood.reason == prediction.reasons[row]
        if samples != 5:
            assert one.ood.flagged is bool(prediction.flagged[row])
            assert one.ood.p_value == prediction.p_value[row]
            assert one.ood.level == prediction.level
        else:
            assert (one.ood.flagged, one.ood.p_value, one.ood.level) == (None, None, None)
        check_decision(one, prediction, row, predictor, applies=samples != 5)


def check_decision(one: PredictedInstance, prediction: Prediction, row: int, predictor: Predictor, *, applies: bool):
    told = [one.decision, *one.decision.others]
    assert [(each.risk, each.confidence) for each in told] == [(0.02, 0.95), (0.1, 0.95)]
    assert one.label_set.coverage == 0.95
    if applies:
        assert [each.accepted for each in told] == [bool(each.accepted[row]) for each in prediction.decisions]
        assert {each.reason for each in told} == {None}
        members = [label in one.label_set.labels for label in predictor.classes]
        assert members == prediction.label_set[row].tolist()
        # The most probable first.
        assert one.label_set.labels[0] == one.mc.label
    else:
        assert {(each.accepted, each.reason) for each in told} == {(None, NOT_CALIBRATED_FOR_SAMPLES)}
        assert (one.label_set.labels, one.label_set.reason) == (None, NOT_CALIBRATED_FOR_SAMPLES)


def test_a_label_set_names_the_most_probable_first(predictor: Predictor, bars: np.ndarray) -> None:
    held = LabelSetRows(np.array([[True, False, True, True]]), 0.9, None)
    prediction = replace(predictor.predict(bars[:1]), label_sets=held)
    model = ServedModel("m", "1", predictor)
    answer = json.loads(encode_response(prediction, model=model, request_id=None, images=[None]))
    by_mean = np.argsort(-prediction.mc_mean[0])
    expected = [predictor.classes[index] for index in by_mean if index != 1]
    assert answer["predictions"][0]["label_set"] == {"labels": expected, "coverage": 0.9, "reason": None}


def test_rows_of_strided_arrays_are_written_too(predictor: Predictor, bars: np.ndarray) -> None:
    prediction = predictor.predict(bars)
    model, images = ServedModel("m", "1", predictor), [None] * len(bars)
    answer = json.loads(encode_response(prediction, model=model, request_id=None, images=images))
    assert len(answer["predictions"]) == len(bars)
    assert answer["id"] is None
