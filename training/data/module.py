"""Bases of the data modules: in-memory tensors in five splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from dubio.models import InputSpec
from dubio.models.checkpoint.data_record import DataRecord, Division
from dubio.models.inputs import encoding
from dubio.models.inputs.text import TokenizerSpec
from dubio.training.data.rank_batches import RankBatches
from dubio.training.errors import TrainingError, UnreadableData
from dubio.training.splits import duplicates as duplicate_rows
from dubio.training.splits import shares
from dubio.training.splits.dataset import Dataset, Examples, Scale
from dubio.training.splits.division import DIVIDING, MEASURED, Purpose, as_trained, describe_division, same_division
from dubio.training.splits.random_splits import IntArray, SplitFractions, SplitName, split
from dubio.training.splits.shares import Share

Sampling = Literal["shuffled", "balanced"]
Duplicates = Literal["keep", "drop"]
Parts = dict[SplitName, IntArray]  # row numbers a split


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

    Attributes:
        trained: What a checkpoint says about its data, which this module then follows; None for a fit.
        purpose: What the rows are for, where a checkpoint is followed.
        ids: Columns that predictions carry over, to say which row is which.
        public: Whether everybody may have the rows anyway, so that a checkpoint may show one.
        own: Row numbers a split, where a checkpoint is followed and the source says itself which row belongs where.
        share: Which of several processes that train together this is; it holds its share of the training rows.
        scale: Mean and std of the inputs, if they are given.
    """

    title: str
    public: ClassVar[bool] = False
    trained: DataRecord | None = None
    purpose: Purpose | None = None
    ids: tuple[str, ...] = ()
    own: Parts | None = None
    share: Share = Share()
    scale: tuple[Scale, Scale] | None = None

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
        self._division: Division | None = None

    @abstractmethod
    def read(self) -> Dataset:
        """Reads the rows, divides them, and describes them."""

    def load(self) -> Dataset:
        """The data set, which is read on the first call."""
        if self._dataset is None:
            dataset = self.read()
            if self.trained is not None:
                dataset = self._as_trained(dataset, self.trained)
            elif self.duplicates == "drop":
                dataset = duplicate_rows.drop(dataset)
            if self.share.count > 1 and dataset.train_labels is None:
                dataset = shares.keep(dataset, self.share)
            self._dataset = dataset
        return self._dataset

    @property
    def undivided(self) -> str | None:
        """Why several processes that train together all need every training row; None where each takes its share."""
        if self.sampling == "balanced":
            return "with `data.init_args.sampling: balanced` each draws its batches from all of them"
        if self.duplicates == "drop":
            return "with `data.init_args.duplicates: drop` each compares all of them"
        return None

    def follow(self, trained: DataRecord, purpose: Purpose) -> None:
        """Encodes, names and divides as a checkpoint says, from now on.

        Args:
            trained: Of the checkpoint.
            purpose: What the rows are for; for predictions the source need have no labels.

        Raises:
            TrainingError: If a setting asks for another encoding.
        """
        settings, used = self.settings(), trained.divisions[0].settings
        for name in sorted((settings.keys() & used.keys()) - {*DIVIDING}):
            if settings[name] != used[name]:
                raise TrainingError(
                    f"Expected `data.init_args.{name}` to be {used[name]}, as the inputs of this checkpoint are "
                    f"encoded, but got {settings[name]}; set it so, or fit again with yours."
                )
        self.trained, self.purpose, self.own, self.share = trained, purpose, None, Share()
        self._dataset = self._division = None

    def is_that_of(self, trained: DataRecord) -> bool:
        """Whether this module was read for the very fit that a checkpoint is of, so that nothing need be read again."""
        return (
            self._dataset is not None
            and shares.same_input(self.input, trained.input)
            and same_division(self.division, trained.divisions[0])
        )

    def refuse_other(self, trained: DataRecord) -> None:
        """Refuses to go on with a checkpoint whose rows these are not, or which divided or encoded them otherwise.

        Raises:
            TrainingError: Says which setting differs.
        """
        if self.trained is not None or self.is_that_of(trained):
            return
        used, own = trained.divisions[0].settings, self.settings()
        differ = [
            f"`data.init_args.{name}` is {own[name]} and was {used[name]}"
            for name in own
            if own[name] != used.get(name, own[name])
        ]
        raise TrainingError(
            f"{self.title}: expected the rows of the checkpoint, divided and encoded as they were for it, but "
            f"{' and '.join(differ) or 'they are others'}: rows that were trained on would be held out now. Set "
            "`data` as it was, or start without `--ckpt_path`."
        )

    def settings(self) -> dict[str, Any]:
        """What divides and encodes the rows, as plain data: a checkpoint keeps it, to say what differs later."""
        return {"seed": self.seed, "duplicates": self.duplicates}

    def reading(self) -> dict[str, Any]:
        """How the source is read beside that, as plain data: a checkpoint keeps it, for another may be read alike."""
        return {}

    @property
    def division(self) -> Division:
        """Which row went where."""
        if self._division is None:
            self._division = describe_division(self.load(), self.title, {**self.settings(), **self.reading()})
        return self._division

    @property
    def divisions(self) -> list[Division]:
        """That of the fit and, if the rows of this source are others, that of this source."""
        if self.trained is None:
            return [self.division]
        known = [each for each in self.trained.divisions if same_division(each, self.division)]
        return list(self.trained.divisions) if known else [self.trained.divisions[0], self.division]

    @property
    def record(self) -> DataRecord:
        """What a checkpoint of a fit on these data has to say about them."""
        return DataRecord(input=self.input, classes=list(self.classes), divisions=[self.division])

    @property
    def tokenizer(self) -> TokenizerSpec | None:
        """That of the checkpoint that is followed, if there is one."""
        return None if self.trained is None else self.trained.input.tokenizer

    def divide_new(
        self, labels_N: IntArray, rows: Mapping[SplitName, IntArray], purpose: Purpose
    ) -> Mapping[SplitName, IntArray]:
        """Row numbers a split, of a source that is not the one of the fit.

        Args:
            labels_N: Class of each row.
            rows: The division that `read` gave.
            purpose: What the rows are for.
        """
        return rows

    def _as_trained(self, dataset: Dataset, trained: DataRecord) -> Dataset:
        whole, rows = dataset.whole(), dataset.rows
        for what, was, now in (
            ("inputs of kind", trained.input.kind, dataset.input.kind),
            ("inputs of shape", list(trained.input.shape), list(whole.x.shape[1:])),
            ("the classes", trained.classes[:10], list(dataset.classes[:10])),
        ):
            if was != now:
                raise UnreadableData(f"{self.title}: expected {what} {was}, as the checkpoint has, but got {now}.")
        together: dict[SplitName, IntArray] = {"test": np.arange(len(whole.labels))}
        dataset = replace(dataset, splits={"test": whole}, parts=together, input=trained.input)
        purpose = self.purpose
        if purpose is None or purpose == "predict":
            return dataset
        return as_trained(
            dataset,
            trained,
            purpose,
            self.title,
            self.settings(),
            own=self.own,
            new=lambda: self.divide_new(whole.labels, rows, purpose),
        )

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
        dataset = self.load()
        if self.share.count > 1 and stage == "fit":
            self._dataset, digests_N = shares.gather(dataset, self.share, self.scale is not None)
            settings = {**self.settings(), **self.reading()}
            self._division = describe_division(self._dataset, self.title, settings, {"train": digests_N})

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
        if self.share.count > 1:
            return self._shared_loader(x, labels, shuffle)
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

    def _shared_loader(self, x: Tensor, labels: Tensor, shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
        """The rows of this process alone."""
        rows = len(labels)
        if shuffle:
            rows = len(self.load().labels("train"))
        else:
            x, labels = (each[self.share.rank :: self.share.count] for each in (x, labels))
        batches = RankBatches(rows, self.share, self.batch_size, self.seed if shuffle else None)
        return DataLoader(
            BatchedTensorDataset(encoding.encoder(self.input)(x), labels),
            batch_size=None,
            sampler=batches,
            collate_fn=_identity,
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
        fractions: See `dubio.training.splits.random_splits.SplitFractions`.
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

    def parts_of(self, labels_N: IntArray, sizes: Mapping[SplitName, int], classes: Sequence[str]) -> Parts:
        """So many rows a split."""
        return split(labels_N, sizes, self.seed, classes)

    def divide(self, labels_N: IntArray, classes: Sequence[str]) -> Parts:
        """Row numbers a split.

        Raises:
            InvalidSplit: If the rows cannot be divided so that every split has every class.
        """
        if self.trained is not None:
            return {"train": np.arange(len(labels_N))}  # the checkpoint says later which row belongs where
        return self.parts_of(labels_N, self.fractions.counts(len(labels_N)), classes)

    def divide_new(
        self, labels_N: IntArray, rows: Mapping[SplitName, IntArray], purpose: Purpose
    ) -> Mapping[SplitName, IntArray]:
        """All rows are for the one purpose; those to calibrate on are divided by the fractions, without `train`."""
        if self.own is not None:
            return self.own
        if purpose != "calibrate":
            return {MEASURED[purpose][0]: np.arange(len(labels_N))}
        counts = self.fractions.counts(len(labels_N), MEASURED[purpose])
        return self.parts_of(labels_N, counts, self.trained.classes if self.trained else ())

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **asdict(self.fractions)}
