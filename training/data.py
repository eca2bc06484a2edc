"""Base of the data modules: in-memory tensors, five splits, and a description for the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models import InputSpec, inputs
from training.errors import TrainingError
from training.splits import SplitName


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
        dataset = TensorRows(inputs.Normalisation.of(self.input)(x), labels)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            # BatchNorm cannot train on a single row, so a last batch of one is left out.
            drop_last=shuffle and len(dataset) % self.batch_size == 1,
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(self.seed) if shuffle else None,
        )


def fit_input(x: npt.NDArray[np.generic]) -> InputSpec:
    """Describes images: mean and std of each channel, smallest and largest value.

    Args:
        x: Training images `[N, C, H, W]`.
    """
    mean_C = x.mean(axis=(0, 2, 3), dtype=np.float64)
    std_C = x.std(axis=(0, 2, 3), dtype=np.float64)
    return InputSpec(
        kind="image",
        shape=tuple(x.shape[1:]),
        mean=tuple(float(mean) for mean in mean_C),
        # A constant channel carries nothing; dividing by 1 keeps it finite.
        std=tuple(float(std) if std > 0 else 1.0 for std in std_C),
        low=float(x.min()),
        high=float(x.max()),
    )
