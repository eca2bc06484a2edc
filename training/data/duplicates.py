"""Exact duplicates: rows of a split whose input another split has, too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dubio.training.data.dataset import Dataset, Examples
from dubio.training.data.splits import SPLITS, SplitName
from dubio.training.errors import InvalidSplit

BoolArray = npt.NDArray[np.bool_]


def repeated(splits: Mapping[SplitName, Examples]) -> dict[SplitName, BoolArray]:
    """Which rows have the same input as a row of a split before theirs, as the network would see it."""
    seen: set[bytes] = set()
    found = {}
    for name in (name for name in SPLITS if name in splits):
        digests = [_digest(row) for row in splits[name].x]
        found[name] = np.array([digest in seen for digest in digests], dtype=np.bool_)
        seen.update(digests)
    return found


def drop(dataset: Dataset) -> Dataset:
    """The data set without rows that repeat one of a split before theirs.

    Raises:
        InvalidSplit: If a split would lose its last row of a class.
    """
    splits, parts = {}, {}
    for name, repeats_N in repeated(dataset.splits).items():
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


def told(splits: Mapping[SplitName, Examples]) -> str | None:
    """How many rows repeat one of a split before theirs, and what that means; None if there are none."""
    counts = {name: int(repeats_N.sum()) for name, repeats_N in repeated(splits).items()}
    total = sum(counts.values())
    if not total:
        return None
    held_out = sum(len(examples.labels) for name, examples in splits.items() if name != "train")
    each = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return (
        f"{total} of {held_out} held-out rows are exact duplicates of rows in a split before theirs ({each}): accuracy "
        "and promise hold for requests that repeat earlier rows as often, and less well for new ones; "
        "`data.init_args.duplicates: drop` leaves them out."
    )


def _digest(row: npt.NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
