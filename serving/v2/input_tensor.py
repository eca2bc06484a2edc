"""The input tensor of an infer request: the caller's rows, in JSON or in binary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v2.schema import RequestInput
from dubio.serving.wire.arrays import flatten, to_float32

INPUT = "input"
# Everything that can become an input of float32 numbers.
NUMBERS: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
_WHERE = f"input '{INPUT}'"


@dataclass(frozen=True)
class ModelSignature:
    """The model that a request is for.

    Attributes:
        name: For messages.
        shape: Of one input.
        classes: How many there are.
        committee: How many members can answer.
        max_rows: How many one request may carry.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    committee: int
    max_rows: int


def from_bytes(raw: memoryview, *, datatype: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """A tensor over the bytes themselves if they are FP32, else converted.

    Args:
        raw: As many bytes as the shape takes.
        datatype: A key of `NUMBERS`.
        shape: Rows first.

    Raises:
        InvalidRequest: A number that is not finite.
    """
    return to_float32(np.frombuffer(raw, NUMBERS[datatype]).reshape(shape), where=_WHERE)


def from_json(data: object, *, datatype: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """A tensor from lists, nested as its shape says or flat in row-major order.

    Args:
        data: From JSON.
        datatype: A key of `NUMBERS`.
        shape: Rows first, no zeros.

    Raises:
        InvalidRequest: Another number of elements, ragged, no numbers, or numbers that the datatype does not have.
    """
    where = f"`data` of {_WHERE}"
    if datatype == "FP16":
        raise InvalidRequest(f"Expected {where} of datatype FP16 in binary, but it is JSON; send FP32 instead.")
    values = flatten(data, where=where, accepted=list(dict.fromkeys((tuple(shape), (math.prod(shape),)))))
    kind = NUMBERS[datatype]
    numbers = np.array(values, dtype=np.float64)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        if float in set(map(type, values)) or numbers.min() < bounds.min or numbers.max() > bounds.max:
            raise InvalidRequest(
                f"Expected {where} to hold integers in [{bounds.min}, {bounds.max}], as its datatype {datatype} says, "
                "but it holds other numbers; name the datatype FP32."
            )
    return to_float32(numbers.reshape(shape), where=where)


def to_bytes(values: NDArray[Any] | Sequence[str]) -> bytes | memoryview:
    """A tensor's bytes, those of the array itself where it has them; strings become BYTES."""
    if isinstance(values, np.ndarray):
        array: NDArray[Any] = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return array.data.cast("B")
    encoded = [text.encode() for text in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def read_input(tensor: RequestInput, rest: memoryview, model: ModelSignature) -> NDArray[np.float32]:
    """The rows [B, *shape] of a request.

    Args:
        tensor: The request's input.
        rest: The body behind the JSON.
        model: Whom the request is for.

    Raises:
        InvalidRequest, TooManyRows: See the message.
    """
    if tensor.name != INPUT:
        raise InvalidRequest(
            f"unexpected inference input {tensor.name[:100]!r} for model {model.name!r}; its only input is '{INPUT}'."
        )
    if tensor.datatype not in NUMBERS:
        raise InvalidRequest(
            f"inference {_WHERE} data-type is {tensor.datatype[:100]!r}, but model {model.name!r} expects 'FP32'; "
            f"also taken, and converted: {', '.join(name for name in NUMBERS if name != 'FP32')}."
        )
    _check_shape(tensor.shape, model)
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if (size is None) == (tensor.data is None):
        what = "neither" if size is None else "both"
        raise InvalidRequest(
            f"Expected `data` or `parameters.binary_data_size` for {_WHERE}, but it has {what}; send its numbers once."
        )
    expected = NUMBERS[tensor.datatype].itemsize * math.prod(tensor.shape)
    if size not in (None, expected):
        raise InvalidRequest(
            f"input byte size mismatch for {_WHERE} for model {model.name!r}. Expected {expected}, got {size}; "
            f"{tensor.datatype} of shape {tensor.shape} takes {expected} bytes."
        )
    surplus = len(rest) - (size or 0)
    if surplus < 0:
        raise InvalidRequest(
            f"Expected {size} bytes of {_WHERE} behind the JSON, but got {len(rest)}; send them all, and how "
            "many bytes are JSON in the header Inference-Header-Content-Length."
        )
    if surplus > 0:
        raise InvalidRequest(
            f"unexpected additional input data for model {model.name!r}: {surplus} bytes follow the last input; "
            "announce them in its binary_data_size, or leave them out."
        )
    if size is None:
        return from_json(tensor.data, datatype=tensor.datatype, shape=tensor.shape)
    return from_bytes(rest, datatype=tensor.datatype, shape=tensor.shape)


def read_raw(body: memoryview, model: ModelSignature) -> NDArray[np.float32]:
    """One row whose FP32 numbers are the whole body.

    Raises:
        InvalidRequest: Another number of bytes, or values that are not finite.
    """
    shape = (1, *model.shape)
    expected = NUMBERS["FP32"].itemsize * math.prod(shape)
    if len(body) != expected:
        raise InvalidRequest(
            f"Expected a raw binary request to hold one FP32 input of shape {list(shape)} for model {model.name!r}, "
            f"{expected} bytes, but got {len(body)} bytes; send more rows with their shape in JSON."
        )
    return from_bytes(body, datatype="FP32", shape=shape)


def _check_shape(shape: list[int], model: ModelSignature) -> None:
    if tuple(shape[1:]) != model.shape or not shape or shape[0] < 1:
        raise InvalidRequest(
            f"unexpected shape for {_WHERE} for model {model.name!r}. Expected {[-1, *model.shape]}, got {shape}; the "
            "first axis counts the rows, at least 1."
        )
    if shape[0] > model.max_rows:
        raise TooManyRows(
            f"inference request batch-size must be <= {model.max_rows} for {model.name!r}, but got {shape[0]}; "
            "split the rows over several requests."
        )
