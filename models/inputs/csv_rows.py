"""The rows of a CSV file, one after the other, from its first or from a later one on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

from dubio.models.errors import InvalidInput


@dataclass(frozen=True)
class CsvRow:
    """One row.

    Attributes:
        line: On which it begins, the first of the file being 1; a text in quotes may go on over several.
        cells: As they are written, without quotes around them.
        after: The line behind it.
        problem: Why it is no row of this file; None if it is.
    """

    line: int
    cells: list[str]
    after: int
    problem: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a row begins.

    Attributes:
        offset: That a text file told.
        line: The first being 1.
    """

    offset: int = 0
    line: int = 1


class CsvRows:
    """Reads a file row by row; blank lines are left out.

    Args:
        path: The file.
        separator: Between the values; by default a comma, and a tab if the file's name ends in .tsv.

    Attributes:
        header: Names of the columns, as they are written.

    Raises:
        InvalidInput: If the file is empty, or its header cannot be read.
    """

    def __init__(self, path: Path, separator: str | None = None) -> None:
        self.path = path
        self.separator = separator or ("\t" if path.suffix.lower() == ".tsv" else ",")
        with self._opened(Place()) as file:
            first = next(self._rows(file, 1), None)
        if first is None:
            raise InvalidInput("cannot be read: it is empty.")
        if first.problem is not None:
            raise InvalidInput(first.problem)
        self.header = first.cells

    def read(self, place: Place | None = None) -> Iterator[CsvRow]:
        """The rows behind the header, or from a place on."""
        with self._opened(place or Place()) as file:
            rows = self._rows(file, (place or Place()).line)
            if place is None:
                next(rows)
            for row in rows:
                if row.problem is None and len(row.cells) != len(self.header):
                    row = replace(row, problem=self._other_width(row))
                yield row

    def places(self, rows: int) -> Iterator[tuple[Place, int]]:
        """Where each so many rows begin, and how many they are: fewer only at the end."""
        with self._opened(Place()) as file:
            read = self._rows(file, 1)
            header = next(read)
            place = Place(file.tell(), header.after)
            while chunk := list(islice(read, rows)):
                yield place, len(chunk)
                place = Place(file.tell(), chunk[-1].after)

    def _opened(self, place: Place) -> TextIO:
        # What is no UTF-8 is told row by row. A byte-order mark is there at the beginning alone.
        encoding = "utf-8" if place.offset else "utf-8-sig"
        file = self.path.open(encoding=encoding, errors="surrogateescape", newline="")
        file.seek(place.offset)
        return file

    def _rows(self, file: TextIO, line: int) -> Iterator[CsvRow]:
        # By lines, and not by iterating over the file, which then does not tell where it is.
        rows = csv.reader(
            iter(file.readline, ""),
            delimiter=self.separator,
            skipinitialspace=self.separator != " ",
            strict=True,
        )
        before = line - 1
        while True:
            begins, cells, problem = before + rows.line_num + 1, [], None
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                ends = before + rows.line_num
                where = f"line {begins}" if ends <= begins else f"lines {begins} to {ends}"
                problem = f"cannot be read: {where}: {error}; mend its quotes."
            if problem is None and (not cells or (len(cells) == 1 and not cells[0].strip())):
                continue
            text = "".join(cells)
            if not text.isascii() and not _is_unicode(text):
                problem = f"cannot be read: expected text in UTF-8, but line {begins} is not; convert it."
            yield CsvRow(begins, cells, before + rows.line_num + 1, problem)

    def _other_width(self, row: CsvRow) -> str:
        return (
            f"expected line {row.line} to have {len(self.header)} values as the header has, but it has "
            f"{len(row.cells)}; mend it, or put quotes around texts that hold a {self.separator!r}."
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
