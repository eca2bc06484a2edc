from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1.instances import to_array

SHAPE = (1, 2, 3)
GOOD = [[[1, 2.5, 3], [4, 5, 6]]]


@pytest.mark.parametrize("instance", [GOOD, GOOD[0], [1, 2.5, 3, 4, 5, 6]], ids=["exact", "no channel", "flat"])
def test_every_accepted_form_is_the_same_input(instance: list) -> None:
    array = to_array([instance, GOOD], shape=SHAPE, max_rows=2)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([GOOD, GOOD], dtype=np.float32))


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4), min_size=1)
)
def test_numbers_arrive_exactly(rows: list[list[float]]) -> None:
    np.testing.assert_array_equal(to_array(rows, shape=(4,), max_rows=len(rows)), np.array(rows, dtype=np.float32))


@pytest.mark.parametrize(
    ("instances", "complaint"),
    [
        ("abc", "`instances` to be a list with one entry an instance, but got the string 'abc'"),
        (None, "but got null"),
        ({"a": 1}, "but got an object"),
        ([], "at least one instance, but it is empty"),
        ([GOOD, 7], "instances[1] to have shape [1, 2, 3], [2, 3] or [6], but got shape []"),
        ([GOOD, [1, 2]], "instances[1] to have shape [1, 2, 3], [2, 3] or [6], but got shape [2]"),
        ([[]], "but got shape [0]"),
        ([[[1, 2, 3], [4, 5]]], "instances[0] to be rectangular, but its lists on level 2 have 2 or 3 entries"),
        ([[[1, 2, 3], 4]], "instances[0] to be rectangular, but numbers and lists are mixed in it"),
        ([GOOD, [[1, 2, 3], [4, "5", 6]]], "instances[1][1][1] to be a number, but got the string '5'"),
        ([[1, 2, 3, 4, True, 6]], "instances[0][4] to be a number, but got a boolean"),
        ([[1, 2, None, 4, 5, 6]], "instances[0][2] to be a number, but got null"),
        ([{"x": 1}], "instances[0] to be a number, but got an object"),
        ([[[[[[[[[[1]]]]]]]]]], "nests more than 8 lists"),
        ([[1, 2, 3, 4, 5, -1e39]], "instances[0] holds -1e+39 at position 5"),
    ],
)
def test_what_is_no_input_is_refused_with_value_and_rule(instances: object, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(complaint)):
        to_array(instances, shape=SHAPE, max_rows=4)


def test_rows_are_bounded() -> None:
    with pytest.raises(TooManyRows, match="at most 2 instances, but got 3"):
        to_array([GOOD] * 3, shape=SHAPE, max_rows=2)


def test_long_strings_are_not_echoed_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_array([["x" * 10_000]], shape=(1,), max_rows=1)
    assert len(str(caught.value)) < 200
