from __future__ import annotations

import polars as pl
import pytest

from dubio.models.inputs.tabular import MAX_CATEGORIES
from dubio.training.data import table_column
from dubio.training.errors import UnreadableData


@pytest.mark.parametrize("hole", [None, float("nan")])
def test_numbers_have_a_range_and_their_median_fills_a_hole(hole: float | None):
    column = table_column.learn(pl.Series("a", [4.0, 1.0, hole, 2.5], dtype=pl.Float64), categorical=False)
    assert (column.kind, column.low, column.fill, column.high, column.missing) == ("numeric", 1.0, 2.5, 4.0, True)
    whole = table_column.learn(pl.Series("a", [3, 1, 2]), categorical=False)
    assert (whole.low, whole.fill, whole.high, whole.missing) == (1.0, 2.0, 3.0, False)


@pytest.mark.parametrize(
    ("values", "categories", "missing"),
    [
        (["b", "a", "b"], ["a", "b"], False),
        (["b", None, ""], ["b"], True),
        ([True, False, None], ["false", "true"], True),
        ([10, 9, 10], ["10", "9"], False),
    ],
)
def test_names_are_sorted_categories(values: list, categories: list[str], missing: bool):
    column = table_column.learn(pl.Series("a", values), categorical=True)
    assert (column.kind, column.categories, column.missing) == ("categorical", categories, missing)


def test_there_may_be_so_many_categories_and_no_more():
    names = [f"name {number}" for number in range(MAX_CATEGORIES + 1)]
    assert len(table_column.learn(pl.Series("a", names[1:]), categorical=False).categories) == MAX_CATEGORIES
    with pytest.raises(UnreadableData, match="its training rows have 1025"):
        table_column.learn(pl.Series("a", names), categorical=False)


def test_a_name_may_be_so_long_and_no_longer():
    assert table_column.learn(pl.Series("a", ["v", "w" * 256]), categorical=False).categories[1] == "w" * 256
    with pytest.raises(UnreadableData, match="at most 256 characters, but one has 257"):
        table_column.learn(pl.Series("a", ["v", "w" * 257]), categorical=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pl.Series("a", [None, None], dtype=pl.Int64), "finite numbers .* but the training rows have none"),
        (pl.Series("a", [1.0, float("inf")]), "the training rows have an infinite one"),
        (pl.Series("a", [1e300, 1.0]), "the training rows have an infinite one"),
        (pl.Series("a", ["", None]), "1 to 1024 categories, but its training rows have 0"),
        (pl.Series("a", [[1], [2]]), r"to hold numbers or names, but it holds List\(Int64\)"),
    ],
)
def test_what_no_checkpoint_can_keep_is_refused(values: pl.Series, message: str):
    with pytest.raises(UnreadableData, match=message):
        table_column.learn(values, categorical=False)
