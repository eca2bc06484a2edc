"""Bases of the data modules: in-memory tensors in five splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from dubio.models import InputSpec
from dubio.models.inputs import encoding
from dubio.training.data import duplicates as duplicate_rows
from dubio.training.data.dataset import Dataset, Examples
from dubio.training.data.splits import IntArray, SplitFractions, SplitName, split
from dubio.training.errors import TrainingError

Sampling = Literal["shuffled", "balanced"]
Duplicates = Literal["keep", "drop"]


class BatchedTensorDataset(TensorDataset):
    """Tensors that hand out a whole batch with one indexing operation.

    A loader calls `__getitems__` once a batch, so no rows are collated one by one; and because rows, not
    batches, are sampled, Lightning can still put its distributed sampler in.
    """

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        rows = torch.as_tensor(indices)
        return tuple(tensor[rows] for tensor in self.tensors)


def _identity(batch: Any) -> Any:
    """The batch that `__getitems__` made; torch's types know only lists of rows here."""
    return batch


class TensorDataModule(LightningDataModule, ABC):
    """Data that fits in memory.

    A subclass has a `title` and implements `read`. The network gets normalised tensors.

    Args:
        batch_size: Rows a batch.
        seed: Divides the rows and orders the training batches.
        sampling: Which training rows an epoch shows: each once (`shuffled`), or as many, drawn with replacement, from
            all classes equally often (`balanced`).
        duplicates: Whether rows of which another split has an exact duplicate stay where they are (`keep`), or only the
            first of them does, in the order of the splits (`drop`).
    """

    title: str

    def __init__(
        self,
        batch_size: int = 128,
        seed: int = 0,
        sampling: Sampling = "shuffled",
        duplicates: Duplicates = "keep",
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise TrainingError(
                f"Expected `data.init_args.batch_size` to be at least 2 (BatchNorm needs two rows), "
                f"but got {batch_size}."
            )
        self.batch_size = batch_size
        self.seed = seed
        self.sampling = sampling
        self.duplicates = duplicates
        self._dataset: Dataset | None = None

    @abstractmethod
    def read(self) -> Dataset:
        """Reads the rows, divides them, and describes them."""

    def load(self) -> Dataset:
        """The data set, which is read on the first call."""
        if self._dataset is None:
            self._dataset = self.read()
            if self.duplicates == "drop":
                self._dataset = duplicate_rows.drop(self._dataset)
        return self._dataset

    @property
    def splits(self) -> Mapping[SplitName, Examples]:
        """The rows as they were read, by split."""
        return self.load().splits

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.load().classes

    @property
    def input(self) -> InputSpec:
        """Shape and normalisation of the inputs."""
        return self.load().input

    def out_of_distribution(self) -> dict[str, Tensor]:
        """Raw inputs `[N, *shape]` that are like no training data, by name, where the data set has such."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Reads the data, so that a problem with it shows before the training begins."""
        self.load()

    def raw(self, name: SplitName) -> tuple[Tensor, Tensor]:
        """One split as a user of the service would send it.

        Returns:
            Float32 rows `[N, *shape]`, not normalised, and int64 labels `[N]`.
        """
        examples = self.splits[name]
        return torch.from_numpy(examples.x.astype(np.float32)), torch.from_numpy(examples.labels.astype(np.int64))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader("test")

    def _loader(self, name: SplitName, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
        x, labels = self.raw(name)
        generator = torch.Generator().manual_seed(self.seed) if shuffle else None
        balanced = shuffle and self.sampling == "balanced"
        return DataLoader(
            BatchedTensorDataset(encoding.encoder(self.input)(x), labels),
            batch_size=self.batch_size,
            shuffle=shuffle and not balanced,
            sampler=_balanced_sampler(labels, generator) if balanced else None,
            # BatchNorm cannot train on a single row, so a last batch of one is left out.
            drop_last=shuffle and len(labels) % self.batch_size == 1,
            collate_fn=_identity,
            generator=generator,
        )


def _balanced_sampler(labels_N: Tensor, generator: torch.Generator | None) -> WeightedRandomSampler:
    weights_N = 1 / labels_N.bincount().double()[labels_N]
    return WeightedRandomSampler(weights_N.tolist(), len(labels_N), generator=generator)


class FractionDataModule(TensorDataModule, ABC):
    """Rows of one source, divided by fractions.

    Args:
        batch_size: Rows a batch.
        seed: Divides the rows and orders the training batches.
        sampling: Whether an epoch shows each training row once (`shuffled`), or draws as many from all classes equally
            often (`balanced`).
        duplicates: Whether rows of which a split before theirs has an exact duplicate stay (`keep`) or not (`drop`).
        fractions: See `dubio.training.data.splits.SplitFractions`.
    """

    def __init__(
        self,
        batch_size: int = 64,
        seed: int = 0,
        sampling: Sampling = "shuffled",
        duplicates: Duplicates = "keep",
        **fractions: float,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, sampling=sampling, duplicates=duplicates)
        self.fractions = SplitFractions(**fractions)

    def divide(self, labels_N: IntArray, classes: Sequence[str]) -> dict[SplitName, IntArray]:
        """Row numbers a split.

        Raises:
            InvalidSplit: If the rows cannot be divided so that every split has every class.
        """
        return split(labels_N, self.fractions.counts(len(labels_N)), self.seed, classes)
