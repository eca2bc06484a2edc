from __future__ import annotations

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v2.input_tensor import ModelSignature, read_inputs, read_raw
from dubio.serving.v2.schema import RequestInput

SPEC = InputSpec(kind="image", shape=(1, 2, 3), mean=(0.0,), std=(1.0,), low=0.0, high=12.0)
MODEL = ModelSignature(name="m", input=SPEC, classes=4, committee=16, max_rows=5)
ROWS = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)


def read_input(tensor: RequestInput, rest: memoryview, model: ModelSignature) -> np.ndarray:
    return read_inputs([tensor], rest, model).inputs


def entry(**changes: object) -> RequestInput:
    tensor = {"name": "input", "shape": [2, 1, 2, 3], "datatype": "FP32", "data": ROWS.tolist(), **changes}
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
    full = np.zeros((5, 1, 2, 3), np.float32)
    assert read_input(entry(shape=[5, 1, 2, 3], data=full.tolist()), memoryview(b""), MODEL).shape == (5, 1, 2, 3)
    with pytest.raises(TooManyRows, match="batch-size must be <= 5 for 'm', but got 6"):
        read_input(entry(shape=[6, 1, 2, 3], data=[0] * 36), memoryview(b""), MODEL)


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
    rows[1, 0, 0, 2] = value
    raw = rows.tobytes()
    with pytest.raises(InvalidRequest, match=f"row 1 holds {value!r} at position 2; .* leave the row out"):
        read_input(binary(raw), memoryview(raw), MODEL)


@pytest.mark.parametrize(
    "shape", [[2], [2, 3], [2, 1, 3, 2], [2, 1, 2, 3, 1], [12], [-2, 1, 2, 3], [2, 1, -2, -3], [0, 1, 2, 3]]
)
def test_other_shapes_are_refused_in_the_protocols_words(shape: list[int]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"unexpected shape for input 'input' for model 'm'. Expected \[-1, 1, 2, 3\]"
    ):
        read_input(entry(shape=shape), memoryview(b""), MODEL)


def test_numbers_come_once() -> None:
    raw = memoryview(ROWS.tobytes())
    with pytest.raises(InvalidRequest, match="but it has both; send its values once"):
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


@pytest.mark.parametrize("shape", [[True, 1, 2, 3], [2, 1, 2, 3.0], ["2", 1, 2, 3], [[2], 1, 2, 3], [1] * 17, []])
def test_a_shape_is_a_short_list_of_integers(shape: list) -> None:
    with pytest.raises(
        ValueError, match=r"shape(\.\d)?\n.* should (be a valid integer|have at (most 16|least 1) items?)"
    ):
        entry(shape=shape)
