from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dubio.models import Predictor, Samples, Work
from dubio.serving.errors import InvalidRequest, Overloaded
from dubio.serving.repository.repository import ServedModel
from dubio.serving.v2.decode import DecodedRequest, SelectedOutput, default_outputs
from dubio.serving.v2.encode import encode_response
from dubio.serving.v2.outputs import OUTPUTS
from dubio.uncertainty.detection.selective import TOO_FEW_ROWS

DEFAULT = list(OUTPUTS)


@pytest.fixture
def model(predictor: Predictor) -> ServedModel:
    return ServedModel("bars", "1", predictor)


def ask(rows: np.ndarray, *names: str, samples: Samples = None, binary: bool = False) -> DecodedRequest:
    outputs = tuple(SelectedOutput(OUTPUTS[name], binary) for name in names) or default_outputs(binary=binary)
    return DecodedRequest(rows, outputs, listed=bool(names), id="r", samples=samples)


def test_json_numbers_read_back_to_the_same_float32(model: ServedModel, bars: np.ndarray) -> None:
    prediction = model.predictor.predict(bars[:3])
    response = encode_response(prediction, request=ask(bars[:3]), model=model)
    assert response.header_length is None
    outputs = {output["name"]: output for output in json.loads(response.body)["outputs"]}
    assert list(outputs) == DEFAULT
    served = np.array(outputs["mc_std"]["data"], np.float32).reshape(outputs["mc_std"]["shape"])
    np.testing.assert_array_equal(served, prediction.mc_std)
    assert outputs["ood_flag"]["data"] == prediction.flagged.tolist()


def test_binary_parts_follow_in_order(model: ServedModel, bars: np.ndarray) -> None:
    prediction = model.predictor.predict(bars[:3])
    asked = replace(
        ask(bars[:3]),
        outputs=(
            SelectedOutput(OUTPUTS["mc_mean"], binary=True),
            SelectedOutput(OUTPUTS["label"], binary=False),
            SelectedOutput(OUTPUTS["probabilities"], binary=True),
        ),
    )
    response = encode_response(prediction, request=asked, model=model)
    assert json.loads(response.body[: response.header_length])["outputs"][1]["name"] == "label"
    raw = response.body[response.header_length :]
    assert raw == prediction.mc_mean.tobytes() + prediction.probabilities.tobytes()


def test_rows_of_a_batch_are_written_alone(model: ServedModel, bars: np.ndarray) -> None:
    prediction = model.predictor.predict(bars[:9]).rows(4, 6)
    for binary in (True, False):
        response = encode_response(prediction, request=ask(bars[4:6], "mc_mean", binary=binary), model=model)
        [output] = json.loads(response.body[: response.header_length])["outputs"]
        assert output["shape"] == [2, 4]
        if binary:
            assert response.body[response.header_length :] == prediction.mc_mean.tobytes()


def test_without_calibration_flags_are_left_out_or_refused(predictor: Predictor, bars: np.ndarray) -> None:
    model = ServedModel("bars", "1", replace(predictor, detector=None))
    prediction = model.predictor.predict(bars[:2])
    answer = json.loads(encode_response(prediction, request=ask(bars[:2]), model=model).body)
    assert answer["parameters"] == {
        "samples": 16,
        "ood_reason": "not_calibrated",
        "accepted_reason": "not_calibrated",
        "label_set_coverage": 0.95,
    }
    assert [output["name"] for output in answer["outputs"]] == [*DEFAULT[:-4], "label_set"]
    with pytest.raises(InvalidRequest, match=r"it is not calibrated \(not_calibrated\); calibrate it"):
        encode_response(prediction, request=ask(bars[:2], "label", "ood_flag"), model=model)


def test_fewer_members_are_the_callers_wish_or_the_services_fault(model: ServedModel, bars: np.ndarray) -> None:
    prediction = model.predictor.predict(bars[:2], samples=4)
    with pytest.raises(InvalidRequest, match=r"leave out `parameters\.samples`"):
        encode_response(prediction, request=ask(bars[:2], "ood_flag", samples=4), model=model)
    for samples in (None, 8):
        with pytest.raises(Overloaded, match="only 4 have the time now"):
            encode_response(prediction, request=ask(bars[:2], "ood_flag", samples=samples), model=model)
    answer = json.loads(encode_response(prediction, request=ask(bars[:2]), model=model).body)
    reasons = {f"{name}_reason": "not_calibrated_for_these_samples" for name in ("ood", "accepted", "label_set")}
    assert answer["parameters"] == {"samples": 4, **reasons}
    assert [output["name"] for output in answer["outputs"]] == DEFAULT[:-4]


