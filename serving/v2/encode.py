"""From a prediction to the bytes of an infer answer of the Open Inference Protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from dubio.models import AUTO, Prediction, Work
from dubio.models.prediction import NOT_CALIBRATED_FOR_SAMPLES
from dubio.serving.errors import InvalidRequest, Overloaded
from dubio.serving.repository.repository import ServedModel
from dubio.serving.v2.decode import Inference, Requested
from dubio.serving.v2.input_tensor import to_bytes
from dubio.serving.v2.outputs import Values, classify


@dataclass(frozen=True)
class Reply:
    """An answer's body, and how many of its bytes are JSON; None if all are."""

    body: bytes
    header_length: int | None


def render(prediction: Prediction, *, asked: Inference, model: ServedModel) -> Reply:
    """The outputs that were asked for: JSON, and behind it those that go in binary.

    Raises:
        InvalidRequest: flags were asked for by name, and no calibration applies.
        Overloaded: none applies because fewer members answered than were asked.
    """
    classes = model.predictor.classes
    tensors: list[dict[str, Any]] = []
    raw: list[bytes | memoryview] = []
    for requested in asked.outputs:
        values = requested.output.read(prediction, classes)
        if values is None:
            if asked.listed:
                raise _no_flag(prediction, asked, requested)
            continue
        tensors.append(_tensor(requested, values, classes, raw))
    answer: dict[str, Any] = {} if asked.id is None else {"id": asked.id}
    answer |= {"model_name": model.name, "model_version": model.version}
    if parameters := _parameters(prediction, asked.work):
        answer["parameters"] = parameters
    head = orjson.dumps({**answer, "outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(requested.binary for requested in asked.outputs):
        return Reply(head, None)
    return Reply(b"".join([head, *raw]), len(head))


def _tensor(
    requested: Requested, values: Values, classes: tuple[str, ...], raw: list[bytes | memoryview]
) -> dict[str, Any]:
    """The tensor's entry in the JSON; its bytes join `raw` if it goes in binary."""
    output = requested.output
    datatype, shape = output.datatype, output.shape(len(values), len(classes))
    if requested.classification is not None:
        rows = classify(np.asarray(values), classes, count=requested.classification)
        datatype, shape = "BYTES", [len(rows), requested.classification]
        values = [text for row in rows for text in row]
    entry: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
    if requested.binary:
        raw.append(to_bytes(values))
        entry["parameters"] = {"binary_data_size": len(raw[-1])}
    else:
        # One call writes all the numbers; float32 with the fewest digits that read back to the same float32.
        entry["data"] = np.ascontiguousarray(values).ravel() if isinstance(values, np.ndarray) else values
    return entry


def _parameters(prediction: Prediction, work: Work) -> dict[str, Any]:
    """What the tensors do not say."""
    parameters: dict[str, Any] = {}
    if work >= Work.MC:
        parameters["samples"] = prediction.samples if isinstance(prediction.samples, int) else AUTO
    if work == Work.FLAG:
        if prediction.p_value is None:
            parameters["ood_reason"] = prediction.reasons[0]
        else:
            parameters["ood_level"] = prediction.level
    return parameters


def _no_flag(prediction: Prediction, asked: Inference, requested: Requested) -> InvalidRequest | Overloaded:
    name, reason = requested.output.name, prediction.reasons[0]
    if reason == NOT_CALIBRATED_FOR_SAMPLES and prediction.samples != asked.samples:
        return Overloaded(
            f"Expected all members to answer for output '{name}', but only {prediction.samples} have the time now; "
            f"try again in a moment, or do without '{name}'.",
            retry_after=1,
        )
    cure = "leave out `parameters.samples`" if reason == NOT_CALIBRATED_FOR_SAMPLES else "calibrate the model"
    return InvalidRequest(
        f"Expected a calibration that applies for output '{name}', but the answer is {reason}; {cure}, or do without "
        f"'{name}'."
    )
