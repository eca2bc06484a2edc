"""Tensors of the Open Inference Protocol: from JSON or raw bytes to arrays, and back.

Raw tensors are little-endian, row-major and without padding; an element of BYTES is its length as uint32 and then its
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.v1.instances import flatten

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
