"""From a prediction to the bytes of an infer call's answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from dubio.models import Prediction
from dubio.serving.repository.repository import ServedModel
from dubio.serving.rpc import open_inference_pb2 as pb
from dubio.serving.rpc.decode import FIELDS
from dubio.serving.v2.decode import DecodedRequest
from dubio.serving.v2.encode import list_parameters, list_tensors
from dubio.serving.v2.tensor_data import to_bytes

_PARAMETERS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def encode_response(prediction: Prediction, *, request: DecodedRequest, model: ServedModel, raw: bool) -> bytes:
    """The outputs that were asked for.

    Args:
        prediction: Of the request's inputs.
        request: What was asked for.
        model: Who answered.
        raw: Whether values go as `raw_output_contents`.

    Raises:
        InvalidRequest: An output was asked for by name, and no calibration applies.
        Overloaded: None applies because fewer members answered than were asked.
    """
    answer = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id or "")
    for name, value in list_parameters(prediction, request.work).items():
        setattr(answer.parameters[name], _PARAMETERS[type(value)], value)
    for tensor in list_tensors(prediction, request=request, model=model):
        output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            answer.raw_output_contents.append(bytes(to_bytes(tensor.values)))
        else:
            values: list[Any] = (
                np.ravel(tensor.values).tolist()
                if isinstance(tensor.values, np.ndarray)
                else [text.encode() for text in tensor.values]
            )
            getattr(output.contents, FIELDS[tensor.datatype]).extend(values)
    written: bytes = answer.SerializeToString()
    return written
