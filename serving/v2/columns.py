"""The rows of a table as one tensor a column, which is how data frames are sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.models.errors import did_you_mean
from dubio.models.inputs.names import tidy
from dubio.models.inputs.tabular import Table
from dubio.serving.errors import InvalidRequest
from dubio.serving.v2.elements import read_elements
from dubio.serving.v2.schema import RequestInput

_MOST_NAMED = 5


def name_columns(tensors: Sequence[RequestInput], table: Table, model: str) -> list[str]:
    """Which column each tensor is, in their order.

    Names are read as those of a file's columns are: without blanks and invisible characters around them.

    Raises:
        InvalidRequest: A column that is unknown, comes twice or is absent.
    """
    names = [tensor.name if tensor.name in table.columns else tidy(tensor.name) for tensor in tensors]
    known: set[str] = set()
    for name in names:
        if name not in table.columns:
            cure = did_you_mean(name, table.columns, f"its columns: {_some(list(table.columns))}.")
            raise InvalidRequest(f"unexpected inference input {name[:100]!r} for model {model!r}; {cure}")
        if name in known:
            raise InvalidRequest(f"input {name[:100]!r} already given for model {model!r}; send each column once.")
        known.add(name)
    absent = [name for name in table.columns if name not in known]
    if absent:
        raise InvalidRequest(
            f"expected {len(table.columns)} inputs but got {len(names)} inputs for model {model!r}: {_some(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} absent; {table.cure_of_absent(absent, 'null, or NaN in binary,')}"
        )
    return names


def read_columns(
    tensors: Sequence[RequestInput], raw: Sequence[memoryview | None], names: Sequence[str], table: Table
) -> tuple[NDArray[np.float32], Callable[[int], dict[str, Any]]]:
    """The numbers [B, F] of a table's rows, read as rows of named values are, and each of these by its number.

    Args:
        tensors: One a column, of checked datatypes and of as many elements each.
        raw: The bytes of each; None if its data are in the JSON.
        names: Of the columns.
        table: Reads values.

    Raises:
        InvalidRequest: Elements that are not of their datatype.
        InvalidInput: A value that does not fit its column.
    """
    values: dict[str, list[Any]] = {
        name: read_elements(tensor, part) for name, tensor, part in zip(names, tensors, raw, strict=True)
    }
    inputs = table.encode(values, lambda row, name: f"row {row} of input {name[:100]!r}")
    return inputs, lambda row: {name: column[row] for name, column in values.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(repr(name[:40]) for name in names[:_MOST_NAMED]) + more
