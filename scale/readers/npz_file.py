"""`.npz` files as a source: arrays that are read a stretch at a time, never whole."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers.layout import Layout
from dubio.scale.readers.rows import Reading, Rows, Span, stamp_file


class NpzFile:
    """A file that `numpy.savez` wrote, with the inputs in `x`; what identifies rows is in arrays of its own.

    Args:
        path: The file.
        spec: What the model takes.
        reading: How the file is read.

    Raises:
        InvalidInput: If it is no such file, or its arrays do not fit the model.
    """

    def __init__(self, path: Path, spec: InputSpec, reading: Reading) -> None:
        self.path, self.spec, self.reading = path, spec, reading
        try:
            with zipfile.ZipFile(path) as archive:
                held = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                self.layout = Layout.of(held, spec, reading)
                self._heads = {name: self._head(archive, name) for name in (*self.layout.inputs, *reading.ids)}
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"Expected an .npz file of plain arrays, but {error}.") from error
        shape, kind = self._heads[self.layout.inputs[0]]
        flat = (math.prod(spec.shape),)
        forms = {spec.shape, flat, spec.shape[1:] if spec.shape[0] == 1 and len(spec.shape) > 1 else flat}
        if shape[1:] not in forms or kind.kind not in "fiu":
            told = " or ".join(str(["N", *each]).replace("'", "") for each in sorted(forms, key=len, reverse=True))
            raise InvalidInput(
                f"Expected numbers of shape {told} in `{self.layout.inputs[0]}`, but got {kind} of shape {list(shape)}."
            )
        self.rows = shape[0]
        self._files: dict[str, IO[bytes]] = {}
        self._next = -1
        for name in reading.ids:
            shape, kind = self._heads[name]
            if shape != (self.rows,) or kind.kind not in "biufU":
                raise InvalidInput(
                    f"Expected `{name}` to have a number or a text for each of {self.rows} rows, but got {kind} of "
                    f"shape {list(shape)}."
                )

    def stamp(self) -> str:
        return stamp_file(self.path)

    def spans(self, rows: int) -> Iterator[Span]:
        for first in range(0, self.rows, rows):
            yield Span(first, min(rows, self.rows - first))

    def read(self, span: Span, most: int) -> Iterator[Rows]:
        if span.first != self._next:
            # Other rows than the last call ended with: what is compressed is read from the beginning.
            archive = zipfile.ZipFile(self.path)
            self._files = {name: self._opened(archive, name, span.first) for name in self._heads}
        for first in range(span.first, span.first + span.rows, most):
            rows = min(most, span.first + span.rows - first)
            held = {name: self._take(file, name, rows) for name, file in self._files.items()}
            self._next = first + rows
            inputs = {name: held[name] for name in self.layout.inputs}
            yield Rows(first, inputs, pl.DataFrame({name: held[name] for name in self.reading.ids}), [None] * rows)

    def _head(self, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with archive.open(f"{name}.npy") as file:
            shape, order, kind = _read_head(file)
        if kind.hasobject or not shape or (order and len(shape) > 1):
            what = "Python objects" if kind.hasobject else "one value" if not shape else "columns, in Fortran's order"
            raise InvalidInput(
                f"Expected rows of plain numbers in `{name}`, but it holds {what}; write it anew with "
                "numpy.ascontiguousarray."
            )
        return shape, kind

    def _opened(self, archive: zipfile.ZipFile, name: str, first: int) -> IO[bytes]:
        file = archive.open(f"{name}.npy")
        _read_head(file)
        file.seek(first * self._row_bytes(name), 1)
        return file

    def _row_bytes(self, name: str) -> int:
        shape, kind = self._heads[name]
        return math.prod(shape[1:]) * kind.itemsize

    def _take(self, file: IO[bytes], name: str, rows: int) -> NDArray[Any]:
        (shape, kind), wanted = self._heads[name], rows * self._row_bytes(name)
        content = file.read(wanted)
        if len(content) < wanted:
            raise InvalidInput(f"Expected {shape[0]} rows in `{name}`, but the file ends before that.")
        return np.frombuffer(content, dtype=kind).reshape(rows, *shape[1:])


def _read_head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, order, kind = read(file)
    return shape, order, kind
