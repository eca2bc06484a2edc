"""Base of the data modules: in-memory tensors, five splits, and a description for the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dubio.models import InputSpec
from dubio.models.inputs import encoding
from dubio.training.data.splits import SplitName
from dubio.training.errors import TrainingError

# One number for all channels or columns, or one for each.
Scale = float | Sequence[float]


@dataclass(frozen=True)
class Rows:
    """Labelled rows as they were read: `x` `[N, *shape]` of any number type, `labels` `[N]` integers."""

    x: npt.NDArray[np.generic]
    labels: npt.NDArray[np.int64]

    def take(self, indices: npt.NDArray[np.int64]) -> Rows:
        return Rows(self.x[indices], self.labels[indices])


class TensorRows(Dataset[tuple[Tensor, Tensor]]):
    """Tensors that hand out a whole batch with one indexing operation.

    A loader calls `__getitems__` once a batch, so no rows are collated one by one; and because rows, not
    batches, are sampled, Lightning can still put its distributed sampler in.
    """

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        self.x = x
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        return self.x[chosen], self.labels[chosen]


def _as_it_is(batch: Any) -> Any:
    """The batch that `__getitems__` made; torch's types know only lists of rows here."""
    return batch


class TensorDataModule(LightningDataModule, ABC):
    """Data that fits in memory.

    A subclass says what it is called (`title`), names its classes, and implements `read`. The base fits the
    normalisation on the training rows alone and hands normalised tensors to the network.

    Args:
        batch_size: Rows a batch.
        seed: Divides the rows and orders the training batches.
    """

    title: str
    classes: tuple[str, ...]

    def __init__(self, batch_size: int = 128, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 2:
            raise TrainingError(
                f"Expected `data.init_args.batch_size` to be at least 2 (BatchNorm needs two rows), "
                f"but got {batch_size}."
            )
        self.batch_size = batch_size
        self.seed = seed

    @abstractmethod
    def read(self) -> dict[SplitName, Rows]:
        """Reads the rows and divides them; called once."""

    @cached_property
    def splits(self) -> dict[SplitName, Rows]:
        """The rows as they were read, by split."""
        return self.read()

    @cached_property
    def input(self) -> InputSpec:
        """Shape and normalisation, fitted on the training rows."""
        return fit_input(self.splits["train"].x)

    def strangers(self) -> dict[str, Tensor]:
        """Raw inputs `[N, *shape]` that are like no training data, by name, where the data set has such."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        _ = self.input  # reads the data, so that a problem with it shows before the training begins

    def raw(self, name: SplitName) -> tuple[Tensor, Tensor]:
        """One split as a user of the service would send it.

        Returns:
            Float32 rows `[N, *shape]`, not normalised, and int64 labels `[N]`.
        """
        rows = self.splits[name]
        return torch.from_numpy(rows.x.astype(np.float32)), torch.from_numpy(rows.labels.astype(np.int64))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return self._loader("test")

    def _loader(self, name: SplitName, shuffle: bool = False) -> DataLoader[tuple[Tensor, Tensor]]:
        x, labels = self.raw(name)
        dataset = TensorRows(encoding.encoder(self.input)(x), labels)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            # BatchNorm cannot train on a single row, so a last batch of one is left out.
            drop_last=shuffle and len(dataset) % self.batch_size == 1,
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(self.seed) if shuffle else None,
        )


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
