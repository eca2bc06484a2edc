"""Base of the data modules for files of one's own: rows that are divided by fractions, or as they say themselves."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubio.training import options
from dubio.training.data.module import FractionDataModule, Parts
from dubio.training.errors import NO_QUANTITIES, DataUnavailable, InvalidSplit, TrainingError, UnreadableData
from dubio.training.readers.look_alikes import refuse_look_alikes
from dubio.training.splits.dataset import Scale, number_rows
from dubio.training.splits.grouped_splits import split_by_time, split_groups
from dubio.training.splits.random_splits import SPLITS, IntArray, SplitName


class FileDataModule(FractionDataModule, ABC):
    """Rows of one file or folder.

    Args:
        path: The file or folder.
        mean: Subtracted from the inputs, one number or one a channel or column; by default that of the training rows.
        std: Divided by, as `mean`. Set both for a network that was trained elsewhere, as it was trained there.
    """

    def __init__(
        self,
        path: str,
        mean: float | tuple[float, ...] | None = None,
        std: float | tuple[float, ...] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.path = Path(path).expanduser()
        self.title = self.path.name[:200]
        if (mean is None) != (std is None):
            raise TrainingError(
                "Expected `data.init_args.mean` and `data.init_args.std` both or neither, but got one of them."
            )
        self.caveat: str | None = None  # what the division means for the promise
        self._groups_N: npt.NDArray[Any] | None = None
        self._times_N: IntArray | None = None
        self.scale = None if mean is None or std is None else (mean, std)

    def file(self) -> Path:
        """The file, once it is known to be there.

        Raises:
            DataUnavailable: If there is none.
        """
        if not self.path.is_file():
            raise DataUnavailable(f"{self.path}: no such file; set {options.named('path')} to yours.")
        return self.path

    def divide(
        self,
        labels_N: IntArray,
        classes: Sequence[str],
        own: npt.NDArray[Any] | None = None,
        groups: npt.NDArray[Any] | None = None,
        times: IntArray | None = None,
    ) -> Parts:
        """Row numbers a split.

        Args:
            labels_N: Class of each row.
            classes: Their names.
            own: Name of the split of each row, if the source says so itself; then fractions are not used.
            groups: Group of each row; no group will be in two splits.
            times: Rank in time of each row; no split will have a row that is earlier than one of the split before.

        Raises:
            InvalidSplit: If the rows cannot be divided so that every split has every class.
        """
        if own is not None and (groups is not None or times is not None):
            raise InvalidSplit(
                "Expected `data.init_args.split`, or `group` and `time`, but got both: a column that says the split of "
                "each row leaves nothing to divide; leave one of them out."
            )
        self._groups_N, self._times_N = groups, times
        if own is None:
            return super().divide(labels_N, classes)
        for row in np.flatnonzero(~np.isin(own, SPLITS))[:1]:
            raise InvalidSplit(
                f"{self.path}: expected every row's split to be one of {', '.join(SPLITS)}, but row {row} has "
                f"{str(own[row])[:40]!r}."
            )
        parts: Parts = {name: np.flatnonzero(own == name) for name in SPLITS}
        if self.trained is not None:
            self.own = parts
            return super().divide(labels_N, classes)
        for name, rows in parts.items():
            absent = set(range(len(classes))) - set(labels_N[rows].tolist())
            if absent:
                raise InvalidSplit(
                    f"{self.path}: expected every class in every split, but the {name} split has no row of class "
                    f"{classes[min(absent)]!r}; add some, or leave the splits to `data.init_args`."
                )
        return parts

    def parts_of(self, labels_N: IntArray, sizes: Mapping[SplitName, int], classes: Sequence[str]) -> Parts:
        if self._times_N is not None:
            parts = split_by_time(labels_N, self._times_N, sizes, classes, self._groups_N)
        elif self._groups_N is not None:
            parts = split_groups(labels_N, self._groups_N, sizes, self.seed, classes)
        else:
            return super().parts_of(labels_N, sizes, classes)
        if self._groups_N is not None:
            rows = parts["calibration"]
            groups = len(np.unique(self._groups_N[rows]))
            self.caveat = (
                f"the {len(rows)} calibration rows are of {groups} groups, whose rows are alike; the promise counts "
                "each as if it were new, so the fewer groups there are, the lower is its confidence."
            )
        return parts

    @property
    def divides(self) -> bool:
        """Whether rows are divided at all: a test, or predictions, take them as they come."""
        return self.purpose in (None, "calibrate")

    def encode_labels(
        self,
        values: npt.NDArray[np.generic],
        given: Sequence[str] | None,
        what: str,
        at: Callable[[int], str] = number_rows,
    ) -> tuple[IntArray, tuple[str, ...]]:
        """Class of each row, and the names of the classes.

        Args:
            values: One a row: names, or integers that count the names from 0.
            given: Names in the order of the logits; by default the values, sorted.
            what: Names the values in messages.
            at: Says where the row of a number is.

        Raises:
            UnreadableData: If a value is not among the names, or a name has no rows.
        """
        words = values.dtype.kind == "U"
        if not words and values.dtype.kind not in "iu":
            raise UnreadableData(
                f"{self.path}: expected {what} to hold integers or names, but got {values.dtype}. {NO_QUANTITIES} Or, "
                "if they count classes, convert them to integers."
            )
        if self.trained is not None:
            classes = tuple(self.trained.classes)
            return self._trained_labels(values, given, what, at, classes), classes
        if given is None:
            distinct, labels_N = np.unique(values, return_inverse=True)
            names = tuple(map(str, distinct.tolist()))
        else:
            names = tuple(given)
            known: list[str] | list[int] = list(names) if words else list(range(len(names)))
            for row in np.flatnonzero(~np.isin(values, known))[:1]:
                rule = f"one of {_some(names)}" if words else f"an integer from 0 to {len(names) - 1}, one a class"
                raise UnreadableData(
                    f"{self.path}: expected {what} to be {rule}, but row {row} has {values[row]!s:.40}."
                )
            position = {name: index for index, name in enumerate(known)}
            labels_N = np.array([position[value] for value in values.tolist()])
        first = {names[label]: at(int(row)) for label, row in zip(*np.unique(labels_N, return_index=True), strict=True)}
        refuse_look_alikes(f"{self.path}: expected {what} to", first, "class", "write it one way")
        if len(set(names)) < len(names) or len(names) < 2 or any(not 1 <= len(name) <= 256 for name in names):
            raise UnreadableData(
                f"{self.path}: expected at least two classes, each with a name of its own of at most 256 characters, "
                f"but got {_some(names)}."
            )
        for index in sorted(set(range(len(names))) - set(labels_N.tolist()))[:1]:
            raise UnreadableData(
                f"{self.path}: expected rows of every class, but there is none of {names[index]!r}; leave that class "
                "out."
            )
        return labels_N.astype(np.int64), names

    def _trained_labels(
        self,
        values: npt.NDArray[np.generic],
        given: Sequence[str] | None,
        what: str,
        at: Callable[[int], str],
        classes: tuple[str, ...],
    ) -> IntArray:
        """Class of each row as the checkpoint counts them; rows of every class need not be there."""
        position = {name: index for index, name in enumerate(classes)}
        counted = dict(enumerate(given or ())) if values.dtype.kind in "iu" else {}
        names = [counted.get(value, "") if counted else str(value) for value in values.tolist()]
        for row, name in enumerate(names):
            if name not in position:
                raise UnreadableData(
                    f"{self.path}: expected {what} to be one of the checkpoint's classes, {_some(classes)}, but "
                    f"{at(row)} has {name or values[row]!s:.40}; name the classes as in the fit."
                )
        return np.array([position[name] for name in names], dtype=np.int64)

    def unlabelled(self, rows: int) -> tuple[IntArray, tuple[str, ...]] | None:
        """Labels and classes where none are needed: for predictions by a checkpoint; otherwise None."""
        if self.trained is None or self.purpose != "predict":
            return None
        return np.zeros(rows, dtype=np.int64), tuple(self.trained.classes)

    def settings(self) -> dict[str, Any]:
        mean, std = self.scale or (None, None)
        return {**super().settings(), "mean": _plain(mean), "std": _plain(std)}


def _plain(scale: Scale | None) -> float | list[float] | None:
    return list(scale) if isinstance(scale, Sequence) else scale


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:5]) + (", ..." if len(names) > 5 else "")
