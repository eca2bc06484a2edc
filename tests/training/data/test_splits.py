from __future__ import annotations

import numpy as np
import pytest

from dubio.training.data.splits import SPLITS, counts, split
from dubio.training.errors import InvalidSplit

FRACTIONS = {"train": 0.5, "validation": 0.1, "select": 0.1, "calibration": 0.15, "test": 0.15}
LABELS = np.repeat(np.arange(4), [400, 200, 100, 60])
SIZES = counts(FRACTIONS, len(LABELS))


def test_splits_are_disjoint_and_together_everything():
    parts = split(LABELS, SIZES, seed=0)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(LABELS)))
    assert {name: len(part) for name, part in parts.items()} == SIZES


def test_splits_hold_the_classes_in_the_proportions_of_the_whole():
    for name, part in split(LABELS, SIZES, seed=0).items():
        expected = np.bincount(LABELS) * FRACTIONS[name]
        assert np.abs(np.bincount(LABELS[part]) - expected).max() <= 2


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    first, again, other = (split(LABELS, SIZES, seed)["calibration"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(np.sort(first), np.sort(other))


def test_splitting_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not change
    split(LABELS, SIZES, seed=0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("num_rows", [10, 97, 1797, 60000])
def test_counts_add_up(num_rows: int):
    sizes = counts(FRACTIONS, num_rows)
    assert sum(sizes.values()) == num_rows
    assert all(abs(sizes[name] - FRACTIONS[name] * num_rows) <= 1 for name in SPLITS)


@pytest.mark.parametrize("bad", [0, -0.1, 1, float("nan")])
def test_a_fraction_out_of_range_is_refused_by_name(bad: float):
    with pytest.raises(InvalidSplit, match=r"select fraction .* but got .*data\.init_args\.select"):
        counts({**FRACTIONS, "select": bad}, 100)


def test_fractions_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidSplit, match=r"add up to 1, but train 0\.9 .* = 1\.4"):
        counts({**FRACTIONS, "train": 0.9}, 100)


def test_sizes_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidSplit, match="add up to 760 rows"):
        split(LABELS, {**SIZES, "train": 1}, seed=0)


def test_a_class_with_too_few_rows_is_refused_by_name():
    labels = np.append(LABELS, [9, 9, 9])
    with pytest.raises(InvalidSplit, match="class 9 has 3"):
        split(labels, counts(FRACTIONS, len(labels)), seed=0)


def test_a_split_too_small_for_the_classes_is_refused_by_name():
    sizes = {"train": 700, "validation": 20, "select": 20, "calibration": 3, "test": 17}
    with pytest.raises(InvalidSplit, match=r"calibration split .* at least 4 rows.* but got 3"):
        split(LABELS, sizes, seed=0)


def test_a_class_missing_from_a_split_is_refused_by_name():
    labels = np.repeat([0, 1], [995, 5])
    sizes = {"train": 400, "validation": 150, "select": 150, "calibration": 150, "test": 150}
    with pytest.raises(InvalidSplit, match="rows of class 1 are left for"):
        split(labels, sizes, seed=0)
