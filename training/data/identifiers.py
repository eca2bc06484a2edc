"""Columns that look like identifiers: they number or name the rows of a file, and say nothing about new ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from dubio.training.data.options import typed, typed_list

# Fewer numbers may be in order, or different, by chance.
_LEAST = 15
# Random numbers of a range would form so many equal pairs on average where an identifier forms none: by chance that
# happens once in a thousand columns (exp(-7)). 800 different numbers need a range of fewer than 45,000 for it.
_PAIRS = 7
# Of rows with a name that no more of them have, the training rows are three, and the held-out ones two, on average.
_RARE = 5
# Fewer names are a classification of the rows, however few these are.
_NAMES = 10
_OFTEN = {1: "once", 2: "once or twice"}


def find(
    frame: pl.DataFrame,
    names: Collection[str],
    ignored: Sequence[str] = (),
    group: str | None = None,
    time: str | None = None,
) -> list[str]:
    """What is odd about columns that a network is to see, with the cure: a line for each that is.

    Args:
        frame: The columns, in the order of the rows.
        names: Columns that hold names, whatever they look like.
        ignored: Columns that are left out already.
        group: Of the groups of rows, if there are such.
        time: Of the times of rows, if there are such.
    """
    found = []
    for values in frame:
        name = values.name
        cures = [f"leave it out with {typed_list('ignore', [*ignored, name])}"]
        if name in names:
            facts = common = rare_names(values)
        else:
            common = blocks(values)
            facts = counted(values) or risen(values) or common or keys(values)
        if facts is None:
            continue
        if facts == common and group is None:
            cures.append(f"keep rows that share it in one split with {typed('group', name)}")
        if facts == risen(values) and time is None:
            cures.append(f"divide the rows by it, if it is a time, with {typed('time', name)}")
        found.append(f"column {name!r} holds {facts}; {', or '.join(cures)}.")
    return found


def counted(values: pl.Series) -> str | None:
    """That numbers count the rows, in steps of any size; None if they do not."""
    whole = _whole(values)
    steps = None if whole is None else whole.diff().drop_nulls()
    if whole is None or steps is None or steps[0] == 0 or steps.n_unique() > 1:
        return None
    return f"{', '.join(map(str, whole[:3].to_list()))}, ... in the order of the rows (a row number?)"


def risen(values: pl.Series) -> str | None:
    """That whole numbers rise from row to row."""
    whole = _whole(values)
    if whole is None or not (whole.diff().drop_nulls() > 0).all():
        return None
    return "whole numbers that rise from row to row (a row number, or a time?)"


def blocks(values: pl.Series) -> str | None:
    """That whole numbers never fall from row to row, and each is in a few rows, which follow each other."""
    whole = _whole(values)
    if whole is None or not (whole.diff().drop_nulls() >= 0).all() or _RARE * whole.n_unique() < len(whole):
        return None
    return f"{whole.n_unique()} whole numbers in {len(whole)} rows, which never fall from row to row (an identifier?)"


def keys(values: pl.Series) -> str | None:
    """That whole numbers are all different, though their range is so small that measurements would repeat."""
    whole = _whole(values)
    if whole is None or whole.n_unique() < len(whole):
        return None
    low, high = int(whole.min()), int(whole.max())  # type: ignore[arg-type]  # of integers
    if len(whole) * (len(whole) - 1) / 2 < _PAIRS * (high - low + 1):
        return None
    return f"{len(whole)} whole numbers from {low} to {high}, each of them once (an identifier?)"


def rare_names(values: pl.Series) -> str | None:
    """That most rows have a name that few others have."""
    counts = values.drop_nulls().value_counts(name="rows")["rows"]
    rows = int(counts.sum())
    if len(counts) < _NAMES or 2 * int(counts.filter(counts <= _RARE).sum()) <= rows:
        return None
    usual = next(often for often in range(1, rows + 1) if 2 * int((counts <= often).sum()) > len(counts))
    return f"{len(counts)} names in {rows} rows, so most occur {_OFTEN.get(usual, f'at most {usual} times')}"


def _whole(values: pl.Series) -> pl.Series | None:
    """The numbers as integers; None if there are few, some are missing, or some are no whole numbers."""
    if not values.dtype.is_numeric() or len(values) < _LEAST or values.null_count():
        return None
    whole = values.cast(pl.Int64, strict=False)
    return whole if not whole.null_count() and (whole == values).all() else None
