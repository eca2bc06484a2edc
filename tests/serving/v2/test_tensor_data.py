from __future__ import annotations

import struct

import numpy as np
import pytest

from dubio.serving.errors import InvalidRequest
from dubio.serving.v2.tensor_data import NUMBERS, from_bytes, from_json, to_bytes


def read(data: object, datatype: str = "FP32", shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    return from_json(data, datatype=datatype, shape=shape, where="input 'input'")


@pytest.mark.parametrize("datatype", NUMBERS)
def test_bytes_of_every_datatype_become_their_numbers(datatype: str) -> None:
    numbers = [0, 1, 2, 3, 5, 100]
    code = {"FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q"}
    letter = code.get(datatype) or code[datatype.removeprefix("U")].upper()
    raw = memoryview(struct.pack(f"<6{letter}", *numbers))
    array = from_bytes(raw, datatype=datatype, shape=(2, 3), where="input")
    assert array.dtype == np.float32
    assert array.tolist() == [[0, 1, 2], [3, 5, 100]]


def test_fp32_bytes_are_not_copied() -> None:
    body = bytearray(b"{}" + struct.pack("<4f", 1, 2, 3, 4))  # behind JSON, hence at any address
    array = from_bytes(memoryview(body)[2:], datatype="FP32", shape=(2, 2), where="input")
    body[2:6] = struct.pack("<f", 9)
    assert array.tolist() == [[9, 2], [3, 4]]


@pytest.mark.parametrize("datatype", [name for name in NUMBERS if name != "FP16"])
def test_json_flat_and_nested_are_the_same(datatype: str) -> None:
    flat = read([1, 2, 3, 4, 5, 6], datatype)
    assert flat.dtype == np.float32
    assert flat.tolist() == read([[1, 2, 3], [4, 5, 6]], datatype).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_float32_survives_its_shortest_digits() -> None:
    numbers = np.random.default_rng(0).normal(size=6).astype(np.float32)
    assert read([float(str(number)) for number in numbers]).ravel().tolist() == numbers.tolist()


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5], [[1, 2], [3, 4], [5, 6]], [[1, 2, 3]], [], 3, "x", {}, None, [[]]])
def test_other_shapes_are_refused(data: object) -> None:
    with pytest.raises(InvalidRequest):
        read(data)


def test_a_datatypes_bounds_hold() -> None:
    assert read([127, -128, 0, 0, 0, 0], "INT8").max() == 127
    for data in ([128], [-129], [0.0]):
        with pytest.raises(InvalidRequest, match=r"integers in \[-128, 127\], as its datatype INT8 says"):
            read(data, "INT8", (1,))


def test_beyond_float32_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"row 0 holds 1e\+39 at position 1"):
        read([0.0, 1e39], "FP64", (1, 2))
    with pytest.raises(InvalidRequest, match=r"row 1 holds 1e\+300 at position 0"):
        from_bytes(memoryview(struct.pack("<2d", 0, 1e300)), datatype="FP64", shape=(2, 1), where="input")


def test_arrays_and_strings_become_bytes() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert bytes(to_bytes(array)) == struct.pack("<6f", *range(6))
    assert bytes(to_bytes(array.T)) == struct.pack("<6f", 0, 3, 1, 4, 2, 5)
    assert bytes(to_bytes(array.astype(">f4"))) == struct.pack("<6f", *range(6))
    assert bytes(to_bytes(np.array([True, False]))) == b"\1\0"
    assert to_bytes(["ab", "", "ü"]) == b"\2\0\0\0ab" + b"\0\0\0\0" + b"\2\0\0\0\xc3\xbc"
