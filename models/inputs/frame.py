"""What people keep rows in: a data frame of pandas or polars, or one row alone. Neither library is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from dubio.models.errors import InvalidInput
from dubio.models.inputs import numbers
from dubio.models.inputs.names import tidy
from dubio.models.inputs.reader import Reader
from dubio.models.inputs.tabular import Column, NumericColumn, Table


def rows(x: Any, reader: Reader | None = None) -> Any:
    """A frame, a single row, a column of texts or a single text as a list; anything else as it is.

    A cell of a frame that is missing, which pandas may write as NaN, becomes None, as a table's reader takes it. A
    column of numbers becomes one of texts as soon as one of its cells has a word for a missing value; its texts are
    read as those of a file are.

    Args:
        x: What was given as inputs.
        reader: Of the model.

    Raises:
        InvalidInput: If a text stands in a column of numbers that is neither a number nor such a word.
    """
    if isinstance(x, Mapping | str):
        return [x]
    if hasattr(x, "collect") and not hasattr(x, "to_dicts"):  # a query of polars
        x = x.collect()
    found = _records(x, isinstance(reader, Table))
    if found is None:
        return x.tolist() if isinstance(x, np.ndarray) and x.dtype.kind in "OU" else x
    if found and not isinstance(found[0], Mapping):
        return found
    if not isinstance(reader, Table) and found and len(found[0]) == 1:  # one column: of texts
        return [cell for row in found for cell in row.values()]
    table = reader if isinstance(reader, Table) else Table(())
    columns = {name: table.columns.get(tidy(str(name))) for name in found[0]} if found else {}
    return [
        {name: read_cell(cell, columns[name], table, row) for name, cell in cells.items()}
        for row, cells in enumerate(found)
    ]


def _records(x: Any, is_table: bool) -> list[Any] | None:
    """The rows of a frame by column, or the values of one of its columns; None for what is neither."""
    if hasattr(x, "to_dicts"):  # polars
        return list(x.to_dicts())
    if hasattr(x, "notna") and hasattr(x, "to_dict"):  # pandas, whose NA compares with nothing
        held = x.astype(object).where(x.notna(), None)
        if x.ndim == 2:
            return list(held.to_dict("records"))
        return [held.to_dict()] if is_table else list(held.tolist())  # a row of a frame, or a column
    return list(x.to_list()) if hasattr(x, "to_list") else None  # a column of polars


def read_cell(cell: Any, column: Column | None, table: Table, row: int) -> Any:
    """A cell as JSON would bring it.

    Args:
        cell: The value.
        column: Of the table; None for one that it does not have.
        table: Whose words for a missing value are read as such.
        row: Its number, for messages.

    Raises:
        InvalidInput: As `rows`.
    """
    if isinstance(cell, np.generic | Decimal):
        cell = float(cell) if isinstance(cell, Decimal) else cell.item()
    if isinstance(cell, str) and isinstance(column, NumericColumn):
        cell = _number(cell, column, table, row)
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _number(cell: str, column: NumericColumn, table: Table, row: int) -> float | None:
    text = tidy(cell)
    number = None if text in table.missing else numbers.read(text)
    if number is None and text not in table.missing:
        words = ", ".join(map(repr, sorted(table.missing - {""}, key=lambda word: (not word.isalpha(), word))[:5]))
        holes = f", or as what stands for a missing value ({words})" if words else ""
        raise InvalidInput(
            f"Expected row {row}, column {column.name!r} to be a number, but got the text {cell[:40]!r}; write it as a "
            f"number such as {column.example:.6g}, with a decimal point and without a unit{holes}."
        )
    return number
