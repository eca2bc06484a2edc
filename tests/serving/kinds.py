"""One row of every kind of input, as a user has it; every format must read it as `/v1/predict` does."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.pictures import encode

# Without holes, with some, and with values that no training row had.
ROWS: list[dict[str, Any]] = [
    {"age": 40, "income": 2500.5, "city": "Bern", "member": True},
    {"age": 18, "income": None, "city": None, "member": False},
    {"age": 5000, "income": 0.1, "city": "Basel", "member": "TRUE"},
]
TEXTS = ["Where is my card?", "ÜBER now", "quite other words"]
NUMBERS: list[list[float]] = np.random.default_rng(0).normal(size=(3, 5)).round(3).tolist()
_PIXELS = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
FILES = [encode(Image.fromarray(pixels)) for pixels in _PIXELS]
IN_BASE64 = [base64.b64encode(file).decode() for file in FILES]

INSTANCES: dict[str, list[Any]] = {
    "row": NUMBERS,
    "table": ROWS,
    "text": TEXTS,
    "pixels": [{"b64": text} for text in IN_BASE64],
}


def predictions(client: httpx.Client, model: str, instances: list[Any] | None = None) -> list[dict[str, Any]]:
    """What `/v1/predict` answers."""
    response = client.post(f"/v1/models/{model}/predict", json={"instances": instances or INSTANCES[model]})
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["predictions"]
    assert any(max(answer["mc"]["std"]) > 0 for answer in answers)
    return answers


def check_outputs(outputs: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    """The outputs of an infer call, as arrays or lists by name, are those predictions to the last bit."""
    for name, kind, read in (
        ("probabilities", np.float32, lambda answer: answer["deterministic"]["probabilities"]),
        ("mc_mean", np.float32, lambda answer: answer["mc"]["mean"]),
        ("mc_std", np.float32, lambda answer: answer["mc"]["std"]),
        ("mutual_information", np.float32, lambda answer: answer["uncertainty"]["mutual_information"]),
        ("ood_p_value", np.float64, lambda answer: answer["ood"]["p_value"]),
        ("ood_flag", np.bool_, lambda answer: answer["ood"]["flagged"]),
    ):
        values = np.array([read(answer) for answer in expected], kind)
        # JSON has the fewest digits that read back to the same number.
        assert np.array_equal(np.asarray(outputs[name], kind).reshape(values.shape), values), name
    labels = [each.decode() if isinstance(each, bytes) else each for each in np.ravel(outputs["label"]).tolist()]
    assert labels == [answer["deterministic"]["label"] for answer in expected]
