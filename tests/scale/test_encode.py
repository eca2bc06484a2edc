from __future__ import annotations

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.encode import Encoder

NUMBERS = InputSpec(kind="numbers", shape=(5,), mean=(0.0,) * 5, std=(1.0,) * 5, low=-1, high=1)
IMAGES = InputSpec(kind="image", shape=(1, 2, 2), mean=(0.0,), std=(1.0,), low=0, high=255)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2, 3, 4, True], "Expected numbers, but got true among them."),
        ([1, 2, 3, 4, "5"], "Expected numbers, but got the text '5' among them."),
        ([1, 2, 3, 4, None], "Expected numbers, but got null among them."),
        ([1, 2, 3, 4], "Expected an input to have shape [5], but got [4]."),
        ([1, 2, 3, [4, 5]], "Expected lists of equal length, but they are not."),
        ([1, 2, 3, 4, 10**400], "Expected numbers that a float can hold, but one of them is larger."),
        ("1,2,3,4,5", "Expected a list of numbers, but got the text '1,2,3,4,5'."),
        (None, "Expected a list of numbers, but got null."),
        (np.array([True] * 5), "Expected numbers, but got values of type bool."),
    ],
)
def test_what_is_no_row_of_numbers_is_told_and_the_others_are_read(value: object, said: str):
    x = np.empty(3, dtype=object)
    x[:] = [value, [0.5, 1, 2, 3, 4], np.arange(5)]
    errors: list[str | None] = [None] * 3
    raw = Encoder(NUMBERS).read({"x": x}, errors)
    assert errors == [said, None, None]
    assert raw.tolist() == [[0.5, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_what_was_found_bad_before_is_not_read():
    errors = ["told already", None]
    raw = Encoder(NUMBERS).read({"x": np.array([[np.nan] * 5, [1.0] * 5])}, errors)
    assert errors == ["told already", None]
    assert raw.tolist() == [[1.0] * 5]
    assert Encoder(NUMBERS).read({"x": np.zeros((1, 5))}, ["bad"]).shape == (0, 5)


@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (3, 2, 2), (3, 4)])
def test_images_may_be_flat_or_without_their_axis_of_one_channel(shape: tuple[int, ...]):
    x = np.arange(12).reshape(shape)
    assert Encoder(IMAGES).read({"x": x}, [None] * 3).tolist() == x.reshape(3, 1, 2, 2).tolist()


def test_a_column_may_be_called_otherwise():
    assert Encoder(NUMBERS, "inputs").names(["x", "inputs"]) == ("inputs",)
    assert Encoder(IMAGES).names(["bytes"]) == ("bytes",)
    assert Encoder(IMAGES).names(["bytes", "x"]) == ("x",)
    with pytest.raises(InvalidInput, match=r"Expected a column 'inputs', but there is none; did you mean `input`\?"):
        Encoder(NUMBERS, "inputs").names(["x", "input"])
