from __future__ import annotations

import re

import numpy as np
import pytest

from dubio.serving.errors import InvalidRequest
from dubio.serving.wire.arrays import flatten, to_float32

ACCEPTED = [(2, 3), (6,)]


@pytest.mark.parametrize("instance", [[[1, 2.5, 3], [4, 5, 6]], [1, 2.5, 3, 4, 5, 6]], ids=["nested", "flat"])
def test_numbers_come_in_row_major_order(instance: list) -> None:
    assert flatten(instance, where="x", accepted=ACCEPTED) == [1, 2.5, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("instance", "complaint"),
    [
        (7, "x to have shape [2, 3] or [6], but got the number 7"),
        ([1, 2], "x to have shape [2, 3] or [6], but got shape [2]"),
        ([[1, 2], [3, 4], [5, 6]], "but got shape [3, 2]"),
        ([], "but got shape [0]"),
        ([[]], "but got shape [1, 0]"),
        ([[1, 2, 3], [4, 5]], "x to be rectangular, but its lists on level 2 have 2 or 3 entries; shape [2, 3] or [6]"),
        ([[1, 2, 3], 4], "x to be rectangular, but numbers and lists are mixed in it"),
        ([[1, 2, 3], [4, "5", 6]], "x[1][1] to be a number, but got the string '5'"),
        ([1, 2, 3, 4, True, 6], "x[4] to be a number, but got a boolean"),
        ([1, 2, None, 4, 5, 6], "x[2] to be a number, but got null"),
        ({"y": 1}, "x to have shape [2, 3] or [6], but got an object"),
        ([[[[[[[[[1]]]]]]]]], "nests more than 8 lists"),
    ],
)
def test_what_is_no_input_is_refused_with_value_and_rule(instance: object, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(complaint)):
        flatten(instance, where="x", accepted=ACCEPTED)


def test_long_strings_are_not_echoed_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        flatten(["x" * 10_000], where="x", accepted=[(1,)])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float64, np.int64])
def test_numbers_of_any_kind_become_float32(kind: type) -> None:
    array = to_float32(np.array([[0, 1], [2, 100]], kind), where="x")
    assert array.dtype == np.float32
    assert array.tolist() == [[0, 1], [2, 100]]


def test_float32_is_not_copied() -> None:
    numbers = np.ones((2, 3), np.float32)
    assert np.shares_memory(to_float32(numbers, where="x"), numbers)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -3.5e38])
def test_the_number_that_is_not_finite_as_float32_is_named(value: float) -> None:
    numbers = np.zeros((3, 2, 4))
    numbers[1, 1, 2] = value
    numbers[2] = np.nan
    with pytest.raises(InvalidRequest, match=re.escape(f"row 1 holds {value!r} at position 6; send raw")):
        to_float32(numbers, where="x")


def test_the_largest_float32_is_one() -> None:
    largest = float(np.finfo(np.float32).max)
    assert to_float32(np.array([[largest, -largest]]), where="x").tolist() == [[largest, -largest]]
