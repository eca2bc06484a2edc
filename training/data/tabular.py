"""Tables of one's own: CSV and Parquet files with named columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs import tabular
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn
from dubio.models.spec import MAX_STRING
from dubio.training.data.csv_reader import TableFile
from dubio.training.data.file_module import DividedDataModule
from dubio.training.data.module import Rows
from dubio.training.data.splits import SPLITS, SplitName
from dubio.training.errors import InvalidSplit, TrainingError, UnreadableData


class Table(DividedDataModule):
    """Rows of named columns from a .csv or .parquet file, one of which holds the labels.

    Numbers are numeric columns, texts and truth values categorical ones. What a column can hold is learned on the
    training rows and kept in the checkpoint: ranges, categories, what fills a hole, and whether there may be one.

    Args:
        path: The file.
        target: Name of the column with the labels.
        columns: Names of the columns that the network sees, in this order; by default all but `target` and `split`.
        ignore: Names of columns that it does not see.
        categorical: Names of columns of whole numbers that are names, such as postal codes, and of columns
            of names most of which look like numbers.
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
        if len(separator.encode()) != 1 or separator in '"\r\n':
            raise TrainingError(
                "Expected `data.init_args.separator` to be one character, and no quote or end of a line, but got "
                f"{separator!r}."
            )
        for name in columns or ():
            if (columns or ()).count(name) > 1 or name in (target, split):
                what = "listed twice" if name not in (target, split) else "the target or the split"
                raise TrainingError(
                    f"Expected `data.init_args.columns` to name what the network sees, each once, but {name!r} is "
                    f"{what}; leave it out."
                )
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
    def table(self) -> tabular.Table:
        """The columns, once the data were read."""
        _ = self.splits
        return self._table

    def read(self) -> dict[SplitName, Rows]:
        self._file = TableFile(self.found(), self.separator, self.categorical)
        frame = self._file.frame
        for name in (self.target, *(self.chosen or ()), *self.ignore, *self.categorical, *_one(self.own_split)):
            self._require(name, frame)
        labels = self.label(self._labels(frame), self.given, f"column {self.target!r}")
        own = None if self.own_split is None else self._own(frame[self.own_split])
        parts = self.divide(labels, own)
        apart = {self.target, *self.ignore, *_one(self.own_split)}
        names = [name for name in self.chosen or frame.columns if name not in apart]
        if not names:
            raise UnreadableData(f"{self.path}: expected columns beside {self.target!r}, but there are none.")
        self._check(names)
        train = frame[parts["train"].tolist()]
        self._table = tabular.Table([self._learn(train[name]) for name in names])
        values = {name: _plain(frame[name], self._table.columns[name].kind) for name in names}
        try:
            x = self._table.encode(values, lambda row, name: f"{self._file.at(row)}, column {name!r}")
        except InvalidInput as error:
            raise UnreadableData(f"{self.path}: {error}") from error
        rows = Rows(x, labels)
        return {name: rows.take(part) for name, part in parts.items()}

    def _check(self, names: Sequence[str]) -> None:
        """Refuse what no checkpoint can keep, and names among numbers."""
        if len(names) > tabular.MAX_COLUMNS:
            raise UnreadableData(
                f"{self.path}: expected at most {tabular.MAX_COLUMNS} columns, but got {len(names)}; choose some with "
                "`data.init_args.columns`, or use dubio.training.Arrays."
            )
        for name in names:
            if not 1 <= len(name) <= MAX_STRING:
                raise UnreadableData(
                    f"{self.path}: expected columns with names of 1 to {MAX_STRING} characters, but got {name[:40]!r}; "
                    "rename it, put it into `data.init_args.ignore`, or leave it out of the file (pandas: index=False)."
                )
            if name not in self.categorical:
                self._file.refuse_slips(name)

    def _own(self, values: pl.Series) -> npt.NDArray[Any]:
        for row, value in enumerate(values.to_list()):
            if value not in SPLITS:
                raise InvalidSplit(
                    f"{self.path}: expected {self._file.at(row)}, column {self.own_split!r} to be one of "
                    f"{', '.join(SPLITS)}, but got {str(value)[:40]!r}."
                )
        return values.to_numpy().astype(str)

    def _labels(self, frame: pl.DataFrame) -> Any:
        values = frame[self.target].to_list()
        for row, value in enumerate(values):
            if tabular.category(value) is None:
                found = "it is missing" if value is None else f"got {value!r}"
                raise UnreadableData(
                    f"{self.path}: expected {self._file.at(row)}, column {self.target!r} to be a label, a name or a "
                    f"whole number, but {found}; mend it, or leave the row out."
                )
        if all(type(value) is int for value in values):
            names = [str(value) for value in sorted(set(values))]
            self.given = self.given or tuple(names)
        labels = [tabular.category(value) for value in values]
        for row, label in enumerate(labels):
            if self.given and label not in self.given:
                raise UnreadableData(
                    f"{self.path}: expected {self._file.at(row)}, column {self.target!r} to be one of "
                    f"{', '.join(repr(name[:40]) for name in self.given[:20])}, but got {str(label)[:40]!r}; mend it, "
                    "or set `data.init_args.classes`."
                )
        return np.array(labels)

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
        known = [tabular.category(value) for value in train.to_list()]
        missing = None in known
        categories = sorted({category for category in known if category is not None})
        if not 1 <= len(categories) <= tabular.MAX_CATEGORIES:
            raise UnreadableData(
                f"{self.path}: expected column {name!r} to have 1 to {tabular.MAX_CATEGORIES} categories, but its "
                f"training rows have {len(categories)}; put it into `data.init_args.ignore`."
            )
        longest = max(categories, key=len)
        if len(longest) > MAX_STRING:
            raise UnreadableData(
                f"{self.path}: expected column {name!r} to hold names of at most {MAX_STRING} characters, but one has "
                f"{len(longest)}, {longest[:40]!r}; put it into `data.init_args.ignore`, or "
                "read it with dubio.training.Text."
            )
        return CategoricalColumn(kind="categorical", name=name, categories=categories, missing=missing)

    def _require(self, name: str, frame: pl.DataFrame) -> None:
        if name not in frame.columns:
            if len(frame.columns) == 1 and self.path.suffix != ".parquet":
                raise UnreadableData(
                    f"{self.path}: expected a column {name!r}, but there is only {frame.columns[0][:40]!r}; set "
                    "`data.init_args.separator` to what is between the columns."
                )
            cure = did_you_mean(name, frame.columns, f"it has {', '.join(map(repr, frame.columns[:20]))}.")
            raise UnreadableData(f"{self.path}: expected a column {name!r}, but there is none; {cure}")


def _plain(values: pl.Series, kind: str) -> Sequence[object]:
    """Values as JSON would bring them."""
    if kind == "numeric":
        return values.cast(pl.Float64).fill_nan(None).to_list()
    return [value if value != "" else None for value in values.to_list()]


def _one(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)
