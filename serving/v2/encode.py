"""From a prediction to the bytes of an infer answer of the Open Inference Protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson

from dubio.models import AUTO, Prediction, Work
from dubio.models.decision import NO_RISK_PROMISED
from dubio.models.ensemble import CALIBRATION_TOO_SMALL, NOT_FOR_ENSEMBLES
from dubio.models.prediction import NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES
from dubio.serving.errors import InvalidRequest, Overloaded
from dubio.serving.repository.repository import ServedModel
from dubio.serving.v2.decode import DecodedRequest, SelectedOutput
from dubio.serving.v2.outputs import Values, classify, no_decision, no_set
from dubio.serving.v2.tensor_data import to_bytes
from dubio.uncertainty.detection.selective import TOO_FEW_ROWS, TOO_MANY_ERRORS

_CALIBRATE = "calibrate it for a larger one, or on more rows (`dubio-train calibrate --calibration.risk`)"
# Of each reason what is the matter with the model, and the cure.
_REASONS = {
    NOT_CALIBRATED: ("is not calibrated", "calibrate it (`dubio-train calibrate`)"),
    NOT_CALIBRATED_FOR_SAMPLES: ("is not calibrated for so many members", "leave out `parameters.samples`"),
    NOT_FOR_ENSEMBLES: (
        "is several checkpoints, whose promises imply none about what they say together",
        "ask one of them alone",
    ),
    CALIBRATION_TOO_SMALL: ("was calibrated on too few rows", "calibrate each of its checkpoints on more rows"),
    NO_RISK_PROMISED: (
        "was calibrated without a promise about accepted answers",
        "calibrate it with one (`dubio-train calibrate --calibration.risk`)",
    ),
    TOO_FEW_ROWS: ("was calibrated on too few rows to promise the risk that was asked for", _CALIBRATE),
    TOO_MANY_ERRORS: ("errs too often on its calibration rows to promise the risk that was asked for", _CALIBRATE),
}


@dataclass(frozen=True)
class EncodedResponse:
    """An answer.

    Attributes:
        body: JSON, and behind it the outputs in binary.
        header_length: How many bytes are JSON; None if all are.
    """

    body: bytes
    header_length: int | None


class OutputTensor(NamedTuple):
    """An output of an answer.

    Attributes:
        name: Of the output.
        datatype: The protocol's name for it.
        shape: Of its values.
        values: An array, or strings in row-major order.
        binary: Whether it goes in binary, where the answer is JSON.
    """

    name: str
    datatype: str
    shape: list[int]
    values: Values
    binary: bool


def encode_response(prediction: Prediction, *, request: DecodedRequest, model: ServedModel) -> EncodedResponse:
    """The outputs that were asked for: JSON, and behind it those that go in binary.

    Args:
        prediction: Of the request's inputs.
        request: What was asked for.
        model: Who answered.

    Raises:
        InvalidRequest: An output was asked for by name, and no calibration applies.
        Overloaded: None applies because fewer members answered than were asked.
    """
    raw: list[bytes | memoryview] = []
    tensors = [_describe(tensor, raw) for tensor in list_tensors(prediction, request=request, model=model)]
    answer: dict[str, Any] = {} if request.id is None else {"id": request.id}
    answer |= {"model_name": model.name, "model_version": model.version}
    if parameters := list_parameters(prediction, request.work):
        answer["parameters"] = parameters
    head = orjson.dumps({**answer, "outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(selected.binary for selected in request.outputs):
        return EncodedResponse(head, None)
    return EncodedResponse(b"".join([head, *raw]), len(head))


def list_tensors(prediction: Prediction, *, request: DecodedRequest, model: ServedModel) -> list[OutputTensor]:
    """The outputs that were asked for.

    Args:
        prediction: Of the request's inputs.
        request: What was asked for.
        model: Who answered.

    Raises:
        InvalidRequest: An output was asked for by name, and no calibration applies.
        Overloaded: None applies because fewer members answered than were asked.
    """
    classes = model.facts.classes
    tensors = []
    for selected in request.outputs:
        values = selected.output.read(prediction, classes)
        if values is not None:
            tensors.append(_tensor(selected, values, classes))
        elif request.listed:
            raise _not_given(prediction, request, selected)
    return tensors


def _tensor(selected: SelectedOutput, values: Values, classes: tuple[str, ...]) -> OutputTensor:
    output = selected.output
    datatype, shape = output.datatype, output.shape(len(values), len(classes))
    if selected.classification is not None:
        rows = classify(np.asarray(values), classes, count=selected.classification)
        datatype, shape = "BYTES", [len(rows), selected.classification]
        values = [text for row in rows for text in row]
    return OutputTensor(output.name, datatype, shape, values, selected.binary)


def _describe(tensor: OutputTensor, raw: list[bytes | memoryview]) -> dict[str, Any]:
    """The tensor's entry in the JSON; its bytes join `raw` if it goes in binary."""
    entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    values = tensor.values
    if tensor.binary:
        raw.append(to_bytes(values))
        entry["parameters"] = {"binary_data_size": len(raw[-1])}
    else:
        # One call writes all the numbers; float32 with the fewest digits that read back to the same float32.
        entry["data"] = np.ascontiguousarray(values).ravel() if isinstance(values, np.ndarray) else values
    return entry


def list_parameters(prediction: Prediction, work: Work) -> dict[str, Any]:
    """What the tensors do not say."""
    parameters: dict[str, Any] = {}
    if work >= Work.MC:
        parameters["samples"] = prediction.samples if isinstance(prediction.samples, int) else AUTO
    if work == Work.FLAG:
        if prediction.p_value is None:
            parameters["ood_reason"] = prediction.reasons[0]
        else:
            parameters["ood_level"] = prediction.level
        if prediction.accepted is None:
            parameters["accepted_reason"] = no_decision(prediction)
        elif prediction.decisions:
            first = prediction.decisions[0]
            parameters |= {"accepted_risk": first.risk, "accepted_confidence": first.confidence}
    if prediction.label_sets is not None:
        if prediction.label_set is None:
            parameters["label_set_reason"] = no_set(prediction)
        else:
            parameters["label_set_coverage"] = prediction.label_sets.coverage
    return parameters


def _not_given(
    prediction: Prediction, request: DecodedRequest, selected: SelectedOutput
) -> InvalidRequest | Overloaded:
    name, reason = selected.output.name, selected.output.why_not(prediction)
    if reason == NOT_CALIBRATED_FOR_SAMPLES and prediction.samples != request.samples:
        return Overloaded(
            f"Expected all members to answer for output '{name}', but only {prediction.samples} have the time now; "
            f"try again in a moment, or do without '{name}'.",
            retry_after=1,
        )
    matter, cure = _REASONS[reason or NOT_CALIBRATED]
    return InvalidRequest(
        f"Expected outputs that the model can give, but it has none for '{name}', for it {matter} ({reason}); {cure}, "
        f"or do without '{name}'."
    )
