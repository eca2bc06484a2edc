"""The input tensor of an infer request: the caller's rows, in JSON or in binary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1.instances import flatten, name_value
from dubio.serving.v2 import schema as wire
from dubio.serving.wire.envelope import quoted, read_object, read_parameters

# Everything that can become an input of float32 numbers.
NUMBERS: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}


def from_bytes(raw: memoryview, *, datatype: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """A tensor over the bytes themselves if they are FP32, else converted; as many bytes as the shape takes."""
    return _floats(np.frombuffer(raw, NUMBERS[datatype])).reshape(shape)


def from_json(data: object, *, datatype: str, shape: Sequence[int], where: str) -> NDArray[np.float32]:
    """A tensor from lists, nested as its shape says or flat in row-major order.

    Args:
        data: from JSON.
        datatype: a key of `NUMBERS`.
        shape: at least one axis, no zeros.
        where: the data's name, for messages.

    Raises:
        InvalidRequest: another number of elements, ragged, no numbers, or numbers that the datatype does not have.
    """
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
    return _floats(numbers).reshape(shape)


def to_bytes(values: NDArray[Any] | Sequence[str]) -> bytes | memoryview:
    """A tensor's bytes, those of the array itself where it has them; strings become BYTES."""
    if isinstance(values, np.ndarray):
        array: NDArray[Any] = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return array.data.cast("B")
    encoded = [text.encode() for text in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.float32:
        return array
    # Numbers beyond float32 become infinite, which is looked for where the row can be named.
    with np.errstate(over="ignore", invalid="ignore"):
        floats: NDArray[np.float32] = array.astype(np.float32, copy=False)
        return floats


INPUT = "input"

# More axes than any input has; a longer shape is not repeated in a message.
_MOST_AXES = 16


@dataclass(frozen=True)
class Target:
    """The model that a request is for.

    Attributes:
        name: for messages.
        shape: of one input.
        classes: how many there are.
        committee: how many members can answer.
        max_rows: that one request may carry.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    committee: int
    max_rows: int


def read_inputs(entries: object, rest: memoryview, target: Target) -> NDArray[np.float32]:
    """The rows [B, *shape] of a request.

    Args:
        entries: the request's `inputs`.
        rest: the body behind the JSON.
        target: the model.

    Raises:
        InvalidRequest, TooManyRows: see the message.
    """
    if not isinstance(entries, list) or not entries:
        raise InvalidRequest(
            f"expected 1 inputs but got 0 inputs for model {target.name!r}; "
            f'send "inputs": [{{"name": "{INPUT}", "shape": [...], "datatype": "FP32", "data": [...]}}].'
        )
    tensor = read_object(entries[0], known=wire.RequestInput.model_fields, what="an input")
    if tensor.get("name") != INPUT:
        raise InvalidRequest(
            f"unexpected inference input {quoted(tensor.get('name'))} for model {target.name!r}; "
            f"its only input is '{INPUT}'."
        )
    if len(entries) > 1:
        raise InvalidRequest(f"expected 1 inputs but got {len(entries)} inputs for model {target.name!r}; send one.")
    datatype = _datatype(tensor.get("datatype"), target)
    shape = _shape(tensor.get("shape"), target)
    parameters = read_parameters(tensor.get("parameters"), known=wire.InputParameters.model_fields, of="an input")
    size = parameters.get("binary_data_size")
    if size is None:
        if len(rest):
            raise _trailing(len(rest), target)
        if tensor.get("data") is None:
            raise InvalidRequest(
                f"Expected `data` or `parameters.binary_data_size` for input '{INPUT}', but it has neither; "
                "send its numbers."
            )
        return _finite(from_json(tensor["data"], datatype=datatype, shape=shape, where=f"`data` of input '{INPUT}'"))
    if tensor.get("data") is not None:
        raise InvalidRequest(f"Expected input '{INPUT}' in JSON or in binary, but it has `data` and binary_data_size.")
    expected = NUMBERS[datatype].itemsize * math.prod(shape)
    if type(size) is not int or size != expected:
        raise InvalidRequest(
            f"input byte size mismatch for input '{INPUT}' for model {target.name!r}. Expected {expected}, got "
            f"{name_value(size)}; {datatype} of shape {shape} takes {expected} bytes."
        )
    if len(rest) < size:
        raise InvalidRequest(
            f"Expected {size} bytes of input '{INPUT}' behind the JSON, but got {len(rest)}; send them all, and how "
            "many bytes are JSON in the header Inference-Header-Content-Length."
        )
    if len(rest) > size:
        raise _trailing(len(rest) - size, target)
    return _finite(from_bytes(rest, datatype=datatype, shape=shape))


def read_raw(body: memoryview, target: Target) -> NDArray[np.float32]:
    """One row whose FP32 numbers are the whole body.

    Raises:
        InvalidRequest: another number of bytes, or values that are not finite.
    """
    shape = (1, *target.shape)
    expected = NUMBERS["FP32"].itemsize * math.prod(shape)
    if len(body) != expected:
        raise InvalidRequest(
            f"Expected a raw binary request to hold one FP32 input of shape {list(shape)} for model {target.name!r}, "
            f"{expected} bytes, but got {len(body)} bytes; send more rows with their shape in JSON."
        )
    return _finite(from_bytes(body, datatype="FP32", shape=shape))


def _trailing(surplus: int, target: Target) -> InvalidRequest:
    return InvalidRequest(
        f"unexpected additional input data for model {target.name!r}: {surplus} bytes follow the last input; "
        "announce them in its binary_data_size, or leave them out."
    )


def _shape(value: object, target: Target) -> list[int]:
    expected = f"Expected {[-1, *target.shape]}"
    where = f"unexpected shape for input '{INPUT}' for model {target.name!r}."
    if not isinstance(value, list) or len(value) > _MOST_AXES:
        what = f"{len(value)} axes" if isinstance(value, list) else name_value(value)
        raise InvalidRequest(f"{where} {expected}, got {what}.")
    if any(type(size) is not int for size in value):
        raise InvalidRequest(f"{where} {expected}, got {', '.join(map(name_value, value))}; send whole numbers.")
    if tuple(value[1:]) != target.shape or not value or value[0] < 1:
        raise InvalidRequest(f"{where} {expected}, got {value}; the first axis counts the rows, at least 1.")
    if value[0] > target.max_rows:
        raise TooManyRows(
            f"inference request batch-size must be <= {target.max_rows} for {target.name!r}, but got {value[0]}; "
            "split the rows over several requests."
        )
    return value


def _datatype(value: object, target: Target) -> str:
    if isinstance(value, str) and value in NUMBERS:
        return value
    raise InvalidRequest(
        f"inference input '{INPUT}' data-type is {quoted(value)}, but model {target.name!r} expects 'FP32'; "
        f"also taken, and converted: {', '.join(name for name in NUMBERS if name != 'FP32')}."
    )


def _finite(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(inputs).all():
        row = int(np.argwhere(~np.isfinite(inputs))[0][0])
        raise InvalidRequest(
            f"Expected input '{INPUT}' to hold finite 32-bit floats (at most 3.4e38), but row {row} has NaN, infinity "
            "or a larger number; leave the row out, or fill in what is missing."
        )
    return inputs
