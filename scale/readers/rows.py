"""Rows as they are read from a source: a span of them at a time, in batches, with what identifies each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reading:
    """How a source is read.

    Attributes:
        ids: Names of columns to carry over, which say which row is which.
        ignore: Names of columns that are left aside.
        field: Column with the inputs of a model that is no table's; None for the usual one.
        separator: Between the values of a CSV file; None for the usual one.
        decimal: Before the part of a number that is smaller than 1, in a CSV file.
    """

    ids: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    field: str | None = None
    separator: str | None = None
    decimal: str = "."


@dataclass(frozen=True)
class Span:
    """Rows of a source that follow each other.

    Attributes:
        first: Number of the first, counted from 0.
        rows: How many they are.
        offset: Where the first begins in the file, where it is read from there.
        line: On which it begins, where there are lines.
    """

    first: int
    rows: int
    offset: int = 0
    line: int = 0


@dataclass(frozen=True)
class Rows:
    """Some rows of a span.

    Attributes:
        first: Number of the first, counted from 0 in the source.
        inputs: The columns that the model takes.
        ids: The columns to carry over; without rows where there are none.
        errors: Of each row why it is none; None where it is one.
        lines: On which each begins; None where there are no lines.
    """

    first: int
    inputs: dict[str, NDArray[Any]]
    ids: pl.DataFrame
    errors: list[str | None]
    lines: list[int] | None = None

    def __len__(self) -> int:
        return len(self.errors)


class Source(Protocol):
    """A file or a folder with inputs."""

    def stamp(self) -> str:
        """What changes whenever the source does."""

    def spans(self, rows: int) -> Iterator[Span]:
        """All rows, so many at a time."""

    def read(self, span: Span, most: int) -> Iterator[Rows]:
        """The rows of a span, at most so many at a time."""


def stamp_file(path: Path) -> str:
    """The size of a file and the time of its last change."""
    about = path.stat()
    return f"{about.st_size} bytes of {about.st_mtime_ns}"


def objects(values: list[Any]) -> NDArray[np.object_]:
    """Values as they are, one a row: numpy alone would make an axis of lists that are of one length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def texts(columns: dict[str, list[Any]]) -> pl.DataFrame:
    """Columns of texts to carry over."""
    return pl.DataFrame({name: pl.Series(values, dtype=pl.String) for name, values in columns.items()})
