from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from dubio.training.errors import UnreadableData
from dubio.training.splits.timestamps import rank_times


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ([3, 1.5, 3, -2], [2, 1, 2, 0]),
        (["10", "9", "9.5"], [2, 0, 1]),  # not in the order of their digits
        ([2**60 + 1, 2**60], [1, 0]),
        (["1152921504606846977", "1152921504606846976"], [1, 0]),
        (["2026-02-01", "2025-12-31", "2026-01-31T12:00", "2026-01-31"], [3, 0, 2, 1]),
        (["2026-01-01T12:00+02:00", "2026-01-01T11:00+00:00"], [0, 1]),
        ([date(2026, 1, 2), datetime(2026, 1, 1, 5)], [1, 0]),
        ([datetime(2026, 1, 2, tzinfo=UTC)] * 2, [0, 0]),
    ],
)
def test_times_are_ranked(values: list[object], ranks: list[int]):
    assert rank_times(values, "when", str).tolist() == ranks


@pytest.mark.parametrize("bad", [None, "", "soon", "31/01/2026", float("nan"), "inf", True, 3, [1]])
def test_what_is_no_time_is_told_with_its_row(bad: object):
    with pytest.raises(UnreadableData, match="expected line 1, column 'when' to be a time"):
        rank_times(["2026-01-31", bad], "when", lambda row: f"line {row}")


def test_times_with_and_without_a_zone_cannot_be_compared():
    with pytest.raises(UnreadableData, match="with a time zone or all without"):
        rank_times(["2026-01-01T00:00", "2026-01-01T00:00+00:00"], "when", str)
