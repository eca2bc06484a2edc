"""From a prediction to a response's bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from dubio.models import Prediction
from dubio.serving.repository.repository import ServedModel


def encode_response(
    prediction: Prediction,
    *,
    model: ServedModel,
    request_id: str | None,
    images: Sequence[Mapping[str, int | bool] | None],
) -> bytes:
    """The `PredictResponse` of `schema.py` as JSON.

    Numbers of float32 are written with the fewest digits that read back to the same float32.

    Args:
        prediction: Of the request's inputs.
        model: Who answered.
        request_id: To echo.
        images: What was read of each image file; None for every other instance.
    """
    answer = {
        "id": request_id,
        "model": {"name": model.name, "version": model.version},
        "predictions": [
            _row(prediction, row, classes=model.predictor.classes, samples=samples) | {"image": images[row]}
            for row, samples in enumerate(prediction.mc_samples.tolist())
        ],
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _row(prediction: Prediction, row: int, *, classes: tuple[str, ...], samples: int) -> dict[str, Any]:
    label = int(prediction.label[row])
    return {
        "deterministic": {
            "label": classes[label],
            "probability": prediction.probabilities[row, label],
            "probabilities": prediction.probabilities[row],
        },
        "mc": {
            "samples": samples,
            "label": classes[int(prediction.mc_label[row])],
            "mean": prediction.mc_mean[row],
            "std": prediction.mc_std[row],
        },
        "uncertainty": {
            "predictive_entropy": prediction.predictive_entropy[row],
            "expected_entropy": prediction.expected_entropy[row],
            "mutual_information": prediction.mutual_information[row],
        },
        "ood": {
            "flagged": None if prediction.flagged is None else bool(prediction.flagged[row]),
            "p_value": None if prediction.p_value is None else np.float64(prediction.p_value[row]),
            "level": prediction.level,
            "reason": prediction.reasons[row],
        },
    }
