"""Exact duplicates: rows of a split whose input another split has, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dubio.models.checkpoint.data_record import Division
from dubio.training.errors import InvalidSplit
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.division import digests
from dubio.training.splits.random_splits import SPLITS, IntArray, SplitName

BoolArray = npt.NDArray[np.bool_]


def repeated(digests_by_split: Mapping[SplitName, IntArray]) -> dict[SplitName, BoolArray]:
    """Which rows have the same input as a row of a split before theirs, by the digests of all rows."""
    seen, found = np.empty(0, dtype=np.int64), {}
    for name in (name for name in SPLITS if name in digests_by_split):
        found[name] = np.isin(digests_by_split[name], seen)
        seen = np.concatenate([seen, digests_by_split[name]])
    return found


def drop(dataset: Dataset) -> Dataset:
    """The data set without rows that repeat one of a split before theirs.

    Raises:
        InvalidSplit: If a split would lose its last row of a class.
    """
    splits, parts = {}, {}
    for name, repeats_N in repeated({name: digests(each.x) for name, each in dataset.splits.items()}).items():
        examples = dataset.splits[name]
        splits[name] = Examples(examples.x[~repeats_N], examples.labels[~repeats_N])
        parts[name] = dataset.rows[name][~repeats_N]
        lost = np.setdiff1d(examples.labels, splits[name].labels)
        if len(lost):
            raise InvalidSplit(
                f"Expected every class in every split, but without the {repeats_N.sum()} duplicates the {name} split "
                f"has no row of class {dataset.classes[lost[0]]!r}; merge the class with another, drop it, or set "
                "`data.init_args.duplicates: keep`."
            )
    return replace(dataset, splits=splits, parts=parts)


def told(division: Division) -> str | None:
    """How many rows repeat one of a split before theirs, and what that means; None if there are none."""
    known = {name: division.digests[name].numpy() for name in SPLITS if name in division.digests}
    counts = {name: int(repeats_N.sum()) for name, repeats_N in repeated(known).items()}
    total = sum(counts.values())
    if not total:
        return None
    held_out = sum(len(part) for name, part in known.items() if name != "train")
    each = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return (
        f"{total} of {held_out} held-out rows are exact duplicates of rows in a split before theirs ({each}): accuracy "
        "and promise hold for requests that repeat earlier rows as often, and less well for new ones; "
        "`data.init_args.duplicates: drop` leaves them out."
    )
