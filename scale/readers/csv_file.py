"""CSV files as a source, one row after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs import numbers
from dubio.models.inputs.csv_rows import CsvRow, CsvRows, Place
from dubio.models.inputs.names import tidy
from dubio.models.inputs.tabular import NumericColumn, Table
from dubio.scale.encode import ARRAY
from dubio.scale.readers.layout import Layout
from dubio.scale.readers.rows import Reading, Rows, Span, objects, stamp_file, texts

# Cells that Python and JSON read as the same numbers.
_PLAIN = re.compile(r"[0-9.eE+-]*")


class CsvFile:
    """A file with a header.

    Args:
        path: The file.
        spec: What the model takes.
        reading: How the file is read.

    Raises:
        InvalidInput: If its header cannot be read, or does not fit the model.
    """

    def __init__(self, path: Path, spec: InputSpec, reading: Reading) -> None:
        self.path, self.spec, self.reading = path, spec, reading
        self.rows = CsvRows(path, reading.separator)
        self.names = list(map(tidy, self.rows.header))
        for name in self.names:
            if self.names.count(name) > 1:
                raise InvalidInput(f"Expected every column to have a name of its own, but two are called {name!r}.")
        others = [each for each in (";", "\t", ",", "|") if each != self.rows.separator and each in self.names[0]]
        if len(self.names) == 1 and others:
            raise InvalidInput(
                f"Expected names of columns with {self.rows.separator!r} between them, but got one name that holds "
                f"{others[0]!r}: {self.names[0][:60]!r}; set --separator {others[0]!r}."
            )
        self.layout = Layout.of(self.names, spec, reading, spreads=True)
        self._at = [self.names.index(name) for name in self.layout.inputs]

    def stamp(self) -> str:
        return stamp_file(self.path)

    def spans(self, rows: int) -> Iterator[Span]:
        first = 0
        for place, count in self.rows.places(rows):
            yield Span(first, count, place.offset, place.line)
            first += count

    def read(self, span: Span, most: int) -> Iterator[Rows]:
        rows = islice(self.rows.read(Place(span.offset, span.line)), span.rows)
        first = span.first
        while batch := list(islice(rows, most)):
            yield self._batch(batch, first)
            first += len(batch)

    def _batch(self, rows: list[CsvRow], first: int) -> Rows:
        errors = [row.problem for row in rows]
        nothing = [""] * len(self.names)
        cells = [nothing if row.problem else row.cells for row in rows]
        inputs = self._spread(cells, errors) if self.layout.spread else self._columns(cells, errors)
        # What a row has that is none says nothing about which it is.
        ids = {
            name: [None if row.problem else row.cells[index] for row in rows]
            for name, index in ((name, self.names.index(name)) for name in self.reading.ids)
        }
        return Rows(first, inputs, texts(ids), errors, [row.line for row in rows])

    def _columns(self, cells: list[list[str]], errors: list[str | None]) -> dict[str, NDArray[Any]]:
        columns: dict[str, list[Any]] = {
            name: [row[index] for row in cells] for name, index in zip(self.layout.inputs, self._at, strict=True)
        }
        reader = self.spec.reader
        if self.reading.decimal != "." and isinstance(reader, Table):
            for name, column in reader.columns.items():
                if isinstance(column, NumericColumn):
                    for row, cell in enumerate(columns[name]):
                        if errors[row] is None and tidy(cell) not in reader.missing:
                            columns[name][row] = numbers.read(cell, self.reading.decimal)
                            errors[row] = self._slip([name], [cell])
        return {name: objects(values) for name, values in columns.items()}

    def _spread(self, cells: list[list[str]], errors: list[str | None]) -> dict[str, NDArray[Any]]:
        values = np.zeros((len(cells), len(self._at)), dtype=np.float64)
        for row, held in enumerate(cells):
            if errors[row] is not None:
                continue
            wanted = [held[index] for index in self._at]
            try:
                plain = self.reading.decimal == "." and _PLAIN.fullmatch("".join(wanted))
                values[row] = list(map(float if plain else self._number, wanted))
            except ValueError:
                errors[row] = self._slip(self.layout.inputs, [held[index] for index in self._at])
        return {ARRAY: values}

    def _number(self, cell: str) -> float:
        number = numbers.read(cell, self.reading.decimal)
        if number is None:
            raise ValueError(cell)
        return number

    def _slip(self, names: Sequence[str], cells: Sequence[str]) -> str | None:
        """Which of the cells is no number; None if all are."""
        for name, cell in zip(names, cells, strict=True):
            if numbers.read(cell, self.reading.decimal) is None:
                return (
                    f"Expected column {name!r} to be a number with decimal {self.reading.decimal!r}, but got the text "
                    f"{cell[:40]!r}."
                )
        return None
