"""Division of rows that must stay together: those of one group, and those that are as old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dubio.training.errors import InvalidSplit
from dubio.training.splits.random_splits import IntArray, SplitName


def split_groups(
    labels_N: IntArray,
    groups_N: npt.NDArray[np.generic],
    sizes: Mapping[SplitName, int],
    seed: int,
    classes: Sequence[str],
) -> dict[SplitName, IntArray]:
    """Divides rows so that no group is in two splits.

    Each split comes as near its size, and the proportions of the classes, as whole groups allow: they are taken in
    turn, large ones first, and each goes where it helps most, or where a class would else be missing.

    Args:
        labels_N: Integer class of each row.
        groups_N: Group of each row: a patient, a customer, a document.
        sizes: Rows a split, as near as whole groups allow.
        seed: The same seed gives the same split, on any machine.
        classes: Names of the classes, for messages.

    Returns:
        Row numbers a split, ascending.

    Raises:
        InvalidSplit: If there are too few groups, of all rows or of one class.
    """
    _, group_N, rows_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    if len(rows_G) < len(sizes):
        raise InvalidSplit(
            f"Expected at least {len(sizes)} groups, one for each split, but got {len(rows_G)}; divide the rows by "
            "smaller groups, add rows of others, or leave `data.init_args.group` out."
        )
    present, class_N = np.unique(labels_N, return_inverse=True)
    counts_GC = np.zeros((len(rows_G), len(present)))
    np.add.at(counts_GC, (group_N, class_N), 1)
    groups_C = (counts_GC > 0).sum(axis=0)
    if groups_C.min() < len(sizes):
        raise InvalidSplit(
            f"Expected rows of every class in at least {len(sizes)} groups, one for each split, but those of class "
            f"{classes[present[groups_C.argmin()]]!r} are in {groups_C.min()}; merge it with another class, drop it, "
            "or add rows of other groups."
        )
    shares_S = np.array(list(sizes.values())) / len(labels_N)
    place_G = _place(counts_GC, shares_S, np.random.default_rng(seed))
    parts: dict[SplitName, IntArray] = {
        name: np.flatnonzero(place_G[group_N] == place) for place, name in enumerate(sizes)
    }
    _require_classes(parts, labels_N, classes, "whole groups cannot be divided so")
    return parts


def _place(
    counts_GC: npt.NDArray[np.float64], shares_S: npt.NDArray[np.float64], random: np.random.Generator
) -> IntArray:
    """The split of each group."""
    due_SC = shares_S[:, np.newaxis] * counts_GC.sum(axis=0)
    filled_SC = np.zeros_like(due_SC)
    left_C = (counts_GC > 0).sum(axis=0)
    place_G = np.zeros(len(counts_GC), dtype=np.int64)
    shuffled = random.permutation(len(counts_GC))
    for group in shuffled[np.argsort(-counts_GC[shuffled].sum(axis=1), kind="stable")]:
        counts_C = counts_GC[group]
        there_C = counts_C > 0
        # How much nearer to what is due, in squares relative to it, each split comes.
        cost_S = (counts_C * (2 * (filled_SC - due_SC) + counts_C) / due_SC).sum(axis=1)
        lacking_SC = (filled_SC == 0) & there_C
        # Every group that is left is needed where its class is still missing in as many splits.
        urgent_C = there_C & (left_C <= lacking_SC.sum(axis=0))
        if urgent_C.any():
            cost_S = cost_S - 1e9 * (lacking_SC & urgent_C).sum(axis=1)
        place_G[group] = cost_S.argmin()
        filled_SC[place_G[group]] += counts_C
        left_C = left_C - there_C
    return place_G


def split_by_time(
    labels_N: IntArray,
    times_N: IntArray,
    sizes: Mapping[SplitName, int],
    classes: Sequence[str],
    groups_N: npt.NDArray[np.generic] | None = None,
) -> dict[SplitName, IntArray]:
    """Divides rows so that each split is later than the one before it; rows of one time stay together.

    With groups, all that lies between the first and the last row of a group stays together, too.

    Args:
        labels_N: Integer class of each row.
        times_N: Time of each row, as an integer.
        sizes: Rows a split in the order of time, as near as rows that stay together allow.
        classes: Names of the classes, for messages.
        groups_N: Group of each row.

    Returns:
        Row numbers a split, in the order of time.

    Raises:
        InvalidSplit: If there are too few times or groups apart, or a class is missing from a split.
    """
    last_N = times_N if groups_N is None else _last_of_group(times_N, groups_N)
    order = np.argsort(times_N, kind="stable")
    # A cut may be behind a row if all that began until then has ended, and the next row is later.
    ended = np.maximum.accumulate(last_N[order])[:-1] < times_N[order][1:]
    cuts = np.flatnonzero(ended) + 1
    needed = len(sizes) - 1
    if len(cuts) < needed:
        what = "different times" if groups_N is None else "stretches of time that no group reaches across"
        raise InvalidSplit(
            f"Expected at least {len(sizes)} {what}, one for each split, but got {len(cuts) + 1}; "
            + (
                "give finer times, or leave `data.init_args.time` out."
                if groups_N is None
                else "divide by `data.init_args.group` or `data.init_args.time` alone."
            )
        )
    chosen: list[int] = []
    for place, edge in enumerate(np.cumsum(list(sizes.values()))[:-1]):
        possible = cuts[len(cuts[cuts <= chosen[-1]]) if chosen else 0 : len(cuts) - (needed - 1 - place)]
        chosen.append(int(possible[np.abs(possible - edge).argmin()]))
    parts = dict(zip(sizes, np.split(order, chosen), strict=True))
    _require_classes(parts, labels_N, classes, "it has none at that time")
    return parts


def _last_of_group(times_N: IntArray, groups_N: npt.NDArray[np.generic]) -> IntArray:
    """The last time of each row's group."""
    _, group_N = np.unique(groups_N, return_inverse=True)
    last_G = np.full(group_N.max() + 1, times_N.min())
    np.maximum.at(last_G, group_N, times_N)
    return last_G[group_N].astype(np.int64)


def _require_classes(
    parts: Mapping[SplitName, IntArray], labels_N: IntArray, classes: Sequence[str], cause: str
) -> None:
    present = np.unique(labels_N)
    for name, rows in parts.items():
        absent = np.setdiff1d(present, labels_N[rows])
        if len(absent):
            raise InvalidSplit(
                f"Expected every class in every split, but the {name} split ({len(rows)} rows) has none of class "
                f"{classes[absent[0]]!r}: {cause}; make `data.init_args.{name}` larger, merge the class with another, "
                "or drop it."
            )
