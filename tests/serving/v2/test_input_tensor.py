from __future__ import annotations

import numpy as np
import pytest

from serving.errors import InvalidRequest, TooManyRows
from serving.v2.input_tensor import Target, read_inputs, read_raw

TARGET = Target(name="m", shape=(2, 3), classes=4, committee=16, max_rows=5)
ROWS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


def entry(**changes: object) -> dict[str, object]:
    return {"name": "input", "shape": [2, 2, 3], "datatype": "FP32", "data": ROWS.tolist(), **changes}


def binary(raw: bytes, **changes: object) -> dict[str, object]:
    return entry(data=None, parameters={"binary_data_size": len(raw)}, **changes)


def test_json_and_binary_give_the_same_rows() -> None:
    np.testing.assert_array_equal(read_inputs([entry()], memoryview(b""), TARGET), ROWS)
    np.testing.assert_array_equal(read_inputs([entry(data=list(range(12)))], memoryview(b""), TARGET), ROWS)
    raw = ROWS.tobytes()
    np.testing.assert_array_equal(read_inputs([binary(raw)], memoryview(raw), TARGET), ROWS)
    np.testing.assert_array_equal(read_raw(memoryview(raw[:24]), TARGET), ROWS[:1])


def test_rows_are_bounded() -> None:
    full = np.zeros((5, 2, 3), np.float32)
    assert read_inputs([entry(shape=[5, 2, 3], data=full.tolist())], memoryview(b""), TARGET).shape == (5, 2, 3)
    with pytest.raises(TooManyRows, match="batch-size must be <= 5 for 'm', but got 6"):
        read_inputs([entry(shape=[6, 2, 3], data=[0] * 36)], memoryview(b""), TARGET)


@pytest.mark.parametrize("length", range(0, 100, 7))
def test_any_other_number_of_bytes_is_refused(length: int) -> None:
    raw = ROWS.tobytes()
    body = memoryview((raw + raw + raw)[:length])
    with pytest.raises(InvalidRequest, match=r"but got|unexpected additional input data"):
        read_inputs([binary(raw)], body, TARGET)
    with pytest.raises(InvalidRequest, match="24 bytes, but got"):
        read_raw(body, TARGET)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_row_that_is_not_finite_is_named(value: float) -> None:
    rows = ROWS.copy()
    rows[1, 0, 2] = value
    raw = rows.tobytes()
    with pytest.raises(InvalidRequest, match="row 1 has NaN"):
        read_inputs([binary(raw)], memoryview(raw), TARGET)


@pytest.mark.parametrize("shape", [[], [2], [2, 3], [2, 3, 2], [2, 2, 3, 1], [12], [-2, 2, 3], [2, -2, -3], [0, 2, 3]])
def test_other_shapes_are_refused_in_the_protocols_words(shape: list[int]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"unexpected shape for input 'input' for model 'm'. Expected \[-1, 2, 3\]"
    ):
        read_inputs([entry(shape=shape)], memoryview(b""), TARGET)
