"""Columns that look like identifiers: they number or name the rows of a file, and say nothing about new ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from dubio.training.options import typed, typed_list

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
            facts, role = rare_names(values), "group"
        else:
            facts, role = numbers(values)
        if facts is None:
            continue
        if role == "group" and group is None:
            cures.append(f"keep rows that share it in one split with {typed('group', name)}")
        if role == "time" and time is None:
            cures.append(f"divide the rows by it, if it is a time, with {typed('time', name)}")
        found.append(f"column {name!r} holds {facts}; {', or '.join(cures)}.")
    return found


def numbers(values: pl.Series) -> tuple[str | None, str]:
    """How whole numbers identify rows, and what else they may be good for, `time` or `group`; None if they do not."""
    whole = _whole(values)
    if whole is None:
        return None, ""
    rows, steps = len(whole), whole.diff().drop_nulls()
    if steps[0] != 0 and (steps == steps[0]).all():
        first = ", ".join(map(str, whole[:3].to_list()))
        return f"{first}, ... in the order of the rows (a row number?)", ""
    if (steps > 0).all():
        return "whole numbers that rise from row to row (a row number, or a time?)", "time"
    if (steps >= 0).all():
        distinct = whole.n_unique()
        facts = f"{distinct} whole numbers in {rows} rows, which never fall from row to row (an identifier?)"
        return facts if _RARE * distinct >= rows else None, "group"
    low, high = int(whole.min()), int(whole.max())  # type: ignore[arg-type]  # of integers
    size = high - low + 1
    if size < rows or rows * (rows - 1) / 2 < _PAIRS * size or whole.n_unique() < rows:
        return None, ""
    return f"{rows} whole numbers from {low} to {high}, each of them once (an identifier?)", ""


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
