"""Base of the data modules: in-memory tensors, five splits, and a description for the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from dubio.models import InputSpec
from dubio.models.inputs import encoding
from dubio.training.data.splits import IntArray, SplitFractions, SplitName, split
from dubio.training.errors import TrainingError

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


@dataclass(frozen=True)
class Dataset:
    """What a data module reads.

    Attributes:
        splits: The rows of each split.
        classes: Names of the classes, in the order of the logits.
        input: Shape and normalisation, fitted on the training rows.
    """

    splits: Mapping[SplitName, Examples]
    classes: tuple[str, ...]
    input: InputSpec

    @staticmethod
    def of_numbers(
        splits: Mapping[SplitName, Examples], classes: tuple[str, ...], scale: tuple[Scale, Scale] | None = None
    ) -> Dataset:
        """Images or rows of numbers, described by :func:`fit_input`."""
        return Dataset(splits, classes, fit_input(splits["train"].x, scale))


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
    """

    title: str

    def __init__(self, batch_size: int = 128, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 2:
            raise TrainingError(
                f"Expected `data.init_args.batch_size` to be at least 2 (BatchNorm needs two rows), "
                f"but got {batch_size}."
            )
        self.batch_size = batch_size
        self.seed = seed
        self._dataset: Dataset | None = None

    @abstractmethod
    def read(self) -> Dataset:
        """Reads the rows, divides them, and describes them."""

    def load(self) -> Dataset:
        """The data set, which is read on the first call."""
        if self._dataset is None:
            self._dataset = self.read()
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
        return DataLoader(
            BatchedTensorDataset(encoding.encoder(self.input)(x), labels),
            batch_size=self.batch_size,
            shuffle=shuffle,
            # BatchNorm cannot train on a single row, so a last batch of one is left out.
            drop_last=shuffle and len(labels) % self.batch_size == 1,
            collate_fn=_identity,
            generator=torch.Generator().manual_seed(self.seed) if shuffle else None,
        )


class FractionDataModule(TensorDataModule, ABC):
    """Rows of one source, divided by fractions.

    Args:
        batch_size: Rows a batch.
        seed: Divides the rows and orders the training batches.
        fractions: See :class:`dubio.training.data.splits.SplitFractions`.
    """

    def __init__(self, batch_size: int = 64, seed: int = 0, **fractions: float) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.fractions = SplitFractions(**fractions)

    def divide(self, labels_N: IntArray, classes: Sequence[str]) -> dict[SplitName, IntArray]:
        """Row numbers a split.

        Raises:
            InvalidSplit: If the rows cannot be divided so that every split has every class.
        """
        return split(labels_N, self.fractions.counts(len(labels_N)), self.seed, classes)


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
