"""A table's file, CSV or Parquet: a frame, and where each of its rows is."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dubio.training.errors import UnreadableData

# What stands for a missing value in a CSV file.
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]


class TableFile:
    """Reads a file once.

    Args:
        path: The file.
        separator: Of a CSV file.
        names: Columns of whole numbers that are names: of a CSV file they keep their zeros, 08001 is not 8001.

    Raises:
        UnreadableData: If the file is no table, or it has no rows.
    """

    def __init__(self, path: Path, separator: str, names: Sequence[str] = ()) -> None:
        self.path = path
        self._lines: list[int] | None = None
        try:
            if path.suffix == ".parquet":
                self.frame = pl.read_parquet(path)
            elif path.suffix in {".csv", ".tsv", ".txt"}:
                self._lines = self._walk(separator)
                self.frame = self._csv(separator, names)
            else:
                raise UnreadableData(f"{path}: expected a .csv or .parquet file; rename or convert it.")
        except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, csv.Error) as error:
            cause = str(error).split("\n")[0].rstrip(".")
            raise UnreadableData(f"{path}: cannot be read: {cause}.") from error
        if self._lines is not None and len(self._lines) != len(self.frame):
            raise UnreadableData(f"{path}: cannot be read: its quotes do not match.")
        if not len(self.frame):
            raise UnreadableData(f"{path}: expected rows, but it has none.")

    def at(self, row: int) -> str:
        """Where a row is, as an editor counts lines; the header of a CSV file is line 1."""
        return f"row {row}" if self._lines is None else f"line {self._lines[row]}"

    def refuse_text_among_numbers(self, column: str) -> None:
        """Refuses texts among numbers: one slip would turn a column of numbers into one of names.

        Raises:
            UnreadableData: If there are some; it names the first.
        """
        values = self.frame[column]
        if self._lines is None or values.dtype != pl.String:
            return  # a Parquet file says itself what a column holds
        there = values.is_not_null()
        like = values.str.strip_chars().cast(pl.Float64, strict=False).is_not_null()
        typos = (there & values.cast(pl.Float64, strict=False).is_null()).arg_true()
        if 2 * int(like.sum()) > int(there.sum()) and len(typos):
            row = int(typos[0])
            raise UnreadableData(
                f"{self.path}: expected column {column!r} to hold numbers or names, but most of its values are numbers "
                f"and {self.at(row)} has {str(values[row])[:40]!r}; mend it, or put the column into "
                "`data.init_args.categorical`."
            )

    def _csv(self, separator: str, names: Sequence[str]) -> pl.DataFrame:
        how: dict[str, Any] = {"separator": separator, "infer_schema_length": None, "null_values": MISSING}
        frame = pl.read_csv(self.path, try_parse_dates=True, **how)
        texts = [name for name in names if name in frame.columns and frame[name].dtype.is_integer()]
        if not texts:
            return frame
        kept = pl.read_csv(self.path, columns=texts, schema_overrides=dict.fromkeys(texts, pl.String), **how)
        return frame.with_columns(*(kept[name] for name in texts))

    def _walk(self, separator: str) -> list[int]:
        """The line on which each row begins; rows may be longer than a line where a text is quoted."""
        lines = []
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=separator)
            header = next(rows, [])
            for name, count in Counter(header).items():
                if count > 1:
                    raise UnreadableData(
                        f"{self.path}: expected every column to have a name of its own, but {count} are called "
                        f"{name[:40]!r}; rename them."
                    )
            begins = rows.line_num + 1
            for row in rows:
                if len(row) != len(header):
                    raise UnreadableData(
                        f"{self.path}: expected line {begins} to have {len(header)} values as the header has, but it "
                        f"has {len(row)}; mend it, or put quotes around texts that hold a {separator!r}."
                    )
                lines.append(begins)
                begins = rows.line_num + 1
        return lines
