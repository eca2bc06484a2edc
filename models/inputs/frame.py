"""What people keep rows in: a data frame of pandas or polars, or one row alone. Neither library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rows(x: Any) -> Any:
    """A frame, a single row or a single text as a list; anything else as it is.

    A cell that is missing, which pandas may write as NaN, becomes None, as a table's reader takes it.

    Args:
        x: What was given as inputs.
    """
    if isinstance(x, Mapping | str):
        return [x]
    if hasattr(x, "to_dicts"):  # polars
        found = x.to_dicts()
    elif hasattr(x, "notna") and hasattr(x, "to_dict"):  # pandas, whose NA compares with nothing
        found = x.astype(object).where(x.notna(), None).to_dict("records")
    else:
        return x
    return [
        {name: None if isinstance(cell, float) and cell != cell else cell for name, cell in row.items()}
        for row in found
    ]
