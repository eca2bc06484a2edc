from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn, Table, width

COLUMNS = [
    NumericColumn(name="age", kind="numeric", fill=40.0, missing=True, low=0.0, high=99.0),
    CategoricalColumn(name="city", kind="categorical", categories=["Bonn", "Kiel"], missing=True),
]
SIZE = width(COLUMNS)
SPEC = InputSpec(
    kind="table", shape=(SIZE,), mean=(0.0,) * SIZE, std=(1.0,) * SIZE, low=0.0, high=99.0, columns=COLUMNS
)
ROWS = [{"age": 31.0, "city": "Kiel"}, {"age": None, "city": "Bonn"}, {"age": 7.5, "city": None}]
EXPECTED = torch.from_numpy(Table(COLUMNS).read(ROWS))


def test_a_frame_of_polars_is_its_rows():
    frame = pl.DataFrame(ROWS)
    torch.testing.assert_close(encoding.check(SPEC, frame), EXPECTED)
    # Another order of the columns, and NaN for a cell that is missing.
    torch.testing.assert_close(encoding.check(SPEC, frame.select("city", "age")), EXPECTED)
    holes = frame.with_columns(pl.col("age").fill_null(math.nan))
    torch.testing.assert_close(encoding.check(SPEC, holes), EXPECTED)


def test_a_frame_of_pandas_is_its_rows():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS)
    assert frame["age"].isna().any()
    torch.testing.assert_close(encoding.check(SPEC, frame), EXPECTED)
    torch.testing.assert_close(encoding.check(SPEC, frame.convert_dtypes()), EXPECTED)


def test_a_single_row_is_a_batch_of_one():
    torch.testing.assert_close(encoding.check(SPEC, ROWS[0]), EXPECTED[:1])


def test_columns_are_held_to_as_in_a_list_of_rows():
    frame = pl.DataFrame(ROWS)
    for wrong in (frame.with_columns(label=pl.lit("x")), frame.drop("city"), frame.clear()):
        with pytest.raises(InvalidInput):
            encoding.check(SPEC, wrong)


def test_a_frame_of_numbers_is_an_array_to_a_model_of_numbers():
    spec = InputSpec(kind="numbers", shape=(2,), mean=(0.0, 0.0), std=(1.0, 1.0), low=0.0, high=9.0)
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert np.array_equal(encoding.check(spec, frame), [[1, 3], [2, 4]])
    with pytest.raises(InvalidInput, match="Expected numbers"):
        encoding.check(spec, {"a": 1.0, "b": 2.0})
