from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from dubio.training.errors import InvalidSplit
from dubio.training.splits.random_splits import SPLITS, SplitFractions, split

FRACTIONS = {"train": 0.5, "validation": 0.1, "select": 0.1, "calibration": 0.15, "test": 0.15}
LABELS = np.repeat(np.arange(4), [400, 200, 100, 60])
SIZES = SplitFractions(**FRACTIONS).counts(len(LABELS))
NAMES = ("a", "b", "c", "d", "e")


def test_splits_are_disjoint_and_together_everything():
    parts = split(LABELS, SIZES, 0, NAMES)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(LABELS)))
    assert {name: len(part) for name, part in parts.items()} == SIZES


def test_splits_hold_the_classes_in_the_proportions_of_the_whole():
    for name, part in split(LABELS, SIZES, 0, NAMES).items():
        expected = np.bincount(LABELS) * FRACTIONS[name]
        assert np.abs(np.bincount(LABELS[part]) - expected).max() <= 2


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    first, again, other = (split(LABELS, SIZES, seed, NAMES)["calibration"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(np.sort(first), np.sort(other))


def test_splitting_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not change
    split(LABELS, SIZES, 0, NAMES)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("num_rows", [10, 97, 1797, 60000])
def test_counts_add_up(num_rows: int):
    sizes = SplitFractions(**FRACTIONS).counts(num_rows)
    assert list(sizes) == list(SPLITS)
    assert sum(sizes.values()) == num_rows
    assert all(abs(sizes[name] - FRACTIONS[name] * num_rows) <= 1 for name in SPLITS)


@pytest.mark.parametrize("bad", [0, -0.1, 1, float("nan")])
def test_a_fraction_out_of_range_is_refused_by_name(bad: float):
    with pytest.raises(InvalidSplit, match=r"select fraction .* but got .*data\.init_args\.select"):
        SplitFractions(**{**FRACTIONS, "select": bad})


def test_fractions_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidSplit, match=r"add up to 1, but train 0\.9 .* = 1\.4"):
        SplitFractions(**{**FRACTIONS, "train": 0.9})


@pytest.mark.parametrize(("error", "accepted"), [(1e-7, True), (-1e-7, True), (1e-5, False), (-1e-5, False)])
def test_fractions_may_miss_1_by_rounding_and_by_no_more(error: float, accepted: bool):
    fractions = {**FRACTIONS, "train": 0.5 + error}
    if accepted:
        assert asdict(SplitFractions(**fractions)) == fractions
    else:
        with pytest.raises(InvalidSplit, match="add up to 1"):
            SplitFractions(**fractions)


def test_sizes_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidSplit, match="add up to 760 rows"):
        split(LABELS, {**SIZES, "train": 1}, 0, NAMES)


def test_a_class_with_too_few_rows_is_refused_by_name():
    labels = np.append(LABELS, [4, 4, 4, 4])
    message = "class 'e' has 4; merge the class with another, drop its rows, or add some.$"
    with pytest.raises(InvalidSplit, match=message):
        split(labels, SplitFractions(**FRACTIONS).counts(len(labels)), 0, NAMES)


def test_all_classes_with_too_few_rows_are_named_rarest_first():
    labels = np.repeat(np.arange(5), [40, 4, 1, 40, 3])
    with pytest.raises(InvalidSplit, match="class 'c' has 1, class 'e' has 3, class 'b' has 4; merge"):
        split(labels, SplitFractions(**FRACTIONS).counts(len(labels)), 0, NAMES)


def test_labels_that_are_amounts_are_told_so():
    labels = np.arange(200) // 2
    with pytest.raises(
        InvalidSplit, match=r"100 classes among 200 rows look like a quantity\. Dubio classifies and does"
    ):
        split(labels, SplitFractions(**FRACTIONS).counts(200), 0, list(map(str, range(100))))


def test_a_split_too_small_for_the_classes_is_refused_by_name():
    sizes = {"train": 700, "validation": 20, "select": 20, "calibration": 3, "test": 17}
    with pytest.raises(InvalidSplit, match=r"calibration split .* at least 4 rows.* but got 3"):
        split(LABELS, sizes, 0, NAMES)


def test_a_row_a_class_and_split_is_enough():
    labels = np.tile(np.arange(4), 5)
    parts = split(labels, dict.fromkeys(SPLITS, 4), 0, NAMES)
    assert all(sorted(labels[part]) == [0, 1, 2, 3] for part in parts.values())


def test_a_class_that_is_used_up_before_the_last_split_is_refused_by_name():
    labels = np.repeat([0, 1], [995, 5])
    sizes = {"train": 400, "validation": 150, "select": 150, "calibration": 150, "test": 150}
    with pytest.raises(InvalidSplit, match="rows of class 'b' are left for the splits after"):
        split(labels, sizes, 0, NAMES)


def test_a_class_that_rounding_leaves_out_of_a_split_is_refused_by_name():
    """A hundredth of ten rows is none, and all ten are left for the splits that follow."""
    sizes = {"validation": 10, "train": 390, "select": 200, "calibration": 200, "test": 200}
    with pytest.raises(InvalidSplit, match=r"0 rows of class 'b' are left for validation \(10 rows\)"):
        split(np.repeat([0, 1], [990, 10]), sizes, 0, NAMES)
