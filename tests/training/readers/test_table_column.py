from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from dubio.models.inputs.tabular import MAX_CATEGORIES, CategoricalColumn, NumericColumn
from dubio.training.errors import UnreadableData
from dubio.training.readers import table_column


def learn(values: pl.Series, categorical: bool = False, rows: int | None = None) -> NumericColumn | CategoricalColumn:
    """What the first rows teach, by default all."""
    return table_column.learn(values, np.arange(len(values) if rows is None else rows), categorical)


def test_numbers_have_a_range_and_their_median_fills_a_hole():
    column = learn(pl.Series("a", [4.0, 1.0, None, 2.5], dtype=pl.Float64), categorical=False)
    assert (column.kind, column.low, column.fill, column.high, column.missing) == ("numeric", 1.0, 2.5, 4.0, True)
    whole = learn(pl.Series("a", [3, 1, 2]), categorical=False)
    assert (whole.low, whole.fill, whole.high, whole.missing) == (1.0, 2.0, 3.0, False)


@pytest.mark.parametrize(
    ("values", "categories", "missing"),
    [
        (["b", "a", "b"], ["a", "b"], False),
        (["b", None, "b "], ["b"], True),
        ([True, False, None], ["false", "true"], True),
        ([10, 9, 10], ["10", "9"], False),
        ([10.0, 9.5, None], ["10", "9.5"], True),
    ],
)
def test_names_are_sorted_categories(values: list, categories: list[str], missing: bool):
    column = learn(pl.Series("a", values), categorical=True)
    assert (column.kind, column.categories, column.missing) == ("categorical", categories, missing)


def test_there_may_be_so_many_categories_and_no_more():
    names = [f"name {number}" for number in range(MAX_CATEGORIES + 1)]
    assert len(learn(pl.Series("a", names[1:]), categorical=False).categories) == MAX_CATEGORIES
    with pytest.raises(UnreadableData, match="its training rows have 1025"):
        learn(pl.Series("a", names), categorical=False)


def test_a_name_may_be_so_long_and_no_longer():
    assert learn(pl.Series("a", ["v", "w" * 256]), categorical=False).categories[1] == "w" * 256
    with pytest.raises(UnreadableData, match="at most 256 characters, but one has 257"):
        learn(pl.Series("a", ["v", "w" * 257]), categorical=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pl.Series("a", [None, None], dtype=pl.Int64), "expected numbers .* but the training rows have none"),
        (pl.Series("a", [1e-60, 2e-60]), "that 32 bits can tell apart, but they lie from 1e-60 to 2e-60; multiply"),
        (pl.Series("a", [None, None], dtype=pl.String), "1 to 1024 categories, but its training rows have 0"),
        (pl.Series("a", [[1], [2]]), r"to hold numbers or names, but it holds List\(Int64\)"),
    ],
)
def test_what_no_checkpoint_can_keep_is_refused(values: pl.Series, message: str):
    with pytest.raises(UnreadableData, match=message):
        learn(values, categorical=False)


def test_one_hole_in_any_row_says_that_there_may_be_holes():
    numbers, names = pl.Series("a", [1.0, 2.0, None]), pl.Series("a", ["x", "y", None])
    for values in (numbers, names):
        assert [learn(values, rows=2).missing, learn(values[:2]).missing] == [True, False]
    assert (learn(numbers, rows=2).low, learn(numbers, rows=2).high) == (1.0, 2.0)
    assert learn(pl.Series("a", ["x", "y", "z"]), rows=2).categories == ["x", "y"]


def test_what_is_far_from_0_is_centred_in_64_bits():
    now = 1_700_000_000_000
    column = learn(pl.Series("ms", [now, now + 1, now + 2, now + 3, now + 4]))
    assert (column.offset, column.low, column.fill, column.high) == (now + 2, now, now + 2, now + 4)
    assert column.encode([now, now + 3], str).tolist() == [[-2.0], [1.0]]
    assert learn(pl.Series("year", [1990, 2000, 2020])).offset == 0
