"""Columns: what a table's rows look like, and how one becomes numbers.

A row is a mapping from column names to values. Its numbers, in the order of the columns, are: of a numeric column the
value less the offset and, if rows had holes in it, 1 where the value is missing; of a categorical column one number for
each category, 1 for the row's own, then 1 for missing if rows had holes, then 1 for a category that no training
row had. So what was never seen is told apart from everything that was. A file and a request are read by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json import dumps
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs.names import category, look, say_value, tidy
from dubio.models.spec import DataValue, Finite, Name, StrictModel, shortest

MAX_COLUMNS = 4096
MAX_CATEGORIES = 1024
# Names a row in messages.
Where = Callable[[int], str]
_LARGEST = float(np.finfo(np.float32).max)


class NumericColumn(StrictModel):
    """A column of numbers.

    Attributes:
        kind: ``numeric``.
        name: Of the column.
        low: Smallest value in the training rows.
        high: Largest value in the training rows.
        fill: Stands for a missing value; the median of the training rows.
        missing: Whether rows of the data had holes in it; if not, a row must have a value.
        offset: Subtracted in 64 bits before the value becomes one of 32 bits, in which what is far from 0 would lose
            its last digits, such as a time in milliseconds; 0 where nothing is lost.
    """

    kind: Literal["numeric"]
    name: Name
    low: DataValue
    high: DataValue
    fill: DataValue
    missing: bool
    offset: Finite = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> NumericColumn:
        if not self.low <= self.fill <= self.high:
            raise ValueError(f"Expected low <= fill <= high, but got {self.low}, {self.fill} and {self.high}.")
        return self

    @property
    def features(self) -> list[str]:
        """Names of its numbers."""
        return [self.name, f"{self.name} is missing"] if self.missing else [self.name]

    @property
    def indicators(self) -> list[bool]:
        """Which of its numbers say that something is the case."""
        return [False, True] if self.missing else [False]

    @property
    def offsets(self) -> list[float]:
        """What was subtracted from each of its numbers."""
        return [self.offset, 0.0] if self.missing else [self.offset]

    @property
    def example(self) -> float:
        """A value to try."""
        return shortest(self.fill)

    def encode(self, values: Sequence[object], where: Where) -> NDArray[np.float32]:
        """The numbers ``[N, 1 or 2]`` of a value for each row.

        Raises:
            InvalidInput: If a value is no finite number, or missing where no row had a hole.
        """
        for row, value in enumerate(values):
            if type(value) in (int, float) and abs(value) <= _LARGEST:  # type: ignore[arg-type]
                continue
            if value is not None:
                raise InvalidInput(
                    f"Expected {where(row)} to be a finite number, but got {say_value(value)}; {self._taken(value)}."
                )
            _refuse_hole(self, where(row))
        numbers_N = self._shift([self.fill if value is None else value for value in values])
        if not self.missing:
            return numbers_N[:, None]
        return np.stack([numbers_N, [value is None for value in values]], axis=1).astype(np.float32)

    def decode(self, numbers_F: Sequence[float]) -> float | None:
        """The value that has these numbers; None where it is missing."""
        return None if self.missing and numbers_F[1] else self.offset + shortest(numbers_F[0])

    def outside(self, numbers_BF: Tensor) -> Tensor:
        """Whether the value lies beyond those of the training rows, ``[B]``."""
        low, high = map(float, self._shift([self.low, self.high]))
        return (numbers_BF[:, 0] < low) | (numbers_BF[:, 0] > high)

    def _taken(self, value: object) -> str:
        beyond = isinstance(value, int | float) and not isinstance(value, bool)
        form = f"from {-_LARGEST:.1e} to {_LARGEST:.1e}" if beyond else "without quotes or a unit"
        return f"a number such as {self.example:.6g} is taken, {form}{_or_null(self)}"

    def _shift(self, values: Sequence[object]) -> NDArray[np.float32]:
        return (np.array(values, dtype=np.float64) - self.offset).astype(np.float32)


class CategoricalColumn(StrictModel):
    """A column of names.

    Attributes:
        kind: ``categorical``.
        name: Of the column.
        categories: That occurred in the training rows.
        missing: As for `NumericColumn`.
    """

    kind: Literal["categorical"]
    name: Name
    categories: Annotated[list[Name], Field(min_length=1, max_length=MAX_CATEGORIES)]
    missing: bool

    @model_validator(mode="after")
    def _distinct(self) -> CategoricalColumn:
        if len(set(map(look, self.categories))) < len(self.categories):
            raise ValueError(f"Expected every category of {self.name!r} once, and none that looks like another.")
        return self

    @property
    def features(self) -> list[str]:
        """Names of its numbers."""
        own = [f"{self.name} = {category}" for category in self.categories]
        return [*own, *([f"{self.name} is missing"] if self.missing else []), f"{self.name} is unseen"]

    @property
    def indicators(self) -> list[bool]:
        """Which of its numbers say that something is the case: all."""
        return [True] * len(self.features)

    @property
    def offsets(self) -> list[float]:
        """What was subtracted from each of its numbers: nothing."""
        return [0.0] * len(self.features)

    @property
    def example(self) -> str:
        """A value to try."""
        return self.categories[0]

    def encode(self, values: Sequence[object], where: Where) -> NDArray[np.float32]:
        """The numbers ``[N, categories + 1 or 2]`` of a value for each row; numbers and truth values stand for their
        names, and so does what looks like one.

        Raises:
            InvalidInput: If a value is no name, or missing where no row had a hole.
        """
        width = len(self.features)
        place = {look(name): index for index, name in enumerate(self.categories)}
        places = []
        for row, value in enumerate(values):
            name = category(value)
            if name is None and value is not None:
                raise InvalidInput(
                    f"Expected {where(row)} to be the name of a category, but got {say_value(value)}; a text, a finite "
                    f"number, true and false are taken{_or_null(self)}."
                )
            if name is None:
                _refuse_hole(self, where(row))
            places.append(width - 2 if name is None else place.get(look(name), width - 1))
        numbers_NF = np.zeros((len(values), width), dtype=np.float32)
        numbers_NF[np.arange(len(values)), places] = 1
        return numbers_NF

    def decode(self, numbers_F: Sequence[float]) -> str | None:
        """The name that has these numbers; None where it is missing, or a name that no training row had."""
        place = max(range(len(numbers_F)), key=numbers_F.__getitem__)
        return self.categories[place] if place < len(self.categories) else None

    def outside(self, numbers_BF: Tensor) -> Tensor:
        """Whether no training row had the category, ``[B]``."""
        return numbers_BF[:, -1] > 0


Column = Annotated[NumericColumn | CategoricalColumn, Field(discriminator="kind")]


class Table:
    """Reads rows of named columns.

    Args:
        columns: In the order of their numbers.
        missing: Texts that stand for a missing value, as nothing does.
    """

    def __init__(self, columns: Sequence[NumericColumn | CategoricalColumn], missing: Sequence[str] = ()) -> None:
        self.columns = {column.name: column for column in columns}
        self.missing = frozenset(map(tidy, missing)) | {""}

    @property
    def features(self) -> list[str]:
        """Names of a row's numbers, in their order."""
        return [feature for column in self.columns.values() for feature in column.features]

    def read(self, instances: Sequence[Any], spend: Callable[[int], None] = lambda units: None) -> NDArray[np.float32]:
        """Numbers ``[N, F]`` of rows.

        Args:
            instances: The rows.
            spend: As the protocol says; a unit is a value.

        Raises:
            InvalidInput: If a row is no mapping, lacks a column, has one that is unknown, or a value does not fit.
        """
        instances = [self._tidied(instance) for instance in instances]
        for index, instance in enumerate(instances):
            spend(len(self.columns))
            self._check(instance, f"instances[{index}]")
        values = {name: [instance[name] for instance in instances] for name in self.columns}
        return self.encode(values, lambda row, name: f"instances[{row}][{name[:100]!r}]")

    def encode(self, values: Mapping[str, Sequence[object]], where: Callable[[int, str], str]) -> NDArray[np.float32]:
        """Numbers ``[N, F]`` of rows that are given column by column.

        Args:
            values: Of every column, one a row.
            where: Names a row and a column in messages.

        Raises:
            InvalidInput: If a value does not fit.
        """
        parts = [
            column.encode(self._holes(values[name]), lambda row, name=name: where(row, name))  # type: ignore[misc]
            for name, column in self.columns.items()
        ]
        return np.concatenate(parts, axis=1)

    def decode(self, raw: Sequence[float]) -> dict[str, Any]:
        """The row that is read as these numbers."""
        row, start = {}, 0
        for name, column in self.columns.items():
            stop = start + len(column.features)
            row[name] = column.decode(raw[start:stop])
            start = stop
        return row

    def example(self) -> dict[str, Any]:
        """A row to try."""
        return {name: column.example for name, column in self.columns.items()}

    def outside(self, raw: Tensor) -> Tensor:
        """Whether a row has a value that lies beyond those of the training rows, or that none of them had, ``[B]``.

        Args:
            raw: Numbers ``[B, F]``.
        """
        widths = [len(column.features) for column in self.columns.values()]
        parts = raw.split(widths, dim=1)
        beyond = [column.outside(part) for column, part in zip(self.columns.values(), parts, strict=True)]
        return torch.stack(beyond).any(0)

    def _holes(self, values: Sequence[object]) -> list[object]:
        """The values, None where one is missing."""
        return [None if isinstance(value, str) and tidy(value) in self.missing else value for value in values]

    def _tidied(self, instance: Any) -> Any:
        """The row with the names of its columns as a file's are read, unless two of them would become one."""
        if not isinstance(instance, Mapping) or instance.keys() <= self.columns.keys():
            return instance
        row = {tidy(str(key)): value for key, value in instance.items()}
        return row if len(row) == len(instance) else instance

    def _check(self, instance: Any, where: str) -> None:
        if not isinstance(instance, Mapping):
            raise InvalidInput(
                f"Expected {where} to be an object with a value for each column, like {self._hint()}, but got "
                f"{say_value(instance)}."
            )
        for key in instance:
            if key not in self.columns:
                cure = did_you_mean(str(key), self.columns, f"the columns are {_some(list(self.columns))}.")
                raise InvalidInput(
                    f"Expected {where} to have no unknown column, but got {str(key)[:100]!r}; {cure} Leave out "
                    "what the model was not trained on."
                )
        absent = [name for name in self.columns if name not in instance]
        if absent:
            raise InvalidInput(
                f"Expected {where} to have every column, but {_some(absent)} {'is' if len(absent) == 1 else 'are'} "
                f"absent; {self.cure_of_absent(absent)}"
            )

    def cure_of_absent(self, names: Sequence[str], null: str = "null") -> str:
        """What to do about columns that were not sent: only some may be missing.

        Args:
            names: Theirs.
            null: How a missing value is written.
        """
        them, holes = "it" if len(names) == 1 else "them", [name for name in names if self.columns[name].missing]
        if not holes:
            return f"send {them}, as no row of the training file lacked a value there."
        if len(holes) == len(names):
            return f"send {null} for a value that is missing."
        return f"send {them}, and {null} for a value of {_some(holes)} that is missing."

    def _hint(self) -> str:
        name, column = next(iter(self.columns.items()))
        return f"{{{dumps(name, ensure_ascii=False)}: {dumps(column.example, ensure_ascii=False)}, ...}}"


def width(columns: Sequence[NumericColumn | CategoricalColumn]) -> int:
    """F, how many numbers a row has."""
    return sum(len(column.features) for column in columns)


def _refuse_hole(column: NumericColumn | CategoricalColumn, where: str) -> None:
    if not column.missing:
        raise InvalidInput(
            f"Expected {where} to have a value, but it is missing, and in no row of the training file it was; fill it "
            "in, or train on rows with holes."
        )


def _or_null(column: NumericColumn | CategoricalColumn) -> str:
    return ", and null where it is missing" if column.missing else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
