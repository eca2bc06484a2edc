from __future__ import annotations

import numpy as np
import pytest

from dubio.models import Predictor
from dubio.serving.errors import InvalidRequest
from dubio.serving.repository.repository import ServedModel
from dubio.serving.rpc import open_inference_pb2 as pb
from dubio.serving.rpc.encode import encode_response
from dubio.serving.v2.decode import DecodedRequest, SelectedOutput, default_outputs
from dubio.serving.v2.outputs import OUTPUTS
from tests.serving.rpc.client import read


@pytest.mark.parametrize("raw", [True, False])
def test_outputs_read_back_to_the_predictions_own_numbers(predictor: Predictor, bars: np.ndarray, raw: bool) -> None:
    prediction = predictor.predict(bars[:9]).rows(4, 7)
    request = DecodedRequest(bars[4:7], default_outputs(binary=False), id="r")
    model = ServedModel("bars", "3", predictor)
    answer = pb.ModelInferResponse.FromString(encode_response(prediction, request=request, model=model, raw=raw))
    assert (answer.model_name, answer.model_version, answer.id) == ("bars", "3", "r")
    outputs = read(answer)
    assert list(outputs) == list(OUTPUTS)
    for name in set(OUTPUTS) - {"label"}:
        expected = getattr(prediction, {"ood_p_value": "p_value", "ood_flag": "flagged"}.get(name, name))
        np.testing.assert_array_equal(outputs[name], expected)
        assert outputs[name].dtype == np.asarray(expected).dtype
    assert [each.decode() for each in outputs["label"]] == [f"class-{index}" for index in prediction.label]
    assert answer.parameters["samples"].int64_param == 16
    assert answer.parameters["ood_level"].double_param == prediction.level
    assert all(bool(output.contents.ListFields()) != raw for output in answer.outputs)


@pytest.mark.parametrize("raw", [True, False])
def test_classes_are_named(predictor: Predictor, bars: np.ndarray, raw: bool) -> None:
    prediction = predictor.predict(bars[:2])
    request = DecodedRequest(bars[:2], (SelectedOutput(OUTPUTS["mc_mean"], False, classification=2),), listed=True)
    model = ServedModel("bars", "1", predictor)
    answer = pb.ModelInferResponse.FromString(encode_response(prediction, request=request, model=model, raw=raw))
    [output] = answer.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [2, 2])
    best = np.argsort(-prediction.mc_mean, axis=1, kind="stable")[:, :2]
    expected = [f"{prediction.mc_mean[row, i]:f}:{i}:class-{i}" for row in range(2) for i in best[row]]
    assert [each.decode() for each in read(answer)["mc_mean"].ravel()] == expected


def test_what_the_model_cannot_give_is_refused_if_it_was_named(predictor: Predictor, bars: np.ndarray) -> None:
    prediction = predictor.predict(bars[:2], samples=4)
    request = DecodedRequest(bars[:2], (SelectedOutput(OUTPUTS["ood_flag"], False),), listed=True, samples=4)
    with pytest.raises(InvalidRequest, match=r"leave out `parameters\.samples`"):
        encode_response(prediction, request=request, model=ServedModel("bars", "1", predictor), raw=True)
