"""A data set in memory: its splits, its classes, and a description of its inputs for the service."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dubio.models import InputSpec
from dubio.training.errors import TrainingError
from dubio.training.splits.random_splits import IntArray, SplitName

# One number for all channels or columns, or one for each.
Scale = float | Sequence[float]


@dataclass(frozen=True)
class Examples:
    """Labelled rows as they were read.

    Attributes:
        x: Inputs `[N, *shape]` of any number type.
        labels: Class of each row, `[N]`.
    """

    x: npt.NDArray[np.generic]
    labels: IntArray

    def divide(self, parts: Mapping[SplitName, IntArray]) -> dict[SplitName, Examples]:
        """The rows of each split, by their numbers."""
        return {name: Examples(self.x[rows], self.labels[rows]) for name, rows in parts.items()}


def number_rows(row: int) -> str:
    """Where a row is, counted from 0."""
    return f"row {row}"


def roles(columns: Iterable[str], seen: Collection[str], **named: str | None) -> dict[str, list[str]]:
    """The columns of a source by what they are for.

    Args:
        columns: All that there are.
        seen: Those that the network sees and that have no other role.
        named: The column of each role, if it has one.
    """
    given = {role: [name] for role, name in named.items() if name is not None}
    used = {*seen, *(name for names in given.values() for name in names)}
    return {"ignored": [name for name in columns if name not in used], **given}


@dataclass(frozen=True)
class Dataset:
    """What a data module reads.

    Attributes:
        splits: The rows of each split.
        classes: Names of the classes, in the order of the logits.
        input: Shape and normalisation, fitted on the training rows.
        parts: Numbers of the same rows in the source; by default they follow each other, split by split.
        at: Where the row of a number is, as in "line 3".
        ids: Columns of the source that say which row is which, by name, one value for each row of the source.
        roles: Names of the source's columns that are no numbers of the input, by what they are for.
        doubts: What is odd about the inputs, each with its cure.
        train_labels: Class of each training row of all processes that train together, where `splits` has the share of
            this one alone.
        partial: Whether `input` is fitted on that share alone, for the others were not read.
    """

    splits: Mapping[SplitName, Examples]
    classes: tuple[str, ...]
    input: InputSpec
    parts: Mapping[SplitName, IntArray] | None = None
    at: Callable[[int], str] = number_rows
    ids: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    train_labels: IntArray | None = None
    partial: bool = False

    @staticmethod
    def of_numbers(
        splits: Mapping[SplitName, Examples],
        classes: tuple[str, ...],
        scale: tuple[Scale, Scale] | None = None,
        **more: Any,
    ) -> Dataset:
        """Images or rows of numbers, described by `fit_input`."""
        return Dataset(splits, classes, fit_input(splits["train"].x, scale), **more)

    def labels(self, name: SplitName) -> IntArray:
        """Class of each row of a split, whichever process holds it."""
        return self.splits[name].labels if name != "train" or self.train_labels is None else self.train_labels

    @property
    def rows(self) -> Mapping[SplitName, IntArray]:
        """Numbers of the rows of each split in the source."""
        if self.parts is not None:
            return self.parts
        ends = np.cumsum([len(examples.labels) for examples in self.splits.values()])
        return dict(zip(self.splits, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))

    def whole(self) -> Examples:
        """All rows in the order of the source."""
        names = list(self.splits)
        order = np.argsort(np.concatenate([self.rows[name] for name in names]))
        x, labels = (
            np.concatenate(parts)
            for parts in ([self.splits[name].x for name in names], [self.splits[name].labels for name in names])
        )
        return Examples(x[order], labels[order])


def fit_input(x: npt.NDArray[np.generic], scale: tuple[Scale, Scale] | None = None) -> InputSpec:
    """Describes images or rows of numbers: mean and std of each channel or column, smallest and largest value.

    Args:
        x: Training inputs, images `[N, C, H, W]` or numbers `[N, F]`.
        scale: Mean and std that are given instead, each one number or one a channel or column.

    Raises:
        TrainingError: If there is not one finite number for each channel or column, or a std is not positive.
    """
    shape = tuple(x.shape[1:])
    if scale is None:
        axes = (0, *range(2, x.ndim))
        mean = tuple(map(float, x.mean(axis=axes, dtype=np.float64)))
        std = tuple(map(float, x.std(axis=axes, dtype=np.float64)))
    else:
        mean, std = (_one_each(given, shape[0], name) for given, name in zip(scale, ("mean", "std"), strict=True))
        if min(std) <= 0:
            raise TrainingError(f"Expected `data.init_args.std` to be positive, but got {min(std):g}.")
    return InputSpec(
        kind="image" if len(shape) == 3 else "numbers",
        shape=shape,
        mean=mean,
        # A constant channel carries nothing; dividing by 1 keeps it finite.
        std=tuple(each if each > 0 else 1.0 for each in std),
        low=float(x.min()),
        high=float(x.max()),
    )


def _one_each(given: Scale, size: int, name: str) -> tuple[float, ...]:
    values = tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),) * size
    if len(values) != size or not np.isfinite(values).all():
        raise TrainingError(
            f"Expected `data.init_args.{name}` to be one finite number, or {size}: one for each channel or "
            f"column, but got {list(values)}."
        )
    return values
