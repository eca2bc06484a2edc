"""Tables of one's own: CSV and Parquet files with named columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs import tabular
from dubio.models.inputs.tabular import MAX_COLUMNS, category
from dubio.models.spec import MAX_STRING
from dubio.training.data import table_column
from dubio.training.data.csv_reader import TableFile
from dubio.training.data.dataset import Dataset, Examples, fit_input
from dubio.training.data.file_module import FileDataModule
from dubio.training.data.splits import SPLITS, IntArray
from dubio.training.data.timestamps import rank_times
from dubio.training.errors import NO_QUANTITIES, InvalidSplit, TrainingError, UnreadableData


class Table(FileDataModule):
    """Rows of named columns from a .csv or .parquet file, one of which holds the labels.

    Numbers are numeric columns, texts and truth values categorical ones. What a column can hold is learned on the
    training rows and kept in the checkpoint: ranges, categories, what fills a hole, and whether there may be one.

    Args:
        path: The file.
        target: Name of the column with the labels.
        columns: Names of the columns that the network sees, in this order; by default all but `target`, `split`,
            `group` and `time`.
        ignore: Names of columns that it does not see.
        categorical: Names of columns of whole numbers that are names, such as postal codes, and of columns
            of names most of which look like numbers.
        split: Name of a column that says which split a row belongs to; the fractions are then not used.
        group: Name of a column of what rows have in common, such as the patient: no group is in two splits.
        time: Name of a column of numbers or dates: each split is later than the one before, the test split last.
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
        group: str | None = None,
        time: str | None = None,
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
        self.target, self.columns, self.ignore, self.categorical = target, columns, ignore, categorical
        self.split, self.class_names, self.separator = split, classes, separator
        self.group, self.time = group, time

    def read(self) -> Dataset:
        file = TableFile(self.file(), self.separator, self.categorical)
        self._require_columns(file.frame)
        labels_N, classes = self._labels(file)
        parts = self.divide(labels_N, classes, self._own_splits(file), self._groups(file), self._times(file))
        names = self._names(file)
        train = file.frame[parts["train"].tolist()]
        try:
            table = tabular.Table([table_column.learn(train[name], name in self.categorical) for name in names])
            values = {name: _as_json(file.frame[name], table.columns[name].kind) for name in names}
            x = table.encode(values, lambda row, name: f"{file.at(row)}, column {name!r}")
        except (InvalidInput, UnreadableData) as error:
            raise UnreadableData(f"{self.path}: {error}") from error
        splits = Examples(x, labels_N).divide(parts)
        return Dataset(splits, classes, self._input(table, splits["train"].x))

    def _input(self, table: tabular.Table, train_NF: npt.NDArray[np.generic]) -> InputSpec:
        """Columns as the training rows have them; mean and std of the numeric ones."""
        numbers = fit_input(train_NF, self.scale)
        columns = list(table.columns.values())
        # What says that something is the case is 0 or 1 and stays so.
        indicators = [each for column in columns for each in column.indicators]
        return InputSpec(
            kind="table",
            shape=numbers.shape,
            mean=tuple(0.0 if indicator else mean for indicator, mean in zip(indicators, numbers.mean, strict=True)),
            std=tuple(1.0 if indicator else std for indicator, std in zip(indicators, numbers.std, strict=True)),
            low=numbers.low,
            high=numbers.high,
            columns=columns,
        )

    def _names(self, file: TableFile) -> list[str]:
        """The columns that the network sees, without what no checkpoint can keep, and without names among numbers."""
        # Who and when are no inputs, unless they are asked for.
        unseen = {self.target, self.split, *self.ignore, *({self.group, self.time} - set(self.columns or ()))}
        names = [name for name in self.columns or file.frame.columns if name not in unseen]
        if not names:
            raise UnreadableData(f"{self.path}: expected columns beside {self.target!r}, but there are none.")
        if len(names) > MAX_COLUMNS:
            raise UnreadableData(
                f"{self.path}: expected at most {MAX_COLUMNS} columns, but got {len(names)}; choose some with "
                "`data.init_args.columns`, or use dubio.training.Arrays."
            )
        for name in names:
            if not 1 <= len(name) <= MAX_STRING:
                raise UnreadableData(
                    f"{self.path}: expected columns with names of 1 to {MAX_STRING} characters, but got {name[:40]!r}; "
                    "rename it, put it into `data.init_args.ignore`, or leave it out of the file (pandas: index=False)."
                )
            if name not in self.categorical:
                file.refuse_text_among_numbers(name)
        return names

    def _own_splits(self, file: TableFile) -> npt.NDArray[np.str_] | None:
        if self.split is None:
            return None
        values = file.frame[self.split]
        for row, value in enumerate(values.to_list()):
            if value not in SPLITS:
                raise InvalidSplit(
                    f"{self.path}: expected {file.at(row)}, column {self.split!r} to be one of "
                    f"{', '.join(SPLITS)}, but got {str(value)[:40]!r}."
                )
        return values.to_numpy().astype(str)

    def _groups(self, file: TableFile) -> npt.NDArray[np.str_] | None:
        if self.group is None:
            return None
        values = file.frame[self.group].to_list()
        for row, value in enumerate(values):
            if value is None or value == "" or value != value:
                raise UnreadableData(
                    f"{self.path}: expected {file.at(row)}, column {self.group!r} to name the row's group, but it is "
                    "missing; fill it in, with a name of its own for a row that has nothing in common with others."
                )
        return np.array(list(map(str, values)))

    def _times(self, file: TableFile) -> IntArray | None:
        if self.time is None:
            return None
        try:
            return rank_times(file.frame[self.time].to_list(), self.time, file.at)
        except UnreadableData as error:
            raise UnreadableData(f"{self.path}: {error}") from error

    def _labels(self, file: TableFile) -> tuple[IntArray, tuple[str, ...]]:
        values = file.frame[self.target].to_list()
        labels = [category(value) for value in values]
        names = self.class_names
        if not names and all(type(value) is int for value in values):
            names = tuple(map(str, sorted(set(values))))  # in the order of the numbers, not of their digits
        for row, label in enumerate(labels):
            rule = f"{self.path}: expected {file.at(row)}, column {self.target!r} to be"
            if label is None:
                cause = "it is missing" if values[row] is None else f"got {values[row]!r}"
                amount = isinstance(values[row], float) and math.isfinite(values[row])
                cure = NO_QUANTITIES if amount else "Mend it, or leave the row out."
                raise UnreadableData(f"{rule} a label, a name or a whole number, but {cause}. {cure}")
            if names and label not in names:
                raise UnreadableData(
                    f"{rule} one of {', '.join(repr(name[:40]) for name in names[:20])}, but got {label[:40]!r}; mend "
                    "it, or set `data.init_args.classes`."
                )
        return self.encode_labels(np.array(labels), names, f"column {self.target!r}")

    def _require_columns(self, frame: pl.DataFrame) -> None:
        own = [name for name in (self.split, self.group, self.time) if name is not None]
        for name in (self.target, *(self.columns or ()), *self.ignore, *self.categorical, *own):
            if name in frame.columns:
                continue
            if len(frame.columns) == 1 and self.path.suffix != ".parquet":
                raise UnreadableData(
                    f"{self.path}: expected a column {name!r}, but there is only {frame.columns[0][:40]!r}; set "
                    "`data.init_args.separator` to what is between the columns."
                )
            cure = did_you_mean(name, frame.columns, f"it has {', '.join(map(repr, frame.columns[:20]))}.")
            raise UnreadableData(f"{self.path}: expected a column {name!r}, but there is none; {cure}")


def _as_json(values: pl.Series, kind: str) -> Sequence[object]:
    """Values as JSON would bring them."""
    if kind == "numeric":
        return values.cast(pl.Float64).fill_nan(None).to_list()
    return [value if value != "" else None for value in values.to_list()]
