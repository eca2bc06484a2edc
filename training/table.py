"""Tables of one's own: CSV and Parquet files with named columns."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from models import InputSpec, columns
from models.columns import CategoricalColumn, NumericColumn
from models.errors import InvalidInput
from training.data import Rows
from training.divided import DividedDataModule
from training.errors import TrainingError, UnreadableData
from training.splits import SplitName

# What stands for a missing value in a CSV file.
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]


class Table(DividedDataModule):
    """Rows of named columns from a .csv or .parquet file, one of which holds the labels.

    Numbers are numeric columns, texts and truth values categorical ones. What a column can hold is learned on the
    training rows and kept in the checkpoint: ranges, categories, what fills a hole, and whether there may be one.

    Args:
        path: The file.
        target: Name of the column with the labels.
        columns: Names of the columns that the network sees, in this order; by default all but `target` and `split`.
        ignore: Names of columns that it does not see.
        categorical: Names of columns of whole numbers that are names, such as postal codes.
        split: Name of a column that says which split a row belongs to; the fractions are then not used.
        classes: Names of the classes in the order of the logits; by default those that occur, sorted.
        separator: Of a CSV file.
    """

    def __init__(
        self,
        path: str,
        target: str,
        columns: tuple[str, ...] | None = None,
        ignore: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        split: str | None = None,
        classes: tuple[str, ...] | None = None,
        separator: str = ",",
        **settings: Any,
    ) -> None:
        super().__init__(path, **settings)
        if len(separator.encode()) != 1:
            raise TrainingError(f"Expected `data.init_args.separator` to be one character, but got {separator!r}.")
        self.target, self.chosen, self.ignore, self.categorical = target, columns, ignore, categorical
        self.own_split, self.given, self.separator = split, classes, separator

    @cached_property
    def input(self) -> InputSpec:
        """Columns as the training rows have them; mean and std of the numeric ones."""
        numbers = super().input
        learned = list(self.table.columns.values())
        # What says that something is the case is 0 or 1 and stays so.
        indicator = [each for column in learned for each in column.indicators]
        return InputSpec(
            kind="table",
            shape=numbers.shape,
            mean=tuple(0.0 if plain else mean for plain, mean in zip(indicator, numbers.mean, strict=True)),
            std=tuple(1.0 if plain else std for plain, std in zip(indicator, numbers.std, strict=True)),
            low=numbers.low,
            high=numbers.high,
            columns=learned,
        )

    @property
    def table(self) -> columns.Table:
        """The columns, once the data were read."""
        _ = self.splits
        return self._table

    def read(self) -> dict[SplitName, Rows]:
        frame = self._frame()
        for name in (self.target, *(self.chosen or ()), *self.ignore, *self.categorical, *_one(self.own_split)):
            self._require(name, frame)
        labels = self.label(self._labels(frame), self.given, f"column {self.target!r}")
        own = None if self.own_split is None else np.array([str(name) for name in frame[self.own_split].to_list()])
        parts = self.divide(labels, own)
        apart = {self.target, *self.ignore, *_one(self.own_split)}
        names = [name for name in self.chosen or frame.columns if name not in apart]
        if not names:
            raise UnreadableData(f"{self.path}: expected columns beside {self.target!r}, but there are none.")
        train = frame[parts["train"].tolist()]
        self._table = columns.Table([self._learn(train[name]) for name in names])
        values = {name: _plain(frame[name], self._table.columns[name].kind) for name in names}
        try:
            x = self._table.encode(values, lambda row, name: f"{self._at(row)}, column {name!r}")
        except InvalidInput as error:
            raise UnreadableData(f"{self.path}: {error}") from error
        rows = Rows(x, labels)
        return {name: rows.take(part) for name, part in parts.items()}

    def _frame(self) -> pl.DataFrame:
        path = self.found()
        try:
            if path.suffix == ".parquet":
                frame = pl.read_parquet(path)
            elif path.suffix in {".csv", ".tsv", ".txt"}:
                frame = pl.read_csv(
                    path, separator=self.separator, infer_schema_length=None, null_values=MISSING, try_parse_dates=True
                )
            else:
                raise UnreadableData(f"{self.path}: expected a .csv or .parquet file; rename or convert it.")
        except (pl.exceptions.PolarsError, OSError) as error:
            cause = str(error).split("\n")[0].rstrip(".")
            raise UnreadableData(f"{self.path}: cannot be read: {cause}.") from error
        if not len(frame):
            raise UnreadableData(f"{self.path}: expected rows, but it has none.")
        return frame

    def _labels(self, frame: pl.DataFrame) -> Any:
        values = frame[self.target].to_list()
        for row, value in enumerate(values):
            if columns.category(value) is None:
                found = "it is missing" if value is None else f"got {value!r}"
                raise UnreadableData(
                    f"{self.path}: expected {self._at(row)}, column {self.target!r} to be a label, a name or a whole "
                    f"number, but {found}; fill it in, or leave the row out."
                )
        if all(type(value) is int for value in values):
            names = [str(value) for value in sorted(set(values))]
            self.given = self.given or tuple(names)
        return np.array([columns.category(value) for value in values])

    def _learn(self, train: pl.Series) -> NumericColumn | CategoricalColumn:
        """What the training rows say about a column."""
        name, kind = train.name, train.dtype
        missing = bool(train.is_null().any() or (kind.is_float() and train.is_nan().any()))
        if kind.is_numeric() and name not in self.categorical:
            there = train.cast(pl.Float32).fill_nan(None).drop_nulls()
            if not len(there) or not there.is_finite().all():
                raise UnreadableData(
                    f"{self.path}: expected finite numbers in column {name!r}, but the training rows have "
                    f"{'none' if not len(there) else 'an infinite one'}; put it into `data.init_args.ignore`."
                )
            low, fill, high = (float(value) for value in (there.min(), there.median(), there.max()))  # type: ignore[arg-type]
            return NumericColumn(kind="numeric", name=name, low=low, high=high, fill=fill, missing=missing)
        if not (kind == pl.String or kind == pl.Boolean or kind.is_integer() or kind in (pl.Categorical, pl.Enum)):
            raise UnreadableData(
                f"{self.path}: expected column {name!r} to hold numbers or names, but it holds {kind}; turn it into "
                "numbers, or put it into `data.init_args.ignore`."
            )
        categories = sorted({str(columns.category(value)) for value in train.drop_nulls().to_list()})
        if not 1 <= len(categories) <= columns.MAX_CATEGORIES:
            raise UnreadableData(
                f"{self.path}: expected column {name!r} to have 1 to {columns.MAX_CATEGORIES} categories, but its "
                f"training rows have {len(categories)}; put it into `data.init_args.ignore`."
            )
        return CategoricalColumn(kind="categorical", name=name, categories=categories, missing=missing)

    def _require(self, name: str, frame: pl.DataFrame) -> None:
        if name not in frame.columns:
            near = get_close_matches(name, frame.columns, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, frame.columns[:20]))}."
            raise UnreadableData(f"{self.path}: expected a column {name!r}, but there is none; {cure}")

    def _at(self, row: int) -> str:
        """Where a row is in the file, as an editor counts lines."""
        return f"row {row}" if self.path.suffix == ".parquet" else f"line {row + 2}"


def _plain(values: pl.Series, kind: str) -> Sequence[object]:
    """Values as JSON would bring them."""
    if kind == "numeric":
        return values.cast(pl.Float64).fill_nan(None).to_list()
    return [value if value != "" else None for value in values.to_list()]


def _one(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)
