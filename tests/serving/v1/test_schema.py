from __future__ import annotations

import copy
from typing import Any

import pytest

from dubio.models.decision import NO_RISK_PROMISED
from dubio.models.ensemble import CALIBRATION_TOO_SMALL, NOT_FOR_ENSEMBLES
from dubio.models.prediction import NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES, OUT_OF_RANGE
from dubio.serving.v1.schema import PredictResponse
from dubio.uncertainty.detection.detector import SCORES
from dubio.uncertainty.detection.selective import REFUSALS

ANSWER: dict[str, Any] = {
    "id": None,
    "model": {"name": "m", "version": "1"},
    "predictions": [
        {
            "deterministic": {"label": "a", "probability": 0.75, "probabilities": [0.75, 0.25]},
            "mc": {"samples": 2, "label": "a", "mean": [0.75, 0.25], "std": [0.125, 0.125]},
            "uncertainty": {"predictive_entropy": 0.5, "expected_entropy": 0.25, "mutual_information": 0.25},
            "ood": {"flagged": None, "p_value": None, "level": None, "reason": NOT_CALIBRATED},
            "label_set": {"labels": None, "coverage": None, "reason": NOT_CALIBRATED},
            "decision": {"accepted": None, "risk": None, "confidence": None, "reason": NOT_CALIBRATED, "others": []},
            "image": {"height": 480, "width": 640, "oriented": False, "resized": True},
        }
    ],
}


def test_every_reason_that_a_model_gives_is_a_reason_of_the_answer() -> None:
    described = PredictResponse.model_json_schema()["$defs"]["OutOfDistribution"]["properties"]["reason"]
    (choices,) = [choice["enum"] for choice in described["anyOf"] if "enum" in choice]
    without_flag = {OUT_OF_RANGE, NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES, CALIBRATION_TOO_SMALL}
    assert set(choices) == {score.reason for score in SCORES.values()} | without_flag


def test_every_reason_for_no_decision_is_one_of_the_answer() -> None:
    schema = PredictResponse.model_json_schema()["$defs"]
    none = {NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES, CALIBRATION_TOO_SMALL}
    for kind, reasons in (("Decision", none | {NOT_FOR_ENSEMBLES, NO_RISK_PROMISED, *REFUSALS}), ("LabelSet", none)):
        described = schema[kind]["properties"]["reason"]
        (choices,) = [choice["enum"] for choice in described["anyOf"] if "enum" in choice]
        assert set(choices) == reasons


@pytest.mark.parametrize("path", [[], ["model"], *(["predictions", 0, part] for part in ANSWER["predictions"][0])])
def test_an_answer_has_every_key_and_no_other(path: list[str | int]) -> None:
    PredictResponse.model_validate(ANSWER, strict=True)
    for key in _part(ANSWER, path):
        without = copy.deepcopy(ANSWER)
        del _part(without, path)[key]
        with pytest.raises(ValueError, match="Field required"):
            PredictResponse.model_validate(without, strict=True)
    more = copy.deepcopy(ANSWER)
    _part(more, path)["x"] = 1
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        PredictResponse.model_validate(more, strict=True)


def _part(answer: Any, path: list[str | int]) -> dict[str, Any]:
    for step in path:
        answer = answer[step]
    return answer
