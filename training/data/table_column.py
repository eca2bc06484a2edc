"""What the training rows of a table say about a column."""

from __future__ import annotations

import polars as pl

from dubio.models.inputs.tabular import MAX_CATEGORIES, CategoricalColumn, NumericColumn, category
from dubio.models.spec import MAX_STRING
from dubio.training.errors import UnreadableData


def learn(train: pl.Series, categorical: bool) -> NumericColumn | CategoricalColumn:
    """Ranges, categories, what fills a hole, and whether there may be one.

    Args:
        train: The values of the training rows, under the name of the column.
        categorical: Whether whole numbers are names.

    Raises:
        UnreadableData: If the values are neither numbers nor names, or no checkpoint can keep them.
    """
    name, kind = train.name, train.dtype
    if kind.is_numeric() and not categorical:
        present = train.cast(pl.Float32).fill_nan(None).drop_nulls()
        if not len(present) or not present.is_finite().all():
            raise UnreadableData(
                f"expected finite numbers in column {name!r}, but the training rows have "
                f"{'none' if not len(present) else 'an infinite one'}; put it into `data.init_args.ignore`."
            )
        low, fill, high = (float(value) for value in (present.min(), present.median(), present.max()))  # type: ignore[arg-type]
        missing = len(present) < len(train)
        return NumericColumn(kind="numeric", name=name, low=low, high=high, fill=fill, missing=missing)
    if not (kind == pl.String or kind == pl.Boolean or kind.is_integer() or kind in (pl.Categorical, pl.Enum)):
        raise UnreadableData(
            f"expected column {name!r} to hold numbers or names, but it holds {kind}; turn it into numbers, or put it "
            "into `data.init_args.ignore`."
        )
    names = {category(value) for value in train.to_list()}
    categories = sorted(name for name in names if name is not None)
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
    return CategoricalColumn(kind="categorical", name=name, categories=categories, missing=None in names)
