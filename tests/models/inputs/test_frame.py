from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn, Table, width
from dubio.models.inputs.text import SPECIAL, TokenizerSpec

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
# What pandas and polars make of a column of numbers in which someone wrote a word for "there is none".
TEXTS = {"age": ["31", "None", " 7.50"], "city": ["Kiel", "Bonn", "NA"]}
WORDS = SPEC.model_copy(update={"missing": ("NA", "None")})


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


def test_a_row_of_a_frame_of_pandas_is_a_batch_of_one():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS)
    for row in range(3):
        torch.testing.assert_close(encoding.check(SPEC, frame.iloc[row]), EXPECTED[row : row + 1])


def test_a_query_of_polars_is_what_it_gives():
    torch.testing.assert_close(encoding.check(SPEC, pl.DataFrame(ROWS).lazy()), EXPECTED)


def test_texts_are_taken_in_whatever_column_they_stand():
    pd = pytest.importorskip("pandas")
    words = TokenizerSpec(
        kind="word", vocabulary=[*SPECIAL, "where", "parcel", "my"], merges=[], lowercase=True, length=4
    )
    spec = InputSpec(kind="text", shape=(4,), mean=(0.0,), std=(1.0,), low=0.0, high=4.0, tokenizer=words)
    texts = ["where my parcel", "my parcel"]
    expected = encoding.check(spec, texts)
    frame = {"question": texts}
    given = (np.array(texts), np.array(texts, dtype=object), pl.Series(texts), pl.DataFrame(frame), pd.Series(texts))
    for each in (*given, pd.DataFrame(frame), pd.DataFrame(frame)["question"]):
        torch.testing.assert_close(encoding.check(spec, each), expected)


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


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_a_column_that_a_word_turned_into_texts_is_read_as_in_a_file(library: str):
    frame: Any = pytest.importorskip(library).DataFrame(TEXTS)
    torch.testing.assert_close(encoding.check(WORDS, frame), EXPECTED)
    for text, read in {"": None, "-nan": None, "\u00a01e1": 10.0, "+7": 7.0}.items():
        frame = pytest.importorskip(library).DataFrame({"age ": [text], "city": ["Kiel"]})
        expected = torch.from_numpy(Table(COLUMNS).read([{"age": read, "city": "Kiel"}]))
        torch.testing.assert_close(encoding.check(WORDS, frame), expected)


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize("text", ["4 kg", "3,5", "1_000", "n/a", "\u0664"])
def test_other_texts_among_numbers_are_refused_with_row_and_cure(library: str, text: str):
    frame = pytest.importorskip(library).DataFrame({"age": ["31", "None", text], "city": ["Kiel"] * 3})
    with pytest.raises(InvalidInput, match=r"row 2, column 'age' to be a number, but got the text ") as caught:
        encoding.check(WORDS, frame)
    assert repr(text) in str(caught.value)
    assert "such as 40, with a decimal point and without a unit, or as what stands for a missing" in str(caught.value)
    assert "('NA', 'None')" in str(caught.value)


def test_a_word_is_a_hole_which_a_column_without_holes_does_not_take():
    column = COLUMNS[0].model_copy(update={"missing": False})
    full = InputSpec(
        kind="table", shape=(1,), mean=(0.0,), std=(1.0,), low=0.0, high=99.0, columns=[column], missing=("NA",)
    )
    assert encoding.check(full, pl.DataFrame({"age": ["31"]})).tolist() == [[31.0]]
    with pytest.raises(InvalidInput, match=r"\['age'\] to have a value, but it is missing"):
        encoding.check(full, pl.DataFrame({"age": ["31", "NA"]}))


def test_numbers_are_what_they_are_whatever_holds_them():
    decimals = pl.DataFrame({"age": [Decimal("31"), None, Decimal("7.5")], "city": ["Kiel", "Bonn", None]})
    torch.testing.assert_close(encoding.check(SPEC, decimals), EXPECTED)
    pd = pytest.importorskip("pandas")
    cells = {"age": [np.float32(31), np.float64("nan"), np.float64(7.5)], "city": [np.str_("Kiel"), "Bonn", None]}
    torch.testing.assert_close(encoding.check(SPEC, pd.DataFrame(cells, dtype=object)), EXPECTED)


def test_a_text_is_no_number_in_a_single_row_or_a_list_of_rows():
    for rows in (ROWS[0] | {"age": "31"}, [ROWS[0] | {"age": "31"}]):
        with pytest.raises(InvalidInput, match="a finite number, but got the text '31'"):
            encoding.check(WORDS, rows)
