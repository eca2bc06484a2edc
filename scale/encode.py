"""From columns as a user has them to what a model takes, row by row where a row is none."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs import encoding
from dubio.models.inputs.frame import read_cell
from dubio.models.inputs.image import ImageReader
from dubio.models.inputs.names import say_value
from dubio.models.inputs.tabular import Table

TEXT, ARRAY, FILES = "text", "x", "bytes"  # where the input is, if nobody says it

# How messages of the readers name the first row of several, and what stands there once it is alone.
_FIRST = (
    ("Expected instances[0]", "Expected the text"),
    ("Expected row 0, column", "Expected column"),
    (", but input 0 ", ", but it "),
)


class Encoder:
    """Reads the inputs of one model.

    Args:
        spec: Of one input.
        field: Column with the inputs of a model that is no table's; by default `text`, or `x`, or, for images in the
            bytes of their files, `bytes`.
    """

    def __init__(self, spec: InputSpec, field: str | None = None) -> None:
        self.spec, self.field = spec, field
        # As the service takes instances: whole, without a leading channel axis of 1, or flat.
        self._shapes = {spec.shape, (math.prod(spec.shape),)}
        if len(spec.shape) > 1 and spec.shape[0] == 1:
            self._shapes.add(spec.shape[1:])

    def names(self, held: Collection[str]) -> tuple[str, ...]:
        """The columns that the model takes.

        Args:
            held: All columns that there are.

        Raises:
            InvalidInput: If one of them is absent.
        """
        reader = self.spec.reader
        if isinstance(reader, Table):
            wanted = tuple(reader.columns)
        elif self.field is not None or self.spec.kind == "text":
            wanted = (self.field or TEXT,)
        else:
            wanted = (FILES if self.spec.kind == "image" and ARRAY not in held and FILES in held else ARRAY,)
        for name in wanted:
            if name not in held:
                cure = did_you_mean(name, held, f"there are {', '.join(map(repr, list(held)[:20]))}.")
                raise InvalidInput(f"Expected a column {name!r}, but there is none; {cure}")
        return wanted

    def read(self, columns: Mapping[str, NDArray[Any]], errors: list[str | None]) -> NDArray[np.float32]:
        """Raw inputs ``[G, *shape]`` of the G rows that are good.

        Args:
            columns: Of `names`; one value a row.
            errors: Of each row why it cannot be read, None where it can. What is found is added.

        Raises:
            InvalidInput: If the columns themselves are not what the model takes.
        """
        held = [columns[name] for name in self.names(columns)]
        good = [row for row, error in enumerate(errors) if error is None]
        try:
            return self._read(held, good) if good else self._none()
        except InvalidInput:
            parts = [self._none()]
            for row in good:
                try:
                    parts.append(self._read(held, [row]))
                except InvalidInput as error:
                    errors[row] = alone(error)
            return np.concatenate(parts)

    def _none(self) -> NDArray[np.float32]:
        return np.zeros((0, *self.spec.shape), dtype=np.float32)

    def _read(self, columns: Sequence[NDArray[Any]], rows: list[int]) -> NDArray[np.float32]:
        reader = self.spec.reader
        if isinstance(reader, Table):
            cells = {
                name: [read_cell(cell, column, reader, row) for row, cell in enumerate(values[rows].tolist())]
                for (name, column), values in zip(reader.columns.items(), columns, strict=True)
            }
            given: Any = reader.encode(cells, lambda row, name: f"column {name!r}")
        elif reader is not None:
            given = reader.read(columns[0][rows].tolist())
        else:
            given = self._numbers(columns[0][rows])
        raw: NDArray[np.float32] = encoding.check(self.spec, given).numpy()
        return raw

    def _numbers(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype != object:
            return self._shaped(values, values.shape[1:])
        if isinstance(values[0], bytes):
            return np.stack([self._pixels(each) for each in values])
        rows = [_as_array(each) for each in values]
        return np.stack([self._shaped(each[np.newaxis], each.shape)[0] for each in rows])

    def _shaped(self, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if values.dtype.kind not in "fiu":
            raise InvalidInput(f"Expected numbers, but got values of type {values.dtype}.")
        if shape not in self._shapes:
            forms = " or ".join(str(list(each)) for each in sorted(self._shapes, key=len, reverse=True))
            raise InvalidInput(f"Expected an input to have shape {forms}, but got {list(shape)}.")
        return values.reshape(len(values), *self.spec.shape)

    def _pixels(self, data: object) -> NDArray[np.uint8]:
        if self.spec.no_files is not None:
            raise InvalidInput(f"Expected numbers, but got an image file; {self.spec.no_files}.")
        if not isinstance(data, bytes):
            raise InvalidInput(f"Expected the bytes of an image file, but got {say_value(data)}.")
        channels, height, width = self.spec.shape
        return ImageReader(channels, (height, width), self.spec.resizes).read(data, "the file").pixels_CHW


def alone(error: InvalidInput) -> str:
    """What is wrong with a row that was read by itself."""
    said = str(error)
    for several, one in _FIRST:
        said = said.replace(several, one, 1)
    return said


def _as_array(value: object) -> NDArray[Any]:
    """Nested lists of numbers as JSON has them; numpy alone would take true for 1."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    if not isinstance(value, list | np.ndarray):
        raise InvalidInput(f"Expected a list of numbers, but got {say_value(value)}.")
    cells = np.array(value, dtype=object)
    for cell in cells.ravel().tolist():
        if isinstance(cell, list | np.ndarray):
            raise InvalidInput("Expected lists of equal length, but they are not.")
        if type(cell) not in (int, float):
            raise InvalidInput(f"Expected numbers, but got {say_value(cell)} among them.")
    try:
        return cells.astype(np.float64)
    except OverflowError as error:
        raise InvalidInput("Expected numbers that a float can hold, but one of them is larger.") from error
