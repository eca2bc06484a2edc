"""From a prediction to a response's bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from dubio.models import Prediction
from dubio.models.decision import Decision, members
from dubio.serving.repository.repository import ServedModel
from dubio.serving.wire.explanation import to_plain

# Writing this many takes about a millisecond; more would hold up the event loop.
LONG_ROWS = 32
LONG_EXPLAINED_ROWS = 2  # with pictures


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
        "predictions": _rows(prediction, model.facts.classes, images),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_tf_serving(
    prediction: Prediction, *, model: ServedModel, images: Sequence[Mapping[str, int | bool] | None]
) -> bytes:
    """The same predictions alone, as TensorFlow Serving and KServe's V1 protocol answer.

    Args:
        prediction: Of the request's inputs.
        model: Who answered.
        images: As `encode_response`.
    """
    answer = {"predictions": _rows(prediction, model.facts.classes, images)}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _rows(
    prediction: Prediction, classes: tuple[str, ...], images: Sequence[Mapping[str, int | bool] | None]
) -> list[dict[str, Any]]:
    return [
        _row(prediction, row, classes=classes, samples=samples) | {"image": images[row]}
        for row, samples in enumerate(prediction.mc_samples.tolist())
    ]


def _row(prediction: Prediction, row: int, *, classes: tuple[str, ...], samples: int) -> dict[str, Any]:
    label = int(prediction.label[row])
    first, *others = [_decision(decision, row) for decision in prediction.decisions or ()]
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
            **(to_plain(prediction.explanations[row]) if prediction.explanations else {}),
        },
        "label_set": _label_set(prediction, row, classes),
        "decision": {**first, "others": others},
    }


def _label_set(prediction: Prediction, row: int, classes: tuple[str, ...]) -> dict[str, Any]:
    sets = prediction.label_sets
    if sets is None or sets.contains is None:
        labels = None
    else:
        labels = [classes[index] for index in members(sets.contains[row], prediction.mc_mean[row])]
    return {"labels": labels, "coverage": sets and sets.coverage, "reason": sets and sets.reason}


def _decision(decision: Decision, row: int) -> dict[str, Any]:
    return {
        "accepted": None if decision.accepted is None else bool(decision.accepted[row]),
        "risk": decision.risk,
        "confidence": decision.confidence,
        "reason": decision.reason,
    }
