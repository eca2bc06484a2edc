"""Values by rows, taken apart and joined again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dubio.models import batched


@dataclass(frozen=True)
class Inner:
    array: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    several: tuple[Inner, ...]
    nothing: None
    empty: tuple[()]
    level: float
    kind: type


def _inner(rows: int) -> Inner:
    return Inner(np.arange(2 * rows).reshape(rows, 2), [str(row) for row in range(rows)])


WHOLE = Outer(_inner(5), (_inner(5), _inner(5)), None, (), 0.5, Inner)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Inner | Outer):
        return type(one) is type(other) and all(map(_same, vars(one).values(), vars(other).values()))
    return one == other


@pytest.mark.parametrize("sizes", [(5,), (1, 1, 1, 1, 1), (2, 0, 3)])
def test_parts_hold_their_rows_and_what_is_not_by_row_and_join_to_the_whole(sizes):
    ends = np.cumsum(sizes).tolist()
    parts = batched.split(WHOLE, [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)])
    assert len(parts) == len(sizes)
    for part, end, size in zip(parts, ends, sizes, strict=True):
        assert np.array_equal(part.inner.array, WHOLE.inner.array[end - size : end])
        assert part.several[1].names == WHOLE.several[1].names[end - size : end]
        assert (part.nothing, part.empty, part.level, part.kind) == (None, (), 0.5, Inner)
    assert _same(batched.join(parts), WHOLE)


def test_no_parts_are_nothing():
    assert batched.split(WHOLE, []) == []
