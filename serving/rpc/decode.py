"""From the message of an infer call to what is asked of a model: the request that its JSON would be, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from dubio.serving.errors import InvalidRequest
from dubio.serving.rpc import open_inference_pb2 as pb
from dubio.serving.v2.decode import DecodedRequest, decode
from dubio.serving.v2.input_tensor import ModelSignature
from dubio.serving.v2.schema import InferRequest, RequestInput
from dubio.serving.v2.tensor_data import BOOL, BYTES, NUMBERS, name_input, out_of_bounds
from dubio.serving.wire.effort import Effort
from dubio.serving.wire.envelope import validate

# Where the values of each datatype are, unless they are raw; those of 16-bit floats are always raw.
FIELDS = {
    BOOL: "bool_contents",
    BYTES: "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
}
# What lists and parameters hold beyond this is refused anyway, by rules that need not see more.
_MOST_LOOKED_AT = 5000


def decode_request(
    message: pb.ModelInferRequest, *, model: ModelSignature, effort: Effort | None = None
) -> DecodedRequest:
    """Read a request; its envelope becomes that of JSON, its values bytes as they are behind JSON.

    Args:
        message: The request.
        model: Whom it is for.
        effort: What reading may take; by default no time is set.

    Raises:
        InvalidRequest, TooManyRows: It breaks a rule; the message names field, rule, value and cure.
    """
    document: dict[str, Any] = {"inputs": [_read_tensor(tensor) for tensor in message.inputs[:_MOST_LOOKED_AT]]}
    if message.id:
        document["id"] = message.id
    if message.parameters:
        document["parameters"] = read_parameters(message.parameters)
    if message.outputs:
        document["outputs"] = [
            {"name": output.name, **_parameters_of(output)} for output in message.outputs[:_MOST_LOOKED_AT]
        ]
    request = validate(document, InferRequest)
    return decode(request, _read_values(message, request.inputs), model, effort=effort)


def read_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they would be in JSON."""
    return {name: read_parameter(parameters[name]) for name in islice(parameters, _MOST_LOOKED_AT)}


def read_parameter(parameter: Any) -> Any:
    """The value of one, which may be of several types; None if it has none."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def _read_tensor(tensor: pb.ModelInferRequest.InferInputTensor) -> dict[str, Any]:
    shape = list(tensor.shape[:_MOST_LOOKED_AT])
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, **_parameters_of(tensor)}


def _parameters_of(part: Any) -> dict[str, Any]:
    return {"parameters": read_parameters(part.parameters)} if part.parameters else {}


def _read_values(message: pb.ModelInferRequest, tensors: Sequence[RequestInput]) -> Iterator[memoryview]:
    """The bytes of each tensor, little-endian, those of BYTES behind their length; its datatype and shape are checked.

    Raises:
        InvalidRequest: Values that are missing, come twice or stand where those of another datatype do.
    """
    raw = message.raw_input_contents
    if not raw:
        for each, tensor in zip(message.inputs, tensors, strict=True):
            yield memoryview(_to_bytes(each.contents, tensor))
        return
    for each, tensor in zip(message.inputs, tensors, strict=True):
        if each.contents.ListFields():
            raise InvalidRequest(
                f"Expected the values of {name_input(tensor)} once, but it has `contents`, and the request has "
                "`raw_input_contents`; leave one of them out."
            )
    if len(raw) != len(tensors):
        raise InvalidRequest(
            f"Expected `raw_input_contents` to have one entry for each input, but the inputs are {len(tensors)} and "
            f"the entries {len(raw)}; send the values of all inputs in their order."
        )
    for part in raw:
        yield memoryview(part)


def _to_bytes(contents: pb.InferTensorContents, tensor: RequestInput) -> bytes:
    """The bytes that the same values have in `raw_input_contents`."""
    where = name_input(tensor)
    field = FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidRequest(
            f"Expected {where} of datatype {tensor.datatype} in `raw_input_contents`, but it is not there; send it so, "
            "or FP32."
        )
    used = [descriptor.name for descriptor, _ in contents.ListFields()]
    if used != [field]:
        found = f"but they are in {', '.join(used)}" if used else "but there are none"
        raise InvalidRequest(
            f"Expected the values of {where} in `contents.{field}`, as its datatype {tensor.datatype} says, or in "
            f"`raw_input_contents`, {found}; send them there alone."
        )
    values = list(getattr(contents, field))
    size = math.prod(tensor.shape)
    if len(values) != size:
        raise InvalidRequest(
            f"Expected `contents.{field}` of {where} to hold {size} values, as its shape {tensor.shape} says, but it "
            f"holds {len(values)}; send them all, flat in row-major order."
        )
    if tensor.datatype == BYTES:
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    if tensor.datatype == BOOL:
        return bytes(values)
    kind = NUMBERS[tensor.datatype]
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        if min(values) < bounds.min or max(values) > bounds.max:
            raise out_of_bounds(tensor.datatype, f"`contents.{field}` of {where}")
    return np.array(values, kind).tobytes()
