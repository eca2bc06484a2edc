"""Seeded, stratified division of labelled rows into the five splits.

train        the weights and the normalisation are fitted here
validation   chooses the best checkpoint
select       fits the temperature and ranks the out-of-distribution scores
calibration  sets the threshold, and is used for nothing else
test         measures, and decides nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from dubio.training.errors import NO_QUANTITIES, InvalidSplit

SplitName = Literal["train", "validation", "select", "calibration", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitFractions:
    """Shares of all rows; together 1.

    Args:
        train: Fraction that trains the network.
        validation: Fraction that chooses the best checkpoint.
        select: Fraction that fits the temperature and ranks the scores.
        calibration: Fraction that sets the threshold of the flag.
        test: Fraction that measures.

    Raises:
        InvalidSplit: If a fraction is not between 0 and 1, or they do not add up to 1.
    """

    train: float = 0.6
    validation: float = 0.08
    select: float = 0.08
    calibration: float = 0.12
    test: float = 0.12

    def __post_init__(self) -> None:
        fractions = asdict(self)
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

    def counts(self, num_rows: int, splits: Sequence[SplitName] = SPLITS) -> dict[SplitName, int]:
        """Rows a split, which add up to `num_rows`, in the proportions of some of the fractions."""
        # Rounding the running total, not each share, makes the counts add up.
        total = np.cumsum([asdict(self)[name] for name in splits])
        shares = total if len(splits) == len(SPLITS) else total / total[-1]
        edges = np.rint(shares * num_rows).astype(int)
        return dict(zip(splits, np.diff(edges, prepend=0).tolist(), strict=True))


def split(
    labels_N: IntArray, sizes: Mapping[SplitName, int], seed: int, classes: Sequence[str]
) -> dict[SplitName, IntArray]:
    """Divides rows so that each split holds the classes in the proportions of the whole.

    Args:
        labels_N: Integer class of each row.
        sizes: Rows a split; together the number of rows.
        seed: The same seed gives the same split, on any machine.
        classes: Names of the classes, for messages.

    Returns:
        Row numbers a split, disjoint, in random order.

    Raises:
        InvalidSplit: If the sizes do not add up, or a class would be missing from a split.
    """
    num_rows = len(labels_N)
    if sum(sizes.values()) != num_rows:
        sum_of = " + ".join(f"{name} {size}" for name, size in sizes.items())
        raise InvalidSplit(f"Expected the split sizes to add up to {num_rows} rows, but got {sum_of}.")
    present, rows_per_class = np.unique(labels_N, return_counts=True)
    if rows_per_class.min() < len(sizes):
        raise InvalidSplit(
            f"Expected at least {len(sizes)} rows of every class, one for each split, but "
            f"{_too_rare(present, rows_per_class, len(sizes), classes)}; merge the class with another, drop its rows, "
            f"or add some.{_no_classes(len(present), num_rows)}"
        )
    for name, size in sizes.items():
        if size < len(present):
            raise InvalidSplit(
                f"Expected the {name} split to have at least {len(present)} rows, one for each class, "
                f"but got {size}; make `data.init_args.{name}` larger."
            )

    def require(rows: IntArray, where: str, at_least: int) -> None:
        rows_per_class = (labels_N[rows] == present[:, np.newaxis]).sum(axis=1)
        rarest = rows_per_class.argmin()
        if rows_per_class[rarest] < at_least:
            raise InvalidSplit(
                f"Expected every class in every split, but {rows_per_class[rarest]} rows of class "
                f"{classes[present[rarest]]!r} are left for {where} ({len(rows)} rows); merge it with another "
                "class, drop its rows, add some, or make the splits less unequal."
            )

    parts: dict[SplitName, IntArray] = {}
    rest = np.arange(num_rows)
    *heads, last = sizes
    for name in heads:
        parts[name], rest = train_test_split(
            rest, train_size=sizes[name], stratify=labels_N[rest], random_state=seed, shuffle=True
        )
        require(parts[name], name, 1)
        # Proportions are kept by rounding, which can use a rare class up before its turn.
        require(rest, f"the splits after {name}", len(sizes) - len(parts))
    parts[last] = rest
    return parts


def _too_rare(present: IntArray, rows_per_class: IntArray, due: int, classes: Sequence[str]) -> str:
    """The classes with too few rows, rarest first."""
    order = rows_per_class.argsort(kind="stable")
    rare = [index for index in order.tolist() if rows_per_class[index] < due]
    named = ", ".join(f"class {classes[present[index]]!r} has {rows_per_class[index]}" for index in rare[:5])
    return named + (f" and {len(rare) - 5} more have too few" if len(rare) > 5 else "")


def _no_classes(num_classes: int, num_rows: int) -> str:
    if 3 * num_classes < num_rows:
        return ""
    return f" {num_classes} classes among {num_rows} rows look like a quantity. {NO_QUANTITIES}"
