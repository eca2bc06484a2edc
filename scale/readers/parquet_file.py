"""Parquet files as a source, a stretch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.names import tidy
from dubio.scale.encode import ARRAY
from dubio.scale.readers.layout import Layout
from dubio.scale.readers.rows import Reading, Rows, Span, objects, stamp_file

# Rows that are decoded at a time: a row group is read anew for each stretch.
MOST_ROWS = 2**13
MOST_BYTES = 2**27


class ParquetFile:
    """A file of columns; an input of several numbers is a column of lists, or a column for each.

    Args:
        path: The file.
        spec: What the model takes.
        reading: How the file is read.

    Raises:
        InvalidInput: If it is no Parquet file, or its columns do not fit the model.
    """

    def __init__(self, path: Path, spec: InputSpec, reading: Reading) -> None:
        self.path, self.spec, self.reading = path, spec, reading
        try:
            self._file = pl.scan_parquet(path, glob=False)
            schema = self._file.collect_schema()
            self.rows = int(self._file.select(pl.len()).collect().item())
        except pl.exceptions.PolarsError as error:
            raise InvalidInput(f"cannot be read: {str(error).splitlines()[0]}.") from error
        self._names = {tidy(name): name for name in schema}
        if len(self._names) < len(schema):
            raise InvalidInput("Expected every column to have a name of its own, but two look the same.")
        self.layout = Layout.of(list(self._names), spec, reading, spreads=True)
        for name in self.layout.inputs if self.layout.spread else ():
            kind = schema[self._names[name]]
            if not kind.is_numeric():
                raise InvalidInput(f"Expected column {name!r} to hold numbers, but it holds {kind}.")

    def stamp(self) -> str:
        return stamp_file(self.path)

    def spans(self, rows: int) -> Iterator[Span]:
        for first in range(0, self.rows, rows):
            yield Span(first, min(rows, self.rows - first))

    def read(self, span: Span, most: int) -> Iterator[Rows]:
        wide = max(1, MOST_BYTES // (8 * int(np.prod(self.spec.shape))))
        stretch = max(most, min(MOST_ROWS, wide))
        wanted = dict.fromkeys((*self.layout.inputs, *self.reading.ids))
        columns = self._file.select(pl.col(self._names[name]).alias(name) for name in wanted)
        for first in range(span.first, span.first + span.rows, stretch):
            frame = columns.slice(first, min(stretch, span.first + span.rows - first)).collect()
            frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
            for start in range(0, len(frame), most):
                yield self._batch(frame.slice(start, most), first + start)

    def _batch(self, frame: pl.DataFrame, first: int) -> Rows:
        errors: list[str | None] = [None] * len(frame)
        if self.layout.spread:
            values = frame.select(self.layout.inputs)
            for row in values.select(pl.any_horizontal(pl.all().is_null())).to_series().arg_true():
                errors[row] = "Expected a number in each column, but one is missing."
            inputs = {ARRAY: values.cast(pl.Float64).fill_null(0).to_numpy()}
        else:
            inputs = {name: _array(frame[name]) for name in self.layout.inputs}
        return Rows(first, inputs, frame.select(self.reading.ids), errors)


def _array(values: pl.Series) -> NDArray[Any]:
    """The values, one a row, lists of numbers of one length as axes of an array."""
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if isinstance(values.dtype, pl.List) and values.dtype.inner.is_numeric() and not values.null_count():
        lengths, inner = values.list.len(), values.explode()
        if lengths.n_unique() == 1 and lengths[0] and not inner.null_count():
            return inner.to_numpy().reshape(len(values), -1)
    return objects(values.to_list())
