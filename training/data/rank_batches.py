"""Batches of one of several processes: as many on each of them, and together every row once an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from dubio.training.errors import TrainingError
from dubio.training.splits.shares import Share


class RankBatches(DistributedSampler[list[int]]):
    """Gives lists of positions among the rows of one process, for a loader without a batch size of its own.

    Torch's own sampler repeats rows where they cannot be divided evenly; here batches may differ by a row, and all
    processes have as many, for each step waits for all of them. Lightning leaves a distributed sampler in its place
    and tells it the epoch.

    Args:
        rows: Of all processes together; the shares are as `Share.of` has them.
        share: Of this process.
        batch_size: Most rows of a batch; of 2 there may be 4, for BatchNorm cannot train on a batch of one.
        seed: Of the order in which an epoch shows them; None for the order that they have.

    Raises:
        TrainingError: If there are fewer rows than processes.
    """

    def __init__(self, rows: int, share: Share, batch_size: int, seed: int | None = None) -> None:
        super().__init__(range(rows), share.count, share.rank, shuffle=seed is not None, seed=seed or 0)  # type: ignore[arg-type]
        fewest = rows // share.count
        if not fewest:
            raise TrainingError(
                f"Expected at least one row for each of {share.count} processes, but there are {rows}; start fewer."
            )
        self.own = len(range(share.rank, rows, share.count))
        self.batches = max(1, min(math.ceil(math.ceil(rows / share.count) / batch_size), fewest // 2))

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.own)
        if self.shuffle:
            drawn = np.random.SeedSequence([self.seed, self.epoch, self.rank]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(drawn) >> 1)
            order = torch.randperm(self.own, generator=generator)
        return iter([batch.tolist() for batch in order.tensor_split(self.batches)])

    def __len__(self) -> int:
        return self.batches
