"""Tables of one's own: CSV and Parquet files with named columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import polars as pl

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs import tabular
from dubio.models.inputs.names import category, look, tidy
from dubio.models.inputs.tabular import MAX_COLUMNS
from dubio.models.spec import MAX_STRING
from dubio.training import options
from dubio.training.data import identifiers
from dubio.training.data.file_module import FileDataModule
from dubio.training.errors import NO_QUANTITIES, InvalidSplit, TrainingError, UnreadableData
from dubio.training.readers import table_column
from dubio.training.readers.csv_reader import MISSING, TableFile
from dubio.training.readers.look_alikes import refuse_look_alikes
from dubio.training.readers.number_format import NumberFormat
from dubio.training.splits.dataset import Dataset, Examples, fit_input, roles
from dubio.training.splits.random_splits import SPLITS, IntArray
from dubio.training.splits.timestamps import rank_times


class Table(FileDataModule):
    """Rows of named columns from a .csv or .parquet file, one of which holds the labels.

    A column in which all that is there reads as a number is numeric; texts and truth values are categorical. Names that
    look like numbers, and names that hardly recur, are refused unless they are listed under `categorical`. What a
    column can hold is learned on the training rows and kept in the checkpoint: ranges, categories, and what fills a
    hole; whether there may be a hole is learned on all rows. A request is read as the file is.

    Args:
        path: The file.
        target: Name of the column with the labels.
        columns: Names of the columns that the network sees, in this order; by default all but `target`, `split`,
            `group` and `time`.
        ignore: Names of columns that it does not see.
        categorical: Names of columns whose values are names even if they look like numbers, such as postal codes, or
            hardly recur.
        split: Name of a column that says which split a row belongs to; the fractions are then not used.
        group: Name of a column of what rows have in common, such as the patient: no group is in two splits.
        time: Name of a column of numbers or dates: each split is later than the one before, the test split last.
        classes: Names of the classes in the order of the logits; by default those that occur, sorted.
        separator: Of a CSV file; by default a comma, and a tab if its name ends in .tsv.
        decimal: What stands before the part of a number that is smaller than 1, in a CSV file.
        thousands: What stands between each three digits of a large number, in a CSV file; by default nothing may.
        missing: Texts that stand for a missing value, in requests too, as nothing does.
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
        separator: str | None = None,
        decimal: str = ".",
        thousands: str | None = None,
        missing: tuple[str, ...] = MISSING,
        **settings: Any,
    ) -> None:
        super().__init__(path, **settings)
        if separator is not None and (len(separator.encode()) != 1 or separator in '"\r\n'):
            raise TrainingError(
                "Expected `data.init_args.separator` to be one character, and no quote or end of a line, but got "
                f"{separator!r}."
            )
        target, split = tidy(target), None if split is None else tidy(split)
        columns = None if columns is None else tuple(map(tidy, columns))
        ignore, categorical = (tuple(map(tidy, names)) for names in (ignore, categorical))
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
        self.numbers, self.missing = NumberFormat(decimal, thousands), tuple(map(tidy, missing))

    def read(self) -> Dataset:
        known = self._trained_columns()
        texts = [column.name for column in known if column.kind == "categorical"] if known else self.categorical
        missing = self.trained.input.missing if self.trained and known else self.missing
        named = (*texts, self.target, *self.ids, *([] if self.group is None else [self.group]))
        file = TableFile(self.file(), self.separator, named, self.numbers, missing)
        self._require_columns(file.frame)
        labels_N, classes = self.unlabelled(len(file.frame)) or self._labels(file)
        parts = self.divide(labels_N, classes, self._own_splits(file), self._groups(file), self._times(file))
        frame = file.frame.select(self._names(file))
        table = tabular.Table(known or self._learn(frame, parts["train"]), missing)
        values = {
            name: file.read_numbers(name) if column.kind == "numeric" else frame[name].to_list()
            for name, column in table.columns.items()
        }
        try:
            x = table.encode(values, lambda row, name: f"{file.at(row)}, column {name!r}")
        except InvalidInput as error:
            raise UnreadableData(f"{self.path}: {error}") from error
        splits = Examples(x, labels_N).divide(parts)
        return Dataset(
            splits,
            classes,
            self._input(table, splits["train"].x),
            parts,
            file.at,
            {name: file.cells[name].to_list() for name in self.ids},
            roles(
                file.frame.columns,
                frame.columns,
                group=self.group,
                time=self.time,
                split=self.split,
                target=self.target,
            ),
            [] if known else self._doubts(frame, table),
        )

    def _doubts(self, frame: pl.DataFrame, table: tabular.Table) -> list[str]:
        names = [name for name, column in table.columns.items() if column.kind == "categorical"]
        doubts = identifiers.find(frame, names, self.ignore, self.group, self.time)
        return [f"{self.path}: {doubt}" for doubt in doubts]

    def settings(self) -> dict[str, Any]:
        own = {"split": self.split, "group": self.group, "time": self.time}
        return {
            **super().settings(),
            **own,
            "categorical": sorted(self.categorical),
            "missing": list(self.missing),
        }

    def reading(self) -> dict[str, Any]:
        columns = None if self.columns is None else list(self.columns)
        own = {"target": self.target, "columns": columns, "ignore": list(self.ignore), "separator": self.separator}
        return {**super().reading(), **own, "decimal": self.numbers.decimal, "thousands": self.numbers.thousands}

    def _learn(self, frame: pl.DataFrame, rows: IntArray) -> list[tabular.NumericColumn | tabular.CategoricalColumn]:
        try:
            return [table_column.learn(each, rows, each.name in self.categorical) for each in frame]
        except UnreadableData as error:
            raise UnreadableData(f"{self.path}: {error}") from error

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
        offsets = [each for column in columns for each in column.offsets]
        given = offsets if self.scale else [0.0] * len(offsets)  # the encoded rows are without it, what is given is not
        # What says that something is the case is 0 or 1 and stays so.
        indicators = [each for column in columns for each in column.indicators]
        return InputSpec(
            kind="table",
            shape=numbers.shape,
            mean=tuple(
                0.0 if indicator else mean - offset
                for indicator, mean, offset in zip(indicators, numbers.mean, given, strict=True)
            ),
            std=tuple(1.0 if indicator else std for indicator, std in zip(indicators, numbers.std, strict=True)),
            low=numbers.low,
            high=numbers.high,
            columns=columns,
            missing=self.missing,
        )

    def _names(self, file: TableFile) -> list[str]:
        """The columns that the network sees, without what no checkpoint can keep, and without names among numbers."""
        # Who and when are no inputs, unless they are asked for.
        unseen = {
            self.target,
            self.split,
            *self.ignore,
            *self.ids,
            *({self.group, self.time} - set(self.columns or ())),
        }
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
            if self.trained is None:
                file.refuse_what_no_network_learns(name, self.ignore, self.categorical)
        return names

    def _only_trained(self, names: Sequence[str]) -> list[str]:
        known = [column.name for column in self._trained_columns()]
        for name in self.ignore:
            if name in known:
                raise UnreadableData(
                    f"{self.path}: expected `data.init_args.ignore` to name no column that the network of this "
                    f"checkpoint sees, but got {name!r}; take it out of the list, or fit again without the column."
                )
        used = self.trained.divisions[0].settings if self.trained else {}
        unseen = {*used.get("ignore", ()), *(used.get(role) for role in ("target", "split", "group", "time"))}
        others = [name for name in names if name not in known and name not in unseen]
        if others:
            listed = [*self.ignore, *others]
            leave_out = options.typed_list("ignore", listed) if len(listed) <= 20 else "`data.init_args.ignore`"
            cure = did_you_mean(others[0], known, f"the checkpoint has {', '.join(map(repr, known[:20]))}.")
            raise UnreadableData(
                f"{self.path}: expected no column that the checkpoint does not have, but got "
                f"{', '.join(repr(name[:40]) for name in others[:20])}; leave out what the network does not see with "
                f"{leave_out}; {cure}"
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

    def _groups(self, file: TableFile) -> npt.NDArray[np.str_] | None:
        if self.group is None or not self.divides:
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
        if self.time is None or not self.divides:
            return None
        try:
            return rank_times(file.frame[self.time].to_list(), self.time, file.at)
        except UnreadableData as error:
            raise UnreadableData(f"{self.path}: {error}") from error

    def _labels(self, file: TableFile) -> tuple[IntArray, tuple[str, ...]]:
        cells, values = file.cells[self.target].to_list(), file.frame[self.target].to_list()
        if file.cells[self.target].dtype == pl.String:
            rule = f"{self.path}: expected column {self.target!r} to"
            refuse_look_alikes(rule, dict(file.spellings(self.target)), "class", "write it one way")
        given = self.class_names
        # What usually says that there is nothing can be a class: None beside Minor and Severe.
        listed = given or (self.trained.classes if self.trained else ())
        spelled = {look(category(name) or name): name for name in listed}
        labels = []
        for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
            name = category(cell)
            label = spelled.get(look(name), name) if name else None
            if label is None or (not spelled and (value is None or _is_fraction(label))):
                self._refuse_label(file.at(row), cell, value)
            if given and label not in spelled.values():
                raise UnreadableData(
                    f"{self.path}: expected {file.at(row)}, column {self.target!r} to be one of "
                    f"{', '.join(repr(each[:40]) for each in spelled.values())[:800]}, but got {str(cell)[:40]!r}; "
                    "mend it, or set `data.init_args.classes`."
                )
            labels.append(label)
        if not listed and all(label.removeprefix("-").isdecimal() for label in labels):
            given = tuple(sorted(set(labels), key=int))  # in the order of the numbers, not of their digits
        return self.encode_labels(np.array(labels), given, f"column {self.target!r}", file.at)

    def _refuse_label(self, where: str, cell: object, value: object) -> NoReturn:
        rule = f"{self.path}: expected {where}, column {self.target!r} to be a label, a name or a whole number, but"
        if value is None and cell not in (None, ""):
            raise UnreadableData(
                f"{rule} {str(cell)[:40]!r} stands for a missing value; leave the row out, or, if it is a class, list "
                "all classes under `data.init_args.classes`."
            )
        cause = "it is missing" if value is None else f"got {value}"
        cure = NO_QUANTITIES if _is_fraction(category(cell) or "") else "Mend it, or leave the row out."
        raise UnreadableData(f"{rule} {cause}. {cure}")

    def _require_columns(self, frame: pl.DataFrame) -> None:
        own = (self.split, *((self.group, self.time) if self.divides else ()))
        needed = [self.target, *(name for name in own if name is not None)]
        known = [column.name for column in self._trained_columns()]
        if not known:
            needed += [*self.ignore, *self.categorical]
        for name in (*(self.columns or known), *self.ids, *(() if self.purpose == "predict" else needed)):
            if name in frame.columns:
                continue
            if len(frame.columns) == 1 and self.path.suffix.lower() != ".parquet":
                raise UnreadableData(
                    f"{self.path}: expected a column {name!r}, but there is only {frame.columns[0][:40]!r}; set "
                    "`data.init_args.separator` to what is between the columns."
                )
            cure = did_you_mean(name, frame.columns, f"it has {', '.join(map(repr, frame.columns[:20]))}.")
            for role in ("split", "group", "time"):
                if self.trained is not None and getattr(self, role) == name:
                    cure = f"if these rows have none, add `--data.{role} null`; {cure}"
            raise UnreadableData(f"{self.path}: expected a column {name!r}, but there is none; {cure}")


def _is_fraction(name: str) -> bool:
    """Whether a name is a number with a part smaller than 1."""
    try:
        return not float(name).is_integer() and np.isfinite(float(name)).item()
    except ValueError:
        return False
