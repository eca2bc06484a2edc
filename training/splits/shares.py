"""Shares: the training rows of one of several processes, and what all of them know about the rows of all.

Each process holds every count-th training row, from its own rank on, and the rows of the other splits. The division is
drawn by every process alike; what takes the rows themselves, digests and the normalisation, is put together once the
processes can talk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed

from dubio.models import InputSpec
from dubio.training.errors import TrainingError, UnreadableData
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.division import digests
from dubio.training.splits.random_splits import IntArray, SplitName


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many that train together."""

    rank: int = 0
    count: int = 1

    def of(self, rows: IntArray) -> IntArray:
        """The rows of this process."""
        return rows[self.rank :: self.count]

    def parts(self, parts: Mapping[SplitName, IntArray]) -> dict[SplitName, IntArray]:
        """The row numbers that this process reads: its own of the training rows, and all others."""
        return {name: self.of(rows) if name == "train" else rows for name, rows in parts.items()}


def keep(dataset: Dataset, share: Share) -> Dataset:
    """The data set of a source that was read as a whole, with the training rows of this process alone."""
    train = dataset.splits["train"]
    # A copy: the rest of the rows is to be given back.
    own = Examples(np.array(train.x[share.rank :: share.count]), share.of(train.labels))
    return replace(
        dataset, splits={**dataset.splits, "train": own}, parts=dataset.rows, train_labels=train.labels, partial=False
    )


@dataclass(frozen=True)
class Moments:
    """Of rows, for each channel or column.

    Attributes:
        rows: How many there are.
        mean: `[C]`.
        variance: `[C]`, with divisor N.
        low: Smallest value of all.
        high: Largest value of all.
    """

    rows: int
    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    low: float
    high: float

    @classmethod
    def of(cls, x: npt.NDArray[np.generic]) -> Moments:
        """Of inputs `[N, C, ...]`."""
        axes = (0, *range(2, x.ndim))
        mean, variance = x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)
        return cls(len(x), mean, variance, float(x.min()), float(x.max()))

    @staticmethod
    def together(parts: Sequence[Moments]) -> Moments:
        """Of all rows.

        Source:
            Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
        """
        rows = sum(part.rows for part in parts)
        mean = sum(part.rows * part.mean for part in parts) / rows
        variance = sum(part.rows * (part.variance + (part.mean - mean) ** 2) for part in parts) / rows
        low, high = min(part.low for part in parts), max(part.high for part in parts)
        return Moments(rows, np.asarray(mean), np.asarray(variance), low, high)


def gather(dataset: Dataset, share: Share, given_scale: bool) -> tuple[Dataset, IntArray]:
    """What the processes know together: the data set with the normalisation of all training rows, and their digests.

    Args:
        dataset: Of this process.
        share: Of this process.
        given_scale: Whether mean and std were given, so that no row decides them.

    Raises:
        UnreadableData: If the processes divide other rows, such as those of another file of that name.
        TrainingError: If the processes cannot talk.
    """
    if not torch.distributed.is_initialized():
        raise TrainingError(
            f"Expected {share.count} processes that train together, as `--trainer.devices` and `--trainer.num_nodes` "
            "say, but they were not started so; leave these out, or start the processes with `torchrun`."
        )
    place = (torch.distributed.get_rank(), torch.distributed.get_world_size())
    if place != (share.rank, share.count):
        raise TrainingError(
            f"Expected process {place[0]} of {place[1]} to hold that share of the rows, but it holds share "
            f"{share.rank} of {share.count}: which process it is could not be told before the fit; start the "
            "processes with `torchrun`, and leave `trainer.plugins` and the strategy's `start_method` out."
        )
    own_x = dataset.splits["train"].x
    own = (_fingerprint(dataset), digests(own_x), Moments.of(own_x) if dataset.partial else None)
    everybody: list[Any] = [None] * share.count
    torch.distributed.all_gather_object(everybody, own)
    for rank, (fingerprint, _, _) in enumerate(everybody):
        if fingerprint != everybody[0][0]:
            raise UnreadableData(
                f"Expected process {rank} to divide the same rows as process 0, but it has others: is it the same file "
                "on every machine?"
            )
    digests_N = np.empty(len(dataset.rows["train"]), dtype=np.int64)
    for rank, (_, found, _) in enumerate(everybody):
        digests_N[rank :: share.count] = found
    if dataset.partial:
        moments = Moments.together([each for _, _, each in everybody])
        dataset = replace(dataset, input=_described(dataset.input, moments, given_scale), partial=False)
    return dataset, digests_N


def same_input(one: InputSpec, other: InputSpec) -> bool:
    """Whether two inputs are the same, but for the rounding of sums over the rows of several processes."""
    scales = zip((*one.mean, *one.std), (*other.mean, *other.std), strict=False)
    return one.model_copy(update={"mean": other.mean, "std": other.std}) == other and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in scales
    )


def _described(spec: InputSpec, moments: Moments, given_scale: bool) -> InputSpec:
    found: dict[str, Any] = {"low": moments.low, "high": moments.high}
    if not given_scale:
        found["mean"] = tuple(map(float, moments.mean))
        found["std"] = tuple(float(each) if each > 0 else 1.0 for each in np.sqrt(moments.variance))
    return spec.model_copy(update=found)


def _fingerprint(dataset: Dataset) -> str:
    """Of which row goes where, of the held-out rows, and of what is learned from all rows."""
    digest = hashlib.sha256(repr((dataset.classes, dataset.input.shape, dataset.train_labels is None)).encode())
    for name, rows in dataset.rows.items():
        digest.update(rows.astype("<i8").tobytes())
        labels = dataset.train_labels if name == "train" else dataset.splits[name].labels
        digest.update(np.asarray(labels).astype("<i8").tobytes())
        if name != "train":
            digest.update(digests(dataset.splits[name].x).tobytes())
    if not dataset.partial:
        digest.update(dataset.input.model_dump_json().encode())
    return digest.hexdigest()
