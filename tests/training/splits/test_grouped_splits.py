"""Groups are on one side, times are in order, and what is impossible is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dubio.training.errors import InvalidSplit
from dubio.training.splits.grouped_splits import split_by_time, split_groups
from dubio.training.splits.random_splits import SPLITS, SplitFractions

NAMES = ("well", "ill")
FRACTIONS = SplitFractions()


def patients(seed: int, groups: int = 120, ill: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """One to nine visits a patient, whose state mostly stays."""
    random = np.random.default_rng(seed)
    visits = random.integers(1, 10, groups)
    state = random.random(groups) < ill
    state[:10] = [True, False] * 5
    patient = np.repeat(np.arange(groups), visits)
    labels = np.where(random.random(len(patient)) < 0.05, 1 - state[patient], state[patient]).astype(np.int64)
    order = random.permutation(len(patient))
    return labels[order], np.array([f"p{each}" for each in patient[order]])


@pytest.mark.parametrize("seed", range(12))
def test_no_group_is_in_two_splits_and_these_are_near_their_shares(seed: int):
    labels, groups = patients(seed)
    sizes = FRACTIONS.counts(len(labels))
    parts = split_groups(labels, groups, sizes, seed, NAMES)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    members = [set(groups[rows].tolist()) for rows in parts.values()]
    assert sum(map(len, members)) == len(set(groups.tolist()))
    for name, rows in parts.items():
        assert abs(len(rows) - sizes[name]) <= 0.03 * len(labels)
        assert labels[rows].mean() == pytest.approx(labels.mean(), abs=0.08)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    labels, groups = patients(0)
    sizes = FRACTIONS.counts(len(labels))
    first, again, other = (split_groups(labels, groups, sizes, seed, NAMES)["calibration"] for seed in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("seed", range(12))
def test_a_class_in_as_many_groups_as_there_are_splits_is_in_every_split(seed: int):
    labels = np.repeat([0] * 60 + [1] * 5, 4)
    parts = split_groups(labels, np.repeat(np.arange(65), 4), FRACTIONS.counts(260), seed, NAMES)
    assert [int(labels[rows].sum()) for rows in parts.values()] == [4] * 5


def test_groups_of_one_row_are_divided_by_the_fractions():
    labels = np.repeat([0, 1], [800, 200])
    parts = split_groups(labels, np.arange(1000), FRACTIONS.counts(1000), 0, NAMES)
    assert [len(rows) for rows in parts.values()] == pytest.approx([600, 80, 80, 120, 120], abs=2)
    assert [int(labels[rows].sum()) for rows in parts.values()] == pytest.approx([120, 16, 16, 24, 24], abs=2)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 1] * 50, np.arange(100) % 4, "at least 5 groups, one for each split, but got 4"),
        (
            [0] * 80 + [1] * 20,
            np.arange(100) // 5,
            r"those of class 'ill' are in 4; merge it with another class, drop it",
        ),
    ],
)
def test_too_few_groups_are_told_with_their_number(labels: list[int], groups: np.ndarray, message: str):
    with pytest.raises(InvalidSplit, match=message):
        split_groups(np.array(labels), groups, FRACTIONS.counts(100), 0, NAMES)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("grouped", [False, True])
def test_no_row_is_earlier_than_one_of_the_split_before(seed: int, grouped: bool):
    random = np.random.default_rng(seed)
    times = random.integers(0, 200, 1000)  # five rows a time, so that there are ties
    labels = random.integers(0, 2, 1000)
    # A group is there for at most three times in a row.
    groups = np.array([f"{time // 3}, {each}" for time, each in zip(times, random.integers(0, 2, 1000), strict=True)])
    sizes = FRACTIONS.counts(1000)
    parts = split_by_time(labels, times, sizes, NAMES, groups if grouped else None)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1000))
    for one, other in pairwise(parts.values()):
        assert times[one].max() < times[other].min()
        assert not grouped or not set(groups[one]) & set(groups[other])
    assert [len(rows) for rows in parts.values()] == pytest.approx(list(sizes.values()), abs=25)


def test_times_that_all_differ_are_divided_by_the_fractions_whatever_the_order_of_the_rows():
    times = np.random.default_rng(0).permutation(500)
    parts = split_by_time(times % 2, times, FRACTIONS.counts(500), NAMES)
    assert [sorted(times[rows]) for rows in parts.values()] == [
        list(range(start, end)) for start, end in pairwise([0, 300, 340, 380, 440, 500])
    ]


@pytest.mark.parametrize(
    ("times", "labels", "groups", "message"),
    [
        (np.arange(100) // 25, np.arange(100) % 2, None, "at least 5 different times, one for each split, but got 4"),
        (
            np.arange(100),
            np.arange(100) % 2,
            np.arange(100) % 2,
            "no group reaches across, one .* but got 1; divide by",
        ),
        (
            np.arange(100),
            np.where(np.arange(100) < 76, np.arange(100) % 2, 0),
            None,
            r"the calibration split \(12 rows\) has none of class 'ill': it has none at that time; make .*calibration",
        ),
    ],
)
def test_times_that_cannot_be_divided_are_told(times, labels, groups, message: str):
    with pytest.raises(InvalidSplit, match=message):
        split_by_time(labels, times, FRACTIONS.counts(100), NAMES, groups)
