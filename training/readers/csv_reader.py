"""A table's file, CSV or Parquet: a frame, and where each of its rows is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl

from dubio.models.errors import InvalidInput
from dubio.models.inputs.csv_rows import CsvRows
from dubio.models.inputs.names import tidy
from dubio.training.errors import UnreadableData
from dubio.training.options import typed, typed_list
from dubio.training.readers.look_alikes import refuse_look_alikes
from dubio.training.readers.number_format import NumberFormat
from dubio.training.splits import timestamps

# What stands for a missing value, beside nothing and NaN among numbers.
MISSING = ("NA", "N/A", "<NA>", "NaN", "nan", "NAN", "null", "NULL", "None", "?")
_CHUNK = 20_000  # rows that are taken in at a time
_RECURRING = 10  # so many values at least say whether names recur
_LARGEST = float(np.finfo(np.float32).max)


class TableFile:
    """Reads a file once. A column of a CSV file is one of numbers if all that is there reads as such.

    Args:
        path: The file.
        separator: Of a CSV file; by default a comma, and a tab if its name ends in .tsv.
        names: Columns that hold names even if they look like numbers: 08001 is not 8001.
        numbers: How a CSV file writes numbers.
        missing: Texts that stand for a missing value.

    Attributes:
        frame: Numbers, or texts without blanks around them; null where a value is missing.
        cells: What was read, as it was written.

    Raises:
        UnreadableData: If the file is no table, or it has no rows.
    """

    def __init__(
        self,
        path: Path,
        separator: str | None = None,
        names: Sequence[str] = (),
        numbers: NumberFormat | None = None,
        missing: Sequence[str] = MISSING,
    ) -> None:
        self.path, self.numbers, self._names = path, numbers or NumberFormat(), frozenset(names)
        self._lines: list[int] | None = None
        try:
            if path.suffix.lower() == ".parquet":
                self.cells = pl.read_parquet(path).with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
            elif path.suffix.lower() in {".csv", ".tsv", ".txt"}:
                self.cells, self._lines = _read(path, separator)
            else:
                raise UnreadableData(f"{path}: expected a .csv or .parquet file; rename or convert it.")
        except (pl.exceptions.PolarsError, OSError) as error:
            cause = str(error).split("\n")[0].rstrip(".")
            raise UnreadableData(f"{path}: cannot be read: {cause}.") from error
        _check_header(path, self.cells.columns)
        self.cells.columns = list(map(tidy, self.cells.columns))
        if not len(self.cells):
            raise UnreadableData(f"{path}: expected rows, but it has none.")
        holes = pl.Series(["", *map(tidy, missing)])
        self.frame = self.cells.select(self._typed(column, holes) for column in self.cells)

    def at(self, row: int) -> str:
        """Where a row is, as an editor counts lines; the header of a CSV file is line 1."""
        return f"row {row}" if self._lines is None else f"line {self._lines[row]}"

    def refuse_what_no_network_learns(
        self, column: str, ignored: Sequence[str] = (), categorical: Sequence[str] = ()
    ) -> None:
        """Refuses numbers that are not finite, numbers that would become names, and names that hardly recur.

        A slip, a unit or a decimal comma would otherwise turn a column of numbers into one of names, and a column of
        identifiers into one number a row. Columns that were said to hold names may hold any.

        Args:
            column: Its name.
            ignored: Columns that are left out already.
            categorical: Columns that were said to hold names.

        Raises:
            UnreadableData: If there are such; it names the first.
        """
        values = self.frame[column]
        if values.dtype.is_numeric():
            for row in (values.cast(pl.Float64).abs() > _LARGEST).arg_true()[:1]:
                cure = "mend it, leave the row out, or list it under `data.init_args.missing`"
                self._refuse(column, "finite numbers of 32 bits", f"{self._shows(column, row)}; {cure}")
        leave_out = typed_list("ignore", [*ignored, column])
        named = f"if these are names, say so with {typed_list('categorical', [*categorical, column])}"
        if values.dtype in (pl.Date, pl.Datetime):
            self._refuse_dates(column, values.is_not_null(), leave_out)
        if values.dtype != pl.String:
            return
        rule = f"{self.path}: expected column {column!r} to"
        refuse_look_alikes(rule, dict(self.spellings(column)), "name", "write it one way")
        if column in self._names:
            return
        there = values.drop_nulls()
        distinct = there.unique()
        if any(2 * int(self.numbers.dates(each).sum()) > len(each) for each in (there, distinct)):
            self._refuse_dates(column, self.numbers.dates(values), leave_out)
        if any(2 * int(self.numbers.resembles(each).sum()) > len(each) for each in (there, distinct)):
            cure = f"or leave the column out with {leave_out}; {named}"
            self._refuse(column, "numbers or names", f"{self._first_slip(column, values)}; {cure}")
        if len(there) >= _RECURRING and 2 * len(distinct) > len(there):
            first = int(values.is_not_null().arg_true()[0])
            cure = f"leave it out with {leave_out}, or read texts with dubio.training.Text"
            facts = f"of its {len(there)} values {len(distinct)} are different, and {self._shows(column, first)}"
            self._refuse(column, "numbers, or names that recur", f"{facts}; {cure}; {named}")

    def read_numbers(self, column: str) -> list[float | None]:
        """The values of a column that is known to hold numbers; None where one is missing.

        Raises:
            UnreadableData: If there is another value; it names the first.
        """
        values = self.frame[column]
        numbers = pl.Series([None] * len(values), dtype=pl.Float64)
        if values.dtype.is_numeric():
            numbers = values.cast(pl.Float64)
        elif values.dtype == pl.String:
            numbers = self.numbers.read(values)
        wrong = (values.is_not_null() & numbers.is_null()) | (numbers.abs() > _LARGEST).fill_null(False)
        for row in wrong.arg_true()[:1]:
            value, cure = values[row], "mend it"
            if isinstance(value, str):
                cure = self.numbers.cure(value, values.drop_nulls(), learned=True)
            told = f"the text {value[:40]!r}" if isinstance(value, str) else str(value)
            raise UnreadableData(
                f"{self.path}: expected {self.at(row)}, column {column!r} to be a finite number, as it was in the fit, "
                f"but got {told}; {cure}; or leave the row out."
            )
        return numbers.fill_nan(None).to_list()

    def _first_slip(self, column: str, values: pl.Series) -> str:
        """Where the first text is that is no number, and what to do about it."""
        numbers = self.numbers.read(values)
        slips = (values.is_not_null() & numbers.is_null()).arg_true()
        if self._lines is None:
            row = int(slips[0]) if len(slips) else int(values.is_not_null().arg_true()[0])
            return f"most of its texts look like numbers, and {self._shows(column, row)}; make them numbers in the file"
        row = int(slips[0])
        most = "are" if 2 * int(numbers.is_not_null().sum()) > values.is_not_null().sum() else "look like"
        facts = f"most of its values {most} numbers, and {self._shows(column, row)}"
        return f"{facts}; {self.numbers.cure(values[row], values.drop_nulls())}"

    def _refuse_dates(self, column: str, dates: pl.Series, leave_out: str) -> None:
        for row in dates.arg_true()[:1]:
            facts = f"most of its values are dates, and {self._shows(column, row)}"
            cure = timestamps.cure(self.frame[column][row], column, leave_out)
            self._refuse(column, "numbers or names", f"{facts}; {cure}")

    def _shows(self, column: str, row: int) -> str:
        return f"{self.at(row)} has {str(self.cells[column][row])[:40]!r}"

    def _refuse(self, column: str, expected: str, facts: str) -> NoReturn:
        raise UnreadableData(f"{self.path}: expected column {column!r} to hold {expected}, but {facts}.")

    def spellings(self, column: str) -> Iterator[tuple[str, str]]:
        """Each way that a name of a column is written, and where first."""
        there = self.frame[column].is_not_null()
        frame = self.cells[column].to_frame("name").with_row_index("row").filter(there)
        first = frame.group_by("name", maintain_order=True).agg(pl.col("row").first())
        return ((name, self.at(row)) for name, row in first.rows())

    def _typed(self, cells: pl.Series, holes: pl.Series) -> pl.Series:
        if cells.dtype != pl.String:
            return cells.fill_nan(None) if cells.dtype.is_float() else cells
        texts = cells.str.strip_chars()
        foreign = texts.filter(texts.str.len_bytes() != texts.str.len_chars()).unique().to_list()
        texts = texts.replace(foreign, list(map(tidy, foreign))) if foreign else texts
        texts = texts.set(texts.is_in(holes.implode()).fill_null(False), None)
        if self._lines is None or cells.name in self._names or texts.null_count() == len(texts):
            return texts
        numbers = self.numbers.read(texts)
        if numbers.null_count() > texts.null_count():
            return texts
        whole = self.numbers.read_whole(texts)
        return (numbers.fill_nan(None) if whole is None else whole).alias(cells.name)


def read_rows(path: Path, separator: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """The header of a CSV file, then its rows, each with the line on which it begins; blank lines are left out.

    Rows may be longer than a line where a text is quoted.

    Args:
        path: The file.
        separator: Between the values; by default a comma, and a tab if the file's name ends in .tsv.

    Raises:
        UnreadableData: If it is no text in UTF-8, quotes do not match, two columns have one name or look so, or a row
            has more or fewer values than the header.
    """
    try:
        rows = CsvRows(path, separator)
    except InvalidInput as error:
        raise UnreadableData(f"{path}: {error}") from error
    _refuse_another_separator(path, rows.header, rows.separator)
    _check_header(path, rows.header)
    yield 1, rows.header
    for row in rows.read():
        if row.problem is not None:
            raise UnreadableData(f"{path}: {row.problem}")
        yield row.line, row.cells


def _read(path: Path, separator: str | None) -> tuple[pl.DataFrame, list[int]]:
    rows = read_rows(path, separator)
    _, header = next(rows)
    schema = dict.fromkeys(header, pl.String)
    lines: list[int] = []
    chunks = [pl.DataFrame(schema=schema)]
    while chunk := list(islice(rows, _CHUNK)):
        lines.extend(line for line, _ in chunk)
        columns = zip(*(row for _, row in chunk), strict=True)
        chunks.append(pl.DataFrame(dict(zip(header, columns, strict=True)), schema=schema))
    return pl.concat(chunks, rechunk=True), lines


def _refuse_another_separator(path: Path, header: Sequence[str], separator: str) -> None:
    others = [each for each in (";", "\t", ",", "|") if each != separator and each in header[0]]
    if len(header) == 1 and others:
        raise UnreadableData(
            f"{path}: expected names of columns with {separator!r} between them, but got one name that holds "
            f"{others[0]!r}: {header[0][:60]!r}; set {typed('separator', others[0])}."
        )


def _check_header(path: Path, header: Sequence[str]) -> None:
    tidied = list(map(tidy, header))
    for name in tidied:
        if tidied.count(name) > 1:
            raise UnreadableData(
                f"{path}: expected every column to have a name of its own, but {tidied.count(name)} are called "
                f"{name[:40]!r}; rename them."
            )
    where = {name: f"column {number}" for number, name in enumerate(header, start=1)}
    refuse_look_alikes(f"{path}: expected columns to", where, "column", "rename one")
