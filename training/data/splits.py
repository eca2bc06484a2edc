"""Seeded, stratified division of labelled rows into the five splits.

train        the weights and the normalisation are fitted here
validation   chooses the best checkpoint
select       fits the temperature and ranks the out-of-distribution scores
calibration  sets the threshold, and is used for nothing else
test         measures, and decides nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from dubio.training.errors import InvalidSplit

SplitName = Literal["train", "validation", "select", "calibration", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

IntArray = npt.NDArray[np.int64]


def counts(fractions: Mapping[SplitName, float], num_rows: int) -> dict[SplitName, int]:
    """Turns fractions into row counts that add up to `num_rows`.

    Args:
        fractions: One positive fraction a split; together 1.
        num_rows: How many rows there are.

    Raises:
        InvalidSplit: If a fraction is not positive or they do not add up to 1.
    """
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise InvalidSplit(
                f"Expected the {name} fraction to be between 0 and 1 (exclusive), but got {fraction}; "
                f"set `data.init_args.{name}`."
            )
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        shares = " + ".join(f"{name} {fraction}" for name, fraction in fractions.items())
        raise InvalidSplit(f"Expected the split fractions to add up to 1, but {shares} = {total:g}.")
    # Rounding the running total, not each share, makes the counts add up.
    edges = np.rint(np.cumsum(list(fractions.values())) * num_rows).astype(int)
    sizes = np.diff(edges, prepend=0)
    return {name: int(size) for name, size in zip(fractions, sizes, strict=True)}


def split(
    labels_N: IntArray, sizes: Mapping[SplitName, int], seed: int, names: Sequence[str] | None = None
) -> dict[SplitName, IntArray]:
    """Divides rows so that each split holds the classes in the proportions of the whole.

    Args:
        labels_N: Integer class of each row.
        sizes: Rows a split; together the number of rows.
        seed: The same seed gives the same split, on any machine.
        names: Of the classes, for messages; by default their numbers.

    Returns:
        Row numbers a split, disjoint, in random order.

    Raises:
        InvalidSplit: If the sizes do not add up, or a class would be missing from a split.
    """
    num_rows = len(labels_N)
    if sum(sizes.values()) != num_rows:
        sum_of = " + ".join(f"{name} {size}" for name, size in sizes.items())
        raise InvalidSplit(f"Expected the split sizes to add up to {num_rows} rows, but got {sum_of}.")
    classes, rows_per_class = np.unique(labels_N, return_counts=True)
    if rows_per_class.min() < len(sizes):
        raise InvalidSplit(
            f"Expected at least {len(sizes)} rows of every class, one for each split, but class "
            f"{_name(classes[rows_per_class.argmin()], names)} has {rows_per_class.min()}; add rows or drop the class."
        )
    for name, size in sizes.items():
        if size < len(classes):
            raise InvalidSplit(
                f"Expected the {name} split to have at least {len(classes)} rows, one for each class, "
                f"but got {size}; make `data.init_args.{name}` larger."
            )

    parts: dict[SplitName, IntArray] = {}
    rest = np.arange(num_rows)
    *heads, last = sizes
    for name in heads:
        parts[name], rest = train_test_split(
            rest, train_size=sizes[name], stratify=labels_N[rest], random_state=seed, shuffle=True
        )
        _require_classes(classes, labels_N[parts[name]], name, 1, names)
        # Proportions are kept by rounding, which can use a rare class up before its turn.
        _require_classes(classes, labels_N[rest], "the splits after " + name, len(sizes) - len(parts), names)
    parts[last] = rest
    return parts


def _name(label: int, names: Sequence[str] | None) -> str:
    return str(label) if names is None else repr(names[label])


def _require_classes(
    classes: IntArray, labels_N: IntArray, where: str, at_least: int, names: Sequence[str] | None
) -> None:
    rows_per_class = (labels_N == classes[:, np.newaxis]).sum(axis=1)
    rarest = rows_per_class.argmin()
    if rows_per_class[rarest] < at_least:
        raise InvalidSplit(
            f"Expected every class in every split, but {rows_per_class[rarest]} rows of class "
            f"{_name(classes[rarest], names)} are left for {where} ({len(labels_N)} rows); add rows of that class, or "
            "make the splits less unequal."
        )
