"""What the rows of a table say about a column."""

from __future__ import annotations

import numpy as np
import polars as pl

from dubio.models.inputs.names import category
from dubio.models.inputs.tabular import MAX_CATEGORIES, CategoricalColumn, NumericColumn
from dubio.models.spec import MAX_STRING
from dubio.training.errors import UnreadableData
from dubio.training.readers.precision import is_lost
from dubio.training.splits.random_splits import IntArray


def learn(values: pl.Series, rows: IntArray, categorical: bool) -> NumericColumn | CategoricalColumn:
    """Ranges, categories and what fills a hole, of the training rows; whether there may be one, of all rows: that must
    not depend on where a single hole falls.

    Args:
        values: Of all rows, under the name of the column.
        rows: Numbers of the training rows.
        categorical: Whether whole numbers are names.

    Raises:
        UnreadableData: If the values are neither numbers nor names, or no checkpoint can keep them.
    """
    name, kind, train = values.name, values.dtype, values[rows.tolist()]
    if kind.is_numeric() and not categorical:
        present = train.cast(pl.Float64).drop_nulls()
        if not len(present):
            raise UnreadableData(
                f"expected numbers in column {name!r}, but the training rows have none; put it into "
                "`data.init_args.ignore`."
            )
        missing = values.null_count() > 0
        return _numeric(name, present, missing)
    if not (kind == pl.String or kind == pl.Boolean or kind.is_numeric()):
        raise UnreadableData(
            f"expected column {name!r} to hold numbers or names, but it holds {kind}; turn it into numbers, or put it "
            "into `data.init_args.ignore`."
        )
    categories = sorted({label for value in train.unique().to_list() if (label := category(value)) is not None})
    if not 1 <= len(categories) <= MAX_CATEGORIES:
        raise UnreadableData(
            f"expected column {name!r} to have 1 to {MAX_CATEGORIES} categories, but its training rows have "
            f"{len(categories)}; put it into `data.init_args.ignore`."
        )
    longest = max(categories, key=len)
    if len(longest) > MAX_STRING:
        raise UnreadableData(
            f"expected column {name!r} to hold names of at most {MAX_STRING} characters, but one has {len(longest)}, "
            f"{longest[:40]!r}; put it into `data.init_args.ignore`, or read it with dubio.training.Text."
        )
    return CategoricalColumn(kind="categorical", name=name, categories=categories, missing=values.is_null().any())


def _numeric(name: str, present: pl.Series, missing: bool) -> NumericColumn:
    numbers_N = present.to_numpy()
    low, fill, high = float(numbers_N.min()), float(np.median(numbers_N)), float(numbers_N.max())
    offset = fill if is_lost(numbers_N) else 0.0
    if offset and is_lost(numbers_N - offset):
        raise UnreadableData(
            f"expected numbers in column {name!r} that 32 bits can tell apart, but they lie from {low!r} to {high!r}; "
            "multiply them by a large number."
        )
    return NumericColumn(kind="numeric", name=name, low=low, high=high, fill=fill, missing=missing, offset=offset)
