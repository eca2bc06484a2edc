from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.tabular import NumericColumn, Table
from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v2.input_tensor import ModelSignature, list_inputs, read_inputs
from dubio.serving.v2.schema import RequestInput
from tests.serving.conftest import COLUMNS
from tests.serving.kinds import ROWS

SPEC = InputSpec(kind="table", shape=(10,), mean=(0.0,) * 10, std=(1.0,) * 10, low=0, high=9000, columns=COLUMNS)
MODEL = ModelSignature(name="m", input=SPEC, classes=4, committee=16, max_rows=5)
DATATYPES = {"age": "INT64", "income": "FP64", "city": "BYTES", "member": "BYTES"}


def column(name: str, data: list[Any], datatype: str | None = None, shape: list[int] | None = None) -> dict[str, Any]:
    datatype = datatype or DATATYPES.get(name, "FP64")
    return {"name": name, "shape": shape or [len(data), 1], "datatype": datatype, "data": data}


def columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    written = {True: "true", False: "false"}
    return [column(name, [written.get(row[name], row[name]) for row in rows]) for name in DATATYPES]


def read(*tensors: dict[str, Any], model: ModelSignature = MODEL) -> np.ndarray:
    return read_inputs([RequestInput.model_validate(each) for each in tensors], memoryview(b""), model).inputs


def test_columns_are_read_as_rows_are() -> None:
    expected = Table(COLUMNS).read(ROWS)
    np.testing.assert_array_equal(read(*columns(ROWS)), expected)
    np.testing.assert_array_equal(read(*reversed(columns(ROWS))), expected)
    flat = [{**each, "shape": [3]} for each in columns(ROWS)]
    np.testing.assert_array_equal(read(*flat), expected)
    padded = [{**each, "name": f" {each['name']}\u200b"} for each in columns(ROWS)]
    np.testing.assert_array_equal(read(*padded), expected)


def test_a_name_stands_for_the_same_in_every_datatype() -> None:
    [*others, _] = columns(ROWS[:2])
    truths = [column("member", [True, False], "BOOL"), column("member", ["True", "FALSE"], "BYTES")]
    for member in truths:
        np.testing.assert_array_equal(read(*others, member), Table(COLUMNS).read(ROWS[:2]))


def test_the_encoded_tensor_is_taken_still() -> None:
    encoded = Table(COLUMNS).read(ROWS)
    for name in ("input", "input-0", "input-1"):
        tensor = {"name": name, "shape": [3, 10], "datatype": "FP32", "data": encoded.tolist()}
        np.testing.assert_array_equal(read(tensor), encoded)


def test_a_column_called_input_is_that_column() -> None:
    one = NumericColumn(kind="numeric", name="input", low=0, high=9, fill=1, missing=True, offset=4)
    spec = InputSpec(kind="table", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=0, high=9, columns=[one])
    model = ModelSignature(name="m", input=spec, classes=4, committee=16, max_rows=5)
    assert read(column("input", [5, None]), model=model).tolist() == [[1, 0], [-3, 1]]
    assert read(column("input", [[1, 0]], shape=[1, 2]), model=model).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (
            [*columns(ROWS), column("agee", [1, 2, 3])],
            "inference input 'agee' for model 'm'; did you mean `age`",
        ),
        ([*columns(ROWS), column("x", [1])], "'x' for model 'm'; its columns: 'age', 'income', 'city', 'member'"),
        (
            columns(ROWS)[1:],
            "expected 4 inputs but got 3 inputs for model 'm': 'age' is absent; send (it, as no row|null)",
        ),
        ([*columns(ROWS), *columns(ROWS)[:1]], "input 'age' already given"),
        (
            [*columns(ROWS)[1:], column("age", [1, 2])],
            r"'age' batch size 2 does not match .* 'income' has 3",
        ),
        ([*columns(ROWS)[1:], column("age", [1, 2, 3], "FP8")], "data-type is 'FP8', but model 'm' expects 'FP64'"),
        (
            [*columns(ROWS)[1:], column("age", [[1, 2]] * 3, shape=[3, 2])],
            r"Expected \[-1\] or \[-1, 1\], got \[3, 2\]",
        ),
        ([*columns(ROWS)[1:], column("age", [], shape=[0])], r"Expected \[-1\] or \[-1, 1\], got \[0\]"),
    ],
)
def test_other_columns_are_refused(tensors: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read(*tensors)


def test_values_that_do_not_fit_are_told_with_row_and_column() -> None:
    with pytest.raises(InvalidInput, match="row 1 of input 'age' to have a value, but it is missing"):
        read(*columns([ROWS[0], {**ROWS[0], "age": None}]))
    with pytest.raises(InvalidInput, match="row 0 of input 'age' to be a finite number, but got the text 'old'"):
        read(*columns(ROWS[:1])[1:], column("age", ["old"], "BYTES"))
    with pytest.raises(TooManyRows, match="batch-size must be <= 5"):
        read(*columns(ROWS * 2))


def test_what_the_metadata_list_is_taken() -> None:
    listed = list_inputs(SPEC)
    assert [(each["name"], each["datatype"], each["shape"]) for each in listed] == [
        ("age", "FP64", [-1, 1]), ("income", "FP64", [-1, 1]), ("city", "BYTES", [-1, 1]), ("member", "BYTES", [-1, 1])
    ]  # fmt: skip
    values = {"FP64": 20.0, "BYTES": "true"}
    tensors = [{**each, "shape": [1, 1], "data": [values[each["datatype"]]]} for each in listed]
    assert read(*tensors).shape == (1, 10)