def test_without_a_promise_no_answer_is_accepted_and_the_reason_is_told(predictor: Predictor, bars: np.ndarray) -> None:
    refused = tuple(replace(each, refusal=TOO_FEW_ROWS) for each in predictor.promises.acceptances)
    promises = replace(predictor.promises, acceptances=refused)
    model = ServedModel("bars", "1", replace(predictor, promises=promises))
    prediction = model.predictor.predict(bars[:2])
    answer = json.loads(encode_response(prediction, request=ask(bars[:2]), model=model).body)
    assert answer["parameters"]["accepted_reason"] == "too_few_rows"
    assert [output["name"] for output in answer["outputs"]] == [name for name in DEFAULT if name != "accepted"]
    with pytest.raises(InvalidRequest) as caught:
        encode_response(prediction, request=ask(bars[:2], "accepted"), model=model)
    assert str(caught.value) == (
        "Expected outputs that the model can give, but it has none for 'accepted', for it was calibrated on too few "
        "rows to promise the risk that was asked for (too_few_rows); calibrate it for a larger one, or on more rows "
        "(`dubio-train calibrate --calibration.risk`), or do without 'accepted'."
    )


def test_a_model_without_a_risk_has_no_decision(predictor: Predictor, bars: np.ndarray) -> None:
    promises = replace(predictor.promises, acceptances=())
    model = ServedModel("bars", "1", replace(predictor, promises=promises))
    prediction = model.predictor.predict(bars[:2])
    answer = json.loads(encode_response(prediction, request=ask(bars[:2]), model=model).body)
    assert answer["parameters"]["accepted_reason"] == "no_risk_promised"
    assert [output["name"] for output in answer["outputs"]] == [name for name in DEFAULT if name != "accepted"]
    with pytest.raises(InvalidRequest, match="was calibrated without a promise about accepted answers"):
        encode_response(prediction, request=ask(bars[:2], "accepted"), model=model)


@pytest.mark.parametrize("binary", [False, True])
def test_decisions_and_label_sets_are_booleans(model: ServedModel, bars: np.ndarray, binary: bool) -> None:
    prediction = model.predictor.predict(bars[:6])
    response = encode_response(prediction, request=ask(bars[:6], "accepted", "label_set", binary=binary), model=model)
    answer = json.loads(response.body[: response.header_length])
    accepted, sets = answer["outputs"]
    assert (accepted["datatype"], accepted["shape"]) == ("BOOL", [6])
    assert (sets["datatype"], sets["shape"]) == ("BOOL", [6, 4])
    if binary:
        raw = response.body[response.header_length :]
        assert raw == prediction.accepted.tobytes() + prediction.label_set.tobytes()
    else:
        assert accepted["data"] == prediction.accepted.tolist()
        assert sets["data"] == prediction.label_set.ravel().tolist()


def test_a_deterministic_answer_speaks_of_no_members(model: ServedModel, bars: np.ndarray) -> None:
    prediction = model.predictor.predict(bars[:2], work=Work.DETERMINISTIC)
    answer = json.loads(encode_response(prediction, request=ask(bars[:2], "probabilities"), model=model).body)
    assert answer.keys() == {"id", "model_name", "model_version", "outputs"}


@pytest.mark.parametrize("binary", [False, True])
def test_as_many_members_as_it_takes_are_told_row_by_row(model: ServedModel, bars: np.ndarray, binary: bool) -> None:
    rows = np.concatenate([bars[:4], 16 - bars[:4]])
    prediction = model.predictor.predict(rows, samples="auto")
    response = encode_response(
        prediction, request=ask(rows, "mc_samples", "ood_flag", samples="auto", binary=binary), model=model
    )
    answer = json.loads(response.body[: response.header_length])
    promises = {"accepted_risk": 0.02, "accepted_confidence": 0.95, "label_set_coverage": 0.95}
    assert answer["parameters"] == {"samples": "auto", "ood_level": prediction.level, **promises}
    assert answer["outputs"][0]["datatype"] == "INT32"
    told = (
        np.frombuffer(response.body[response.header_length :][:32], "<i4") if binary else answer["outputs"][0]["data"]
    )
    assert list(told) == prediction.samples.tolist()
