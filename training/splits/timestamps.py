"""Times of rows, as integers that have the same order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime

import numpy as np

from dubio.training.errors import UnreadableData
from dubio.training.options import typed
from dubio.training.splits.random_splits import IntArray


def rank_times(values: Sequence[object], column: str, at: Callable[[int], str]) -> IntArray:
    """The rank of each time among those that occur, from 0.

    Args:
        values: One a row: numbers, dates, or ISO 8601 texts, all of one kind.
        column: Its name, for messages.
        at: Says where a row is.

    Raises:
        UnreadableData: If a value is missing or no time, or they cannot be compared.
    """
    times = [_time(value) for value in values]
    for row, time in enumerate(times):
        if time is None or isinstance(time, datetime) is not isinstance(times[0], datetime):
            raise UnreadableData(
                f"expected {at(row)}, column {column!r} to be a time (a number, or a date such as 2026-01-31 or "
                f"2026-01-31T12:00, as in the other rows), but got {str(values[row])[:40]!r}; mend it, or leave the "
                "row out."
            )
    try:
        ranks = {time: rank for rank, time in enumerate(sorted(set(times)))}  # type: ignore[type-var]
    except TypeError as error:
        raise UnreadableData(
            f"expected the times of column {column!r} all with a time zone or all without, but got both; convert them."
        ) from error
    return np.array([ranks[time] for time in times], dtype=np.int64)


def cure(value: object, column: str, leave_out: str) -> str:
    """What to do about a column of times that a network would see.

    Args:
        value: One of them.
        column: Its name.
        leave_out: How to leave it out.
    """
    form = "" if isinstance(_time(value), datetime) else ", written as 2026-01-31 or 2026-01-31T12:00"
    return (
        f"divide the rows by it with {typed('time', column)}{form}; or leave it out with {leave_out}; or turn it into "
        "numbers, such as days since the first"
    )


def _time(value: object) -> float | datetime | None:
    """A number, an int as it is (nanoseconds since 1970 have more digits than a float keeps), or a date with time."""
    if isinstance(value, str):
        value = _read(value.strip())
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    return value if isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) else None


def _read(text: str) -> float | datetime | None:
    for read in (int, float, datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None
