from __future__ import annotations

import struct

import numpy as np
import pytest

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v2.input_tensor import (
    NUMBERS,
    ModelSignature,
    from_bytes,
    from_json,
    read_input,
    read_raw,
    to_bytes,
)
from dubio.serving.v2.schema import RequestInput

MODEL = ModelSignature(name="m", shape=(2, 3), classes=4, committee=16, max_rows=5)
ROWS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


def entry(**changes: object) -> RequestInput:
    tensor = {"name": "input", "shape": [2, 2, 3], "datatype": "FP32", "data": ROWS.tolist(), **changes}
    return RequestInput.model_validate(tensor)


def binary(raw: bytes, **changes: object) -> RequestInput:
    return entry(**{"data": None, "parameters": {"binary_data_size": len(raw)}, **changes})


def test_json_and_binary_give_the_same_rows() -> None:
    np.testing.assert_array_equal(read_input(entry(), memoryview(b""), MODEL), ROWS)
    np.testing.assert_array_equal(read_input(entry(data=list(range(12))), memoryview(b""), MODEL), ROWS)
    raw = ROWS.tobytes()
    np.testing.assert_array_equal(read_input(binary(raw), memoryview(raw), MODEL), ROWS)
    np.testing.assert_array_equal(read_raw(memoryview(raw[:24]), MODEL), ROWS[:1])


def test_rows_are_bounded() -> None:
    full = np.zeros((5, 2, 3), np.float32)
    assert read_input(entry(shape=[5, 2, 3], data=full.tolist()), memoryview(b""), MODEL).shape == (5, 2, 3)
    with pytest.raises(TooManyRows, match="batch-size must be <= 5 for 'm', but got 6"):
        read_input(entry(shape=[6, 2, 3], data=[0] * 36), memoryview(b""), MODEL)


@pytest.mark.parametrize("length", range(0, 100, 7))
def test_any_other_number_of_bytes_is_refused(length: int) -> None:
    raw = ROWS.tobytes()
    body = memoryview((raw + raw + raw)[:length])
    with pytest.raises(InvalidRequest, match=r"but got|unexpected additional input data"):
        read_input(binary(raw), body, MODEL)
    with pytest.raises(InvalidRequest, match="24 bytes, but got"):
        read_raw(body, MODEL)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_row_that_is_not_finite_is_named(value: float) -> None:
    rows = ROWS.copy()
    rows[1, 0, 2] = value
    raw = rows.tobytes()
    with pytest.raises(InvalidRequest, match=f"row 1 holds {value!r} at position 2; .* leave the row out"):
        read_input(binary(raw), memoryview(raw), MODEL)


@pytest.mark.parametrize("shape", [[], [2], [2, 3], [2, 3, 2], [2, 2, 3, 1], [12], [-2, 2, 3], [2, -2, -3], [0, 2, 3]])
def test_other_shapes_are_refused_in_the_protocols_words(shape: list[int]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"unexpected shape for input 'input' for model 'm'. Expected \[-1, 2, 3\]"
    ):
        read_input(entry(shape=shape), memoryview(b""), MODEL)


def read(data: object, datatype: str = "FP32", shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    return from_json(data, datatype=datatype, shape=shape)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_bytes_of_every_datatype_become_their_numbers(datatype: str) -> None:
    numbers = [0, 1, 2, 3, 5, 100]
    code = {"FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q"}
    letter = code.get(datatype) or code[datatype.removeprefix("U")].upper()
    raw = memoryview(struct.pack(f"<6{letter}", *numbers))
    array = from_bytes(raw, datatype=datatype, shape=(2, 3))
    assert array.dtype == np.float32
    assert array.tolist() == [[0, 1, 2], [3, 5, 100]]


def test_fp32_bytes_are_not_copied() -> None:
    body = bytearray(b"{}" + struct.pack("<4f", 1, 2, 3, 4))  # behind JSON, hence at any address
    array = from_bytes(memoryview(body)[2:], datatype="FP32", shape=(2, 2))
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
        from_bytes(memoryview(struct.pack("<2d", 0, 1e300)), datatype="FP64", shape=(2, 1))


def test_numbers_come_once() -> None:
    raw = memoryview(ROWS.tobytes())
    with pytest.raises(InvalidRequest, match="but it has both; send its numbers once"):
        read_input(binary(raw, data=ROWS.tolist()), raw, MODEL)
    with pytest.raises(InvalidRequest, match="but it has neither"):
        read_input(entry(data=None), memoryview(b""), MODEL)
    with pytest.raises(InvalidRequest, match="unexpected additional input data for model 'm': 48 bytes"):
        read_input(entry(), raw, MODEL)


@pytest.mark.parametrize("size", [47, 49, 96, 2**63])
def test_the_size_in_bytes_is_that_of_the_shape(size: int) -> None:
    raw = memoryview(ROWS.tobytes())
    with pytest.raises(
        InvalidRequest, match=f"size mismatch for input 'input' for model 'm'. Expected 48, got {size};"
    ):
        read_input(binary(raw, parameters={"binary_data_size": size}), raw, MODEL)


@pytest.mark.parametrize("size", [48.0, True, "48", 0, -48])
def test_a_size_is_a_positive_integer(size: object) -> None:
    with pytest.raises(ValueError, match=r"binary_data_size\n.* should be (a valid integer|greater)"):
        binary(b"", parameters={"binary_data_size": size})


@pytest.mark.parametrize("shape", [[True, 2, 3], [2, 2, 3.0], ["2", 2, 3], [[2], 2, 3], [1] * 17])
def test_a_shape_is_a_short_list_of_integers(shape: list) -> None:
    with pytest.raises(ValueError, match=r"shape(\.\d)?\n.* should (be a valid integer|have at most 16 items)"):
        entry(shape=shape)


def test_arrays_and_strings_become_bytes() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert bytes(to_bytes(array)) == struct.pack("<6f", *range(6))
    assert bytes(to_bytes(array.T)) == struct.pack("<6f", 0, 3, 1, 4, 2, 5)
    assert bytes(to_bytes(array.astype(">f4"))) == struct.pack("<6f", *range(6))
    assert bytes(to_bytes(np.array([True, False]))) == b"\1\0"
    assert to_bytes(["ab", "", "ü"]) == b"\2\0\0\0ab" + b"\0\0\0\0" + b"\2\0\0\0\xc3\xbc"
