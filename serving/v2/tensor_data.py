"""The data of a request's tensors, in JSON or in binary behind it, and of an answer's in binary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest
from dubio.serving.v2.schema import RequestInput
from dubio.serving.wire.arrays import flatten, to_float32

# Everything that can become an input of float32 numbers.
NUMBERS: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
BOOL, BYTES = "BOOL", "BYTES"
_ITEM_BYTES = {BOOL: 1, **{name: kind.itemsize for name, kind in NUMBERS.items()}}


def name_input(tensor: RequestInput) -> str:
    """An input in messages."""
    return f"input {tensor.name[:100]!r}"


Binary = memoryview | Iterable[memoryview]
"""The bytes of tensors: of all together behind the JSON, or one after the other, as gRPC has them."""


def split_binary(tensors: Sequence[RequestInput], binary: Binary, model: str) -> Sequence[memoryview | None]:
    """Each tensor's bytes; None for one whose data are in the JSON.

    Args:
        tensors: In their order in the request, of datatypes that there are.
        binary: As they were sent.
        model: Its name, for messages.

    Raises:
        InvalidRequest: Data that are missing or come twice, or another number of bytes than was announced.
    """
    if not isinstance(binary, memoryview):
        received = list(binary)
        for tensor, part in zip(tensors, received, strict=True):
            _check_size(tensor, len(part), model)
        return received
    parts: list[memoryview | None] = []
    begin = 0
    for tensor in tensors:
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        if (size is None) == (tensor.data is None):
            what = "neither" if size is None else "both"
            raise InvalidRequest(
                f"Expected `data` or `parameters.binary_data_size` for {name_input(tensor)}, but it has {what}; send "
                "its values once."
            )
        if size is None:
            parts.append(None)
            continue
        _check_size(tensor, size, model)
        if begin + size > len(binary):
            raise InvalidRequest(
                f"Expected {size} bytes of {name_input(tensor)} behind the JSON, but got {len(binary) - begin}; send "
                "them all, and how many bytes are JSON in the header Inference-Header-Content-Length."
            )
        parts.append(binary[begin : begin + size])
        begin += size
    if begin < len(binary):
        raise InvalidRequest(
            f"unexpected additional input data for model {model!r}: {len(binary) - begin} bytes follow the last input; "
            "announce them in its binary_data_size, or leave them out."
        )
    return parts


def _check_size(tensor: RequestInput, size: int, model: str) -> None:
    expected = size if tensor.datatype == BYTES else _ITEM_BYTES[tensor.datatype] * math.prod(tensor.shape)
    if size != expected:
        raise InvalidRequest(
            f"input byte size mismatch for {name_input(tensor)} for model {model!r}. Expected {expected}, got "
            f"{size}; {tensor.datatype} of shape {tensor.shape} takes {expected} bytes."
        )


def from_bytes(raw: memoryview, *, datatype: str, shape: Sequence[int], where: str) -> NDArray[np.float32]:
    """A tensor over the bytes themselves if they are FP32, else converted.

    Args:
        raw: As many bytes as the shape takes.
        datatype: A key of `NUMBERS`.
        shape: Rows first.
        where: Names the tensor in messages.

    Raises:
        InvalidRequest: A number that is not finite.
    """
    return to_float32(np.frombuffer(raw, NUMBERS[datatype]).reshape(shape), where=where)


def from_json(data: object, *, datatype: str, shape: Sequence[int], where: str) -> NDArray[np.float32]:
    """A tensor from lists, nested as its shape says or flat in row-major order.

    Args:
        data: From JSON.
        datatype: A key of `NUMBERS`.
        shape: Rows first, no zeros.
        where: Names the tensor in messages.

    Raises:
        InvalidRequest: Another number of elements, ragged, no numbers, or numbers that the datatype does not have.
    """
    where = f"`data` of {where}"
    refuse_half(datatype, where)
    values = flatten(data, where=where, accepted=list(dict.fromkeys((tuple(shape), (math.prod(shape),)))))
    numbers = np.array(values, dtype=np.float64)
    kind = NUMBERS[datatype]
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        if float in set(map(type, values)) or numbers.min() < bounds.min or numbers.max() > bounds.max:
            raise out_of_bounds(datatype, where)
    return to_float32(numbers.reshape(shape), where=where)


def refuse_half(datatype: str, where: str) -> None:
    """Refuse numbers of 16 bits in JSON, as the protocol does.

    Raises:
        InvalidRequest: The datatype is FP16.
    """
    if datatype == "FP16":
        raise InvalidRequest(f"Expected {where} of datatype FP16 in binary, but it is JSON; send FP32 instead.")


def out_of_bounds(datatype: str, where: str) -> InvalidRequest:
    """The error of numbers that an integer datatype does not have."""
    bounds = np.iinfo(NUMBERS[datatype])
    return InvalidRequest(
        f"Expected {where} to hold integers in [{bounds.min}, {bounds.max}], as its datatype {datatype} says, but it "
        "holds other numbers; name the datatype FP32."
    )


def to_bytes(values: NDArray[Any] | Sequence[str]) -> bytes | memoryview:
    """A tensor's bytes, those of the array itself where it has them; strings become BYTES."""
    if isinstance(values, np.ndarray):
        array: NDArray[Any] = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return array.data.cast("B")
    encoded = [text.encode() for text in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
