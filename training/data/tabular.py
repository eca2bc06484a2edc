"""Tables of one's own: CSV and Parquet files with named columns."""

from __future__ import annotations

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
from dubio.training.errors import InvalidSplit, TrainingError, UnreadableData


class Table(FileDataModule):
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
        self.target, self.columns, self.ignore, self.categorical = target, columns, ignore, categorical
        self.split, self.class_names, self.separator = split, classes, separator

    def read(self) -> Dataset:
        known = self._trained_columns()
        texts = [column.name for column in known if column.kind == "categorical"] if known else self.categorical
        file = TableFile(self.file(), self.separator, texts)
        self._require_columns(file.frame)
        labels_N, classes = self.unlabelled(len(file.frame)) or self._labels(file)
        parts = self.divide(labels_N, classes, self._own_splits(file))
        names = self._names(file)
        train = file.frame[parts["train"].tolist()]
        try:
            table = tabular.Table(
                known or [table_column.learn(train[name], name in self.categorical) for name in names]
            )
            values = {name: _as_json(file.frame[name], table.columns[name].kind) for name in names}
            x = table.encode(values, lambda row, name: f"{file.at(row)}, column {name!r}")
        except (InvalidInput, UnreadableData) as error:
            raise UnreadableData(f"{self.path}: {error}") from error
        splits = Examples(x, labels_N).divide(parts)
        return Dataset(
            splits,
            classes,
            self._input(table, splits["train"].x),
            parts,
            file.at,
            {name: file.frame[name].to_list() for name in self.ids},
        )

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "categorical": sorted(self.categorical)}

    def _trained_columns(self) -> Sequence[tabular.NumericColumn | tabular.CategoricalColumn]:
        """Those of the checkpoint that is followed, if one is."""
        columns = self.trained.input.columns if self.trained else None
        if columns is None:
            return ()
        names = [column.name for column in columns]
        if self.columns is not None and list(self.columns) != names:
            raise TrainingError(
                f"Expected `data.init_args.columns` to be {names[:20]}, as the checkpoint has, but got "
                f"{list(self.columns)[:20]}; leave it out, or fit again with yours."
            )
        return columns

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
        unseen = {self.target, self.split, *self.ignore, *self.ids}
        names = [name for name in self.columns or file.frame.columns if name not in unseen]
        if self._trained_columns():
            names = self._only_trained(names)
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

    def _only_trained(self, names: Sequence[str]) -> list[str]:
        known = [column.name for column in self._trained_columns()]
        for name in names:
            if name not in known:
                cure = did_you_mean(name, known, f"the checkpoint has {', '.join(map(repr, known[:20]))}.")
                raise UnreadableData(
                    f"{self.path}: expected no column that the checkpoint does not have, but got {name[:40]!r}; put it "
                    f"into `data.init_args.ignore`, or {cure}"
                )
        return known

    def _own_splits(self, file: TableFile) -> npt.NDArray[np.str_] | None:
        if self.split is None or self.purpose == "predict":
            return None
        values = file.frame[self.split]
        for row, value in enumerate(values.to_list()):
            if value not in SPLITS:
                raise InvalidSplit(
                    f"{self.path}: expected {file.at(row)}, column {self.split!r} to be one of "
                    f"{', '.join(SPLITS)}, but got {str(value)[:40]!r}."
                )
        return values.to_numpy().astype(str)

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
                raise UnreadableData(
                    f"{rule} a label, a name or a whole number, but {cause}; mend it, or leave the row out."
                )
            if names and label not in names:
                raise UnreadableData(
                    f"{rule} one of {', '.join(repr(name[:40]) for name in names[:20])}, but got {label[:40]!r}; mend "
                    "it, or set `data.init_args.classes`."
                )
        return self.encode_labels(np.array(labels), names, f"column {self.target!r}", file.at)

    def _require_columns(self, frame: pl.DataFrame) -> None:
        needed = [self.target, *([] if self.split is None else [self.split])]
        known = [column.name for column in self._trained_columns()]
        if not known:
            needed += [*self.ignore, *self.categorical]
        for name in (*(self.columns or known), *self.ids, *(() if self.purpose == "predict" else needed)):
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
    if kind == "numeric" and values.dtype.is_numeric():
        return values.cast(pl.Float64).fill_nan(None).to_list()
    if kind == "numeric" and values.dtype == pl.String:  # of another file than the fit's; texts are refused by line
        numbers = values.cast(pl.Float64, strict=False).to_list()
        return [value if number is None else number for number, value in zip(numbers, values.to_list(), strict=True)]
    return [value if value != "" else None for value in values.to_list()]
