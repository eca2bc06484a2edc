from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable

import pytest

from dubio.models.inputs.names import category, look, tidy


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((True, "true", "True", "TRUE", " true "), "true"),
        ((False, "false", "False", "fALSE"), "false"),
        ((1, 1.0, "1", "1.0", "+1", " 1.00 "), "1"),
        ((-1, -1.0, "-1", "-1.0"), "-1"),
        ((1.5, "1.5"), "1.5"),
        (("08001", "08001 "), "08001"),
        (("red", " red", "red\t", "\u00a0red", "\ufeffred", "red\u200b"), "red"),
        (("Z\u00fcrich", "Zu\u0308rich"), "Z\u00fcrich"),
        (("None",), "None"),
        (("t",), "t"),
        (("1.10",), "1.10"),
    ],
)
def test_what_means_one_name_is_read_as_one(values: tuple[object, ...], name: str):
    assert {category(value) for value in values} == {name}


@pytest.mark.parametrize("value", ["", "  ", "\u200b", None, [], {}, math.nan, math.inf, 2**70])
def test_what_is_no_name_is_none(value: object):
    assert category(value) is None


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a ", " A", "a\u00a0", "a\u200b", "\uff41"),
        ("No", "no", "NO"),
        ("Z\u00fcrich", "Zu\u0308rich"),
        ("New York", "new  york", "New\u00a0York"),
        ("co-op", "co\u00ad-op"),
    ],
)
def test_names_that_a_reader_cannot_tell_apart_look_the_same(names: tuple[str, ...]):
    assert len({look(name) for name in names}) == 1


def test_names_that_differ_look_different():
    names = ["a", "b", "a b", "ab", "1", "10", "Z\u00fcrich", "Zurich", "\u6e29", "\u5bd2"]
    assert len({look(name) for name in names}) == len(names)
    assert tidy("\u200b x y\u3000") == "x y"


@pytest.mark.parametrize("read", [tidy, look], ids=["tidy", "look"])
def test_piled_up_marks_take_no_more_than_other_characters(read: Callable[[str], str]) -> None:
    """Python sorts them in quadratic time: these would take two hours, in which nothing else could run."""
    piled = "a" + "\u0301\u0316" * 2**20
    assert read(piled) == piled
    marks = "\u0316\u0301" * 15
    assert read(f" e{marks} ") == unicodedata.normalize("NFC", f"e{marks}")
