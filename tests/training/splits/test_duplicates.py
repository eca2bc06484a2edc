"""Exact duplicates across splits: counted, told, and left out where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dubio.training import Digits
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import InvalidSplit
from dubio.training.splits import duplicates
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.division import digests
from dubio.training.splits.random_splits import SPLITS


class Repeating(TensorDataModule):
    """Row numbers: calibration repeats two of training, and test one of these and one that select has twice."""

    title = "repeating"
    numbers = (
        ("test", [3, 21, 40, 41]),
        ("train", [0, 1, 2, 3, 4, 4]),
        ("validation", [10, 11]),
        ("select", [20, 21, 21]),
        ("calibration", [3, 30, 2, 31]),
    )

    def read(self) -> Dataset:
        splits = {
            name: Examples(np.array(numbers, dtype=np.float32)[:, None], np.arange(len(numbers)) % 2)
            for name, numbers in self.numbers
        }
        return Dataset.of_numbers(splits, ("a", "b"))


def test_they_are_counted_where_a_split_before_has_them():
    repeats = duplicates.repeated({name: digests(each.x) for name, each in Repeating().splits.items()})
    assert list(repeats) == list(SPLITS)
    assert {name: rows.nonzero()[0].tolist() for name, rows in repeats.items()} == {
        "train": [],
        "validation": [],
        "select": [],
        "calibration": [0, 2],
        "test": [0, 1],
    }
    told = duplicates.told(Repeating().division)
    assert told.startswith("4 of 13 held-out rows are exact duplicates")
    assert "(calibration 2, test 2)" in told
    assert "`data.init_args.duplicates: drop`" in told


def test_where_it_is_asked_for_only_the_first_of_them_stays():
    with pytest.raises(InvalidSplit, match="without the 2 duplicates the calibration split has no row of class 'a'"):
        Repeating(duplicates="drop").setup()
    data = Repeating(duplicates="drop")
    data.numbers = (*Repeating.numbers[:4], ("calibration", [3, 30, 31, 2]), ("test", [40, 41, 3, 21]))
    assert [data.raw(name)[0].flatten().tolist() for name in SPLITS] == [
        [0, 1, 2, 3, 4, 4],
        [10, 11],
        [20, 21, 21],
        [30, 31],
        [40, 41],
    ]
    assert data.raw("calibration")[1].tolist() == [1, 0]
    assert duplicates.told(data.division) is None


def test_nothing_is_told_where_there_are_none(digits: Digits):
    assert duplicates.told(digits.division) is None
