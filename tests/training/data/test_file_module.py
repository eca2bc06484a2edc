from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubio.training.data.file_module import FileDataModule
from dubio.training.errors import DataUnavailable, InvalidSplit, TrainingError, UnreadableData
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SPLITS


class Memory(FileDataModule):
    """Rows that need no file."""

    def read(self) -> Dataset:
        labels, classes = self.encode_labels(np.array(["cat", "dog", "eel"] * 100), None, "the labels")
        examples = Examples(np.arange(600, dtype=np.float32).reshape(300, 2), labels)
        return Dataset.of_numbers(examples.divide(self.divide(labels, classes)), classes, self.scale)


def test_every_row_is_in_one_split_in_proportion_and_the_same_seed_divides_alike():
    data, again, other = Memory("x", seed=3), Memory("x", seed=3), Memory("x", seed=4)
    rows = np.concatenate([data.splits[name].x for name in SPLITS])
    assert sorted(rows[:, 0]) == list(range(0, 600, 2))
    assert [len(data.splits[name].x) for name in SPLITS] == [180, 24, 24, 36, 36]
    assert [np.bincount(data.splits[name].labels).tolist() for name in ("train", "test")] == [[60] * 3, [12] * 3]
    assert all(np.array_equal(data.splits[name].x, again.splits[name].x) for name in SPLITS)
    assert not np.array_equal(data.splits["train"].x, other.splits["train"].x)


def test_mean_and_std_are_those_of_the_training_rows_unless_they_are_given():
    data = Memory("x")
    np.testing.assert_allclose(data.input.mean, data.splits["train"].x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.input.std, data.splits["train"].x.std(0), rtol=1e-6)
    given = Memory("x", mean=1.0, std=(2.0, 4.0)).input
    assert (given.mean, given.std) == ((1.0, 1.0), (2.0, 4.0))
    with pytest.raises(TrainingError, match="both or neither"):
        Memory("x", mean=1.0)


def test_classes_are_named_by_what_occurs_or_as_given():
    data = Memory("x")
    assert data.classes == ("cat", "dog", "eel")
    labels, classes = data.encode_labels(np.array([2, 0, 1]), ["a", "b", "c"], "`y`")
    assert (labels.tolist(), classes) == ([2, 0, 1], ("a", "b", "c"))
    labels, classes = data.encode_labels(np.array(["b", "a"]), ["b", "a"], "`y`")
    assert (labels.tolist(), classes) == ([0, 1], ("b", "a"))
    assert data.classes == ("cat", "dog", "eel")  # whatever else was encoded


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        (np.array([0.5, 1.0]), None, r"to hold integers or names, but got float64\. Dubio classifies"),
        (np.array(["a", "b", "d"]), ["a", "b", "c"], "row 2 has d"),
        (np.array([0, 1, 3]), ["a", "b", "c"], "an integer from 0 to 2, one a class, but row 2 has 3"),
        (np.array([0, 1]), ["a", "b", "c"], "none of 'c'"),
        (np.array([0, 0]), None, "at least two classes"),
        (np.array([0, 1]), ["a", "a"], "a name of its own"),
        (np.array(["No", "yes", "no"]), None, "row 0 has the class 'No' and row 2 has 'no'; write it one way"),
        (np.array([1, 0]), ["a", "a "], "row 1 has the class 'a' and row 0 has 'a '"),
    ],
)
def test_labels_that_do_not_fit_are_told_with_their_row(values, given, message: str):
    with pytest.raises(UnreadableData, match=message):
        Memory("rows.x").encode_labels(values, given, "`y`")


def test_a_source_may_divide_itself():
    data = Memory("rows.x")
    labels, classes = data.encode_labels(np.array([0, 1] * 50), None, "`y`")
    own = np.repeat(np.array(SPLITS), 20)
    parts = data.divide(labels, classes, own)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        name: list(range(20 * index, 20 * index + 20)) for index, name in enumerate(SPLITS)
    }
    own[3] = "holdout"
    with pytest.raises(InvalidSplit, match="row 3 has 'holdout'"):
        data.divide(labels, classes, own)
    own[3] = "train"
    with pytest.raises(InvalidSplit, match="the select split has no row of class '1'"):
        data.divide(np.where(own == "select", 0, labels), classes, own)


def test_rows_that_say_their_split_leave_nothing_to_group_or_order():
    data, labels = Memory("x"), np.arange(100) % 2
    own = np.repeat(np.array(SPLITS), 20)
    for given in ({"groups": labels}, {"times": labels}):
        with pytest.raises(InvalidSplit, match="but got both: a column that says the split of each row"):
            data.divide(labels, ("a", "b"), own, **given)


def test_groups_are_a_caveat_of_the_promise_and_times_alone_are_none():
    data, labels = Memory("x"), np.arange(300) % 2
    data.divide(labels, ("a", "b"), times=np.arange(300))
    assert data.caveat is None
    parts = data.divide(labels, ("a", "b"), groups=np.arange(300) // 10)
    groups = len(set((parts["calibration"] // 10).tolist()))
    assert data.caveat.startswith(f"the {len(parts['calibration'])} calibration rows are of {groups} groups")


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"no such file; set `--data\.path` \(`data\.init_args\.path` in a"):
        Memory(str(tmp_path / "nothing.x")).file()
